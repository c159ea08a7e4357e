//! Diagnostics on standard error through `tracing`, Pingora's own lines included. The access log is another thing.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::model::{Log, LogFormat, LogLevel};

/// The running diagnostics, whose level and format can be changed.
pub struct Diagnostics {
    filter: reload::Handle<Targets, Registry>,
    layer: reload::Handle<Box<dyn Layer<Registry> + Send + Sync>, Registry>,
}

/// From here on every line goes where the configuration says. A second call changes nothing.
pub fn start(log: &Log) -> Diagnostics {
    // Two handles, because a layer cannot be replaced together with its filter.
    let (filter, filter_handle) = reload::Layer::new(filter(log.level));
    let (layer, layer_handle) = reload::Layer::new(layer(log.format));
    // Either fails only when a subscriber is set already, which then goes on to serve.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    let _ = tracing_log::LogTracer::init();
    Diagnostics { filter: filter_handle, layer: layer_handle }
}

impl Diagnostics {
    /// From here on level and format are these.
    pub fn switch(&self, log: &Log) {
        // Either fails only when another subscriber serves, which no configuration changes.
        let _ = self.filter.reload(filter(log.level));
        let _ = self.layer.reload(layer(log.format));
    }
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Pingora says at `info` what is ours to say; its warnings and errors are kept.
    let pingora = level.min(if level >= LevelFilter::DEBUG { level } else { LevelFilter::WARN });
    // The libraries below say several lines a connection at `debug`.
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    Targets::new().with_default(others).with_target("pingora", pingora).with_target("wsgate", level)
}

fn layer(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        LogFormat::Text => {
            fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    }
}
