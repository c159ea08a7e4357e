//! From the answers of name servers to the servers that a name stands for: two families of addresses, priorities and weights
//! of SRV records, and what is kept of before where a part of an answer failed. It does not know how anybody was asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A server that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub address: SocketAddr,
    /// What its configured weight is multiplied with; at least 1.
    pub weight: u32,
    /// Whose address it is: the name itself, or a target of its SRV records.
    pub host: Arc<str>,
}

/// What name servers said of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Never empty.
    Some { records: Vec<T>, ttl: Duration },
    /// There is no such name, or no record of that kind.
    Nobody { ttl: Option<Duration> },
}

impl<T> Answer<T> {
    /// The same of other records.
    pub fn map<U>(self, change: impl FnOnce(Vec<T>) -> Vec<U>) -> Answer<U> {
        match self {
            Answer::Some { records, ttl } => Answer::Some { records: change(records), ttl },
            Answer::Nobody { ttl } => Answer::Nobody { ttl },
        }
    }
}

/// What is known after asking once.
pub type Outcome<T, F> = Result<Answer<T>, F>;

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// With its last dot.
    pub target: Arc<str>,
}

/// A service is decidedly not available, RFC 2782.
const NO_TARGET: &str = ".";

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        }
    }
}

/// The addresses of one host from the answers of both families. Where one of them failed, what was known of it before stands:
/// there are name servers that never answer for AAAA.
///
/// # Errors
/// When nothing can be said: both failed, or one did and there is nothing else.
pub fn addresses<F>(
    v4: Outcome<IpAddr, F>,
    v6: Outcome<IpAddr, F>,
    before: impl Fn(Family) -> Vec<IpAddr>,
) -> Outcome<IpAddr, F> {
    let (known, family, failed) = match (v4, v6) {
        (Ok(v4), Ok(v6)) => return Ok(joined(v4, v6)),
        (Err(failed), Err(_)) => return Err(failed),
        (Ok(known), Err(failed)) => (known, Family::V6, failed),
        (Err(failed), Ok(known)) => (known, Family::V4, failed),
    };
    let records = before(family);
    let other = match (records.is_empty(), &known) {
        (true, Answer::Nobody { .. }) => return Err(failed),
        (true, Answer::Some { .. }) => Answer::Nobody { ttl: None },
        (false, Answer::Some { ttl, .. }) => Answer::Some { records, ttl: *ttl },
        (false, Answer::Nobody { ttl }) => Answer::Some { records, ttl: ttl.unwrap_or_default() },
    };
    Ok(joined(known, other))
}

/// Two kinds of records of one name. That one kind has none does not matter where the other has some.
fn joined<T>(one: Answer<T>, other: Answer<T>) -> Answer<T> {
    match (one, other) {
        (Answer::Some { mut records, ttl }, Answer::Some { records: more, ttl: other }) => {
            records.extend(more);
            Answer::Some { records, ttl: ttl.min(other) }
        }
        (Answer::Nobody { ttl: one }, Answer::Nobody { ttl: other }) => {
            Answer::Nobody { ttl: one.into_iter().chain(other).min() }
        }
        (some @ Answer::Some { .. }, Answer::Nobody { .. }) | (Answer::Nobody { .. }, some @ Answer::Some { .. }) => {
            some
        }
    }
}

/// What was known of a host in a family.
pub fn known_before(before: &[Found], host: &str, family: Family) -> Vec<IpAddr> {
    let of_host = before.iter().filter(|found| *found.host == *host);
    let mut known: Vec<IpAddr> = of_host.map(|found| found.address.ip()).filter(|ip| family.has(*ip)).collect();
    known.sort_unstable();
    known.dedup();
    known
}

/// The servers of a plain name.
pub fn of_host(host: &Arc<str>, port: u16, ips: &[IpAddr]) -> Vec<Found> {
    let servers = ips.iter().map(|ip| Found { address: SocketAddr::new(*ip, port), weight: 1, host: Arc::clone(host) });
    in_order(servers.collect())
}

/// The records whose targets stand for somebody, those of the lowest priority first (RFC 2782).
pub fn by_priority(mut records: Vec<Service>) -> Vec<Vec<Service>> {
    records.retain(|record| *record.target != *NO_TARGET && record.port != 0);
    records.sort_by_key(|record| record.priority);
    records.chunk_by(|one, other| one.priority == other.priority).map(<[Service]>::to_vec).collect()
}

/// The servers of one priority. A weight of 0 counts as the least there is. A target with several addresses gives its weight
/// to each.
pub fn of_services(targets: &[(Service, Vec<IpAddr>)]) -> Vec<Found> {
    let servers = targets.iter().flat_map(|(record, ips)| {
        ips.iter().map(|ip| Found {
            address: SocketAddr::new(*ip, record.port),
            weight: u32::from(record.weight).max(1),
            host: Arc::clone(&record.target),
        })
    });
    in_order(servers.collect())
}

/// Name servers turn their answers round, which is no change; of an address that is there twice the heavier one stays.
fn in_order(mut servers: Vec<Found>) -> Vec<Found> {
    servers.sort_by(|one, other| (one.address, other.weight).cmp(&(other.address, one.weight)));
    servers.dedup_by_key(|found| found.address);
    servers.truncate(SERVERS_MAX);
    servers
}

/// Servers of one name; more are left out.
pub const SERVERS_MAX: usize = 1024;

/// Brings weights that became too large by multiplying down to `max`, their proportions kept as far as whole numbers from 1 on
/// can keep them.
pub fn fit_weights(weights: &mut [u32], max: u32) {
    let largest = weights.iter().copied().max().unwrap_or(0);
    if largest > max {
        for weight in weights {
            let scaled = u64::from(*weight) * u64::from(max) / u64::from(largest);
            *weight = u32::try_from(scaled).unwrap_or(max).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn some(texts: &[&str], ttl: u64) -> Outcome<IpAddr, &'static str> {
        Ok(Answer::Some { records: ips(texts), ttl: Duration::from_secs(ttl) })
    }

    fn nobody(ttl: Option<u64>) -> Outcome<IpAddr, &'static str> {
        Ok(Answer::Nobody { ttl: ttl.map(Duration::from_secs) })
    }

    fn check(
        v4: Outcome<IpAddr, &'static str>,
        v6: Outcome<IpAddr, &'static str>,
        before: &[&str],
        expected: &Outcome<IpAddr, &'static str>,
    ) {
        let told = format!("{v4:?} {v6:?} {before:?}");
        let known: Vec<Found> = of_host(&"app".into(), 1, &ips(before));
        assert_eq!(addresses(v4, v6, |family| known_before(&known, "app", family)), *expected, "{told}");
    }

    #[test]
    fn both_families_count_and_the_shorter_ttl() {
        check(some(&["10.0.0.1"], 9), some(&["::1"], 3), &[], &some(&["10.0.0.1", "::1"], 3));
        check(some(&["10.0.0.1"], 9), nobody(Some(1)), &["::9"], &some(&["10.0.0.1"], 9));
        check(nobody(None), some(&["::1"], 3), &[], &some(&["::1"], 3));
        check(nobody(Some(7)), nobody(Some(5)), &["10.0.0.9"], &nobody(Some(5)));
        check(nobody(None), nobody(Some(5)), &[], &nobody(Some(5)));
    }

    #[test]
    fn a_family_that_failed_is_as_it_was() {
        check(some(&["10.0.0.1"], 9), Err("x"), &[], &some(&["10.0.0.1"], 9));
        check(some(&["10.0.0.1"], 9), Err("x"), &["10.0.0.2", "::9"], &some(&["10.0.0.1", "::9"], 9));
        check(Err("x"), some(&["::1"], 9), &["10.0.0.2", "::9"], &some(&["::1", "10.0.0.2"], 9));
        check(Err("x"), nobody(Some(4)), &["10.0.0.2"], &some(&["10.0.0.2"], 4));
        check(Err("x"), nobody(None), &["::9"], &Err("x"));
        check(Err("x"), Err("y"), &["10.0.0.2"], &Err("x"));
    }

    fn service(priority: u16, weight: u16, port: u16, target: &str) -> Service {
        Service { priority, weight, port, target: target.into() }
    }

    #[test]
    fn the_lowest_priority_comes_first_and_a_dot_is_nobody() {
        let records = vec![
            service(20, 0, 1, "c."),
            service(10, 0, 2, "a."),
            service(5, 0, 3, "."),
            service(10, 0, 4, "b."),
            service(1, 0, 0, "d."),
        ];
        let ports: Vec<Vec<u16>> =
            by_priority(records).iter().map(|group| group.iter().map(|record| record.port).collect()).collect();
        assert_eq!(ports, [vec![2, 4], vec![1]]);
        assert!(by_priority(vec![service(0, 0, 1, ".")]).is_empty());
    }

    #[test]
    fn a_target_gives_its_port_and_weight_to_each_of_its_addresses() {
        let targets = [
            (service(0, 3, 81, "a."), ips(&["10.0.0.2", "10.0.0.1"])),
            (service(0, 0, 82, "b."), ips(&["10.0.0.1"])),
            (service(0, 7, 81, "c."), ips(&["10.0.0.2"])),
        ];
        let told: Vec<(String, u32, &str)> = of_services(&targets)
            .iter()
            .map(|found| (found.address.to_string(), found.weight, if *found.host == *"c." { "c." } else { "" }))
            .collect();
        let expected = [("10.0.0.1:81", 3, ""), ("10.0.0.1:82", 1, ""), ("10.0.0.2:81", 7, "c.")];
        assert_eq!(told, expected.map(|(address, weight, host)| (address.to_owned(), weight, host)));
    }

    #[test]
    fn the_order_of_an_answer_does_not_matter() {
        let host = "app".into();
        let turned = |texts: &[&str]| of_host(&host, 9001, &ips(texts));
        assert_eq!(turned(&["10.0.0.2", "10.0.0.1", "::1"]), turned(&["::1", "10.0.0.1", "10.0.0.2", "10.0.0.1"]));
    }

    fn check_weights(given: &[u32], expected: &[u32]) {
        let mut weights = given.to_vec();
        fit_weights(&mut weights, 1000);
        assert_eq!(weights, expected, "{given:?}");
    }

    #[test]
    fn weights_are_brought_down_together() {
        check_weights(&[], &[]);
        check_weights(&[1, 1000], &[1, 1000]);
        check_weights(&[1, 1500, 3000], &[1, 500, 1000]);
        check_weights(&[65_535_000, 65_535_000, 1], &[1000, 1000, 1]);
        check_weights(&[u32::MAX], &[1000]);
    }
}
