//! Relays a backend's refusal of an upgrade: its head without what belongs to that hop, its body as it came.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dial::Reply;
use crate::dial::head::{field, spelling};
use crate::handshake::VersionList;
use crate::handshake::chunked::{ChunkedBody, Progress};
use crate::handshake::request::{is_hop_by_hop, is_of_a_handshake};
use crate::handshake::response::{Answer, AnswerBody};
use crate::stream::Stream;

/// The head that the client gets. A version list becomes what client and route can really use, because the backend's
/// own list knows nothing of either.
pub fn head(answer: &Answer<'_>, versions: &VersionList) -> Vec<u8> {
    let names_versions = answer.fields.iter().any(|line| line.is("Sec-WebSocket-Version"));
    let mut out = start(answer);
    if answer.status == 426 {
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n");
    } else {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    if let (true, Some(numbers)) = (names_versions || answer.status == 426, versions.numbers()) {
        field(&mut out, "Sec-WebSocket-Version", numbers.as_bytes());
    }
    fields(&mut out, answer);
    out
}

/// The 101 that the client gets: it was verified, and never carries a version (RFC 6455 §4.2.2).
/// `cookie` is one of the gateway's own.
pub fn switching(answer: &Answer<'_>, cookie: Option<&str>) -> Vec<u8> {
    let mut out = start(answer);
    let upgrade = answer.fields.iter().find(|line| line.is("Upgrade")).map_or(&b"websocket"[..], |line| line.value);
    field(&mut out, "Upgrade", upgrade);
    field(&mut out, "Connection", b"Upgrade");
    set_cookie(&mut out, cookie);
    fields(&mut out, answer);
    out
}

/// One line more, whatever cookies the backend sets.
pub fn set_cookie(out: &mut Vec<u8>, cookie: Option<&str>) {
    if let Some(cookie) = cookie {
        field(out, "Set-Cookie", cookie.as_bytes());
    }
}

fn start(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(answer.status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(answer.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

fn fields(out: &mut Vec<u8>, answer: &Answer<'_>) {
    for line in &answer.fields {
        if !is_hop_by_hop(&answer.fields, line.name) && !line.is("Sec-WebSocket-Version") {
            field(out, spelling(line.name), line.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// What a 101 says beside its handshake, and the end of the head.
pub fn fields_of_no_handshake(out: &mut Vec<u8>, answer: &Answer<'_>) {
    for line in &answer.fields {
        if !is_hop_by_hop(&answer.fields, line.name) && !is_of_a_handshake(line.name) {
            field(out, spelling(line.name), line.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Passes the body on until it ends; `idle` bounds each wait for more of it.
///
/// # Errors
/// When either side fails or the framing breaks; the client sees the connection end early.
pub async fn body(client: &mut Stream, mut reply: Reply, framing: AnswerBody, idle: Duration) -> io::Result<()> {
    let mut left = Left::new(framing);
    let mut piece = reply.behind_head().to_vec();
    loop {
        let (length, ended) = left.take(&piece)?;
        timeout(idle, client.write_all(&piece[..length])).await??;
        if ended {
            return Ok(());
        }
        piece.resize(16 * 1024, 0);
        let read = timeout(idle, reply.stream.read(&mut piece)).await??;
        piece.truncate(read);
        if read == 0 {
            return if left.may_end_here() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

enum Left {
    Bytes(u64),
    Chunked(ChunkedBody),
    UntilClose,
}

impl Left {
    fn new(framing: AnswerBody) -> Left {
        match framing {
            AnswerBody::None => Left::Bytes(0),
            AnswerBody::Length(length) => Left::Bytes(length),
            AnswerBody::Chunked => Left::Chunked(ChunkedBody::default()),
            AnswerBody::UntilClose => Left::UntilClose,
        }
    }

    /// How many of these bytes are body, and whether it ends with them.
    fn take(&mut self, piece: &[u8]) -> io::Result<(usize, bool)> {
        match self {
            Left::Bytes(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                *left -= length as u64;
                Ok((length, *left == 0))
            }
            Left::Chunked(chunked) => match chunked.advance(piece) {
                Progress::More => Ok((piece.len(), false)),
                Progress::Ended(length) => Ok((length, true)),
                Progress::Malformed => Err(io::ErrorKind::InvalidData.into()),
            },
            Left::UntilClose => Ok((piece.len(), false)),
        }
    }

    fn may_end_here(&self) -> bool {
        matches!(self, Left::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    fn check(build: impl Fn(&Answer<'_>) -> Vec<u8>, answer: &str, expected: &str) {
        let bytes = answer.replace('\n', "\r\n");
        let answer = Answer::parse(bytes.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(build(&answer)).unwrap().replace("\r\n", "\n"), expected);
    }

    fn with_13(answer: &Answer<'_>) -> Vec<u8> {
        head(answer, &VersionList::new(&[Dialect::Rfc6455]))
    }

    #[test]
    fn a_backends_426_tells_our_list() {
        check(
            with_13,
            "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 8\n\
             Sec-WebSocket-Version: 7\nX-Powered-By: old\nContent-Length: 2\n\n",
            "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nConnection: Upgrade, close\n\
             Sec-WebSocket-Version: 13\nX-Powered-By: old\nContent-Length: 2\n\n",
        );
    }

    #[test]
    fn other_refusals_keep_their_own_fields() {
        check(
            with_13,
            "HTTP/1.0 403 Forbidden\nConnection: keep-alive, X-Hop\nKeep-Alive: 5\nX-Hop: 1\nWWW-Authenticate: Basic\n\
             Transfer-Encoding: chunked\n\n",
            "HTTP/1.1 403 Forbidden\nConnection: close\nWWW-Authenticate: Basic\nTransfer-Encoding: chunked\n\n",
        );
    }

    #[test]
    fn a_101_carries_no_version_and_nothing_of_the_hop() {
        check(
            |answer| switching(answer, Some("s=1; Path=/")),
            "HTTP/1.1 101 Web Socket Protocol Handshake\nconnection: upgrade, x-hop\nupgrade: WebSocket\nX-Hop: 1\n\
             sec-websocket-accept: abc=\nSec-WebSocket-Version: 13\nSet-Cookie: a=b\n\n",
            "HTTP/1.1 101 Web Socket Protocol Handshake\nUpgrade: WebSocket\nConnection: Upgrade\nSet-Cookie: s=1; Path=/\n\
             Sec-WebSocket-Accept: abc=\nSet-Cookie: a=b\n\n",
        );
    }
}
