//! `wsgate check`: every problem of a configuration at once, or the configuration as it would run.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::source;
use crate::config::{self, Config};
use crate::tls::{self, Files, Known};

pub fn check(path: &Path) -> ExitCode {
    match source::load(path) {
        Ok(config) => {
            if !files_are_good(&config) {
                return ExitCode::FAILURE;
            }
            println!("{}: good", path.display());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

pub fn print(path: &Path) -> ExitCode {
    match source::load(path) {
        Ok(config) => {
            print!("{}", config::print(&config));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// The files that the configuration names for TLS, read as a start reads them: by this user, now.
fn files_are_good(config: &Config) -> bool {
    match tls::load(config, &Files::read(config), &Known::default()) {
        Ok(loaded) => {
            for certificate in loaded.certificates().filter(|certificate| certificate.is_expired(SystemTime::now())) {
                println!("warning: certificate is expired: `{}`", certificate.file.display());
            }
            true
        }
        Err(problems) => {
            for problem in problems {
                eprintln!("error[bad-tls-file]: {problem}\n  = help: {}\n", problem.fault.hint());
            }
            false
        }
    }
}
