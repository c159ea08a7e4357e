//! The exit code, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    wsgate::cli::main()
}
