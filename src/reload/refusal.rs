//! Why a configuration that was read while the gateway runs is not taken, and how the log says so: a line for each problem,
//! and a last one that the configuration in force stays.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tracing::error;

use crate::config::{Config, Problem, Problems};
use crate::source::SourceError;
use crate::tls::{self, Files};

/// Nothing has changed when there is one.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("a reload can neither bind nor drop a socket; the file {}", listeners(.added, .removed))]
    Listeners { added: String, removed: String },
    #[error("{} of the files for TLS cannot be used", .problems.len())]
    Files { problems: Vec<tls::Problem>, asked: Box<Unmet> },
    #[error("cannot open the access log `{}`: {source}", .path.display())]
    AccessLog { path: PathBuf, source: io::Error },
}

/// A configuration with which nothing is wrong but what the files for TLS said.
pub struct Unmet {
    pub config: Config,
    pub files: Files,
}

/// The files hold private keys.
impl fmt::Debug for Unmet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Unmet").finish_non_exhaustive()
    }
}

impl Refusal {
    /// What the operator can do about it.
    fn hint(&self) -> &'static str {
        match self {
            Refusal::Source(SourceError::Unreadable { .. }) => "make the file readable and reload again",
            Refusal::Source(SourceError::Wrong(_)) => "`wsgate check` shows each problem at its place in the file",
            Refusal::Listeners { .. } => {
                "give every listener its name back, or restart; `wsgate run --upgrade` hands the sockets over"
            }
            Refusal::Files { .. } => "`wsgate check` reads the files too, as the user that runs it",
            Refusal::AccessLog { .. } => "make the folder writable for the gateway's user and reload again",
        }
    }

    /// Records for the operator: all that is wrong, then what it comes to.
    pub fn tell(&self) {
        let hint = self.hint();
        match self {
            Refusal::Source(SourceError::Wrong(problems)) => {
                for problem in problems.as_slice() {
                    tell(problems, problem);
                }
                let count = problems.as_slice().len();
                error!(problems = count, hint, "reload refused, the configuration in force stays");
            }
            Refusal::Files { problems, .. } => {
                tell_files(problems);
                error!(problems = problems.len(), hint, "reload refused, the configuration in force stays");
            }
            Refusal::Source(SourceError::Unreadable { .. }) | Refusal::Listeners { .. } | Refusal::AccessLog { .. } => {
                error!(error = %self, hint, "reload refused, the configuration in force stays");
            }
        }
    }
}

fn tell(problems: &Problems, problem: &Problem) {
    let (line, column) = problems.position(&problem.span);
    let detail = Some(problem.label.as_str()).filter(|label| !label.is_empty());
    let see = problem.context.as_ref().map(|(span, label)| format!("line {}: {label}", problems.position(span).0));
    error!(
        code = problem.code.as_str(),
        file = problems.name(),
        line,
        column,
        detail,
        see,
        hint = problem.hint,
        "{}",
        problem.message
    );
}

pub fn tell_files(problems: &[tls::Problem]) {
    for problem in problems {
        let (key, file) = (&problem.key, problem.file.display());
        error!(key, %file, hint = problem.fault.hint(), "{}", problem.fault);
    }
}

fn listeners(added: &str, removed: &str) -> String {
    match (added, removed) {
        (added, "") => format!("adds `{added}`"),
        ("", removed) => format!("removes `{removed}`"),
        (added, removed) => format!("adds `{added}` and removes `{removed}`"),
    }
}
