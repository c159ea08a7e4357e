//! How a tunnel ends by the doing of its two sides, row by row of `docs/reasons.md`: who is told what, what log and metrics say
//! of it, and that nothing of it is left.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::harness::read_exactly;
use crate::stage::{
    AFTER_TALK, BINARY, CLOSE, CLOSE_BYTES, End, PING, Peer, SLACK, Stage, TALK_BYTES, TALK_MESSAGES, TEXT, part,
};

const CLIENT_CLOSED: End = End {
    reason: "client-closed",
    by: "client",
    code: "1000",
    client_code: Some(1000),
    backend_code: Some(1000),
    bytes: [TALK_BYTES[0] + CLOSE_BYTES[0], TALK_BYTES[1] + CLOSE_BYTES[1]],
    messages: TALK_MESSAGES,
};

const BACKEND_CLOSED: End = End { reason: "backend-closed", by: "backend", ..CLIENT_CLOSED };

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
