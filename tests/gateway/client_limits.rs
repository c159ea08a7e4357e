//! What each client may have: connections, tunnels, upgrades in a time; what it is told when it has that, and that it gets it
//! back. A client is an address of 127.0.0.0/8 here, because those are all this machine's.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, PATIENCE, configuration, read_head, read_to_end, status, upgrade};
use crate::reload::is_reloaded;

pub const ONE: &str = "127.0.0.2";
pub const OTHER: &str = "127.0.0.3";

pub fn connect_from(client: &str, gateway: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(client.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&gateway.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An upgrade from this client: the tunnel, or the whole answer.
pub fn try_open_from(client: &str, gateway: &Gateway) -> Result<TcpStream, String> {
    let mut stream = connect_from(client, gateway.address());
    stream.write_all(upgrade("").as_bytes()).unwrap();
    let head = read_head(&mut stream);
    if status(&head) == 101 { Ok(stream) } else { Err(head + &read_to_end(&mut stream)) }
}

pub fn open_from(client: &str, gateway: &Gateway) -> TcpStream {
    try_open_from(client, gateway).unwrap_or_else(|answer| panic!("{client} is refused: {answer}"))
}

/// As [`open_from`], as soon as there is room.
pub fn open_in_time(client: &str, gateway: &Gateway) -> TcpStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match try_open_from(client, gateway) {
            Ok(stream) => return stream,
            Err(answer) => assert!(Instant::now() < until, "{client} is still refused: {answer}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn refused(client: &str, gateway: &Gateway) -> String {
    match try_open_from(client, gateway) {
        Ok(_) => panic!("{client} is let in"),
        Err(answer) => answer,
    }
}

fn check_answer(answer: &str, retry_after: &str, said: &str) {
    let expected = format!(
        "HTTP/1.1 429 Too Many Requests\nConnection: close\nRetry-After: {retry_after}\nCache-Control: no-store\n\
         Content-Type: text/plain; charset=utf-8\nContent-Length: {}\n\n{said}",
        said.len()
    );
    assert_eq!(answer.replace("\r\n", "\n"), expected);
}

fn text(backend: &Backend, limits: &str, route: &str) -> String {
    let route = route_to(&[backend.address()], "", &format!("[route.limits]\n{route}"));
    configuration("", "", &format!("[limits]\n{limits}\n{route}"))
}

fn start(backend: &Backend, limits: &str, route: &str) -> Gateway {
    Gateway::start_from(&text(backend, limits, route))
}

pub fn reload(gateway: &Gateway, text: &str) {
    fs::write(gateway.path(), text).unwrap();
    let before = gateway.count_logged(is_reloaded);
    gateway.signal(Signal::HUP);
    gateway.wait_for_nth_log(before + 1, is_reloaded);
}

#[test]
fn a_client_has_so_many_tunnels_and_another_one_has_its_own() {
    let backend = Backend::echo();
    let gateway = start(&backend, "", "tunnels_per_client = 2\ntunnels = 4");
    let first = open_from(ONE, &gateway);
    let _second = open_from(ONE, &gateway);
    for _ in 0..3 {
        check_answer(&refused(ONE, &gateway), "5", "You have too many connections.\n");
    }
    // What was refused took nothing of the route's, and nothing of it reached the backend.
    let _others = [open_from(OTHER, &gateway), open_from(OTHER, &gateway)];
    assert_eq!(backend.connections(), 4);
    let line = gateway.wait_for_access(|line| line["reason"] == "limit-client-tunnels");
    assert_eq!((&line["event"], &line["status"], &line["route"]), (&"refused".into(), &429.into(), &"r".into()));
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-client-tunnels\",route=\"r\"}", 3.0);
    drop(first);
    let _third = open_in_time(ONE, &gateway);
}

#[test]
fn a_slot_comes_back_from_a_tunnel_that_never_was() {
    let backend = Backend::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let gateway = start(&backend, "", "tunnels_per_client = 1");
    for _ in 0..5 {
        assert_eq!(status(&refused(ONE, &gateway)), 403);
    }
}

#[test]
fn a_client_has_so_many_connections_from_their_accept_to_their_end() {
    let backend = Backend::echo();
    let route = route_to(&[backend.address()], "", "");
    let gateway = Gateway::start_with("", "connections_per_client = 2", &route);
    let tunnel = open_from(ONE, &gateway);
    // It says nothing, and counts.
    let silent = connect_from(ONE, gateway.address());
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 2.0);
    let mut turned_away = connect_from(ONE, gateway.address());
    check_answer(&read_to_end(&mut turned_away), "5", "You have too many connections.\n");
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-client-connections\",route=\"-\"}", 1.0);
    let _other = open_from(OTHER, &gateway);
    drop(silent);
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 2.0);
    let again = open_from(ONE, &gateway);
    drop((tunnel, again));
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 1.0);
    let _both = [open_from(ONE, &gateway), open_from(ONE, &gateway)];
}

#[test]
fn a_client_upgrades_so_often_and_learns_when_it_may_again() {
    let backend = Backend::echo();
    let gateway = start(&backend, "", "handshakes_per_client = '3/h'");
    // What policy refuses costs nothing.
    for _ in 0..4 {
        let mut stream = connect_from(ONE, gateway.address());
        stream.write_all(upgrade("").replace("Version: 13", "Version: 8").as_bytes()).unwrap();
        assert_eq!(status(&read_head(&mut stream)), 426);
    }
    let begun = Instant::now();
    (0..3).for_each(|_| drop(open_from(ONE, &gateway)));
    for _ in 0..3 {
        let answer = refused(ONE, &gateway);
        let retry_after = answer.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
        let (least, seconds) = (1199 - begun.elapsed().as_secs(), retry_after.parse::<u64>().unwrap());
        assert!((least..=1200).contains(&seconds), "one every 20 minutes, and it says {seconds} s");
        check_answer(&answer, retry_after, "You connect too often.\n");
    }
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-client-handshakes\",route=\"r\"}", 3.0);
    drop(open_from(OTHER, &gateway));
    assert_eq!(backend.connections(), 4);
}

#[test]
fn whoever_comes_again_when_it_was_told_to_is_let_in() {
    let backend = Backend::echo();
    let gateway = start(&backend, "", "handshakes_per_client = '1/s'");
    for _ in 0..2 {
        // One that comes late finds a token all the same, so it is asked for until there is none.
        let answer = loop {
            if let Err(answer) = try_open_from(ONE, &gateway) {
                break answer;
            }
        };
        check_answer(&answer, "1", "You connect too often.\n");
        std::thread::sleep(Duration::from_secs(1));
        drop(open_from(ONE, &gateway));
    }
}

#[test]
fn whoever_is_exempt_has_no_limit_of_its_own() {
    let backend = Backend::echo();
    let route = "tunnels_per_client = 1\nhandshakes_per_client = '1/h'\ntunnels = 4";
    let gateway = start(&backend, "exempt = ['127.0.0.2/32', '10.0.0.0/8']", route);
    let _many = [open_from(ONE, &gateway), open_from(ONE, &gateway), open_from(ONE, &gateway)];
    let _one = open_from(OTHER, &gateway);
    assert_eq!(status(&refused(OTHER, &gateway)), 429);
    // A limit that all share holds for it too.
    assert_eq!(status(&refused(ONE, &gateway)), 503);
}

#[test]
fn a_client_of_ipv6_is_limited_as_one_of_ipv4() {
    let backend = Backend::echo();
    let route = route_to(&[backend.address()], "", "[route.limits]\ntunnels_per_client = 1");
    let gateway = Gateway::start(&format!("[[listener]]\nname = 'six'\nlisten = '[::1]:0'\n{route}"));
    let six = gateway.listens("six");
    let ask = || {
        let mut stream = crate::harness::connect(six);
        stream.write_all(upgrade("").as_bytes()).unwrap();
        (status(&read_head(&mut stream)), stream)
    };
    let first = ask();
    assert_eq!(first.0, 101);
    assert_eq!(ask().0, 429);
    let _other = open_from(ONE, &gateway);
}

#[test]
fn a_reload_finds_what_each_client_has() {
    let backend = Backend::echo();
    let with = |limits: &str| text(&backend, "", limits);
    let gateway = Gateway::start_from(&with("tunnels_per_client = 2\nhandshakes_per_client = '6/h'"));
    let first = open_from(ONE, &gateway);
    let second = open_from(ONE, &gateway);
    assert_eq!(status(&refused(ONE, &gateway)), 429);
    reload(&gateway, &with("tunnels_per_client = 3\nhandshakes_per_client = '6/h'"));
    let third = open_from(ONE, &gateway);
    assert_eq!(status(&refused(ONE, &gateway)), 429);
    reload(&gateway, &with("tunnels_per_client = 1\nhandshakes_per_client = '6/h'"));
    drop((first, second));
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
    assert!(refused(ONE, &gateway).ends_with("You have too many connections.\n"));
    // Six have asked by now, and the bucket is that of before.
    assert!(refused(ONE, &gateway).ends_with("You connect too often.\n"));
    drop(third);
    reload(&gateway, &with(""));
    let _many = [open_from(ONE, &gateway), open_from(ONE, &gateway), open_from(ONE, &gateway)];
}
