//! How the gateway ends a tunnel by itself, row by row of `docs/reasons.md`: what is too big, too old or too quiet, and what is
//! in its way when it goes. As in `endings`, both sides, log and metrics are looked at, and that nothing is left.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::stage::{
    AFTER_TALK, BINARY, CLOSE, CLOSE_BYTES, End, PING, PONG, Peer, SLACK, Stage, TALK_BYTES, TEXT, part,
};

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
