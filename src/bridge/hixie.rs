//! The port of a side that knows only texts. Towards the gateway it is a peer of RFC 6455: it answers Pings, says Close and
//! answers it. Towards its peer it sends whole texts, each checked, so that no byte of one can end it early.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Binary, Fault, Place, Terms};
use crate::dialect::Dialect;
use crate::wire::{CLOSE, HixieEvent, HixieReader, TEXT_END, TEXT_START};
use crate::wire::{CloseCode, FrameHeader, Lengths, Opcode, OwnFrame, Utf8Check, mask};

#[derive(Debug)]
pub struct HixiePort {
    place: Place,
    has_close: bool,
    terms: Terms,
    chance: fastrand::Rng,
    from_peer: FromPeer,
    to_peer: ToPeer,
    reply: Reply,
}

/// What came from the peer so far.
#[derive(Debug)]
struct FromPeer {
    reader: HixieReader,
    utf8: Utf8Check,
    /// A fragment of the text at hand has gone on.
    is_begun: bool,
    /// A Close went on, from the peer or in its stead: nothing follows.
    is_closed: bool,
    /// Of the text at hand, where it has to be decoded whole.
    base64: Vec<u8>,
}

/// What goes to the peer.
#[derive(Debug)]
struct ToPeer {
    /// A header that is not whole.
    header: Vec<u8>,
    frame: Option<Frame>,
    /// The message or control frame at hand, as far as it is there. The first byte is [`TEXT_START`] in a text.
    collected: Vec<u8>,
    /// Of the message at hand.
    kind: Option<Kind>,
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    header: FrameHeader,
    /// `read < header.payload_bytes`, or it would be done.
    read: u64,
    /// Where its payload begins in `collected`.
    begins_at: usize,
}

/// What the port says in the peer's stead.
#[derive(Debug, Default)]
struct Reply {
    /// The payload of the last Ping (RFC 6455 §5.5.3).
    pong: Option<Box<[u8]>>,
    close: Option<CloseCode>,
}

impl HixiePort {
    pub(super) fn new(place: Place, dialect: Dialect, terms: Terms, chance: u64) -> HixiePort {
        let has_close = dialect == Dialect::Hixie76;
        let most = terms.message_bytes_max as u64;
        let reader = if has_close { HixieReader::with_close(most) } else { HixieReader::without_close(most) };
        HixiePort {
            place,
            has_close,
            terms,
            chance: fastrand::Rng::with_seed(chance),
            from_peer: FromPeer {
                reader,
                utf8: Utf8Check::default(),
                is_begun: false,
                is_closed: false,
                base64: Vec::new(),
            },
            to_peer: ToPeer { header: Vec::new(), frame: None, collected: Vec::new(), kind: None, is_closed: false },
            reply: Reply::default(),
        }
    }

    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut at = 0;
        while at < bytes.len() && !self.from_peer.is_closed {
            let (taken, event) = self.from_peer.reader.read(&bytes[at..]).map_err(|_| Fault::Frame)?;
            at += taken;
            match event {
                HixieEvent::Nothing => {}
                HixieEvent::Close => self.close(CloseCode::NORMAL, out),
                HixieEvent::Text { payload, is_last } => match self.terms.binary {
                    Binary::Refuse => self.text(payload, is_last, out)?,
                    Binary::Base64 => self.text_of_base64(payload, is_last, out)?,
                },
            }
        }
        Ok(())
    }

    /// Who is gone between two frames has closed: servers of hixie say no more than that, most of them. In the middle of a
    /// frame it is a loss.
    pub fn decode_end(&mut self, out: &mut Vec<u8>) {
        if !self.from_peer.is_closed && self.from_peer.reader.is_at_border() {
            self.close(CloseCode::NORMAL, out);
        }
    }

    fn text(&mut self, payload: &[u8], is_last: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let from_peer = &mut self.from_peer;
        from_peer.utf8.push(payload).map_err(|_| Fault::Text)?;
        if is_last {
            from_peer.utf8.finish().map_err(|_| Fault::Text)?;
        }
        if payload.is_empty() && !is_last {
            return Ok(());
        }
        let opcode = if from_peer.is_begun { Opcode::Continuation } else { Opcode::Text };
        from_peer.is_begun = !is_last;
        self.frame(opcode, is_last, payload, out);
        Ok(())
    }

    fn text_of_base64(&mut self, payload: &[u8], is_last: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let collected = &mut self.from_peer.base64;
        if collected.len() + payload.len() > encoded_bytes(self.terms.message_bytes_max) {
            return Err(Fault::TooBig);
        }
        collected.extend_from_slice(payload);
        if is_last {
            let text = std::mem::take(collected);
            let binary = STANDARD.decode(&text).map_err(|_| Fault::Text)?;
            self.frame(Opcode::Binary, true, &binary, out);
        }
        Ok(())
    }

    fn close(&mut self, code: CloseCode, out: &mut Vec<u8>) {
        self.from_peer.is_closed = true;
        let payload = code.0.to_be_bytes();
        self.frame(Opcode::Close, true, if code == CloseCode::NO_STATUS { &[] } else { &payload }, out);
    }

    /// A frame as the peer would send it, if it could.
    fn frame(&mut self, opcode: Opcode, is_final: bool, payload: &[u8], out: &mut Vec<u8>) {
        let key = match self.place {
            Place::AtClient => Some(self.chance.u32(..).to_ne_bytes()),
            Place::AtBackend => None,
        };
        let payload_bytes = payload.len() as u64;
        FrameHeader { opcode, is_final, reserved: 0, mask: key, payload_bytes }.write_to(out);
        let begin = out.len();
        out.extend_from_slice(payload);
        if let Some(key) = key {
            mask(&mut out[begin..], key, 0);
        }
    }

    pub fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut at = 0;
        while at < bytes.len() && !self.to_peer.is_closed {
            at += match self.to_peer.frame {
                None => self.begin_frame(&bytes[at..])?,
                Some(frame) => self.take_payload(frame, &bytes[at..]),
            };
            if let Some(frame) = self.to_peer.frame.take_if(|frame| frame.read == frame.header.payload_bytes) {
                self.frame_is_whole(frame, out)?;
            }
        }
        Ok(())
    }

    /// Reads the next header, or a part of it.
    fn begin_frame(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let kept = self.to_peer.header.len();
        let mut joined = std::mem::take(&mut self.to_peer.header);
        let header = if kept == 0 {
            bytes
        } else {
            joined.extend_from_slice(&bytes[..bytes.len().min(crate::wire::HEADER_BYTES_MAX)]);
            &joined
        };
        let parsed = FrameHeader::parse_with(header, Lengths::Shortest).map_err(|_| Fault::Frame)?;
        let Some((header, header_bytes)) = parsed else {
            self.to_peer.header = header.to_vec();
            return Ok(bytes.len());
        };
        self.enter(header)?;
        Ok(header_bytes - kept)
    }

    fn enter(&mut self, header: FrameHeader) -> Result<(), Fault> {
        let to_peer = &mut self.to_peer;
        match (header.opcode, to_peer.kind) {
            (Opcode::Ping | Opcode::Pong | Opcode::Close, _) | (Opcode::Continuation, Some(_)) => {}
            (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Fault::Frame),
            (Opcode::Binary, None) if self.terms.binary == Binary::Refuse => return Err(Fault::Binary),
            (Opcode::Binary, None) => to_peer.kind = Some(Kind::Binary),
            (Opcode::Text, None) => {
                to_peer.kind = Some(Kind::Text);
                to_peer.collected.push(TEXT_START);
            }
        }
        let begins_at = to_peer.collected.len();
        let before = begins_at - usize::from(to_peer.kind == Some(Kind::Text));
        let is_too_big = header.payload_bytes > (self.terms.message_bytes_max as u64).saturating_sub(before as u64);
        if is_too_big && !header.opcode.is_control() {
            return Err(Fault::TooBig);
        }
        to_peer.frame = Some(Frame { header, read: 0, begins_at });
        Ok(())
    }

    fn take_payload(&mut self, frame: Frame, bytes: &[u8]) -> usize {
        let left = frame.header.payload_bytes - frame.read;
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let collected = &mut self.to_peer.collected;
        let begin = collected.len();
        collected.extend_from_slice(&bytes[..taken]);
        mask(&mut collected[begin..], frame.header.mask.unwrap_or_default(), (frame.read % 4) as usize);
        self.to_peer.frame = Some(Frame { read: frame.read + taken as u64, ..frame });
        taken
    }

    fn frame_is_whole(&mut self, frame: Frame, out: &mut Vec<u8>) -> Result<(), Fault> {
        let to_peer = &mut self.to_peer;
        match frame.header.opcode {
            Opcode::Ping => self.reply.pong = Some(to_peer.collected.drain(frame.begins_at..).collect()),
            Opcode::Pong => to_peer.collected.truncate(frame.begins_at),
            Opcode::Close => {
                let code = to_peer.collected[frame.begins_at..].first_chunk::<2>();
                let code = code.map_or(CloseCode::NO_STATUS, |code| CloseCode(u16::from_be_bytes(*code)));
                // At once, because its peer may take its time, or never answer.
                if !self.from_peer.is_closed {
                    self.reply.close = Some(code);
                }
                self.tell_close(out);
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary if frame.header.is_final => self.message(out)?,
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        Ok(())
    }

    /// A whole message goes to the peer.
    fn message(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut collected = std::mem::take(&mut self.to_peer.collected);
        if self.to_peer.kind.take() == Some(Kind::Text) {
            // No UTF-8 has the byte in it that ends a text. A text that is none could end early, and begin another one.
            std::str::from_utf8(&collected[1..]).map_err(|_| Fault::Text)?;
            out.extend_from_slice(&collected);
        } else {
            out.push(TEXT_START);
            let begin = out.len();
            out.resize(begin + encoded_bytes(collected.len()), 0);
            STANDARD.encode_slice(&collected, &mut out[begin..]).map_err(|_| Fault::TooBig)?;
        }
        out.push(TEXT_END);
        if collected.capacity() <= KEPT_BYTES_MAX {
            collected.clear();
            self.to_peer.collected = collected;
        }
        Ok(())
    }

    pub fn encode_own(&mut self, frame: OwnFrame, out: &mut Vec<u8>) {
        match frame {
            OwnFrame::Close { .. } => self.tell_close(out),
            OwnFrame::Ping(_) => {}
        }
    }

    fn tell_close(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.to_peer.is_closed, true) && self.has_close {
            out.extend_from_slice(&CLOSE);
        }
        self.to_peer.collected = Vec::new();
    }

    pub fn has_reply(&self) -> bool {
        self.reply.pong.is_some() || self.reply.close.is_some()
    }

    pub fn take_reply(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let Reply { pong, close } = std::mem::take(&mut self.reply);
        if let (Some(payload), false) = (pong, self.from_peer.is_closed) {
            self.frame(Opcode::Pong, true, &payload, &mut out);
        }
        if let (Some(code), false) = (close, self.from_peer.is_closed) {
            self.close(code, &mut out);
        }
        out
    }

    pub fn held_bytes(&self) -> usize {
        let pong = self.reply.pong.as_ref().map_or(0, |pong| pong.len());
        self.from_peer.base64.len() + self.to_peer.header.len() + self.to_peer.collected.len() + pong
    }

    pub fn ends_with_fin(&self) -> bool {
        self.to_peer.is_closed && !self.has_close
    }
}

/// A buffer that is kept for the next message. A tunnel that is still should cost little.
const KEPT_BYTES_MAX: usize = 256;

/// What so many bytes are in base64.
fn encoded_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}
