//! The data path after the 101: reads from one side, asks the session what becomes of it, writes to the other. It decides
//! nothing; it does not know where a frame begins, and knows neither routes nor configuration.
//!
//! A tunnel that waits holds no buffer. All reads of a thread go into one scratch buffer and are written from there; what a
//! peer does not take at once is copied into a spill of its own. While a direction has a spill it does not read, which bounds
//! it at what one read comes to: a scratch buffer, or through a bridge that and a whole message. It leaves the other direction
//! alone.

mod account;
mod crossing;
mod flow;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::bridge::Bridge;
use crate::reason::Reason;
use crate::tunnel::{Session, Side};
pub use account::{Account, Held};
use flow::{Flow, Spilled, WriterGone};

/// One tunnel: a future that ends with it.
pub struct Relay<C, B> {
    client: C,
    backend: B,
    to_backend: Flow,
    to_client: Flow,
    early: Option<Box<Early>>,
    /// Between two versions.
    bridge: Option<Box<Bridge>>,
    session: Session,
    account: Account,
    /// Set to the session's deadline when it fires, not at every byte.
    timer: Pin<Box<Sleep>>,
    /// What [`Session::changes`] said when the timer was last set.
    changes_timed: u32,
    parting: Parting,
}

impl<C, B> Relay<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// `early` is what each side sent before the tunnel stood; it is delivered first. `timer` is any timer, whatever it
    /// was set to.
    pub fn new(
        client: C,
        backend: B,
        early: Early,
        talk: Talk,
        account: Account,
        timer: Pin<Box<Sleep>>,
    ) -> Relay<C, B> {
        let Talk { session, bridge, parting } = talk;
        let early = (!early.from_client.is_empty() || !early.from_backend.is_empty()).then(|| Box::new(early));
        Relay {
            client,
            backend,
            to_backend: Flow::default(),
            to_client: Flow::default(),
            early,
            bridge,
            session,
            account,
            timer,
            changes_timed: NEVER_TIMED,
            parting,
        }
    }

    fn pump_both(&mut self, now: Instant, cx: &mut Context<'_>) {
        let Relay { client, backend, to_backend, to_client, session, account, .. } = self;
        let mut bridge = self.bridge.as_deref_mut();
        if let Some(early) = self.early.take() {
            let mut pump =
                Pump { from: Side::Client, flow: to_backend, bridge: bridge.as_deref_mut(), session, account, now };
            pump.receive(&early.from_client, backend, cx);
            let mut pump =
                Pump { from: Side::Backend, flow: to_client, bridge: bridge.as_deref_mut(), session, account, now };
            pump.receive(&early.from_backend, client, cx);
        }
        Pump { from: Side::Client, flow: to_backend, bridge: bridge.as_deref_mut(), session, account, now }
            .run(client, backend, cx);
        Pump { from: Side::Backend, flow: to_client, bridge, session, account, now }.run(backend, client, cx);
    }

    /// Says the end to whoever got all that there was for it. Nobody waits for a side that does not take even this.
    fn part(&mut self, reason: Reason, cx: &mut Context<'_>) {
        if self.parting == Parting::BySocket || reason == Reason::DrainTimeout {
            return;
        }
        for to in [Side::Client, Side::Backend] {
            let flow = match to {
                Side::Client => &mut self.to_client,
                Side::Backend => &mut self.to_backend,
            };
            if !self.session.is_written(to) || flow.is_spilled() || flow.is_shut() {
                continue;
            }
            let _ = match to {
                Side::Client => flow.shut(&mut self.client, cx),
                Side::Backend => flow.shut(&mut self.backend, cx),
            };
        }
    }

    /// Whether the client's port has answered the backend, after the direction to the backend had its turn.
    fn has_reply(&self) -> bool {
        let has_reply = self.bridge.as_ref().is_some_and(|bridge| bridge.client.has_reply());
        let is_taken = self.session.is_written(Side::Backend) && !self.session.may_finish(Side::Backend);
        has_reply && is_taken && !self.to_backend.is_spilled()
    }

    /// Whether the session's time has come. Bytes only put its deadline off, so the timer is left alone until it fires or
    /// something else has happened.
    fn is_time(&mut self, cx: &mut Context<'_>) -> bool {
        let changes = self.session.changes();
        if self.changes_timed == changes && !self.timer.is_elapsed() {
            return false;
        }
        self.changes_timed = changes;
        loop {
            let Some(deadline) = self.session.poll_deadline() else { return false };
            if deadline <= now() {
                return true;
            }
            self.timer.as_mut().reset(deadline.into());
            // Polled even where it was just set, or it would wake nobody.
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
        }
    }
}

/// The session begins with 0 changes, and none has so many.
const NEVER_TIMED: u32 = u32::MAX;

/// The runtime's clock, which a test can set.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What is known of the two sides' talk.
pub struct Talk {
    pub session: Session,
    pub bridge: Option<Box<Bridge>>,
    pub parting: Parting,
}

/// How a side learns that nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The kernel says it when the socket is closed.
    BySocket,
    /// It has to be said before that, as TLS does.
    ByWord,
}

/// Bytes that arrived before the tunnel stood.
#[derive(Debug, Default)]
pub struct Early {
    pub from_client: Vec<u8>,
    pub from_backend: Vec<u8>,
}

impl<C, B> Future for Relay<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let relay = self.get_mut();
        // One look at the clock for all that one wake-up brings.
        let now = now();
        if let Some(reason) = relay.account.held.membership.asked_to_end(cx.waker()) {
            relay.asked_to_end(reason, now);
        }
        loop {
            let changes = relay.session.changes();
            relay.pump_both(now, cx);
            if let Some(reason) = relay.session.ended() {
                relay.part(reason, cx);
                relay.account.ended(&relay.session, reason, now);
                return Poll::Ready(());
            }
            if relay.is_time(cx) {
                relay.session.handle_time(self::now());
            } else if relay.session.changes() == changes && !relay.has_reply() {
                return Poll::Pending;
            }
        }
    }
}

impl<C, B> Relay<C, B> {
    /// A tunnel that cannot be told with a Close frame is left alone by a drain: it may still end by itself before the drain
    /// does.
    fn asked_to_end(&mut self, reason: Reason, now: Instant) {
        if reason == Reason::DrainTimeout {
            self.session.cut(reason);
        } else if !(reason == Reason::Drained && self.session.is_blind()) {
            self.session.end(reason, now);
        }
    }
}

/// A task that is dropped before its tunnel ended: the process goes.
impl<C, B> Drop for Relay<C, B> {
    fn drop(&mut self) {
        if self.session.ended().is_none() {
            self.account.ended(&self.session, Reason::DrainTimeout, now());
        }
    }
}

/// Moves what one side sent towards the other until one of them has to be waited for.
struct Pump<'r> {
    from: Side,
    flow: &'r mut Flow,
    bridge: Option<&'r mut Bridge>,
    session: &'r mut Session,
    account: &'r Account,
    now: Instant,
}

impl Pump<'_> {
    fn run<R, W>(&mut self, reader: &mut R, writer: &mut W, cx: &mut Context<'_>)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        flow::with_scratch(|scratch| {
            while self.session.ended().is_none() {
                if self.is_waiting_for(writer, cx) {
                    return;
                }
                if let Some(reply) = self.take_reply() {
                    self.pass(&reply, writer, cx);
                    continue;
                }
                if !self.session.is_read(self.from) {
                    // What a writer over TLS took may still be in it.
                    return self.flush(writer, cx);
                }
                if self.session.is_blind()
                    && let Some(held) = self.flow.take_held()
                {
                    self.pass(&held, writer, cx);
                    continue;
                }
                match self.flow.read(reader, cx, scratch) {
                    Poll::Pending => return self.flush(writer, cx),
                    Poll::Ready(Ok(read)) if read.fresh > 0 => {
                        self.receive(&scratch[..read.held + read.fresh], writer, cx);
                    }
                    Poll::Ready(Ok(_)) => self.receive_end(writer, cx),
                    Poll::Ready(Err(_)) => self.session.handle_unreadable(self.from, self.now),
                }
            }
        });
    }

    fn to(&self) -> Side {
        self.from.other()
    }

    /// Gives the writer what there is for it already: what it did not take before, a frame of the gateway's own, the end.
    fn is_waiting_for<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, cx: &mut Context<'_>) -> bool {
        if !self.session.is_written(self.to()) {
            self.flow.drop_spill();
            return false;
        }
        if self.flow.is_spilled() {
            match self.flow.write_spill(writer, cx) {
                Ok(Spilled::Nothing) => self.session.handle_flowing(self.to(), self.now),
                Ok(Spilled::Some) => {
                    self.session.handle_stuck(self.to(), self.now);
                    return true;
                }
                Ok(Spilled::All) => return true,
                Err(WriterGone) => self.session.handle_unwritable(self.to(), self.now),
            }
        }
        self.send_own(writer, cx);
        if self.flow.is_spilled() {
            return true;
        }
        !self.flow.is_shut() && self.may_finish() && self.flow.shut(writer, cx).is_pending()
    }

    /// A frame of the gateway's own, if one is due and this is a place for it.
    fn send_own<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, cx: &mut Context<'_>) -> bool {
        let to = self.to();
        let Some(frame) = self.session.poll_frame(to, self.now) else { return false };
        // RFC 6455 §5.1: towards a server every frame is masked.
        let key = (to == Side::Backend).then(|| fastrand::u32(..).to_ne_bytes());
        self.account.sent(to, frame);
        let mut bytes = Vec::new();
        match self.bridge.as_deref_mut() {
            Some(bridge) => crossing::port(bridge, to).encode_own(frame, key, &mut bytes),
            None => bytes = frame.to_bytes(key),
        }
        if !bytes.is_empty() {
            self.write(&bytes, writer, cx);
        }
        if !self.flow.is_spilled() {
            self.session.handle_flowing(to, self.now);
        }
        true
    }

    /// What a port says in its side's stead.
    fn take_reply(&mut self) -> Option<Vec<u8>> {
        let port = crossing::port(self.bridge.as_deref_mut()?, self.from);
        port.has_reply().then(|| port.take_reply())
    }

    fn may_finish(&mut self) -> bool {
        let to = self.to();
        let is_told_by_fin =
            self.bridge.as_deref_mut().is_some_and(|bridge| crossing::port(bridge, to).ends_with_fin());
        is_told_by_fin || self.session.may_finish(to)
    }

    /// Bytes of a side, as its version has them.
    fn receive<W: AsyncWrite + Unpin>(&mut self, bytes: &[u8], writer: &mut W, cx: &mut Context<'_>) {
        let Some(bridge) = self.bridge.as_deref_mut() else { return self.pass(bytes, writer, cx) };
        self.session.handle_sign_of_life(self.from, self.now);
        let mut frames = crossing::for_decoded();
        let decoded = crossing::port(bridge, self.from).decode(bytes, &mut frames.bytes);
        self.pass(&frames.bytes, writer, cx);
        match decoded {
            Ok(taken) if taken < bytes.len() => self.flow.hold(&bytes[taken..]),
            Ok(_) => {}
            Err(fault) => self.session.handle_undecodable(self.from, fault, self.now),
        }
    }

    fn receive_end<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, cx: &mut Context<'_>) {
        if let Some(bridge) = self.bridge.as_deref_mut() {
            let mut last = Vec::new();
            crossing::port(bridge, self.from).decode_end(&mut last);
            self.pass(&last, writer, cx);
        }
        self.session.handle_end(self.from, self.now);
    }

    /// Frames for a side, as its version has them.
    fn send<W: AsyncWrite + Unpin>(&mut self, frames: &[u8], writer: &mut W, cx: &mut Context<'_>) {
        let port = match self.bridge.as_deref_mut() {
            Some(bridge) => crossing::port(bridge, self.from.other()),
            None => return self.write(frames, writer, cx),
        };
        if !port.encodes() {
            return self.write(frames, writer, cx);
        }
        let mut encoded = crossing::for_encoded();
        let fault = port.encode(frames, &mut encoded.bytes).err();
        if !encoded.bytes.is_empty() {
            self.write(&encoded.bytes, writer, cx);
        }
        if let Some(fault) = fault {
            self.session.handle_unencodable(self.from, fault, self.now);
        }
    }

    /// Passes bytes on as far as the session lets them.
    fn pass<W: AsyncWrite + Unpin>(&mut self, mut bytes: &[u8], writer: &mut W, cx: &mut Context<'_>) {
        while !bytes.is_empty() {
            let taken = self.session.handle_bytes(self.from, bytes, self.now);
            self.account.moved(self.from, &taken);
            if taken.forward > 0 {
                self.send(&bytes[..taken.forward], writer, cx);
            }
            bytes = &bytes[taken.forward + taken.skip..];
            let has_sent = self.send_own(writer, cx);
            if taken.forward + taken.skip == 0 && !has_sent {
                debug_assert!(self.bridge.is_none(), "a port gives whole headers and whole control frames");
                return self.flow.hold(bytes);
            }
        }
    }

    fn write<W: AsyncWrite + Unpin>(&mut self, bytes: &[u8], writer: &mut W, cx: &mut Context<'_>) {
        let was_spilled = self.flow.is_spilled();
        match self.flow.write(bytes, writer, cx) {
            Ok(()) if self.flow.is_spilled() && !was_spilled => self.session.handle_stuck(self.to(), self.now),
            Ok(()) => {}
            Err(WriterGone) => self.session.handle_unwritable(self.to(), self.now),
        }
    }

    fn flush<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, cx: &mut Context<'_>) {
        if self.session.is_written(self.to())
            && let Poll::Ready(Err(_)) = Pin::new(writer).poll_flush(cx)
        {
            self.session.handle_unwritable(self.to(), self.now);
        }
    }
}

#[cfg(test)]
mod tests;
