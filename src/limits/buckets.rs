//! How fast each client may go: a token bucket a client, in a table whose size is fixed. It knows no clock: time is an
//! argument, and one table gets it from one clock.
//!
//! A bucket is one number: until when it is paid for (the generic cell rate algorithm, ITU-T I.371). A full bucket is paid
//! up to now or earlier, and then says nothing that an empty place would not say, so nobody has to clear it away.
//!
//! The table is cut into sets, and a client's bucket is in the set that its hash says, as lines are in a processor's cache. A
//! new client takes the place whose bucket is nearest to full: that forgives the least. So a flood of addresses, each with a
//! little, pushes out its own kind and not the one who was just told to wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Client;
use crate::config::model::Rate;

/// How fast a client may go: `window` at once, and one more each `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    interval_ns: u64,
    /// A whole number of intervals: what a full bucket has.
    window_ns: u64,
}

impl Pace {
    /// As many at once as the rate allows in its time.
    pub fn new(rate: Rate) -> Pace {
        let count = u64::from(rate.count.max(1));
        let per_ns = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval_ns = (per_ns / count).max(1);
        Pace { interval_ns, window_ns: interval_ns.saturating_mul(count) }
    }

    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    pub fn window(self) -> Duration {
        Duration::from_nanos(self.window_ns)
    }

    /// One from a bucket that was paid until then. Until when it is paid now, or how long until there is one.
    fn take(self, paid_until_ns: u64, now_ns: u64) -> Result<u64, Duration> {
        let full_ns = now_ns.saturating_add(self.window_ns);
        // No earlier than now: a bucket holds no more than a full one. No later than an empty one: what a slower rate left
        // behind is not owed for longer than this one takes.
        let next_ns = paid_until_ns.clamp(now_ns, full_ns).saturating_add(self.interval_ns);
        if next_ns > full_ns { Err(Duration::from_nanos(next_ns - full_ns)) } else { Ok(next_ns) }
    }
}

/// The buckets of one route's clients.
#[derive(Debug)]
pub struct Buckets {
    sets: Box<[Mutex<Set>]>,
    hasher: RandomState,
    /// What times are counted from: the first one that was heard of.
    epoch: OnceLock<Instant>,
}

const PLACES: usize = 16;

type Set = [Bucket; PLACES];

#[derive(Clone, Copy, Debug)]
struct Bucket {
    client: Client,
    paid_until_ns: u64,
}

const EMPTY: Bucket = Bucket { client: Client::NOBODY, paid_until_ns: 0 };

impl Buckets {
    /// For about so many clients at once; it never takes more memory than at first.
    pub fn new(clients: usize) -> Buckets {
        let sets = (0..clients.div_ceil(PLACES).max(1)).map(|_| Mutex::new([EMPTY; PLACES]));
        Buckets { sets: sets.collect(), hasher: RandomState::new(), epoch: OnceLock::new() }
    }

    /// Takes one from the client's bucket.
    ///
    /// # Errors
    /// How long until there is one; nothing was taken.
    pub fn take(&self, client: Client, pace: Pace, now: Instant) -> Result<(), Duration> {
        let now_ns = self.since_epoch_ns(now);
        let mut set = self.set(client).lock();
        let known = set.iter().position(|bucket| bucket.client == client);
        let place = known.unwrap_or_else(|| nearest_to_full(&set));
        let paid_until_ns = known.map_or(0, |known| set[known].paid_until_ns);
        let paid_until_ns = pace.take(paid_until_ns, now_ns)?;
        set[place] = Bucket { client, paid_until_ns };
        Ok(())
    }

    /// Puts one back that was taken for nothing.
    pub fn put_back(&self, client: Client, pace: Pace) {
        let mut set = self.set(client).lock();
        if let Some(bucket) = set.iter_mut().find(|bucket| bucket.client == client) {
            bucket.paid_until_ns = bucket.paid_until_ns.saturating_sub(pace.interval_ns);
        }
    }

    /// Clients that fit.
    pub fn capacity(&self) -> usize {
        self.sets.len() * PLACES
    }

    /// Whether it was made for so many.
    pub fn is_for(&self, clients: usize) -> bool {
        self.sets.len() == clients.div_ceil(PLACES).max(1)
    }

    fn set(&self, client: Client) -> &Mutex<Set> {
        // The hash has a key of the process, so nobody chooses whom he pushes out.
        let hash = self.hasher.hash_one(client);
        &self.sets[usize::try_from(hash % self.sets.len() as u64).expect("less than the number of sets")]
    }

    fn since_epoch_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(*self.epoch.get_or_init(|| now)).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// An empty place is the fullest of all.
fn nearest_to_full(set: &Set) -> usize {
    let places = set.iter().enumerate();
    places.min_by_key(|(_, bucket)| bucket.paid_until_ns).map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::client::tests::client;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(count: u32, per: Duration) -> Pace {
        Pace::new(Rate { count, per })
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A table and the moment at which it was made.
    fn buckets(clients: usize) -> (Buckets, Instant) {
        (Buckets::new(clients), Instant::now())
    }

    #[test]
    fn as_many_as_the_rate_at_once_and_then_one_an_interval() {
        let (buckets, start) = buckets(100);
        let (one, pace) = (client(1), pace(4, SECOND));
        for _ in 0..4 {
            assert_eq!(buckets.take(one, pace, start), Ok(()));
        }
        assert_eq!(buckets.take(one, pace, start), Err(ms(250)));
        assert_eq!(buckets.take(one, pace, start + ms(100)), Err(ms(150)));
        assert_eq!(buckets.take(one, pace, start + ms(250)), Ok(()));
        assert_eq!(buckets.take(one, pace, start + ms(250)), Err(ms(250)));
        assert_eq!(buckets.take(client(2), pace, start), Ok(()), "another client has a bucket of its own");
    }

    #[test]
    fn a_long_pause_fills_the_bucket_and_no_more() {
        let (buckets, start) = buckets(100);
        let pace = pace(2, SECOND);
        assert!(buckets.take(client(1), pace, start).is_ok());
        let later = start + Duration::from_secs(3600);
        let taken = (0..9).filter(|_| buckets.take(client(1), pace, later).is_ok()).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn what_is_put_back_can_be_taken_again() {
        let (buckets, start) = buckets(100);
        let pace = pace(1, SECOND);
        assert!(buckets.take(client(1), pace, start).is_ok());
        assert!(buckets.take(client(1), pace, start).is_err());
        buckets.put_back(client(1), pace);
        assert!(buckets.take(client(1), pace, start).is_ok());
        buckets.put_back(client(2), pace);
    }

    #[test]
    fn a_faster_rate_does_not_owe_what_a_slower_one_left() {
        let (buckets, start) = buckets(100);
        assert!(buckets.take(client(1), pace(1, Duration::from_secs(3600)), start).is_ok());
        assert_eq!(buckets.take(client(1), pace(10, SECOND), start), Err(ms(100)));
    }

    #[test]
    fn a_flood_of_addresses_neither_grows_the_table_nor_frees_who_has_to_wait() {
        let (buckets, start) = buckets(10_000);
        let pace = pace(20, SECOND);
        let bytes = buckets.sets.len() * size_of::<Mutex<Set>>();
        assert!(bytes < 25 * buckets.capacity(), "{bytes} bytes for {} clients", buckets.capacity());
        assert!((10_000..10_000 + PLACES).contains(&buckets.capacity()));
        // Somebody uses all he has, and then a million others come, a hundred a millisecond.
        let greedy = client(0);
        while buckets.take(greedy, pace, start).is_ok() {}
        let (mut now, mut taken) = (start, 20);
        for number in 1..=1_000_000 {
            assert_eq!(buckets.take(client(number), pace, now), Ok(()), "a new client is never refused");
            if number % 100 == 0 {
                now += ms(1);
                taken += usize::from(buckets.take(greedy, pace, now).is_ok());
            }
        }
        let allowed = 20 + 20 * 10;
        assert!(taken <= allowed, "{taken} in 10 seconds, and {allowed} are allowed");
        assert_eq!(buckets.sets.len() * size_of::<Mutex<Set>>(), bytes);
    }

    #[test]
    fn the_busiest_clients_of_a_table_that_is_too_small_keep_their_places() {
        let (buckets, start) = buckets(PLACES);
        let pace = pace(10, SECOND);
        for number in 0..16 {
            for _ in 0..10 {
                buckets.take(client(number), pace, start).unwrap();
            }
        }
        for number in 100..200 {
            buckets.take(client(number), pace, start).unwrap();
        }
        let held = (0..16).filter(|number| buckets.take(client(*number), pace, start).is_err()).count();
        assert_eq!(held, 15, "all but the one whose place the others share");
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_in_any_window(
            count in 1..50_u32,
            per_ms in 1..5_000_u64,
            steps in prop::collection::vec(0..300_u64, 1..300),
        ) {
            let (buckets, mut now) = buckets(10);
            let pace = pace(count, ms(per_ms));
            let mut taken: Vec<Instant> = Vec::new();
            for step in steps {
                now += ms(step);
                match buckets.take(client(7), pace, now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO && wait <= pace.interval());
                        prop_assert!(buckets.take(client(7), pace, now + wait - Duration::from_nanos(1)).is_err());
                    }
                }
            }
            for (at, first) in taken.iter().enumerate() {
                let within = taken[at..].iter().filter(|later| later.duration_since(*first) < pace.window());
                prop_assert!(within.count() < 2 * count as usize, "a full bucket, and what runs in meanwhile");
            }
        }

        #[test]
        fn no_time_and_no_rate_make_it_panic(count: u32, per_ns: u64, paid: u64, now: u64) {
            let pace = pace(count, Duration::from_nanos(per_ns));
            if let Ok(next) = pace.take(paid, now) {
                prop_assert!(next >= now);
            }
        }
    }
}
