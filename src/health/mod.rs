//! Active checks: asks each server of now, again and again, how it is, and lets its standing know. It does not decide what
//! follows from an answer, nor which servers there are.

mod check;
mod schedule;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::address::Address;
use crate::config::model::HealthCheck;
use crate::generation::{Current, Generation, Upstream, UpstreamHandle};
use crate::lifecycle::Lifecycle;
use crate::tls::Connector;
use check::{Outcome, Target};
use schedule::{Schedule, ServerKey};

/// Checks at the same time, of all upstreams together. Each holds a descriptor.
const CHECKS_MAX: usize = 256;

/// How soon a new configuration, or a name that moved, is followed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// All servers, one check of each at a time.
pub struct Checker {
    current: Arc<Current>,
    schedule: Schedule,
    /// The servers that the schedule is of.
    seen: Vec<Seen>,
}

/// The servers of an upstream, and how they are spoken to, of one configuration. It does not hold that configuration, which may have
/// been replaced.
#[derive(Clone)]
struct Seen {
    upstream: Arc<UpstreamHandle>,
    /// `None` where they are spoken to plainly.
    connector: Option<Arc<Connector>>,
}

impl Seen {
    fn new(upstream: &Upstream, generation: &Generation) -> Seen {
        let upstream = upstream.now();
        Seen { connector: generation.secured.upstream(&upstream.cluster.rules().name), upstream }
    }
}

/// A check that is over.
struct Done {
    key: ServerKey,
    upstream: Arc<UpstreamHandle>,
    begun: Instant,
    outcome: Outcome,
}

impl Checker {
    pub fn new(current: Arc<Current>) -> Checker {
        Checker { current, schedule: Schedule::default(), seen: Vec::new() }
    }

    /// Until the gateway takes no new work, because of a drain or because another process has its sockets.
    pub async fn serve(mut self, lifecycle: &Lifecycle) {
        let mut stopping = lifecycle.watch_accepting();
        let mut running = JoinSet::new();
        loop {
            self.follow(&self.current.load());
            let latest = Instant::now() + LOOK_EVERY;
            let next = self.begin_due(&mut running).map_or(latest, |due| due.min(latest));
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                Some(Ok(done)) = running.join_next() => self.finish(done),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Takes the servers of now for those of before. Those that stay keep their turn.
    fn follow(&mut self, generation: &Generation) {
        let now: Vec<Seen> = generation.upstreams.iter().map(|upstream| Seen::new(upstream, generation)).collect();
        let is_same = now.len() == self.seen.len();
        let is_same = is_same && now.iter().zip(&self.seen).all(|(a, b)| Arc::ptr_eq(&a.upstream, &b.upstream));
        if is_same {
            self.seen = now;
            return;
        }
        let upstreams = now.iter().map(|seen| &seen.upstream);
        let checked = upstreams.filter(|upstream| upstream.cluster.rules().health.check != HealthCheck::Off);
        let servers = checked.flat_map(|upstream| {
            let rules = upstream.cluster.rules();
            let key = |address: &Address| (rules.name.clone(), address.clone());
            upstream.cluster.servers().iter().map(move |server| (key(server.address()), rules.health.interval))
        });
        self.schedule.follow(servers, Instant::now().into_std(), &mut fastrand::Rng::new());
        self.seen = now;
    }

    /// Returns when the next one is due that has not begun.
    fn begin_due(&mut self, running: &mut JoinSet<Done>) -> Option<Instant> {
        while running.len() < CHECKS_MAX {
            let Some(key) = self.schedule.take_due(Instant::now().into_std()) else {
                return self.schedule.next_due().map(Instant::from_std);
            };
            let Some((seen, address)) = self.find(&key) else {
                self.schedule.forget(&key);
                continue;
            };
            let Seen { upstream, connector } = seen;
            running.spawn(async move {
                let begun = Instant::now();
                let (connector, rules) = (connector.as_deref(), upstream.cluster.rules());
                let outcome = caught(check::run(&Target { server: &address, connector, rules })).await;
                Done { key, upstream, begun, outcome }
            });
        }
        // The next one that is over makes room.
        None
    }

    fn find(&self, key: &ServerKey) -> Option<(Seen, Address)> {
        let seen = self.seen.iter().find(|seen| seen.upstream.cluster.rules().name == key.0)?;
        Some((seen.clone(), key.1.clone()))
    }

    fn finish(&mut self, done: Done) {
        let Done { key, upstream, begun, outcome } = done;
        let rules = upstream.cluster.rules();
        let now = Instant::now();
        if !self.schedule.done(&key, rules.health.interval, begun.into_std(), &mut fastrand::Rng::new()) {
            // It is not checked any more, and perhaps not even known.
            return;
        }
        let servers = upstream.cluster.servers();
        let Some(index) = servers.iter().position(|server| *server.address() == key.1) else { return };
        let (upstream_name, server) = (&rules.name, &key.1);
        match outcome {
            Outcome::Passed => upstream.checked(index, None, now - begun, now.into_std()),
            Outcome::Failed { failure, detail } => {
                let reason = failure.as_str();
                if upstream.cluster.servers()[index].is_up() {
                    tracing::info!(upstream = upstream_name, %server, reason, detail, "check failed");
                } else {
                    tracing::debug!(upstream = upstream_name, %server, reason, detail, "check failed");
                }
                upstream.checked(index, Some(failure), now - begun, now.into_std());
            }
            Outcome::NotMade { detail } => {
                tracing::error!(upstream = upstream_name, %server, detail, "the gateway cannot check anything");
            }
        }
    }
}

/// A check that panics is over as well, or its server would never be checked again.
async fn caught(check: impl Future<Output = Outcome>) -> Outcome {
    let panicked = |_| Outcome::NotMade { detail: "the check panicked".to_owned() };
    AssertUnwindSafe(check).catch_unwind().await.unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::config::{self, model};
    use crate::generation::Lasting;
    use crate::observe::{AccessLog, Metrics, Observer};
    use crate::tls;

    fn current(server: &str) -> Arc<Current> {
        let text = format!(
            "[[listener]]\nname = 'l'\nlisten = '127.0.0.1:0'\n[[route]]\nname = 'r'\nupstream = 'u'\n\
             [[upstream]]\nname = 'u'\nservers = ['{server}']\nhealth = {{ check = 'tcp', interval = '1s' }}\n"
        );
        let config = config::parse("test.toml", &text, NonZeroUsize::MIN).unwrap();
        let metrics = Arc::new(Metrics::new());
        let access_log = AccessLog::open(&model::AccessLog::Off, metrics.access_log_dropped.clone()).unwrap();
        let loaded = tls::load(&config, &tls::Files::default(), &tls::Known::default()).ok().unwrap();
        Arc::new(Current::new(config, loaded, Lasting::new(Arc::new(Observer::new(metrics, access_log)))))
    }

    #[tokio::test]
    async fn a_check_that_panics_is_over() {
        let outcome = caught(async { panic!("on purpose") }).await;
        assert!(matches!(outcome, Outcome::NotMade { .. }), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_checks_until_another_process_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let current = current(&listener.local_addr().unwrap().to_string());
        let lifecycle = Lifecycle::default();
        let checks = Checker::new(current).serve(&lifecycle);
        tokio::pin!(checks);
        for _ in 0..3 {
            tokio::select! {
                () = &mut checks => panic!("it ends by itself"),
                accepted = listener.accept() => drop(accepted.unwrap()),
            }
        }
        lifecycle.hand_over();
        checks.await;
    }
}
