//! Picks, slots and standing, with time as an argument.

use std::time::Duration;

use super::*;
use crate::address::Address;
use crate::config::model::{Balance, Health as HealthRules, HealthCheck};
use crate::policy::tests::permit;

fn cluster(balance: Balance, servers: &[(u32, Option<usize>)]) -> Cluster {
    Cluster::new(&rules(balance, servers), &Registry::default())
}

pub(super) fn rules(balance: Balance, servers: &[(u32, Option<usize>)]) -> model::Upstream {
    let servers = servers
        .iter()
        .zip(9001..)
        .map(|(&(weight, max_tunnels), port)| model::Server {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], port)).into(),
            weight,
            max_tunnels,
            drain: false,
        })
        .collect();
    model::Upstream {
        name: "u".to_owned(),
        versions: model::Spoken::Listed(vec![crate::dialect::Dialect::Rfc6455]),
        servers,
        balance,
        hash_header: None,
        slow_start: None,
        queue: 0,
        queue_timeout: Duration::from_secs(1),
        sticky: None,
        connect_timeout: Duration::from_secs(2),
        handshake_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(60),
        header_limit: 16384,
        tries: 2,
        proxy_protocol: model::ProxyProtocol::Off,
        health: health(),
        tls: None,
    }
}

pub(super) fn health() -> HealthRules {
    HealthRules {
        check: HealthCheck::Off,
        path: "/".to_owned(),
        host: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        eject_time: Duration::from_secs(10),
        eject_time_max: Duration::from_secs(300),
        panic_threshold: 0,
    }
}

fn picks(cluster: &Cluster, count: usize) -> (Vec<usize>, Vec<TunnelSlot>) {
    let permit = permit();
    let now = Instant::now();
    (0..count)
        .map(|_| {
            let picked = cluster.pick(&permit, &Affinity::default(), &mut Tried::default(), now).unwrap();
            (picked.index, picked.slot)
        })
        .unzip()
}

#[test]
fn least_tunnels_follows_weights_and_live_tunnels() {
    let cluster = cluster(Balance::LeastTunnels, &[(1, None), (3, None)]);
    let (order, mut slots) = picks(&cluster, 40);
    assert_eq!(order.iter().filter(|&&index| index == 1).count(), 30);
    assert_eq!(cluster.servers()[0].tunnels(), 10);
    // The light server's tunnels end: it gets the next ones.
    for (at, index) in order.iter().enumerate().rev() {
        if *index == 0 {
            slots.remove(at);
        }
    }
    assert_eq!(picks(&cluster, 5).0, [0; 5]);
}

#[test]
fn equal_servers_take_turns() {
    let cluster = cluster(Balance::LeastTunnels, &[(1, None); 3]);
    let mut order: Vec<usize> = (0..3).map(|_| picks(&cluster, 1).0[0]).collect();
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2]);
}

#[test]
fn round_robin_spreads_a_heavy_servers_turns() {
    let cluster = cluster(Balance::RoundRobin, &[(5, None), (1, None), (1, None)]);
    assert_eq!(picks(&cluster, 7).0, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_full_server_is_passed_over_and_all_full_is_a_limit() {
    let cluster = cluster(Balance::RoundRobin, &[(1, Some(1)), (1, Some(2))]);
    let (order, slots) = picks(&cluster, 3);
    assert_eq!(order.iter().filter(|&&index| index == 0).count(), 1);
    let refused =
        cluster.pick(&permit(), &Affinity::default(), &mut Tried::default(), Instant::now()).map(|picked| picked.index);
    assert_eq!(refused.unwrap_err(), Reason::LimitBackendTunnels);
    drop(slots);
    assert_eq!(picks(&cluster, 3).0.len(), 3);
}

#[test]
fn a_request_tries_each_server_once() {
    let cluster = cluster(Balance::LeastTunnels, &[(1, None); 2]);
    let mut tried = Tried::default();
    let first = cluster.pick(&permit(), &Affinity::default(), &mut tried, Instant::now()).unwrap().index;
    let second = cluster.pick(&permit(), &Affinity::default(), &mut tried, Instant::now()).unwrap().index;
    assert_ne!(first, second);
    assert_eq!(
        cluster.pick(&permit(), &Affinity::default(), &mut tried, Instant::now()).unwrap_err(),
        Reason::BackendUnavailable
    );
    assert_eq!(tried.count(), 2);
}

#[test]
fn failures_in_a_row_take_a_server_out_until_its_trial() {
    let cluster = cluster(Balance::RoundRobin, &[(1, None), (1, None)]);
    let (server, start) = (&cluster.servers()[0], Instant::now());
    assert_eq!(cluster.failed(0, start), Change::None);
    assert_eq!(cluster.succeeded(0, start), Change::None);
    assert_eq!(cluster.failed(0, start), Change::None);
    assert_eq!(cluster.failed(0, start), Change::None);
    assert!(server.is_up());
    let Change::Ejected { out_for } = cluster.failed(0, start) else { panic!("it is still in") };
    let may_be_picked = |now| server.may_be_picked(&cluster.rules().health, now);
    assert!(!may_be_picked(start + out_for - Duration::from_millis(1)));
    assert!((0..4).all(|_| picks_at(&cluster, start) == 1));
    // Once its trial is due one client is sent to it; a failure puts it back out, a success brings it back.
    let later = start + out_for;
    let tried: Vec<usize> = (0..6).map(|_| picks_at(&cluster, later)).collect();
    assert_eq!(tried.iter().filter(|&&index| index == 0).count(), 1, "{tried:?}");
    assert!(!server.is_up());
    assert_eq!(cluster.failed(0, later), Change::None);
    assert!(!may_be_picked(later));
    assert_eq!(cluster.succeeded(0, later), Change::CameBack);
    assert!(server.is_up());
}

#[test]
fn when_all_are_out_all_are_tried() {
    let cluster = cluster(Balance::LeastTunnels, &[(1, None), (1, None)]);
    let now = Instant::now();
    for index in [0, 1] {
        (0..3).for_each(|_| _ = cluster.failed(index, now));
    }
    assert!(cluster.servers().iter().all(|server| !server.may_be_picked(&cluster.rules().health, now)));
    picks_at(&cluster, now);
}

fn picks_at(cluster: &Cluster, now: Instant) -> usize {
    cluster.pick(&permit(), &Affinity::default(), &mut Tried::default(), now).unwrap().index
}

#[test]
fn counts_and_standing_outlive_a_configuration() {
    let registry = Registry::default();
    let rules = rules(Balance::LeastTunnels, &[(1, None)]);
    let old = Cluster::new(&rules, &registry);
    let (_, _slots) = picks(&old, 2);
    (0..3).for_each(|_| _ = old.failed(0, Instant::now()));
    let new = Cluster::new(&rules, &registry);
    assert_eq!(new.servers()[0].tunnels(), 2);
    assert!(!new.servers()[0].is_up());
}

#[test]
fn turns_go_on_through_a_reload_and_begin_anew_with_other_servers() {
    let registry = Registry::default();
    let unchanged = rules(Balance::RoundRobin, &[(5, None), (1, None), (1, None)]);
    let old = Cluster::new(&unchanged, &registry);
    assert_eq!(picks(&old, 3).0, [0, 0, 1]);
    let new = Cluster::new(&unchanged, &registry);
    assert_eq!(picks(&new, 2).0, [0, 2]);
    // A connection may still hold the old one.
    assert_eq!(picks(&old, 2).0, [0, 0]);
    let changed = rules(Balance::RoundRobin, &[(1, None), (1, None)]);
    assert_eq!(picks(&Cluster::new(&changed, &registry), 2).0, [0, 1]);
}

#[test]
fn a_server_is_forgotten_when_no_cluster_has_it_and_no_tunnel_goes_to_it() {
    let registry = Registry::default();
    let one = Cluster::new(&rules(Balance::LeastTunnels, &[(1, None)]), &registry);
    let address = one.servers()[0].address().clone();
    let tunnel = one.servers()[0].take_slot();
    assert_eq!(registry.forget_unused(), []);
    drop(one);
    // A tunnel alone keeps it, so that its count is found again when the server comes back.
    assert_eq!(registry.forget_unused(), []);
    assert_eq!(registry.with_tunnels(), [("u".to_owned(), address.clone(), 1)]);
    let back = Cluster::new(&rules(Balance::LeastTunnels, &[(1, None)]), &registry);
    assert_eq!(back.servers()[0].tunnels(), 1);
    drop((back, tunnel));
    assert!(registry.knows("u"));
    assert_eq!(registry.forget_unused(), [("u".to_owned(), address)]);
    assert!(!registry.knows("u"));
    assert!(registry.states.lock().is_empty() && registry.turns.lock().is_empty());
}

#[test]
fn an_upstream_is_known_as_long_as_one_server_of_it_is() {
    let registry = Registry::default();
    drop(Cluster::new(&rules(Balance::LeastTunnels, &[(1, None), (1, None)]), &registry));
    let _left = Cluster::new(&rules(Balance::LeastTunnels, &[(1, None)]), &registry);
    assert_eq!(registry.forget_unused().len(), 1);
    assert!(registry.knows("u"));
}

/// The picks of 100 ms each over so many seconds, ten tunnels each time that last for ever: how many went to the first server.
fn picked_of_first(cluster: &Cluster, start: Instant, seconds: u32, kept: &mut Vec<TunnelSlot>) -> Vec<usize> {
    (0..seconds)
        .map(|second| {
            let picks = (0..100).map(|pick| {
                let now = start + Duration::from_secs(u64::from(second)) + Duration::from_millis(10) * pick;
                let picked = cluster.pick(&permit(), &Affinity::default(), &mut Tried::default(), now).unwrap();
                kept.push(picked.slot);
                picked.index
            });
            picks.filter(|index| *index == 0).count()
        })
        .collect()
}

fn slowly(balance: Balance) -> model::Upstream {
    model::Upstream { slow_start: Some(Duration::from_secs(10)), ..rules(balance, &[(1, None); 5]) }
}

#[test]
fn a_server_that_comes_back_never_gets_more_than_the_share_it_has_grown_to() {
    for balance in [Balance::LeastTunnels, Balance::RoundRobin] {
        let cluster = Cluster::new(&slowly(balance), &Registry::default());
        let (start, mut kept) = (Instant::now(), Vec::new());
        (0..3).for_each(|_| _ = cluster.failed(0, start));
        assert_eq!(picked_of_first(&cluster, start, 5, &mut kept), [0; 5]);
        let back = start + Duration::from_secs(5);
        cluster.succeeded(0, back);
        assert!(cluster.is_warming_up(&cluster.servers()[0]));
        let picked = picked_of_first(&cluster, back, 10, &mut kept);
        for (second, &picked) in picked.iter().enumerate() {
            // The part at the end of the second, of a fifth of all, and one for the rounding.
            let part = 0.1 + 0.9 * (second as f64 + 1.0) / 10.0;
            let most = 100.0 * part / (4.0 + part) + 1.0;
            assert!(picked as f64 <= most, "{picked} of 100 in second {second}, {balance:?}");
            assert!(picked as f64 >= most / 3.0 - 1.0, "{picked} of 100 in second {second}, {balance:?}");
        }
        assert!(picked[9] > picked[0] * 3, "{picked:?}");
        // Warm, it is one among others: of fewest tunnels.
        let after = picked_of_first(&cluster, back + Duration::from_secs(10), 1, &mut kept)[0];
        assert!(!cluster.is_warming_up(&cluster.servers()[0]));
        assert_eq!(after, if balance == Balance::LeastTunnels { 100 } else { 20 });
    }
}

#[test]
fn a_server_that_is_new_among_others_begins_slowly_and_all_at_the_start_do_not() {
    let registry = Registry::default();
    let first = Cluster::new(&slowly(Balance::LeastTunnels), &registry);
    assert!(first.servers().iter().all(|server| !first.is_warming_up(server)));
    let more = model::Upstream {
        servers: rules(Balance::LeastTunnels, &[(1, None); 6]).servers,
        ..slowly(Balance::LeastTunnels)
    };
    let second = Cluster::new(&more, &registry);
    let warm: Vec<bool> = second.servers().iter().map(|server| second.is_warming_up(server)).collect();
    assert_eq!(warm, [false, false, false, false, false, true]);
}

#[test]
fn servers_that_warm_up_together_serve_all_the_same() {
    let cluster = Cluster::new(&slowly(Balance::LeastTunnels), &Registry::default());
    let start = Instant::now();
    cluster.servers().iter().for_each(|server| server.warmup().begin(start));
    let mut kept = Vec::new();
    picked_of_first(&cluster, start, 3, &mut kept);
    assert!(cluster.servers().iter().all(|server| server.tunnels() == 60));
}

fn hashed(count: usize) -> Vec<usize> {
    let cluster = cluster(Balance::ClientHash, &vec![(1, None); count]);
    by_key(&cluster, Instant::now())
}

/// Where each of 3000 clients goes.
fn by_key(cluster: &Cluster, now: Instant) -> Vec<usize> {
    let clients = (0..3000_u32).map(|client| std::net::SocketAddr::from((client.to_be_bytes(), 1)).into());
    let to = clients.map(|client| {
        let affinity = cluster.affinity(client, &[]);
        cluster.pick_for_request(&permit(), &affinity, &mut Tried::default(), now).unwrap().0
    });
    to.collect()
}

fn counts(picks: &[usize]) -> Vec<usize> {
    let servers = picks.iter().max().unwrap() + 1;
    (0..servers).map(|server| picks.iter().filter(|pick| **pick == server).count()).collect()
}

#[test]
fn a_hash_spreads_by_weight_and_only_what_was_on_a_gone_server_moves() {
    let (five, four) = (hashed(5), hashed(4));
    assert!(counts(&five).iter().all(|count| (480..720).contains(count)), "{:?}", counts(&five));
    for (before, after) in five.iter().zip(&four) {
        assert!(before == after || *before == 4);
    }
    let moved: Vec<usize> = five.iter().zip(&four).filter(|(before, _)| **before == 4).map(|(_, to)| *to).collect();
    assert!(counts(&moved).iter().all(|count| *count > moved.len() / 8), "{:?}", counts(&moved));
    let weighted = counts(&by_key(&cluster(Balance::ClientHash, &[(1, None), (3, None)]), Instant::now()));
    assert!((650..850).contains(&weighted[0]), "{weighted:?}");
}

#[test]
fn clients_of_a_server_that_is_out_or_full_spread_and_come_back() {
    let (cluster, now) = (cluster(Balance::ClientHash, &[(1, None), (1, None), (1, Some(1))]), Instant::now());
    let before = by_key(&cluster, now);
    (0..3).for_each(|_| _ = cluster.failed(0, now));
    let meanwhile = by_key(&cluster, now);
    assert!(before.iter().zip(&meanwhile).all(|(a, b)| a == b || *a == 0) && !meanwhile.contains(&0));
    cluster.succeeded(0, now);
    assert_eq!(by_key(&cluster, now), before);
    let at = before.iter().position(|pick| *pick == 2).unwrap();
    let client = std::net::SocketAddr::from((u32::try_from(at).unwrap().to_be_bytes(), 1)).into();
    let pick = || {
        let picked = cluster.pick(&permit(), &cluster.affinity(client, &[]), &mut Tried::default(), now);
        picked.map(|picked| (picked.index, picked.slot)).unwrap()
    };
    let (first, slot) = pick();
    assert!(first == 2 && pick().0 != 2);
    drop(slot);
    assert_eq!(pick().0, 2);
}

#[test]
fn a_server_that_drains_gets_nothing_new_and_begins_slowly_afterwards() {
    let registry = Registry::default();
    let mut rules = slowly(Balance::LeastTunnels);
    let (_, open) = picks(&Cluster::new(&rules, &registry), 5);
    rules.servers[0].drain = true;
    let draining = Cluster::new(&rules, &registry);
    assert!(!picks(&draining, 20).0.contains(&0));
    assert_eq!(draining.servers()[0].tunnels(), 1);
    rules.servers.iter_mut().for_each(|server| server.drain = true);
    let all = Cluster::new(&rules, &registry);
    let refused =
        all.pick(&permit(), &Affinity::default(), &mut Tried::default(), Instant::now()).map(|picked| picked.index);
    assert_eq!((refused.unwrap_err(), all.is_in_panic()), (Reason::BackendUnavailable, false));
    rules.servers.iter_mut().for_each(|server| server.drain = false);
    let back = Cluster::new(&rules, &registry);
    assert!(back.is_warming_up(&back.servers()[0]));
    drop(open);
}

#[test]
fn with_too_few_up_all_are_used() {
    let mut rules = rules(Balance::RoundRobin, &[(1, None); 4]);
    rules.health.panic_threshold = 50;
    let (cluster, now) = (Cluster::new(&rules, &Registry::default()), Instant::now());
    for index in [0, 1] {
        (0..3).for_each(|_| _ = cluster.failed(index, now));
    }
    assert_eq!((cluster.panic_changed(), picks(&cluster, 4).0), (None, vec![2, 3, 2, 3]));
    (0..3).for_each(|_| _ = cluster.failed(2, now));
    assert_eq!((cluster.panic_changed(), cluster.panic_changed()), (Some(true), None));
    let mut order = picks(&cluster, 4).0;
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2, 3]);
    cluster.succeeded(0, now);
    assert_eq!(cluster.panic_changed(), Some(false));
}

#[test]
fn a_full_server_is_no_reason_to_ask_one_that_is_out() {
    let (cluster, now) = (cluster(Balance::RoundRobin, &[(1, None), (1, Some(1))]), Instant::now());
    (0..3).for_each(|_| _ = cluster.failed(0, now));
    let _slot = picks(&cluster, 1).1;
    let refused = cluster.pick(&permit(), &Affinity::default(), &mut Tried::default(), now).map(|picked| picked.index);
    assert_eq!(refused.unwrap_err(), Reason::LimitBackendTunnels);
}

#[test]
fn a_cookie_leads_back_to_its_server_as_long_as_that_takes_anything() {
    let sticky = model::Sticky {
        cookie: "s".to_owned(),
        max_age: None,
        secure: false,
        http_only: false,
        same_site: model::SameSite::Lax,
    };
    let mut rules = rules(Balance::RoundRobin, &[(1, None), (1, None), (1, Some(1))]);
    rules.sticky = Some(sticky);
    let (cluster, now) = (Cluster::new(&rules, &Registry::default()), Instant::now());
    let given = cluster.cookie(2, &Affinity::default()).unwrap();
    let sent = given.split(';').next().unwrap();
    let fields = [Field { name: "cookie", value: sent.as_bytes() }];
    let affinity = cluster.affinity(ClientAddr::Local, &fields);
    let pick = || {
        let picked = cluster.pick(&permit(), &affinity, &mut Tried::default(), now);
        picked.map(|picked| (picked.index, picked.slot)).unwrap()
    };
    let (first, slot) = pick();
    assert_eq!((first, cluster.cookie(2, &affinity)), (2, None));
    // It is full: another one, and its cookie.
    let (other, _other) = pick();
    assert!(other != 2 && cluster.cookie(other, &affinity).is_some());
    drop(slot);
    (0..3).for_each(|_| _ = cluster.failed(2, now));
    assert_ne!(pick().0, 2);
    cluster.succeeded(2, now);
    assert_eq!(pick().0, 2);
    let unknown = [Field { name: "Cookie", value: b"s=0123456789abcdef" }];
    let affinity = cluster.affinity(ClientAddr::Local, &unknown);
    assert!(cluster.pick_for_request(&permit(), &affinity, &mut Tried::default(), now).is_ok());
    assert!(cluster.cookie(0, &affinity).is_some());
}

#[test]
fn a_slot_that_is_freed_calls_who_waits() {
    let mut rules = rules(Balance::LeastTunnels, &[(1, Some(1))]);
    rules.queue = 1;
    let registry = Registry::default();
    let cluster = Cluster::new(&rules, &registry);
    let (_, slots) = picks(&cluster, 1);
    let place = cluster.wait(&Tried::default()).unwrap();
    assert!(cluster.wait(&Tried::default()).is_none() && cluster.waiting() == 1);
    let called = || place.was_called(std::task::Waker::noop());
    assert_eq!((called(), called()), (true, false));
    // Whichever configuration the tunnel began with.
    let reloaded = Cluster::new(&rules, &registry);
    drop(slots);
    assert!(called());
    drop(place);
    assert_eq!(reloaded.waiting(), 0);
}

#[test]
fn an_address_is_not_to_be_found_in_a_cookie() {
    let address: Address = "192.0.2.1:80".parse().unwrap();
    let id = affinity::ServerId::new("u", &address).to_string();
    assert!(id.len() == 16 && id != affinity::ServerId::new("v", &address).to_string());
}
