//! `[limits]`: who is a client, and where a fleet counts its clients together. It does not know what is limited.

use redis::IntoConnectionInfo;
use toml::Spanned;

use super::findings::Findings;
use super::gateway::absolute_path;
use super::network::networks;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::{Limits, SharedLimits};
use crate::config::problem::{Problem, ProblemCode};

pub fn limits(findings: &mut Findings<'_>, given: &file::ClientLimits) -> Option<Limits> {
    let ipv6_prefix = findings.whole(&given.ipv6_prefix, bounds::IPV6_PREFIX);
    let clients = findings.whole(&given.clients, bounds::LIMITED_CLIENTS);
    let exempt = networks(findings, &given.exempt);
    let shared = shared(findings, &given.shared);
    Some(Limits { ipv6_prefix, clients, exempt: exempt?, shared })
}

fn shared(findings: &mut Findings<'_>, given: &file::SharedLimits) -> SharedLimits {
    SharedLimits {
        redis: given.redis.as_ref().and_then(|text| redis_url(findings, text)),
        password_file: given.password_file.as_ref().map(|text| absolute_path(findings, text)),
        timeout: findings.duration(&given.timeout, bounds::SHARED_TIMEOUT),
        retry: findings.duration(&given.retry, bounds::SHARED_RETRY),
        lease: findings.duration(&given.lease, bounds::SHARED_LEASE),
        prefix: prefix(findings, given),
    }
}

/// What is wrong is told without the text, which may have a password.
fn redis_url(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<String> {
    let url = text.get_ref();
    let (label, hint) = match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("rediss" | "valkeys") => ("no TLS to Redis", "`redis://` in a network of your own, or through a tunnel"),
        _ if url.as_str().into_connection_info().is_err() => {
            ("not the URL of a Redis", "write it as `redis://127.0.0.1:6379/0` or `unix:///run/redis/redis.sock`")
        }
        _ => return Some(url.clone()),
    };
    let problem = Problem::new(ProblemCode::BadAddress, text.span(), "bad address: `redis`");
    findings.report(problem.label(label).hint(hint));
    None
}

fn prefix(findings: &mut Findings<'_>, given: &file::SharedLimits) -> String {
    let Some(text) = &given.prefix else { return bounds::SHARED_PREFIX_DEFAULT.to_owned() };
    let prefix = text.get_ref();
    if prefix.len() > bounds::SHARED_PREFIX_BYTES_MAX || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = Problem::new(ProblemCode::BadName, text.span(), format!("bad name: `{}`", prefix.escape_debug()))
            .label(format!("not up to {} printable characters of ASCII", bounds::SHARED_PREFIX_BYTES_MAX))
            .hint("`\"wsgate:\"`, or another one for each fleet that shares a Redis");
        findings.report(problem);
    }
    prefix.clone()
}
