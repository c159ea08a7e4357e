//! A connection lent to Pingora for one request: Pingora takes any stream that has its traits, and gives back the
//! very same one, so a connection is always our own bare socket again. It does not know what is said on it.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::stream;

/// The socket while Pingora has it.
#[derive(Debug)]
pub struct Lent {
    socket: stream::Stream,
    /// What Pingora may ask of the socket; none where others share it.
    digest: Option<Arc<SocketDigest>>,
}

/// Lends the socket.
pub fn lend(socket: stream::Stream) -> Stream {
    let digest = socket.socket().map(|socket| Arc::new(SocketDigest::from_raw_fd(socket.as_raw_fd())));
    Box::new(Lent { socket, digest })
}

/// Takes it back; `None` for a stream that was never lent.
pub fn take_back(stream: Stream) -> Option<stream::Stream> {
    let lent = stream.into_any().downcast::<Lent>().ok()?;
    Some(lent.socket)
}

impl AsyncRead for Lent {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Lent {
    async fn shutdown(&mut self) {
        // It may be closed already, which is what is wanted.
        let _ = AsyncWriteExt::shutdown(&mut self.socket).await;
    }
}

impl UniqueID for Lent {
    fn id(&self) -> UniqueIDType {
        self.socket.socket().map_or(-1, |socket| socket.as_raw_fd())
    }
}

impl GetSocketDigest for Lent {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.digest.clone()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.digest = Some(Arc::new(digest));
    }
}

impl GetTimingDigest for Lent {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Lent {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl Ssl for Lent {}

impl Peek for Lent {}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_comes_back_is_the_socket_that_was_lent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let descriptor = socket.as_raw_fd();
        let back = take_back(lend(socket.into())).unwrap();
        assert_eq!(back.socket().unwrap().as_raw_fd(), descriptor);
        assert!(take_back(Box::new(tokio::io::duplex(1).0)).is_none());
    }
}
