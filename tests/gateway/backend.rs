//! Backends by script: a thread a connection, and a record of every byte that reached them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::{ACCEPT, PATIENCE, read_head};

/// A listening backend. Its threads end with the connections they serve.
pub struct Backend {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
}

/// A connection whose bytes are kept.
pub struct Served {
    pub stream: TcpStream,
    recorded: Arc<Mutex<Vec<u8>>>,
}

impl Served {
    /// One head, recorded.
    pub fn head(&mut self) -> String {
        let head = read_head(&mut self.stream);
        self.recorded.lock().unwrap().extend_from_slice(head.as_bytes());
        head
    }

    /// Keeps bytes that a script read by itself.
    pub fn recorded(&self, bytes: &[u8]) {
        self.recorded.lock().unwrap().extend_from_slice(bytes);
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The gateway may have left by now, which is often the point.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Answers with what the client's key asks for, and more header lines.
    pub fn switch(&mut self, more: &str) {
        self.head();
        self.send(switching(more));
    }

    /// Waits until the other side ends.
    pub fn until_end(&mut self) {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = self.stream.read(&mut piece) {
            self.recorded.lock().unwrap().extend_from_slice(&piece[..length]);
        }
    }
}

pub fn switching(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
    )
}

impl Backend {
    pub fn start(serve: impl Fn(Served) + Send + Sync + 'static) -> Backend {
        Backend::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
    }

    pub fn start_on(listener: TcpListener, serve: impl Fn(Served) + Send + Sync + 'static) -> Backend {
        let address = listener.local_addr().unwrap();
        let (recorded, connections) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicUsize>::default());
        let (record, count, serve) = (Arc::clone(&recorded), Arc::clone(&connections), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let (serve, recorded) = (Arc::clone(&serve), Arc::clone(&record));
                std::thread::spawn(move || serve(Served { stream, recorded }));
            }
        });
        Backend { address, recorded, connections }
    }

    /// Switches protocols and sends every byte back.
    pub fn echo() -> Backend {
        Backend::start(send_back)
    }

    /// As [`Backend::echo`], one at each of these addresses, all on one port.
    pub fn echoes<const COUNT: usize>(ips: [&str; COUNT]) -> [Backend; COUNT] {
        let bind = |_| {
            let first = TcpListener::bind((ips[0], 0)).ok()?;
            let port = first.local_addr().ok()?.port();
            let others = ips[1..].iter().map(|ip| TcpListener::bind((*ip, port)).ok());
            std::iter::once(Some(first)).chain(others).collect::<Option<Vec<TcpListener>>>()
        };
        let listeners = (0..100).find_map(bind).expect("there is a port that is free at every address");
        let backends: Vec<Backend> = listeners.into_iter().map(|one| Backend::start_on(one, send_back)).collect();
        backends.try_into().unwrap_or_else(|_| unreachable!("one for each address"))
    }

    /// Answers whatever comes with these bytes and closes.
    pub fn answering(answer: &'static str) -> Backend {
        Backend::start(move |mut served| {
            served.head();
            served.send(answer);
        })
    }

    /// An address where nobody listens.
    pub fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn recorded(&self) -> String {
        String::from_utf8_lossy(&self.recorded.lock().unwrap()).into_owned()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn send_back(mut served: Served) {
    served.switch("");
    let mut reader = served.stream.try_clone().unwrap();
    let _ = std::io::copy(&mut reader, &mut served.stream);
    let _ = served.stream.shutdown(std::net::Shutdown::Write);
}

/// One route `r` to an upstream `u` of these servers, with more keys of each.
pub fn route_to(servers: &[SocketAddr], upstream: &str, route: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("'{server}'")).collect();
    format!(
        "[[upstream]]\nname = 'u'\nservers = [{}]\n{upstream}\n[[route]]\nname = 'r'\nupstream = 'u'\n{route}",
        servers.join(", ")
    )
}
