//! How many streams of a connection are open, so that its task knows when nobody needs it, and how many of them are worked on at
//! once. It does not know what they carry.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The streams of one connection.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: AtomicUsize,
    /// Told when the last one is gone.
    none_left: Notify,
    /// A stream that its client takes back is none of h2's any more, but may be work for a while.
    places: Arc<Semaphore>,
    /// What the connection takes up, until its last stream is done with.
    _held: Box<dyn Any + Send + Sync>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OpenStream {
    of: Arc<Inner>,
    place: Option<OwnedSemaphorePermit>,
}

impl Streams {
    /// At most `places` are worked on at once, and `held` lasts as long as any of them.
    pub fn new(places: usize, held: impl Any + Send + Sync) -> Streams {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        let (open, none_left) = (AtomicUsize::new(0), Notify::new());
        Streams(Arc::new(Inner { open, none_left, places, _held: Box::new(held) }))
    }

    pub fn open(&self) -> OpenStream {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        OpenStream { of: Arc::clone(&self.0), place: None }
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

impl OpenStream {
    /// Once there is a place for it, which it keeps.
    pub async fn take_place(&mut self) {
        // It fails only where it is closed, which it never is.
        self.place = Arc::clone(&self.of.places).acquire_owned().await.ok();
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.of.open.fetch_sub(1, Ordering::Release) == 1 {
            self.of.none_left.notify_one();
        }
    }
}
