//! Asks for names of servers when it is time, and puts what name servers say into the upstreams. When that is, and what an answer
//! stands for, is decided in `names`. It touches no tunnel.

mod dns;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::config::model;
use crate::config::model::Location;
use crate::generation::{Current, Lasting};
use crate::names::answer::Outcome;
use crate::names::{Answer, Found, Standing};
use crate::observe::discovery::Heard;
pub use dns::{Dns, Failure};

/// Names that are asked for at a time.
const ASKED_MAX: usize = 64;

/// How long it sleeps where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Keeps up with the names of the configuration in force.
pub struct Discovery {
    current: Arc<Current>,
    /// A configuration came into force.
    replaced: Notify,
    /// Upstream and name of every series that is shown.
    shown: Mutex<HashSet<(String, Location)>>,
}

/// What is being asked for.
#[derive(Default)]
struct Asking {
    tasks: JoinSet<Outcome<Found, Failure>>,
    names: HashMap<Id, Location>,
}

/// Asks for the names of a configuration that nobody asked for before, for as long as `dns.timeout` at most, so that the first
/// requests find servers. What is not answered by then is asked for again by [`Discovery::serve`].
pub async fn ask_new(config: &Config, lasting: &Lasting) {
    lasting.names.expect(names(config), Instant::now());
    let unasked = lasting.names.unasked();
    if unasked.is_empty() {
        return;
    }
    let dns = match Dns::new(&config.dns) {
        Ok(dns) => dns,
        Err(error) => return error!(%error, "cannot ask name servers"),
    };
    let dns = &dns;
    let mut asked: FuturesUnordered<_> =
        unasked.into_iter().map(|name| async move { (dns.find(&name, &[]).await, name) }).collect();
    let all = async {
        while let Some((outcome, name)) = asked.next().await {
            take(config, lasting, &name, outcome);
        }
    };
    if tokio::time::timeout(config.dns.timeout, all).await.is_err() {
        warn!(names = lasting.names.unasked().len(), "not every name is known in time, going on without");
    }
}

/// As [`ask_new`], where there is no runtime yet.
pub fn ask_at_start(config: &Config, lasting: &Lasting) {
    if names(config).next().is_none() {
        return;
    }
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(ask_new(config, lasting)),
        Err(error) => error!(%error, "cannot ask name servers before the start"),
    }
}

impl Discovery {
    pub fn new(current: Arc<Current>) -> Discovery {
        Discovery { current, replaced: Notify::new(), shown: Mutex::default() }
    }

    pub fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// Another configuration came into force.
    pub fn replaced(&self) {
        self.replaced.notify_one();
    }

    /// For as long as the process lives.
    pub async fn serve(&self) {
        let (mut asking, mut dns) = (Asking::default(), None);
        let mut rules = self.current.load().config.dns.clone();
        loop {
            self.follow(&mut rules);
            self.ask_due(&mut asking, &mut dns);
            let due = self.next_due(&asking);
            tokio::select! {
                Some(done) = asking.tasks.join_next_with_id() => self.finish(&mut asking, done),
                () = self.replaced.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    /// The names of the configuration in force, and those of one that is about to be.
    fn follow(&self, rules: &mut model::Dns) {
        let (generation, now) = (self.current.load(), Instant::now());
        let (config, names) = (&generation.config, &self.current.lasting.names);
        names.follow(self::names(config), now);
        if *rules != config.dns {
            // Another name server may say something else.
            names.ask_all(now);
            rules.clone_from(&config.dns);
        }
        self.show(config);
        self.current.refresh_servers();
    }

    /// Every series of the names that are followed, and none of those that are gone.
    fn show(&self, config: &Config) {
        let metrics = &self.current.observer().metrics().discovery;
        let wanted: HashSet<(String, Location)> = config
            .upstreams
            .iter()
            .flat_map(|upstream| upstream.servers.iter().map(|server| (upstream.name.clone(), server.address.clone())))
            .filter(|(_, name)| name.is_name())
            .collect();
        let mut shown = self.shown.lock();
        for (upstream, name) in shown.difference(&wanted) {
            metrics.forget(upstream, &name.to_string());
        }
        for (upstream, name) in &wanted {
            let label = name.to_string();
            metrics.follow(upstream, &label);
            metrics.stands_for(upstream, &label, self.current.lasting.names.servers(name).len());
        }
        *shown = wanted;
    }

    fn ask_due(&self, asking: &mut Asking, dns: &mut Option<Arc<Dns>>) {
        let (generation, now) = (self.current.load(), Instant::now());
        let rules = &generation.config.dns;
        let due = self.current.lasting.names.due();
        for (name, _) in due.into_iter().filter(|(_, due)| *due <= now) {
            if asking.names.len() >= ASKED_MAX {
                return;
            }
            if asking.has(&name) {
                continue;
            }
            let dns = match dns.take().filter(|dns| !dns.is_outdated(rules)) {
                Some(known) => dns.insert(known),
                None => match Dns::new(rules) {
                    Ok(new) => dns.insert(Arc::new(new)),
                    Err(failure) => {
                        take(&generation.config, &self.current.lasting, &name, Err(failure));
                        continue;
                    }
                },
            };
            asking.begin(name.clone(), Arc::clone(dns), self.current.lasting.names.servers(&name));
        }
    }

    fn next_due(&self, asking: &Asking) -> Instant {
        let idle = Instant::now() + IDLE;
        if asking.names.len() >= ASKED_MAX {
            return idle;
        }
        let due = self.current.lasting.names.due().into_iter();
        due.filter(|(name, _)| !asking.has(name)).map(|(_, due)| due).min().unwrap_or(idle)
    }

    fn finish(&self, asking: &mut Asking, done: Result<(Id, Outcome<Found, Failure>), JoinError>) {
        let (id, outcome) = match done {
            Ok(done) => done,
            Err(error) => {
                error!(%error, "asking for a name failed");
                (error.id(), Err(Failure::Late))
            }
        };
        if let Some(name) = asking.names.remove(&id) {
            take(&self.current.load().config, &self.current.lasting, &name, outcome);
        }
    }
}

impl Asking {
    fn begin(&mut self, name: Location, dns: Arc<Dns>, before: Arc<[Found]>) {
        let asked = name.clone();
        let task = self.tasks.spawn(async move { dns.find(&asked, &before).await });
        self.names.insert(task.id(), name);
    }

    fn has(&self, name: &Location) -> bool {
        self.names.values().any(|asked| asked == name)
    }
}

/// The names that servers are given by.
fn names(config: &Config) -> impl Iterator<Item = &Location> {
    let servers = config.upstreams.iter().flat_map(|upstream| &upstream.servers);
    servers.map(|server| &server.address).filter(|address| address.is_name())
}

/// Every change is said once.
fn take(config: &Config, lasting: &Lasting, name: &Location, outcome: Outcome<Found, Failure>) {
    let (heard, answer, failure) = match outcome {
        Ok(answer @ Answer::Some { .. }) => (Heard::Servers, Some(answer), None),
        Ok(answer @ Answer::Nobody { .. }) => (Heard::Nobody, Some(answer), None),
        Err(failure) => (Heard::Failure, None, Some(failure)),
    };
    let Some(step) = lasting.names.handle_answer(name, answer, &config.dns, Instant::now(), fastrand::f64()) else {
        return;
    };
    let metrics = &lasting.observer.metrics().discovery;
    let servers = lasting.names.servers(name).len();
    for upstream in &config.upstreams {
        if upstream.servers.iter().any(|server| server.address == *name) {
            metrics.heard(&upstream.name, &name.to_string(), heard, SystemTime::now());
            metrics.stands_for(&upstream.name, &name.to_string(), servers);
        }
    }
    match (step.turned, failure) {
        (Some(Standing::Failing), Some(error)) => {
            warn!(%name, %error, servers, "name servers fail, what is known is kept");
        }
        (Some(Standing::Empty), _) if servers > 0 => {
            warn!(%name, servers, kept_for = ?config.dns.empty_after, "nobody is there by name, servers are kept for a while");
        }
        (Some(Standing::Empty), _) => warn!(%name, "nobody is there by name"),
        (Some(Standing::Answering), _) if !step.is_change => info!(%name, servers, "name servers answer again"),
        _ => {}
    }
    if step.is_change {
        info!(%name, servers, added = listed(&step.added), removed = listed(&step.removed), "servers changed by name");
    }
}

fn listed(addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
