//! Where tunnels go: evenly through joins, leaves and reloads, by hash, by cookie, slowly to who is new, not at all to who drains,
//! and in line where all are full.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, PATIENCE, connect, read_answer, read_exactly, read_head, status, upgrade};
use crate::reload::{File, reload};

fn echoes(count: usize) -> Vec<Backend> {
    (0..count).map(|_| Backend::echo()).collect()
}

fn addresses<'b>(backends: impl IntoIterator<Item = &'b Backend>) -> Vec<SocketAddr> {
    backends.into_iter().map(Backend::address).collect()
}

/// Live tunnels by server, of those that are configured.
fn tunnels(gateway: &Gateway) -> Vec<(String, u64)> {
    let status = gateway.status();
    let servers = status["upstreams"][0]["servers"].as_array().unwrap().iter();
    servers
        .map(|server| (server["address"].as_str().unwrap().to_owned(), server["tunnels"].as_u64().unwrap()))
        .collect()
}

fn counts(gateway: &Gateway) -> Vec<u64> {
    tunnels(gateway).into_iter().map(|(_, tunnels)| tunnels).collect()
}

/// Waits until as many tunnels are open as are said to be.
fn until_open(gateway: &Gateway, count: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let open = gateway.status()["tunnels"].as_u64().unwrap();
        if open == count as u64 {
            return;
        }
        assert!(Instant::now() < until, "{open} tunnels, not {count}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn check_even(gateway: &Gateway, what: &str) {
    let counts = counts(gateway);
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    assert!(counts.iter().all(|count| (*count as f64 - mean).abs() <= mean / 10.0), "{what}: {counts:?}");
}

#[test]
fn five_servers_stay_even_through_joins_leaves_and_reloads() {
    let backends = echoes(5);
    let file = |servers: &[SocketAddr], more: &str| File::new(route_to(servers, more, ""));
    let all = addresses(&backends);
    let gateway = file(&all, "").start();
    let mut open: Vec<TcpStream> = (0..300).map(|_| gateway.open().0).collect();
    check_even(&gateway, "300 opened");
    // Every third client leaves, and others come.
    let mut nth = 0;
    open.retain(|_| {
        nth += 1;
        nth % 3 != 0
    });
    until_open(&gateway, 200);
    open.extend((0..150).map(|_| gateway.open().0));
    check_even(&gateway, "a third gone and others there");
    // A reload forgets no count.
    reload(&gateway, &file(&all, "tries = 3"));
    open.extend((0..50).map(|_| gateway.open().0));
    assert_eq!(counts(&gateway).iter().sum::<u64>(), 400);
    check_even(&gateway, "after a reload");
    // A server leaves, and its clients come back to the others.
    reload(&gateway, &file(&all[..4], ""));
    open.extend((0..80).map(|_| gateway.open().0));
    check_even(&gateway, "after one left");
    // It joins again, with the tunnels that it kept, and is levelled by those to come.
    reload(&gateway, &file(&all, ""));
    open.extend((0..20).map(|_| gateway.open().0));
    check_even(&gateway, "after it joined again");
    assert_eq!(counts(&gateway), [100; 5]);
}

#[test]
fn after_a_scale_out_the_ages_of_tunnels_level_them() {
    let backends = echoes(3);
    let all = addresses(&backends);
    let file = |servers: &[SocketAddr]| File::new(route_to(servers, "", "tunnel.max_age = '2s'"));
    let gateway = file(&all[..2]).start();
    let address = gateway.address();
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        // Each client comes again when its tunnel ends.
        let client = || {
            while !is_over() {
                let mut stream = connect(address);
                stream.write_all(upgrade("").as_bytes()).unwrap();
                assert_eq!(status(&read_head(&mut stream)), 101);
                let mut byte = [0];
                let _ = std::io::Read::read(&mut stream, &mut byte);
            }
        };
        (0..60).for_each(|_| _ = scope.spawn(client));
        let until = Instant::now() + PATIENCE;
        let wait = |what: &str, wanted: &dyn Fn(&[u64]) -> bool| {
            loop {
                let counts = counts(&gateway);
                if wanted(&counts) {
                    return;
                }
                if Instant::now() > until {
                    over.store(true, std::sync::atomic::Ordering::SeqCst);
                    panic!("{what}: {counts:?}");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait("before", &|counts| counts.iter().sum::<u64>() == 60);
        reload(&gateway, &file(&all));
        wait("after", &|counts| counts.len() == 3 && counts.iter().all(|count| (18..=22).contains(count)));
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn who_is_new_in_a_running_gateway_fills_slowly() {
    let backends = echoes(5);
    let all = addresses(&backends);
    let file = |servers: &[SocketAddr], slow: &str| File::new(route_to(servers, &format!("slow_start = '{slow}'"), ""));
    for (slow, expected) in [("1h", 0..=12), ("off", 40..=50)] {
        let gateway = file(&all[..4], slow).start();
        let _before: Vec<_> = (0..160).map(|_| gateway.open()).collect();
        reload(&gateway, &file(&all, slow));
        let _after: Vec<_> = (0..40).map(|_| gateway.open()).collect();
        let counts = counts(&gateway);
        let new = counts[4];
        assert!(expected.contains(&new) || (slow == "off" && new == 40), "{slow}: {counts:?}");
        assert_eq!(gateway.status()["upstreams"][0]["servers"][4]["warming_up"], slow != "off");
    }
}

/// Which server answers a client that says who it is.
fn server_of(gateway: &Gateway, backends: &[Backend], user: usize) -> usize {
    let before: Vec<usize> = backends.iter().map(Backend::connections).collect();
    let mut stream = gateway.connect();
    stream.write_all(upgrade(&format!("X-User: {user}\r\n")).as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    backends.iter().zip(before).position(|(backend, before)| backend.connections() > before).unwrap()
}

#[test]
fn users_stay_put_when_another_server_leaves_and_come_back_with_theirs() {
    let backends = echoes(3);
    let all = addresses(&backends);
    let file =
        |servers: &[SocketAddr]| File::new(route_to(servers, "balance = 'header-hash'\nhash_header = 'X-User'", ""));
    let gateway = file(&all).start();
    let servers = || (0..30).map(|user| server_of(&gateway, &backends, user)).collect::<Vec<_>>();
    let before = servers();
    assert!((0..3).all(|server| before.contains(&server)), "{before:?}");
    reload(&gateway, &file(&all[..2]));
    let without = servers();
    assert!(
        before.iter().zip(&without).all(|(before, after)| before == after || *before == 2),
        "{before:?} {without:?}"
    );
    assert!(!without.contains(&2));
    reload(&gateway, &file(&all));
    assert_eq!(servers(), before);
    // A gateway of its own agrees.
    let other = file(&all).start();
    assert_eq!((0..30).map(|user| server_of(&other, &backends, user)).collect::<Vec<_>>(), before);
}

#[test]
fn a_client_is_hashed_by_its_address() {
    let backends = echoes(2);
    let gateway = Gateway::start(&route_to(&addresses(&backends), "balance = 'client-hash'", ""));
    let mut connections = Vec::new();
    for last in 1..=12 {
        let before = backends[0].connections();
        for _ in 0..3 {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
            socket.connect(&gateway.address().into()).unwrap();
            let mut stream: TcpStream = socket.into();
            stream.write_all(upgrade("").as_bytes()).unwrap();
            assert_eq!(status(&read_head(&mut stream)), 101);
        }
        connections.push(backends[0].connections() - before);
    }
    assert!(connections.iter().all(|count| [0, 3].contains(count)), "{connections:?}");
    assert!(connections.contains(&0) && connections.contains(&3), "{connections:?}");
}

fn cookie_of(head: &str) -> Option<String> {
    let line = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: "))?;
    assert!(line.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{line}");
    Some(line.split(';').next().unwrap().to_owned())
}

/// An upgrade with this cookie; the cookie that it got.
fn upgrade_with(gateway: &Gateway, cookie: &str) -> Option<String> {
    let mut stream = gateway.connect();
    stream.write_all(upgrade(&format!("Cookie: a=b; {cookie}\r\n")).as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert_eq!(status(&head), 101);
    cookie_of(&head)
}

#[test]
fn a_cookie_leads_upgrades_and_plain_requests_to_one_server() {
    let backends: Vec<Backend> = (0..3)
        .map(|_| {
            Backend::start(|mut served| {
                if served.head().contains("Sec-WebSocket-Key") {
                    served.send(crate::backend::switching(""));
                } else {
                    served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                }
                served.until_end();
            })
        })
        .collect();
    let all = addresses(&backends);
    let sticky = "balance = 'round-robin'\n[upstream.sticky]\ncookie = 'wsgate'";
    let file = |servers: &[SocketAddr]| File::new(route_to(servers, sticky, ""));
    let gateway = file(&all).start();
    let (_, head) = gateway.open();
    let cookie = cookie_of(&head).unwrap();
    let own = backends.iter().position(|backend| backend.connections() == 1).unwrap();
    assert!(all.iter().all(|address| !cookie.contains(&address.port().to_string()) || cookie.len() == 23), "{cookie}");
    (0..4).for_each(|_| assert_eq!(upgrade_with(&gateway, &cookie), None));
    assert_eq!(backends[own].connections(), 5);
    let plain = |cookie: &str| {
        let mut stream = gateway.connect();
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n").as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.ends_with("ok"), "{answer}");
        cookie_of(&answer)
    };
    assert_eq!(plain(&cookie), None);
    assert_eq!(backends[own].connections(), 6);
    assert!(plain("x=y").is_some());
    // What names no server is as good as nothing.
    let unknown = upgrade_with(&gateway, "wsgate=0123456789abcdef");
    assert!(unknown.is_some() && upgrade_with(&gateway, "wsgate=127.0.0.1:9001").is_some());
    // Its server is gone: another one, and the cookie of that.
    let others: Vec<SocketAddr> = all.iter().copied().filter(|address| *address != all[own]).collect();
    reload(&gateway, &file(&others));
    let next = upgrade_with(&gateway, &cookie).unwrap();
    assert_ne!(next, cookie);
    assert_eq!(upgrade_with(&gateway, &next), None);
}

#[test]
fn a_server_that_drains_keeps_its_tunnels_and_gets_no_more() {
    let backends = echoes(2);
    let all = addresses(&backends);
    let file = |drain: bool| {
        let first = format!("{{ address = '{}', drain = {drain} }}", all[0]);
        File::new(route_to(&all, "", "").replace(&format!("'{}'", all[0]), &first))
    };
    let gateway = file(false).start();
    let mut open: Vec<TcpStream> = (0..4).map(|_| gateway.open().0).collect();
    reload(&gateway, &file(true));
    open.extend((0..6).map(|_| gateway.open().0));
    assert_eq!(counts(&gateway), [2, 8]);
    let server = &gateway.status()["upstreams"][0]["servers"][0];
    assert_eq!((&server["draining"], &server["up"]), (&true.into(), &true.into()));
    gateway.wait_for_metric(&format!("wsgate_backend_draining{{server=\"{}\",upstream=\"u\"}}", all[0]), 1.0);
    for tunnel in &mut open {
        tunnel.write_all(b"still here").unwrap();
        read_exactly(tunnel, b"still here");
    }
    reload(&gateway, &file(false));
    open.extend((0..6).map(|_| gateway.open().0));
    assert_eq!(counts(&gateway), [8, 8]);
}

const WAITING: &str = "wsgate_upstream_waiting{upstream=\"u\"}";

/// One server with room for one tunnel, and a line of this length and patience.
fn full(backend: &Backend, queue: usize, patience: &str, gateway: &str) -> (Gateway, TcpStream) {
    let upstream = format!("queue = {queue}\nqueue_timeout = '{patience}'");
    let route = route_to(&[backend.address()], &upstream, "");
    let server = format!("{{ address = '{}', max_tunnels = 1 }}", backend.address());
    let gateway = Gateway::start_with(gateway, "", &route.replace(&format!("'{}'", backend.address()), &server));
    let (holder, _) = gateway.open();
    (gateway, holder)
}

fn ask(gateway: &Gateway) -> TcpStream {
    let mut stream = gateway.connect();
    stream.write_all(upgrade("").as_bytes()).unwrap();
    stream
}

#[test]
fn who_waits_for_room_is_served_in_turn() {
    let backend = Backend::echo();
    let (gateway, mut holder) = full(&backend, 3, "1m", "");
    let mut waiting = Vec::new();
    for length in [1.0, 2.0, 3.0] {
        waiting.push(ask(&gateway));
        gateway.wait_for_metric(WAITING, length);
    }
    // The line is full.
    assert_eq!(status(&gateway.ask(upgrade(""))), 503);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-backend-tunnels\",route=\"r\"}", 1.0);
    // The second one leaves, and its place is free.
    drop(waiting.remove(1));
    gateway.wait_for_metric(WAITING, 2.0);
    waiting.push(ask(&gateway));
    gateway.wait_for_metric(WAITING, 3.0);
    for left in [2.0, 1.0, 0.0] {
        drop(holder);
        holder = waiting.remove(0);
        // What it says while it waits is not lost.
        assert_eq!(status(&read_head(&mut holder)), 101);
        holder.write_all(b"at last").unwrap();
        read_exactly(&mut holder, b"at last");
        gateway.wait_for_metric(WAITING, left);
    }
    assert!(gateway.metric("wsgate_upstream_wait_timeouts_total{upstream=\"u\"}").abs() < f64::EPSILON);
}

#[test]
fn what_a_client_says_while_it_waits_reaches_its_server() {
    let backend = Backend::echo();
    let (gateway, holder) = full(&backend, 1, "1m", "");
    let mut waiting = ask(&gateway);
    gateway.wait_for_metric(WAITING, 1.0);
    waiting.write_all(b"early").unwrap();
    drop(holder);
    assert_eq!(status(&read_head(&mut waiting)), 101);
    read_exactly(&mut waiting, b"early");
}

#[test]
fn who_waits_too_long_is_refused_as_if_there_were_no_line() {
    let backend = Backend::echo();
    let (gateway, _holder) = full(&backend, 5, "100ms", "");
    let begun = Instant::now();
    let answer = gateway.ask(upgrade(""));
    assert!(status(&answer) == 503 && begun.elapsed() >= Duration::from_millis(100), "{answer}");
    gateway.wait_for_metric("wsgate_upstream_wait_timeouts_total{upstream=\"u\"}", 1.0);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-backend-tunnels\",route=\"r\"}", 1.0);
    gateway.wait_for_metric(WAITING, 0.0);
}

/// Servers with room for one tunnel each, some of which drain, and a long line.
fn narrow(servers: &[SocketAddr], drain: &[SocketAddr], health: &str) -> File {
    let mut rest = route_to(servers, &format!("queue = 9\nqueue_timeout = '1m'\n{health}"), "");
    for server in servers {
        let rules = format!("{{ address = '{server}', max_tunnels = 1, drain = {} }}", drain.contains(server));
        rest = rest.replace(&format!("'{server}'"), &rules);
    }
    File::new(rest)
}

fn check_served(gateway: &Gateway, waiting: &mut TcpStream, by: &Backend) {
    assert_eq!(status(&read_head(waiting)), 101);
    assert_eq!(by.connections(), 1);
    assert!(gateway.metric("wsgate_upstream_wait_timeouts_total{upstream=\"u\"}").abs() < f64::EPSILON);
}

fn echo_at(address: SocketAddr) -> Backend {
    Backend::start_on(TcpListener::bind(address).unwrap(), |mut served| {
        served.switch("");
        served.until_end();
    })
}

#[test]
fn a_server_that_comes_back_serves_who_waits() {
    let (backend, absent) = (Backend::echo(), Backend::nobody());
    let health = "[upstream.health]\ncheck = 'tcp'\ninterval = '200ms'\ntimeout = '1s'\nrise = 1\nfall = 1";
    let gateway = narrow(&[backend.address(), absent], &[], health).start();
    gateway.wait_for_metric(&format!("wsgate_backend_up{{server=\"{absent}\",upstream=\"u\"}}"), 0.0);
    let _holder = gateway.open();
    let mut waiting = ask(&gateway);
    gateway.wait_for_metric(WAITING, 1.0);
    let _back = echo_at(absent);
    assert_eq!(status(&read_head(&mut waiting)), 101);
    gateway.wait_for_metric(WAITING, 0.0);
}

#[test]
fn without_checks_one_who_waits_finds_out_that_a_server_is_back() {
    let (backend, absent) = (Backend::echo(), Backend::nobody());
    let health = "balance = 'round-robin'\n[upstream.health]\nfall = 1\neject_time = '300ms'";
    let gateway = narrow(&[backend.address(), absent], &[], health).start();
    let _holder = gateway.open();
    // It has tried the server in vain, and waits for the other one.
    let _first = ask(&gateway);
    gateway.wait_for_metric(WAITING, 1.0);
    let back = echo_at(absent);
    check_served(&gateway, &mut ask(&gateway), &back);
    gateway.wait_for_metric(WAITING, 1.0);
}

#[test]
fn who_waits_goes_by_the_servers_of_now() {
    let backends = echoes(2);
    let all = addresses(&backends);
    let gateway = narrow(&all[..1], &[], "").start();
    let (holder, _) = gateway.open();
    let mut waiting = ask(&gateway);
    gateway.wait_for_metric(WAITING, 1.0);
    reload(&gateway, &narrow(&all, &[], ""));
    check_served(&gateway, &mut waiting, &backends[1]);
    let mut next = ask(&gateway);
    gateway.wait_for_metric(WAITING, 1.0);
    // It came before the first server drained, and yet what is freed there is not for it.
    reload(&gateway, &narrow(&all, &all[..1], ""));
    drop(holder);
    until_open(&gateway, 1);
    gateway.wait_for_metric(WAITING, 1.0);
    assert_eq!(backends[0].connections(), 1);
    drop(waiting);
    assert_eq!(status(&read_head(&mut next)), 101);
    assert_eq!((backends[0].connections(), backends[1].connections()), (1, 2));
}

#[test]
fn a_limit_that_is_raised_lets_in_as_many_as_it_has_room_for() {
    let backend = Backend::echo();
    let file = narrow(&[backend.address()], &[], "");
    let gateway = file.start();
    let _holder = gateway.open();
    let _waiting: Vec<TcpStream> = [1.0, 2.0, 3.0]
        .map(|length| {
            let stream = ask(&gateway);
            gateway.wait_for_metric(WAITING, length);
            stream
        })
        .into();
    reload(&gateway, &File { rest: file.rest.replace("max_tunnels = 1", "max_tunnels = 3"), ..file });
    until_open(&gateway, 3);
    gateway.wait_for_metric(WAITING, 1.0);
}

#[test]
fn a_drain_ends_the_wait() {
    let backend = Backend::echo();
    let (mut gateway, _holder) = full(&backend, 5, "1m", "drain.timeout = '10s'\ndrain.spread = '0s'");
    let mut waiting = ask(&gateway);
    gateway.wait_for_metric(WAITING, 1.0);
    gateway.signal(Signal::TERM);
    assert_eq!(status(&read_head(&mut waiting)), 503);
    drop((waiting, _holder));
    assert_eq!(gateway.wait(), 0);
}
