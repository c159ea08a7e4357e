//! `wsgate run`: the gateway in the foreground.

use std::path::Path;
use std::process::ExitCode;

use super::source;
use crate::config::Config;
use crate::logging;
use crate::server::{self, Start};
use crate::source::Source;

pub fn run(path: &Path, start: Start) -> ExitCode {
    let mut source = Source::new(path);
    match source::read(&mut source) {
        Ok(config) => serve(config, Some(source), start),
        Err(code) => code,
    }
}

/// Serves a configuration that is known to be right. Without a source there is nothing to reload.
pub fn serve(config: Config, source: Option<Source>, start: Start) -> ExitCode {
    let diagnostics = logging::start(&config.log);
    match server::run(config, source, diagnostics, start) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
