//! `wsgate demo`: the gateway with one built-in configuration, an embedded echo backend and a page to play with. It does
//! not know how any of them works; it says what to open and what to type.

mod backend;
mod page;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use socket2::{Domain, Protocol, Socket, Type};

use super::run;
use crate::server::Start;
use crate::{config, source};
use backend::Backends;
use page::Page;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the gateway listens; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the metrics and the rest of the admin listener are.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Show the access log on standard output.
    #[arg(long)]
    access: bool,
}

/// Why the demo cannot begin.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("no free port on `{address}`: {source}")]
    Port { address: IpAddr, source: io::Error },
    #[error("cannot start the embedded backends: {0}")]
    Backends(#[from] io::Error),
}

pub fn demo(arguments: &Arguments) -> ExitCode {
    let demo = match Demo::prepare(arguments) {
        Ok(demo) => demo,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match config::parse("the configuration of the demo", &demo.configuration(), source::cores()) {
        Ok(config) => {
            println!("{}", demo.announcement());
            run::serve(config, None, Start::Fresh)
        }
        // Only addresses that cannot stand together, such as twice the same, get here.
        Err(problems) => {
            eprint!("{}", problems.render(config::Look::Plain));
            ExitCode::FAILURE
        }
    }
}

/// All that is known before the gateway runs. The backends run already.
struct Demo {
    gateway: Reserved,
    admin: Reserved,
    backends: Backends,
    access: &'static str,
}

impl Demo {
    fn prepare(arguments: &Arguments) -> Result<Demo, DemoError> {
        let gateway = Reserved::new(arguments.listen)?;
        let admin = Reserved::new(arguments.admin)?;
        let page = Page::new(reachable(gateway.address), reachable(admin.address));
        let backends = Backends::start(page)?;
        let access = if arguments.access { "stdout" } else { "off" };
        Ok(Demo { gateway, admin, backends, access })
    }

    fn configuration(&self) -> String {
        format!(
            r#"
[admin]
listen = "{admin}"

[log]
format = "text"
access = "{access}"

[[listener]]
name = "public"
listen = "{gateway}"

[[route]]
name = "echo"
paths = ["=/echo"]
upstream = "echo"
plain_http = "refuse"

[[route]]
name = "page"
upstream = "page"

[[upstream]]
name = "echo"
versions = "auto"
servers = ["{echo}"]

[[upstream]]
name = "page"
servers = ["{page}"]
"#,
            admin = self.admin.address,
            access = self.access,
            gateway = self.gateway.address,
            echo = self.backends.echo,
            page = self.backends.page,
        )
    }

    /// What to open and what to type.
    fn announcement(&self) -> String {
        let gateway = reachable(self.gateway.address);
        let admin = reachable(self.admin.address);
        format!(
            "Open a page that speaks WebSocket through the gateway:\n\n  \
               http://{gateway}/\n\n\
             See what a client of version 8 is told, 426 and the version that would do:\n\n  \
               curl -i -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 8' \\\n    \
                 -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' http://{gateway}/echo\n\n\
             See that it was counted:\n\n  \
               curl -s http://{admin}/metrics | grep wsgate_refusals_total\n\n\
             Or watch the counts on the page of the admin listener:\n\n  \
               http://{admin}/\n\n\
             Control-C ends the demo.\n"
        )
    }
}

/// An address that is known before the gateway listens on it.
struct Reserved {
    address: SocketAddr,
    /// With port 0 the system picks one, and nobody else is given it while this is bound. It never listens, so the
    /// gateway, which sets `SO_REUSEADDR` as well, can.
    _held: Option<Socket>,
}

impl Reserved {
    fn new(address: SocketAddr) -> Result<Reserved, DemoError> {
        if address.port() != 0 {
            return Ok(Reserved { address, _held: None });
        }
        pick_port(address).map_err(|source| DemoError::Port { address: address.ip(), source })
    }
}

fn pick_port(mut address: SocketAddr) -> io::Result<Reserved> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket();
    address.set_port(bound.map_or(0, |bound| bound.port()));
    Ok(Reserved { address, _held: Some(socket) })
}

/// Where this machine reaches what listens on `address`: loopback where that is all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn prepare(listen: &str) -> Demo {
        let arguments =
            Arguments { listen: listen.parse().unwrap(), admin: "127.0.0.1:0".parse().unwrap(), access: false };
        Demo::prepare(&arguments).unwrap()
    }

    #[test]
    fn the_built_in_configuration_has_no_problem() {
        let demo = prepare("127.0.0.1:0");
        let config = config::parse("demo", &demo.configuration(), source::cores());
        let config = config.unwrap_or_else(|problems| panic!("{}", problems.render(config::Look::Plain)));
        assert_eq!(config.listeners[0].listen, demo.gateway.address.into());
        assert_eq!(config.admin.listen, Some(demo.admin.address));
    }

    #[test]
    fn a_reserved_port_is_free_for_the_gateway_alone() {
        let reserved = Reserved::new("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(reserved.address.port(), 0);
        let gateway = TcpListener::bind(reserved.address).unwrap();
        assert_eq!(gateway.local_addr().unwrap(), reserved.address);
    }

    #[test]
    fn what_is_announced_can_be_opened() {
        let demo = prepare("0.0.0.0:0");
        let text = demo.announcement();
        assert!(text.contains(&format!("  http://127.0.0.1:{}/\n", demo.gateway.address.port())), "{text}");
        assert!(text.contains(&format!("http://{}/metrics", demo.admin.address)), "{text}");
        assert!(text.contains(&format!("  http://{}/\n", demo.admin.address)), "{text}");
        assert_eq!(reachable("[::]:1".parse().unwrap()), "[::1]:1".parse().unwrap());
        assert_eq!(reachable("192.0.2.1:1".parse().unwrap()), "192.0.2.1:1".parse().unwrap());
    }
}
