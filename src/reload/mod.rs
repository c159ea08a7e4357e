//! Reads the configuration again while the gateway runs. A new generation is built whole and takes the place of the old one,
//! or nothing changes and the log says why. It does not know who asks, nor what a configuration is for.

mod fixed;
mod refusal;

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::config::model::AccessLog;
use crate::generation::{Current, Generation};
use crate::lifecycle::Lifecycle;
use crate::logging::Diagnostics;
use crate::source::{Source, SourceError};
pub use fixed::Fixed;
use refusal::Refusal;

pub struct Reloader {
    /// Locked for the length of a reload, so that there is one at a time.
    source: Mutex<Source>,
    fixed: Fixed,
    current: Arc<Current>,
    diagnostics: Diagnostics,
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

impl Reloader {
    pub fn new(source: Source, fixed: Fixed, current: Arc<Current>, diagnostics: Diagnostics) -> Reloader {
        Reloader { source: Mutex::new(source), fixed, current, diagnostics }
    }

    /// Reloads whenever it is asked for, one after the other; asked several times meanwhile is asked once.
    pub async fn serve(self: Arc<Self>, lifecycle: &Lifecycle) {
        loop {
            lifecycle.reload_asked().await;
            if lifecycle.is_draining() {
                info!("reload ignored: the gateway is going away");
                continue;
            }
            let reloader = Arc::clone(&self);
            // A disk that does not answer holds nobody else up, and a panic does not end the reloads to come.
            if let Err(error) = tokio::task::spawn_blocking(move || reloader.reload()).await {
                error!(%error, "reload failed");
                self.current.observer().metrics().reload_failed();
            }
        }
    }

    fn reload(&self) {
        let mut source = self.source.lock();
        let read = source.read();
        self.take(read);
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
        let next = Arc::new(Generation::build(config, &self.current.lasting));
        let before = self.current.replace(Arc::clone(&next));
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
    }
}
