//! Scripted servers on a stream in memory, under a clock that stands still while anybody has something to do.

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::handshake::Field;
use crate::handshake::hixie::{KEY3_BYTES, Numbers};
use crate::handshake::key::Key;
use crate::handshake::request::Head;

const HYBI: Question = Question::Version(Dialect::Rfc6455);
const HIXIE_76: Question = Question::Version(Dialect::Hixie76);
const HIXIE_75: Question = Question::Version(Dialect::Hixie75);
const SWITCHING: &str = "HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n";
const HIXIE_75_HEAD: &str = "HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                             WebSocket-Origin: http://a.example\r\nWebSocket-Location: ws://a.example/\r\n\r\n";

struct Server(DuplexStream);

impl Server {
    /// Reads the request and gives its head and what stands behind it.
    async fn request(&mut self, behind: usize) -> (Vec<u8>, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let mut bytes = vec![0; behind];
        self.0.read_exact(&mut bytes).await.unwrap();
        (head, bytes)
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The probe may know enough already.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Opens as 13, 8 or 7 do.
    async fn open(&mut self) {
        let (head, _) = self.request(0).await;
        let head = Head::parse(&head).unwrap();
        let accept = Key::read(&head.fields).unwrap().accept();
        let accept = std::str::from_utf8(accept.as_bytes()).unwrap();
        self.send(format!("{SWITCHING}Sec-WebSocket-Accept: {accept}\r\n\r\n")).await;
    }

    /// The digest that the request asks for.
    async fn digest(&mut self) -> [u8; DIGEST_BYTES] {
        let (head, key3) = self.request(KEY3_BYTES).await;
        let fields = Head::parse(&head).unwrap().fields.iter().map(|field| Field { ..*field }).collect::<Vec<_>>();
        Numbers::read(&fields).unwrap().digest(key3.as_slice().try_into().unwrap())
    }

    /// A short frame of the probe: its first byte and its payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.unwrap();
        let length = usize::from(self.0.read_u8().await.unwrap() - 0x80);
        let mut key = [0; 4];
        self.0.read_exact(&mut key).await.unwrap();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.unwrap();
        crate::wire::mask(&mut payload, key, 0);
        (first, payload)
    }

    async fn say(&mut self, first: u8, payload: &[u8]) {
        self.send([&[first, u8::try_from(payload.len()).unwrap()], payload].concat()).await;
    }

    /// Keeps the connection until the probe leaves.
    async fn hang(&mut self) {
        let mut rest = [0; 64];
        while matches!(self.0.read(&mut rest).await, Ok(1..)) {}
    }
}

async fn probe(question: Question, serve: impl AsyncFnOnce(Server)) -> Outcome {
    let common =
        Common { target: "ws://a.example/".parse().unwrap(), origin: "http://a.example".to_owned(), lines: Vec::new() };
    let (client, server) = duplex(1 << 16);
    let patience = Patience::new(Duration::from_secs(5));
    let mut chance = fastrand::Rng::with_seed(7);
    let held = hold(client, question, &common, patience, &mut chance);
    tokio::join!(held, serve(Server(server))).0
}

async fn talked(question: Question, serve: impl AsyncFnOnce(Server)) -> Talk {
    match probe(question, serve).await {
        Outcome::Right(talk) => talk,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_a_ping_and_a_close_go_round() {
    let talk = talked(HYBI, async |mut server| {
        server.open().await;
        let (first, text) = server.frame().await;
        assert_eq!(first, 0x81);
        server.say(0x81, &text).await;
        let (first, payload) = server.frame().await;
        assert_eq!(first, 0x89);
        server.say(0x8A, &payload).await;
        assert_eq!(server.frame().await, (0x88, vec![0x03, 0xE8]));
        server.say(0x88, &[0x03, 0xE9]).await;
    })
    .await;
    let close = Some(Reply::Closed(Some(CloseCode(1001))));
    assert_eq!(talk, Talk { echo: Some(Reply::Right), ping: Some(Reply::Right), close });
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_its_own_things_to_say_is_heard_out() {
    let talk = talked(HYBI, async |mut server| {
        server.open().await;
        server.say(0x81, b"welcome").await;
        server.say(0x89, b"there?").await;
        let (_, _) = server.frame().await;
        assert_eq!(server.frame().await, (0x8A, b"there?".to_vec()));
        let (first, _) = server.frame().await;
        assert_eq!(first, 0x89);
        server.say(0x8A, b"other").await;
        server.say(0x81, b"news").await;
        let (first, _) = server.frame().await;
        assert_eq!(first, 0x88);
        server.say(0x81, b"more news").await;
        drop(server);
    })
    .await;
    let close = Some(Reply::Ended(Ending::Fin));
    assert_eq!(talk, Talk { echo: Some(Reply::Other), ping: Some(Reply::Other), close });
}

#[tokio::test(start_paused = true)]
async fn silence_is_waited_for_and_no_longer() {
    let start = Instant::now();
    let talk = talked(HYBI, async |mut server| {
        server.open().await;
        server.hang().await;
    })
    .await;
    assert_eq!(talk, Talk { echo: Some(Reply::Silent), ping: Some(Reply::Silent), close: Some(Reply::Silent) });
    assert!(start.elapsed() < 4 * REPLY_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_early_end_leaves_the_rest_untried() {
    let talk = talked(HYBI, async |mut server| {
        server.open().await;
        server.say(0x88, &[0x03, 0xEB]).await;
    })
    .await;
    let echo = Some(Reply::Closed(Some(CloseCode(1003))));
    assert_eq!(talk, Talk { echo, ..Talk::default() });
    let talk = talked(HYBI, async |mut server| {
        server.open().await;
        server.send(b"\x81\x81").await;
        server.hang().await;
    })
    .await;
    assert!(talk.fault().is_some() && talk.ping.is_none());
}

#[tokio::test(start_paused = true)]
async fn hixie_76_is_proven_by_the_bytes_behind_its_head() {
    let talk = talked(HIXIE_76, async |mut server| {
        let digest = server.digest().await;
        server.send(format!("{SWITCHING}\r\n")).await;
        // In pieces, with a frame right behind them.
        server.send(&digest[..5]).await;
        tokio::task::yield_now().await;
        server.send([&digest[5..], b"\0hello\xFF"].concat()).await;
        let mut text = Vec::new();
        while text.last() != Some(&0xFF) {
            text.push(server.0.read_u8().await.unwrap());
        }
        server.send(&text).await;
        assert_eq!([server.0.read_u8().await.unwrap(), server.0.read_u8().await.unwrap()], [0xFF, 0]);
        server.send([0xFF, 0]).await;
    })
    .await;
    assert_eq!(talk, Talk { echo: Some(Reply::Right), ping: None, close: Some(Reply::Closed(None)) });
    let wrong = probe(HIXIE_76, async |mut server| {
        let mut digest = server.digest().await;
        digest[15] ^= 1;
        server.send(format!("{SWITCHING}\r\n")).await;
        server.send(digest).await;
    });
    assert!(matches!(wrong.await, Outcome::Wrong(Flaw::Digest)));
    let missing = probe(HIXIE_76, async |mut server| {
        server.request(KEY3_BYTES).await;
        server.send(format!("{SWITCHING}\r\nonly 15 bytes..")).await;
        server.hang().await;
    });
    assert!(matches!(missing.await, Outcome::Wrong(Flaw::DigestMissing)));
}

#[tokio::test(start_paused = true)]
async fn hixie_75_ends_with_the_connection() {
    let talk = talked(HIXIE_75, async |mut server| {
        server.request(0).await;
        server.send(HIXIE_75_HEAD).await;
        server.hang().await;
    })
    .await;
    assert_eq!(talk, Talk { echo: Some(Reply::Silent), ping: None, close: Some(Reply::Ended(Ending::Fin)) });
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_told_apart() {
    let outcome = async |answer: Vec<u8>| {
        probe(HYBI, async move |mut server| {
            server.request(0).await;
            server.send(&answer).await;
        })
        .await
    };
    assert!(matches!(outcome(b"".to_vec()).await, Outcome::Ended(Ending::Fin)));
    assert!(matches!(outcome(b"HTTP/1.1 101 x\r\n".to_vec()).await, Outcome::Ended(Ending::Fin)));
    assert!(matches!(outcome(b"SSH-2.0-x\r\n\r\n".to_vec()).await, Outcome::NotHttp));
    assert!(matches!(outcome(b"HTTP/1.1 200 OK\nA: b\n\n".to_vec()).await, Outcome::NotHttp));
    assert!(matches!(outcome(b"HTTP/1.1 100 x\r\n\r\n".repeat(9)).await, Outcome::NotHttp));
    let endless = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; HEAD_BYTES_MAX]].concat();
    assert!(matches!(outcome(endless).await, Outcome::TooLarge));
    let after_interim = b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 404 x\r\n\r\nwhatever".to_vec();
    assert!(matches!(outcome(after_interim).await, Outcome::Refused(refusal) if refusal.status == 404));
    let silent = probe(HYBI, async |mut server| server.hang().await);
    assert!(matches!(silent.await, Outcome::Silent));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_server_sends_the_probe_comes_to_an_end(
        opens in any::<bool>(),
        bytes in proptest::collection::vec(
            prop_oneof![Just(0_u8), Just(0x81), Just(0x88), Just(0xFF), 0_u8..6, any::<u8>()], 0..600),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        for question in [HYBI, HIXIE_76, HIXIE_75] {
            runtime.block_on(probe(question, async |mut server| {
                match question {
                    _ if !opens => {}
                    HIXIE_76 => {
                        let digest = server.digest().await;
                        server.send([format!("{SWITCHING}\r\n").as_bytes(), &digest].concat()).await;
                    }
                    HIXIE_75 => server.send(HIXIE_75_HEAD).await,
                    _ => server.open().await,
                }
                server.send(&bytes).await;
                server.hang().await;
            }));
        }
    }
}
