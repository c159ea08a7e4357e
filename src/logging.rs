//! Diagnostics on standard error through `tracing`, Pingora's own lines included. The access log is another thing.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::model::{Log, LogFormat, LogLevel};

/// From here on every line goes where the configuration says. A second call changes nothing.
pub fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Pingora says at `info` what is ours to say; its warnings and errors are kept.
    let pingora = level.min(if level >= LevelFilter::DEBUG { level } else { LevelFilter::WARN });
    let filter = Targets::new().with_default(pingora).with_target("wsgate", level);
    let layer = match log.format {
        LogFormat::Text => {
            fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    // Either fails only when a subscriber is set already, which then goes on to serve.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    let _ = tracing_log::LogTracer::init();
}
