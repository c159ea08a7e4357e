//! Names in place of addresses: what name servers said of each, what is kept of it, and when to ask again. Pure: it knows no
//! socket, no clock and no file.

pub mod answer;
mod known;
pub mod search;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::model;
use crate::config::model::Location;
pub use answer::{Answer, Found};
use known::Known;
pub use known::{Standing, Step};

/// Every name that a configuration has servers of, with what is known of it. It belongs to the process, so that a reload finds
/// what was known before.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<Location, Known>>);

impl Names {
    /// From here on these are the names. New ones are due at once.
    pub fn follow<'c>(&self, wanted: impl IntoIterator<Item = &'c Location>, now: Instant) {
        let wanted: HashSet<&Location> = wanted.into_iter().collect();
        let mut names = self.0.lock();
        names.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if !names.contains_key(name) {
                names.insert(name.clone(), Known::new(now));
            }
        }
    }

    /// Takes these in besides those that are followed.
    pub fn add<'c>(&self, wanted: impl IntoIterator<Item = &'c Location>, now: Instant) {
        let mut names = self.0.lock();
        for name in wanted {
            if !names.contains_key(name) {
                names.insert(name.clone(), Known::new(now));
            }
        }
    }

    /// The names that nobody has been asked for yet.
    pub fn unasked(&self) -> Vec<Location> {
        let names = self.0.lock();
        let unasked = names.iter().filter(|(_, known)| known.standing() == Standing::Unasked);
        unasked.map(|(name, _)| name.clone()).collect()
    }

    /// Each name with the time when it is to be asked for.
    pub fn due(&self) -> Vec<(Location, Instant)> {
        self.0.lock().iter().map(|(name, known)| (name.clone(), known.due())).collect()
    }

    /// What a name stands for, as far as is known.
    pub fn servers(&self, name: &Location) -> Arc<[Found]> {
        self.0.lock().get(name).map_or_else(|| Arc::new([]) as Arc<[Found]>, |known| Arc::clone(known.servers()))
    }

    /// `None` where the name is not followed.
    pub fn standing(&self, name: &Location) -> Option<Standing> {
        self.0.lock().get(name).map(Known::standing)
    }

    /// What name servers said, `None` where they failed. `None` too if nobody wants to know any more.
    pub fn handle_answer(
        &self,
        name: &Location,
        answer: Option<Answer<Found>>,
        rules: &model::Dns,
        now: Instant,
        chance: f64,
    ) -> Option<Step> {
        let mut names = self.0.lock();
        let known = names.get_mut(name)?;
        Some(known.handle_answer(answer, rules, now, chance))
    }
}
