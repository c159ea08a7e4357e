//! What passes through an open tunnel, how it ends, and that many of them open at once.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, finish, read_exactly, read_head, read_to_end, status, upgrade};

#[test]
fn a_client_that_does_not_read_can_still_send() {
    const FLOOD: usize = 8 << 20;
    let backend = Backend::start(|mut served| {
        served.switch("");
        let mut writer = served.stream.try_clone().unwrap();
        let flood = std::thread::spawn(move || writer.write_all(&vec![7; FLOOD]));
        let mut stop = [0; 4];
        served.stream.read_exact(&mut stop).unwrap();
        served.recorded(&stop);
        flood.join().unwrap().unwrap();
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let (mut stream, _) = gateway.open();
    // The flood fills every buffer on the way before the client says anything.
    gateway.wait_for_access(|line| line["event"] == "opened");
    std::thread::sleep(Duration::from_millis(300));
    stream.write_all(b"STOP").unwrap();
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while !backend.recorded().ends_with("STOP") {
        assert!(std::time::Instant::now() < until, "STOP waits behind the flood");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut flood = vec![0; FLOOD];
    stream.read_exact(&mut flood).unwrap();
    assert!(flood.iter().all(|&byte| byte == 7));
}

#[test]
fn late_data_after_a_half_close_arrives() {
    let backend = Backend::start(|mut served| {
        served.switch("");
        let mut heard = Vec::new();
        served.stream.read_to_end(&mut heard).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        served.send([b"heard ".as_slice(), &heard].concat());
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let (mut stream, _) = gateway.open();
    stream.write_all(b"last words").unwrap();
    finish(&stream);
    assert_eq!(read_to_end(&mut stream), "heard last words");
    let closed = gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!((&closed["reason"], &closed["by"]), (&"client-closed".into(), &"client".into()));
    assert_eq!((&closed["bytes_to_backend"], &closed["bytes_to_client"]), (&10.into(), &16.into()));
}

#[test]
fn early_bytes_of_both_sides_are_delivered() {
    let backend = Backend::start(|mut served| {
        served.head();
        served.send(crate::backend::switching("") + "early from the backend");
        let mut heard = [0; 21];
        served.stream.read_exact(&mut heard).unwrap();
        served.recorded(&heard);
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let mut stream = gateway.connect();
    stream.write_all((upgrade("") + "early from the client").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    read_exactly(&mut stream, b"early from the backend");
    finish(&stream);
    gateway.wait_for_access(|line| line["event"] == "closed");
    assert!(backend.recorded().ends_with("early from the client"), "{}", backend.recorded());
}

#[test]
fn a_still_tunnel_ends_at_its_idle_timeout() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", "[route.tunnel]\nidle_timeout = '400ms'"));
    let (mut stream, _) = gateway.open();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(200));
        stream.write_all(b"x").unwrap();
        read_exactly(&mut stream, b"x");
    }
    assert_eq!(read_to_end(&mut stream), "");
    gateway.wait_for_access(|line| line["event"] == "closed" && line["reason"] == "idle-timeout");
    gateway.wait_for_metric("wsgate_tunnel_closes_total{by=\"gateway\",code=\"none\",route=\"r\"}", 1.0);
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 0.0);
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 0.0);
}

#[test]
fn a_side_that_resets_is_named() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let (stream, _) = gateway.open();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    gateway.wait_for_access(|line| line["event"] == "closed" && line["reason"] == "client-lost");
}

#[test]
fn the_last_words_of_a_backend_arrive_while_the_client_still_sends() {
    let backend = Backend::start(|mut served| {
        served.switch("");
        let mut first = [0];
        served.stream.read_exact(&mut first).unwrap();
        served.send("BYE");
        // Closed with bytes unread, which resets the connection.
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    for _ in 0..20 {
        let (mut stream, _) = gateway.open();
        let mut writer = stream.try_clone().unwrap();
        let flood = std::thread::spawn(move || {
            let _ = writer.write_all(&vec![7; 1 << 20]);
            let _ = writer.shutdown(std::net::Shutdown::Write);
        });
        read_exactly(&mut stream, b"BYE");
        flood.join().unwrap();
    }
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 0.0);
}

#[test]
fn bytes_are_counted_while_the_tunnel_lives() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let (mut stream, _) = gateway.open();
    stream.write_all(&[1; 1000]).unwrap();
    read_exactly(&mut stream, &[1; 1000]);
    gateway.wait_for_metric("wsgate_tunnel_bytes_total{direction=\"to_backend\",route=\"r\"}", 1000.0);
    gateway.wait_for_metric("wsgate_tunnel_bytes_total{direction=\"to_client\",route=\"r\"}", 1000.0);
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
    gateway
        .wait_for_metric("wsgate_tunnels_total{backend_version=\"13\",route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
}

/// Pingora's own path after a 101 lost some of these in a race with fast backends (cloudflare/pingora#946).
#[test]
fn ten_thousand_upgrades_on_four_threads_lose_none() {
    const UPGRADES: usize = 10_000;
    const CLIENTS: usize = 16;
    let backend = Backend::start(|mut served| {
        served.switch("");
        served.send("ready");
        let mut go = [0; 2];
        if served.stream.read_exact(&mut go).is_ok() {
            served.send("done");
        }
    });
    let gateway = Gateway::start_with("threads = 4", "", &route_to(&[backend.address()], "", ""));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < UPGRADES {
                    let (mut stream, _) = gateway.open();
                    read_exactly(&mut stream, b"ready");
                    stream.write_all(b"go").unwrap();
                    read_exactly(&mut stream, b"done");
                }
            });
        }
    });
    assert_eq!(backend.connections(), UPGRADES);
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 0.0);
}
