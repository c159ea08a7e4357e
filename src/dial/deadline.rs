//! One timer for all the waits of a dial, and then for the tunnel that comes of it. Putting off a timer costs nothing;
//! making and dropping one takes the runtime's lock, which three times a handshake was 6 % of its CPU.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// When the current wait is over.
#[derive(Debug)]
pub struct Deadline {
    timer: Pin<Box<Sleep>>,
}

/// The time was up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl Deadline {
    pub fn within(limit: Duration) -> Deadline {
        Deadline { timer: Box::pin(sleep(limit)) }
    }

    /// A new wait begins.
    pub fn restart(&mut self, limit: Duration) {
        self.timer.as_mut().reset(Instant::now() + limit);
    }

    /// # Errors
    /// When the work is not done in time; it is dropped then.
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, TimedOut> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.timer.as_mut() => Err(TimedOut),
        }
    }

    /// The timer, for whoever waits next.
    pub fn into_timer(self) -> Pin<Box<Sleep>> {
        self.timer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        let start = Instant::now();
        let mut deadline = Deadline::within(Duration::from_secs(2));
        assert_eq!(deadline.hold(sleep(Duration::from_secs(1))).await, Ok(()));
        deadline.restart(Duration::from_secs(5));
        assert_eq!(deadline.hold(sleep(Duration::from_secs(4))).await, Ok(()));
        deadline.restart(Duration::from_secs(1));
        assert_eq!(deadline.hold(sleep(Duration::from_secs(3))).await, Err(TimedOut));
        assert_eq!(start.elapsed(), Duration::from_secs(6));
    }
}
