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
    /// A 64-byte text message and its echo through a tunnel in TLS 1.3.
    #[value(name = "tls-echo-64")]
    TlsEcho64,
    /// Connect, a full handshake of TLS 1.3, upgrade, verify the 101, close.
    TlsHandshake,
    /// The same with a session ticket that an earlier connection got.
    TlsResumed,
    /// Process memory of an idle tunnel in TLS 1.3.
    TlsMemory,
    /// A 64-byte text message and its echo through one of several tunnels on a connection (RFC 8441).
    #[value(name = "http2-echo-64")]
    Http2Echo64,
    /// Process memory of an idle tunnel that shares its connection with others.
    Http2Memory,
}

/// What lies between the client's TCP and the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Plain,
    Tls,
    /// In cleartext, with prior knowledge.
    Http2,
}

/// The most that the gateway may need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// As a part of what the better of nginx and HAProxy needs.
    Ratio(f64),
    /// In the case's unit.
    Absolute(f64),
}

/// What a case's figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    CpuOfOperation,
    MemoryOfTunnel,
    CpuOfRest,
}

impl Carrier {
    pub const ALL: [Carrier; 3] = [Carrier::Plain, Carrier::Tls, Carrier::Http2];

    pub fn title(self) -> &'static str {
        match self {
            Carrier::Plain => "Plain TCP",
            Carrier::Tls => "TLS 1.3",
            Carrier::Http2 => "HTTP/2",
        }
    }
}

impl Case {
    /// In the order of the tables.
    pub const ALL: [Case; 12] = [
        Case::Echo64,
        Case::Echo64K,
        Case::Handshake,
        Case::Refusal,
        Case::Memory,
        Case::IdleCpu,
        Case::TlsEcho64,
        Case::TlsHandshake,
        Case::TlsResumed,
        Case::TlsMemory,
        Case::Http2Echo64,
        Case::Http2Memory,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Case::Echo64 => "64-byte echo",
            Case::Echo64K => "64-KiB echo",
            Case::Handshake => "full handshake",
            Case::Refusal => "refused version",
            Case::Memory => "idle tunnel, memory",
            Case::IdleCpu => "idle tunnels with Ping",
            Case::TlsEcho64 => "64-byte echo, TLS",
            Case::TlsHandshake => "full handshake, TLS",
            Case::TlsResumed => "resumed handshake, TLS",
            Case::TlsMemory => "idle tunnel, memory, TLS",
            Case::Http2Echo64 => "64-byte echo, HTTP/2",
            Case::Http2Memory => "idle tunnel, memory, HTTP/2",
        }
    }

    pub fn carrier(self) -> Carrier {
        match self {
            Case::Echo64 | Case::Echo64K | Case::Handshake | Case::Refusal | Case::Memory | Case::IdleCpu => {
                Carrier::Plain
            }
            Case::TlsEcho64 | Case::TlsHandshake | Case::TlsResumed | Case::TlsMemory => Carrier::Tls,
            Case::Http2Echo64 | Case::Http2Memory => Carrier::Http2,
        }
    }

    pub fn quantity(self) -> Quantity {
        match self {
            Case::Memory | Case::TlsMemory | Case::Http2Memory => Quantity::MemoryOfTunnel,
            Case::IdleCpu => Quantity::CpuOfRest,
            Case::Echo64
            | Case::Echo64K
            | Case::Handshake
            | Case::Refusal
            | Case::TlsEcho64
            | Case::TlsHandshake
            | Case::TlsResumed
            | Case::Http2Echo64 => Quantity::CpuOfOperation,
        }
    }

    pub fn unit(self) -> &'static str {
        match self.quantity() {
            Quantity::CpuOfOperation => "µs",
            Quantity::MemoryOfTunnel => "bytes",
            Quantity::CpuOfRest => "% of a core",
        }
    }

    pub fn target(self) -> Target {
        match self {
            Case::Echo64 => Target::Ratio(0.95),
            Case::Echo64K => Target::Ratio(0.5),
            Case::Memory => Target::Absolute(2048.0),
            Case::IdleCpu => Target::Absolute(1.0),
            Case::TlsMemory => Target::Absolute(15_360.0),
            Case::Handshake
            | Case::Refusal
            | Case::TlsEcho64
            | Case::TlsHandshake
            | Case::TlsResumed
            | Case::Http2Echo64
            | Case::Http2Memory => Target::Ratio(1.0),
        }
    }

    /// Operations of one round: a good third of a second of the gateway's core, so that a round is short and a
    /// scheduler's tick no matter.
    pub fn operations(self) -> u64 {
        match self {
            Case::Echo64 | Case::TlsEcho64 | Case::Http2Echo64 => 25_000,
            Case::Echo64K => 3_000,
            Case::Handshake => 5_000,
            Case::Refusal => 10_000,
            Case::TlsHandshake => 1_500,
            Case::TlsResumed => 2_000,
            Case::Memory | Case::TlsMemory | Case::Http2Memory => 4_000,
            Case::IdleCpu => 9_000,
        }
    }
}
