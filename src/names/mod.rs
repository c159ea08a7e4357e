//! Names in place of addresses: what name servers said of each, what is kept of it, and when to ask again. Pure: it knows no
//! socket, no clock and no file.

pub mod answer;
mod known;
pub mod search;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::address::Address;
use crate::config::model;
use crate::config::model::{Location, SERVER_WEIGHT_MAX, Server, Upstream};
pub use answer::{Answer, Found};
use known::Known;
pub use known::{Standing, Step};

/// Every name that a configuration has servers of, with what is known of it. It belongs to the process, so that a reload finds
/// what was known before.
#[derive(Debug, Default)]
pub struct Names(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Location, Known>,
    /// Those of a configuration that is about to come into force. All of them are in `known`.
    coming: HashSet<Location>,
}

impl Names {
    /// From here on these are the names, besides those that are [expected](Names::expect). New ones are due at once.
    pub fn follow<'c>(&self, wanted: impl IntoIterator<Item = &'c Location>, now: Instant) {
        let wanted: HashSet<&Location> = wanted.into_iter().collect();
        let mut names = self.0.lock();
        let Inner { known, coming } = &mut *names;
        coming.retain(|name| !wanted.contains(name));
        known.retain(|name, _| wanted.contains(name) || coming.contains(name));
        for name in wanted {
            known.entry(name.clone()).or_insert_with(|| Known::new(now));
        }
    }

    /// These are followed soon: none is forgotten until then, or until others are expected in their place.
    pub fn expect<'c>(&self, wanted: impl IntoIterator<Item = &'c Location>, now: Instant) {
        let mut names = self.0.lock();
        names.coming = wanted.into_iter().cloned().collect();
        let Inner { known, coming } = &mut *names;
        for name in coming.iter() {
            known.entry(name.clone()).or_insert_with(|| Known::new(now));
        }
    }

    /// The names that nobody has been asked for yet.
    pub fn unasked(&self) -> Vec<Location> {
        let names = self.0.lock();
        let unasked = names.known.iter().filter(|(_, known)| known.standing() == Standing::Unasked);
        unasked.map(|(name, _)| name.clone()).collect()
    }

    /// Each name with the time when it is to be asked for. One that is expected and was never asked for is left out: whoever
    /// expects it asks, perhaps other name servers than those of now.
    pub fn due(&self) -> Vec<(Location, Instant)> {
        let names = self.0.lock();
        let is_left =
            |name: &Location, known: &Known| known.standing() == Standing::Unasked && names.coming.contains(name);
        let due = names.known.iter().filter(|(name, known)| !is_left(name, known));
        due.map(|(name, known)| (name.clone(), known.due())).collect()
    }

    /// What a name stands for, as far as is known.
    pub fn servers(&self, name: &Location) -> Arc<[Found]> {
        self.0.lock().known.get(name).map_or_else(|| Arc::new([]) as Arc<[Found]>, |known| Arc::clone(known.servers()))
    }

    /// The upstream with addresses alone: each name stands for all its servers, with what the configuration says of it. An address
    /// that is there twice is taken as it came first.
    pub fn resolve(&self, rules: &Upstream) -> Upstream {
        if !rules.servers.iter().any(|server| server.address.is_name()) {
            return rules.clone();
        }
        let mut servers: Vec<Server> = Vec::new();
        let mut seen = HashSet::new();
        for server in &rules.servers {
            let found: Vec<(Address, u32)> = match server.address.address() {
                Some(address) => vec![(address.clone(), 1)],
                None => {
                    self.servers(&server.address).iter().map(|found| (found.address.into(), found.weight)).collect()
                }
            };
            for (address, weight) in found {
                if seen.insert(address.clone()) {
                    let weight = server.weight.saturating_mul(weight);
                    servers.push(Server { address: address.into(), weight, ..server.clone() });
                }
            }
        }
        let mut weights: Vec<u32> = servers.iter().map(|server| server.weight).collect();
        answer::fit_weights(&mut weights, SERVER_WEIGHT_MAX);
        servers.iter_mut().zip(weights).for_each(|(server, weight)| server.weight = weight);
        Upstream { servers, ..rules.clone() }
    }

    /// Everything is to be asked for again.
    pub fn ask_all(&self, now: Instant) {
        self.0.lock().known.values_mut().for_each(|known| known.ask(now));
    }

    /// `None` where the name is not followed.
    pub fn standing(&self, name: &Location) -> Option<Standing> {
        self.0.lock().known.get(name).map(Known::standing)
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
        let known = names.known.get_mut(name)?;
        Some(known.handle_answer(answer, rules, now, chance))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;
    use crate::config;

    fn rules(servers: &str) -> Upstream {
        let text = format!(
            "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\n[[route]]\nname = 'r'\nupstream = 'u'\n\
             [[upstream]]\nname = 'u'\nservers = [{servers}]\n"
        );
        config::parse("test.toml", &text, NonZeroUsize::MIN).unwrap().upstreams.remove(0)
    }

    fn answer(servers: &[(&str, u32)]) -> Option<Answer<Found>> {
        let found = |(address, weight): &(&str, u32)| Found {
            address: address.parse().unwrap(),
            weight: *weight,
            host: "h".into(),
        };
        Some(Answer::Some { records: servers.iter().map(found).collect(), ttl: Duration::from_secs(9) })
    }

    fn check(servers: &str, answers: &[&[(&str, u32)]], expected: &[(&str, u32)]) {
        let (names, rules, now) = (Names::default(), rules(servers), Instant::now());
        let locations: Vec<&Location> =
            rules.servers.iter().map(|server| &server.address).filter(|address| address.is_name()).collect();
        names.follow(locations.iter().copied(), now);
        for (location, servers) in locations.into_iter().zip(answers) {
            names.handle_answer(location, answer(servers), &model::Dns::default(), now, 0.0);
        }
        let resolved: Vec<(String, u32)> =
            names.resolve(&rules).servers.iter().map(|server| (server.address.to_string(), server.weight)).collect();
        let expected: Vec<(String, u32)> = expected.iter().map(|(at, weight)| ((*at).to_owned(), *weight)).collect();
        assert_eq!(resolved, expected, "{servers}");
    }

    #[test]
    fn a_name_stands_for_all_its_servers_in_the_order_of_the_file() {
        check(
            "'10.0.0.9:1', { address = 'a:1', weight = 2 }, 'unix:/run/app.sock', 'b:1'",
            &[&[("10.0.0.1:1", 1), ("10.0.0.2:1", 3)], &[]],
            &[("10.0.0.9:1", 1), ("10.0.0.1:1", 2), ("10.0.0.2:1", 6), ("unix:/run/app.sock", 1)],
        );
    }

    #[test]
    fn an_address_that_is_there_twice_is_one_server() {
        check(
            "{ address = 'a:1', weight = 5 }, '10.0.0.1:1', 'b:1'",
            &[&[("10.0.0.1:1", 1)], &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)]],
            &[("10.0.0.1:1", 5), ("10.0.0.2:1", 1)],
        );
    }

    #[test]
    fn weights_stay_within_what_a_server_may_have() {
        check(
            "{ address = 'a:1', weight = 1000 }, '10.0.0.9:1'",
            &[&[("10.0.0.1:1", 65_535), ("10.0.0.2:1", 32_768)]],
            &[("10.0.0.1:1", 1000), ("10.0.0.2:1", 500), ("10.0.0.9:1", 1)],
        );
    }

    #[test]
    fn names_that_nobody_follows_are_forgotten_and_answers_to_them_are_nothing() {
        let (names, now) = (Names::default(), Instant::now());
        let [one, two] = ["a", "b"].map(|host| Location::Name { host: host.to_owned(), port: 1 });
        names.follow([&one, &two], now);
        let later = now + Duration::from_secs(1);
        names.handle_answer(&one, answer(&[("10.0.0.1:1", 1)]), &model::Dns::default(), later, 0.0).unwrap();
        assert_eq!(names.unasked(), std::slice::from_ref(&two));
        names.follow([&one], later);
        assert!(names.handle_answer(&two, None, &model::Dns::default(), now, 0.0).is_none());
        assert_eq!((names.servers(&one).len(), names.servers(&two).len()), (1, 0));
        assert_eq!(names.due(), [(one.clone(), later + Duration::from_secs(9))]);
        names.ask_all(later);
        assert_eq!(names.due(), [(one, later)]);
    }

    #[test]
    fn a_name_that_is_expected_is_not_forgotten_before_it_is_followed() {
        let (names, now) = (Names::default(), Instant::now());
        let [one, two, three] = ["a", "b", "c"].map(|host| Location::Name { host: host.to_owned(), port: 1 });
        let hear = |name: &Location| {
            names.handle_answer(name, answer(&[("10.0.0.1:1", 1)]), &model::Dns::default(), now, 0.0).is_some()
        };
        names.follow([&one], now);
        assert!(hear(&one));
        names.expect([&two, &three], now);
        assert_eq!(names.due().len(), 1, "who expects a name asks for it");
        names.follow([&one], now);
        assert!(hear(&two), "its answer came while the names of before were followed");
        names.follow([&one], now);
        assert_eq!(names.servers(&two).len(), 1);
        names.follow([&two, &three], now);
        assert_eq!((names.due().len(), names.servers(&one).len(), names.servers(&two).len()), (2, 0, 1));
        names.follow([&one], now);
        assert_eq!(names.standing(&two), None, "it was followed, so it is expected no more");
        names.expect([&two], now);
        names.expect([&three], now);
        names.follow([&one], now);
        assert_eq!((names.standing(&two), names.standing(&three)), (None, Some(Standing::Unasked)));
    }
}
