//! Starts the gateway with a configuration, waits until it listens, talks to it, and ends it. It knows no backend.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything that is waited for takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    diagnostics: Lines,
    access_log: Lines,
    folder: tempfile::TempDir,
}

/// The lines of a pipe as they come, each one JSON.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<Value>>, Condvar)>);

impl Lines {
    fn follow(&self, pipe: impl Read + Send + 'static) {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                lines.0.0.lock().unwrap().push(value);
                lines.0.1.notify_all();
            }
        });
    }

    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_several(1, what, wanted).remove(0)
    }

    fn wait_for_several(&self, count: usize, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            let found: Vec<Value> = lines.iter().filter(|line| wanted(line)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} came {} times of {count}; there is {lines:#?}", found.len());
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

impl Gateway {
    /// Listener `public` and the admin listener on ports of their own; `rest` is the rest of the file.
    pub fn start(rest: &str) -> Gateway {
        Gateway::start_with("", "", rest)
    }

    /// As [`Gateway::start`], with more keys of `[gateway]` (tables included) and of the listener.
    pub fn start_with(gateway: &str, listener: &str, rest: &str) -> Gateway {
        Gateway::start_from(&configuration(gateway, listener, rest))
    }

    /// The whole file. It logs in JSON from `info` on, and has the listeners `public` and admin.
    pub fn start_from(text: &str) -> Gateway {
        Gateway::launch(text, &[], &[]).until_ready()
    }

    /// With the `wsgate.toml` of a folder.
    pub fn run(folder: tempfile::TempDir) -> Gateway {
        Gateway::spawn(folder, &[], &[]).until_ready()
    }

    /// Starts with this configuration, more arguments and variables of the environment, and waits for nothing.
    pub fn launch(text: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("wsgate.toml"), text).unwrap();
        Gateway::spawn(folder, arguments, environment)
    }

    fn spawn(folder: tempfile::TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Gateway {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wsgate"))
            .args(["run", "-c"])
            .arg(folder.path().join("wsgate.toml"))
            .args(arguments)
            .env_remove("NOTIFY_SOCKET")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (diagnostics, access_log) = (Lines::default(), Lines::default());
        diagnostics.follow(child.stderr.take().unwrap());
        access_log.follow(child.stdout.take().unwrap());
        Gateway { child, addresses: HashMap::new(), diagnostics, access_log, folder }
    }

    /// Once listeners `public` and `admin` and all others are there.
    pub fn until_ready(mut self) -> Gateway {
        for name in ["public", "admin"] {
            let address = self.listens(name);
            self.addresses.insert(name.to_owned(), address);
        }
        self.wait_for_message("ready");
        self
    }

    /// Where a listener is, once it is there.
    pub fn listens(&self, name: &str) -> SocketAddr {
        let line = self.wait_for_log(|line| line["message"] == "listening" && line["listener"] == name);
        line["address"].as_str().unwrap().parse().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses["public"]
    }

    /// The file that it was started with.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("wsgate.toml")
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// Sends bytes on a connection of their own and reads until the gateway closes it.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_ref()).unwrap();
        read_to_end(&mut stream)
    }

    /// Opens a tunnel and returns it with the 101.
    pub fn open(&self) -> (TcpStream, String) {
        let mut stream = self.connect();
        stream.write_all(upgrade("").as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (stream, head)
    }

    pub fn admin(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = connect(self.addresses["admin"]);
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read_to_end(&mut stream);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer in {answer:?}"));
        (status(head), format!("{head}\n\n{body}"))
    }

    /// The value of one series of `/metrics`, labels in the order of the exposition; 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin("/metrics", "");
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    pub fn status(&self) -> Value {
        let (_, answer) = self.admin("/status", "");
        serde_json::from_str(answer.split_once("\n\n").unwrap().1).unwrap()
    }

    /// Waits until a series has a value.
    pub fn wait_for_metric(&self, series: &str, expected: f64) {
        let until = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(series);
            if (value - expected).abs() < f64::EPSILON {
                return;
            }
            assert!(Instant::now() < until, "{series} is {value}, not {expected}: {}", self.admin("/metrics", "").1);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait_for_log(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.diagnostics.wait("a line of the log", wanted)
    }

    pub fn wait_for_nth_log(&self, nth: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        self.diagnostics.wait_for_several(nth, "a line of the log", wanted).swap_remove(nth - 1)
    }

    pub fn wait_for_message(&self, message: &str) -> Value {
        self.wait_for_log(|line| line["message"] == message)
    }

    pub fn has_logged(&self, wanted: impl Fn(&Value) -> bool) -> bool {
        self.count_logged(wanted) > 0
    }

    pub fn count_logged(&self, wanted: impl Fn(&Value) -> bool) -> usize {
        self.diagnostics.0.0.lock().unwrap().iter().filter(|line| wanted(line)).count()
    }

    pub fn wait_for_access(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.access_log.wait("a line of the access log", wanted)
    }

    /// At least so many.
    pub fn wait_for_accesses(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.access_log.wait_for_several(count, "a line of the access log", wanted)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Memory of the process that is in use.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the process to end; its exit code.
    pub fn wait(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "the gateway did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The text of a configuration, as [`Gateway::start_with`] makes it.
pub fn configuration(gateway: &str, listener: &str, rest: &str) -> String {
    format!(
        "[gateway]\n{gateway}\n[admin]\nlisten = '127.0.0.1:0'\n\
         [log]\nformat = 'json'\nlevel = 'debug'\naccess = 'stdout'\n\
         [[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\n{listener}\n{rest}\n"
    )
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A good upgrade to `/ws`, with more header lines that end in CR LF.
pub fn upgrade(more: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// Reads one head and not a byte more.
pub fn read_head(stream: &mut TcpStream) -> String {
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

/// Reads one head and the body that its `Content-Length` announces.
pub fn read_answer(stream: &mut TcpStream) -> String {
    let head = read_head(stream);
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// Everything until the end; a reset counts as an end.
pub fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn read_exactly(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, expected);
}

pub fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

pub fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
    code.parse().unwrap_or_else(|_| panic!("no status in {answer:?}"))
}
