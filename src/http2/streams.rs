//! How many streams of a connection are open, so that its task knows when nobody needs it. It does not know what they carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The streams of one connection.
#[derive(Clone, Debug, Default)]
pub struct Streams(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: AtomicUsize,
    /// Told when the last one is gone.
    none_left: Notify,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OpenStream(Arc<Inner>);

impl Streams {
    pub fn open(&self) -> OpenStream {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(&self.0))
    }

    pub fn are_none(&self) -> bool {
        self.0.open.load(Ordering::Acquire) == 0
    }

    pub async fn until_none(&self) {
        // Told before it is waited for, it returns at once, so nothing falls between the look and the wait.
        while !self.are_none() {
            self.0.none_left.notified().await;
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Release) == 1 {
            self.0.none_left.notify_one();
        }
    }
}
