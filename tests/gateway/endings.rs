//! How a tunnel ends, row by row of `docs/reasons.md`: who is told what, what log and metrics say of it, and that nothing of
//! it is left.

use std::io::Read;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::read_exactly;
use crate::stage::{BINARY, CLOSE, End, PING, PONG, Peer, SLACK, Stage, TALK_BYTES, TEXT};

/// A Close frame with a code and nothing else, from a client and from a backend.
const CLOSE_BYTES: [u64; 2] = [8, 4];

const MESSAGES: [u64; 2] = [1, 1];

/// An end after both sides talked, in which nothing more was passed on.
const AFTER_TALK: End = End {
    reason: "",
    by: "",
    code: "none",
    client_code: None,
    backend_code: None,
    bytes: TALK_BYTES,
    messages: MESSAGES,
};

const CLIENT_CLOSED: End = End {
    reason: "client-closed",
    by: "client",
    code: "1000",
    client_code: Some(1000),
    backend_code: Some(1000),
    bytes: [TALK_BYTES[0] + CLOSE_BYTES[0], TALK_BYTES[1] + CLOSE_BYTES[1]],
    messages: MESSAGES,
};

const BACKEND_CLOSED: End = End { reason: "backend-closed", by: "backend", ..CLIENT_CLOSED };

/// The backend closes first, as RFC 6455 §7.1.1 has it of servers; then the client goes.
fn part(mut client: Peer, mut backend: Peer) {
    backend.finish();
    client.hears_the_end();
    drop(client);
    backend.hears_the_end();
}

#[test]
fn whoever_says_close_first_closed_it() {
    for is_client in [true, false] {
        let mut stage = Stage::new("");
        let (mut client, mut backend) = stage.open_and_talk();
        let (first, second) = if is_client { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
        first.say_close(1000);
        second.hears(CLOSE, b"\x03\xE8");
        second.say_close(1000);
        first.hears(CLOSE, b"\x03\xE8");
        part(client, backend);
        stage.check(if is_client { &CLIENT_CLOSED } else { &BACKEND_CLOSED });
    }
}

#[test]
fn a_close_has_the_code_of_its_side_or_none() {
    for (payload, code, label) in
        [(&b"\x0F\xA1bye"[..], 4001, "4xxx"), (b"", 1005, "1005"), (b"\x03\xF3", 1011, "1011")]
    {
        let mut stage = Stage::new("");
        let (mut client, mut backend) = stage.open_and_talk();
        backend.say(CLOSE, payload);
        client.hears(CLOSE, payload);
        client.say_close(1000);
        backend.hears(CLOSE, b"\x03\xE8");
        part(client, backend);
        let passed = [TALK_BYTES[0] + CLOSE_BYTES[0], TALK_BYTES[1] + 2 + payload.len() as u64];
        stage.check(&End { code: label, backend_code: Some(code), bytes: passed, ..BACKEND_CLOSED });
    }
}

/// A peer that says Close and then more breaks RFC 6455 §5.5.1; the other side must not have to deal with it.
#[test]
fn nothing_follows_the_close_of_a_side() {
    let mut stage = Stage::new("");
    let (mut client, mut backend) = stage.open_and_talk();
    let close = client.frame(CLOSE, b"\x03\xE8");
    let more = client.frame(TEXT, b"more");
    client.send(&[&close[..], &more[..], &close[..]].concat());
    client.send(&more);
    backend.hears(CLOSE, b"\x03\xE8");
    backend.say_close(1000);
    backend.say(TEXT, b"more");
    client.hears(CLOSE, b"\x03\xE8");
    backend.finish();
    client.hears_the_end();
    drop(client);
    backend.hears_the_end();
    stage.check(&CLIENT_CLOSED);
}

#[test]
fn a_close_that_is_not_answered_has_its_time_and_no_more() {
    for is_client in [true, false] {
        let mut stage = Stage::new("close_timeout = '400ms'");
        let (mut client, mut backend) = stage.open_and_talk();
        let (first, second) = if is_client { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
        let said = Instant::now();
        first.say_close(1000);
        second.hears(CLOSE, b"\x03\xE8");
        second.hears_the_end();
        first.hears_the_end();
        let took = said.elapsed();
        assert!(took >= Duration::from_millis(400) && took < SLACK, "{took:?}");
        stage.check(&if is_client {
            End { backend_code: None, bytes: [TALK_BYTES[0] + CLOSE_BYTES[0], TALK_BYTES[1]], ..CLIENT_CLOSED }
        } else {
            End { client_code: None, bytes: [TALK_BYTES[0], TALK_BYTES[1] + CLOSE_BYTES[1]], ..BACKEND_CLOSED }
        });
    }
}

fn vanish(peer: Peer, by_reset: bool) {
    if by_reset {
        peer.reset();
    }
}

#[test]
fn a_client_that_is_lost_between_two_frames_is_told_to_the_backend() {
    for by_reset in [false, true] {
        let mut stage = Stage::new("");
        let (client, mut backend) = stage.open_and_talk();
        vanish(client, by_reset);
        backend.hears_close(1001, "client-lost");
        backend.hears_the_end();
        drop(backend);
        stage.check(&End { reason: "client-lost", by: "client", ..AFTER_TALK });
    }
}

#[test]
fn a_backend_that_is_lost_between_two_frames_is_told_to_the_client() {
    for by_reset in [false, true] {
        let mut stage = Stage::new("");
        let (mut client, backend) = stage.open_and_talk();
        vanish(backend, by_reset);
        client.hears_close(1011, "backend-lost");
        client.say_close(1011);
        client.hears_the_end();
        // A backend that only sends no more may still hear, so the answer goes on; one that is gone may not.
        let answer = if by_reset { 0 } else { CLOSE_BYTES[0] };
        let bytes = [TALK_BYTES[0] + answer, TALK_BYTES[1]];
        stage.check(&End { reason: "backend-lost", by: "backend", client_code: Some(1011), bytes, ..AFTER_TALK });
    }
}

/// Nothing that is sent there would be a frame of its own: it would become a part of the one that never ends.
#[test]
fn a_side_that_is_lost_in_the_middle_of_a_frame_is_told_to_nobody() {
    for (is_client, by_reset) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut stage = Stage::new("");
        let (client, backend) = stage.open_and_talk();
        let (mut lost, mut left) = if is_client { (client, backend) } else { (backend, client) };
        let frame = lost.frame(BINARY, &[7; 1000]);
        lost.send(&frame[..500]);
        let mut part = vec![0; 500];
        left.stream.read_exact(&mut part).unwrap();
        assert!(part == frame[..500]);
        vanish(lost, by_reset);
        left.hears_the_end();
        drop(left);
        let [to_backend, to_client] = TALK_BYTES;
        stage.check(&if is_client {
            End { reason: "client-lost", by: "client", bytes: [to_backend + 500, to_client], ..AFTER_TALK }
        } else {
            End { reason: "backend-lost", by: "backend", bytes: [to_backend, to_client + 500], ..AFTER_TALK }
        });
    }
}

const PINGS: &str = "ping_interval = '300ms'\nping_timeout = '300ms'";

#[test]
fn a_side_that_answers_no_ping_is_told_to_the_other() {
    for is_client in [true, false] {
        let mut stage = Stage::new(PINGS);
        let (client, backend) = stage.open_and_talk();
        let (mut silent, mut left) = if is_client { (client, backend) } else { (backend, client) };
        let (code, reason, by) =
            if is_client { (1001, "client-unresponsive", "client") } else { (1011, "backend-unresponsive", "backend") };
        left.hears_close_beyond_pings(code, reason);
        let age = stage.age();
        assert!(age >= Duration::from_millis(600) && age < SLACK, "{age:?}");
        left.say_close(code);
        left.finish();
        left.hears_the_end();
        let (first, payload) = silent.hear();
        assert_eq!((first, payload.len()), (PING, 8));
        silent.hears_the_end();
        for side in ["client", "backend"] {
            let missed = if side == by { 1.0 } else { 0.0 };
            stage.gateway.wait_for_metric(&format!("wsgate_pong_timeouts_total{{side=\"{side}\"}}"), missed);
            assert!(stage.gateway.metric(&format!("wsgate_pings_total{{side=\"{side}\"}}")) >= 1.0);
        }
        let codes = if is_client { (None, Some(code)) } else { (Some(code), None) };
        stage.check(&End { reason, by, client_code: codes.0, backend_code: codes.1, ..AFTER_TALK });
    }
}

#[test]
fn a_broken_frame_ends_it_where_frames_are_enforced() {
    for is_client in [true, false] {
        let mut stage = Stage::new("frames = 'enforce'");
        let (mut client, mut backend) = stage.open_and_talk();
        // RFC 6455 §5.1: unmasked from a client, masked from a server.
        if is_client {
            client.send(b"\x81\x01x");
        } else {
            backend.send(b"\x81\x81\0\0\0\0x");
        }
        let reason = if is_client { "client-frame-broken" } else { "backend-frame-broken" };
        for side in [&mut client, &mut backend] {
            side.hears_close(1002, reason);
            side.say_close(1002);
        }
        part(client, backend);
        let (by, direction) = if is_client { ("client", "to_backend") } else { ("backend", "to_client") };
        let broken = format!("wsgate_broken_frames_total{{direction=\"{direction}\",route=\"r\"}}");
        stage.gateway.wait_for_metric(&broken, 1.0);
        let code_of = |innocent: bool| innocent.then_some(1002);
        stage.check(&End {
            reason,
            by,
            code: "1002",
            // Where frames cannot be told apart, no answer can be found either.
            client_code: code_of(!is_client),
            backend_code: code_of(is_client),
            ..AFTER_TALK
        });
    }
}

#[test]
fn a_broken_frame_passes_where_frames_are_tracked_and_makes_the_tunnel_blind() {
    let mut stage = Stage::new("max_age = '1s'");
    let (mut client, mut backend) = stage.open_and_talk();
    client.send(b"\x81\x01x");
    read_exactly(&mut backend.stream, b"\x81\x01x");
    for side in [&mut client, &mut backend] {
        side.hears_the_end();
    }
    stage.gateway.wait_for_metric("wsgate_broken_frames_total{direction=\"to_backend\",route=\"r\"}", 1.0);
    stage.check(&End { reason: "max-age", by: "gateway", bytes: [TALK_BYTES[0] + 3, TALK_BYTES[1]], ..AFTER_TALK });
}

const TEN_MIB: usize = 10 << 20;

#[test]
fn no_byte_of_a_frame_that_is_too_big_passes() {
    for limit in ["max_frame = '1MiB'", "max_message = '1MiB'"] {
        for is_client in [true, false] {
            let mut stage = Stage::new(limit);
            let (client, backend) = stage.open_and_talk();
            let (mut talker, mut other) = if is_client { (client, backend) } else { (backend, client) };
            let reason = if is_client { "client-message-too-big" } else { "backend-message-too-big" };
            talker.say(BINARY, &vec![7; TEN_MIB]);
            talker.hears_close(1009, reason);
            talker.say_close(1009);
            other.hears_close(1001, reason);
            other.say_close(1001);
            let (client, backend) = if is_client { (talker, other) } else { (other, talker) };
            part(client, backend);
            let codes = if is_client { [1009, 1001] } else { [1001, 1009] };
            stage.check(&End {
                reason,
                by: if is_client { "client" } else { "backend" },
                code: "1009",
                client_code: Some(codes[0]),
                backend_code: Some(codes[1]),
                ..AFTER_TALK
            });
        }
    }
}

#[test]
fn a_message_grows_over_its_fragments_up_to_the_limit() {
    let mut stage = Stage::new("max_message = '1KiB'");
    let (mut client, mut backend) = stage.open_and_talk();
    // Together as large as a message may be; a Ping between them counts for nothing.
    client.say(BINARY & 0x7F, &[7; 1000]);
    client.say(PING, &[7; 125]);
    client.say(0x00, &[7; 24]);
    backend.hears(BINARY & 0x7F, &[7; 1000]);
    backend.hears(PING, &[7; 125]);
    backend.hears(0x00, &[7; 24]);
    client.say(0x80, b"x");
    for (side, code) in [(&mut client, 1009), (&mut backend, 1001)] {
        side.hears_close(code, "client-message-too-big");
        side.say_close(code);
    }
    part(client, backend);
    let [to_backend, to_client] = TALK_BYTES;
    let fragments = (2 + 2 + 4 + 1000) + (2 + 4 + 125) + (2 + 4 + 24);
    stage.check(&End {
        reason: "client-message-too-big",
        by: "client",
        code: "1009",
        client_code: Some(1009),
        backend_code: Some(1001),
        bytes: [to_backend + fragments, to_client],
        ..AFTER_TALK
    });
}

/// Both sides are told 1001 with this reason, which is the gateway's own; both answer. How long the tunnel lived, in seconds.
fn check_going_away(stage: &mut Stage, client: Peer, backend: Peer, end: &End) -> f64 {
    let mut sides = [client, backend];
    for side in &mut sides {
        side.hears_close(1001, end.reason);
        side.say_close(1001);
    }
    let [client, backend] = sides;
    part(client, backend);
    stage.check(&End { code: "1001", client_code: Some(1001), backend_code: Some(1001), ..*end })
}

#[test]
fn silence_ends_it_and_the_pings_of_a_peer_are_silence() {
    let mut stage = Stage::new("idle_timeout = '2s'");
    let (mut client, mut backend) = stage.open_and_talk();
    let mut pings = 0;
    while stage.age() < Duration::from_millis(1200) {
        client.say(PING, b"?");
        backend.hears(PING, b"?");
        backend.say(PONG, b"?");
        client.hears(PONG, b"?");
        std::thread::sleep(Duration::from_millis(20));
        pings += 1;
    }
    let bytes = [TALK_BYTES[0] + 7 * pings, TALK_BYTES[1] + 3 * pings];
    let end = End { reason: "idle-timeout", by: "gateway", bytes, ..AFTER_TALK };
    let lived = check_going_away(&mut stage, client, backend, &end);
    // Pings that counted would have made it 3.2 seconds.
    assert!((2.0..3.1).contains(&lived), "{lived}");
}

#[test]
fn a_tunnel_grows_no_older_than_it_may() {
    let mut stage = Stage::new("max_age = '3s'");
    let (mut client, mut backend) = stage.open_and_talk();
    let mut said = 0;
    // It is not idle: it is old.
    while stage.age() < Duration::from_millis(1500) {
        client.say(TEXT, b"x");
        backend.hears(TEXT, b"x");
        std::thread::sleep(Duration::from_millis(20));
        said += 1;
    }
    let bytes = [TALK_BYTES[0] + 7 * said, TALK_BYTES[1]];
    let end = End { reason: "max-age", by: "gateway", bytes, messages: [1 + said, 1], ..AFTER_TALK };
    let lived = check_going_away(&mut stage, client, backend, &end);
    // Up to a tenth is taken off by chance.
    assert!((2.7..3.0 + SLACK.as_secs_f64()).contains(&lived), "{lived}");
}

#[test]
fn a_close_of_the_gateway_that_nobody_answers_has_its_time_and_no_more() {
    let mut stage = Stage::new("idle_timeout = '300ms'\nclose_timeout = '400ms'");
    let (mut client, mut backend) = stage.open_and_talk();
    for side in [&mut client, &mut backend] {
        side.hears_close(1001, "idle-timeout");
    }
    let told = Instant::now();
    // What they say instead of an answer goes nowhere and buys no time.
    for side in [&mut client, &mut backend] {
        side.say(TEXT, b"not now");
    }
    for side in [&mut client, &mut backend] {
        side.hears_the_end();
    }
    assert!(told.elapsed() < SLACK, "{:?}", told.elapsed());
    stage.check(&End { reason: "idle-timeout", by: "gateway", code: "1001", ..AFTER_TALK });
}

#[test]
fn a_blind_tunnel_is_told_nothing_and_just_ends() {
    let blind = |keys: &str| Stage::new(&format!("frames = 'blind'\n{keys}"));
    let mut stage = blind("idle_timeout = '300ms'");
    let (mut client, mut backend) = stage.open_and_talk();
    for side in [&mut client, &mut backend] {
        side.hears_the_end();
    }
    let silent = End { messages: [0, 0], ..AFTER_TALK };
    stage.check(&End { reason: "idle-timeout", by: "gateway", ..silent });

    let mut stage = blind("max_age = '300ms'");
    let (mut client, mut backend) = stage.open_and_talk();
    for side in [&mut client, &mut backend] {
        side.hears_the_end();
    }
    stage.check(&End { reason: "max-age", by: "gateway", ..silent });

    // Whoever ends its side first; the other one may still speak, and its Close is no Close to the gateway.
    let mut stage = blind("");
    let (mut client, mut backend) = stage.open_and_talk();
    client.finish();
    backend.hears_the_end();
    backend.say_close(1000);
    client.hears(CLOSE, b"\x03\xE8");
    drop(backend);
    client.hears_the_end();
    let bytes = [TALK_BYTES[0], TALK_BYTES[1] + CLOSE_BYTES[1]];
    stage.check(&End { reason: "client-closed", by: "client", bytes, ..silent });

    let mut stage = blind("");
    let (client, mut backend) = stage.open_and_talk();
    client.reset();
    backend.hears_the_end();
    drop(backend);
    stage.check(&End { reason: "client-lost", by: "client", ..silent });
}

#[test]
fn a_drain_tells_both_sides_and_the_process_goes_with_the_last_tunnel() {
    let mut stage = Stage::with("[gateway.drain]\nspread = '0s'", "");
    let (mut client, mut backend) = stage.open_and_talk();
    stage.gateway.signal(Signal::TERM);
    for side in [&mut client, &mut backend] {
        side.hears_close(1001, "drained");
    }
    client.say_close(1001);
    client.hears_the_end();
    // One side has not answered yet.
    assert!((stage.gateway.metric("wsgate_drain_remaining") - 1.0).abs() < 0.5);
    backend.say_close(1001);
    backend.finish();
    let last = Instant::now();
    backend.hears_the_end();
    assert_eq!(stage.gateway.wait(), 0);
    assert!(last.elapsed() < SLACK, "it waits for nothing after the last tunnel: {:?}", last.elapsed());
    let closed = stage.gateway.wait_for_access(|line| line["event"] == "closed");
    for (field, expected) in [("reason", "drained"), ("by", "operator")] {
        assert_eq!(closed[field], expected, "{closed}");
    }
    for field in ["client_code", "backend_code"] {
        assert_eq!(closed[field], 1001, "{closed}");
    }
}

#[test]
fn a_drain_leaves_a_blind_tunnel_alone_until_its_timeout() {
    let mut stage = Stage::with("[gateway.drain]\nspread = '0s'\ntimeout = '1s'", "frames = 'blind'");
    let (mut client, mut backend) = stage.open_and_talk();
    stage.gateway.signal(Signal::TERM);
    stage.gateway.wait_for_log(|line| line["message"] == "draining");
    client.say(TEXT, b"still here");
    backend.hears(TEXT, b"still here");
    for side in [&mut client, &mut backend] {
        side.hears_the_end();
    }
    assert_eq!(stage.gateway.wait(), 0);
    let closed = stage.gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!((&closed["reason"], &closed["by"]), (&"drain-timeout".into(), &"operator".into()), "{closed}");
    assert_eq!(closed["bytes_to_backend"], TALK_BYTES[0] + 16, "{closed}");
}
