//! Tells when a path may lead to another text: its file was written or replaced, or a link on the way was swapped, as
//! Kubernetes does with a ConfigMap. It does not read the file, so it does not know whether the text is another.
//!
//! The kernel is asked itself (inotify(7)): what would come between, a crate with a thread of its own, would have to be told
//! the same folders.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

/// Without an event for so long, whoever changes something is done with it.
const QUIET: Duration = Duration::from_millis(200);

/// A folder that is never quiet is not waited for longer.
const UNREST_MAX: Duration = Duration::from_secs(2);

/// Links that are followed, as many as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// How often a watch is set up again because links were swapped meanwhile.
const ATTEMPTS_MAX: usize = 8;

/// What can make a name in a folder lead elsewhere, or nowhere. Writing is told when the file is closed.
const OF_FOLDERS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// The file itself, for a container engine that mounts it alone: its folder is another one then. While it is being written
/// it is not quiet.
const OF_THE_FILE: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CLOSE_WRITE).union(WatchFlags::ATTRIB);

/// Paths that are being watched.
#[derive(Debug)]
pub struct Watch {
    events: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches every folder whose entries decide what the paths lead to, and the files at their ends.
    ///
    /// # Errors
    /// When the kernel has no watches left, or a folder may not be read.
    pub fn begin(paths: &[PathBuf]) -> io::Result<Watch> {
        let paths: Vec<PathBuf> = paths.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
        let ways = || paths.iter().flat_map(|path| folders(path)).collect::<BTreeSet<PathBuf>>();
        let mut last = io::ErrorKind::NotFound.into();
        for _ in 0..ATTEMPTS_MAX {
            let way = ways();
            match Watch::of(&way, &paths) {
                // What was swapped meanwhile may lead through folders that are not watched.
                Ok(watch) if ways() == way => return Ok(watch),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn of(folders: &BTreeSet<PathBuf>, files: &[PathBuf]) -> io::Result<Watch> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        for folder in folders {
            inotify::add_watch(&events, folder, OF_FOLDERS)?;
        }
        for file in files {
            match inotify::add_watch(&events, file, OF_THE_FILE) {
                // A folder tells when it comes; one that may not be read is told of when it is read.
                Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Watch::on(events)
    }

    #[expect(deprecated, reason = "what takes its place is unsafe code; an `OwnedFd` is one descriptor to its end")]
    fn on(events: OwnedFd) -> io::Result<Watch> {
        Ok(Watch { events: AsyncFd::new(events)? })
    }

    /// Until something happened and it is quiet again.
    ///
    /// # Errors
    /// When the kernel does not tell any more.
    pub async fn settled(&self) -> io::Result<()> {
        self.event().await?;
        let end = Instant::now() + UNREST_MAX;
        while Instant::now() < end {
            match timeout_at(end.min(Instant::now() + QUIET), self.event()).await {
                Ok(event) => event?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Which event it is does not matter: the text of the file is compared anyway.
    async fn event(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        loop {
            let mut ready = self.events.readable().await?;
            let read = ready.try_io(|events_of| Ok(rustix::io::read(events_of.get_ref(), &mut events)?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

/// The folders whose entries decide what an absolute path leads to: that of each link on the way and that of the file, or
/// of the first part that is missing.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut watched = BTreeSet::new();
    let mut here = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        match fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                watched.insert(here.clone());
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for name in names(&target).into_iter().rev() {
                    ahead.push_front(name);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && !ahead.is_empty() => here = next,
            // The file, or nothing that could be followed.
            Ok(_) | Err(_) => {
                watched.insert(here);
                break;
            }
        }
    }
    watched
}

fn names(path: &Path) -> VecDeque<OsString> {
    let components = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    components.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// An empty folder by the name that has no link in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    fn check(base: &Path, path: &str, expected: &[&str]) {
        let expected: BTreeSet<PathBuf> =
            expected.iter().map(|name| if name.is_empty() { base.to_owned() } else { base.join(name) }).collect();
        assert_eq!(folders(&base.join(path)), expected);
    }

    #[test]
    fn the_folder_of_the_file_decides_and_so_does_that_of_each_link() {
        let (_folder, base) = folder();
        fs::create_dir_all(base.join("releases/1")).unwrap();
        fs::write(base.join("releases/1/wsgate.toml"), "").unwrap();
        check(&base, "releases/1/wsgate.toml", &["releases/1"]);
        fs::create_dir(base.join("app")).unwrap();
        symlink("../releases/1", base.join("app/current")).unwrap();
        check(&base, "app/current/wsgate.toml", &["app", "releases/1"]);
        symlink(base.join("app/current/wsgate.toml"), base.join("link.toml")).unwrap();
        check(&base, "link.toml", &["", "app", "releases/1"]);
    }

    #[test]
    fn a_config_map_is_watched_where_its_links_are() {
        let (_folder, base) = folder();
        fs::create_dir(base.join("..2024_1")).unwrap();
        fs::write(base.join("..2024_1/wsgate.toml"), "").unwrap();
        symlink("..2024_1", base.join("..data")).unwrap();
        symlink("..data/wsgate.toml", base.join("wsgate.toml")).unwrap();
        check(&base, "wsgate.toml", &["", "..2024_1"]);
    }

    #[test]
    fn what_is_missing_is_watched_where_it_would_come() {
        let (_folder, base) = folder();
        check(&base, "wsgate.toml", &[""]);
        check(&base, "conf/wsgate.toml", &[""]);
        symlink("gone/wsgate.toml", base.join("wsgate.toml")).unwrap();
        check(&base, "wsgate.toml", &[""]);
    }

    #[test]
    fn links_in_a_circle_end() {
        let (_folder, base) = folder();
        symlink("b", base.join("a")).unwrap();
        symlink("a", base.join("b")).unwrap();
        check(&base, "a", &[""]);
    }

    #[tokio::test]
    async fn a_watch_tells_of_a_change_once_it_is_quiet() {
        let (_folder, base) = folder();
        let file = base.join("wsgate.toml");
        let watch = Watch::begin(std::slice::from_ref(&file)).unwrap();
        fs::write(&file, "one").unwrap();
        watch.settled().await.unwrap();
        assert!(futures_util::FutureExt::now_or_never(watch.event()).is_none());
        fs::write(&file, "two").unwrap();
        watch.settled().await.unwrap();
    }

    #[tokio::test]
    async fn what_may_not_be_watched_is_an_error() {
        let (_folder, base) = folder();
        // A file where a folder should be.
        fs::write(base.join("file"), "").unwrap();
        let error = Watch::begin(&[base.join("file/wsgate.toml")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
