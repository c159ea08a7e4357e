//! A client and a server of `tokio-tungstenite` through the gateway: sizes, kinds, pings, fragments, close codes.

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async_with_config, connect_async_with_config};

use crate::backend::route_to;
use crate::harness::Gateway;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn limits() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(32 << 20)).max_frame_size(Some(32 << 20))
}

/// Echoes messages; a close is answered by the library itself.
async fn echo(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut socket = accept_async_with_config(stream, Some(limits())).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn gateway() -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(echo(listener));
    tokio::task::spawn_blocking(move || Gateway::start(&route_to(&[address], "", ""))).await.unwrap()
}

async fn connect(gateway: &Gateway) -> Client {
    let url = format!("ws://{}/ws", gateway.address());
    connect_async_with_config(url, Some(limits()), false).await.unwrap().0
}

async fn check(client: &mut Client, message: Message) {
    client.send(message.clone()).await.unwrap();
    let echoed = client.next().await.unwrap().unwrap();
    assert!(echoed == message, "{} bytes came back other than they went", message.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_length_class_come_back() {
    let gateway = gateway().await;
    let mut client = connect(&gateway).await;
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20] {
        check(&mut client, Message::text("a".repeat(length))).await;
        check(&mut client, Message::binary(vec![0xff; length])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_between_fragments_are_answered_and_the_message_is_whole() {
    let gateway = gateway().await;
    let mut client = connect(&gateway).await;
    let frames = [("frag", OpCode::Data(Data::Text), false), ("men", OpCode::Data(Data::Continue), false)];
    for (text, opcode, last) in frames {
        client.send(Message::Frame(Frame::message(text, opcode, last))).await.unwrap();
        client.send(Message::Ping("between".into())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("between".into()));
    }
    client.send(Message::Frame(Frame::message("ted", OpCode::Data(Data::Continue), true))).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("fragmented"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_codes_come_back() {
    let gateway = gateway().await;
    for code in [1000, 1001, 1011, 3000, 4999] {
        let mut client = connect(&gateway).await;
        let frame = CloseFrame { code: CloseCode::from(code), reason: "bye".into() };
        client.close(Some(frame.clone())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Close(Some(frame)));
    }
    let mut client = connect(&gateway).await;
    client.close(None).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Close(None));
}
