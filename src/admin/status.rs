//! `/status`: what is configured and what is happening now, as JSON. A view; it computes nothing that is not known already.

use std::time::Instant;

use serde_json::{Value, json};

use crate::generation::Generation;
use crate::lifecycle::Lifecycle;

pub fn status(generation: &Generation, lifecycle: &Lifecycle, started: Instant, now: Instant) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": lifecycle.phase().as_str(),
        "uptime_seconds": now.saturating_duration_since(started).as_secs(),
        "open": lifecycle.open(),
        "listeners": listeners(generation),
        "routes": routes(generation),
        "upstreams": upstreams(generation),
        "not_in_force": generation.config.not_in_force.iter().map(|pending| &pending.key).collect::<Vec<_>>(),
    })
}

fn listeners(generation: &Generation) -> Vec<Value> {
    let configured = generation.config.listeners.iter().zip(&generation.listeners);
    configured
        .map(|(rules, handle)| {
            json!({
                "name": rules.name,
                "listen": rules.listen.to_string(),
                "connections": handle.connections.used(),
                "max_connections": rules.max_connections,
            })
        })
        .collect()
}

fn routes(generation: &Generation) -> Vec<Value> {
    let configured = generation.config.routes.iter().zip(&generation.routes);
    configured
        .map(|(rules, handle)| {
            json!({
                "name": rules.name,
                "hosts": rules.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "paths": rules.paths.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "upstream": generation.config.upstreams[rules.upstream].name,
                "accept": rules.versions.accept,
                "served": rules.versions.served,
                "tunnels": handle.tunnels.used(),
                "max_tunnels": rules.limits.tunnels,
            })
        })
        .collect()
}

fn upstreams(generation: &Generation) -> Vec<Value> {
    generation
        .upstreams
        .iter()
        .map(|upstream| {
            let rules = upstream.cluster.rules();
            let servers: Vec<Value> = upstream
                .cluster
                .servers()
                .iter()
                .zip(&rules.servers)
                .map(|(server, rules)| {
                    json!({
                        "address": server.address().to_string(),
                        "up": server.is_up(),
                        "tunnels": server.tunnels(),
                        "max_tunnels": rules.max_tunnels,
                        "weight": server.weight(),
                    })
                })
                .collect();
            json!({ "name": rules.name, "versions": rules.versions, "servers": servers })
        })
        .collect()
}
