//! The command line: which verb, which file, which exit code. What a verb does lives in its own file.

mod check;
mod demo;
mod explain;
mod probe;
mod run;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::server::Start;

/// A gateway that enforces which WebSocket protocol versions may pass.
#[derive(Parser)]
#[command(name = "wsgate", version, arg_required_else_help = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Same as `check`, for nginx habits.
    #[arg(short = 't')]
    test: bool,
    /// The configuration for `-t`.
    #[arg(short, long, value_name = "FILE", requires = "test")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve in the foreground until a signal ends it.
    Run {
        #[command(flatten)]
        file: File,
        /// Take the listening sockets over from the running process: start this, then send SIGQUIT to that one.
        #[arg(long)]
        upgrade: bool,
    },
    /// Show every problem of a configuration; exit code 0 when there is none, 1 when there are.
    Check {
        #[command(flatten)]
        file: File,
        /// Show the configuration as it would run, with all defaults.
        #[arg(long)]
        print: bool,
    },
    /// Take a raw request head through routing and policy, without a network, and show each step and the answer; exit
    /// code 0 when it would pass, 1 when it would be refused.
    Explain {
        #[command(flatten)]
        file: File,
        /// The listener that the request would come in on; the first one by default.
        #[arg(short, long, value_name = "NAME")]
        listener: Option<String>,
        /// A file with the head, or standard input.
        head: Option<PathBuf>,
    },
    /// Find out which versions of the protocol a server speaks, by real handshakes. Only against servers of your own: it opens
    /// eight connections and says things that no client should; exit code 0 for a right version-13 server, else 1.
    Probe(probe::Arguments),
    /// Try the gateway with an embedded echo backend and a page to play with; needs no file.
    Demo(demo::Arguments),
}

#[derive(clap::Args)]
struct File {
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = source::DEFAULT_PATH)]
    path: PathBuf,
}

/// 2 is what clap itself exits with when the command line is wrong.
const USAGE: u8 = 2;

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.verb {
        Some(Verb::Run { file, upgrade: false }) => run::run(&file.path, Start::Fresh),
        Some(Verb::Run { file, upgrade: true }) => run::run(&file.path, Start::TakeOver),
        Some(Verb::Check { file, print: true }) => check::print(&file.path),
        Some(Verb::Check { file, print: false }) => check::check(&file.path),
        Some(Verb::Explain { file, listener, head }) => {
            explain::explain(&file.path, listener.as_deref(), head.as_deref())
        }
        Some(Verb::Probe(arguments)) => probe::probe(&arguments),
        Some(Verb::Demo(arguments)) => demo::demo(&arguments),
        None if arguments.test => check::check(&arguments.config.unwrap_or_else(|| source::DEFAULT_PATH.into())),
        None => ExitCode::from(USAGE),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn check_has_the_alias_of_nginx() {
        let arguments = Arguments::try_parse_from(["wsgate", "-t", "-c", "x.toml"]).unwrap();
        assert!(arguments.test && arguments.config.is_some_and(|path| path.ends_with("x.toml")));
        assert!(Arguments::try_parse_from(["wsgate", "-c", "x.toml"]).is_err());
    }
}
