//! From Pingora's errors to our reasons: the only place that reads them.

use pingora::{Error, ErrorSource, ErrorType};

use crate::reason::Reason;

/// Why a plain request got no answer of a backend, or `None` where the client itself went away.
pub fn reason(error: &Error) -> Option<Reason> {
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Reason::HeadTimeout),
        // Pingora's own name for a body that breaks its chunks.
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader | ErrorType::Custom(_)) => Some(Reason::HeadMalformed),
        (ErrorSource::Downstream, _) => None,
        (_, ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            Some(Reason::BackendTimeout)
        }
        (_, ErrorType::TLSHandshakeFailure) => Some(Reason::BackendTls),
        _ if is_of_connecting(error) => Some(Reason::BackendUnavailable),
        // Without a server to ask, the phases end with this status.
        (_, ErrorType::HTTPStatus(503)) => Some(Reason::BackendUnavailable),
        (_, _) => Some(Reason::BackendHandshakeWrong),
    }
}

/// Whether no connection was made, so that the server saw nothing of the request.
pub fn is_of_connecting(error: &Error) -> bool {
    use ErrorType::{ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, SocketError, TLSHandshakeFailure};
    matches!(
        error.etype(),
        ConnectError | ConnectNoRoute | ConnectRefused | ConnectTimedout | SocketError | TLSHandshakeFailure
    )
}
