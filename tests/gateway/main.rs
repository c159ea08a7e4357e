//! The gateway as a process, seen from both sides: real sockets, scripted backends, nothing of its inside.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod admin;
mod backend;
mod backends;
mod balance;
mod bridges;
mod callers;
mod client_limits;
mod command_line;
mod discovery;
mod edge;
mod endings;
mod fleet;
mod handover;
mod harness;
mod health;
mod lifecycle;
mod name_server;
mod notify;
mod own_endings;
mod pki;
mod plain;
mod probe;
mod process;
mod real_proxies;
mod refusals;
mod reload;
mod reload_on_change;
mod reload_under_load;
mod rust_client;
mod stage;
mod tls;
mod tls_backends;
mod tls_peers;
mod tunnels;
mod unix_sockets;
