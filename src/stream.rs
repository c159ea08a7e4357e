//! A connection, whatever carries it: one type for both sides of a tunnel, and what accepts them. It does not know what is said on
//! it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsStream;

use crate::address::{Address, ClientAddr};
use crate::http2::Carried;

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    /// Boxed, so that a stream is no larger than a TCP socket: every tunnel holds two.
    Unix(Box<UnixStream>),
    /// Over one of the others. What was written may still be in it until it is flushed, which no other stream needs.
    Tls(Box<TlsStream<Stream>>),
    /// One of the streams of a client's connection.
    Http2(Box<Carried>),
}

impl Stream {
    /// The socket below, for what concerns the kernel alone; none where others share it.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Stream::Tcp(stream) => Some(stream.as_fd()),
            Stream::Unix(stream) => Some(stream.as_fd()),
            Stream::Tls(stream) => stream.get_ref().0.socket(),
            Stream::Http2(_) => None,
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// What both sides agreed on while they shook hands (ALPN, RFC 7301); `None` where nobody asked.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Http2(_) => None,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Our own end of it, which is what the peer connected to; `None` where that is no IP address.
    pub fn local_address(&self) -> Option<SocketAddr> {
        let socket = self.socket()?;
        SockRef::from(&socket).local_addr().ok()?.as_socket()
    }

    /// What has come and is left there to be read; 0 at the end of the stream. For the bytes of the wire, below any TLS.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.peek(bytes).await,
            Stream::Unix(stream) => {
                let peek = || Ok(rustix::net::recv(stream.as_fd(), &mut *bytes, RecvFlags::PEEK)?.1);
                stream.async_io(Interest::READABLE, peek).await
            }
            Stream::Tls(_) | Stream::Http2(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A socket that connections come to.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A socket that listens at `address` and does not block, on the runtime that accepts from it.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(socket: Socket, address: &Address) -> io::Result<Listener> {
        match address {
            Address::Ip(_) => TcpListener::from_std(socket.into()).map(Listener::Tcp),
            Address::Unix(_) => UnixListener::from_std(socket.into()).map(Listener::Unix),
        }
    }

    /// # Errors
    /// When a connection is gone already, or there is no room for one.
    pub async fn accept(&self) -> io::Result<(Stream, ClientAddr)> {
        match self {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, client)| (stream.into(), client.into())),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| (stream.into(), ClientAddr::Local)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Stream {
        Stream::Unix(Box::new(stream))
    }
}

impl From<tokio_rustls::server::TlsStream<Stream>> for Stream {
    fn from(stream: tokio_rustls::server::TlsStream<Stream>) -> Stream {
        Stream::Tls(Box::new(stream.into()))
    }
}

impl From<tokio_rustls::client::TlsStream<Stream>> for Stream {
    fn from(stream: tokio_rustls::client::TlsStream<Stream>) -> Stream {
        Stream::Tls(Box::new(stream.into()))
    }
}

impl From<Carried> for Stream {
    fn from(stream: Carried) -> Stream {
        Stream::Http2(Box::new(stream))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Http2(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Http2(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Http2(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Http2(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Http2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_no_larger_than_a_tcp_socket() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }
}
