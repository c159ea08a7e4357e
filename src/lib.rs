//! wsgate: a gateway that enforces which versions of the WebSocket protocol may pass. The parts in reading order, which is
//! also the order of the layers: a part uses only what stands above it.

#![forbid(unsafe_code)]

// Pure: bytes, values and time are arguments.
pub mod address;
pub mod answer;
pub mod bridge;
pub mod caller;
pub mod config;
pub mod dialect;
pub mod fleet;
pub mod generation;
pub mod handshake;
pub mod limits;
pub mod names;
pub mod observe;
pub mod policy;
pub mod proxy_header;
pub mod reason;
pub mod roster;
pub mod tunnel;
pub mod upstream;
pub mod wire;

// I/O: thin, named for what it talks to.
pub mod admin;
pub mod cli;
pub mod dial;
pub mod discover;
pub mod edge;
pub mod health;
pub mod http2;
pub mod lifecycle;
pub mod logging;
pub mod proxy;
pub mod relay;
pub mod reload;
pub mod server;
pub mod source;
pub mod stream;
pub mod tls;
