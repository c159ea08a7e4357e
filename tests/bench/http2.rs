//! One connection of HTTP/2 with many tunnels in it (RFC 8441). The crate `h2` speaks the protocol and is polled
//! whenever the socket has an event, so that clients and backend stay in one thread. It does not know how many of its
//! kind there are or what they are for.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::Step;
use crate::failure::{Failure, lost};
use crate::poll::unless_blocked;
use crate::tunnel::{Arrival, Tunnel};
use crate::wire::Message;

pub struct Connection {
    protocol: client::Connection<Socket, Bytes>,
    requests: SendRequest<Bytes>,
    tunnels: Vec<Carried>,
}

/// A tunnel in its stream of HTTP/2.
struct Carried {
    sending: SendStream<Bytes>,
    receiving: Receiving,
    tunnel: Tunnel,
}

enum Receiving {
    Answer(ResponseFuture),
    Data(RecvStream),
}

impl Connection {
    /// Sends the preface; the socket must be connected.
    pub fn new(socket: TcpStream) -> Result<Self, Failure> {
        const DOING: &str = "sending the preface";
        let handshake = pin!(client::handshake(Socket(socket)));
        match handshake.poll(&mut nobody()) {
            Poll::Ready(result) => {
                let (requests, protocol) = result.map_err(lost(DOING))?;
                Ok(Self { protocol, requests, tunnels: Vec::new() })
            }
            Poll::Pending => Err(lost(DOING)("a fresh socket took no 24 bytes")),
        }
    }

    /// Sends and receives what can be without waiting; nothing else touches the socket.
    pub fn turn(&mut self) -> Result<(), Failure> {
        match Pin::new(&mut self.protocol).poll(&mut nobody()) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => Err(lost("turning HTTP/2")("closed")),
            Poll::Ready(Err(error)) => Err(lost("turning HTTP/2")(error)),
        }
    }

    /// Whether the gateway has said that it takes extended CONNECT (RFC 8441 §3).
    pub fn takes_tunnels(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// Asks for another tunnel; [`Step::Answered`] follows.
    pub fn open(&mut self) -> Result<(), Failure> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://bench.example.com/chat")
            .header("sec-websocket-version", "13")
            .header("origin", "http://bench.example.com")
            .header("user-agent", "wsgate-bench")
            .extension(Protocol::from_static("websocket"))
            .body(())
            .map_err(lost("building a request"))?;
        let (answer, sending) = self.requests.send_request(request, false).map_err(lost("asking for a tunnel"))?;
        self.tunnels.push(Carried { sending, receiving: Receiving::Answer(answer), tunnel: Tunnel::default() });
        Ok(())
    }

    /// Sends the message; [`Step::Echoed`] follows.
    pub fn begin_echo(&mut self, tunnel: usize, message: &Message) -> Result<(), Failure> {
        let carried = &mut self.tunnels[tunnel];
        carried.tunnel.await_echo();
        carried.send(Bytes::copy_from_slice(&message.frame))
    }

    /// What the next thing that arrived in a tunnel led to; `None` if there is nothing.
    pub fn next(&mut self, tunnel: usize, message: &Message) -> Result<Option<Step>, Failure> {
        self.tunnels[tunnel].next(message)
    }
}

impl Carried {
    fn next(&mut self, message: &Message) -> Result<Option<Step>, Failure> {
        match &mut self.receiving {
            Receiving::Answer(answer) => {
                let Poll::Ready(answer) = Pin::new(answer).poll(&mut nobody()) else {
                    return Ok(None);
                };
                let (head, data) = answer.map_err(lost("waiting for the answer to its request"))?.into_parts();
                if head.status != StatusCode::OK {
                    return Err(Failure::WrongAnswer { what: "not 200", head: format!("{head:?}") });
                }
                self.receiving = Receiving::Data(data);
                Ok(Some(Step::Answered))
            }
            Receiving::Data(data) => {
                const DOING: &str = "in a tunnel of HTTP/2";
                let Poll::Ready(bytes) = data.poll_data(&mut nobody()) else {
                    return Ok(None);
                };
                let bytes = bytes.ok_or("its stream ended").map_err(lost(DOING))?.map_err(lost(DOING))?;
                data.flow_control().release_capacity(bytes.len()).map_err(lost(DOING))?;
                let arrival = self.tunnel.take(message, &bytes)?;
                if let Some(pongs) = self.tunnel.pay() {
                    self.send(pongs.into())?;
                }
                Ok(Some(match arrival {
                    Arrival::Part => Step::Waiting,
                    Arrival::Echo => Step::Echoed,
                }))
            }
        }
    }

    /// `h2` keeps what the window does not take yet.
    fn send(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.sending.send_data(bytes, false).map_err(lost("sending into a tunnel of HTTP/2"))
    }
}

/// Wakes nobody: the events of the socket are what everything is polled for.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A socket that never waits, for `h2`.
struct Socket(TcpStream);

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(pending_if_blocked(self.0.read(into.initialize_unfilled())))?;
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pending_if_blocked(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn pending_if_blocked(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    unless_blocked(result).transpose().map_or(Poll::Pending, Poll::Ready)
}
