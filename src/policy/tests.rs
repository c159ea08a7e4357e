//! Every row of the table of refusals, and what relaxes them, each with the smallest request that shows it.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::config;

const GOOD: &str = "GET /ws HTTP/1.1\nHost: a.example\nUpgrade: websocket\nConnection: Upgrade\n\
                    Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";

/// A permit for tests of what demands one.
pub fn permit() -> Permit {
    let speaks = crate::dialect::Dialect::Rfc6455;
    Permit { route: 0, asked: Some(Asked::Known(speaks)), speaks: Some(speaks) }
}

fn policy(route: &str) -> Policy {
    let text = format!(
        "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:1'\n[[listener]]\nname = 'other'\nlisten = '127.0.0.1:2'\n\
         [[upstream]]\nname = 'u'\nversions = [13, 8, 7]\nservers = ['127.0.0.1:3']\n\
         [[route]]\nname = 'r'\nupstream = 'u'\n{route}\n"
    );
    let config = config::parse("test", &text, NonZeroUsize::MIN)
        .unwrap_or_else(|problems| panic!("{}", problems.render(config::Look::Plain)));
    Policy::new(&config)
}

/// What becomes of the good request with these lines in place of those of the same name. `-Name` leaves a line out.
fn decide(route: &str, changes: &[&str]) -> Result<Vec<Reason>, Reason> {
    let name_of = |line: &str| line.split(':').next().unwrap_or_default().trim_start_matches('-').to_ascii_lowercase();
    let changed: Vec<String> = changes.iter().map(|line| name_of(line)).collect();
    let mut lines: Vec<&str> = GOOD.lines().filter(|line| !changed.contains(&name_of(line))).collect();
    lines.extend(changes.iter().filter(|line| !line.starts_with('-')));
    if let Some(at) = lines.iter().position(|line| line.contains(" HTTP/1.") && !line.starts_with("GET /ws HTTP/1.1")) {
        lines[0] = lines.remove(at);
    }
    decide_head(&policy(route), 0, &(lines.join("\n") + "\n\n"))
}

fn decide_head(policy: &Policy, listener: usize, head: &str) -> Result<Vec<Reason>, Reason> {
    let bytes = head.replace('\n', "\r\n");
    let head = Head::parse(bytes.as_bytes()).unwrap_or_else(|error| panic!("{error:?} in {bytes:?}"));
    let decision = policy.decide(listener, &head);
    decision.verdict.map(|_| decision.noted)
}

fn check(route: &str, changes: &[&str], expected: Result<&[Reason], Reason>) {
    assert_eq!(decide(route, changes), expected.map(<[Reason]>::to_vec), "{route:?} {changes:?}");
}

fn refuses(changes: &[&str], reason: Reason) {
    check("", changes, Err(reason));
}

#[test]
fn a_good_upgrade_passes() {
    check("", &[], Ok(&[]));
    check("", &["Connection: keep-alive, upgrade"], Ok(&[]));
    check("", &["Connection: keep-alive", "connection: Upgrade"], Ok(&[]));
    check("", &["Upgrade: WebSocket"], Ok(&[]));
}

#[test]
fn every_row_of_the_table_refuses_for_its_own_reason() {
    refuses(&["Sec-WebSocket-Version: 8"], Reason::VersionUnsupported);
    refuses(&["Sec-WebSocket-Version: 99"], Reason::VersionUnsupported);
    refuses(
        &["-Sec-WebSocket-Version", "-Sec-WebSocket-Key", "Sec-WebSocket-Key1: 1 2", "Sec-WebSocket-Key2: 3 4"],
        Reason::VersionUnsupported,
    );
    refuses(&["-Sec-WebSocket-Version"], Reason::VersionMissing);
    for malformed in ["", " 013", " +13", " 13.0", " 256", " thirteen", " 13, 8"] {
        refuses(&[&format!("Sec-WebSocket-Version:{malformed}")], Reason::VersionMalformed);
    }
    refuses(&["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"], Reason::VersionMalformed);
    refuses(&["POST /ws HTTP/1.1"], Reason::MethodNotGet);
    refuses(&["GET /ws HTTP/1.0"], Reason::HttpVersionTooOld);
    refuses(&["Content-Length: 5"], Reason::BodyOnUpgrade);
    refuses(&["Transfer-Encoding: chunked"], Reason::BodyOnUpgrade);
    refuses(&["-Connection"], Reason::ConnectionTokenMissing);
    refuses(&["Connection: keep-alive, not-upgrade"], Reason::ConnectionTokenMissing);
    refuses(&["-Upgrade"], Reason::UpgradeTokenMissing);
    refuses(&["Upgrade: h2c"], Reason::UpgradeTokenMissing);
    refuses(&["Upgrade: websocket, h2c"], Reason::UpgradeTokenAmbiguous);
    refuses(&["Upgrade: websocket", "Upgrade: websocket"], Reason::UpgradeTokenAmbiguous);
    refuses(&["Connection: Upgrade, Sec-WebSocket-Key"], Reason::HeaderNominated);
    refuses(&["Connection: Upgrade, X-Forwarded-For"], Reason::HeaderNominated);
    refuses(&["-Sec-WebSocket-Key"], Reason::KeyMissing);
    refuses(&["Sec-WebSocket-Key: short"], Reason::KeyMalformed);
    refuses(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key1: 1 2"], Reason::KeyMalformed);
    refuses(&["Sec-WebSocket-Protocol: a b"], Reason::SubprotocolRefused);
    refuses(&["Sec-WebSocket-Extensions: ; x"], Reason::ExtensionRefused);
}

#[test]
fn a_host_missing_from_http_1_0_is_its_own_reason_once_the_version_is_relaxed() {
    let relaxed = "[route.handshake]\nrelax = ['http-version-too-old']";
    check(relaxed, &["GET /ws HTTP/1.0", "-Host"], Err(Reason::HostMissing));
    check(relaxed, &["GET /ws HTTP/1.0"], Ok(&[Reason::HttpVersionTooOld]));
}

#[test]
fn a_client_of_another_version_learns_the_list_before_anything_of_its_key_is_judged() {
    refuses(&["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: short"], Reason::VersionUnsupported);
}

#[test]
fn origins_are_compared_by_scheme_host_and_port() {
    let route = "[route.handshake]\norigins = ['https://a.example', 'https://*.b.example']";
    for welcome in ["https://a.example", "https://x.b.example"] {
        check(route, &[&format!("Origin: {welcome}")], Ok(&[]));
    }
    for stranger in
        ["http://a.example", "https://a.example:8443", "https://b.example", "null", "https://a.example.evil"]
    {
        check(route, &[&format!("Origin: {stranger}")], Err(Reason::OriginRefused));
    }
    check(route, &[], Err(Reason::OriginRefused));
    check(route, &["Origin: https://a.example", "Origin: https://a.example"], Err(Reason::OriginRefused));
    check(route, &["Sec-WebSocket-Origin: https://a.example"], Err(Reason::OriginRefused));
    let older = format!("[route.versions]\naccept = [13, 8]\n{route}");
    check(&older, &["Sec-WebSocket-Version: 8", "Sec-WebSocket-Origin: https://a.example"], Ok(&[]));
}

#[test]
fn subprotocols_and_extensions_follow_the_route() {
    let chat = "[route.handshake]\nsubprotocols = ['chat.v2', 'chat.v1']";
    check(chat, &[], Ok(&[]));
    check(chat, &["Sec-WebSocket-Protocol: other, chat.v1"], Ok(&[]));
    check(chat, &["Sec-WebSocket-Protocol: other"], Err(Reason::SubprotocolRefused));
    let offer = ["Sec-WebSocket-Extensions: permessage-deflate"];
    check("[route.handshake]\nextensions = 'pass'", &offer, Ok(&[]));
    check("[route.handshake]\nextensions = 'strip'", &offer, Ok(&[]));
    check("[route.handshake]\nextensions = 'refuse'", &offer, Err(Reason::ExtensionRefused));
    check("[route.handshake]\nextensions = 'refuse'", &[], Ok(&[]));
}

#[test]
fn observe_mode_lets_every_version_through_and_notes_it() {
    let observe = "[route.versions]\nmode = 'observe'";
    check(observe, &["Sec-WebSocket-Version: 8"], Ok(&[Reason::VersionUnsupported]));
    check(observe, &["-Sec-WebSocket-Version"], Ok(&[Reason::VersionMissing]));
    check(observe, &["Sec-WebSocket-Version: 13, 8"], Ok(&[Reason::VersionMalformed]));
    check(observe, &["Sec-WebSocket-Key: short"], Err(Reason::KeyMalformed));
    let keys = ["-Sec-WebSocket-Version", "-Sec-WebSocket-Key", "Sec-WebSocket-Key1: 1 2", "Sec-WebSocket-Key2: 3 4"];
    check(observe, &keys, Ok(&[Reason::VersionUnsupported]));
}

#[test]
fn a_relaxed_check_is_noted_and_passes() {
    for (change, reason) in [
        ("POST /ws HTTP/1.1", Reason::MethodNotGet),
        ("GET /ws HTTP/1.0", Reason::HttpVersionTooOld),
        ("-Connection", Reason::ConnectionTokenMissing),
        ("-Upgrade", Reason::UpgradeTokenMissing),
        ("Upgrade: websocket, h2c", Reason::UpgradeTokenAmbiguous),
        ("Connection: Upgrade, Sec-WebSocket-Key", Reason::HeaderNominated),
        ("-Sec-WebSocket-Key", Reason::KeyMissing),
        ("Sec-WebSocket-Key: short", Reason::KeyMalformed),
        ("Sec-WebSocket-Protocol: a b", Reason::SubprotocolRefused),
        ("Sec-WebSocket-Extensions: ; x", Reason::ExtensionRefused),
    ] {
        check("", &[change], Err(reason));
        check(&format!("[route.handshake]\nrelax = ['{reason}']"), &[change], Ok(&[reason]));
    }
}

#[test]
fn a_body_on_an_upgrade_and_a_version_cannot_be_relaxed() {
    for reason in [Reason::BodyOnUpgrade, Reason::HostMissing, Reason::VersionUnsupported] {
        assert!(config::model::Check::ALL.iter().all(|check| check.name() != reason.code()));
    }
}

#[test]
fn the_first_route_that_matches_listener_host_and_path_decides() {
    let policy = policy(
        "listeners = ['public']\nhosts = ['a.example']\npaths = ['/ws']\n[route.versions]\naccept = [8]\n\
         [[route]]\nname = 'rest'\nupstream = 'u'\nlisteners = ['public']",
    );
    let route = |listener: usize, host: &str, path: &str| {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        policy.decide(listener, &Head::parse(bytes.as_bytes()).unwrap()).route
    };
    assert_eq!(route(0, "a.example", "/ws"), Some(0));
    assert_eq!(route(0, "A.example:8080", "/ws/room?x=1"), Some(0));
    assert_eq!(route(0, "a.example", "/wsx"), Some(1));
    assert_eq!(route(0, "b.example", "/ws"), Some(1));
    assert_eq!(route(1, "a.example", "/ws"), None);
}

#[test]
fn a_request_without_a_route_is_refused_for_that() {
    let policy = policy("hosts = ['b.example']");
    assert_eq!(decide_head(&policy, 0, &format!("{GOOD}\n")), Err(Reason::NoRoute));
}

#[test]
fn plain_requests_pass_where_the_route_forwards_them() {
    let plain = "GET /ws HTTP/1.1\nHost: a.example\nUpgrade: h2c\n\n";
    assert_eq!(decide_head(&policy(""), 0, plain), Ok(vec![]));
    assert_eq!(decide_head(&policy("plain_http = 'refuse'"), 0, plain), Err(Reason::PlainHttpRefused));
}

#[test]
fn a_refusal_tells_the_routes_list_in_its_own_order() {
    let policy = policy("[route.versions]\naccept = [8, 13]");
    let bytes = GOOD.replace("Version: 13", "Version: 7").replace('\n', "\r\n") + "\r\n";
    let decision = policy.decide(0, &Head::parse(bytes.as_bytes()).unwrap());
    let told = |reason| policy.advertised(&decision, reason).and_then(VersionList::numbers);
    assert_eq!(told(Reason::VersionUnsupported), Some("8, 13"));
    assert_eq!(told(Reason::KeyMissing), None);
}

proptest! {
    #[test]
    fn no_field_values_make_it_panic(values in proptest::collection::vec("[ -~]{0,40}", 5)) {
        let fields = ["Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Origin"];
        let lines: String = fields.iter().zip(&values).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        if let Ok(head) = Head::parse(bytes.as_bytes()) {
            let _ = policy("").decide(0, &head);
        }
    }
}
