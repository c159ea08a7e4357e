//! What happened to the counts of clients, for somebody who tells others of it. It does not know who that is. While nobody
//! listens, nothing is written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::Client;

/// How many a client has, at one moment. Of two counts the one with the later `change` is the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub slots: u32,
    pub change: u64,
}

/// A client's count at one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub route: Arc<str>,
    pub client: Client,
    pub count: Count,
}

/// Where slots that are given back are written down. One for all routes.
#[derive(Debug, Default)]
pub struct Journal {
    changes: AtomicU64,
    page: Mutex<Page>,
}

#[derive(Debug, Default)]
struct Page {
    is_kept: bool,
    given_back: Vec<Told>,
    /// Some were thrown away.
    is_torn: bool,
    is_nudged: bool,
    waker: Option<Waker>,
}

/// Entries that wait at most; a reader that is further behind has to begin anew.
const ENTRIES_MAX: usize = 65_536;

/// The journal lacks entries: what was told by it is worth nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

impl Journal {
    /// Begins an empty page.
    pub fn open(&self) {
        self.page.lock().begin(true);
    }

    pub fn close(&self) {
        self.page.lock().begin(false);
    }

    /// Wakes the reader with no entry: something else happened that it wants to look at.
    pub fn nudge(&self) {
        let mut page = self.page.lock();
        page.is_nudged = true;
        page.wake();
    }

    /// All entries since the last time, as soon as there is one; at most so many, and none after a nudge.
    ///
    /// # Errors
    /// When entries were lost.
    pub fn poll_entries(&self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Vec<Told>, Torn>> {
        let mut page = self.page.lock();
        if std::mem::take(&mut page.is_nudged) {
            return Poll::Ready(Ok(Vec::new()));
        }
        if page.is_torn {
            return Poll::Ready(Err(Torn));
        }
        if page.given_back.is_empty() {
            page.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let some = page.given_back.len().min(most);
        Poll::Ready(Ok(page.given_back.drain(..some).collect()))
    }

    /// The number of the next change. Called where the count changes, under its lock.
    pub(super) fn next_change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn given_back(&self, told: impl FnOnce() -> Told) {
        let mut page = self.page.lock();
        if !page.is_kept {
            return;
        }
        if page.given_back.len() == ENTRIES_MAX {
            page.is_torn = true;
        } else {
            page.given_back.push(told());
        }
        page.wake();
    }
}

impl Page {
    /// What happened to the reader's notice of other things, a new page does not change.
    fn begin(&mut self, is_kept: bool) {
        *self = Page { is_kept, is_nudged: self.is_nudged, waker: self.waker.take(), ..Page::default() };
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::client;
    use super::*;

    fn told(slots: u32) -> Told {
        Told { route: "chat".into(), client: client(1), count: Count { slots, change: 1 } }
    }

    fn entries(journal: &Journal, most: usize) -> Option<Result<usize, Torn>> {
        match journal.poll_entries(most, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(entries) => Some(entries.map(|entries| entries.len())),
            Poll::Pending => None,
        }
    }

    #[test]
    fn only_what_happens_while_it_is_open_is_in_it() {
        let journal = Journal::default();
        journal.given_back(|| told(1));
        journal.open();
        assert_eq!(entries(&journal, 9), None);
        (0..3).for_each(|slots| journal.given_back(|| told(slots)));
        assert_eq!(entries(&journal, 2), Some(Ok(2)));
        assert_eq!(entries(&journal, 2), Some(Ok(1)));
        journal.given_back(|| told(1));
        journal.close();
        journal.open();
        assert_eq!(entries(&journal, 9), None);
    }

    #[test]
    fn a_nudge_wakes_a_reader_of_nothing() {
        let journal = Journal::default();
        journal.nudge();
        journal.open();
        assert_eq!(entries(&journal, 9), Some(Ok(0)));
        assert_eq!(entries(&journal, 9), None);
    }

    #[test]
    fn a_reader_that_is_too_far_behind_is_told_so() {
        let journal = Journal::default();
        journal.open();
        (0..=ENTRIES_MAX).for_each(|_| journal.given_back(|| told(0)));
        assert_eq!(entries(&journal, 9), Some(Err(Torn)));
        journal.open();
        assert_eq!(entries(&journal, 9), None);
    }
}
