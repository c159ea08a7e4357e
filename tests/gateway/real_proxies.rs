//! HAProxy and nginx as operators put them in front of the gateway, and HAProxy behind it: what they say of a client arrives.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::backend::{Backend, route_to};
use crate::callers::{answering, connect_from};
use crate::harness::{Gateway, PATIENCE, read_exactly, read_head, read_to_end, status, upgrade};

const CLIENT: &str = "127.0.0.9";
const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n";

/// Ended when dropped.
struct Proxy {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Until it listens.
    fn start(program: &str, configuration: &str, arguments: &dyn Fn(&Path) -> Vec<String>, at: &[SocketAddr]) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new(program);
        command.args(arguments(folder.path())).current_dir(folder.path()).stdin(Stdio::null());
        let mut proxy =
            Proxy { child: command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")), _folder: folder };
        let until = Instant::now() + PATIENCE;
        while !at.iter().all(|address| TcpStream::connect(address).is_ok()) {
            assert!(proxy.child.try_wait().unwrap().is_none() && Instant::now() < until, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        proxy
    }

    fn haproxy(sections: &str, at: &[SocketAddr]) -> Proxy {
        let defaults = "defaults\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n timeout tunnel 20s\n";
        let arguments =
            |folder: &Path| vec!["-db".to_owned(), "-f".to_owned(), folder.join("proxy.conf").display().to_string()];
        Proxy::start("haproxy", &format!("{defaults}{sections}"), &arguments, at)
    }

    fn nginx(server: &str, at: SocketAddr) -> Proxy {
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let configuration = format!(
            "{user}daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{ }}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{ listen {at};\n{server}\n}} }}\n"
        );
        let arguments = |folder: &Path| {
            [
                "-p",
                &folder.display().to_string(),
                "-c",
                &folder.join("proxy.conf").display().to_string(),
                "-e",
                "stderr",
            ]
            .map(str::to_owned)
            .into()
        };
        Proxy::start("nginx", &configuration, &arguments, &[at])
    }
}

#[test]
fn haproxy_in_front_says_who_the_client_is_in_either_version() {
    let backend = Backend::start(|mut served| {
        let head = served.head();
        if head.contains("Upgrade: websocket") {
            served.send(crate::backend::switching(""));
            let mut reader = served.stream.try_clone().unwrap();
            let _ = std::io::copy(&mut reader, &mut served.stream);
        } else {
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let rules = "client_address = 'proxy-protocol'\ntrusted_proxies = ['127.0.0.2/32']";
    let gateway = Gateway::start_with("", rules, &route_to(&[backend.address()], "", ""));
    let fronts = [Backend::nobody(), Backend::nobody()];
    let sections = ["send-proxy", "send-proxy-v2"].iter().zip(&fronts).map(|(send, at)| {
        format!(
            "listen {send}\n mode tcp\n bind {at}\n option httpchk GET /health-{send}\n \
             server gateway {} source 127.0.0.2 {send} check inter 100ms\n",
            gateway.address()
        )
    });
    let _haproxy = Proxy::haproxy(&sections.collect::<String>(), &fronts);
    for front in fronts {
        let mut stream = connect_from(CLIENT, front);
        let client = stream.local_addr().unwrap().to_string();
        stream.write_all(upgrade("X-Forwarded-For: 203.0.113.9\r\n").as_bytes()).unwrap();
        assert_eq!(status(&read_head(&mut stream)), 101);
        stream.write_all(b"through both").unwrap();
        read_exactly(&mut stream, b"through both");
        let line = gateway.wait_for_access(|line| line["event"] == "opened" && line["client"] == client.as_str());
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.2:"), "{line}");
    }
    assert!(
        backend.recorded().contains("X-Forwarded-For: 127.0.0.9\r\n") && !backend.recorded().contains("203.0.113.9")
    );
    for path in ["/health-send-proxy", "/health-send-proxy-v2"] {
        let line = gateway.wait_for_access(|line| line["path"] == path && line["status"] == 200);
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.2:") && line["peer"].is_null(), "{line}");
    }
}

#[test]
fn haproxy_behind_hears_who_the_client_is_in_either_version() {
    for version in ["v1", "v2"] {
        let backend = answering();
        let at = Backend::nobody();
        let sections = format!(
            "listen behind\n mode http\n bind {at} accept-proxy\n http-request set-header X-Seen %[src]:%[src_port],%[dst]:%[dst_port]\n \
             server app {}\n",
            backend.address()
        );
        let _haproxy = Proxy::haproxy(&sections, &[at]);
        let gateway = Gateway::start(&route_to(&[at], &format!("proxy_protocol = '{version}'"), ""));
        for request in [GET.to_owned(), upgrade("")] {
            let mut stream = connect_from(CLIENT, gateway.address());
            let seen = format!("x-seen: {},{}\r\n", stream.local_addr().unwrap(), gateway.address());
            stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(status(&read_to_end(&mut stream)), 200);
            assert!(backend.recorded().to_ascii_lowercase().contains(&seen), "{seen} in {}", backend.recorded());
        }
    }
}

const TO_GATEWAY: &str = "location / {\nproxy_http_version 1.1;\nproxy_set_header Host $host;\nproxy_set_header Upgrade $http_upgrade;\n\
                          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n";

#[test]
fn nginx_in_front_says_it_in_a_field_over_tcp_and_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("public.sock");
    let local = format!(
        "[[listener]]\nname = 'local'\nlisten = 'unix:{}'\nclient_address = 'forwarded'\ntrusted_proxies = ['unix']\n",
        path.display()
    );
    let rules = "client_address = 'forwarded'\ntrusted_proxies = ['127.0.0.2/32']";
    for over_unix in [false, true] {
        let backend = answering();
        let gateway = Gateway::start_with("", rules, &format!("{local}{}", route_to(&[backend.address()], "", "")));
        let to = match over_unix {
            true => format!("proxy_pass http://unix:{}:;\n}}", path.display()),
            false => format!("proxy_bind 127.0.0.2;\nproxy_pass http://{};\n}}", gateway.address()),
        };
        let at = Backend::nobody();
        let _nginx = Proxy::nginx(&format!("{TO_GATEWAY}{to}"), at);
        let mut stream = connect_from(CLIENT, at);
        stream.write_all(GET.as_bytes()).unwrap();
        assert_eq!(status(&read_to_end(&mut stream)), 200);
        let line = gateway.wait_for_access(|line| line["path"] == "/a");
        assert_eq!(line["client"], CLIENT, "{line}");
        let (peer, list) = match over_unix {
            true => ("local", "203.0.113.9, 127.0.0.9"),
            false => ("127.0.0.2:", "203.0.113.9, 127.0.0.9, 127.0.0.2"),
        };
        assert!(line["peer"].as_str().unwrap().starts_with(peer), "{line}");
        let seen = backend.recorded().to_ascii_lowercase();
        assert!(seen.contains(&format!("x-forwarded-for: {list}\r\n")), "{seen}");
    }
}
