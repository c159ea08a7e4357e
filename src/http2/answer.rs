//! An answer in the words of HTTP/1.1, sent in those of HTTP/2: a 101 becomes the 200 of an extended CONNECT (RFC 8441 §5), fields
//! that HTTP/2 forbids are left out, and a body loses the framing that DATA frames give it anyway. It does not know who answers.
//!
//! ```text
//!   Head ──101──► Tunnel ──shutdown──► Done
//!    │ └──final──► Body ──last byte, or shutdown──► Done
//!    └──final without a body──► Done
//! ```

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, SendStream};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::{Framing, broken, poll_capacity};
use crate::answer::Carrier;
use crate::handshake::chunked::{ChunkedBody, Progress};
use crate::handshake::request::is_hop_by_hop;
use crate::handshake::response::{Answer, AnswerBody};
use crate::handshake::{HeadScan, Scan};

/// Of an answer's head. A backend's own is held to less before it gets here.
const HEAD_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The direction to the client.
pub enum Outward {
    Head(Box<Heading>),
    Tunnel(SendStream<Bytes>),
    Body(Box<Body>),
    Done,
}

/// A head that is still to come, in one write as a rule.
pub struct Heading {
    respond: SendResponse<Bytes>,
    bytes: Vec<u8>,
    scan: HeadScan,
    framing: Framing,
}

pub struct Body {
    send: SendStream<Bytes>,
    left: Left,
}

/// What is still to come of a body.
enum Left {
    Bytes(u64),
    Chunked(ChunkedBody),
    UntilShutdown,
}

impl Outward {
    pub fn new(respond: SendResponse<Bytes>, framing: Framing) -> Outward {
        let scan = HeadScan::new(HEAD_BYTES_MAX);
        Outward::Head(Box::new(Heading { respond, bytes: Vec::new(), scan, framing }))
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Outward::Done)
    }

    pub fn is_tunnel(&self) -> bool {
        matches!(self, Outward::Tunnel(_))
    }

    /// Until the client does not want its answer any more.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reset = match self {
            Outward::Head(heading) => heading.respond.poll_reset(cx),
            Outward::Tunnel(send) => send.poll_reset(cx),
            Outward::Body(body) => body.send.poll_reset(cx),
            Outward::Done => return Poll::Ready(Ok(())),
        };
        reset.map(|_| Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Takes a part of the bytes, as any writer may.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Outward::Head(heading) => {
                let (taken, next) = heading.take(bytes)?;
                if let Some(next) = next {
                    *self = next;
                }
                Poll::Ready(Ok(taken))
            }
            Outward::Tunnel(send) => poll_send(send, cx, bytes),
            Outward::Body(body) => {
                let taken = ready!(body.poll_write(cx, bytes))?;
                if body.is_whole() {
                    *self = Outward::Done;
                }
                Poll::Ready(Ok(taken))
            }
            Outward::Done => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Nothing more comes. An answer that is not whole by now never will be, and the client has to learn of that.
    pub fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(self, Outward::Done) {
            Outward::Head(mut heading) => heading.respond.send_reset(Code::INTERNAL_ERROR),
            Outward::Tunnel(mut send) => return end(&mut send),
            Outward::Body(mut body) => match body.left {
                Left::UntilShutdown => return end(&mut body.send),
                Left::Bytes(_) | Left::Chunked(_) => body.send.send_reset(Code::INTERNAL_ERROR),
            },
            Outward::Done => {}
        }
        Ok(())
    }
}

impl Heading {
    /// How many of the bytes belong to the head, and what follows it once it is whole.
    fn take(&mut self, bytes: &[u8]) -> io::Result<(usize, Option<Outward>)> {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let length = match self.scan.advance(&self.bytes) {
            Scan::Complete(length) => length,
            Scan::Incomplete => return Ok((bytes.len(), None)),
            Scan::Malformed | Scan::TooLarge => return Err(io::ErrorKind::InvalidData.into()),
        };
        let taken = length - before;
        self.bytes.truncate(length);
        let whole = std::mem::take(&mut self.bytes);
        let answer = Answer::parse(&whole).map_err(|_| io::ErrorKind::InvalidData)?;
        if answer.is_interim() {
            self.scan = HeadScan::new(HEAD_BYTES_MAX);
            self.respond.send_informational(response(&answer)?).map_err(broken)?;
            return Ok((taken, None));
        }
        Ok((taken, Some(self.answer(&answer)?)))
    }

    fn answer(&mut self, answer: &Answer<'_>) -> io::Result<Outward> {
        let left = match (answer.status, self.framing) {
            (101, Framing::Tunnel) => {
                return self.respond.send_response(response(answer)?, false).map(Outward::Tunnel).map_err(broken);
            }
            (101, _) => return Err(io::ErrorKind::InvalidData.into()),
            (_, Framing::OfHead) => None,
            _ => match answer.body().map_err(|_| io::ErrorKind::InvalidData)? {
                AnswerBody::None => None,
                AnswerBody::Length(length) => Some(Left::Bytes(length)),
                AnswerBody::Chunked => Some(Left::Chunked(ChunkedBody::default())),
                AnswerBody::UntilClose => Some(Left::UntilShutdown),
            },
        };
        let send = self.respond.send_response(response(answer)?, left.is_none()).map_err(broken)?;
        Ok(left.map_or(Outward::Done, |left| Outward::Body(Box::new(Body { send, left }))))
    }
}

impl Body {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.left {
            Left::UntilShutdown => poll_send(&mut self.send, cx, bytes),
            Left::Bytes(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let sent = ready!(poll_capacity(&mut self.send, cx, wanted))?;
                *left -= sent as u64;
                send(&mut self.send, &bytes[..sent], *left == 0)?;
                Poll::Ready(Ok(sent))
            }
            Left::Chunked(chunked) => {
                let data = usize::try_from(chunked.data_left()).unwrap_or(usize::MAX).min(bytes.len());
                if data > 0 {
                    let sent = ready!(poll_capacity(&mut self.send, cx, data))?;
                    // Within a chunk nothing can be wrong.
                    let _ = chunked.advance(&bytes[..sent]);
                    send(&mut self.send, &bytes[..sent], false)?;
                    return Poll::Ready(Ok(sent));
                }
                match chunked.advance_to_data(bytes) {
                    (_, Progress::Malformed) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                    (taken, Progress::More) => Poll::Ready(Ok(taken)),
                    (taken, Progress::Ended(_)) => {
                        end(&mut self.send)?;
                        self.left = Left::Bytes(0);
                        Poll::Ready(Ok(taken))
                    }
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self.left, Left::Bytes(0))
    }
}

fn poll_send(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let length = ready!(poll_capacity(stream, cx, bytes.len()))?;
    send(stream, &bytes[..length], false)?;
    Poll::Ready(Ok(length))
}

fn send(stream: &mut SendStream<Bytes>, bytes: &[u8], is_last: bool) -> io::Result<()> {
    stream.send_data(Bytes::copy_from_slice(bytes), is_last).map_err(broken)
}

fn end(stream: &mut SendStream<Bytes>) -> io::Result<()> {
    stream.send_data(Bytes::new(), true).map_err(broken)
}

fn response(answer: &Answer<'_>) -> io::Result<Response<()>> {
    let status = if answer.status == 101 { 200 } else { Carrier::Http2.status(answer.status) };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| io::ErrorKind::InvalidData)?;
    fields(response.headers_mut(), answer)?;
    Ok(response)
}

/// What may go on (RFC 9113 §8.2.2). Nobody asked for a proof (RFC 8441 §5).
fn fields(headers: &mut HeaderMap, answer: &Answer<'_>) -> io::Result<()> {
    for line in &answer.fields {
        let is_framing = line.is("Transfer-Encoding") || line.is("Sec-WebSocket-Accept");
        if is_framing || is_hop_by_hop(&answer.fields, line.name) {
            continue;
        }
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| io::ErrorKind::InvalidData)?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| io::ErrorKind::InvalidData)?;
        headers.append(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, status: u16, expected: &[(&str, &str)]) {
        let bytes = answer.replace('\n', "\r\n");
        let response = response(&Answer::parse(bytes.as_bytes()).unwrap()).unwrap();
        assert_eq!(response.status().as_u16(), status);
        let fields: Vec<(&str, &str)> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_101_becomes_a_200_without_what_http_1_1_needs() {
        check(
            "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: x\n\
             Sec-WebSocket-Protocol: chat\nSet-Cookie: a=b\n\n",
            200,
            &[("sec-websocket-protocol", "chat"), ("set-cookie", "a=b")],
        );
    }

    #[test]
    fn a_426_becomes_a_400_with_its_list() {
        check(
            "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nConnection: Upgrade, close\n\
             Sec-WebSocket-Version: 13, 8\nContent-Length: 2\n\n",
            400,
            &[("sec-websocket-version", "13, 8"), ("content-length", "2")],
        );
    }

    #[test]
    fn what_belongs_to_the_hop_stays_there() {
        check(
            "HTTP/1.1 200 OK\nConnection: close, X-Hop\nX-Hop: 1\nKeep-Alive: 5\nTransfer-Encoding: chunked\nETag: \"a\"\n\n",
            200,
            &[("etag", "\"a\"")],
        );
    }
}
