//! Two ports under a fuzzer: any bytes become a pair of versions, its terms, and what its sides say to each other, in any
//! pieces. What each has to hear of it is in [`plain`]; the session, which would let nothing pass behind a broken frame or a
//! Close, is played here.

mod plain;

use super::{Binary, Bridge, Fault, Port, Terms};
use crate::dialect::Dialect;
use crate::wire::{CONTROL_FRAME_MAX, CONTROL_PAYLOAD_MAX, CloseCode, HEADER_BYTES_MAX, Masking, OwnFrame};
use plain::is_text_so_far;
pub use plain::{Item, Way, heard_in_frames, heard_in_texts, messages_of, texts_of};

/// The first byte chooses the versions, the second the terms and how the frames between the ports are cut. Behind them are
/// pieces: what it is and whose, how many bytes, and the bytes. Gives the versions, and the first fault.
///
/// # Panics
/// When a side hears anything other than what it has to.
pub fn bridge(data: &[u8]) -> Option<(Dialect, Dialect, Option<Fault>)> {
    let &[pair, choice, ref pieces @ ..] = data else { return None };
    let [client, backend] = [pair, pair / 5].map(|at| Dialect::ALL[usize::from(at % 5)]);
    let terms = Terms {
        binary: if choice & 1 == 0 { Binary::Refuse } else { Binary::Base64 },
        message_bytes_max: [20, 125, 1000, 100_000][usize::from(choice >> 1) % 4],
    };
    let step = [1, 3, 64, usize::MAX][usize::from(choice >> 3) % 4];
    let mut talk = Talk::new(client, backend, terms, step);
    let mut rest = pieces;
    while let [what, count, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(usize::from(*count).min(behind.len()));
        talk.act(*what, bytes);
        rest = behind;
    }
    talk.check();
    Some((client, backend, talk.first_fault))
}

struct Talk {
    bridge: Bridge,
    terms: Terms,
    step: usize,
    /// What the client says, what the backend says.
    lines: [Line; 2],
    first_fault: Option<Fault>,
}

/// One direction.
struct Line {
    way: Way,
    sent: Vec<u8>,
    /// Sent, and less than a frame's header or a control frame.
    held: Vec<u8>,
    /// How many items of what was sent are among those that are to be heard.
    items: usize,
    begun: Vec<u8>,
    to_be_heard: Vec<Item>,
    heard: Vec<u8>,
    /// A fragmented message has begun, if the pieces are as they mean to be.
    is_amid: bool,
    /// Nothing that is sent passes any more.
    is_over: bool,
    /// The sender's port takes everything for something behind a Close.
    is_closed: bool,
    /// The gateway itself told the receiver.
    is_told: bool,
    undecodable: Option<Fault>,
    unencodable: Option<Fault>,
}

impl Talk {
    fn new(client: Dialect, backend: Dialect, terms: Terms, step: usize) -> Talk {
        let line = |from, to, masking| Line {
            way: Way { from, to, masking, terms },
            sent: Vec::new(),
            held: Vec::new(),
            items: 0,
            begun: Vec::new(),
            to_be_heard: Vec::new(),
            heard: Vec::new(),
            is_amid: false,
            is_over: false,
            is_closed: false,
            is_told: false,
            undecodable: None,
            unencodable: None,
        };
        Talk {
            bridge: Bridge::between(client, backend, terms, 7),
            terms,
            step,
            lines: [line(client, backend, Masking::Required), line(backend, client, Masking::Forbidden)],
            first_fault: None,
        }
    }

    /// The highest bit says who acts, the low three what it does.
    fn act(&mut self, what: u8, bytes: &[u8]) {
        let from = usize::from(what >> 7);
        let bit = |bit: u8| what & bit != 0;
        let long = bytes.repeat(if bit(0x20) { 64 } else { 1 });
        match what & 0x07 {
            0 | 1 => self.send(from, bytes),
            2 => self.send_frame(from, if bit(0x40) { 0x82 } else { 0x81 }, &long),
            3 => self.send_frame(from, if bit(0x40) { 0x02 } else { 0x01 }, &long),
            4 => self.send_frame(from, if bit(0x40) { 0x8A } else { 0x89 }, &bytes[..bytes.len().min(125)]),
            5 => self.send_frame(from, 0x88, &bytes[..bytes.len().min(125)]),
            6 => self.end(from),
            _ => self.tell(1 - from),
        }
        for port in [&self.bridge.client, &self.bridge.backend] {
            let most = self.terms.message_bytes_max;
            let control = HEADER_BYTES_MAX + CONTROL_PAYLOAD_MAX;
            assert!(port.held_bytes() <= 1 + most + most.div_ceil(3) * 4 + control, "{port:?}");
        }
    }

    /// As the version of the side has it. The first byte is that of a frame.
    fn send_frame(&mut self, from: usize, first: u8, payload: &[u8]) {
        let Line { way, is_amid, .. } = &mut self.lines[from];
        let is_control = first & 0x08 != 0;
        let mut bytes = Vec::new();
        if way.from.has_frames() {
            bytes.push(if !is_control && *is_amid { first & 0x80 } else { first });
            let masked = if way.masking == Masking::Required { 0x80 } else { 0 };
            match u8::try_from(payload.len()) {
                Ok(length) if length < 126 => bytes.push(masked | length),
                _ => bytes.extend([&[masked | 126][..], &(payload.len() as u64).to_be_bytes()[6..]].concat()),
            }
            let key = if masked == 0 { &[][..] } else { &[0x81, 0x7F, 0, 0xFE] };
            bytes.extend(key);
            bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key.get(at % 4).unwrap_or(&0)));
        } else {
            let begin = if *is_amid { &[][..] } else { b"\0" };
            match first {
                0x01 | 0x02 => bytes.extend([begin, payload].concat()),
                0x81 | 0x82 => bytes.extend([begin, payload, b"\xFF"].concat()),
                0x88 => bytes.extend(b"\xFF\0"),
                // To be dropped. A control frame is short.
                _ => bytes.extend([&[0x80, 0x80][..], &payload.len().to_be_bytes()[7..], payload].concat()),
            }
        }
        if !is_control {
            *is_amid = first & 0x80 == 0;
        }
        self.send(from, &bytes);
    }

    fn send(&mut self, from: usize, piece: &[u8]) {
        let line = &mut self.lines[from];
        if line.is_over {
            return self.send_in_vain(from, piece);
        }
        let before = line.sent.len();
        line.sent.extend_from_slice(piece);
        let said = line.way.said(&line.sent, false);
        let passes = said.ends_at.map_or(piece.len(), |at| at.saturating_sub(before));
        let mut frames = Vec::new();
        self.decode(from, &piece[..passes], &mut frames);
        self.pass(from, &frames, &said.items, &said.faults);
        let line = &mut self.lines[from];
        line.begun = said.begun;
        if said.ends_at.is_some() && !line.is_over {
            line.is_over = true;
            // The session would have none of it.
            self.decode(from, &piece[passes..], &mut frames);
            if said.is_no_frame {
                assert_eq!(self.lines[from].undecodable, Some(Fault::Frame), "no version has it: {piece:?}");
            }
        }
    }

    /// Behind a Close nothing is heard, and behind a fault nothing but the fault.
    fn send_in_vain(&mut self, from: usize, piece: &[u8]) {
        let Line { way, undecodable, unencodable, is_closed, is_told, .. } = self.lines[from];
        let mut out = Vec::new();
        if undecodable.is_some() {
            assert_eq!(self.port(from).decode(piece, &mut out).err(), undecodable);
            self.port(from).decode_end(&mut out);
            assert_eq!(out, b"");
        } else if is_closed && !way.from.has_frames() {
            assert_eq!(self.port(from).decode(piece, &mut out), Ok(piece.len()));
            self.port(from).decode_end(&mut out);
            assert_eq!(out, b"");
        }
        if unencodable.is_some() || is_told {
            let done = self.port(1 - from).encode(b"\x81\x01a", &mut out);
            assert_eq!((done.err(), out), (unencodable, vec![]));
        }
    }

    /// It sends no more.
    fn end(&mut self, from: usize) {
        let line = &mut self.lines[from];
        if line.is_over {
            return;
        }
        let said = line.way.said(&line.sent, true);
        let mut frames = Vec::new();
        self.port(from).decode_end(&mut frames);
        self.pass(from, &frames, &said.items, &said.faults);
        self.lines[from].is_over = true;
    }

    /// The gateway closes a side without frames; any other gets the bytes of its frame, wherever the session finds a place.
    fn tell(&mut self, side: usize) {
        let line = 1 - side;
        if self.lines[line].way.to.has_frames() {
            return;
        }
        let mut out = Vec::new();
        self.port(side).encode_own(OwnFrame::Ping(*b"12345678"), None, &mut out);
        assert_eq!(out, b"");
        self.port(side).encode_own(OwnFrame::Close { code: CloseCode::NORMAL, reason: "" }, None, &mut out);
        let line = &mut self.lines[line];
        line.heard.append(&mut out);
        (line.is_told, line.is_over) = (true, true);
    }

    /// Frames that the port of a side has made, of which the other one has to hear these items.
    fn pass(&mut self, from: usize, frames: &[u8], items: &[Item], faults: &[Fault]) {
        self.encode(from, frames);
        let line = &mut self.lines[from];
        let fault = line.unencodable.or(line.undecodable);
        assert!(fault.map_or(faults.is_empty(), |fault| faults.contains(&fault)), "{fault:?} is none of {faults:?}");
        self.first_fault = self.first_fault.or(fault);
        let fresh = items[line.items..].to_vec();
        line.items = items.len();
        line.to_be_heard.extend(fresh.iter().cloned());
        line.is_closed = matches!(fresh.last(), Some(Item::Close(_)));
        line.is_over = line.is_closed || fault.is_some();
        self.reply(1 - from, &fresh);
    }

    /// What the port of a side without frames answers to these.
    fn reply(&mut self, of: usize, heard: &[Item]) {
        let line = &self.lines[of];
        let mut expected = Vec::new();
        if !line.way.from.has_frames() && !line.is_closed {
            let mut pings =
                heard.iter().rev().filter_map(|item| if let Item::Ping(payload) = item { Some(payload) } else { None });
            expected.extend(pings.next().map(|payload| Item::Pong(payload.clone())));
            if let Some(Item::Close(payload)) = heard.last() {
                expected.push(Item::Close(payload[..payload.len().min(2)].to_vec()));
            }
        }
        let masking = line.way.masking;
        let reply = self.port(of).take_reply();
        assert_eq!(heard_in_frames(&reply, masking), (expected.clone(), Item::Text(Vec::new())));
        let line = &mut self.lines[of];
        line.is_closed |= matches!(expected.last(), Some(Item::Close(_)));
        // A side that was told of the end hears no more.
        if !line.is_over {
            line.is_over = line.is_closed;
            line.to_be_heard.append(&mut expected);
            self.encode(of, &reply);
            assert!(!self.port(1 - of).has_reply(), "an answer to an answer");
        }
    }

    fn decode(&mut self, from: usize, bytes: &[u8], frames: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.lines[from].held);
        held.extend_from_slice(bytes);
        match self.port(from).decode(&held, frames) {
            Ok(taken) => {
                held.drain(..taken);
                assert!(held.len() < CONTROL_FRAME_MAX, "kept back: {held:?}");
            }
            Err(fault) => self.lines[from].undecodable = Some(fault),
        }
        self.lines[from].held = held;
    }

    fn encode(&mut self, from: usize, frames: &[u8]) {
        for piece in frames.chunks(self.step) {
            let mut out = Vec::new();
            let done = self.port(1 - from).encode(piece, &mut out);
            let line = &mut self.lines[from];
            if !line.way.to.has_frames() {
                heard_in_texts(&out, line.way.to);
            }
            line.heard.append(&mut out);
            if let Err(fault) = done {
                line.unencodable = Some(fault);
                return;
            }
        }
    }

    fn port(&mut self, of: usize) -> &mut Port {
        if of == 0 { &mut self.bridge.client } else { &mut self.bridge.backend }
    }

    fn check(&self) {
        for (line, receiver) in self.lines.iter().zip([&self.bridge.backend, &self.bridge.client]) {
            if line.way.to.has_frames() {
                let (items, begun) = heard_in_frames(&line.heard, line.way.masking);
                assert_eq!(items, line.to_be_heard);
                let is_checked = line.way.to == Dialect::Rfc6455 || !line.way.from.has_frames();
                if let (Item::Text(begun), true) = (&begun, is_checked) {
                    assert!(is_text_so_far(begun, false), "no text has begun: {begun:?}");
                }
                let (Item::Text(begun) | Item::Binary(begun)) = &begun else { panic!("{begun:?} is no message") };
                assert!(line.begun.starts_with(begun), "{begun:?} of {:?}", line.begun);
            } else {
                line.check_texts(receiver);
            }
        }
    }
}

impl Line {
    fn check_texts(&self, receiver: &Port) {
        let (texts, has_close) = heard_in_texts(&self.heard, self.way.to);
        assert_eq!(texts, texts_of(&self.to_be_heard));
        let is_closed = self.is_told || matches!(self.to_be_heard.last(), Some(Item::Close(_)));
        assert_eq!(
            (has_close, receiver.ends_with_fin()),
            if self.way.to == Dialect::Hixie76 { (is_closed, false) } else { (false, is_closed) }
        );
    }
}
