//! Messages and descriptors over a Unix socket (`SCM_RIGHTS`, `unix(7)`). It does not know what they mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::SOCKETS_MAX;
use super::message::{Message, MessageError};

const READ_BYTES: usize = 4096;

/// One end. It holds at most one message and one read more, and [`SOCKETS_MAX`] descriptors.
pub struct Channel {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// A channel between two runtimes.
pub struct Parked {
    stream: std::os::unix::net::UnixStream,
    buffer: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the other process is gone")]
    Ended,
    #[error("more descriptors came than can be handed over")]
    TooManyDescriptors,
    #[error("the other process runs as another user: `{0}`")]
    Stranger(u32),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Channel {
    /// # Errors
    /// When another user is at the other end (`SO_PEERCRED`).
    pub fn new(stream: UnixStream) -> Result<Channel, ChannelError> {
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            return Err(ChannelError::Stranger(peer));
        }
        Ok(Channel { stream, buffer: Vec::new(), descriptors: Vec::new() })
    }

    /// The other process; 0 where the system does not tell.
    pub fn peer_pid(&self) -> i32 {
        self.stream.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default()
    }

    /// # Errors
    /// When the other process is gone, or there is too much for one message.
    pub async fn send(&mut self, message: &Message, sockets: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = message.encode()?;
        let stream = &self.stream;
        let sent = stream.async_io(Interest::WRITABLE, || send_piece(stream, &bytes, sockets)).await?;
        // The descriptors went with the first byte.
        self.stream.write_all(&bytes[sent..]).await?;
        Ok(())
    }

    /// # Errors
    /// When the other process is gone, or what it says is no message.
    pub async fn receive(&mut self) -> Result<Message, ChannelError> {
        loop {
            if let Some((message, length)) = Message::decode(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(message);
            }
            let Channel { stream, buffer, descriptors } = self;
            let read = stream.async_io(Interest::READABLE, || receive_piece(stream, buffer, descriptors)).await?;
            if self.descriptors.len() > SOCKETS_MAX {
                return Err(ChannelError::TooManyDescriptors);
            }
            if read == 0 {
                return Err(ChannelError::Ended);
            }
        }
    }

    /// What came beside the messages so far.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// # Errors
    /// When the system fails.
    pub fn park(self) -> io::Result<Parked> {
        Ok(Parked { stream: self.stream.into_std()?, buffer: self.buffer })
    }
}

impl Parked {
    /// # Errors
    /// When the system fails.
    pub fn resume(self) -> io::Result<Channel> {
        Ok(Channel { stream: UnixStream::from_std(self.stream)?, buffer: self.buffer, descriptors: Vec::new() })
    }
}

fn send_piece(stream: &UnixStream, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn receive_piece(stream: &UnixStream, buffer: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut piece = [0; READ_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut piece)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // Too few descriptors of our own are left, or the peer is none of ours.
        return Err(io::Error::other("descriptors were lost on the way"));
    }
    buffer.extend_from_slice(&piece[..received.bytes]);
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use rustix::io::FdFlags;

    use super::*;
    use crate::lifecycle::accepting::{Place, Role};
    use crate::lifecycle::notify::Service;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[tokio::test]
    async fn descriptors_arrive_in_order_open_and_closed_on_exec() {
        let sockets: Vec<TcpListener> = (0..SOCKETS_MAX).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |socket: &TcpListener| socket.local_addr().unwrap();
        let name = "n".repeat(63);
        let places = sockets.iter().map(|socket| Place {
            role: Role::Listener,
            name: name.clone(),
            address: address(socket).into(),
        });
        let offer = Message::Offer { service: Service::default(), places: places.collect() };
        let (mut running, mut successor) = pair();
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        running.send(&offer, &descriptors).await.unwrap();
        running.send(&Message::Withdrawn, &[]).await.unwrap();
        assert_eq!(successor.receive().await.unwrap(), offer);
        let arrived = successor.take_descriptors();
        assert_eq!(arrived.len(), SOCKETS_MAX);
        for (sent, arrived) in sockets.iter().zip(arrived) {
            assert!(rustix::io::fcntl_getfd(&arrived).unwrap().contains(FdFlags::CLOEXEC));
            assert_eq!(address(&TcpListener::from(arrived)), address(sent));
        }
        let mut successor = successor.park().unwrap().resume().unwrap();
        assert_eq!(successor.receive().await.unwrap(), Message::Withdrawn, "read together with the offer, or not");
        drop(running);
        assert!(matches!(successor.receive().await, Err(ChannelError::Ended)));
    }

    #[tokio::test]
    async fn a_peer_that_sends_nothing_but_descriptors_is_cut_off() {
        let (running, mut successor) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let many = vec![socket.as_fd(); SOCKETS_MAX];
        for byte in [b"w", b"s"] {
            running.stream.async_io(Interest::WRITABLE, || send_piece(&running.stream, byte, &many)).await.unwrap();
        }
        assert!(matches!(successor.receive().await, Err(ChannelError::TooManyDescriptors)));
    }
}
