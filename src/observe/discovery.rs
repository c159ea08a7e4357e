//! What is counted of names of servers. It does not know who is asked, nor when.

use std::time::SystemTime;

use prometheus::{IntCounterVec, IntGaugeVec};

use super::families::{self, Define};
use super::metrics::{forget, unix_seconds};

/// By upstream and name, as the configuration writes it. Outlives every configuration.
pub struct Discovery {
    pub(super) lookups: IntCounterVec,
    pub(super) servers: IntGaugeVec,
    pub(super) last_success: IntGaugeVec,
}

/// How asking for a name ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Servers,
    /// Name servers say that nobody is there.
    Nobody,
    /// They said nothing that could be used.
    Failure,
}

impl Heard {
    pub const ALL: [Heard; 3] = [Heard::Servers, Heard::Nobody, Heard::Failure];

    /// The `result` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Heard::Servers => "success",
            Heard::Nobody => "empty",
            Heard::Failure => "failure",
        }
    }
}

impl Discovery {
    pub(super) fn new(define: &mut Define) -> Discovery {
        Discovery {
            lookups: define.counter(families::DISCOVERY_LOOKUPS),
            servers: define.gauge(families::DISCOVERY_SERVERS),
            last_success: define.gauge(families::DISCOVERY_LAST_SUCCESS),
        }
    }

    /// Shows every series of a name, before anything is known of it.
    pub fn follow(&self, upstream: &str, name: &str) {
        for heard in Heard::ALL {
            self.lookups.with_label_values(&[upstream, name, heard.as_str()]);
        }
        self.servers.with_label_values(&[upstream, name]);
        self.last_success.with_label_values(&[upstream, name]);
    }

    pub fn heard(&self, upstream: &str, name: &str, heard: Heard, now: SystemTime) {
        self.lookups.with_label_values(&[upstream, name, heard.as_str()]).inc();
        match heard {
            // That nobody is there is an answer.
            Heard::Servers | Heard::Nobody => {
                self.last_success.with_label_values(&[upstream, name]).set(unix_seconds(now));
            }
            Heard::Failure => {}
        }
    }

    /// So many servers does a name stand for.
    pub fn stands_for(&self, upstream: &str, name: &str, servers: usize) {
        self.servers.with_label_values(&[upstream, name]).set(servers as i64);
    }

    /// No configuration has the name in the upstream any more.
    pub fn forget(&self, upstream: &str, name: &str) {
        let labels = [("upstream", upstream), ("name", name)];
        forget(&self.lookups, &labels);
        forget(&self.servers, &labels);
        forget(&self.last_success, &labels);
    }
}
