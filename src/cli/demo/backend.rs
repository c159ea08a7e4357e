//! The demo's two servers, on loopback and in this process: an echo over WebSocket and the page over plain HTTP. They do
//! not know that a gateway stands before them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pingora::apps::ServerApp;
use pingora::apps::http_app::HttpServer;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::page::Page;

/// What the echo takes and gives back in one message, at most.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the running servers are.
pub struct Backends {
    pub echo: SocketAddr,
    pub page: SocketAddr,
}

impl Backends {
    /// Both listen when this returns, on a thread that lives as long as the process.
    pub fn start(page: Page) -> io::Result<Backends> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let echo_listener = runtime.block_on(TcpListener::bind(any_port))?;
        let page_listener = runtime.block_on(TcpListener::bind(any_port))?;
        let backends = Backends { echo: echo_listener.local_addr()?, page: page_listener.local_addr()? };
        let serve = async move { tokio::join!(serve_echo(echo_listener), serve_page(page_listener, page)) };
        thread::Builder::new().name("demo-backends".to_owned()).spawn(move || runtime.block_on(serve))?;
        Ok(backends)
    }
}

async fn serve_echo(listener: TcpListener) {
    loop {
        let stream = accept(&listener).await;
        tokio::spawn(async move {
            if let Err(error) = echo(stream).await {
                tracing::debug!(%error, "the demo's echo lost a connection");
            }
        });
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, most likely: one may be free a little later.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Gives text and binary messages back; tungstenite itself answers Ping and Close.
async fn echo(stream: TcpStream) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let limits =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = accept_async_with_config(stream, Some(limits)).await?;
    while let Some(message) = socket.next().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
    Ok(())
}

async fn serve_page(listener: TcpListener, page: Page) {
    let app = Arc::new(HttpServer::new_app(page));
    // Never told to end: the thread ends with the process.
    let (_running, shutdown) = watch::channel(false);
    loop {
        let stream = accept(&listener).await;
        tokio::spawn(answer(Arc::clone(&app), stream, shutdown.clone()));
    }
}

/// Every request of one connection.
async fn answer(app: Arc<HttpServer<Page>>, stream: TcpStream, shutdown: ShutdownWatch) {
    let mut stream: Option<pingora::protocols::Stream> =
        Some(Box::new(pingora::protocols::l4::stream::Stream::from(stream)));
    while let Some(connection) = stream {
        stream = app.process_new(connection, &shutdown).await;
    }
}
