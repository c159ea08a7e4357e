//! A backend that is a process of its own, to be killed and stopped as processes are: Python's sockets, a thread a connection.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Switches protocols and sends every byte back; a plain request gets 204, and `/bad` 500.
const PROGRAM: &str = r#"
import base64, hashlib, socket, sys, threading
def serve(connection):
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        piece = connection.recv(1)
        if not piece:
            return
        head += piece
    key = next((line.split(': ', 1)[1] for line in head.decode('latin-1').split('\r\n') if line.lower().startswith('sec-websocket-key:')), None)
    if key is None:
        status = '500 No' if head.startswith(b'GET /bad ') else '204 Fine'
        connection.sendall(f'HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'.replace('Content-Length: 0\r\n', '' if status[0] == '2' else 'Content-Length: 0\r\n').encode())
        return connection.close()
    accept = base64.b64encode(hashlib.sha1((key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode()
    connection.sendall(f'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n'.encode())
    while piece := connection.recv(4096):
        if piece[0] == 0x88:
            connection.sendall(b'\x88\x02\x03\xe8')
            break
        connection.sendall(piece)
    connection.close()
def guarded(connection):
    try:
        serve(connection)
    except OSError:
        pass
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=1024)
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=guarded, args=(connection,), daemon=True).start()
"#;

/// Killed when dropped.
pub struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    pub fn start() -> Process {
        Process::start_at(0)
    }

    /// Another one where this one was.
    pub fn again(&self) -> Process {
        Process::start_at(self.address.port())
    }

    /// Listens when this returns.
    fn start_at(port: u16) -> Process {
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        Process { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// With SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
