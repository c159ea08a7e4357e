//! HTTP/2 by prior knowledge: WebSockets on streams (RFC 8441) and plain requests, beside HTTP/1.1 on the same port.

use http::Request;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, read_answer, read_head, status, upgrade};
use crate::http2_client::{A_MOMENT, Client, Tunnel, connect, echo, frame, patient, send_all, switch};

/// A gateway that serves HTTP/2, in front of one backend.
fn gateway(backend: &Backend, route: &str) -> Gateway {
    gateway_with("", "", backend, route)
}

fn gateway_with(gateway: &str, listener: &str, backend: &Backend, route: &str) -> Gateway {
    Gateway::start_with(gateway, &format!("http2 = true\n{listener}"), &route_to(&[backend.address()], "", route))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_on_a_stream_echoes_and_closes() {
    let backend = echo("Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\nSec-WebSocket-Version: 13\r\n");
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    let more =
        [("sec-websocket-protocol", "chat"), ("cookie", "a=1"), ("cookie", "b=2"), ("origin", "http://o.example")];
    let mut tunnel = client.open(&more).await;
    let names: Vec<&str> = tunnel.hearing.head.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["sec-websocket-protocol", "set-cookie"]);
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        tunnel.echoes(&vec![7; length]).await;
    }
    tunnel.say(0x88, &1000u16.to_be_bytes()).await;
    assert_eq!(tunnel.hearing.hear().await, (0x88, vec![0x03, 0xE8]));
    tunnel.send.send_data("".into(), true).unwrap();
    assert_eq!(tunnel.hearing.end().await, None);
    let head = backend.recorded();
    for line in [
        "GET /ws HTTP/1.1\r\n",
        "Host: a.example\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Sec-WebSocket-Version: 13\r\n",
        "Sec-WebSocket-Protocol: chat\r\n",
        "Cookie: a=1; b=2\r\n",
        "Origin: http://o.example\r\n",
        "X-Forwarded-Proto: http\r\n",
    ] {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    let opened = gateway.wait_for_access(|line| line["event"] == "opened");
    assert_eq!(
        (&opened["http"], &opened["version"], &opened["subprotocol"]),
        (&"2".into(), &"13".into(), &"chat".into())
    );
    let closed = gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!((&closed["reason"], &closed["client_code"]), (&"client-closed".into(), &1000.into()), "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_are_served_on_one_port() {
    let backend = echo("");
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    client.open(&[]).await.echoes(b"over 2").await;
    let mut old = gateway.connect();
    std::io::Write::write_all(&mut old, upgrade("").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut old)), 101);
    gateway.wait_for_metric("wsgate_http2_connections{listener=\"public\"}", 1.0);
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 2.0);
    drop(client);
    gateway.wait_for_metric("wsgate_http2_connections{listener=\"public\"}", 0.0);
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_without_it_takes_the_preface_for_a_broken_head() {
    let gateway = Gateway::start(&route_to(&[Backend::nobody()], "", ""));
    let mut client = gateway.connect();
    std::io::Write::write_all(&mut client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_eq!(status(&read_answer(&mut client)), 400);
}

/// What a request lacks, what the client gets, and what the log calls it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_their_status_and_the_list_of_versions() {
    let backend = echo("");
    let route = "paths = ['/ws']\nversions.accept = [13, 8]\nhandshake = { origins = ['https://good.example'], \
                 subprotocols = ['chat'], extensions = 'refuse' }\nplain_http = 'refuse'";
    let gateway = gateway(&backend, route);
    let client = Client::connect(gateway.address()).await;
    let good = ("origin", "https://good.example");
    for (more, status, reason, list) in [
        (&[good, ("sec-websocket-version", "7")][..], 400, "version-unsupported", true),
        (&[good, ("sec-websocket-version", "")], 400, "version-missing", true),
        (&[good, ("sec-websocket-version", "x")], 400, "version-malformed", true),
        (&[good, ("sec-websocket-version", "0")], 400, "version-unsupported", true),
        (&[good, ("sec-websocket-version", "5")], 400, "version-obsolete", true),
        (&[("origin", "https://bad.example")], 403, "origin-refused", false),
        (&[good, ("sec-websocket-protocol", "other")], 400, "subprotocol-refused", false),
        (&[good, ("sec-websocket-extensions", "permessage-deflate")], 400, "extension-refused", false),
        (&[good, ("content-length", "5")], 400, "body-on-upgrade", false),
        (&[good, ("host", "other.example")], 400, "host-missing", false),
    ] {
        let answer = client.try_open(more).await.err().unwrap();
        assert_eq!(answer.status, status, "{reason}: {answer:?}");
        let listed = answer.head.get("sec-websocket-version").map(|list| list.to_str().unwrap());
        assert_eq!(listed, list.then_some("13, 8"), "{reason}");
        for forbidden in ["connection", "upgrade", "transfer-encoding"] {
            assert!(!answer.head.contains_key(forbidden), "{reason}: {answer:?}");
        }
        let line = gateway.wait_for_access(|line| line["reason"] == reason);
        assert_eq!((&line["status"], &line["http"]), (&status.into(), &"2".into()), "{line}");
    }
    let plain = client.ask(Request::get("http://a.example/ws"), None).await;
    assert_eq!((plain.status, &plain.head["sec-websocket-version"]), (400, &"13, 8".parse().unwrap()));
    let elsewhere = client.ask(Request::get("http://a.example/else"), None).await;
    assert_eq!(elsewhere.status, 404);
    let attempt = Request::get("http://a.example/ws").header("sec-websocket-version", "13");
    assert_eq!(client.ask(attempt, None).await.status, 400);
    gateway.wait_for_access(|line| line["reason"] == "upgrade-token-missing");
    assert_eq!(backend.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_opens_websockets_and_nothing_else() {
    let backend = echo("");
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    for request in [
        connect("connect-udp", &[]),
        connect("websockets", &[]),
        Request::builder().method("CONNECT").uri("a.example:443").body(()).unwrap(),
    ] {
        let (response, _send) = client.send(request, false).await;
        assert_eq!(patient(response).await.unwrap().status().as_u16(), 501);
    }
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"connect-refused\",route=\"-\"}", 3.0);
    client.open(&[]).await.echoes(b"still here").await;
    assert_eq!(backend.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_version_passes_and_is_counted() {
    let backend = echo("");
    let gateway = gateway(&backend, "versions = { accept = [8], mode = 'observe' }");
    let client = Client::connect(gateway.address()).await;
    client.open(&[]).await.echoes(b"x").await;
    gateway.wait_for_metric("wsgate_would_refuse_total{reason=\"version-unsupported\",route=\"r\"}", 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_bridged_to_a_server_of_another_version() {
    let backend = Backend::start(|mut served| {
        let head = switch(&mut served, "");
        assert!(
            head.contains("Sec-WebSocket-Version: 8\r\n") && head.contains("Sec-WebSocket-Origin: http://o"),
            "{head}"
        );
        let mut bytes = [0; 6 + 5];
        std::io::Read::read_exact(&mut served.stream, &mut bytes).unwrap();
        served.send(b"\x81\x05hello");
        served.until_end();
    });
    let route = route_to(&[backend.address()], "versions = [8]", "");
    let gateway = Gateway::start_with("", "http2 = true", &route);
    let client = Client::connect(gateway.address()).await;
    let mut tunnel = client.open(&[("origin", "http://o")]).await;
    tunnel.say(0x81, b"hello").await;
    assert_eq!(tunnel.hearing.hear().await, (0x81, b"hello".to_vec()));
    let opened = gateway.wait_for_access(|line| line["event"] == "opened");
    assert_eq!((&opened["version"], &opened["backend_version"]), (&"13".into(), &"8".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backends_refusal_is_relayed_with_its_body() {
    for (answer, status, body) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Mine: 1\r\nConnection: close\r\n\r\nno", 403, "no"),
        (
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nnot\r\n5\r\n here\r\n0\r\n\r\n",
            404,
            "not here",
        ),
        ("HTTP/1.0 500 Oh\r\n\r\nuntil the end", 500, "until the end"),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Basic\r\n\r\n", 401, ""),
    ] {
        let backend = Backend::answering(answer);
        let gateway = gateway(&backend, "");
        let client = Client::connect(gateway.address()).await;
        let answer = client.try_open(&[]).await.err().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, body));
        assert!(!answer.head.contains_key("connection"));
        gateway.wait_for_access(|line| line["reason"] == "backend-refused" && line["status"] == status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_not_there_is_503() {
    let gateway = Gateway::start_with("", "http2 = true", &route_to(&[Backend::nobody()], "", ""));
    let client = Client::connect(gateway.address()).await;
    let answer = client.try_open(&[]).await.err().unwrap();
    assert_eq!((answer.status, &answer.head["retry-after"]), (503, &"5".parse().unwrap()));
    let plain = client.ask(Request::get("http://a.example/"), None).await;
    assert_eq!(plain.status, 503);
}

/// Answers every request with what it got.
fn mirror() -> Backend {
    Backend::start(|mut served| {
        let head = served.head();
        let lower = head.to_ascii_lowercase();
        let mut body = Vec::new();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if lower.contains("transfer-encoding: chunked") {
            while !body.ends_with(b"0\r\n\r\n") {
                let mut piece = [0; 4096];
                let read = std::io::Read::read(&mut served.stream, &mut piece).unwrap();
                body.extend_from_slice(&piece[..read]);
            }
        } else if let Some(length) = length {
            body = vec![0; length];
            std::io::Read::read_exact(&mut served.stream, &mut body).unwrap();
        }
        let start = if head.starts_with("HEAD") { 0 } else { body.len() };
        served
            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nKeep-Alive: 5\r\nX-Mine: yes\r\n\r\n", body.len()));
        served.send(&body[..start]);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_requests_go_through_with_their_bodies() {
    let backend = mirror();
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    let uri = "http://a.example/page?x=1";
    let answer = client.ask(Request::get(uri), None).await;
    assert_eq!((answer.status, answer.body.as_str(), &answer.head["x-mine"]), (200, "", &"yes".parse().unwrap()));
    assert!(!answer.head.contains_key("keep-alive") && !answer.head.contains_key("connection"), "{answer:?}");
    let answer = client.ask(Request::post(uri).header("content-length", "5"), Some(b"hello")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    let answer = client.ask(Request::post(uri), Some(b"hello")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "5\r\nhello\r\n0\r\n\r\n"));
    let answer = client.ask(Request::head(uri), None).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let large = vec![b'x'; 3 << 20];
    let answer = client.ask(Request::put(uri).header("content-length", large.len()), Some(&large)).await;
    assert_eq!((answer.status, answer.body.len()), (200, large.len()));
    let head = backend.recorded();
    assert!(head.contains("GET /page?x=1 HTTP/1.1\r\n") && !head.to_ascii_lowercase().contains("upgrade"), "{head}");
    let line = gateway.wait_for_access(|line| line["event"] == "request" && line["method"] == "POST");
    assert_eq!((&line["http"], &line["status"], &line["path"]), (&"2".into(), &200.into(), &"/page".into()), "{line}");
    gateway.wait_for_metric("wsgate_http_requests_total{route=\"r\",status=\"200\"}", 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_may_finish_first() {
    let backend = Backend::start(|mut served| {
        switch(&mut served, "");
        served.send(b"\x81\x02hi");
        served.until_end();
        served.send(b"\x81\x03bye");
    });
    let gateway = gateway(&backend, "tunnel.frames = 'blind'");
    let client = Client::connect(gateway.address()).await;
    let mut tunnel = client.open(&[]).await;
    assert_eq!(tunnel.hearing.hear().await, (0x81, b"hi".to_vec()));
    tunnel.send.send_data("".into(), true).unwrap();
    assert_eq!(tunnel.hearing.hear().await, (0x81, b"bye".to_vec()));
    assert_eq!(tunnel.hearing.end().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_by_the_client_ends_its_tunnel_alone() {
    let backend = echo("");
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    let (mut tunnel, mut other) = (client.open(&[]).await, client.open(&[]).await);
    tunnel.send.send_reset(h2::Reason::CANCEL);
    let closed = gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!(closed["reason"], "client-lost", "{closed}");
    other.echoes(b"still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_vanishes_is_told_with_1011() {
    let backend = Backend::start(|mut served| {
        switch(&mut served, "");
        socket2::SockRef::from(&served.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    let gateway = gateway(&backend, "[route.tunnel]\nclose_timeout = '300ms'");
    let client = Client::connect(gateway.address()).await;
    let mut tunnel = client.open(&[]).await;
    let (first, payload) = tunnel.hearing.hear().await;
    assert_eq!((first, &payload[..2]), (0x88, &1011u16.to_be_bytes()[..]));
    // It is not answered, so the stream ends by the gateway's own doing.
    let ended = tunnel.hearing.end().await;
    assert!(matches!(ended, None | Some(h2::Reason::CANCEL | h2::Reason::NO_ERROR)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tunnels_on_ten_connections_echo() {
    let backend = echo("");
    let gateway = gateway(&backend, "");
    let mut connections = Vec::new();
    for _ in 0..10 {
        let client = Client::connect(gateway.address()).await;
        let opening = (0..100).map(|_| client.open(&[]));
        let tunnels = futures_util::future::join_all(opening).await;
        connections.push((client, tunnels));
    }
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1000.0);
    gateway.wait_for_metric("wsgate_http2_connections{listener=\"public\"}", 10.0);
    for payload in [[1; 100], [2; 100], [3; 100]] {
        let all = connections.iter_mut().flat_map(|(_, tunnels)| tunnels.iter_mut());
        futures_util::future::join_all(all.map(|tunnel| tunnel.echoes(&payload))).await;
    }
    // The 101st waits until the client itself gives one up.
    let (client, tunnels) = &mut connections[0];
    let waiting = tokio::time::timeout(A_MOMENT, client.open(&[])).await;
    assert!(waiting.is_err(), "more streams than announced");
    tunnels.pop();
    client.open(&[]).await.echoes(b"in its place").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_tunnels_hold_for_streams() {
    let backend = echo("");
    let gateway = gateway(&backend, "[route.limits]\ntunnels = 2");
    let client = Client::connect(gateway.address()).await;
    let tunnels = [client.open(&[]).await, client.open(&[]).await];
    let answer = client.try_open(&[]).await.err().unwrap();
    assert_eq!(answer.status, 503);
    gateway.wait_for_access(|line| line["reason"] == "limit-tunnels");
    drop(tunnels);
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 0.0);
    client.open(&[]).await.echoes(b"again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_one_of_those_that_a_listener_allows() {
    let backend = echo("");
    let gateway = gateway_with("", "max_connections = 1", &backend, "");
    let client = Client::connect(gateway.address()).await;
    let _tunnels = [client.open(&[]).await, client.open(&[]).await];
    let mut second = gateway.connect();
    assert_eq!(status(&read_answer(&mut second)), 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_turned_away_is_told_in_its_own_protocol() {
    let backend = echo("");
    for (limit, reason) in
        [("max_connections = 1", "limit-connections"), ("connections_per_client = 1", "limit-client-connections")]
    {
        let gateway = gateway_with("", limit, &backend, "");
        let client = Client::connect(gateway.address()).await;
        let mut tunnel = client.open(&[]).await;
        let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (_requests, connection) = h2::client::handshake(socket).await.unwrap();
        let error = patient(connection).await.unwrap_err();
        assert!(error.is_go_away() && error.is_remote(), "{limit}: {error:?}");
        assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{limit}");
        let refused = gateway.wait_for_access(|line| line["reason"] == reason);
        assert_eq!(refused["http"], "2", "{refused}");
        let mut old = gateway.connect();
        std::io::Write::write_all(&mut old, upgrade("").as_bytes()).unwrap();
        assert!(read_answer(&mut old).starts_with("HTTP/1.1 "), "{limit}");
        tunnel.echoes(b"all the while").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_streams_may_end_at_once() {
    let backend = echo("");
    let gateway = gateway_with("", "http2_streams = 3000", &backend, "");
    let client = Client::connect(gateway.address()).await;
    let mut tunnel = client.open(&[]).await;
    // Each ends with an empty DATA.
    let asking = (0..1300).map(|_| client.ask(Request::builder().uri("http://a.example/"), Some(b"")));
    futures_util::future::join_all(asking).await;
    tunnel.echoes(b"and one goes on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_nobody_uses_is_let_go() {
    let backend = echo("");
    let gateway = gateway_with("", "keepalive_timeout = '300ms'\nheader_timeout = '300ms'", &backend, "");
    let client = Client::connect(gateway.address()).await;
    let mut tunnel = client.open(&[]).await;
    tokio::time::sleep(A_MOMENT * 3).await;
    tunnel.echoes(b"an open stream keeps it").await;
    drop(tunnel);
    patient(client.connection).await.unwrap().unwrap();
    // One that stops in the middle of its preface is let go too.
    let mut halted = gateway.connect();
    std::io::Write::write_all(&mut halted, b"PRI * HTTP/2.0\r\n\r\nSM").unwrap();
    crate::harness::read_to_end(&mut halted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_ten_mebibytes_pass_both_ways() {
    let backend = echo("");
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    let mut tunnel = client.open(&[]).await;
    let message = vec![9; 10 << 20];
    // It is heard while it is said, or each side would wait for the other.
    let said = frame(0x82, &message);
    let Tunnel { send, hearing } = &mut tunnel;
    let ((), (first, echoed)) = tokio::join!(send_all(send, &said), hearing.hear());
    assert!(first == 0x82 && echoed == message);
}

/// Sends and never stops, once it has switched.
fn torrent() -> Backend {
    Backend::start(|mut served| {
        switch(&mut served, "");
        let message = [&b"\x82\x7e\xff\xff"[..], &[7; 0xFFFF]].concat();
        while std::io::Write::write_all(&mut served.stream, &message).is_ok() {}
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_a_stream_slows_no_other_and_fills_no_memory() {
    let (backend, flood) = (echo(""), torrent());
    let route = format!(
        "{}\n[[upstream]]\nname = 'flood'\nservers = ['{}']\n[[route]]\nname = 'flood'\npaths = ['/flood']\nupstream = 'flood'",
        route_to(&[backend.address()], "", "paths = ['/ws']"),
        flood.address()
    );
    let gateway = Gateway::start_with("", "http2 = true", &route);
    let mut builder = h2::client::Builder::new();
    let client = Client::connect_with(gateway.address(), builder.initial_connection_window_size(16 << 20)).await;
    let mut tunnel = client.open(&[]).await;
    tunnel.echoes(b"first").await;
    let before = gateway.resident_kib();
    let mut unread = Vec::new();
    for _ in 0..50 {
        let mut request = connect("websocket", &[]);
        *request.uri_mut() = "http://a.example/flood".parse().unwrap();
        let (response, send) = client.send(request, false).await;
        unread.push((patient(response).await.unwrap(), send));
    }
    let start = std::time::Instant::now();
    for round in 0..200u8 {
        tunnel.echoes(&[round; 64]).await;
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?} for 200 echoes", start.elapsed());
    let each = (gateway.resident_kib() - before) / 50;
    // A window that is in the client's hands, one that waits in h2, and what one read of the backend came to.
    assert!(each < 64 + 128 + 64, "{each} KiB for each stream that nobody reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_does_not_read_stops_its_own_stream_alone() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let backend = Backend::start(move |mut served| {
        switch(&mut served, "");
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            socket2::SockRef::from(&served.stream).set_recv_buffer_size(4096).unwrap();
            // Until the test is over.
            std::thread::sleep(crate::harness::PATIENCE);
        }
        let mut piece = [0; 6 + 64];
        while std::io::Read::read_exact(&mut served.stream, &mut piece).is_ok() {
            served.send([&b"\x82\x40"[..], &piece[6..]].concat());
        }
    });
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    let mut stuck = client.open(&[]).await;
    let mut other = client.open(&[]).await;
    let before = gateway.resident_kib();
    let message = frame(0x82, &vec![1; 64 << 20]);
    let stuffed = tokio::time::timeout(A_MOMENT * 5, send_all(&mut stuck.send, &message)).await;
    assert!(stuffed.is_err(), "all of it was taken");
    for round in 0..200u8 {
        other.echoes(&[round; 64]).await;
    }
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB for one window");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_goaway_and_closes_each_stream() {
    let backend = echo("");
    let drain = "[gateway.drain]\nspread = '0s'\ntimeout = '20s'";
    let mut gateway = gateway_with(drain, "", &backend, "");
    let client = Client::connect(gateway.address()).await;
    let idle = Client::connect(gateway.address()).await;
    let mut tunnels = [client.open(&[]).await, client.open(&[]).await, client.open(&[]).await];
    gateway.signal(rustix::process::Signal::TERM);
    for tunnel in &mut tunnels {
        assert_eq!(tunnel.hearing.hear().await, (0x88, b"\x03\xE9drained".to_vec()));
        tunnel.say(0x88, &1001u16.to_be_bytes()).await;
    }
    for tunnel in &mut tunnels {
        let ended = tunnel.hearing.end().await;
        assert!(matches!(ended, None | Some(h2::Reason::NO_ERROR)), "{ended:?}");
    }
    drop(tunnels);
    patient(client.connection).await.unwrap().unwrap();
    patient(idle.connection).await.unwrap().unwrap();
    assert_eq!(gateway.wait(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_leaves_connections_alone_and_holds_for_new_ones() {
    let backend = echo("");
    let gateway = gateway(&backend, "");
    let client = Client::connect(gateway.address()).await;
    let mut tunnel = client.open(&[]).await;
    let text = std::fs::read_to_string(gateway.path()).unwrap();
    std::fs::write(gateway.path(), text.replace("http2 = true", "http2 = false")).unwrap();
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait_for_log(|line| line["message"].as_str().is_some_and(|message| message.contains("configuration")));
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        let mut stream = gateway.connect();
        std::io::Write::write_all(&mut stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut first = [0; 5];
        std::io::Read::read_exact(&mut stream, &mut first).unwrap();
        if &first == b"HTTP/" {
            break;
        }
        assert!(std::time::Instant::now() < until, "it is still served");
    }
    tunnel.echoes(b"as before").await;
    client.open(&[]).await.echoes(b"and more of them").await;
}

/// Clients that come all the time meet either process, and each is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_loses_no_handshake() {
    let backend = echo("");
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let door = folder.path().join("upgrade.sock");
    let keys =
        format!("upgrade_socket = '{}'\n[gateway.drain]\nspread = '0s'\ntimeout = '60s'", door.to_str().unwrap());
    // Blind, so that a drain leaves tunnels alone.
    let rest = route_to(&[backend.address()], "", "tunnel.frames = 'blind'");
    let text = crate::harness::configuration(&keys, "http2 = true", &rest);
    let old = Gateway::launch(&text, &[], &[]).until_ready();
    let address = old.address();
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let visitors = (0..4).map(|_| {
        let is_over = std::sync::Arc::clone(&is_over);
        tokio::spawn(async move {
            let mut served = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                let client = Client::connect(address).await;
                client.open(&[]).await.echoes(b"served").await;
                served += 1;
            }
            served
        })
    });
    let visitors: Vec<_> = visitors.collect();
    let kept = Client::connect(address).await;
    let mut tunnel = kept.open(&[]).await;
    let new = Gateway::launch(&text, &["--upgrade"], &[]);
    new.wait_for_message("waiting for SIGQUIT to the running process");
    old.signal(rustix::process::Signal::QUIT);
    let new = new.until_ready();
    new.wait_for_message("in charge");
    tunnel.echoes(b"of the old process").await;
    Client::connect(address).await.open(&[]).await.echoes(b"of the new one").await;
    is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    for visitor in visitors {
        assert!(visitor.await.unwrap() > 0);
    }
    drop((tunnel, kept));
}
