//! `wsgate run`: the gateway in the foreground.

use std::path::Path;
use std::process::ExitCode;

use super::source;
use crate::config::Config;
use crate::{logging, server};

pub fn run(path: &Path) -> ExitCode {
    match source::load(path) {
        Ok(config) => serve(config),
        Err(code) => code,
    }
}

/// Serves a configuration that is known to be right.
pub fn serve(config: Config) -> ExitCode {
    logging::start(&config.log);
    match server::run(config) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
