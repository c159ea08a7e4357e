//! How a frame can break RFC 6455.

/// The first rule that a frame broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// RFC 6455 §5.2: reserved for a future that has not come.
    #[error("reserved opcode")]
    Opcode,
    /// RFC 6455 §5.2: no extension that was agreed on gives the bit a meaning.
    #[error("reserved bit without an extension")]
    ReservedBit,
    /// RFC 6455 §5.1: a client masks every frame.
    #[error("frame of a client without a mask")]
    Unmasked,
    /// RFC 6455 §5.1: a server masks none.
    #[error("frame of a server with a mask")]
    Masked,
    /// RFC 6455 §5.2: more bytes for the length than it needs.
    #[error("length not in its shortest form")]
    LongLength,
    /// RFC 6455 §5.2: the highest bit of a 64-bit length.
    #[error("length above 2^63")]
    LengthTooLarge,
    /// RFC 6455 §5.5.
    #[error("control frame above 125 bytes")]
    ControlTooLarge,
    /// RFC 6455 §5.5.
    #[error("fragmented control frame")]
    ControlFragmented,
    /// RFC 6455 §5.4: nothing to continue.
    #[error("continuation without a message")]
    Continuation,
    /// RFC 6455 §5.4: the fragments of one message do not mix with another.
    #[error("message within a fragmented message")]
    Interleaved,
    /// RFC 6455 §5.5.1: one byte is half a code.
    #[error("close frame with half a code")]
    ClosePayload,
    /// RFC 6455 §7.4: a code that may not be sent.
    #[error("close code that may not be sent")]
    CloseCode,
    /// RFC 6455 §5.5.1: no data follows a Close, nor another one.
    #[error("frame after a close frame")]
    AfterClose,
}
