//! A configuration file: what it says now, and whether that is news. It does not know what a configuration is for, nor who
//! is shown what is wrong with it.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::config::{self, Config, Problems};

/// A configuration is some kilobytes. What is longer is another file, put there by mistake, and is not read to its end.
const BYTES_MAX: u64 = 16 << 20;

/// A file that a configuration is read from, again and again.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// What the last reading found; `None` before the first.
    seen: Option<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Unreadable(io::ErrorKind),
}

/// Why a file gave no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read the configuration `{path}`: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Wrong(Problems),
}

impl Source {
    pub fn new(path: &Path) -> Source {
        Source { path: path.to_owned(), seen: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// When the file cannot be read or has problems.
    pub fn read(&mut self) -> Result<Config, SourceError> {
        let text = read_text(&self.path);
        self.seen = Some(Seen::of(&text));
        self.parse(text)
    }

    /// As [`Source::read`], or `None` when there is nothing new since the last reading. A file that was unreadable or wrong
    /// and still is so in the same way is nothing new either.
    pub fn read_if_changed(&mut self) -> Option<Result<Config, SourceError>> {
        let text = read_text(&self.path);
        let seen = Some(Seen::of(&text));
        if self.seen == seen {
            return None;
        }
        self.seen = seen;
        Some(self.parse(text))
    }

    fn parse(&self, text: io::Result<String>) -> Result<Config, SourceError> {
        let text = text.map_err(|source| SourceError::Unreadable { path: self.path.clone(), source })?;
        config::parse(&self.path.display().to_string(), &text, cores()).map_err(SourceError::Wrong)
    }
}

impl Seen {
    fn of(text: &io::Result<String>) -> Seen {
        match text {
            Ok(text) => Seen::Text(text.clone()),
            Err(error) => Seen::Unreadable(error.kind()),
        }
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// What `threads = 0` stands for.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\n[[route]]\nname = 'all'\nupstream = 'app'\n\
                        [[upstream]]\nname = 'app'\nservers = ['127.0.0.1:9001']\n";

    fn source(text: &str) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wsgate.toml");
        fs::write(&path, text).unwrap();
        (folder, Source::new(&path))
    }

    #[test]
    fn only_another_text_is_news() {
        let (_folder, mut source) = source(GOOD);
        source.read().unwrap();
        fs::write(source.path(), GOOD).unwrap();
        assert!(source.read_if_changed().is_none());
        fs::write(source.path(), format!("{GOOD}# more")).unwrap();
        assert!(source.read_if_changed().unwrap().is_ok());
        assert!(source.read_if_changed().is_none());
    }

    #[test]
    fn what_is_wrong_is_news_once_and_so_is_its_repair() {
        let (_folder, mut source) = source(GOOD);
        source.read().unwrap();
        fs::write(source.path(), "[gateway]\nthread = 1\n").unwrap();
        assert!(matches!(source.read_if_changed(), Some(Err(SourceError::Wrong(_)))));
        assert!(source.read_if_changed().is_none());
        fs::remove_file(source.path()).unwrap();
        assert!(matches!(source.read_if_changed(), Some(Err(SourceError::Unreadable { .. }))));
        assert!(source.read_if_changed().is_none());
        fs::write(source.path(), GOOD).unwrap();
        assert!(source.read_if_changed().unwrap().is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_a_configuration_is_not_read_to_its_end() {
        let mut endless = Source::new(Path::new("/dev/zero"));
        let error = endless.read().unwrap_err().to_string();
        assert!(error.starts_with("cannot read the configuration `/dev/zero`: "), "{error}");
    }
}
