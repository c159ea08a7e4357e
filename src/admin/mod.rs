//! The admin listener: `/`, `/metrics`, `/healthz`, `/readyz`, `/status`. It only reads; nothing that is asked here
//! changes what the gateway does.

mod page;
mod status;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::generation::Current;
use crate::lifecycle::{Lifecycle, Phase};
use crate::observe::exposition;
use crate::observe::reading::Reading;
use status::Status;

/// What the admin listener serves.
pub struct Admin {
    current: Arc<Current>,
    lifecycle: Arc<Lifecycle>,
    started: Instant,
}

impl Admin {
    pub fn new(current: Arc<Current>, lifecycle: Arc<Lifecycle>, started: Instant) -> Admin {
        Admin { current, lifecycle, started }
    }

    fn metrics(&self, accept: Option<&str>) -> Response<Vec<u8>> {
        self.current.mirror_gauges();
        let metrics = self.current.observer().metrics();
        metrics.drain_remaining.set(status::remaining(&self.lifecycle) as i64);
        let (content_type, body) = exposition::render(metrics, accept);
        response(StatusCode::OK, content_type, body)
    }

    fn ready(&self) -> Response<Vec<u8>> {
        let phase = self.lifecycle.phase();
        let status = match phase {
            // Who still asks on an old connection wants to know of the address, and that is served.
            Phase::Ready | Phase::HandedOver => StatusCode::OK,
            Phase::Starting | Phase::Draining | Phase::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        text(status, phase.as_str())
    }

    fn status(&self) -> Response<Vec<u8>> {
        let generation = self.current.load();
        let reading = Reading::take(self.current.observer().metrics());
        let uptime = Instant::now().saturating_duration_since(self.started);
        let status = Status::new(&generation, &reading, &self.lifecycle, uptime);
        let mut body = serde_json::to_vec_pretty(&status).expect("its keys are texts and its numbers finite");
        body.push(b'\n');
        response(StatusCode::OK, "application/json", body)
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        }
        let accept = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        match request.uri.path() {
            "/metrics" => self.metrics(accept),
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" => self.ready(),
            "/status" => self.status(),
            "/" => file(page::HTML),
            "/page.css" => file(page::STYLE),
            "/page.js" => file(page::SCRIPT),
            _ => text(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

fn file(file: page::File) -> Response<Vec<u8>> {
    let mut response = response(StatusCode::OK, file.content_type, file.body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn text(status: StatusCode, line: &str) -> Response<Vec<u8>> {
    response(status, "text/plain; charset=utf-8", format!("{line}\n").into_bytes())
}

fn response(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::CACHE_CONTROL, "no-store")
        // Names of the configuration are in these answers; a browser takes them for what they are said to be.
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(body)
        .expect("names and values are constants or numbers")
}
