//! How much memory a peer can make a tunnel ask for at once: what it says of its own size is never believed. The only
//! file of the package with unsafe code, for an allocator that counts.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use wsgate::bridge::{Binary, Bridge, Terms};
use wsgate::config::model::AccessLog as Target;
use wsgate::dialect::Dialect;
use wsgate::generation::RouteHandle;
use wsgate::lifecycle::Lifecycle;
use wsgate::limits::{ClientSlots, PerClient, Slots};
use wsgate::observe::event::{Opened, Request, RequestId};
use wsgate::observe::{AccessLog, Metrics, Observer};
use wsgate::reason::Reason;
use wsgate::relay::{Account, Early, Held, Parting, Relay, Talk};
use wsgate::roster::Roster;
use wsgate::tunnel::{Frames, PingRules, Rules, Session, Side, Speech};
use wsgate::upstream::TunnelSlot;
use wsgate::wire::{CONTROL_FRAME_MAX, Reserved};

/// What a relay reads at once, and so may have to keep.
const SCRATCH_BYTES: usize = 128 * 1024;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// The largest request of this thread since it was last set to 0.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    /// The requests of this thread.
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// What this thread asked for and has not given back; it may give back what others asked for.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on as it came; the cell of a thread is neither allocated nor dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        give_back(layout.size());
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        give_back(layout.size());
        unsafe { System.dealloc(memory, layout) }
    }
}

fn note(size: usize) {
    LARGEST.set(LARGEST.get().max(size));
    COUNT.set(COUNT.get() + 1);
    HELD.set(HELD.get().wrapping_add_unsigned(size));
}

fn give_back(size: usize) {
    HELD.set(HELD.get().wrapping_sub_unsigned(size));
}

/// The largest allocation that `act` asked for.
fn largest<T>(act: impl FnOnce() -> T) -> usize {
    LARGEST.set(0);
    act();
    LARGEST.get()
}

/// Bytes of one side: lengths that nobody could hold, frames that never end, and whatever a fuzzer found.
fn hostile() -> Vec<Vec<u8>> {
    let mut inputs = vec![
        b"\x82\x7F\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF".to_vec(),
        b"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0".to_vec(),
        b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0".to_vec(),
        b"\x02\x7F\x40\0\0\0\0\0\0\0".to_vec(),
        b"\x89\xFD\0\0\0\0".to_vec(),
        b"\x88\x7D".to_vec(),
        b"\x8A\xFE\xFF\xFF".to_vec(),
        [&b"\x82\xFE\xFF\xFF\0\0\0\0"[..], &[0x88; 300_000]].concat(),
        [&b"\x82\x7F\0\0\0\0\0\x10\0\0"[..], &[0x88; 1_100_000]].concat(),
        b"\x89\x80\0\0\0\0".repeat(50_000),
        [b"\x01\x80\0\0\0\0".to_vec(), b"\x00\x80\0\0\0\0".repeat(50_000)].concat(),
    ];
    inputs.extend(corpus("frame_reader"));
    inputs
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let inputs: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() > 30, "found only {} inputs", inputs.len());
    inputs
}

/// As `hostile`, of a side without frames.
fn hostile_texts() -> Vec<Vec<u8>> {
    let mut inputs = vec![
        [&b"\0"[..], &[b'A'; 1_100_000]].concat(),
        [&b"\x01"[..], &[b'A'; 1_100_000]].concat(),
        [&b"\x80"[..], &[0xFF; 8], b"\x7F"].concat(),
        [&b"\x80"[..], &[0x80; 100_000]].concat(),
        b"\0A".repeat(500_000),
        b"\0\xFF".repeat(500_000),
        b"\0YWJj\xFF".repeat(200_000),
    ];
    inputs.extend(corpus("hixie_reader"));
    inputs
}

const TERMS: [Terms; 2] = [
    Terms { binary: Binary::Refuse, message_bytes_max: 1000 },
    Terms { binary: Binary::Base64, message_bytes_max: 1000 },
];

/// Every bridge there may be.
fn bridges(terms: Terms) -> Vec<(Dialect, Dialect, Box<Bridge>)> {
    let pairs = Dialect::ALL.iter().flat_map(|client| Dialect::ALL.map(|backend| (*client, backend)));
    pairs.map(|(client, backend)| (client, backend, Box::new(Bridge::between(client, backend, terms, 7)))).collect()
}

/// A text as a side sends it.
fn text_of(dialect: Dialect, is_client: bool, bytes: u8) -> Vec<u8> {
    let payload = vec![b'A'; usize::from(bytes)];
    match (dialect.has_frames(), is_client) {
        (true, true) => [&[0x81, 0x80 | bytes, 0, 0, 0, 0][..], &payload].concat(),
        (true, false) => [&[0x81, bytes][..], &payload].concat(),
        (false, _) => [&b"\0"[..], &payload, b"\xFF"].concat(),
    }
}

#[test]
fn a_port_asks_for_no_more_than_its_limit_whatever_it_is_told() {
    let mut out = Vec::with_capacity(8 << 20);
    let mut most = (0, 0);
    for input in hostile().into_iter().chain(hostile_texts()) {
        for (terms, step) in TERMS.into_iter().flat_map(|terms| [(terms, 100), (terms, 1 << 20)]) {
            // Each version at each side.
            for (client, backend, mut bridge) in bridges(terms).into_iter().skip(1).step_by(3) {
                let before = HELD.get();
                let asked_for = largest(|| {
                    for piece in input.chunks(step) {
                        for port in [&mut bridge.client, &mut bridge.backend] {
                            out.clear();
                            // What it cannot read may end it.
                            let _ = port.decode(piece, &mut out);
                            out.clear();
                            let _ = port.encode(piece, &mut out);
                        }
                        most.1 = most.1.max(HELD.get() - before);
                    }
                });
                most.0 = most.0.max(asked_for);
                // Base64 is a third more, and what grows piece by piece doubles.
                let limit = terms.message_bytes_max.div_ceil(3) * 4 * 2;
                assert!(asked_for <= limit, "{client} to {backend}: {asked_for} bytes at once");
                assert!(most.1 <= 4 * limit as isize, "{client} to {backend}: {} bytes", most.1);
            }
        }
    }
    println!("at most {} bytes at once, {} held by two ports", most.0, most.1);
    assert!(most.0 >= 1000, "nothing was ever collected: {most:?}");
}

#[test]
fn a_bridge_at_rest_holds_little() {
    let mut out = Vec::with_capacity(1 << 20);
    for (from, to, fresh) in bridges(TERMS[0]) {
        drop(fresh);
        let before = HELD.get();
        let mut bridge = Box::new(Bridge::between(from, to, TERMS[0], 7));
        let new = HELD.get() - before;
        for bytes in [64, 125] {
            out.clear();
            bridge.client.decode(&text_of(from, true, bytes), &mut out).unwrap();
            let frames = std::mem::take(&mut out);
            out.reserve(1 << 20);
            bridge.backend.encode(&frames, &mut out).unwrap();
        }
        out = Vec::with_capacity(1 << 20);
        let used = HELD.get() - before;
        println!("{from} to {to}: {new} bytes, {used} after messages");
        assert!(new <= 640 && used <= 1024, "{from} to {to}: {new}, {used}");
    }
}

#[test]
fn a_message_through_a_bridge_asks_for_nothing() {
    let (mut frames, mut out) = (Vec::with_capacity(1024), Vec::with_capacity(1024));
    for (client, backend, mut bridge) in bridges(TERMS[0]) {
        for (is_client, from) in [(true, client), (false, backend)] {
            let (reader, writer) = if is_client {
                (&mut bridge.client, &mut bridge.backend)
            } else {
                (&mut bridge.backend, &mut bridge.client)
            };
            let text = text_of(from, is_client, 64);
            // The first one makes what the port keeps.
            for is_first in [true, false, false] {
                frames.clear();
                out.clear();
                let before = COUNT.get();
                assert_eq!(reader.decode(&text, &mut frames), Ok(text.len()));
                assert_eq!(writer.encode(&frames, &mut out), Ok(()));
                let asked = COUNT.get() - before;
                assert!(asked <= if is_first { 2 } else { 0 }, "{client} and {backend}: {asked} times");
                assert!(out.len() >= 64);
            }
        }
    }
}

fn every_rules() -> Vec<Arc<Rules>> {
    let limits = [None, Some(125), Some(16 << 30)];
    let frames = [Frames::Track, Frames::Enforce, Frames::Blind];
    let rules = |frames, limit| Rules {
        frames,
        idle_timeout: Some(Duration::from_secs(60)),
        ping: Some(PingRules { interval: Duration::from_secs(1), timeout: Duration::from_secs(5) }),
        max_age: None,
        close_timeout: Duration::from_secs(1),
        max_frame_bytes: limit,
        max_message_bytes: limit,
    };
    frames.iter().flat_map(|frames| limits.map(|limit| Arc::new(rules(*frames, limit)))).collect()
}

#[test]
fn a_session_allocates_nothing_whatever_it_is_told() {
    let now = Instant::now();
    for rules in every_rules() {
        for input in hostile() {
            for from in Side::BOTH {
                let mut session = Session::new(Arc::clone(&rules), Speech::Frames(Reserved::None), 0, now);
                let asked_for = largest(|| {
                    let mut bytes = &input[..];
                    for seconds in 0.. {
                        let now = now + Duration::from_secs(seconds);
                        let taken = session.handle_bytes(from, bytes, now);
                        bytes = &bytes[taken.forward + taken.skip..];
                        let has_own = Side::BOTH.map(|side| session.poll_frame(side, now).is_some());
                        session.handle_time(now);
                        if taken.forward + taken.skip == 0 && has_own == [false; 2] {
                            break;
                        }
                    }
                    session.handle_end(from, now);
                    session.end(Reason::Drained, now);
                });
                assert_eq!(asked_for, 0, "{rules:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_asks_for_no_more_than_one_read_at_once() {
    // The first one of a thread makes what it reads into.
    largest_of_tunnel(&every_rules()[0], Side::Client, b"").await;
    let mut most = 0;
    for rules in every_rules() {
        for input in hostile() {
            for from in Side::BOTH {
                most = most.max(largest_of_tunnel(&rules, from, &input).await);
            }
        }
    }
    assert!(most > SCRATCH_BYTES / 2, "nothing was ever kept: {most}");
    assert!(most <= SCRATCH_BYTES + 2 * CONTROL_FRAME_MAX, "{most} bytes at once");
}

/// The largest allocation of a tunnel one side of which sends `bytes`, much at once, while the other takes little.
async fn largest_of_tunnel(rules: &Arc<Rules>, from: Side, bytes: &[u8]) -> usize {
    let pipes = Side::BOTH.map(|side| duplex(if side == from { SCRATCH_BYTES } else { 1024 }));
    let [(client, near_client), (backend, near_backend)] = pipes;
    let (speaker, hearer) = if from == Side::Client { (client, backend) } else { (backend, client) };
    let mut relay = Box::pin(relay(rules, near_client, near_backend));
    let relayed = async move {
        let mut most = 0;
        let polled = poll_fn(|cx| {
            LARGEST.set(0);
            let polled = relay.as_mut().poll(cx);
            most = most.max(LARGEST.get());
            polled
        });
        polled.await;
        // Its ends of the pipes go with it, which is what the others wait for.
        drop(relay);
        most
    };
    tokio::join!(relayed, speak(speaker, bytes), hear(hearer)).0
}

async fn speak(mut stream: DuplexStream, bytes: &[u8]) {
    // The tunnel may end amid it.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    hear(stream).await;
}

async fn hear(mut stream: DuplexStream) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

fn relay(rules: &Arc<Rules>, client: DuplexStream, backend: DuplexStream) -> Relay<DuplexStream, DuplexStream> {
    let metrics = Arc::new(Metrics::new());
    let log = AccessLog::open(&Target::Off, metrics.access_log_dropped.clone()).unwrap();
    let observer = Arc::new(Observer::new(Arc::clone(&metrics), log));
    let (slots, roster) = (Slots::new(None), Roster::default());
    let membership = roster.join();
    let route = RouteHandle {
        name: "r".to_owned(),
        tunnels: slots.clone(),
        per_client: PerClient { tunnels: ClientSlots::new("r", None, None), handshakes: None },
        roster,
        rules: Arc::clone(rules),
        bridged_rules: Arc::clone(rules),
        terms: Terms { binary: Binary::Refuse, message_bytes_max: 1 << 20 },
        metrics: metrics.route("r"),
    };
    let now = tokio::time::Instant::now().into_std();
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
            membership,
            alive: Lifecycle::default().work(),
        },
    };
    let session = Session::new(Arc::clone(rules), Speech::Frames(Reserved::None), 7, now);
    let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    Relay::new(
        client,
        backend,
        Early::default(),
        Talk { session, bridge: None, parting: Parting::BySocket },
        account,
        timer,
    )
}

static SERVER: std::sync::LazyLock<wsgate::address::Address> =
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
