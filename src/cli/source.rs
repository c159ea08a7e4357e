//! Reads a configuration file and shows what is wrong with it. It does not know what the configuration is for.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config, Look};

pub const DEFAULT_PATH: &str = "/etc/wsgate/wsgate.toml";

/// The configuration, or the exit code after its problems were shown on standard error.
///
/// # Errors
/// When the file cannot be read or has problems.
pub fn load(path: &Path) -> Result<Config, ExitCode> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: cannot read the configuration `{}`: {error}", path.display());
            return Err(ExitCode::FAILURE);
        }
    };
    config::parse(&path.display().to_string(), &text, cores()).map_err(|problems| {
        let look = if std::io::stderr().is_terminal() { Look::Ansi } else { Look::Plain };
        eprint!("{}", problems.render(look));
        ExitCode::FAILURE
    })
}

pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
