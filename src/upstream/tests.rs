//! Picks, slots and standing, with time as an argument.

use super::*;
use crate::config::model::{Balance, Health as HealthRules, HealthCheck};
use crate::policy::tests::permit;

fn cluster(balance: Balance, servers: &[(u32, Option<usize>)]) -> Cluster {
    Cluster::new(&rules(balance, servers), &Registry::default())
}

fn rules(balance: Balance, servers: &[(u32, Option<usize>)]) -> model::Upstream {
    let servers = servers
        .iter()
        .zip(9001..)
        .map(|(&(weight, max_tunnels), port)| model::Server {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], port)).into(),
            weight,
            max_tunnels,
        })
        .collect();
    let health = HealthRules {
        check: HealthCheck::Off,
        path: "/".to_owned(),
        interval: Duration::from_secs(5),
        rise: 2,
        fall: 3,
        eject_time: Duration::from_secs(10),
    };
    model::Upstream {
        name: "u".to_owned(),
        versions: model::Spoken::Listed(vec![crate::dialect::Dialect::Rfc6455]),
        servers,
        balance,
        connect_timeout: Duration::from_secs(2),
        handshake_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(60),
        header_limit: 16384,
        tries: 2,
        proxy_protocol: model::ProxyProtocol::Off,
        health,
        tls: None,
    }
}

fn picks(cluster: &Cluster, count: usize) -> (Vec<usize>, Vec<TunnelSlot>) {
    let permit = permit();
    let now = Instant::now();
    (0..count)
        .map(|_| {
            let picked = cluster.pick(&permit, &mut Tried::default(), now).unwrap();
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
    let refused = cluster.pick(&permit(), &mut Tried::default(), Instant::now()).map(|picked| picked.index);
    assert_eq!(refused.unwrap_err(), Reason::LimitBackendTunnels);
    drop(slots);
    assert_eq!(picks(&cluster, 3).0.len(), 3);
}

#[test]
fn a_request_tries_each_server_once() {
    let cluster = cluster(Balance::LeastTunnels, &[(1, None); 2]);
    let mut tried = Tried::default();
    let first = cluster.pick(&permit(), &mut tried, Instant::now()).unwrap().index;
    let second = cluster.pick(&permit(), &mut tried, Instant::now()).unwrap().index;
    assert_ne!(first, second);
    assert_eq!(cluster.pick(&permit(), &mut tried, Instant::now()).unwrap_err(), Reason::BackendUnavailable);
    assert_eq!(tried.count(), 2);
}

#[test]
fn failures_in_a_row_take_a_server_out_until_its_trial() {
    let cluster = cluster(Balance::RoundRobin, &[(1, None), (1, None)]);
    let (server, start) = (&cluster.servers()[0], Instant::now());
    let out_for = Duration::from_secs(10);
    assert_eq!(cluster.failed(0, start), Change::None);
    assert_eq!(cluster.succeeded(0), Change::None);
    assert_eq!(cluster.failed(0, start), Change::None);
    assert_eq!(cluster.failed(0, start), Change::None);
    assert!(server.is_up());
    assert_eq!(cluster.failed(0, start), Change::WentDown { out_for });
    assert!(!server.may_be_picked(start + out_for - Duration::from_millis(1)));
    assert!((0..4).all(|_| picks_at(&cluster, start) == 1));
    // Once its trial is due one client is sent to it; a failure puts it back out, a success brings it back.
    let later = start + out_for;
    let tried: Vec<usize> = (0..6).map(|_| picks_at(&cluster, later)).collect();
    assert_eq!(tried.iter().filter(|&&index| index == 0).count(), 1, "{tried:?}");
    assert!(!server.is_up());
    assert_eq!(cluster.failed(0, later), Change::None);
    assert!(!server.may_be_picked(later));
    assert_eq!(cluster.succeeded(0), Change::CameBack);
    assert!(server.is_up());
}

#[test]
fn when_all_are_out_all_are_tried() {
    let cluster = cluster(Balance::LeastTunnels, &[(1, None), (1, None)]);
    let now = Instant::now();
    for index in [0, 1] {
        (0..3).for_each(|_| _ = cluster.failed(index, now));
    }
    assert!(cluster.servers().iter().all(|server| !server.may_be_picked(now)));
    picks_at(&cluster, now);
}

fn picks_at(cluster: &Cluster, now: Instant) -> usize {
    cluster.pick(&permit(), &mut Tried::default(), now).unwrap().index
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
