//! The resolved configuration as a file again, every default written out. What it prints parses to an equal [`Config`]:
//! so a list or limit for which there is no word is printed as a comment. It knows no limits.

use std::fmt::Display;
use std::time::Duration;

use super::choice::Choice;
use super::model::{
    AccessLog, Config, Dns, Gateway, Health, Limits, Listener, ListenerTls, Log, Pair, Route, Server, Spoken, Sticky,
    Upstream, UpstreamTls,
};
use super::units::{format_duration, format_rate, format_size};
use crate::dialect::Dialect;

/// The whole of `config` in the grammar of the file.
pub fn print(config: &Config) -> String {
    let mut page = Page { text: String::new(), config };
    page.gateway(&config.gateway);
    page.section("[admin]");
    page.set(
        "listen",
        match config.admin.listen {
            Some(address) => quoted(address),
            None => quoted("off"),
        },
    );
    page.log(&config.log);
    page.limits(&config.limits);
    page.dns(&config.dns);
    for listener in &config.listeners {
        page.listener(listener);
    }
    for route in &config.routes {
        page.route(route);
    }
    for upstream in &config.upstreams {
        page.upstream(upstream);
    }
    page.text
}

struct Page<'a> {
    text: String,
    config: &'a Config,
}

impl Page<'_> {
    fn section(&mut self, header: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(header);
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn set(&mut self, key: &str, value: impl Display) {
        self.line(&format!("{key} = {value}"));
    }

    fn set_or_note(&mut self, key: &str, value: Option<impl Display>, note: &str) {
        match value {
            Some(value) => self.set(key, value),
            None => self.line(&format!("# {key}: {note}")),
        }
    }

    fn gateway(&mut self, gateway: &Gateway) {
        self.section("[gateway]");
        self.set("threads", gateway.threads);
        self.set("upgrade_socket", quoted(gateway.upgrade_socket.display()));
        self.set("reload_on_change", gateway.reload_on_change);
        self.section("[gateway.drain]");
        self.set("delay", duration(gateway.drain.delay));
        self.set("spread", duration(gateway.drain.spread));
        self.set("timeout", duration(gateway.drain.timeout));
    }

    fn log(&mut self, log: &Log) {
        self.section("[log]");
        self.set("level", quoted(log.level.word()));
        self.set("format", quoted(log.format.word()));
        self.set(
            "access",
            match &log.access {
                AccessLog::Stdout => quoted("stdout"),
                AccessLog::Off => quoted("off"),
                AccessLog::File(path) => quoted(path.display()),
            },
        );
    }

    fn limits(&mut self, limits: &Limits) {
        self.section("[limits]");
        self.set("ipv6_prefix", limits.ipv6_prefix);
        self.set("clients", limits.clients);
        self.set("exempt", list(&limits.exempt));
        let shared = &limits.shared;
        self.section("[limits.shared]");
        self.set_or_note("redis", shared.redis.as_ref().map(quoted), "each gateway counts for itself");
        self.set_or_note("password_file", shared.password_file.as_ref().map(|path| quoted(path.display())), "none");
        self.set("timeout", duration(shared.timeout));
        self.set("retry", duration(shared.retry));
        self.set("lease", duration(shared.lease));
        self.set("prefix", quoted(&shared.prefix));
    }

    fn dns(&mut self, dns: &Dns) {
        self.section("[dns]");
        self.set_or_note("servers", list_of_some(&dns.servers), "those of resolv_conf");
        self.set("resolv_conf", quoted(dns.resolv_conf.display()));
        self.set("timeout", duration(dns.timeout));
        self.set("attempts", dns.attempts);
        self.set("min_ttl", duration(dns.min_ttl));
        self.set("max_ttl", duration(dns.max_ttl));
        self.set("empty_after", duration(dns.empty_after));
    }

    fn listener(&mut self, listener: &Listener) {
        self.section("[[listener]]");
        self.set("name", quoted(&listener.name));
        self.set("listen", quoted(&listener.listen));
        self.set("socket_mode", quoted(format!("{:04o}", listener.socket_mode)));
        self.set("max_connections", listener.max_connections);
        self.set_or_note("connections_per_client", listener.connections_per_client, "no limit");
        self.set("header_timeout", duration(listener.header_timeout));
        self.set("header_limit", size(listener.header_limit as u64));
        self.set("body_timeout", duration(listener.body_timeout));
        self.set("keepalive_timeout", duration(listener.keepalive_timeout));
        self.set("client_address", quoted(listener.client_address.word()));
        self.set("forwarded_field", quoted(listener.forwarded_field.word()));
        self.set("trusted_proxies", list(&listener.trusted_proxies));
        self.set("http2", listener.http2);
        self.set("http2_streams", listener.http2_streams);
        if let Some(tls) = &listener.tls {
            self.listener_tls(tls);
        }
    }

    fn listener_tls(&mut self, tls: &ListenerTls) {
        self.section("[listener.tls]");
        self.line("certificates = [");
        for Pair { certificate, key } in &tls.certificates {
            let (certificate, key) = (quoted(certificate.display()), quoted(key.display()));
            self.line(&format!("  {{ certificate = {certificate}, key = {key} }},"));
        }
        self.line("]");
        self.set("min_version", quoted(tls.min_version.word()));
        self.set("client_certificates", quoted(tls.client_certificates.word()));
        self.set_or_note("client_ca", tls.client_ca.as_ref().map(|path| quoted(path.display())), "none");
        let header = tls.client_certificate_header.as_ref().map(quoted);
        self.set_or_note("client_certificate_header", header, "none");
        self.set("handshake_timeout", duration(tls.handshake_timeout));
    }

    fn route(&mut self, route: &Route) {
        self.section("[[route]]");
        self.set("name", quoted(&route.name));
        let listeners = route.listeners.iter().map(|at| &self.config.listeners[*at].name);
        self.set("listeners", list(listeners));
        self.set_or_note("hosts", list_of_some(&route.hosts), "any");
        self.set("paths", list(&route.paths));
        self.set("upstream", quoted(&self.config.upstreams[route.upstream].name));
        self.set("plain_http", quoted(route.plain_http.word()));

        self.section("[route.versions]");
        self.set("accept", versions(&route.versions.accept));
        self.set("mode", quoted(route.versions.mode.word()));

        self.section("[route.handshake]");
        self.set_or_note("origins", list_of_some(&route.handshake.origins), "any");
        self.set_or_note("subprotocols", list_of_some(&route.handshake.subprotocols), "any");
        self.set("extensions", quoted(route.handshake.extensions.word()));
        self.set("relax", list(&route.handshake.relax));

        self.section("[route.bridge]");
        self.set("binary", quoted(route.bridge.binary.word()));
        self.set("max_message", size(route.bridge.max_message_bytes));

        let tunnel = &route.tunnel;
        self.section("[route.tunnel]");
        self.set("frames", quoted(tunnel.frames.word()));
        self.set("idle_timeout", duration_or_off(tunnel.idle_timeout));
        self.set("ping_interval", duration_or_off(tunnel.ping_interval));
        self.set("ping_timeout", duration(tunnel.ping_timeout));
        self.set("max_age", duration_or_off(tunnel.max_age));
        self.set("close_timeout", duration(tunnel.close_timeout));
        self.set("max_frame", size_or_off(tunnel.max_frame_bytes));
        self.set("max_message", size_or_off(tunnel.max_message_bytes));
        self.set("on_remove", quoted(tunnel.on_remove.word()));

        let limits = &route.limits;
        let rate = limits.handshakes_per_client.map(|rate| quoted(format_rate(rate)));
        self.section("[route.limits]");
        self.set_or_note("tunnels", limits.tunnels, "no limit");
        self.set_or_note("tunnels_per_client", limits.tunnels_per_client, "no limit");
        self.set_or_note("handshakes_per_client", rate, "no limit");
    }

    fn upstream(&mut self, upstream: &Upstream) {
        self.section("[[upstream]]");
        self.set("name", quoted(&upstream.name));
        self.set(
            "versions",
            match &upstream.versions {
                Spoken::Listed(list) => versions(list),
                Spoken::Auto => quoted("auto"),
            },
        );
        self.set("balance", quoted(upstream.balance.word()));
        self.set_or_note("hash_header", upstream.hash_header.as_ref().map(quoted), "for `header-hash` alone");
        self.set("slow_start", duration_or_off(upstream.slow_start));
        self.set("queue", upstream.queue);
        self.set("queue_timeout", duration(upstream.queue_timeout));
        self.set("connect_timeout", duration(upstream.connect_timeout));
        self.set("handshake_timeout", duration(upstream.handshake_timeout));
        self.set("response_timeout", duration(upstream.response_timeout));
        self.set("header_limit", size(upstream.header_limit as u64));
        self.set("tries", upstream.tries);
        self.set("proxy_protocol", quoted(upstream.proxy_protocol.word()));
        self.line("servers = [");
        for server in &upstream.servers {
            self.line(&format!("  {},", inline_server(server)));
        }
        self.line("]");
        self.section("[upstream.sticky]");
        match &upstream.sticky {
            Some(sticky) => self.sticky(sticky),
            None => self.line("# cookie: none"),
        }
        self.health(&upstream.health);
        if let Some(tls) = &upstream.tls {
            self.upstream_tls(tls);
        }
    }

    fn upstream_tls(&mut self, tls: &UpstreamTls) {
        self.section("[upstream.tls]");
        self.set("server_name", quoted(&tls.server_name));
        self.set_or_note("ca", tls.ca.as_ref().map(|path| quoted(path.display())), "the system's");
        let pair = tls.identity.as_ref();
        self.set_or_note("certificate", pair.map(|pair| quoted(pair.certificate.display())), "none");
        self.set_or_note("key", pair.map(|pair| quoted(pair.key.display())), "none");
        self.set("min_version", quoted(tls.min_version.word()));
    }

    fn sticky(&mut self, sticky: &Sticky) {
        self.set("cookie", quoted(&sticky.cookie));
        self.set("max_age", duration_or_off(sticky.max_age));
        self.set("secure", sticky.secure);
        self.set("http_only", sticky.http_only);
        self.set("same_site", quoted(sticky.same_site.word()));
    }

    fn health(&mut self, health: &Health) {
        self.section("[upstream.health]");
        self.set("check", quoted(health.check.word()));
        self.set("path", quoted(&health.path));
        self.set_or_note("host", health.host.as_ref().map(quoted), "the server's address");
        self.set("interval", duration(health.interval));
        self.set("timeout", duration(health.timeout));
        self.set("rise", health.rise);
        self.set("fall", health.fall);
        self.set("eject_time", duration(health.eject_time));
        self.set("eject_time_max", duration(health.eject_time_max));
        self.set("panic_threshold", health.panic_threshold);
    }
}

fn inline_server(server: &Server) -> String {
    let (address, weight) = (quoted(&server.address), server.weight);
    let max = server.max_tunnels.map(|max| format!(", max_tunnels = {max}")).unwrap_or_default();
    let drain = if server.drain { ", drain = true" } else { "" };
    format!("{{ address = {address}, weight = {weight}{max}{drain} }}")
}

/// A string of TOML, escaped where it must be.
fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn duration(duration: Duration) -> String {
    quoted(format_duration(duration))
}

fn duration_or_off(given: Option<Duration>) -> String {
    given.map_or_else(|| quoted("off"), duration)
}

fn size(bytes: u64) -> String {
    quoted(format_size(bytes))
}

fn size_or_off(given: Option<u64>) -> String {
    given.map_or_else(|| quoted("off"), size)
}

fn versions(versions: &[Dialect]) -> String {
    let word = |version: &Dialect| version.number().map_or_else(|| quoted(version), |number| number.to_string());
    let words: Vec<String> = versions.iter().map(word).collect();
    format!("[{}]", words.join(", "))
}

fn list(entries: impl IntoIterator<Item = impl Display>) -> String {
    let entries: Vec<String> = entries.into_iter().map(quoted).collect();
    format!("[{}]", entries.join(", "))
}

fn list_of_some(entries: &[impl Display]) -> Option<String> {
    (!entries.is_empty()).then(|| list(entries))
}
