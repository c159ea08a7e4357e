//! Reads a configuration file for a verb and shows what is wrong with it.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Look};
use crate::source::{Source, SourceError};

pub const DEFAULT_PATH: &str = "/etc/wsgate/wsgate.toml";

/// The configuration, or the exit code after its problems were shown on standard error.
///
/// # Errors
/// When the file cannot be read or has problems.
pub fn load(path: &Path) -> Result<Config, ExitCode> {
    read(&mut Source::new(path))
}

/// As [`load`], from a file that is read again later.
///
/// # Errors
/// When the file cannot be read or has problems.
pub fn read(source: &mut Source) -> Result<Config, ExitCode> {
    source.read().map_err(|error| {
        match error {
            SourceError::Unreadable { .. } => eprintln!("error: {error}"),
            SourceError::Wrong(problems) => {
                let look = if std::io::stderr().is_terminal() { Look::Ansi } else { Look::Plain };
                eprint!("{}", problems.render(look));
            }
        }
        ExitCode::FAILURE
    })
}
