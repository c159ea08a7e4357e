//! What a client of HTTP/1.1 reads from and writes to, and never waits for: a socket, or TLS on one. It does not know
//! what for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, Error, HandshakeKind};

pub enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

pub struct Tls {
    session: ClientConnection,
    socket: TcpStream,
}

impl Stream {
    pub fn tls(socket: TcpStream, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let session = ClientConnection::new(config, name)?;
        Ok(Self::Tls(Box::new(Tls { session, socket })))
    }

    /// Goes on with the handshake of TLS once the socket is connected: whether bytes may be sent now.
    pub fn establish(&mut self) -> io::Result<bool> {
        match self {
            Stream::Plain(_) => Ok(true),
            Stream::Tls(tls) => tls.establish(),
        }
    }

    /// How the session came about, `None` outside of TLS and before it is known.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => tls.session.handshake_kind(),
        }
    }
}

/// A read that does not fill the buffer has taken all that had arrived.
impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(into),
            Stream::Tls(tls) => tls.read(into),
        }
    }
}

/// What TLS has accepted and the socket has not is sent at the next read or write.
impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    /// The client's last flight stays behind here and goes out with the first bytes of the application, so that what
    /// the gateway wakes up for does not depend on who is faster.
    fn establish(&mut self) -> io::Result<bool> {
        while self.session.is_handshaking() {
            self.send()?;
            match self.receive() {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.send()?;
        let mut filled = 0;
        while filled < into.len() {
            let ended = match self.session.reader().read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    continue;
                }
                Err(error) => error,
            };
            // Nothing is decrypted any more, so records must come: of data, or of tickets, which bring no bytes.
            let error = match (ended.kind(), self.receive()) {
                (ErrorKind::WouldBlock, Ok(_)) => continue,
                (ErrorKind::WouldBlock, Err(error)) => error,
                _ => ended,
            };
            if filled == 0 {
                return Err(error);
            }
            break;
        }
        Ok(filled)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.session.writer().write(bytes)?;
        self.send()?;
        if count == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One read of the socket, and what it completes; 0 at its end.
    fn receive(&mut self) -> io::Result<usize> {
        let count = self.session.read_tls(&mut self.socket)?;
        self.session.process_new_packets().map_err(io::Error::other)?;
        Ok(count)
    }
}

/// The tunnel is over, and TLS says so (RFC 8446 §6.1).
impl Drop for Tls {
    fn drop(&mut self) {
        self.session.send_close_notify();
        // The connection ends with or without it.
        let _ = self.send();
    }
}
