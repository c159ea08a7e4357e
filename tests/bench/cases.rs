//! What is measured: the cases, how much of each, and what the project set itself as target.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// A 64-byte text message and its echo through an established tunnel.
    #[value(name = "echo-64")]
    Echo64,
    /// The same with 64 KiB.
    #[value(name = "echo-64k")]
    Echo64K,
    /// Connect, upgrade, verify the 101, close.
    Handshake,
    /// Connect, upgrade with version 8, read the 426 to its end, close.
    Refusal,
    /// Process memory of an idle tunnel.
    Memory,
    /// CPU of many idle tunnels that are kept alive by Pings.
    IdleCpu,
}

/// The most that the gateway may need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// As a part of what the better of nginx and HAProxy needs.
    Ratio(f64),
    /// In the case's unit.
    Absolute(f64),
}

impl Case {
    /// The cases of CPU per operation.
    pub const PER_OPERATION: [Case; 4] = [Case::Echo64, Case::Echo64K, Case::Handshake, Case::Refusal];

    pub fn title(self) -> &'static str {
        match self {
            Case::Echo64 => "64-byte echo",
            Case::Echo64K => "64-KiB echo",
            Case::Handshake => "full handshake",
            Case::Refusal => "refused version",
            Case::Memory => "idle tunnel, memory",
            Case::IdleCpu => "idle tunnels with Ping",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Case::Echo64 | Case::Echo64K | Case::Handshake | Case::Refusal => "µs",
            Case::Memory => "bytes",
            Case::IdleCpu => "% of a core",
        }
    }

    pub fn target(self) -> Target {
        match self {
            Case::Echo64 => Target::Ratio(0.95),
            Case::Echo64K => Target::Ratio(0.5),
            Case::Handshake | Case::Refusal => Target::Ratio(1.0),
            Case::Memory => Target::Absolute(2048.0),
            Case::IdleCpu => Target::Absolute(1.0),
        }
    }

    /// Operations of one round: a good third of a second of the gateway's core, so that a round is short and a
    /// scheduler's tick no matter.
    pub fn operations(self) -> u64 {
        match self {
            Case::Echo64 => 25_000,
            Case::Echo64K => 3_000,
            Case::Handshake => 5_000,
            Case::Refusal => 10_000,
            Case::Memory => 4_000,
            Case::IdleCpu => 9_000,
        }
    }
}
