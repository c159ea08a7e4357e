//! The running process's side of a hand-over. Whatever goes wrong, it serves on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::SERVING_WITHIN;
use super::channel::{Channel, ChannelError};
use super::door::{self, DoorError};
use super::message::Message;
use crate::lifecycle::{Lifecycle, Phase};

/// Gives the sockets away, one try at a time.
pub struct Giver {
    lifecycle: Arc<Lifecycle>,
    under_way: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
enum GiveError {
    #[error("nobody waits at `{path}`: {source}")]
    NobodyWaits { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("the new process ended before it served")]
    Ended,
    #[error("the new process did not serve in time: `{SERVING_WITHIN:?}`")]
    TimedOut,
    #[error("the new process says something else than that it serves")]
    Unexpected,
    #[error(transparent)]
    Channel(ChannelError),
}

impl From<ChannelError> for GiveError {
    fn from(error: ChannelError) -> GiveError {
        match error {
            ChannelError::Ended => GiveError::Ended,
            error => GiveError::Channel(error),
        }
    }
}

impl Giver {
    pub fn new(lifecycle: Arc<Lifecycle>) -> Giver {
        Giver { lifecycle, under_way: Arc::default() }
    }

    /// Begins, and returns at once. That it came to an end is seen at the phase.
    pub fn give(&self, path: &Path) {
        if self.lifecycle.phase() != Phase::Ready {
            return warn!(phase = self.lifecycle.phase().as_str(), "SIGQUIT ignored: only who is ready can hand over");
        }
        if self.under_way.swap(true, Ordering::AcqRel) {
            return warn!("SIGQUIT ignored: a hand-over is under way");
        }
        info!(socket = %path.display(), "handing the listening sockets over");
        let (lifecycle, under_way, path) = (Arc::clone(&self.lifecycle), Arc::clone(&self.under_way), path.to_owned());
        tokio::spawn(async move {
            if let Err(error) = give(&lifecycle, path).await {
                error!(%error, "not handed over: serving on");
            }
            under_way.store(false, Ordering::Release);
        });
    }
}

async fn give(lifecycle: &Lifecycle, path: PathBuf) -> Result<(), GiveError> {
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(source) => return Err(GiveError::NobodyWaits { path, source }),
    };
    door::check(&path)?;
    let mut channel = Channel::new(stream)?;
    let invocation = match timeout(SERVING_WITHIN, offer(lifecycle, &mut channel)).await {
        Ok(Ok(invocation)) => invocation,
        Ok(Err(error)) => return withdraw(channel, error).await,
        Err(_) => return withdraw(channel, GiveError::TimedOut).await,
    };
    if lifecycle.notifier().is_of_service(invocation.as_deref()) {
        lifecycle.notifier().hush();
    }
    info!(successor = channel.peer_pid(), "handed over");
    lifecycle.hand_over();
    Ok(())
}

/// The successor's `INVOCATION_ID` when it serves.
async fn offer(lifecycle: &Lifecycle, channel: &mut Channel) -> Result<Option<String>, GiveError> {
    let accepting = lifecycle.accepting();
    let open: Vec<_> = accepting.iter().filter_map(|accepting| Some((&accepting.place, accepting.socket()?))).collect();
    let places = open.iter().map(|(place, _)| (*place).clone()).collect();
    let sockets: Vec<_> = open.iter().map(|(_, socket)| socket.as_fd()).collect();
    channel.send(&Message::Offer { service: lifecycle.notifier().service(), places }, &sockets).await?;
    debug!(sockets = sockets.len(), "sockets offered");
    match channel.receive().await? {
        Message::Serving { invocation } => Ok(invocation),
        Message::Offer { .. } | Message::Withdrawn => Err(GiveError::Unexpected),
    }
}

/// Tells a successor that may still live that it is none.
async fn withdraw(mut channel: Channel, error: GiveError) -> Result<(), GiveError> {
    // It may be gone, which is as good.
    let _ = timeout(SERVING_WITHIN, channel.send(&Message::Withdrawn, &[])).await;
    Err(error)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_successor_that_does_not_serve_in_time_is_told_that_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let path = folder.path().join("upgrade.sock");
        let door = UnixListener::bind(&path).unwrap();
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.enter(Phase::Ready);
        let giver = Giver::new(Arc::clone(&lifecycle));
        let start = tokio::time::Instant::now();
        giver.give(&path);
        let mut successor = Channel::new(door.accept().await.unwrap().0).unwrap();
        assert!(matches!(successor.receive().await.unwrap(), Message::Offer { .. }));
        assert_eq!(successor.receive().await.unwrap(), Message::Withdrawn);
        assert!(start.elapsed() >= SERVING_WITHIN);
        assert!(matches!(successor.receive().await, Err(ChannelError::Ended)));
        assert_eq!(lifecycle.phase(), Phase::Ready);
        giver.give(&path);
        assert!(door.accept().await.is_ok(), "the next one may try");
    }
}
