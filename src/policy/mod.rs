//! Who may pass: an upgrade or a plain request in, a [`Permit`] or a [`Reason`] out. It does not know which server will be
//! picked, how many tunnels are open, or how the answer travels.

mod checks;
mod route;

pub use checks::{CHECKS, Check, Outcome};
pub use route::Route;

use crate::config::Config;
use crate::config::model::PlainHttp;
use crate::dialect::Dialect;
use crate::handshake::request::{Head, Intent, nominates_protected_field};
use crate::handshake::{Asked, VersionList};
use crate::reason::Reason;

/// The rules of one configuration.
#[derive(Debug)]
pub struct Policy {
    routes: Vec<Route>,
}

/// The right to reach a backend. Only [`Policy::decide`] makes one, and whoever picks a server asks for it.
#[derive(Debug)]
pub struct Permit {
    route: usize,
    /// The version that the client asked for, and that the backend is asked for; `None` on a plain request.
    asked: Option<Asked>,
    /// What the client speaks, where the route accepts it.
    speaks: Option<Dialect>,
}

impl Permit {
    /// Index of the route.
    pub fn route(&self) -> usize {
        self.route
    }

    pub fn asked(&self) -> Option<Asked> {
        self.asked
    }

    /// `None` on a plain request, and where the client's version is only observed.
    pub fn speaks(&self) -> Option<Dialect> {
        self.speaks
    }
}

impl Decision {
    /// The verdict, which can be taken once: there is one permit for one request.
    pub fn take_verdict(&mut self) -> Result<Permit, Reason> {
        std::mem::replace(&mut self.verdict, Err(Reason::Draining))
    }
}

/// What was decided about one request.
#[derive(Debug)]
pub struct Decision {
    /// Index of the route, if one matched.
    pub route: Option<usize>,
    /// What a stricter route would have refused, in the order of the checks.
    pub noted: Vec<Reason>,
    pub verdict: Result<Permit, Reason>,
}

impl Policy {
    pub fn new(config: &Config) -> Policy {
        Policy { routes: config.routes.iter().map(Route::new).collect() }
    }

    pub fn route(&self, index: usize) -> &Route {
        &self.routes[index]
    }

    /// The versions that a client is told after a refusal, where it is told any.
    pub fn advertised(&self, decision: &Decision, reason: Reason) -> Option<&VersionList> {
        let route = decision.route.filter(|_| reason.lists_versions())?;
        Some(self.routes[route].versions())
    }

    pub fn decide(&self, listener: usize, head: &Head<'_>) -> Decision {
        self.decide_and_tell(listener, head, |_, _| {})
    }

    /// As [`Policy::decide`], with a word about each check: what `wsgate explain` shows.
    pub fn decide_and_tell(&self, listener: usize, head: &Head<'_>, mut tell: impl FnMut(&Check, Outcome)) -> Decision {
        let Some(index) = self.routes.iter().position(|route| route.matches(listener, head)) else {
            return Decision { route: None, noted: Vec::new(), verdict: Err(Reason::NoRoute) };
        };
        let route = &self.routes[index];
        let mut decision = Decision { route: Some(index), noted: Vec::new(), verdict: Err(Reason::PlainHttpRefused) };
        match head.intent() {
            Intent::Plain if route.rules().plain_http == PlainHttp::Refuse => {}
            Intent::Plain if nominates_protected_field(&head.fields) => decision.verdict = Err(Reason::HeaderNominated),
            Intent::Plain => decision.verdict = Ok(Permit { route: index, asked: None, speaks: None }),
            Intent::Upgrade => {
                let asked = head.asked();
                for check in &CHECKS {
                    let outcome = check.run(route, asked, head);
                    tell(check, outcome);
                    match outcome {
                        Outcome::Passed => {}
                        Outcome::Noted(reason) => decision.noted.push(reason),
                        Outcome::Refused(reason) => {
                            decision.verdict = Err(reason);
                            return decision;
                        }
                    }
                }
                let speaks = asked.dialect().filter(|dialect| route.accepts(*dialect));
                decision.verdict = Ok(Permit { route: index, asked: Some(asked), speaks });
            }
        }
        decision
    }
}

#[cfg(test)]
pub mod tests;
