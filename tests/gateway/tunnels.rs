//! What passes through an open tunnel, how it ends, and that many of them open at once.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, finish, read_exactly, read_head, read_to_end, status, upgrade};
use crate::stage::{BINARY, PING, PONG, SLACK, Stage, TALK_BYTES};

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
fn bytes_and_messages_are_counted_while_the_tunnel_lives() {
    let mut stage = Stage::new("");
    let (mut client, mut backend) = stage.open_and_talk();
    let bytes = |direction| format!("wsgate_tunnel_bytes_total{{direction=\"{direction}\",route=\"r\"}}");
    let messages = |direction, kind| {
        format!("wsgate_tunnel_messages_total{{direction=\"{direction}\",kind=\"{kind}\",route=\"r\"}}")
    };
    stage.gateway.wait_for_metric(&bytes("to_backend"), TALK_BYTES[0] as f64);
    stage.gateway.wait_for_metric(&bytes("to_client"), TALK_BYTES[1] as f64);
    // A message is one when its last fragment has passed; its bytes are there before.
    backend.say(BINARY & 0x7F, &[7; 100]);
    client.hears(BINARY & 0x7F, &[7; 100]);
    backend.say(PING, b"?");
    client.hears(PING, b"?");
    client.say(PONG, b"?");
    backend.hears(PONG, b"?");
    stage.gateway.wait_for_metric(&bytes("to_client"), (TALK_BYTES[1] + 102 + 3) as f64);
    stage.gateway.wait_for_metric(&messages("to_client", "binary"), 0.0);
    backend.say(0x80, &[7; 100]);
    client.hears(0x80, &[7; 100]);
    let (text, binary, ping, pong) = ("text", "binary", "ping", "pong");
    for (direction, counts) in [
        ("to_backend", [(text, 1.0), (binary, 0.0), (ping, 0.0), (pong, 1.0)]),
        ("to_client", [(text, 1.0), (binary, 1.0), (ping, 1.0), (pong, 0.0)]),
    ] {
        for (kind, count) in counts {
            stage.gateway.wait_for_metric(&messages(direction, kind), count);
        }
    }
    stage.gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
    let opened = "wsgate_tunnels_total{backend_version=\"13\",route=\"r\",upstream=\"u\",version=\"13\"}";
    stage.gateway.wait_for_metric(opened, 1.0);
}

#[test]
fn the_length_of_a_tunnel_is_no_part_of_its_handshake() {
    let mut stage = Stage::new("");
    let (client, mut backend) = stage.open_and_talk();
    let handshake = |of| format!("wsgate_handshake_duration_seconds_{of}{{route=\"r\"}}");
    let tunnel = |of| format!("wsgate_tunnel_duration_seconds_{of}{{route=\"r\"}}");
    stage.gateway.wait_for_metric(&handshake("count"), 1.0);
    let shook_hands = stage.gateway.metric(&handshake("sum"));
    let opened = stage.gateway.wait_for_access(|line| line["event"] == "opened");
    assert!((shook_hands - opened["handshake_seconds"].as_f64().unwrap()).abs() < 0.001, "{shook_hands}: {opened}");
    assert!(stage.gateway.metric(&tunnel("count")) < 0.5, "it has not ended");
    // The time itself is what is measured here.
    std::thread::sleep(Duration::from_millis(1500).saturating_sub(stage.age()));
    drop(client);
    backend.hears_close(1001, "client-lost");
    drop(backend);
    stage.gateway.wait_for_metric(&tunnel("count"), 1.0);
    let lived = stage.gateway.metric(&tunnel("sum"));
    assert!((1.5..1.5 + SLACK.as_secs_f64()).contains(&lived), "{lived} s");
    stage.gateway.wait_for_metric(&handshake("count"), 1.0);
    assert!((stage.gateway.metric(&handshake("sum")) - shook_hands).abs() < f64::EPSILON);
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
