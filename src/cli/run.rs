//! `wsgate run`: the gateway in the foreground.

use std::path::Path;
use std::process::ExitCode;

use super::source;
use crate::config::Config;
use crate::source::Source;
use crate::{logging, server};

pub fn run(path: &Path) -> ExitCode {
    let mut source = Source::new(path);
    match source::read(&mut source) {
        Ok(config) => serve(config, Some(source)),
        Err(code) => code,
    }
}

/// Serves a configuration that is known to be right. Without a source there is nothing to reload.
pub fn serve(config: Config, source: Option<Source>) -> ExitCode {
    let diagnostics = logging::start(&config.log);
    match server::run(config, source, diagnostics) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
