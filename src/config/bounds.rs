//! Every default and every limit of the configuration in one place. It does not know how they are written in the file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The least and the most that a key may say, both allowed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<T> {
    pub min: T,
    pub max: T,
}

/// Bounds, and what holds when the file says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Preset<T> {
    pub default: T,
    pub bounds: Bounds<T>,
}

const fn bounds<T: Copy>(min: T, max: T) -> Bounds<T> {
    Bounds { min, max }
}

const fn preset<T: Copy>(default: T, bounds: Bounds<T>) -> Preset<T> {
    Preset { default, bounds }
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// 0: as many as there are cores.
pub const THREADS: Preset<usize> = preset(0, bounds(0, 1024));
pub const UPGRADE_SOCKET_DEFAULT: &str = "/run/wsgate/upgrade.sock";

pub const DRAIN_DELAY: Preset<Duration> = preset(secs(0), bounds(secs(0), secs(HOUR)));
pub const DRAIN_SPREAD: Preset<Duration> = preset(secs(5), bounds(secs(0), secs(DAY)));
pub const DRAIN_TIMEOUT: Preset<Duration> = preset(secs(30), bounds(secs(0), secs(DAY)));

pub const ADMIN_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Below 32 a client could be a whole provider.
pub const IPV6_PREFIX: Preset<u8> = preset(64, bounds(32, 128));
pub const LIMITED_CLIENTS: Preset<usize> = preset(100_000, bounds(1_000, 10_000_000));
pub const SHARED_TIMEOUT: Preset<Duration> = preset(ms(50), bounds(ms(1), secs(5)));
pub const SHARED_RETRY: Preset<Duration> = preset(secs(1), bounds(ms(10), secs(5 * MINUTE)));
pub const SHARED_LEASE: Preset<Duration> = preset(secs(10), bounds(secs(1), secs(10 * MINUTE)));
pub const SHARED_PREFIX_DEFAULT: &str = "wsgate:";
pub const SHARED_PREFIX_BYTES_MAX: usize = 64;

pub const CONNECTIONS_PER_CLIENT: Bounds<u32> = bounds(1, 1_000_000);
/// RFC 1035 §4.2.
pub const DNS_PORT: u16 = 53;
pub const RESOLV_CONF_DEFAULT: &str = "/etc/resolv.conf";
pub const DNS_TIMEOUT: Preset<Duration> = preset(secs(2), bounds(ms(10), secs(MINUTE)));
pub const DNS_ATTEMPTS: Preset<usize> = preset(2, bounds(1, 10));
pub const DNS_MIN_TTL: Preset<Duration> = preset(secs(1), bounds(ms(100), secs(HOUR)));
pub const DNS_MAX_TTL: Preset<Duration> = preset(secs(5 * MINUTE), bounds(ms(100), secs(DAY)));
pub const DNS_EMPTY_AFTER: Preset<Duration> = preset(secs(30), bounds(secs(0), secs(DAY)));

/// The user and the group of the process.
pub const SOCKET_MODE_DEFAULT: u32 = 0o660;
pub const SOCKET_MODE_MAX: u32 = 0o777;

pub const MAX_CONNECTIONS: Preset<usize> = preset(20_000, bounds(1, 10_000_000));
pub const HEADER_TIMEOUT: Preset<Duration> = preset(secs(5), bounds(ms(10), secs(5 * MINUTE)));
/// For a request's head and for a backend's answer.
pub const HEADER_LIMIT: Preset<u64> = preset(16 * KIB, bounds(KIB, MIB));
/// Each may hold what two windows of it come to.
pub const HTTP2_STREAMS: Preset<u32> = preset(100, bounds(1, 10_000));
pub const KEEPALIVE_TIMEOUT: Preset<Duration> = preset(secs(60), bounds(ms(10), secs(HOUR)));

/// Of TLS, with a client.
pub const TLS_HANDSHAKE_TIMEOUT: Preset<Duration> = preset(secs(5), bounds(ms(10), secs(5 * MINUTE)));

pub const BODY_TIMEOUT: Preset<Duration> = preset(secs(30), bounds(ms(10), secs(24 * 60 * MINUTE)));
pub const IDLE_TIMEOUT: Preset<Duration> = preset(secs(5 * MINUTE), bounds(ms(10), secs(30 * DAY)));
pub const PING_INTERVAL: Bounds<Duration> = bounds(ms(10), secs(DAY));
pub const PING_TIMEOUT: Preset<Duration> = preset(secs(10), bounds(ms(10), secs(HOUR)));
pub const MAX_AGE: Bounds<Duration> = bounds(ms(10), secs(365 * DAY));
pub const CLOSE_TIMEOUT: Preset<Duration> = preset(secs(5), bounds(ms(10), secs(5 * MINUTE)));
/// A control frame carries up to 125 bytes, RFC 6455 §5.5, and must fit in every limit.
pub const MAX_FRAME: Bounds<u64> = bounds(125, 16 * GIB);
pub const MAX_MESSAGE: Bounds<u64> = bounds(125, 16 * GIB);

/// A message on its way between two versions.
pub const BRIDGE_MAX_MESSAGE: Preset<u64> = preset(4 * MIB, bounds(125, GIB));

pub const TUNNELS: Bounds<usize> = bounds(1, 10_000_000);
pub const TUNNELS_PER_CLIENT: Bounds<u32> = bounds(1, 1_000_000);
pub const RATE_COUNT: Bounds<u32> = bounds(1, 1_000_000);

pub const CONNECT_TIMEOUT: Preset<Duration> = preset(secs(2), bounds(ms(10), secs(MINUTE)));
pub const HANDSHAKE_TIMEOUT: Preset<Duration> = preset(secs(5), bounds(ms(10), secs(5 * MINUTE)));
pub const RESPONSE_TIMEOUT: Preset<Duration> = preset(secs(MINUTE), bounds(ms(10), secs(24 * 60 * MINUTE)));
pub const TRIES: Preset<usize> = preset(2, bounds(1, 16));

pub const SLOW_START: Bounds<Duration> = bounds(ms(10), secs(HOUR));
/// 0: nobody waits.
pub const QUEUE: Preset<usize> = preset(0, bounds(0, 1_000_000));
pub const QUEUE_TIMEOUT: Preset<Duration> = preset(secs(1), bounds(ms(10), secs(MINUTE)));
pub const STICKY_MAX_AGE: Bounds<Duration> = bounds(secs(1), secs(365 * DAY));

pub const WEIGHT: Preset<u32> = preset(1, bounds(1, 1000));
pub const MAX_TUNNELS: Bounds<usize> = bounds(1, 10_000_000);

pub const HEALTH_PATH_DEFAULT: &str = "/";
pub const HEALTH_INTERVAL: Preset<Duration> = preset(secs(5), bounds(ms(100), secs(HOUR)));
pub const HEALTH_TIMEOUT: Preset<Duration> = preset(secs(2), bounds(ms(10), secs(MINUTE)));
pub const HEALTH_RISE: Preset<u32> = preset(2, bounds(1, 100));
pub const HEALTH_FALL: Preset<u32> = preset(3, bounds(1, 100));
pub const EJECT_TIME: Preset<Duration> = preset(secs(10), bounds(ms(10), secs(HOUR)));
pub const EJECT_TIME_MAX: Preset<Duration> = preset(secs(5 * MINUTE), bounds(ms(10), secs(DAY)));
/// In percent. 0: all are used once none is up.
pub const PANIC_THRESHOLD: Preset<u32> = preset(0, bounds(0, 100));
