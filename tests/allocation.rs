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
use wsgate::bridge::{Binary, Terms};
use wsgate::config::model::AccessLog as Target;
use wsgate::generation::RouteHandle;
use wsgate::lifecycle::Lifecycle;
use wsgate::limits::Slots;
use wsgate::observe::event::{Opened, Request, RequestId};
use wsgate::observe::{AccessLog, Metrics, Observer};
use wsgate::reason::Reason;
use wsgate::relay::{Account, Early, Held, Relay, Talk};
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
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

fn note(size: usize) {
    LARGEST.set(LARGEST.get().max(size));
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/frame_reader");
    inputs.extend(fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()));
    assert!(inputs.len() > 30, "found only {} inputs", inputs.len());
    inputs
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
            connection: slots.take().unwrap(),
            route: slots.take().unwrap(),
            server: TunnelSlot::of(&slots),
            gauge: observer.opened(&opened()),
            membership,
            alive: Lifecycle::default().work(),
        },
    };
    let session = Session::new(Arc::clone(rules), Speech::Frames(Reserved::None), 7, now);
    let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    Relay::new(client, backend, Early::default(), Talk { session, bridge: None }, account, timer)
}

fn opened() -> Opened<'static> {
    let client = "192.0.2.1:1".parse().unwrap();
    let request = Request {
        id: RequestId(1),
        listener: "l",
        route: Some("r"),
        client,
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
        server: client,
        spoken: "13",
        subprotocol: None,
        extensions: None,
        handshake: Duration::ZERO,
        would_refuse: &[],
    }
}
