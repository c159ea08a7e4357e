//! The bytes that client and backend exchange: upgrade heads, their answers, and small unfragmented frames. Written
//! apart from the gateway's own code on purpose, so that one mistake cannot hide on both sides.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::Md5;
use sha1::{Digest, Sha1};

use crate::failure::Failure;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
pub const TEXT: u8 = 0x1;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// The value of `Sec-WebSocket-Accept` (RFC 6455 §4.2.2).
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    BASE64.encode(hash.finalize())
}

/// A client's upgrade, ready to send, and what its 101 must carry.
pub struct Upgrade {
    pub head: Vec<u8>,
    accept: String,
}

impl Upgrade {
    pub fn new(version: u8) -> Self {
        let key = BASE64.encode(fastrand::u128(..).to_ne_bytes());
        let head = format!(
            "GET /chat HTTP/1.1\r\n\
             Host: bench.example.com\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Version: {version}\r\n\
             Origin: http://bench.example.com\r\n\
             User-Agent: wsgate-bench\r\n\r\n"
        );
        Self { head: head.into_bytes(), accept: accept(&key) }
    }

    /// How long the head of a right 101 is; `None` while it is incomplete.
    pub fn check_101(&self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        answer(bytes, |answer| {
            if answer.status() != 101 {
                return Err("not 101");
            }
            if !answer.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
                return Err("upgrade");
            }
            if !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")) {
                return Err("connection");
            }
            if answer.header("sec-websocket-accept") != Some(self.accept.as_str()) {
                return Err("accept");
            }
            Ok(0)
        })
    }
}

/// How long a right 426 is, with its body; `None` while it is incomplete.
pub fn check_426(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let length = answer(bytes, |answer| {
        if answer.status() != 426 {
            return Err("not 426");
        }
        if answer.header("sec-websocket-version") != Some("13") {
            return Err("version list");
        }
        answer.header("content-length").and_then(|value| value.parse().ok()).ok_or("content length")
    })?;
    Ok(length.filter(|length| *length <= bytes.len()))
}

/// A whole answer's head.
struct Answer<'a, 'bytes>(httparse::Response<'a, 'bytes>);

impl Answer<'_, '_> {
    fn status(&self) -> u16 {
        self.0.code.unwrap_or(0)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self.0.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        line.and_then(|header| std::str::from_utf8(header.value).ok())
    }
}

/// Length of an answer's head plus of the body that `check` finds; `None` while the head is incomplete.
fn answer(
    bytes: &[u8],
    check: impl FnOnce(&Answer<'_, '_>) -> Result<usize, &'static str>,
) -> Result<Option<usize>, Failure> {
    let wrong = |what| Failure::WrongAnswer {
        what,
        head: String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned(),
    };
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(wrong("not HTTP")),
    };
    let body = check(&Answer(response)).map_err(wrong)?;
    Ok(Some(head + body))
}

/// How messages are framed from the 101 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Rfc6455,
    Hixie,
}

/// The backend's answer to an upgrade.
pub struct BackendAnswer {
    /// Of the request, with what belongs to it.
    pub head_bytes: usize,
    pub bytes: Vec<u8>,
    pub framing: Framing,
}

/// `None` while the request is incomplete. What is no upgrade gets a 400.
pub fn backend_answer(bytes: &[u8]) -> Option<BackendAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => {
            let refusal = REFUSAL.as_bytes().to_vec();
            return Some(BackendAnswer { head_bytes: bytes.len(), bytes: refusal, framing: Framing::Rfc6455 });
        }
    };
    let value = |name: &str| {
        let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    if let (Some(key1), Some(key2)) = (value("sec-websocket-key1"), value("sec-websocket-key2")) {
        let key3 = bytes.get(head..head + 8)?;
        let answer = [HIXIE_101.as_bytes(), &digest(key1, key2, key3)].concat();
        return Some(BackendAnswer { head_bytes: head + 8, bytes: answer, framing: Framing::Hixie });
    }
    let key = value("sec-websocket-key");
    let answer = key.map_or_else(
        || REFUSAL.to_owned(),
        |key| {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                accept(key)
            )
        },
    );
    Some(BackendAnswer { head_bytes: head, bytes: answer.into_bytes(), framing: Framing::Rfc6455 })
}

const HIXIE_101: &str = "HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Origin: http://bench.example.com\r\n\
                         Sec-WebSocket-Location: ws://bench.example.com/chat\r\n\r\n";

/// What proves that the keys of hixie-76 were read.
fn digest(key1: &str, key2: &str, key3: &[u8]) -> [u8; 16] {
    let number = |key: &str| {
        let digits: String = key.chars().filter(char::is_ascii_digit).collect();
        let spaces = key.matches(' ').count() as u64;
        let product: u64 = digits.parse().unwrap_or(0);
        ((product / spaces.max(1)) as u32).to_be_bytes()
    };
    Md5::new().chain_update(number(key1)).chain_update(number(key2)).chain_update(key3).finalize().into()
}

/// How long a whole text of hixie is that begins at the first byte; `None` while it is incomplete.
pub fn hixie_text(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(0xFF, bytes).map(|end| end + 1)
}

const REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A frame as a client sends it and as the echo of it looks.
pub struct Message {
    pub frame: Vec<u8>,
    pub echo: Vec<u8>,
}

impl Message {
    pub fn text(payload_bytes: usize) -> Self {
        let payload: Vec<u8> = (0..payload_bytes).map(|_| fastrand::alphanumeric() as u8).collect();
        let mut echo = vec![FIN | TEXT];
        match payload_bytes {
            0..126 => echo.push(payload_bytes as u8),
            126..65536 => {
                echo.push(126);
                echo.extend((payload_bytes as u16).to_be_bytes());
            }
            _ => {
                echo.push(127);
                echo.extend((payload_bytes as u64).to_be_bytes());
            }
        }
        let mut frame = echo.clone();
        frame[1] |= MASKED;
        frame.extend(MASK);
        let header = frame.len();
        frame.extend(&payload);
        xor(&mut frame[header..], MASK);
        echo.extend(&payload);
        Self { frame, echo }
    }
}

/// The Pong that a client sends for a Ping with this payload of at most 125 bytes.
pub fn masked_pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FIN | PONG, MASKED | payload.len() as u8];
    frame.extend(MASK);
    frame.extend(payload);
    xor(&mut frame[6..], MASK);
    frame
}

/// Where a frame lies that begins at the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub is_masked: bool,
    pub header_bytes: usize,
    pub frame_bytes: usize,
}

/// Reads a frame's header; `None` while the frame is incomplete.
pub fn frame(bytes: &[u8]) -> Option<Frame> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (mut header_bytes, payload_bytes) = match second & !MASKED {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        length => (2, u64::from(length)),
    };
    let is_masked = second & MASKED != 0;
    if is_masked {
        header_bytes += MASK.len();
    }
    let frame_bytes = header_bytes + payload_bytes as usize;
    let frame = Frame { opcode: first & 0x0f, is_masked, header_bytes, frame_bytes };
    (bytes.len() >= frame_bytes).then_some(frame)
}

/// Turns a whole masked frame into the same frame unmasked; it then begins four bytes later.
pub fn unmask_in_place(bytes: &mut [u8], frame: Frame) -> &[u8] {
    let header_bytes = frame.header_bytes;
    let mask_at = header_bytes - MASK.len();
    let mut mask = MASK;
    mask.copy_from_slice(&bytes[mask_at..header_bytes]);
    xor(&mut bytes[header_bytes..frame.frame_bytes], mask);
    bytes.copy_within(..mask_at, MASK.len());
    bytes[MASK.len() + 1] &= !MASKED;
    &bytes[MASK.len()..frame.frame_bytes]
}

fn xor(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from(u32::from_ne_bytes(mask));
    let wide = wide | wide << 32;
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
