//! A real name server on loopback, Debian's `dnsmasq`, and what it says. It knows nothing of the gateway.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A zone `test` and who is in it; ended when dropped.
pub struct NameServer {
    address: SocketAddr,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl NameServer {
    /// Serves nobody until it is started.
    pub fn absent() -> NameServer {
        NameServer { address: free_address(), folder: tempfile::tempdir().unwrap(), child: None }
    }

    /// With `hosts` as in `/etc/hosts`, and more lines of its configuration.
    pub fn start(hosts: &str, more: &str) -> NameServer {
        let mut server = NameServer::absent();
        server.begin(hosts, more);
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn begin(&mut self, hosts: &str, more: &str) {
        assert!(self.child.is_none(), "it runs already");
        let (port, hosts_file) = (self.address.port(), self.folder.path().join("hosts"));
        fs::write(&hosts_file, hosts).unwrap();
        // A TTL of 1 s, also of answers that name nobody.
        let configuration = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/test/\n\
             local-ttl=1\nneg-ttl=1\naddn-hosts={}\n{more}\n",
            hosts_file.display()
        );
        let file = self.folder.path().join("dnsmasq.conf");
        fs::write(&file, configuration).unwrap();
        let mut child = Command::new("dnsmasq")
            .args(["--no-daemon", "--pid-file="])
            .arg(format!("--conf-file={}", file.display()))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dnsmasq starts: `make test` installs it");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("dnsmasq ended: {said:?}"));
            said.push(line);
            // The last thing it says of its start.
            if said.last().is_some_and(|line| line.contains("dnsmasq: read ")) {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
    }

    /// Other hosts, without a moment in which it does not answer.
    pub fn change(&self, hosts: &str) {
        fs::write(self.folder.path().join("hosts"), hosts).unwrap();
        self.signal(Signal::HUP);
    }

    /// It still has its socket, and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One that is free for UDP and for TCP.
fn free_address() -> SocketAddr {
    let both = |_| {
        let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
        let address = tcp.local_addr().ok()?;
        UdpSocket::bind(address).ok().map(|_| address)
    };
    (0..100).find_map(both).expect("there is a free port")
}
