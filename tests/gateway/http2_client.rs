//! A client of HTTP/2 by the crate h2, and backends that answer a key they did not expect. It knows frames of RFC 6455 as far as
//! an echo needs them.

use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode, request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::backend::{Backend, Served};
use crate::harness::PATIENCE;

/// One connection.
pub struct Client {
    pub requests: SendRequest<Bytes>,
    /// Moves it on; what it ended with.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A tunnel on a stream.
pub struct Tunnel {
    pub send: SendStream<Bytes>,
    pub hearing: Hearing,
}

/// What comes on a stream.
pub struct Hearing {
    pub head: HeaderMap,
    pub body: RecvStream,
    /// Read and not asked for yet.
    rest: Vec<u8>,
}

/// An answer that opened no tunnel.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: HeaderMap,
    pub body: String,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        Client::connect_with(address, &mut Builder::new()).await
    }

    /// Once the gateway has said that it knows extended CONNECT.
    pub async fn connect_with(address: SocketAddr, builder: &mut Builder) -> Client {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (requests, mut connection) = builder.handshake::<_, Bytes>(socket).await.unwrap();
        let settled = poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut connection).poll(cx).is_pending(), "the connection ended at once");
            if requests.is_extended_connect_protocol_enabled() {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        });
        patient(settled).await;
        Client { requests, connection: tokio::spawn(connection) }
    }

    /// Sends a request without more; the answer, and where its body goes.
    pub async fn send(&self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut requests = patient(self.requests.clone().ready()).await.unwrap();
        requests.send_request(request, ends).unwrap()
    }

    pub async fn try_open(&self, more: &[(&str, &str)]) -> Result<Tunnel, Answer> {
        let (response, send) = self.send(connect("websocket", more), false).await;
        let (parts, body) = patient(response).await.unwrap().into_parts();
        if parts.status == StatusCode::OK {
            let hearing = Hearing { head: parts.headers, body, rest: Vec::new() };
            return Ok(Tunnel { send, hearing });
        }
        Err(Answer { status: parts.status.as_u16(), head: parts.headers, body: text(body).await })
    }

    pub async fn open(&self, more: &[(&str, &str)]) -> Tunnel {
        self.try_open(more).await.unwrap_or_else(|answer| panic!("no tunnel: {answer:?}"))
    }

    /// Sends this body, if any, and reads the whole answer.
    pub async fn ask(&self, request: request::Builder, body: Option<&[u8]>) -> Answer {
        let (response, mut send) = self.send(request.body(()).unwrap(), body.is_none()).await;
        if let Some(body) = body {
            send_all(&mut send, body).await;
            send.send_data(Bytes::new(), true).unwrap();
        }
        let (parts, body) = patient(response).await.unwrap().into_parts();
        Answer { status: parts.status.as_u16(), head: parts.headers, body: text(body).await }
    }
}

/// A good extended CONNECT of version 13 to `/ws`, where `more` says nothing else of the version.
pub fn connect(protocol: &'static str, more: &[(&str, &str)]) -> Request<()> {
    let mut request =
        Request::builder().method("CONNECT").uri("http://a.example/ws").extension(Protocol::from(protocol));
    if !more.iter().any(|(name, _)| *name == "sec-websocket-version") {
        request = request.header("sec-websocket-version", "13");
    }
    for (name, value) in more {
        // A line that is not wanted.
        if !value.is_empty() {
            request = request.header(*name, *value);
        }
    }
    request.body(()).unwrap()
}

impl Tunnel {
    /// A frame of up to 16 MiB with this first byte, masked with zeros.
    pub async fn say(&mut self, first: u8, payload: &[u8]) {
        send_all(&mut self.send, &frame(first, payload)).await;
    }

    pub async fn echoes(&mut self, payload: &[u8]) {
        self.say(0x82, payload).await;
        let (first, heard) = self.hearing.hear().await;
        assert!(first == 0x82 && heard == payload, "{} bytes came back other than they went", payload.len());
    }
}

impl Hearing {
    /// The next frame: its first byte and its payload.
    pub async fn hear(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(2).await;
        let length = match head[1] {
            126 => usize::from(u16::from_be_bytes(self.read(2).await.try_into().unwrap())),
            127 => usize::try_from(u64::from_be_bytes(self.read(8).await.try_into().unwrap())).unwrap(),
            length => usize::from(length),
        };
        (head[0], self.read(length).await)
    }

    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        while self.rest.len() < length {
            let data = patient(self.body.data()).await.expect("the stream ended early").unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.rest.extend_from_slice(&data);
        }
        let after = self.rest.split_off(length);
        std::mem::replace(&mut self.rest, after)
    }

    /// Nothing more, up to the end of the stream; the code of its reset, if it was one.
    pub async fn end(&mut self) -> Option<h2::Reason> {
        assert!(self.rest.is_empty());
        match patient(self.body.data()).await {
            None => None,
            Some(Ok(data)) if data.is_empty() && self.body.is_end_stream() => None,
            Some(Ok(data)) => panic!("more came: {data:?}"),
            Some(Err(error)) => Some(error.reason().unwrap()),
        }
    }
}

pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..65_536 => {
            bytes.push(0xFE);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0xFF);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// As the windows allow.
pub async fn send_all(send: &mut SendStream<Bytes>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let granted = patient(poll_fn(|cx| send.poll_capacity(cx))).await.expect("the stream ended").unwrap();
        let (now, later) = bytes.split_at(granted.min(bytes.len()));
        send.send_data(Bytes::copy_from_slice(now), false).unwrap();
        bytes = later;
    }
}

async fn text(mut body: RecvStream) -> String {
    let mut bytes = Vec::new();
    while let Some(data) = patient(body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes).unwrap()
}

pub async fn patient<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came")
}

/// Longer than what a wake-up takes, shorter than anybody's patience.
pub const A_MOMENT: Duration = Duration::from_millis(200);

/// Reads a head and switches for whatever key it has.
pub fn switch(served: &mut Served, more: &str) -> String {
    let head = served.head();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    served.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    ));
    head
}

/// Echoes messages, unmasked as a server has to (RFC 6455 §5.1); zeros mask nothing.
pub fn echo(more: &'static str) -> Backend {
    Backend::start(move |mut served| {
        switch(&mut served, more);
        let mut reader = std::io::BufReader::with_capacity(1 << 16, served.stream.try_clone().unwrap());
        while let Some(frame) = unmasked(&mut reader) {
            if served.stream.write_all(&frame).is_err() {
                return;
            }
        }
        let _ = served.stream.shutdown(std::net::Shutdown::Write);
    })
}

fn unmasked(reader: &mut impl std::io::Read) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).ok()?;
    let mut frame = vec![head[0], head[1] & 0x7F];
    let extended = match frame[1] {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mut length = [0; 8];
    reader.read_exact(&mut length[8 - extended..]).ok()?;
    frame.extend_from_slice(&length[8 - extended..]);
    let length = if extended == 0 { u64::from(frame[1]) } else { u64::from_be_bytes(length) };
    let mut key = [0; 4];
    reader.read_exact(&mut key).ok()?;
    let start = frame.len();
    frame.resize(start + usize::try_from(length).unwrap(), 0);
    reader.read_exact(&mut frame[start..]).ok()?;
    frame[start..].iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Some(frame)
}
