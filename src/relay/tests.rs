//! The relay over in-memory streams: what passes, what waits, how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::bridge::{Binary, Terms};
use crate::config::model::AccessLog as Target;
use crate::dialect::Dialect;
use crate::generation::RouteHandle;
use crate::lifecycle::Lifecycle;
use crate::limits::{ClientSlots, PerClient, Slots};
use crate::observe::event::{Opened, Request, RequestId};
use crate::observe::{AccessLog, Metrics, Observer};
use crate::roster::Roster;
use crate::tunnel::{Frames, PingRules, Rules, Speech};
use crate::upstream::TunnelSlot;
use crate::wire::Reserved;

/// A tunnel between two in-memory pipes, and the metrics it counts in.
struct Bench {
    client: DuplexStream,
    backend: DuplexStream,
    relay: JoinHandle<()>,
    observer: Arc<Observer>,
    slots: Slots,
    roster: Roster,
}

fn rules() -> Rules {
    Rules {
        frames: Frames::Track,
        idle_timeout: None,
        ping: None,
        max_age: None,
        close_timeout: Duration::from_secs(5),
        max_frame_bytes: None,
        max_message_bytes: None,
    }
}

impl Bench {
    fn new(early: Early, idle_timeout: Option<Duration>) -> Bench {
        Bench::with(early, Rules { idle_timeout, ..rules() })
    }

    fn with(early: Early, rules: Rules) -> Bench {
        Bench::speaking(early, rules, Speech::Frames(Reserved::None))
    }

    fn speaking(early: Early, rules: Rules, speech: Speech) -> Bench {
        let metrics = Arc::new(Metrics::new());
        let log = AccessLog::open(&Target::Off, metrics.access_log_dropped.clone()).unwrap();
        let observer = Arc::new(Observer::new(Arc::clone(&metrics), log));
        let slots = Slots::new(None);
        let (rules, roster) = (Arc::new(rules), Roster::default());
        let route = RouteHandle {
            name: "r".to_owned(),
            tunnels: slots.clone(),
            per_client: PerClient { tunnels: ClientSlots::new("r", None, None), handshakes: None },
            roster: roster.clone(),
            rules: Arc::clone(&rules),
            bridged_rules: Arc::clone(&rules),
            terms: Terms { binary: Binary::Refuse, message_bytes_max: 1 << 20 },
            metrics: metrics.route("r"),
        };
        let now = now();
        let account = Account {
            id: RequestId(1),
            opened_at: now,
            route: Arc::new(route),
            observer: Arc::clone(&observer),
            held: Held {
                connection: slots.take().map(Into::into),
                route: slots.take().unwrap().into(),
                server: TunnelSlot::of(&slots),
                gauge: observer.opened(&opened()),
                membership: roster.join(),
                alive: Lifecycle::default().work(),
            },
        };
        let (client, near_client) = duplex(1024);
        let (backend, near_backend) = duplex(1024);
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let terms = Terms { binary: Binary::Refuse, message_bytes_max: 1 << 20 };
        let bridge = match speech {
            Speech::Bridged { client, backend } => Some(Box::new(Bridge::between(client, backend, terms, 7))),
            Speech::Frames(_) | Speech::Opaque => None,
        };
        let talk = Talk { session: Session::new(rules, speech, 7, now), bridge, parting: Parting::BySocket };
        let relay = Relay::new(near_client, near_backend, early, talk, account, timer);
        Bench { client, backend, relay: tokio::spawn(relay), observer, slots, roster }
    }

    fn count(&self, line: &str) -> bool {
        let (_, text) = crate::observe::exposition::render(self.observer.metrics(), None);
        String::from_utf8(text).unwrap().lines().any(|found| found == line)
    }

    /// Waits for the end and checks who is said to have begun it, and that everything was given back.
    async fn ends(self, by: &str) {
        self.ends_with(by, "none").await;
    }

    async fn ends_with(self, by: &str, code: &str) {
        let Bench { relay, observer, slots, .. } = self;
        relay.await.unwrap();
        let (_, text) = crate::observe::exposition::render(observer.metrics(), None);
        let text = String::from_utf8(text).unwrap();
        let line = format!("wsgate_tunnel_closes_total{{by=\"{by}\",code=\"{code}\",route=\"r\"}} 1");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        assert!(text.contains("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"} 0"), "{text}");
        assert_eq!(slots.used(), 0);
    }
}

static SERVER: std::sync::LazyLock<crate::address::Address> =
    std::sync::LazyLock::new(|| "192.0.2.1:1".parse().unwrap());

fn opened() -> Opened<'static> {
    let client: std::net::SocketAddr = "192.0.2.1:1".parse().unwrap();
    let request = Request {
        id: RequestId(1),
        listener: "l",
        route: Some("r"),
        client: client.into(),
        peer: client.into(),
        http: "1.1",
        client_certificate: None,
        method: "GET",
        host: None,
        path: "/",
        origin: None,
        user_agent: None,
        asked: Some("13"),
    };
    Opened {
        request,
        upstream: "u",
        server: &SERVER,
        spoken: "13",
        subprotocol: None,
        extensions: None,
        handshake: Duration::ZERO,
        would_refuse: &[],
    }
}

async fn read(stream: &mut DuplexStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted_while_it_lives() {
    let mut bench = Bench::new(Early::default(), None);
    bench.client.write_all(b"question").await.unwrap();
    read(&mut bench.backend, b"question").await;
    bench.backend.write_all(b"answer").await.unwrap();
    read(&mut bench.client, b"answer").await;
    assert!(bench.count("wsgate_tunnel_bytes_total{direction=\"to_backend\",route=\"r\"} 8"));
    assert!(bench.count("wsgate_tunnel_bytes_total{direction=\"to_client\",route=\"r\"} 6"));
}

#[tokio::test]
async fn early_bytes_of_both_sides_come_first() {
    let early = Early { from_client: b"early ".to_vec(), from_backend: b"first ".to_vec() };
    let mut bench = Bench::new(early, None);
    bench.client.write_all(b"late").await.unwrap();
    bench.backend.write_all(b"second").await.unwrap();
    read(&mut bench.backend, b"early late").await;
    read(&mut bench.client, b"first second").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_can_still_send() {
    let mut bench = Bench::new(Early::default(), None);
    let flood = vec![7; 1 << 20];
    let (mut from_backend, mut to_backend) = tokio::io::split(bench.backend);
    let flooding = tokio::spawn(async move {
        to_backend.write_all(&flood).await.unwrap();
        to_backend
    });
    bench.client.write_all(b"STOP").await.unwrap();
    let mut stop = [0; 4];
    from_backend.read_exact(&mut stop).await.unwrap();
    assert_eq!(&stop, b"STOP");
    let mut flooded = vec![0; 1 << 20];
    bench.client.read_exact(&mut flooded).await.unwrap();
    assert!(flooded.iter().all(|&byte| byte == 7));
    flooding.await.unwrap();
}

#[tokio::test]
async fn late_data_after_a_half_close_arrives() {
    let mut bench = Bench::new(Early::default(), None);
    bench.client.write_all(b"last words").await.unwrap();
    bench.client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    bench.backend.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    bench.backend.write_all(b"late answer").await.unwrap();
    bench.backend.shutdown().await.unwrap();
    let mut answer = Vec::new();
    bench.client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"late answer");
    bench.ends("client").await;
}

#[tokio::test]
async fn the_side_that_finishes_first_is_named() {
    let mut bench = Bench::new(Early::default(), None);
    bench.backend.shutdown().await.unwrap();
    let mut nothing = Vec::new();
    bench.client.read_to_end(&mut nothing).await.unwrap();
    bench.client.shutdown().await.unwrap();
    bench.ends("backend").await;
}

#[tokio::test(start_paused = true)]
async fn a_still_tunnel_ends_at_its_idle_timeout_and_a_busy_one_does_not() {
    let idle = Duration::from_secs(60);
    let mut bench = Bench::new(Early::default(), Some(idle));
    for _ in 0..3 {
        tokio::time::sleep(idle * 2 / 3).await;
        bench.client.write_all(b"x").await.unwrap();
        read(&mut bench.backend, b"x").await;
        assert!(!bench.relay.is_finished());
    }
    let still_since = tokio::time::Instant::now();
    (&mut bench.relay).await.unwrap();
    assert_eq!(still_since.elapsed(), idle);
    assert!(bench.count("wsgate_tunnel_closes_total{by=\"gateway\",code=\"none\",route=\"r\"} 1"));
    assert_eq!(bench.slots.used(), 0);
}

#[tokio::test]
async fn the_last_words_of_a_side_that_is_gone_arrive() {
    let mut bench = Bench::new(Early::default(), None);
    bench.backend.write_all(b"BYE").await.unwrap();
    drop(bench.backend);
    // More than the pipe holds, so the relay has to take it for this to end.
    bench.client.write_all(&[7; 64 * 1024]).await.unwrap();
    let mut heard = Vec::new();
    bench.client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"BYE");
    bench.client.shutdown().await.unwrap();
    bench.relay.await.unwrap();
}

fn text(payload: &[u8]) -> Vec<u8> {
    [&[0x81, u8::try_from(payload.len()).unwrap()], payload].concat()
}

fn masked_text(payload: &[u8]) -> Vec<u8> {
    [&[0x81, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
}

/// Reads one frame of at most 125 bytes and takes its mask away.
async fn read_frame(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut start = [0; 2];
    stream.read_exact(&mut start).await.unwrap();
    let mut key = [0; 4];
    if start[1] & 0x80 != 0 {
        stream.read_exact(&mut key).await.unwrap();
    }
    let mut payload = vec![0; usize::from(start[1] & 0x7F)];
    stream.read_exact(&mut payload).await.unwrap();
    crate::wire::mask(&mut payload, key, 0);
    (start[0], payload)
}

#[tokio::test]
async fn messages_are_counted_by_kind_while_the_tunnel_lives() {
    let mut bench = Bench::new(Early::default(), None);
    bench.client.write_all(&masked_text(b"one")).await.unwrap();
    read(&mut bench.backend, &masked_text(b"one")).await;
    bench.backend.write_all(&text(b"two")).await.unwrap();
    read(&mut bench.client, &text(b"two")).await;
    for direction in ["to_backend", "to_client"] {
        let line = format!("wsgate_tunnel_messages_total{{direction=\"{direction}\",kind=\"text\",route=\"r\"}} 1");
        assert!(bench.count(&line), "{line}");
    }
}

#[tokio::test]
async fn a_tunnel_that_is_asked_to_end_closes_both_sides_once_and_is_gone_when_they_answer() {
    let mut bench = Bench::new(Early::default(), None);
    // Begun, and not finished before it is asked.
    bench.client.write_all(&masked_text(b"half")[..8]).await.unwrap();
    read(&mut bench.backend, &masked_text(b"half")[..8]).await;
    for member in bench.roster.close(Reason::Drained) {
        member.ask_to_end(Reason::Drained);
    }
    assert_eq!(read_frame(&mut bench.client).await, (0x88, b"\x03\xE9drained".to_vec()));
    bench.client.write_all(&masked_text(b"half")[8..]).await.unwrap();
    read(&mut bench.backend, &masked_text(b"half")[8..]).await;
    assert_eq!(read_frame(&mut bench.backend).await, (0x88, b"\x03\xE9drained".to_vec()));
    bench.client.write_all(b"\x88\x82\0\0\0\0\x03\xE9").await.unwrap();
    let mut nothing = Vec::new();
    bench.client.read_to_end(&mut nothing).await.unwrap();
    bench.backend.write_all(b"\x88\x02\x03\xE9").await.unwrap();
    bench.backend.shutdown().await.unwrap();
    bench.backend.read_to_end(&mut nothing).await.unwrap();
    assert_eq!(nothing, b"");
    bench.ends_with("operator", "1001").await;
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_through_a_bridge_is_a_sign_of_life() {
    let ping = PingRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
    let speech = Speech::Bridged { client: Dialect::Hybi8, backend: Dialect::Rfc6455 };
    let mut bench = Bench::speaking(Early::default(), Rules { ping: Some(ping), ..rules() }, speech);
    for byte in b"\x89\x81\0\0" {
        tokio::time::sleep(Duration::from_secs(25)).await;
        bench.client.write_all(&[*byte]).await.unwrap();
        bench.backend.write_all(b"\x81\0").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(!bench.relay.is_finished());
    drop(bench.client);
    bench.backend.shutdown().await.unwrap();
    bench.relay.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pings_go_out_on_both_sides_and_their_pongs_stay_here() {
    let ping = PingRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
    let mut bench = Bench::with(Early::default(), Rules { ping: Some(ping), ..rules() });
    let (opcode, payload) = read_frame(&mut bench.client).await;
    assert_eq!((opcode, payload.len()), (0x89, 8));
    bench.client.write_all(&[b"\x8A\x88\0\0\0\0", &payload[..], &masked_text(b"x")].concat()).await.unwrap();
    let (opcode, payload) = read_frame(&mut bench.backend).await;
    assert_eq!(opcode, 0x89);
    bench.backend.write_all(&[b"\x8A\x08", &payload[..]].concat()).await.unwrap();
    read(&mut bench.backend, &masked_text(b"x")).await;
    for side in ["backend", "client"] {
        assert!(bench.count(&format!("wsgate_pings_total{{side=\"{side}\"}} 1")));
    }
    // Nobody answers the next ones.
    bench.relay.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up_together_with_what_waits_for_it() {
    let ping = PingRules { interval: Duration::from_millis(50), timeout: Duration::from_millis(50) };
    let mut bench = Bench::with(Early::default(), Rules { ping: Some(ping), ..rules() });
    // Far more than the pipe holds, and nobody reads it.
    bench.backend.write_all(&[&[0x82, 0x7E, 0x40, 0x00], &[7; 0x4000][..]].concat()).await.unwrap();
    let mut heard = Vec::new();
    bench.backend.read_to_end(&mut heard).await.unwrap();
    assert!(heard.windows(2).any(|bytes| bytes[0] == 0x88), "the backend hears a Close: {heard:?}");
    drop(bench.backend);
    bench.relay.await.unwrap();
    assert_eq!(bench.slots.used(), 0);
}

/// With what the runtime adds, a task is rounded up to 128 bytes, so a field more may cost as much.
#[test]
fn a_tunnel_is_small() {
    let bytes = size_of::<Relay<crate::stream::Stream, crate::stream::Stream>>();
    assert!(bytes <= 544, "{bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn what_was_held_back_passes_when_the_other_side_makes_the_tunnel_blind() {
    let mut bench = Bench::new(Early::default(), Some(Duration::from_secs(60)));
    // The beginning of a frame, as far as anybody can tell.
    bench.client.write_all(b"\x81").await.unwrap();
    bench.backend.write_all(&text(b"a border")).await.unwrap();
    read(&mut bench.client, &text(b"a border")).await;
    bench.backend.write_all(b"\x83no frame").await.unwrap();
    read(&mut bench.client, b"\x83no frame").await;
    read(&mut bench.backend, b"\x81").await;
}
