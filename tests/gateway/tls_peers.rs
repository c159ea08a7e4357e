//! Clients and backends that speak TLS: rustls itself on blocking sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion, crypto, version,
};

use crate::backend::switching;
use crate::harness::{self, PATIENCE};
use crate::pki::Signed;

pub type Secure = StreamOwned<ClientConnection, TcpStream>;

pub const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

fn chain(signed: &Signed) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap())
}

/// A client that believes one authority, and shows a certificate if it has one.
pub fn client(
    ca: &str,
    identity: Option<&Signed>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots(ca));
    Arc::new(match identity {
        Some(signed) => {
            let (chain, key) = chain(signed);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

/// # Errors
/// What the handshake came to.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Result<Secure, String> {
    let mut socket = harness::connect(address);
    let mut connection =
        ClientConnection::new(Arc::clone(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// One head and not a byte more.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            ended => panic!("no whole head, {ended:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

/// Sends a request and reads until the end that is said.
pub fn ask(stream: &mut Secure, request: &str) -> Result<String, String> {
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|e| e.to_string())?;
    Ok(answer)
}

/// Opens a tunnel; the head of the 101.
pub fn open(stream: &mut Secure, more: &str) -> String {
    stream.write_all(harness::upgrade(more).as_bytes()).unwrap();
    let head = read_head(stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    head
}

pub fn echo(stream: &mut Secure, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes, "another echo");
}

/// A backend over TLS: it switches protocols and sends every byte back, or answers a plain request.
pub struct TlsBackend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One connection that came to a head.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub name: Option<String>,
    pub is_resumed: bool,
    pub has_certificate: bool,
}

impl TlsBackend {
    /// With `clients`, it demands a certificate of theirs.
    pub fn start(signed: &Signed, clients: Option<&str>, versions: &[&'static SupportedProtocolVersion]) -> TlsBackend {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let builder = match clients {
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        let (chain, key) = chain(signed);
        let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, all) = (Arc::clone(&config), Arc::clone(&all));
                std::thread::spawn(move || serve(&config, socket, &all));
            }
        });
        TlsBackend { address, seen }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// `None` as soon as the other side is gone, which is often the point.
fn serve(config: &Arc<ServerConfig>, mut socket: TcpStream, all: &Mutex<Vec<Seen>>) -> Option<()> {
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.set_nodelay(true).ok()?;
    let mut connection = ServerConnection::new(Arc::clone(config)).ok()?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).ok()?;
    }
    let (is_resumed, name) =
        (connection.handshake_kind() == Some(HandshakeKind::Resumed), connection.server_name().map(str::to_owned));
    let has_certificate = connection.peer_certificates().is_some();
    let mut stream = StreamOwned::new(connection, socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(char::from(byte[0]));
    }
    let is_upgrade = head.contains("Upgrade: websocket");
    all.lock().unwrap().push(Seen { head, name, is_resumed, has_certificate });
    if !is_upgrade {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
        stream.flush().ok()?;
    } else {
        stream.write_all(switching("").as_bytes()).ok()?;
    }
    let mut piece = [0; 16384];
    loop {
        let length = stream.read(&mut piece).ok()?;
        if length == 0 || !is_upgrade {
            stream.conn.send_close_notify();
            stream.flush().ok()?;
            return Some(());
        }
        stream.write_all(&piece[..length]).ok()?;
    }
}
