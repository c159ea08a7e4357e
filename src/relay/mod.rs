//! The data path after the 101: reads from one side, tells the session, writes to the other. It decides nothing; it does
//! not know what a frame is, and knows neither routes nor configuration.
//!
//! A tunnel that waits holds no buffer. All reads of a thread go into one scratch buffer, and what a peer does not take at
//! once is copied into a spill of its own. While a direction has a spill it does not read, which bounds it at one scratch
//! buffer, and leaves the other direction alone.

mod account;
mod flow;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::reason::Reason;
use crate::tunnel::{Session, Side};
pub use account::{Account, Held};
use flow::{Flow, Step};

/// One tunnel: a future that ends with it.
pub struct Relay<C, B> {
    client: C,
    backend: B,
    to_backend: Flow,
    to_client: Flow,
    session: Session,
    account: Account,
    /// Set to the session's deadline when it fires, not at every byte.
    timer: Pin<Box<Sleep>>,
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
        mut session: Session,
        account: Account,
        mut timer: Pin<Box<Sleep>>,
    ) -> Relay<C, B> {
        let now = now();
        for (side, bytes) in [(Side::Client, &early.from_client), (Side::Backend, &early.from_backend)] {
            if !bytes.is_empty() {
                session.handle_bytes(side, bytes, now);
                account.moved(side, bytes.len());
            }
        }
        if let Some(deadline) = session.poll_deadline() {
            timer.as_mut().reset(deadline.into());
        }
        Relay {
            client,
            backend,
            to_backend: Flow::with_spill(early.from_client),
            to_client: Flow::with_spill(early.from_backend),
            session,
            account,
            timer,
        }
    }
}

/// The runtime's clock, which a test can set.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
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
        let Relay { client, backend, to_backend, to_client, session, account, timer } = self.get_mut();
        pump(Side::Client, to_backend, client, backend, cx, session, account);
        pump(Side::Backend, to_client, backend, client, cx, session, account);
        if session.is_lost(Side::Backend) {
            // Perhaps only since a moment: what the client sends has no taker now, and is read to be thrown away.
            pump(Side::Client, to_backend, client, backend, cx, session, account);
        }
        while session.ended().is_none()
            && let Some(deadline) = session.poll_deadline()
        {
            // A side that was lost brings the deadline forward; bytes only put it off.
            if deadline < timer.deadline().into_std() {
                timer.as_mut().reset(deadline.into());
            }
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
            session.handle_time(now());
            if let (None, Some(deadline)) = (session.ended(), session.poll_deadline()) {
                timer.as_mut().reset(deadline.into());
            }
        }
        match session.ended() {
            Some(reason) => {
                account.ended(session, reason, now());
                Poll::Ready(())
            }
            None => Poll::Pending,
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
fn pump<R, W>(
    from: Side,
    flow: &mut Flow,
    reader: &mut R,
    writer: &mut W,
    cx: &mut Context<'_>,
    session: &mut Session,
    account: &mut Account,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let to = match from {
        Side::Client => Side::Backend,
        Side::Backend => Side::Client,
    };
    flow::with_scratch(|scratch| {
        while session.ended().is_none() {
            if session.is_lost(to) {
                flow.discard();
            }
            match flow.step(reader, writer, cx, scratch, |bytes| {
                session.handle_bytes(from, bytes, now());
                account.moved(from, bytes.len());
            }) {
                Step::Moved => {}
                Step::Waiting => return,
                // If that was the second end, the sockets are closed now, and nobody has to be told.
                Step::ReaderDone => session.handle_end(from),
                Step::ReaderLost => session.handle_unreadable(from, now()),
                Step::WriterLost => session.handle_unwritable(to, now()),
            }
        }
    });
}

#[cfg(test)]
mod tests;
