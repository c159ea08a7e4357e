//! Servers behind names, in front of a real name server: names that move, answers that stay away, and tunnels that know
//! nothing of it.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::backend::Backend;
use crate::harness::{Gateway, PATIENCE, status, upgrade};
use crate::name_server::NameServer;
use crate::reload::{echo, is_reloaded};
use crate::stage::SLACK;

/// What an answer of the name server holds for, and the most by which a wait is longer.
const TTL: Duration = Duration::from_millis(1100);

/// One upstream `u` of these names, asked of this name server.
fn file(server: SocketAddr, dns: &str, names: &str, upstream: &str) -> String {
    format!(
        "[admin]\nlisten = '127.0.0.1:0'\n[log]\nformat = 'json'\nlevel = 'debug'\n[dns]\nservers = ['{server}']\n{dns}\n\
         [[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\n[[route]]\nname = 'r'\nupstream = 'u'\n\
         [[upstream]]\nname = 'u'\nservers = [{names}]\n{upstream}\n"
    )
}

fn gateway(name_server: &NameServer, dns: &str, names: &str, upstream: &str) -> Gateway {
    Gateway::start_from(&file(name_server.address(), dns, names, upstream))
}

fn reload(gateway: &Gateway, text: &str) {
    std::fs::write(gateway.path(), text).unwrap();
    let before = gateway.count_logged(is_reloaded);
    gateway.signal(Signal::HUP);
    gateway.wait_for_nth_log(before + 1, is_reloaded);
}

fn port(backend: &Backend) -> u16 {
    backend.address().port()
}

fn tunnels_to(server: SocketAddr) -> String {
    format!("wsgate_backend_tunnels{{server=\"{server}\",upstream=\"u\"}}")
}

fn servers_of(name: &str) -> String {
    format!("wsgate_discovery_servers{{name=\"{name}\",upstream=\"u\"}}")
}

fn lookups(name: &str, result: &str) -> String {
    format!("wsgate_discovery_lookups_total{{name=\"{name}\",result=\"{result}\",upstream=\"u\"}}")
}

/// Waits until name servers were asked once more with this result.
fn wait_for_another(gateway: &Gateway, name: &str, result: &str) {
    let before = gateway.metric(&lookups(name, result));
    wait_until(|| gateway.metric(&lookups(name, result)) > before + 0.5, "another lookup");
}

fn wait_until(holds: impl Fn() -> bool, what: &str) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn status_of(gateway: &Gateway) -> u16 {
    status(&gateway.ask(upgrade("Connection: close\r\n")))
}

fn open(gateway: &Gateway, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| gateway.open().0).collect()
}

#[test]
fn a_name_that_moves_takes_new_tunnels_along_and_leaves_open_ones() {
    let [old, new] = Backend::echoes(["127.0.0.2", "127.0.0.3"]);
    let names = NameServer::start("127.0.0.2 app.test", "");
    let name = format!("app.test:{}", port(&old));
    let gateway = gateway(&names, "", &format!("'{name}'"), "");
    let (mut before, _) = gateway.open();
    assert_eq!((old.connections(), new.connections()), (1, 0));

    let moved = Instant::now();
    names.change("127.0.0.3 app.test");
    gateway.wait_for_metric(&format!("wsgate_backend_up{{server=\"{}\",upstream=\"u\"}}", new.address()), 1.0);
    assert!(moved.elapsed() < TTL + SLACK, "after {:?}", moved.elapsed());
    let changed = gateway.wait_for_nth_log(2, |line| line["message"] == "servers changed by name");
    assert_eq!(
        (&changed["added"], &changed["removed"]),
        (&new.address().to_string().into(), &old.address().to_string().into())
    );
    let mut after = open(&gateway, 3);
    assert_eq!((old.connections(), new.connections()), (1, 3));
    echo(&mut before, b"where it always was");
    echo(&mut after[0], b"where the name is now");

    // It is shown for as long as somebody is there, and it comes back with its count.
    gateway.wait_for_metric(&tunnels_to(old.address()), 1.0);
    names.change("127.0.0.2 app.test\n127.0.0.3 app.test");
    gateway.wait_for_metric(&servers_of(&name), 2.0);
    assert!((gateway.metric(&tunnels_to(old.address())) - 1.0).abs() < 0.1);
    names.change("127.0.0.3 app.test");
    gateway.wait_for_metric(&servers_of(&name), 1.0);
    drop(before);
    wait_until(|| !gateway.admin("/metrics", "").1.contains(&old.address().to_string()), "the end of its series");
}

#[test]
fn tunnels_are_spread_over_the_addresses_of_a_name() {
    let [one, two] = Backend::echoes(["127.0.0.2", "127.0.0.3"]);
    let names = NameServer::start("127.0.0.2 app.test\n127.0.0.3 app.test", "");
    let server = format!("{{ address = 'app.test:{}', max_tunnels = 4 }}", port(&one));
    let gateway = gateway(&names, "", &server, "");
    let tunnels = open(&gateway, 8);
    assert_eq!((one.connections(), two.connections()), (4, 4));
    // What the configuration says of the name holds for each address.
    assert_eq!(status_of(&gateway), 503);
    drop(tunnels);
}

#[test]
fn turns_go_on_while_answers_stay_the_same() {
    let [one, two] = Backend::echoes(["127.0.0.2", "127.0.0.3"]);
    let names = NameServer::start("127.0.0.2 app.test\n127.0.0.3 app.test", "");
    let name = format!("app.test:{}", port(&one));
    let gateway =
        gateway(&names, "min_ttl = '100ms'\nmax_ttl = '100ms'", &format!("'{name}'"), "balance = 'round-robin'");
    for _ in 0..4 {
        drop(gateway.open());
        wait_for_another(&gateway, &name, "success");
    }
    assert_eq!((one.connections(), two.connections()), (2, 2));
}

#[test]
fn an_address_of_version_6_is_one_too() {
    let [backend] = Backend::echoes(["::1"]);
    let names = NameServer::start("::1 app.test", "");
    let gateway = gateway(&names, "", &format!("'app.test:{}'", port(&backend)), "");
    echo(&mut gateway.open().0, b"six");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_service_has_ports_weights_and_priorities() {
    let [heavy] = Backend::echoes(["127.0.0.2"]);
    let [light] = Backend::echoes(["127.0.0.3"]);
    let [spare] = Backend::echoes(["127.0.0.4"]);
    let hosts = "127.0.0.2 heavy.test\n127.0.0.3 light.test\n127.0.0.4 spare.test";
    let record = |host: &str, backend: &Backend, priority: u16, weight: u16| {
        format!("srv-host=_ws._tcp.app.test,{host}.test,{},{priority},{weight}\n", port(backend))
    };
    let spare_record = record("spare", &spare, 20, 1);
    let all = record("heavy", &heavy, 10, 3) + &record("light", &light, 10, 1) + &spare_record;
    let mut names = NameServer::start(hosts, &all);
    let gateway = gateway(&names, "", "'srv:_ws._tcp.app.test'", "");
    let tunnels = open(&gateway, 8);
    assert_eq!((heavy.connections(), light.connections(), spare.connections()), (6, 2, 0));

    // Whoever is of a lower priority is there once the others are gone: first their addresses, then their records.
    names.change("127.0.0.4 spare.test");
    let spare_is_up = format!("wsgate_backend_up{{server=\"{}\",upstream=\"u\"}}", spare.address());
    gateway.wait_for_metric(&spare_is_up, 1.0);
    drop(open(&gateway, 2));
    assert_eq!((heavy.connections(), light.connections(), spare.connections()), (6, 2, 2));
    names.stop();
    names.begin(hosts, &all);
    gateway.wait_for_metric(&servers_of("srv:_ws._tcp.app.test"), 2.0);
    names.stop();
    names.begin(hosts, &spare_record);
    gateway.wait_for_metric(&servers_of("srv:_ws._tcp.app.test"), 1.0);
    drop(open(&gateway, 1));
    assert_eq!(spare.connections(), 3);
    drop(tunnels);
}

#[test]
fn the_last_answer_is_kept_while_the_name_server_is_gone_or_silent() {
    let [one, two] = Backend::echoes(["127.0.0.2", "127.0.0.3"]);
    let mut names = NameServer::start("127.0.0.2 app.test", "");
    let name = format!("app.test:{}", port(&one));
    let gateway = gateway(&names, "timeout = '200ms'\nattempts = 1\nempty_after = '0s'", &format!("'{name}'"), "");
    let is_failing = |line: &Value| line["message"] == "name servers fail, what is known is kept";
    names.stop();
    wait_for_another(&gateway, &name, "failure");
    drop(open(&gateway, 2));
    names.begin("127.0.0.2 app.test", "");
    gateway.wait_for_message("name servers answer again");
    names.freeze();
    wait_for_another(&gateway, &name, "failure");
    wait_for_another(&gateway, &name, "failure");
    drop(open(&gateway, 2));
    assert_eq!(one.connections(), 4);
    // Said once each time, however often they are asked.
    assert_eq!(gateway.count_logged(is_failing), 2);
    names.thaw();
    names.change("127.0.0.3 app.test");
    wait_until(
        || {
            drop(gateway.open());
            two.connections() > 0
        },
        "a tunnel to where the name is now",
    );
}

#[test]
fn a_start_without_a_name_server_serves_as_soon_as_there_is_one() {
    let [backend] = Backend::echoes(["127.0.0.2"]);
    let mut names = NameServer::absent();
    let name = format!("app.test:{}", port(&backend));
    let gateway = gateway(&names, "timeout = '200ms'\nattempts = 1", &format!("'{name}'"), "");
    assert_eq!(gateway.admin("/readyz", "").0, 200);
    assert_eq!(status_of(&gateway), 503);
    gateway.wait_for_access(|line| line["event"] == "refused" && line["reason"] == "backend-unavailable");
    let last_success = format!("wsgate_discovery_last_success_timestamp_seconds{{name=\"{name}\",upstream=\"u\"}}");
    assert!(gateway.metric(&last_success).abs() < 0.1);
    names.begin("127.0.0.2 app.test", "");
    gateway.wait_for_metric(&servers_of(&name), 1.0);
    drop(gateway.open());
    assert!(gateway.metric(&last_success) > 1.0e9);
    let upstream = &gateway.status()["upstreams"][0];
    assert_eq!((&upstream["names"][0]["name"], &upstream["names"][0]["servers"]), (&name.into(), &1.into()));
    assert_eq!(upstream["servers"][0]["address"], backend.address().to_string());
}

#[test]
fn the_first_handshake_finds_its_server() {
    let [backend] = Backend::echoes(["127.0.0.2"]);
    let names = NameServer::start("127.0.0.2 app.test", "");
    for _ in 0..3 {
        let gateway = gateway(&names, "", &format!("'app.test:{}'", port(&backend)), "");
        drop(gateway.open());
    }
}

#[test]
fn a_reload_keeps_what_is_known_and_asks_for_what_is_new_before_it_is_in_force() {
    let [one, two] = Backend::echoes(["127.0.0.2", "127.0.0.3"]);
    let mut names = NameServer::start("127.0.0.2 app.test\n127.0.0.3 other.test", "");
    let text = |name: &str, upstream: &str| {
        let dns = "timeout = '200ms'\nattempts = 1";
        file(names.address(), dns, &format!("'{name}.test:{}'", port(&one)), upstream)
    };
    let (first, second, third) = (text("app", ""), text("other", ""), text("other", "tries = 3"));
    let gateway = Gateway::start_from(&first);
    let (mut open, _) = gateway.open();
    reload(&gateway, &second);
    drop(gateway.open());
    assert_eq!((one.connections(), two.connections()), (1, 1));
    echo(&mut open, b"of a name that nobody knows any more");
    wait_until(|| !gateway.admin("/metrics", "").1.contains("name=\"app.test"), "the end of its series");
    names.stop();
    reload(&gateway, &third);
    drop(gateway.open());
    assert_eq!(two.connections(), 2);
    echo(&mut open, b"still");
}

#[test]
fn other_name_servers_are_asked_at_once() {
    let [one, two] = Backend::echoes(["127.0.0.2", "127.0.0.3"]);
    let (old, new) = (NameServer::start("127.0.0.2 app.test", ""), NameServer::start("127.0.0.3 app.test", ""));
    let text = |server: &NameServer| {
        file(server.address(), "min_ttl = '1h'\nmax_ttl = '1h'", &format!("'app.test:{}'", port(&one)), "")
    };
    let gateway = Gateway::start_from(&text(&old));
    drop(gateway.open());
    reload(&gateway, &text(&new));
    gateway.wait_for_metric(&format!("wsgate_backend_up{{server=\"{}\",upstream=\"u\"}}", two.address()), 1.0);
    drop(gateway.open());
    assert_eq!((one.connections(), two.connections()), (1, 1));
}

#[test]
fn a_name_that_is_gone_keeps_its_servers_for_a_while() {
    let [backend] = Backend::echoes(["127.0.0.2"]);
    let names = NameServer::start("127.0.0.2 app.test", "");
    let name = format!("app.test:{}", port(&backend));
    let gateway = gateway(&names, "empty_after = '2s'", &format!("'{name}'"), "");
    let (mut tunnel, _) = gateway.open();
    names.change("");
    wait_for_another(&gateway, &name, "empty");
    let gone = Instant::now();
    drop(gateway.open());
    gateway.wait_for_metric(&servers_of(&name), 0.0);
    assert!(gone.elapsed() > Duration::from_secs(1) && gone.elapsed() < Duration::from_secs(3) + SLACK);
    assert_eq!(status_of(&gateway), 503);
    echo(&mut tunnel, b"nobody asked me");
    names.change("127.0.0.2 app.test");
    gateway.wait_for_metric(&servers_of(&name), 1.0);
    drop(gateway.open());
}

#[test]
fn a_headless_service_is_found_by_its_short_name() {
    let [one, two] = Backend::echoes(["127.0.0.2", "127.0.0.3"]);
    let service = "app.chat.svc.cluster.test";
    let names = NameServer::start(&format!("127.0.0.2 {service}"), "");
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    let search = "search chat.svc.cluster.test svc.cluster.test cluster.test\noptions ndots:5\n";
    std::fs::write(&resolv_conf, format!("nameserver 192.0.2.1\n{search}")).unwrap();
    let dns = format!("resolv_conf = '{}'\nempty_after = '0s'", resolv_conf.display());
    let name = format!("app:{}", port(&one));
    let gateway = gateway(&names, &dns, &format!("'{name}'"), "");
    drop(gateway.open());
    // A second pod is ready, then the first is not, then none is.
    names.change(&format!("127.0.0.2 {service}\n127.0.0.3 {service}"));
    gateway.wait_for_metric(&servers_of(&name), 2.0);
    names.change(&format!("127.0.0.3 {service}"));
    gateway.wait_for_metric(&servers_of(&name), 1.0);
    drop(open(&gateway, 2));
    assert_eq!((one.connections(), two.connections()), (1, 2));
    names.change("");
    gateway.wait_for_metric(&servers_of(&name), 0.0);
    assert_eq!(status_of(&gateway), 503);
}

#[test]
fn this_machine_is_known_without_a_name_server() {
    let backend = Backend::echo();
    let names = NameServer::absent();
    let gateway = gateway(&names, "", &format!("'localhost:{}'", port(&backend)), "");
    drop(open(&gateway, 3));
    assert_eq!(backend.connections(), 3);
}

#[test]
fn an_answer_too_long_for_a_datagram_is_asked_for_again_over_tcp() {
    let [backend] = Backend::echoes(["127.0.0.2"]);
    let hosts: Vec<String> = (2..202).map(|last| format!("127.0.0.{last} app.test")).collect();
    let names = NameServer::start(&hosts.join("\n"), "");
    let name = format!("app.test:{}", port(&backend));
    let gateway = gateway(&names, "", &format!("'{name}'"), "");
    gateway.wait_for_metric(&servers_of(&name), 200.0);
}
