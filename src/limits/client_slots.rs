//! How many each client has at once: slots as [`Slots`](super::Slots) are, with a count a client. It knows no clock.
//!
//! The counts are exact. A client is in the table only while it holds a slot, and whatever a slot is for is bounded elsewhere
//! (by `max_connections`), so a flood of addresses that hold nothing takes no memory, and nothing is ever pushed out.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::Client;
use super::journal::{Count, Journal, Told};

/// So many slots for each client, or no count at all. Clones share the counts.
#[derive(Clone, Debug)]
pub struct ClientSlots {
    table: Arc<Table>,
    limit: Option<u32>,
}

/// One slot of a client, given back when dropped. As small as a pointer, because every tunnel has some.
#[derive(Debug)]
pub struct ClientSlot(Arc<Holder>);

/// A slot that was taken, and what the client has with it.
#[derive(Debug)]
pub struct Taken {
    pub slot: ClientSlot,
    pub count: Count,
}

#[derive(Debug)]
struct Table {
    name: Arc<str>,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    journal: Option<Arc<Journal>>,
}

type Shard = HashMap<Client, Arc<Holder>>;

/// Locks that one table has, so that threads seldom meet at one.
const SHARDS: usize = 64;

/// A client that has slots.
#[derive(Debug)]
struct Holder {
    table: Arc<Table>,
    client: Client,
    /// At least 1 while it is in the table; changes only under the lock of its shard.
    slots: AtomicU32,
}

impl ClientSlots {
    /// What is given back is written into the journal, under this name.
    pub fn new(name: &str, limit: Option<u32>, journal: Option<Arc<Journal>>) -> ClientSlots {
        let shards = std::array::from_fn(|_| Mutex::default());
        let table = Table { name: name.into(), hasher: RandomState::new(), shards, journal };
        ClientSlots { table: Arc::new(table), limit }
    }

    /// The same counts under another limit.
    pub fn with_limit(&self, limit: Option<u32>) -> ClientSlots {
        ClientSlots { table: Arc::clone(&self.table), limit }
    }

    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// `None` where nothing is limited, and so nothing counted.
    ///
    /// # Errors
    /// When the client has as many as it may.
    pub fn take(&self, client: Client) -> Result<Option<Taken>, Full> {
        self.limit.map(|limit| self.table.take(client, limit)).transpose()
    }

    /// Of the clients of one part of the table, how many each has. There are [`ClientSlots::PARTS`].
    pub fn counts(&self, part: usize) -> Vec<Told> {
        let shard = self.table.shards[part % SHARDS].lock();
        shard.values().map(|holder| self.table.told(holder)).collect()
    }

    pub const PARTS: usize = SHARDS;

    /// Whether somebody else holds a clone of these, or a slot of them.
    pub fn are_shared(&self) -> bool {
        Arc::strong_count(&self.table) > 1
    }
}

/// The client has as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Table {
    fn take(self: &Arc<Self>, client: Client, limit: u32) -> Result<Taken, Full> {
        let mut shard = self.shard(client).lock();
        let holder = match shard.get(&client) {
            Some(holder) if holder.slots.load(Ordering::Relaxed) >= limit => return Err(Full),
            Some(holder) => Arc::clone(holder),
            None => {
                let holder = Holder { table: Arc::clone(self), client, slots: AtomicU32::new(0) };
                let holder = Arc::new(holder);
                shard.insert(client, Arc::clone(&holder));
                holder
            }
        };
        let slots = holder.slots.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Taken { slot: ClientSlot(holder), count: self.count(slots) })
    }

    fn give_back(&self, holder: &Holder) {
        let mut shard = self.shard(holder.client).lock();
        if holder.slots.fetch_sub(1, Ordering::Relaxed) == 1 {
            shard.remove(&holder.client);
            if shard.capacity() > ROOM_MIN && shard.capacity() / 4 > shard.len() {
                let room = shard.len() * 2;
                shard.shrink_to(room);
            }
        }
        if let Some(journal) = &self.journal {
            journal.given_back(|| self.told(holder));
        }
    }

    /// Under the lock of the holder's shard.
    fn told(&self, holder: &Holder) -> Told {
        let count = self.count(holder.slots.load(Ordering::Relaxed));
        Told { route: Arc::clone(&self.name), client: holder.client, count }
    }

    fn count(&self, slots: u32) -> Count {
        Count { slots, change: self.journal.as_ref().map_or(0, |journal| journal.next_change()) }
    }

    fn shard(&self, client: Client) -> &Mutex<Shard> {
        &self.shards[usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).expect("less than 64")]
    }
}

/// Places that a shard keeps although nobody is in them.
const ROOM_MIN: usize = 32;

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.table.give_back(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::super::client::tests::client;
    use super::*;

    fn slots(limit: u32) -> ClientSlots {
        ClientSlots::new("chat", Some(limit), None)
    }

    fn take(slots: &ClientSlots, number: u32) -> Option<ClientSlot> {
        slots.take(client(number)).ok().flatten().map(|taken| taken.slot)
    }

    fn clients(slots: &ClientSlots) -> usize {
        (0..ClientSlots::PARTS).map(|part| slots.counts(part).len()).sum()
    }

    #[test]
    fn each_client_has_slots_of_its_own_and_gives_them_back() {
        let slots = slots(2);
        let first = take(&slots, 1).unwrap();
        let _second = take(&slots, 1).unwrap();
        assert_eq!(slots.take(client(1)).unwrap_err(), Full);
        assert!(take(&slots, 2).is_some());
        drop(first);
        assert!(take(&slots, 1).is_some());
    }

    #[test]
    fn nothing_is_counted_without_a_limit() {
        let slots = ClientSlots::new("chat", None, None);
        assert!(slots.take(client(1)).unwrap().is_none());
        assert_eq!(clients(&slots), 0);
    }

    #[test]
    fn another_limit_finds_the_counts() {
        let slots = slots(3);
        let out: Vec<ClientSlot> = (0..3).map(|_| take(&slots, 1).unwrap()).collect();
        let lowered = slots.with_limit(Some(1));
        drop(slots);
        assert!(lowered.are_shared(), "the slots are of the same table");
        assert!(take(&lowered, 1).is_none());
        drop(out);
        assert!(!lowered.are_shared());
        assert!(take(&lowered, 1).is_some());
    }

    #[test]
    fn a_slot_is_no_larger_than_a_pointer() {
        assert_eq!(size_of::<Option<ClientSlot>>(), size_of::<usize>());
    }

    #[test]
    fn a_million_clients_that_come_and_go_leave_nothing_behind() {
        let slots = slots(1);
        let mut held = std::collections::VecDeque::new();
        for number in 0..1_000_000 {
            held.push_back(take(&slots, number).unwrap());
            if held.len() > 1_000 {
                held.pop_front();
            }
        }
        assert_eq!(clients(&slots), 1_000);
        drop(held);
        assert_eq!(clients(&slots), 0);
        let room: usize = slots.table.shards.iter().map(|shard| shard.lock().capacity()).sum();
        assert!(room <= SHARDS * 2 * ROOM_MIN, "room for {room} is kept");
        assert!(!slots.are_shared());
    }

    #[test]
    fn threads_never_take_more_than_the_limit() {
        let slots = slots(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let slot = take(&slots, 1);
                        let counts: Vec<Told> = (0..SHARDS).flat_map(|part| slots.counts(part)).collect();
                        assert!(counts.iter().all(|told| (1..=5).contains(&told.count.slots)), "{counts:?}");
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!(clients(&slots), 0);
    }

    #[test]
    fn what_is_given_back_is_in_the_journal_with_what_is_left() {
        let journal = Arc::new(Journal::default());
        let slots = ClientSlots::new("chat", Some(9), Some(Arc::clone(&journal)));
        journal.open();
        let one = slots.take(client(1)).unwrap().unwrap();
        let two = slots.take(client(1)).unwrap().unwrap();
        assert_eq!((one.count.slots, two.count.slots), (1, 2));
        drop(one);
        let Poll::Ready(Ok(entries)) = journal.poll_entries(9, &mut Context::from_waker(Waker::noop())) else {
            panic!("nothing is in the journal")
        };
        assert_eq!((&*entries[0].route, entries[0].client, entries[0].count.slots), ("chat", client(1), 1));
        assert!(entries[0].count.change > two.count.change);
    }
}
