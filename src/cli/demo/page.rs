//! The demo's page, and what stands on it of a client that a browser cannot be: one that speaks version 8 only. It asks
//! the gateway whose demo it is and nobody else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PAGE: &str = include_str!("page.html");

/// Where [`PAGE`] wants the address of the admin listener.
const ADMIN_PLACE: &str = "ADMIN-ADDRESS";

/// How long the gateway has for its answer to a version-8 client.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Of that answer, at most.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

pub struct Page {
    gateway: SocketAddr,
    html: String,
}

impl Page {
    /// Both addresses as they are reached from here.
    pub fn new(gateway: SocketAddr, admin: SocketAddr) -> Page {
        Page { gateway, html: PAGE.replace(ADMIN_PLACE, &admin.to_string()) }
    }

    async fn version_8(&self) -> Response<Vec<u8>> {
        let answer = timeout(ANSWER_TIMEOUT, upgrade_with_version_8(self.gateway)).await;
        match answer {
            Ok(Ok(answer)) => plain(StatusCode::OK, answer),
            Ok(Err(error)) => plain(StatusCode::BAD_GATEWAY, format!("no answer from the gateway: {error}\n")),
            Err(_) => plain(StatusCode::GATEWAY_TIMEOUT, "no answer from the gateway in time\n".to_owned()),
        }
    }
}

#[async_trait]
impl ServeHttp for Page {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        match request.uri.path() {
            "/" => response(StatusCode::OK, "text/html; charset=utf-8", self.html.clone()),
            "/version-8" => self.version_8().await,
            _ => plain(StatusCode::NOT_FOUND, "the demo has `/`, `/echo` and `/version-8`\n".to_owned()),
        }
    }
}

/// A right handshake of the drafts hybi-08 to hybi-12, which say 8, and all that comes back.
async fn upgrade_with_version_8(gateway: SocketAddr) -> io::Result<String> {
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: {gateway}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n"
    );
    let mut stream = TcpStream::connect(gateway).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn plain(status: StatusCode, text: String) -> Response<Vec<u8>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Vec<u8>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::CACHE_CONTROL, "no-store")
        .body(body.into_bytes())
        .expect("every header of the list is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_has_what_it_is_driven_by() {
        let page = Page::new("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        for id in ["message", "send", "log", "version-8", "metrics", "state"] {
            assert!(page.html.contains(&format!("id=\"{id}\"")), "{id}");
        }
        assert!(page.html.contains("href=\"http://127.0.0.1:2/metrics\""));
        assert!(!page.html.contains(ADMIN_PLACE));
        let links: Vec<&str> = page.html.split("href=\"").skip(1).collect();
        assert!(links.len() == 2 && links[0].starts_with("data:,") && links[1].starts_with("http://127.0.0.1:2/"));
        assert!(!page.html.contains("src=") && !page.html.contains("url(") && !page.html.contains("@import"));
    }

    #[test]
    fn a_version_8_client_says_so_and_shows_the_whole_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                io::Read::read_exact(&mut stream, &mut byte).unwrap();
                head.push(byte[0]);
            }
            io::Write::write_all(&mut stream, b"HTTP/1.1 426 Upgrade Required\r\n\r\ntext").unwrap();
            String::from_utf8(head).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(upgrade_with_version_8(gateway)).unwrap();
        assert_eq!(answer, "HTTP/1.1 426 Upgrade Required\r\n\r\ntext");
        assert!(server.join().unwrap().contains("\r\nSec-WebSocket-Version: 8\r\n"));
    }
}
