//! The successor's side of a hand-over: waits for the sockets, and later tells the process before that it may go.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::OFFERED_WITHIN;
use super::channel::{Channel, ChannelError, Parked};
use super::door::{Door, DoorError};
use super::handed::{Handed, Mistaken};
use super::message::Message;
use crate::lifecycle::Lifecycle;
use crate::lifecycle::notify::Service;

/// Why no sockets came.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("no running process handed its sockets over in time: `{0:?}`")]
    TimedOut(Duration),
    #[error("cannot wait for the running process: {0}")]
    Io(#[from] io::Error),
}

/// Why whoever came to the door was sent away again.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error("it made no offer in time: `{OFFERED_WITHIN:?}`")]
    TimedOut,
    #[error("it says something else than what it offers")]
    Unexpected,
    #[error(transparent)]
    Mistaken(#[from] Mistaken),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The process whose sockets these are. It serves until it is told that we do.
pub struct Predecessor {
    channel: Parked,
    service: Service,
    /// Kept, so that no third process waits here before this hand-over is decided.
    door: Door,
}

/// Waits at `path` for the running process to hand its sockets over.
///
/// # Errors
/// When the door cannot be opened, or nobody came to it for as long as `wait_max`.
pub fn take(path: &Path, wait_max: Duration) -> Result<(Handed, Predecessor), TakeError> {
    let door = Door::open(path)?;
    info!(socket = %path.display(), limit = ?wait_max, "waiting for SIGQUIT to the running process");
    // Pingora's runtimes are still to come, and need the sockets.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (handed, channel, service) = runtime.block_on(async {
        let listener = UnixListener::from_std(door.listener.try_clone()?)?;
        match timeout(wait_max, first_good_offer(&listener)).await {
            Ok(offer) => offer,
            Err(_) => Err(TakeError::TimedOut(wait_max)),
        }
    })?;
    Ok((handed, Predecessor { channel, service, door }))
}

/// Who makes none must not end the wait: SIGQUIT may still be to come.
async fn first_good_offer(listener: &UnixListener) -> Result<(Handed, Parked, Service), TakeError> {
    loop {
        let (stream, _) = listener.accept().await?;
        match timeout(OFFERED_WITHIN, receive_offer(stream)).await.unwrap_or(Err(Rejected::TimedOut)) {
            Ok(offer) => return Ok(offer),
            Err(error) => warn!(%error, "who came with no sockets was sent away"),
        }
    }
}

async fn receive_offer(stream: tokio::net::UnixStream) -> Result<(Handed, Parked, Service), Rejected> {
    let mut channel = Channel::new(stream)?;
    let Message::Offer { service, places } = channel.receive().await? else { return Err(Rejected::Unexpected) };
    let handed = Handed::new(places, channel.take_descriptors())?;
    info!(predecessor = channel.peer_pid(), sockets = handed.count(), "sockets taken over");
    Ok((handed, channel.park()?, service))
}

impl Predecessor {
    /// Says that we serve, and takes charge as soon as that was heard. Where it is not wanted any more, we go again.
    pub async fn relieve(self, lifecycle: &Lifecycle) {
        let Predecessor { channel, service, door } = self;
        let invocation = lifecycle.notifier().service().invocation;
        let answer = answer(channel, invocation).await;
        // Decided: the next one may wait, and who watches the file sees it before it reads that we are in charge.
        drop(door);
        match answer {
            Ok(Message::Withdrawn) => {
                error!("the process before has withdrawn its sockets and serves on: leaving");
                lifecycle.hand_back();
            }
            // It closes when it has heard us, and when it has died: whichever it was, we are the one that is left.
            Err(_) | Ok(Message::Offer { .. } | Message::Serving { .. }) => {
                info!("in charge");
                lifecycle.notifier().take_charge(&service);
            }
        }
    }
}

/// What the process before says to it that we serve. In order it says nothing, and closes.
async fn answer(channel: Parked, invocation: Option<String>) -> Result<Message, ChannelError> {
    let mut channel = channel.resume()?;
    // When it has closed already, its last word can still be read.
    let _ = channel.send(&Message::Serving { invocation }, &[]).await;
    channel.receive().await
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::lifecycle::{Accepting, Phase, Place, Role};

    fn private_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        folder
    }

    /// A process that accepts on one socket, as far as a hand-over knows.
    fn running() -> (Arc<Lifecycle>, Arc<TcpListener>) {
        let lifecycle = Arc::new(Lifecycle::default());
        let socket = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let place =
            Place { role: Role::Listener, name: "public".to_owned(), address: socket.local_addr().unwrap().into() };
        lifecycle.accepts(Accepting::new(place, &socket));
        lifecycle.enter(Phase::Ready);
        (lifecycle, socket)
    }

    #[test]
    fn the_wait_has_an_end_and_leaves_nothing_behind() {
        let folder = private_folder();
        let path = folder.path().join("upgrade.sock");
        assert!(matches!(take(&path, Duration::from_millis(20)), Err(TakeError::TimedOut(_))));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_successor_relieves_the_process_before_and_whoever_babbles_is_sent_away() {
        let folder = private_folder();
        let path = folder.path().join("upgrade.sock");
        let (lifecycle, socket) = running();
        let address = socket.local_addr().unwrap();
        let taking = tokio::task::spawn_blocking({
            let path = path.clone();
            move || take(&path, Duration::from_secs(20))
        });
        let giver = crate::lifecycle::handover::Giver::new(Arc::clone(&lifecycle));
        let mut babbler = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        std::io::Write::write_all(&mut babbler, b"GET / HTTP/1.1\r\n\r\n").unwrap();
        giver.give(&path);
        let (mut handed, predecessor) = taking.await.unwrap().unwrap();
        assert_eq!(lifecycle.phase(), Phase::Ready, "until the successor serves");
        assert_eq!(handed.take_at(&address.into()).unwrap().local_addr().unwrap(), address.into());
        let successor = Lifecycle::default();
        predecessor.relieve(&successor).await;
        lifecycle.watch_handed_over().wait_for(|handed_over| *handed_over).await.unwrap();
        assert!(!successor.is_handed_over() && !path.exists());
    }

    #[tokio::test]
    async fn a_successor_that_is_not_wanted_any_more_leaves() {
        let folder = private_folder();
        let door = Door::open(&folder.path().join("upgrade.sock")).unwrap();
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut running = Channel::new(theirs).unwrap();
        running.send(&Message::Withdrawn, &[]).await.unwrap();
        drop(running);
        let channel = Channel::new(ours).unwrap().park().unwrap();
        let successor = Lifecycle::default();
        Predecessor { channel, service: Service::default(), door }.relieve(&successor).await;
        assert!(successor.is_handed_over() && successor.has_failed());
    }

    #[tokio::test]
    async fn a_process_that_dies_before_it_hears_us_leaves_us_in_charge() {
        let folder = private_folder();
        let door = Door::open(&folder.path().join("upgrade.sock")).unwrap();
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        drop(theirs);
        let channel = Channel::new(ours).unwrap().park().unwrap();
        let successor = Lifecycle::default();
        Predecessor { channel, service: Service::default(), door }.relieve(&successor).await;
        assert!(!successor.is_handed_over() && !successor.has_failed());
    }
}
