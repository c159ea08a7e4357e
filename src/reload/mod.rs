//! Reads the configuration again while the gateway runs. A new generation is built whole and takes the place of the old one,
//! or nothing changes and the log says why. It does not know who asks, nor what a configuration is for.

mod fixed;
mod refusal;
mod watch;

use std::path::PathBuf;
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
use crate::tls::{self, Certificate, Files};
pub use fixed::Fixed;
use refusal::{Refusal, Unmet};
use watch::Watch;

pub struct Reloader {
    /// Locked for the length of a reload, so that there is one at a time.
    source: Mutex<Source>,
    fixed: Fixed,
    current: Arc<Current>,
    discovery: Arc<Discovery>,
    diagnostics: Diagnostics,
    /// What the files of TLS said when they were read last.
    files: Mutex<Files>,
    refused: Mutex<Refused>,
}

/// What of the last readings is not in force.
#[derive(Debug, Default)]
struct Refused {
    configuration: bool,
    files: bool,
    /// The configuration, where better files are all that it needs.
    unmet: Option<Box<Unmet>>,
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

/// Files for TLS that cannot be used, one line each.
pub use refusal::tell_files;

/// A certificate that is expired is shown all the same: some clients do not look, and none is better served by nothing.
pub fn tell_expired<'c>(certificates: impl Iterator<Item = &'c Certificate>) {
    for certificate in certificates.filter(|certificate| certificate.is_expired(SystemTime::now())) {
        warn!(file = %certificate.file.display(), names = certificate.names.join(" "), "certificate is expired");
    }
}

/// Until what is watched changed and is quiet again. Never, if nothing is watched.
async fn settled(watch: Option<&Watch>) {
    if let Some(watch) = watch {
        match watch.settled().await {
            Ok(()) => return,
            Err(error) => error!(%error, "the files are watched no more, only SIGHUP reloads them"),
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
    /// `files` are those that the generation in force was made of.
    pub fn new(
        source: Source,
        fixed: Fixed,
        discovery: Arc<Discovery>,
        diagnostics: Diagnostics,
        files: Files,
    ) -> Reloader {
        let current = Arc::clone(discovery.current());
        let (files, refused) = (Mutex::new(files), Mutex::default());
        Reloader { source: Mutex::new(source), fixed, current, discovery, diagnostics, files, refused }
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
        let generation = self.current.load();
        if generation.config.gateway.reload_on_change {
            if let Some(read) = source.read_if_changed() {
                self.take(read);
                return News::Something;
            }
            debug!("the configuration file has nothing new");
        }
        if self.retry() == News::Something {
            return News::Something;
        }
        self.renew(&generation)
    }

    /// Tries the reload again that was asked for and refused for its files, now that they say something else.
    fn retry(&self) -> News {
        let changed = self.refused.lock().unmet.take_if(|unmet| Files::read(&unmet.config) != unmet.files);
        let Some(unmet) = changed else { return News::Nothing };
        self.take(Ok(unmet.config));
        News::Something
    }

    /// Takes certificates, keys and CAs that changed while the configuration did not. Where one is bad, what is in force stays:
    /// nobody asked for a change, and whoever writes the files may not be done.
    fn renew(&self, generation: &Generation) -> News {
        let read = Files::read(&generation.config);
        let mut files = self.files.lock();
        if *files == read {
            debug!("no file for TLS has anything new");
            return News::Nothing;
        }
        let (loaded, problems) = tls::renew(&generation.config, &read, &generation.secured.known(&generation.config));
        *files = read;
        tell_expired(loaded.certificates());
        generation.secured.replace(loaded);
        self.refused.lock().files = !problems.is_empty();
        if problems.is_empty() {
            info!("certificates, keys and CAs reloaded");
        } else {
            refusal::tell_files(&problems);
            error!(problems = problems.len(), "not all files for TLS are taken, what is in force stays for the others");
        }
        self.show();
        News::Something
    }

    /// Watched are the files of TLS, those too for which a reload was refused, and the configuration where it says so.
    fn watch(&self) -> Option<Watch> {
        let config = &self.current.load().config;
        let mut named = Files::named_in(config);
        if let Some(unmet) = &self.refused.lock().unmet {
            named.extend(Files::named_in(&unmet.config));
        }
        let mut paths: Vec<PathBuf> = named.into_iter().collect();
        if config.gateway.reload_on_change {
            paths.push(self.source.lock().path().to_owned());
        }
        if paths.is_empty() {
            return None;
        }
        let watch = Watch::begin(&paths);
        watch.inspect_err(|error| error!(%error, "cannot watch the files, only SIGHUP reloads them")).ok()
    }

    fn show(&self) {
        let metrics = self.current.observer().metrics();
        let refused = self.refused.lock();
        if refused.configuration || refused.files { metrics.reload_failed() } else { metrics.reload_is_good() }
    }

    /// The outcome is in the log and in the metrics.
    fn take(&self, read: Result<Config, SourceError>) {
        let metrics = self.current.observer().metrics();
        match read.map_err(Refusal::from).and_then(|config| self.put_in_force(config)) {
            Ok(next) => {
                *self.refused.lock() = Refused::default();
                metrics.reload_succeeded(SystemTime::now());
                let Config { routes, upstreams, .. } = &next.config;
                info!(routes = routes.len(), upstreams = upstreams.len(), "configuration reloaded");
            }
            Err(refusal) => {
                metrics.reload_failed();
                refusal.tell();
                let mut refused = self.refused.lock();
                refused.configuration = true;
                refused.unmet = match refusal {
                    Refusal::Files { asked, .. } => Some(asked),
                    Refusal::Source(_) | Refusal::Listeners { .. } | Refusal::AccessLog { .. } => None,
                };
            }
        }
    }

    /// All that can fail comes before anything changes.
    fn put_in_force(&self, mut config: Config) -> Result<Arc<Generation>, Refusal> {
        let kept = self.fixed.fit(&mut config)?;
        let files = Files::read(&config);
        let in_force = self.current.load();
        let loaded = match tls::load(&config, &files, &in_force.secured.known(&in_force.config)) {
            Ok(loaded) => loaded,
            Err(problems) => return Err(Refusal::Files { problems, asked: Box::new(Unmet { config, files }) }),
        };
        self.switch_access_log(&config.log.access)?;
        tell_expired(loaded.certificates());
        *self.files.lock() = files;
        // For names that are new; the others are known.
        Handle::current().block_on(discover::ask_new(&config, &self.current.lasting));
        let next = Arc::new(Generation::build(config, loaded, &self.current.lasting));
        let before = self.current.replace(&next);
        self.discovery.replaced();
        self.settle(&before, &next);
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
