//! Ports without sockets: what one version's bytes are in another's, in any pieces.

use proptest::prelude::*;

use super::*;
use crate::wire::{CloseCode, FrameHeader, Opcode, mask};

const TERMS: Terms = Terms { binary: Binary::Refuse, message_bytes_max: 1 << 20 };
const BASE64: Terms = Terms { binary: Binary::Base64, ..TERMS };

fn bridge(client: Dialect, backend: Dialect) -> Bridge {
    Bridge::between(client, backend, TERMS, 7)
}

fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let header = FrameHeader {
        opcode: Opcode::from_bits(first & 0x0F).unwrap(),
        is_final: first & 0x80 != 0,
        reserved: 0,
        mask: key,
        payload_bytes: payload.len() as u64,
    };
    let mut bytes = Vec::new();
    header.write_to(&mut bytes);
    let begin = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[begin..], key.unwrap_or_default(), 0);
    bytes
}

/// First byte and payload of each frame, without masks.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (header, header_bytes) = FrameHeader::parse(bytes).unwrap().unwrap();
        let end = header_bytes + usize::try_from(header.payload_bytes).unwrap();
        let mut payload = bytes[header_bytes..end].to_vec();
        mask(&mut payload, header.mask.unwrap_or_default(), 0);
        found.push((bytes[0], payload));
        bytes = &bytes[end..];
    }
    found
}

/// What a port makes of bytes that come in pieces of this size.
fn decode(port: &mut Port, bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), Fault>) {
    let (mut out, mut held) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        held.extend_from_slice(piece);
        match port.decode(&held, &mut out) {
            Ok(taken) => drop(held.drain(..taken)),
            Err(fault) => return (out, Err(fault)),
        }
    }
    (out, Ok(()))
}

fn encode(port: &mut Port, bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), Fault>) {
    let mut out = Vec::new();
    let done = bytes.chunks(step).try_for_each(|piece| port.encode(piece, &mut out));
    (out, done)
}

/// One message of fragments as one.
fn messages(frames: &[(u8, Vec<u8>)]) -> Vec<(u8, Vec<u8>)> {
    let mut whole = Vec::new();
    let mut open: Option<(u8, Vec<u8>)> = None;
    for (first, payload) in frames {
        match (first & 0x0F, &mut open) {
            (8.., _) => whole.push((first & 0x0F, payload.clone())),
            (0, Some((_, message))) => message.extend_from_slice(payload),
            (opcode, _) => open = Some((opcode, payload.clone())),
        }
        if let (true, Some(message)) = (first & 0x80 != 0 && first & 0x0F < 8, &open) {
            whole.push(message.clone());
            open = None;
        }
    }
    whole
}

const KEY: Option<[u8; 4]> = Some([1, 2, 3, 4]);

#[test]
fn a_text_to_hixie_is_whole_and_in_one_piece() {
    let sent = [
        frame(0x01, "h\u{e9}".as_bytes(), KEY),
        frame(0x89, b"?", KEY),
        frame(0x80, b"llo", KEY),
        frame(0x81, b"", KEY),
    ];
    for step in 1..20 {
        let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
        let (out, done) = encode(&mut port, &sent.concat(), step);
        assert_eq!((out, done), (b"\0h\xC3\xA9llo\xFF\0\xFF".to_vec(), Ok(())), "{step}");
        assert_eq!(frames(&port.take_reply()), [(0x8A, b"?".to_vec())]);
        assert!(!port.has_reply());
    }
}

#[test]
fn a_byte_that_would_end_a_text_never_reaches_hixie() {
    for bad in [&b"a\xFF\0b"[..], b"\xFF", b"\xC0\x80", b"\xED\xA0\x80", b"\xF0\x9D"] {
        let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
        assert_eq!(encode(&mut port, &frame(0x81, bad, KEY), 3), (vec![], Err(Fault::Text)), "{bad:?}");
    }
}

#[test]
fn binary_is_refused_or_travels_as_base64() {
    let binary = frame(0x82, b"\0\xFF\x80", KEY);
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
    assert_eq!(encode(&mut port, &binary, 3), (vec![], Err(Fault::Binary)));
    let mut port = Bridge::between(Dialect::Rfc6455, Dialect::Hixie76, BASE64, 7).backend;
    assert_eq!(encode(&mut port, &binary, 3), (b"\0AP+A\xFF".to_vec(), Ok(())));
    let (back, done) = decode(&mut port, b"\0AP+A\xFF\0\xFF", 2);
    assert_eq!((frames(&back), done), (vec![(0x82, b"\0\xFF\x80".to_vec()), (0x82, vec![])], Ok(())));
    assert_eq!(decode(&mut port, b"\0no base64\xFF", 2), (vec![], Err(Fault::Text)));
}

#[test]
fn a_text_of_hixie_goes_on_as_it_comes() {
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
    let (out, _) = decode(&mut port, b"\0Hello\xFF\0\xFF", 100);
    assert_eq!(out, b"\x81\x05Hello\x81\0");
    let (out, _) = decode(&mut port, b"\0Hello\xFF", 3);
    assert_eq!(frames(&out), [(0x01, b"He".to_vec()), (0x00, b"llo".to_vec()), (0x80, vec![])]);
}

#[test]
fn what_a_client_of_hixie_sends_is_masked_each_time_anew() {
    let mut port = bridge(Dialect::Hixie76, Dialect::Rfc6455).client;
    let (out, _) = decode(&mut port, b"\0Hello\xFF\0Hello\xFF", 100);
    assert_eq!(frames(&out), [(0x81, b"Hello".to_vec()), (0x81, b"Hello".to_vec())]);
    assert_eq!((out[1], out[12]), (0x85, 0x85));
    assert_ne!(out[2..6], out[13..17]);
}

#[test]
fn a_text_of_hixie_that_is_none_ends() {
    for bad in [&b"\0a\xC3\xFF"[..], b"\0\xC0", b"\0\xFEx"] {
        let mut port = bridge(Dialect::Hixie76, Dialect::Rfc6455).client;
        assert_eq!(decode(&mut port, bad, 1).1, Err(Fault::Text), "{bad:?}");
    }
}

#[test]
fn hixie_76_closes_with_ff_00_and_answers_with_it() {
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
    let (out, _) = decode(&mut port, b"\0a\xFF\xFF\0\0b\xFF", 1);
    assert_eq!(messages(&frames(&out)), [(1, b"a".to_vec()), (8, vec![3, 0xE8])]);
    // The answer to it.
    assert_eq!(encode(&mut port, &frame(0x88, &[3, 0xE8], KEY), 9), (b"\xFF\0".to_vec(), Ok(())));
    assert!(!port.has_reply());
    assert_eq!(encode(&mut port, &frame(0x81, b"late", KEY), 9), (vec![], Ok(())));
}

#[test]
fn who_closes_towards_hixie_gets_its_own_code_back_at_once() {
    for (payload, expected) in [(&[0x0F, 0xA0, b'x'][..], &[0x0F, 0xA0][..]), (&[], &[])] {
        let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
        assert_eq!(encode(&mut port, &frame(0x88, payload, KEY), 2).0, b"\xFF\0");
        assert_eq!(frames(&port.take_reply()), [(0x88, expected.to_vec())]);
        // Its own answer comes after the one in its stead.
        assert_eq!(decode(&mut port, b"\xFF\0", 1), (vec![], Ok(())));
        let mut out = Vec::new();
        port.decode_end(&mut out);
        assert!(out.is_empty());
    }
}

#[test]
fn a_close_of_the_gateway_waits_for_the_peers_own_answer() {
    let own = OwnFrame::Close { code: CloseCode(1001), reason: "drained" };
    let mut out = Vec::new();
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
    port.encode_own(own, KEY, &mut out);
    assert_eq!(out, b"\xFF\0");
    assert!(!port.has_reply() && !port.ends_with_fin());
    assert_eq!(frames(&decode(&mut port, b"\xFF\0", 2).0), [(0x88, vec![3, 0xE8])]);
}

#[test]
fn hixie_75_closes_with_fin() {
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie75).backend;
    assert_eq!(encode(&mut port, &frame(0x88, &[3, 0xE8], KEY), 9), (vec![], Ok(())));
    assert!(port.ends_with_fin());
    assert_eq!(frames(&port.take_reply()), [(0x88, vec![3, 0xE8])]);
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie75).backend;
    assert_eq!(decode(&mut port, b"\xFF\0", 2), (vec![], Ok(())));
    let mut out = Vec::new();
    port.decode_end(&mut out);
    assert_eq!(frames(&out), [(0x88, vec![3, 0xE8])]);
}

#[test]
fn a_fin_within_a_frame_of_hixie_is_no_close() {
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
    decode(&mut port, b"\0abc", 4).1.unwrap();
    let mut out = Vec::new();
    port.decode_end(&mut out);
    assert!(out.is_empty());
}

#[test]
fn lengths_of_old_versions_become_the_shortest() {
    let long = [&b"\x81\x7E\0\x02hi"[..], b"\x82\x7F\0\0\0\0\0\0\0\x01x"].concat();
    for dialect in [Dialect::Hybi8, Dialect::Hybi7] {
        let mut port = bridge(Dialect::Rfc6455, dialect).backend;
        assert_eq!(decode(&mut port, &long, 3), (b"\x81\x02hi\x82\x01x".to_vec(), Ok(())));
    }
    let mut port = bridge(Dialect::Hybi8, Dialect::Rfc6455).backend;
    assert_eq!(decode(&mut port, &long, 3).1, Err(Fault::Frame));
}

#[test]
fn close_codes_that_may_not_be_sent_never_are() {
    for (sent, expected) in [
        (&[3, 0xE8][..], &[3, 0xE8][..]),
        (&[3, 0xEC, b'x'], &[3, 0xF1, b'x']),
        (&[3, 0xED], &[]),
        (&[0x62, 0x79, b't'], &[]),
        (&[1], &[]),
        (&[], &[]),
        (&[3, 0xE8, 0xFF], &[3, 0xE8]),
        (&[0x0F, 0xA0, b'o', b'k'], &[0x0F, 0xA0, b'o', b'k']),
    ] {
        for key in [None, KEY] {
            let mut port = bridge(Dialect::Rfc6455, Dialect::Hybi8).backend;
            assert_eq!(
                frames(&decode(&mut port, &frame(0x88, sent, key), 1).0),
                [(0x88, expected.to_vec())],
                "{sent:?}"
            );
        }
    }
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hybi8).client;
    assert_eq!(frames(&decode(&mut port, &frame(0x88, &[3, 0xEC], KEY), 1).0), [(0x88, vec![])]);
}

#[test]
fn texts_are_checked_towards_13_and_only_there() {
    let bad = [frame(0x01, b"a\xE2", KEY), frame(0x89, b"\xFF", KEY), frame(0x80, b"\x28", KEY)].concat();
    let good = [frame(0x01, b"a\xE2", KEY), frame(0x89, b"\xFF", KEY), frame(0x80, b"\x82\xAC", KEY)].concat();
    for step in 1..12 {
        let mut port = bridge(Dialect::Hybi8, Dialect::Rfc6455).client;
        assert_eq!(decode(&mut port, &bad, step).1, Err(Fault::Text));
        let mut port = bridge(Dialect::Hybi8, Dialect::Rfc6455).client;
        assert_eq!(decode(&mut port, &good, step), (good.clone(), Ok(())));
        let mut port = bridge(Dialect::Hybi8, Dialect::Hybi7).client;
        assert_eq!(decode(&mut port, &bad, step), (bad.clone(), Ok(())));
    }
}

#[test]
fn what_is_collected_and_what_is_dropped_is_limited() {
    let terms = Terms { binary: Binary::Base64, message_bytes_max: 100 };
    let port = || Bridge::between(Dialect::Rfc6455, Dialect::Hixie76, terms, 7).backend;
    let huge = [0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4];
    assert_eq!(encode(&mut port(), &huge, 14).1, Err(Fault::TooBig));
    let many = [frame(0x01, &[b'a'; 60], KEY), frame(0x00, &[b'a'; 60], KEY)].concat();
    assert_eq!(encode(&mut port(), &many, 14).1, Err(Fault::TooBig));
    assert_eq!(decode(&mut port(), &[&b"\0"[..], &[b'A'; 200]].concat(), 9).1, Err(Fault::TooBig));
    assert_eq!(decode(&mut port(), &[&b"\x80"[..], &[0xFF; 20]].concat(), 9).1, Err(Fault::Frame));
}

#[test]
fn a_message_may_be_as_large_as_the_limit() {
    for (first, expected) in
        [(0x81, [b"\0", &[b'a'; 99][..], b"\xFF"].concat()), (0x82, [b"\0", &b"YWFh".repeat(33)[..], b"\xFF"].concat())]
    {
        let terms = Terms { message_bytes_max: 99, ..BASE64 };
        let port = || Bridge::between(Dialect::Rfc6455, Dialect::Hixie76, terms, 7).backend;
        assert_eq!(encode(&mut port(), &frame(first, &[b'a'; 99], KEY), 14), (expected, Ok(())));
        assert_eq!(encode(&mut port(), &frame(first, &[b'a'; 100], KEY), 14), (vec![], Err(Fault::TooBig)));
        let many = [frame(first & 0x0F, &[b'a'; 60], KEY), frame(0x80, &[b'a'; 39], KEY)].concat();
        assert_eq!(encode(&mut port(), &many, 14).1, Ok(()));
    }
}

#[test]
fn a_fault_is_final() {
    let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
    assert_eq!(encode(&mut port, &frame(0x82, b"binary", KEY), 99), (vec![], Err(Fault::Binary)));
    assert_eq!(encode(&mut port, &frame(0x81, b"text", KEY), 99), (vec![], Err(Fault::Binary)));
    for (own, bad, good) in [
        (Dialect::Hixie76, &b"\0\xFE\xFF"[..], &b"\0a\xFF"[..]),
        (Dialect::Hixie76, b"\x80\xFF\xFF\xFF\xFF", b"\0a\xFF\0a\xFF"),
        (Dialect::Hybi8, b"\x81\x01\xFF", b"\x81\x01a"),
        (Dialect::Rfc6455, b"\x83", b"\x81\x01a"),
    ] {
        let mut port = bridge(Dialect::Rfc6455, own).backend;
        let fault = decode(&mut port, bad, 99).1;
        assert!(fault.is_err(), "{bad:?}");
        assert_eq!(decode(&mut port, good, 99), (vec![], fault), "{bad:?}");
        let mut out = Vec::new();
        port.decode_end(&mut out);
        assert_eq!(out, b"", "{bad:?}");
    }
}

#[test]
fn an_empty_last_frame_ends_no_text_that_is_none() {
    let begun = frame(0x01, b"a\xE2", KEY);
    for step in 1..20 {
        let mut port = bridge(Dialect::Hybi8, Dialect::Rfc6455).client;
        let bytes = [&begun[..], &frame(0x80, b"", KEY)].concat();
        assert_eq!(decode(&mut port, &bytes, step), (begun.clone(), Err(Fault::Text)), "{step}");
    }
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(Dialect::ALL.to_vec())
}

proptest! {
    #[test]
    fn a_text_is_the_same_on_the_other_side_of_any_bridge(
        client in any_dialect(), backend in any_dialect(), texts in prop::collection::vec(any::<String>(), 0..6),
        step in 1_usize..40, fragment in 1_usize..20,
    ) {
        let mut bridge = bridge(client, backend);
        // As a client of its version would send them.
        let sent: Vec<u8> = texts.iter().flat_map(|text| if client.has_frames() {
            let mut pieces: Vec<&[u8]> = text.as_bytes().chunks(fragment).collect();
            if pieces.is_empty() { pieces.push(b""); }
            let last = pieces.len() - 1;
            pieces.iter().enumerate().flat_map(|(at, piece)| {
                let first = u8::from(at == 0) | if at == last { 0x80 } else { 0 };
                frame(first, piece, KEY)
            }).collect()
        } else {
            [b"\0", text.as_bytes(), b"\xFF"].concat()
        }).collect();
        let (inside, decoded) = decode(&mut bridge.client, &sent, step);
        prop_assert_eq!(decoded, Ok(()));
        let (outside, encoded) = encode(&mut bridge.backend, &inside, step);
        prop_assert_eq!(encoded, Ok(()));
        let expected: Vec<(u8, Vec<u8>)> = texts.iter().map(|text| (1, text.clone().into_bytes())).collect();
        if backend.has_frames() {
            prop_assert_eq!(messages(&frames(&outside)), expected);
        } else {
            let plain: Vec<u8> = texts.iter().flat_map(|text| [b"\0", text.as_bytes(), b"\xFF"].concat()).collect();
            prop_assert_eq!(&outside, &plain);
            // And back.
            let (back, decoded) = decode(&mut bridge.backend, &outside, step);
            prop_assert_eq!(decoded, Ok(()));
            prop_assert_eq!(messages(&frames(&back)), expected);
        }
    }

    #[test]
    fn nothing_that_is_no_text_makes_a_second_frame(bytes in prop::collection::vec(
        prop_oneof![Just(0xFF_u8), Just(0), any::<u8>()], 0..40), step in 1_usize..20)
    {
        let mut port = bridge(Dialect::Rfc6455, Dialect::Hixie76).backend;
        let (out, done) = encode(&mut port, &frame(0x81, &bytes, KEY), step);
        match done {
            Ok(()) => prop_assert_eq!(out, [b"\0", &bytes[..], b"\xFF"].concat()),
            Err(fault) => prop_assert_eq!((out, fault), (vec![], Fault::Text)),
        }
    }

    #[test]
    fn any_split_decodes_to_the_same_messages(
        own in any_dialect(), other in any_dialect(), base64 in any::<bool>(),
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xFF), Just(0x81), Just(0x88), 0_u8..8, any::<u8>()], 0..80),
        step in 1_usize..10,
    ) {
        let terms = Terms { message_bytes_max: 50, ..if base64 { BASE64 } else { TERMS } };
        let port = || Bridge::between(own, other, terms, 7).client;
        let whole = decode(&mut port(), &bytes, bytes.len().max(1));
        let pieces = decode(&mut port(), &bytes, step);
        prop_assert_eq!(whole.1, pieces.1);
        if whole.1.is_ok() && !own.has_frames() {
            prop_assert_eq!(messages(&frames(&whole.0)), messages(&frames(&pieces.0)));
        } else if whole.1.is_ok() {
            prop_assert_eq!(whole.0, pieces.0);
        }
    }

    #[test]
    fn any_split_encodes_to_the_same_bytes(
        own in any_dialect(), bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(0x81), Just(0x82), 0_u8..9, any::<u8>()], 0..80),
        step in 1_usize..10,
    ) {
        let terms = Terms { message_bytes_max: 50, ..BASE64 };
        let port = || Bridge::between(Dialect::Rfc6455, own, terms, 7).backend;
        let (mut one, mut many) = (port(), port());
        let whole = encode(&mut one, &bytes, bytes.len().max(1));
        let pieces = encode(&mut many, &bytes, step);
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(one.take_reply(), many.take_reply());
    }
}
