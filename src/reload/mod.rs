//! Reads the configuration again while the gateway runs. A new generation is built whole and takes the place of the old one,
//! or nothing changes and the log says why. It does not know who asks, nor what a configuration is for.

mod fixed;
mod refusal;
mod watch;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::config::model::{AccessLog, OnRemove};
use crate::discover::{self, Discovery};
use crate::generation::{Current, Generation, RouteHandle};
use crate::lifecycle::{Lifecycle, ask_to_end};
use crate::logging::Diagnostics;
use crate::reason::Reason;
use crate::source::{Source, SourceError};
pub use fixed::Fixed;
use refusal::Refusal;
use watch::Watch;

pub struct Reloader {
    /// Locked for the length of a reload, so that there is one at a time.
    source: Mutex<Source>,
    fixed: Fixed,
    current: Arc<Current>,
    discovery: Arc<Discovery>,
    diagnostics: Diagnostics,
}

/// Whether the file had something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nothing,
    Something,
}

/// Says to whoever asks that there is no file to read again.
pub async fn decline(lifecycle: &Lifecycle) {
    loop {
        lifecycle.reload_asked().await;
        info!("nothing to reload: the configuration is built in");
    }
}

/// Keys that have no effect yet, as a start and a reload name them.
pub fn tell_not_in_force(config: &Config) {
    for pending in &config.not_in_force {
        warn!(key = pending.key, "not in force in this release: {}", pending.meanwhile);
    }
}

/// Until what is watched changed and is quiet again. Never, if nothing is watched.
async fn settled(watch: Option<&Watch>) {
    if let Some(watch) = watch {
        match watch.settled().await {
            Ok(()) => return,
            Err(error) => error!(%error, "the configuration file is watched no more, only SIGHUP reloads it"),
        }
    }
    std::future::pending::<()>().await;
}

/// Asks the tunnels of a route that is gone to end, while the reload goes on.
fn close_tunnels(route: &RouteHandle, spread: Duration) {
    let members = route.roster.close(Reason::RouteRemoved);
    info!(route = route.name, tunnels = members.len(), "closing the tunnels of a route that is gone");
    tokio::spawn(async move { ask_to_end(Reason::RouteRemoved, spread, &members).await });
}

impl Reloader {
    pub fn new(source: Source, fixed: Fixed, discovery: Arc<Discovery>, diagnostics: Diagnostics) -> Reloader {
        let current = Arc::clone(discovery.current());
        Reloader { source: Mutex::new(source), fixed, current, discovery, diagnostics }
    }

    /// Reloads whenever it is asked for, and when the file changes if the configuration in force says so. One reload after
    /// the other; asked several times meanwhile is asked once.
    pub async fn serve(self: Arc<Self>, lifecycle: &Lifecycle) {
        loop {
            // Begun anew after each change, because links may lead elsewhere now, or nobody wants to know any more.
            let watch = self.watch();
            // It does not tell of what changed before it stood.
            if watch.is_some() && !lifecycle.is_draining() {
                let _reloading = lifecycle.notifier().reloading();
                if self.run(Reloader::reload_if_changed).await == News::Something {
                    continue;
                }
            }
            tokio::select! {
                () = lifecycle.reload_asked() => {
                    if lifecycle.is_draining() {
                        info!("reload ignored: the gateway is going away");
                    } else {
                        let _reloading = lifecycle.notifier().reloading();
                        self.run(Reloader::reload).await;
                    }
                }
                () = settled(watch.as_ref()) => {}
            }
        }
    }

    /// A disk that does not answer holds nobody else up, and a panic does not end the reloads to come.
    async fn run(self: &Arc<Self>, reload: fn(&Reloader) -> News) -> News {
        let reloader = Arc::clone(self);
        tokio::task::spawn_blocking(move || reload(&reloader)).await.unwrap_or_else(|error| {
            error!(%error, "reload failed");
            self.current.observer().metrics().reload_failed();
            News::Something
        })
    }

    fn reload(&self) -> News {
        let mut source = self.source.lock();
        let read = source.read();
        self.take(read);
        News::Something
    }

    fn reload_if_changed(&self) -> News {
        let mut source = self.source.lock();
        let Some(read) = source.read_if_changed() else {
            debug!("the configuration file has nothing new");
            return News::Nothing;
        };
        self.take(read);
        News::Something
    }

    fn watch(&self) -> Option<Watch> {
        if !self.current.load().config.gateway.reload_on_change {
            return None;
        }
        let watch = Watch::begin(self.source.lock().path());
        watch.inspect_err(|error| error!(%error, "cannot watch the configuration file, only SIGHUP reloads it")).ok()
    }

    /// The outcome is in the log and in the metrics.
    fn take(&self, read: Result<Config, SourceError>) {
        let metrics = self.current.observer().metrics();
        match read.map_err(Refusal::from).and_then(|config| self.put_in_force(config)) {
            Ok(next) => {
                metrics.reload_succeeded(SystemTime::now());
                let Config { routes, upstreams, .. } = &next.config;
                info!(routes = routes.len(), upstreams = upstreams.len(), "configuration reloaded");
            }
            Err(refusal) => {
                metrics.reload_failed();
                refusal.tell();
            }
        }
    }

    /// All that can fail comes before anything changes.
    fn put_in_force(&self, mut config: Config) -> Result<Arc<Generation>, Refusal> {
        let kept = self.fixed.fit(&mut config)?;
        self.switch_access_log(&config.log.access)?;
        // For names that are new; the others are known.
        Handle::current().block_on(discover::ask_new(&config, &self.current.lasting));
        let next = Arc::new(Generation::build(config, &self.current.lasting));
        let before = self.current.replace(Arc::clone(&next));
        self.discovery.replaced();
        self.settle(&before, &next);
        tell_not_in_force(&next.config);
        for kept in kept {
            let (key, in_force, wanted) = (kept.key, kept.in_force, kept.wanted);
            warn!(key, in_force, wanted, "no reload changes this key: it takes effect at the next start or hand-over");
        }
        Ok(next)
    }

    fn switch_access_log(&self, target: &AccessLog) -> Result<(), Refusal> {
        if *target == self.current.load().config.log.access {
            return Ok(());
        }
        self.current.observer().access_log().switch(target).map_err(|source| {
            let path = match target {
                AccessLog::File(path) => path.clone(),
                // Neither is opened, so neither can fail.
                AccessLog::Stdout | AccessLog::Off => "-".into(),
            };
            Refusal::AccessLog { path, source }
        })
    }

    /// What follows from the difference of the two: new requests have `next` already, and what began with `before` still
    /// has it.
    fn settle(&self, before: &Generation, next: &Generation) {
        let (old, new) = (&before.config.log, &next.config.log);
        if (old.level, old.format) != (new.level, new.format) {
            self.diagnostics.switch(new);
        }
        for (route, rules) in before.routes.iter().zip(&before.config.routes) {
            let is_gone = next.routes.iter().all(|left| left.name != route.name);
            if is_gone && rules.tunnel.on_remove == OnRemove::Close {
                close_tunnels(route, next.config.gateway.drain.spread);
            }
        }
    }
}
