//! Sessions without sockets, over time that a test sets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::bridge::Fault;
use crate::reason::Reason;
use crate::wire::{CONTROL_FRAME_MAX, CloseCode, FrameHeader, Opcode, OwnFrame, mask};

const SECOND: Duration = Duration::from_secs(1);
const KEY: [u8; 4] = [1, 2, 3, 4];

fn rules() -> Rules {
    Rules {
        frames: Frames::Track,
        idle_timeout: Some(60 * SECOND),
        ping: None,
        max_age: None,
        close_timeout: 5 * SECOND,
        max_frame_bytes: None,
        max_message_bytes: None,
    }
}

fn with_pings() -> Rules {
    Rules { ping: Some(PingRules { interval: 20 * SECOND, timeout: 10 * SECOND }), ..rules() }
}

/// Drives a session as the relay does, with sides that take everything.
struct Tunnel {
    session: Session,
    start: Instant,
    now: Instant,
    out: [Vec<u8>; 2],
    held: [Vec<u8>; 2],
    seen: [Seen; 2],
    own: Vec<(Side, OwnFrame)>,
    finished: Vec<Side>,
    /// Set as the relay sets its own: when it fires, or when [`Session::changes`] has grown since.
    timer: Option<Instant>,
    changes_timed: Option<u32>,
}

fn at(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Backend => 1,
    }
}

impl Tunnel {
    fn new(rules: Rules) -> Tunnel {
        Tunnel::speaking(rules, Speech::Frames(Reserved::None))
    }

    fn speaking(rules: Rules, speech: Speech) -> Tunnel {
        let now = Instant::now();
        Tunnel {
            session: Session::new(Arc::new(rules), speech, 0, now),
            start: now,
            now,
            out: [Vec::new(), Vec::new()],
            held: [Vec::new(), Vec::new()],
            seen: [Seen::NOTHING; 2],
            own: Vec::new(),
            finished: Vec::new(),
            timer: None,
            changes_timed: None,
        }
    }

    fn send(&mut self, from: Side, bytes: &[u8]) -> &mut Tunnel {
        let mut left = std::mem::take(&mut self.held[at(from)]);
        left.extend_from_slice(bytes);
        let mut left = &left[..];
        while !left.is_empty() && self.session.is_read(from) {
            let taken = self.session.handle_bytes(from, left, self.now);
            assert!(taken.forward + taken.skip <= left.len());
            self.out[at(from.other())].extend_from_slice(&left[..taken.forward]);
            let seen = &mut self.seen[at(from)];
            seen.text += taken.seen.text;
            seen.binary += taken.seen.binary;
            seen.ping += taken.seen.ping;
            seen.pong += taken.seen.pong;
            seen.close += taken.seen.close;
            seen.broken += taken.seen.broken;
            left = &left[taken.forward + taken.skip..];
            if !self.own_to(from.other()) && taken.forward + taken.skip == 0 {
                assert!(left.len() <= CONTROL_FRAME_MAX, "{} bytes are held back", left.len());
                self.held[at(from)] = left.to_vec();
                break;
            }
        }
        self.poll()
    }

    fn own_to(&mut self, to: Side) -> bool {
        let Some(frame) = self.session.poll_frame(to, self.now) else { return false };
        self.out[at(to)].extend(frame.to_bytes((to == Side::Backend).then_some(KEY)));
        self.own.push((to, frame));
        self.session.handle_flowing(to, self.now);
        true
    }

    fn poll(&mut self) -> &mut Tunnel {
        loop {
            let changes = self.session.changes();
            for side in Side::BOTH {
                self.own_to(side);
                if self.session.may_finish(side) && !self.finished.contains(&side) {
                    self.finished.push(side);
                }
            }
            if changes == self.session.changes() {
                return self;
            }
        }
    }

    fn end_of(&mut self, side: Side) -> &mut Tunnel {
        self.session.handle_end(side, self.now);
        self.poll()
    }

    fn ask(&mut self, reason: Reason) -> &mut Tunnel {
        self.session.end(reason, self.now);
        self.poll()
    }

    /// Lets time pass, stopping whenever the timer fires on the way.
    fn wait(&mut self, duration: Duration) -> &mut Tunnel {
        let until = self.now + duration;
        while let Some(fires_at) = self.timer().filter(|fires_at| *fires_at <= until) {
            self.now = self.now.max(fires_at);
            self.changes_timed = None;
            if self.session.poll_deadline().is_some_and(|deadline| deadline <= self.now) {
                let changes = self.session.changes();
                self.session.handle_time(self.now);
                assert_ne!(changes, self.session.changes(), "nothing happened at a deadline");
                self.poll();
            }
        }
        self.now = until;
        self
    }

    fn timer(&mut self) -> Option<Instant> {
        let changes = Some(self.session.changes());
        if self.changes_timed != changes {
            (self.changes_timed, self.timer) = (changes, self.session.poll_deadline());
        }
        self.timer
    }

    /// Lets time pass until it ends, at most an hour, and answers how long that took.
    fn ends(&mut self) -> (Reason, Duration) {
        for _ in 0..3600 * 10 {
            if let Some(reason) = self.session.ended() {
                return (reason, self.now - self.start);
            }
            self.wait(SECOND / 10);
        }
        panic!("it does not end: {:?}", self.session);
    }

    fn check_own(&mut self, expected: &[(Side, u16)]) -> &mut Tunnel {
        let closes: Vec<(Side, u16)> = self
            .own
            .iter()
            .filter_map(|(side, frame)| match frame {
                OwnFrame::Close { code, .. } => Some((*side, code.0)),
                OwnFrame::Ping(_) => None,
            })
            .collect();
        assert_eq!(closes, expected);
        self
    }

    fn pings(&self, to: Side) -> usize {
        self.own.iter().filter(|(side, frame)| *side == to && matches!(frame, OwnFrame::Ping(_))).count()
    }

    fn last_ping(&self, to: Side) -> [u8; 8] {
        let ping = self.own.iter().rev().find_map(|(side, frame)| match frame {
            OwnFrame::Ping(payload) if *side == to => Some(*payload),
            OwnFrame::Ping(_) | OwnFrame::Close { .. } => None,
        });
        ping.unwrap()
    }
}

fn frame(from: Side, opcode: Opcode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let key = (from == Side::Client).then_some(KEY);
    let header = FrameHeader { opcode, is_final, reserved: 0, mask: key, payload_bytes: payload.len() as u64 };
    let mut bytes = Vec::new();
    header.write_to(&mut bytes);
    let mut payload = payload.to_vec();
    mask(&mut payload, key.unwrap_or_default(), 0);
    bytes.append(&mut payload);
    bytes
}

fn text(from: Side, payload: &[u8]) -> Vec<u8> {
    frame(from, Opcode::Text, true, payload)
}

fn close(from: Side, code: u16) -> Vec<u8> {
    frame(from, Opcode::Close, true, &code.to_be_bytes())
}

#[test]
fn messages_pass_as_they_are_and_are_counted() {
    let mut tunnel = Tunnel::new(rules());
    let mut sent = text(Side::Client, b"hello");
    sent.extend(frame(Side::Client, Opcode::Binary, false, b"a"));
    sent.extend(frame(Side::Client, Opcode::Ping, true, b"p"));
    sent.extend(frame(Side::Client, Opcode::Continuation, true, b""));
    tunnel.send(Side::Client, &sent);
    assert_eq!(tunnel.out[1], sent);
    assert_eq!(tunnel.seen[0], Seen { text: 1, binary: 1, ping: 1, ..Seen::NOTHING });
    assert_eq!(
        (tunnel.session.messages_from(Side::Client), tunnel.session.bytes_from(Side::Client)),
        (2, sent.len() as u64)
    );
}

#[test]
fn whoever_says_close_first_closed_it() {
    for first in Side::BOTH {
        let mut tunnel = Tunnel::new(rules());
        tunnel.send(first, &close(first, 1000)).send(first.other(), &close(first.other(), 1000));
        assert_eq!(tunnel.session.ended(), None);
        tunnel.end_of(Side::Backend).end_of(Side::Client);
        let reason = if first == Side::Client { Reason::ClientClosed } else { Reason::BackendClosed };
        assert_eq!(tunnel.session.ended(), Some(reason));
        assert_eq!(tunnel.session.close_code_from(first), Some(CloseCode(1000)));
        tunnel.check_own(&[]);
    }
}

#[test]
fn a_close_without_a_code_is_1005() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.send(Side::Backend, &frame(Side::Backend, Opcode::Close, true, b""));
    assert_eq!(tunnel.session.close_code_from(Side::Backend), Some(CloseCode::NO_STATUS));
}

#[test]
fn a_close_that_is_not_answered_has_its_time() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.wait(SECOND).send(Side::Client, &close(Side::Client, 1000));
    tunnel.wait(3 * SECOND).send(Side::Backend, &text(Side::Backend, b"one more"));
    assert_eq!(tunnel.ends(), (Reason::ClientClosed, 9 * SECOND));
}

#[test]
fn a_closing_tunnel_that_never_stops_talking_ends_all_the_same() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.send(Side::Client, &close(Side::Client, 1000));
    for _ in 0..70 {
        tunnel.wait(SECOND).send(Side::Backend, &text(Side::Backend, b"blah"));
    }
    assert_eq!(tunnel.session.ended(), Some(Reason::ClientClosed));
}

#[test]
fn a_client_that_vanishes_is_told_to_the_backend_and_the_other_way_round() {
    for (gone, reason, code) in [(Side::Client, Reason::ClientLost, 1001), (Side::Backend, Reason::BackendLost, 1011)] {
        let mut tunnel = Tunnel::new(rules());
        tunnel.send(gone, &text(gone, b"x")).end_of(gone);
        tunnel.check_own(&[(gone.other(), code)]);
        assert!(tunnel.finished.contains(&gone.other()), "its end is passed on");
        tunnel.send(gone.other(), &close(gone.other(), code)).end_of(gone.other());
        assert_eq!(tunnel.session.ended(), Some(reason));
    }
}

#[test]
fn what_was_on_its_way_to_a_client_that_is_half_closed_arrives() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.end_of(Side::Client);
    let late = text(Side::Backend, b"late");
    tunnel.send(Side::Backend, &late);
    assert_eq!(tunnel.out[0], late);
    assert_eq!(tunnel.ends(), (Reason::ClientLost, 5 * SECOND));
}

#[test]
fn nobody_is_told_in_the_middle_of_a_frame() {
    let mut tunnel = Tunnel::new(rules());
    let sent = text(Side::Backend, b"hello");
    tunnel.send(Side::Backend, &sent[..4]).end_of(Side::Backend);
    tunnel.check_own(&[]);
    assert_eq!(tunnel.out[0], &sent[..4]);
    assert!(tunnel.finished.contains(&Side::Client));
    assert_eq!(tunnel.ends(), (Reason::BackendLost, 5 * SECOND));
}

#[test]
fn a_side_that_said_close_is_told_nothing_when_the_other_vanishes() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.send(Side::Client, &close(Side::Client, 1000)).end_of(Side::Backend);
    tunnel.check_own(&[]).end_of(Side::Client);
    assert_eq!(tunnel.session.ended(), Some(Reason::ClientClosed));
}

#[test]
fn a_drain_closes_both_sides_and_ends_when_both_have_answered() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.ask(Reason::Drained).check_own(&[(Side::Client, 1001), (Side::Backend, 1001)]);
    let before = tunnel.out.clone();
    tunnel.send(Side::Client, &text(Side::Client, b"ignored"));
    tunnel.send(Side::Client, &close(Side::Client, 1001)).send(Side::Backend, &close(Side::Backend, 1001));
    assert_eq!(tunnel.out, before, "nothing follows a Close");
    assert_eq!(tunnel.session.ended(), None, "the backend closes first");
    assert!(tunnel.finished.contains(&Side::Client));
    tunnel.end_of(Side::Backend);
    assert_eq!(tunnel.session.ended(), Some(Reason::Drained));
}

#[test]
fn a_drain_waits_for_the_end_of_a_frame_but_not_of_a_message() {
    let mut tunnel = Tunnel::new(rules());
    let first = frame(Side::Backend, Opcode::Binary, false, &[7; 100]);
    tunnel.send(Side::Backend, &first[..50]).ask(Reason::Drained);
    tunnel.check_own(&[(Side::Backend, 1001)]);
    tunnel.wait(4 * SECOND);
    let mut rest = first[50..].to_vec();
    rest.extend(frame(Side::Backend, Opcode::Continuation, true, &[8; 100]));
    tunnel.send(Side::Backend, &rest);
    tunnel.check_own(&[(Side::Backend, 1001), (Side::Client, 1001)]);
    assert!(tunnel.out[0].starts_with(&first));
    assert_eq!(tunnel.out[0].len(), first.len() + 4 + "drained".len());
}

#[test]
fn a_frame_that_never_ends_does_not_hold_up_a_drain() {
    let mut tunnel = Tunnel::new(rules());
    let stuck = frame(Side::Backend, Opcode::Binary, true, &[7; 100]);
    tunnel.send(Side::Backend, &stuck[..50]).ask(Reason::Drained);
    assert_eq!(tunnel.ends(), (Reason::Drained, 5 * SECOND));
}

#[test]
fn a_close_that_nobody_answers_ends_at_its_timeout() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.wait(SECOND).ask(Reason::Drained);
    for _ in 0..3 {
        tunnel.wait(SECOND).send(Side::Backend, &text(Side::Backend, b"still talking"));
    }
    assert_eq!(tunnel.ends(), (Reason::Drained, 6 * SECOND));
}

#[test]
fn what_follows_the_close_of_a_side_goes_nowhere() {
    for from in Side::BOTH {
        let mut tunnel = Tunnel::new(rules());
        let close = close(from, 1000);
        let more = [&close[..], &text(from, b"more"), &close].concat();
        tunnel.send(from, &more).send(from, &more);
        assert_eq!(tunnel.out[at(from.other())], close);
        assert_eq!(tunnel.session.bytes_from(from), close.len() as u64);
        assert_eq!(tunnel.ends().1, 5 * SECOND);
    }
}

#[test]
fn a_closing_tunnel_whose_frames_break_is_still_closing() {
    let mut tunnel = Tunnel::new(rules());
    let broken = b"\x83\x00 and whatever follows";
    tunnel.send(Side::Client, &close(Side::Client, 1000)).send(Side::Backend, broken);
    assert_eq!(tunnel.out[0], broken);
    assert_eq!(tunnel.ends(), (Reason::ClientClosed, 5 * SECOND));
}

#[test]
fn a_second_reason_changes_nothing() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.send(Side::Client, &close(Side::Client, 1000)).ask(Reason::Drained);
    tunnel.check_own(&[]);
    assert_eq!(tunnel.ends().0, Reason::ClientClosed);
}

#[test]
fn silence_ends_at_the_idle_timeout_and_pings_of_a_peer_are_silence() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.wait(30 * SECOND).send(Side::Backend, &text(Side::Backend, b"x"));
    for _ in 0..11 {
        tunnel.wait(5 * SECOND).send(Side::Client, &frame(Side::Client, Opcode::Ping, true, b""));
        tunnel.send(Side::Backend, &frame(Side::Backend, Opcode::Pong, true, b""));
    }
    tunnel.check_own(&[]);
    tunnel.wait(5 * SECOND).check_own(&[(Side::Client, 1001), (Side::Backend, 1001)]);
    assert_eq!(tunnel.ends(), (Reason::IdleTimeout, 95 * SECOND));
}

#[test]
fn a_part_of_a_message_puts_off_the_idle_timeout() {
    let mut tunnel = Tunnel::new(rules());
    let sent = text(Side::Backend, &[b'x'; 200]);
    tunnel.send(Side::Backend, &sent[..100]).wait(50 * SECOND).send(Side::Backend, &sent[100..150]);
    tunnel.wait(50 * SECOND);
    assert_eq!(tunnel.session.ended(), None);
    tunnel.send(Side::Backend, &sent[150..]);
    assert_eq!(tunnel.ends(), (Reason::IdleTimeout, 165 * SECOND));
}

#[test]
fn a_pong_to_our_ping_is_swallowed_and_any_other_passes() {
    let mut tunnel = Tunnel::new(with_pings());
    tunnel.wait(20 * SECOND);
    assert_eq!((tunnel.pings(Side::Client), tunnel.pings(Side::Backend)), (1, 1));
    let before = tunnel.out[1].len();
    let other = frame(Side::Client, Opcode::Pong, true, b"12345678");
    tunnel.send(Side::Client, &other);
    assert_eq!(&tunnel.out[1][before..], other);
    let mut sent = text(Side::Client, b"a");
    sent.extend(frame(Side::Client, Opcode::Pong, true, &tunnel.last_ping(Side::Client)));
    sent.extend(text(Side::Client, b"b"));
    let before = tunnel.out[1].len();
    tunnel.send(Side::Client, &sent);
    assert_eq!(tunnel.out[1].len() - before, 2 * text(Side::Client, b"a").len());
    assert_eq!(tunnel.seen[0], Seen { text: 2, pong: 1, ..Seen::NOTHING });
    // The same Pong again answers nothing of ours.
    let again = frame(Side::Client, Opcode::Pong, true, &tunnel.last_ping(Side::Client));
    let before = tunnel.out[1].len();
    tunnel.send(Side::Client, &again);
    assert_eq!(&tunnel.out[1][before..], again);
}

#[test]
fn a_pong_cut_into_bytes_is_still_ours() {
    let mut tunnel = Tunnel::new(with_pings());
    tunnel.wait(20 * SECOND);
    let before = tunnel.out[1].len();
    for byte in frame(Side::Client, Opcode::Pong, true, &tunnel.last_ping(Side::Client)) {
        tunnel.send(Side::Client, &[byte]);
    }
    assert_eq!(tunnel.out[1].len(), before);
    tunnel.wait(15 * SECOND).check_own(&[(Side::Client, 1011)]);
    assert_eq!(tunnel.ends().0, Reason::BackendUnresponsive);
}

#[test]
fn a_side_that_is_silent_after_a_ping_is_dead_and_the_other_is_told() {
    for (dead, reason, code) in
        [(Side::Client, Reason::ClientUnresponsive, 1001), (Side::Backend, Reason::BackendUnresponsive, 1011)]
    {
        let mut tunnel = Tunnel::new(with_pings());
        tunnel.wait(20 * SECOND);
        let alive = dead.other();
        let pong = frame(alive, Opcode::Pong, true, &tunnel.last_ping(alive));
        tunnel.send(alive, &pong).wait(9 * SECOND).check_own(&[]);
        tunnel.wait(SECOND).check_own(&[(alive, code)]);
        tunnel.send(alive, &close(alive, code)).end_of(alive);
        assert_eq!(tunnel.session.ended(), Some(reason));
    }
}

#[test]
fn whatever_a_side_says_shows_that_it_lives() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    for _ in 0..100 {
        tunnel.wait(9 * SECOND);
        for side in Side::BOTH {
            tunnel.send(side, &text(side, b"x"));
        }
    }
    assert_eq!(tunnel.session.ended(), None);
    assert_eq!(tunnel.pings(Side::Client), 0, "who talks is not asked");
}

#[test]
fn a_side_that_says_something_else_than_a_pong_is_asked_again() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    for asked in 1..5 {
        tunnel.wait(20 * SECOND);
        assert_eq!(tunnel.pings(Side::Client), asked);
        // It may have been asked by the backend as well, and then it need not answer both (RFC 6455 §5.5.3).
        tunnel.wait(SECOND).send(Side::Client, &frame(Side::Client, Opcode::Pong, true, b"to the backend"));
        tunnel.send(Side::Backend, &text(Side::Backend, b"x"));
    }
    tunnel.check_own(&[]);
}

#[test]
fn a_side_that_answers_is_asked_once_in_every_interval_however_long_it_had_to_answer() {
    let ping = PingRules { interval: SECOND, timeout: 10 * SECOND };
    let mut tunnel = Tunnel::new(Rules { ping: Some(ping), ..rules() });
    for asked in 1..10 {
        tunnel.wait(SECOND);
        for side in Side::BOTH {
            assert_eq!(tunnel.pings(side), asked);
            let pong = frame(side, Opcode::Pong, true, &tunnel.last_ping(side));
            tunnel.send(side, &pong);
        }
    }
}

#[test]
fn a_side_that_is_to_be_asked_and_takes_nothing_has_its_deadline() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    for side in Side::BOTH {
        let sent = text(side, b"hello");
        tunnel.send(side, &sent[..sent.len() - 1]);
    }
    // Both are to be asked, and stand in the middle of a frame.
    tunnel.wait(25 * SECOND);
    tunnel.session.handle_stuck(Side::Client, tunnel.now);
    let (reason, after) = tunnel.ends();
    assert_eq!(reason, Reason::ClientUnresponsive);
    assert!(after <= 61 * SECOND, "{after:?}");
}

#[test]
fn a_ping_waits_for_a_border_and_does_not_count_against_the_side() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    let sent = text(Side::Backend, b"hello");
    tunnel.send(Side::Backend, &sent[..3]);
    for _ in 0..20 {
        tunnel.wait(8 * SECOND).send(Side::Backend, b"");
        tunnel.session.handle_bytes(Side::Backend, b"", tunnel.now);
    }
    assert_eq!((tunnel.session.ended(), tunnel.pings(Side::Client)), (None, 0));
    tunnel.send(Side::Backend, &sent[3..]);
    assert_eq!(tunnel.pings(Side::Client), 1);
    assert_eq!(&tunnel.out[0][..sent.len()], sent);
}

#[test]
fn a_side_that_takes_nothing_is_dead_and_one_that_takes_a_little_is_not() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    for _ in 0..10 {
        tunnel.session.handle_stuck(Side::Client, tunnel.now);
        tunnel.send(Side::Backend, &text(Side::Backend, b"x")).wait(15 * SECOND);
    }
    assert_eq!(tunnel.session.ended(), None);
    let (reason, after) = tunnel.wait(16 * SECOND).ends();
    assert_eq!(reason, Reason::ClientUnresponsive);
    assert!(after <= 171 * SECOND, "{after:?}");
}

#[test]
fn what_is_too_big_goes_nowhere() {
    for (from, reason, codes) in [
        (Side::Client, Reason::ClientMessageTooBig, [1009, 1001]),
        (Side::Backend, Reason::BackendMessageTooBig, [1001, 1009]),
    ] {
        for limit in
            [Rules { max_frame_bytes: Some(200), ..rules() }, Rules { max_message_bytes: Some(200), ..rules() }]
        {
            let mut tunnel = Tunnel::new(limit);
            let fits = text(from, &[b'x'; 200]);
            let big = text(from, &[b'y'; 201]);
            tunnel.send(from, &fits).send(from, &big[..20]);
            assert!(tunnel.out[at(from.other())].starts_with(&fits));
            tunnel.own.sort_by_key(|(side, _)| at(*side));
            tunnel.check_own(&[(Side::Client, codes[0]), (Side::Backend, codes[1])]);
            tunnel.send(from, &big[20..]).send(from, &close(from, 1009));
            assert_eq!(tunnel.session.close_code_from(from), Some(CloseCode(1009)), "its answer is still found");
            let mask_bytes = if from == Side::Client { 4 } else { 0 };
            let passed = fits.len() + 2 + mask_bytes + 2 + reason.code().len();
            assert_eq!(tunnel.out[at(from.other())].len(), passed, "what fits, and a Close");
            assert_eq!(tunnel.ends().0, reason);
        }
    }
}

#[test]
fn fragments_count_together() {
    let mut tunnel = Tunnel::new(Rules { max_message_bytes: Some(200), ..rules() });
    tunnel.send(Side::Client, &frame(Side::Client, Opcode::Text, false, &[b'x'; 150]));
    tunnel.send(Side::Client, &frame(Side::Client, Opcode::Continuation, false, &[b'x'; 50])).check_own(&[]);
    tunnel.send(Side::Client, &frame(Side::Client, Opcode::Continuation, true, b"x"));
    assert_eq!(tunnel.ends().0, Reason::ClientMessageTooBig);
}

#[test]
fn a_tunnel_grows_no_older_than_it_may() {
    let ages: Vec<Duration> = [0, u64::MAX / 2, u64::MAX]
        .map(|chance| {
            let now = Instant::now();
            let rules = Rules { max_age: Some(100 * SECOND), ..rules() };
            Session::new(Arc::new(rules), Speech::Frames(Reserved::None), chance, now).expires_in(now)
        })
        .into();
    assert_eq!(ages[0], 100 * SECOND);
    assert!(ages[1] > 94 * SECOND && ages[1] < 96 * SECOND, "{ages:?}");
    assert!(ages[2] >= 90 * SECOND && ages[2] < 91 * SECOND, "{ages:?}");
    let mut tunnel = Tunnel::new(Rules { max_age: Some(50 * SECOND), ..rules() });
    tunnel.wait(50 * SECOND).check_own(&[(Side::Client, 1001), (Side::Backend, 1001)]);
    assert_eq!(tunnel.ends().0, Reason::MaxAge);
}

#[test]
fn a_broken_frame_is_counted_and_passes_where_frames_are_only_tracked() {
    let mut tunnel = Tunnel::new(with_pings());
    let mut sent = text(Side::Client, b"ok");
    sent.extend_from_slice(b"\x83\x00 and whatever follows");
    tunnel.send(Side::Client, &sent[..8]).send(Side::Client, &sent[8..]);
    assert_eq!(tunnel.out[1], sent);
    assert_eq!(tunnel.seen[0], Seen { text: 1, broken: 1, ..Seen::NOTHING });
    tunnel.wait(50 * SECOND);
    assert_eq!(tunnel.pings(Side::Client), 0, "nothing is put into a tunnel that is blind");
    assert_eq!(tunnel.ends(), (Reason::IdleTimeout, 60 * SECOND));
}

#[test]
fn a_broken_frame_ends_a_tunnel_where_frames_are_enforced() {
    let cases: [(Side, &[u8]); 8] = [
        (Side::Backend, b"\x83\x00"),
        (Side::Backend, b"\x81\x80\0\0\0\0"),
        (Side::Backend, b"\xC1\x00"),
        (Side::Backend, b"\x80\x00"),
        (Side::Backend, b"\x89\x7E"),
        (Side::Backend, b"\x88\x01x"),
        (Side::Backend, b"\x88\x02\x03\xEC"),
        (Side::Client, b"\x81\x00"),
    ];
    for (from, bytes) in cases {
        let mut tunnel = Tunnel::new(Rules { frames: Frames::Enforce, ..rules() });
        let before = text(from, b"ok");
        tunnel.send(from, &before).send(from, bytes).send(from, b"more");
        tunnel.own.sort_by_key(|(side, _)| at(*side));
        tunnel.check_own(&[(Side::Client, 1002), (Side::Backend, 1002)]);
        assert_eq!(tunnel.seen[at(from)].broken, 1);
        assert!(tunnel.out[at(from.other())].starts_with(&before));
        let reason = if from == Side::Client { Reason::ClientFrameBroken } else { Reason::BackendFrameBroken };
        assert_eq!(tunnel.ends(), (reason, 5 * SECOND));
    }
}

#[test]
fn a_blind_tunnel_passes_bytes_and_is_told_nothing() {
    for mut tunnel in [
        Tunnel::new(Rules { frames: Frames::Blind, ..with_pings() }),
        Tunnel::speaking(Rules { frames: Frames::Enforce, ..with_pings() }, Speech::Opaque),
    ] {
        tunnel.send(Side::Client, b"\xFF\x00\x88").send(Side::Backend, b"\x00hello\xFF").wait(30 * SECOND);
        assert_eq!(tunnel.out, [b"\x00hello\xFF".to_vec(), b"\xFF\x00\x88".to_vec()]);
        tunnel.end_of(Side::Client).check_own(&[]).wait(50 * SECOND);
        assert_eq!(tunnel.session.ended(), None, "a half-closed tunnel is a tunnel");
        tunnel.end_of(Side::Backend);
        assert_eq!(tunnel.session.ended(), Some(Reason::ClientClosed));
    }
}

#[test]
fn the_last_words_of_a_side_that_takes_no_more_have_their_time() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.session.handle_unwritable(Side::Backend, tunnel.now);
    assert!(!tunnel.session.is_written(Side::Backend));
    let words = text(Side::Backend, b"bye");
    tunnel.wait(SECOND).send(Side::Backend, &words);
    assert_eq!(tunnel.out[0], words);
    tunnel.wait(SECOND).check_own(&[(Side::Client, 1011)]);
    tunnel.send(Side::Client, &close(Side::Client, 1011));
    assert_eq!(tunnel.session.ended(), Some(Reason::BackendLost));
}

#[test]
fn both_lost_is_the_end() {
    let mut tunnel = Tunnel::new(rules());
    let now = tunnel.now;
    tunnel.session.handle_unreadable(Side::Client, now);
    tunnel.session.handle_unreadable(Side::Backend, now);
    assert_eq!(tunnel.session.ended(), Some(Reason::ClientLost));
}

#[test]
fn it_does_not_end_before_all_is_written() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.end_of(Side::Client);
    tunnel.session.handle_stuck(Side::Client, tunnel.now);
    tunnel.send(Side::Backend, &close(Side::Backend, 1001)).end_of(Side::Backend);
    assert_eq!(tunnel.session.ended(), None);
    tunnel.session.handle_flowing(Side::Client, tunnel.now);
    assert_eq!(tunnel.session.ended(), Some(Reason::ClientLost));
}

#[test]
fn a_ping_among_bytes_that_wait_counts_from_when_they_were_taken() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    tunnel.wait(20 * SECOND);
    for _ in 0..3 {
        tunnel.session.handle_stuck(Side::Client, tunnel.now);
        tunnel.wait(5 * SECOND);
    }
    tunnel.session.handle_flowing(Side::Client, tunnel.now);
    let pong = frame(Side::Backend, Opcode::Pong, true, &tunnel.last_ping(Side::Backend));
    tunnel.send(Side::Backend, &pong).wait(9 * SECOND).check_own(&[]);
    tunnel.wait(SECOND).check_own(&[(Side::Backend, 1001)]);
    assert_eq!(tunnel.ends().0, Reason::ClientUnresponsive);
}

#[test]
fn a_side_that_is_not_read_is_not_taken_for_dead() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    // Nobody reads the backend while the client takes what it sent before, little by little.
    for _ in 0..60 {
        tunnel.session.handle_stuck(Side::Client, tunnel.now);
        tunnel.wait(SECOND);
    }
    tunnel.check_own(&[]);
    tunnel.session.handle_flowing(Side::Client, tunnel.now);
    tunnel.send(Side::Client, &text(Side::Client, b"done")).wait(19 * SECOND);
    assert_eq!(tunnel.pings(Side::Backend), 0, "it has all its time from there on");
    tunnel.wait(SECOND).check_own(&[]);
    assert_eq!(tunnel.pings(Side::Backend), 1);
}

#[test]
fn two_sides_that_take_nothing_from_each_other_are_dead() {
    let mut tunnel = Tunnel::new(Rules { idle_timeout: None, ..with_pings() });
    for side in Side::BOTH {
        tunnel.session.handle_stuck(side, tunnel.now);
    }
    tunnel.wait(29 * SECOND).check_own(&[]);
    let (reason, after) = tunnel.wait(SECOND).ends();
    assert_eq!(reason, Reason::ClientUnresponsive);
    assert!(after <= 40 * SECOND, "{after:?}");
}

#[test]
fn what_a_slow_side_takes_puts_off_the_idle_timeout() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.send(Side::Backend, &text(Side::Backend, b"much"));
    for _ in 0..3 {
        tunnel.session.handle_stuck(Side::Client, tunnel.now);
        tunnel.wait(50 * SECOND);
    }
    assert_eq!(tunnel.session.ended(), None);
    tunnel.wait(10 * SECOND).check_own(&[(Side::Client, 1001), (Side::Backend, 1001)]);
}

#[test]
fn whoever_ended_first_and_then_takes_nothing_leaves_the_other_its_time() {
    let mut tunnel = Tunnel::new(rules());
    tunnel.end_of(Side::Client).check_own(&[(Side::Backend, 1001)]).wait(SECOND);
    tunnel.session.handle_unwritable(Side::Client, tunnel.now);
    assert_eq!(tunnel.ends(), (Reason::ClientLost, 5 * SECOND));
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 512, "{} bytes", size_of::<Session>());
}

/// One legal stream of a side: messages, some fragmented, with control frames between.
#[test]
fn a_close_behind_what_cannot_be_said_is_not_said_either() {
    let speech = Speech::Bridged { client: Dialect::Rfc6455, backend: Dialect::Hixie76 };
    let mut tunnel = Tunnel::speaking(rules(), speech);
    let binary = frame(Side::Client, Opcode::Binary, true, b"?");
    // One read, so that the port refuses the first frame when the session has seen both.
    let bytes = [binary, close(Side::Client, 1000)].concat();
    assert_eq!(tunnel.session.handle_bytes(Side::Client, &bytes, tunnel.now).forward, bytes.len());
    tunnel.session.handle_unencodable(Side::Client, Fault::Binary, tunnel.now);
    tunnel.poll().check_own(&[(Side::Backend, 1001)]);
    let answer = close(Side::Backend, 1000);
    tunnel.send(Side::Backend, &answer).end_of(Side::Backend).end_of(Side::Client);
    assert_eq!(tunnel.out[at(Side::Client)], answer);
    assert_eq!(tunnel.session.ended(), Some(Reason::ClientBinary));
}

#[test]
fn what_cannot_be_said_is_told_while_it_closes_for_another_reason() {
    let speech = Speech::Bridged { client: Dialect::Rfc6455, backend: Dialect::Hixie76 };
    let mut tunnel = Tunnel::speaking(rules(), speech);
    tunnel.session.handle_unwritable(Side::Client, tunnel.now);
    let binary = frame(Side::Client, Opcode::Binary, true, b"?");
    assert_eq!(tunnel.session.handle_bytes(Side::Client, &binary, tunnel.now).forward, binary.len());
    tunnel.session.handle_unencodable(Side::Client, Fault::Binary, tunnel.now);
    tunnel.poll().check_own(&[(Side::Backend, 1001)]);
    assert_eq!(tunnel.ends().0, Reason::ClientLost);
}

fn stream(from: Side) -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop::sample::select(vec![Opcode::Text, Opcode::Binary]);
    let payload = || prop::collection::vec(any::<u8>(), 0..300);
    let control = prop::sample::select(vec![Opcode::Ping, Opcode::Pong]);
    let message = (opcode, prop::collection::vec(payload(), 1..4), prop::option::of((control, payload())));
    prop::collection::vec(message, 0..6).prop_map(move |messages| {
        let mut bytes = Vec::new();
        for (opcode, fragments, control) in messages {
            for (nth, fragment) in fragments.iter().enumerate() {
                let opcode = if nth == 0 { opcode } else { Opcode::Continuation };
                bytes.extend(frame(from, opcode, nth + 1 == fragments.len(), fragment));
                if let Some((control, payload)) = &control {
                    bytes.extend(frame(from, *control, true, &payload[..payload.len().min(125)]));
                }
            }
        }
        bytes
    })
}

fn pieces<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_split_of_a_legal_stream_gives_the_same(
        client in stream(Side::Client),
        backend in stream(Side::Backend),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        drain_at in any::<prop::sample::Index>(),
    ) {
        let mut whole = Tunnel::new(rules());
        whole.send(Side::Client, &client).send(Side::Backend, &backend);
        prop_assert_eq!(&whole.out, &[backend.clone(), client.clone()]);
        prop_assert_eq!(whole.seen.map(|seen| seen.broken), [0, 0]);

        let mut split = Tunnel::new(Rules { frames: Frames::Enforce, ..rules() });
        for (from, bytes) in [(Side::Client, &client), (Side::Backend, &backend)] {
            for piece in pieces(bytes, &cuts) {
                split.send(from, piece);
            }
        }
        prop_assert_eq!(&split.out, &whole.out);
        prop_assert_eq!(split.seen, whole.seen);
        for side in Side::BOTH {
            prop_assert_eq!(split.session.messages_from(side), whole.session.messages_from(side));
        }

        // A Close of the gateway's own stands between frames, wherever the cut was.
        let mut drained = Tunnel::new(rules());
        let cut = drain_at.index(backend.len() + 1);
        drained.send(Side::Backend, &backend[..cut]).ask(Reason::Drained).send(Side::Backend, &backend[cut..]);
        let mut reader = Tunnel::new(Rules { frames: Frames::Enforce, ..rules() });
        reader.send(Side::Backend, &drained.out[0].clone());
        prop_assert_eq!(reader.seen[1].broken, 0);
        prop_assert_eq!(reader.session.close_code_from(Side::Backend), Some(CloseCode(1001)));
    }

    #[test]
    fn no_bytes_panic_and_little_is_held_back(
        frames in prop::sample::select(vec![Frames::Track, Frames::Enforce]),
        writes in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
        limit in prop::option::of(125_u64..1000),
    ) {
        let mut tunnel = Tunnel::new(Rules { frames, max_frame_bytes: limit, max_message_bytes: limit, ..with_pings() });
        for (is_client, bytes) in writes {
            tunnel.send(if is_client { Side::Client } else { Side::Backend }, &bytes).wait(SECOND * 3);
        }
        tunnel.end_of(Side::Client).end_of(Side::Backend);
        prop_assert!(tunnel.session.ended().is_some());
    }
}

#[test]
fn a_frame_that_a_bridge_made_is_held_to_the_size_of_messages_alone() {
    let rules = || Rules { max_frame_bytes: Some(4), max_message_bytes: Some(8), ..rules() };
    let speech = Speech::Bridged { client: Dialect::Hixie76, backend: Dialect::Rfc6455 };
    let mut tunnel = Tunnel::speaking(rules(), speech);
    tunnel.send(Side::Client, b"\x81\x85\0\0\0\0hello");
    assert_eq!(tunnel.seen[at(Side::Client)].text, 1);
    tunnel.send(Side::Client, b"\x81\x89\0\0\0\0too large");
    assert!(
        tunnel.own.iter().all(|(_, frame)| matches!(frame, OwnFrame::Close { reason: "client-message-too-big", .. }))
    );
    assert_eq!(tunnel.own.len(), 2);
    let mut tunnel = Tunnel::speaking(rules(), speech);
    tunnel.send(Side::Backend, b"\x81\x05hello");
    assert_eq!(tunnel.own.len(), 2);
}

#[test]
fn a_side_of_texts_is_told_whatever_the_other_one_is_in_the_middle_of() {
    let speech = Speech::Bridged { client: Dialect::Rfc6455, backend: Dialect::Hixie76 };
    let mut tunnel = Tunnel::speaking(with_pings(), speech);
    tunnel.send(Side::Client, b"\x81\x85\0\0\0\0he");
    tunnel.session.end(Reason::Drained, tunnel.now);
    tunnel.poll();
    let told = OwnFrame::Close { code: CloseCode(1001), reason: "drained" };
    assert_eq!(tunnel.own, [(Side::Client, told), (Side::Backend, told)]);
}

#[test]
fn a_side_of_texts_gets_no_ping() {
    let speech = Speech::Bridged { client: Dialect::Rfc6455, backend: Dialect::Hixie76 };
    let mut tunnel = Tunnel::speaking(Rules { idle_timeout: None, ..with_pings() }, speech);
    tunnel.now += 25 * SECOND;
    tunnel.session.handle_time(tunnel.now);
    tunnel.poll();
    assert!(matches!(tunnel.own[..], [(Side::Client, OwnFrame::Ping(_))]), "{:?}", tunnel.own);
}

#[test]
fn what_a_bridge_cannot_carry_ends_the_tunnel_with_the_right_codes() {
    for (fault, from, reason, codes) in [
        (Fault::Binary, Side::Client, Reason::ClientBinary, [1003, 1001]),
        (Fault::Binary, Side::Backend, Reason::BackendBinary, [1011, 1003]),
        (Fault::Text, Side::Client, Reason::ClientTextInvalid, [1007, 1001]),
        (Fault::Text, Side::Backend, Reason::BackendTextInvalid, [1011, 1007]),
        (Fault::TooBig, Side::Client, Reason::ClientMessageTooBig, [1009, 1001]),
        (Fault::Frame, Side::Backend, Reason::BackendFrameBroken, [1002, 1002]),
    ] {
        let speech = Speech::Bridged { client: Dialect::Hybi8, backend: Dialect::Rfc6455 };
        for is_readable in [false, true] {
            let mut tunnel = Tunnel::speaking(rules(), speech);
            if is_readable {
                tunnel.session.handle_unencodable(from, fault, tunnel.now);
            } else {
                tunnel.session.handle_undecodable(from, fault, tunnel.now);
            }
            tunnel.poll();
            let close = |code| OwnFrame::Close { code: CloseCode(code), reason: reason.code() };
            assert_eq!(tunnel.own, [(Side::Client, close(codes[0])), (Side::Backend, close(codes[1]))], "{fault:?}");
        }
    }
}
