//! `wsgate check`: every problem of a configuration at once, or the configuration as it would run.

use std::path::Path;
use std::process::ExitCode;

use super::source;
use crate::config;

pub fn check(path: &Path) -> ExitCode {
    match source::load(path) {
        Ok(config) => {
            println!("{}: good", path.display());
            for pending in &config.not_in_force {
                println!("not in force in this release: {}: {}", pending.key, pending.meanwhile);
            }
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
