//! TLS with a client, between its accept and its first head. It does not know what is said behind.

use super::Edge;
use super::refusal::{self, Client};
use crate::answer;
use crate::generation::Generation;
use crate::stream::Stream;
use crate::tls::{Failure, Met, NotAccepted};

/// A connection on which heads can be read, and whom it is with.
pub struct Secured {
    pub stream: Stream,
    /// `None` where the listener's clients speak plainly.
    pub met: Option<Met>,
}

/// `None` for a client with which TLS could not be agreed on: it has been told as far as it can be, and counted.
pub async fn secure(edge: &Edge, generation: &Generation, stream: Stream) -> Option<Secured> {
    let rules = generation.listener(edge.listener);
    let Some(acceptor) = generation.secured.listener(edge.listener) else {
        // A listener with rules has what they come to; one without them speaks plainly.
        return rules.tls.is_none().then_some(Secured { stream, met: None });
    };
    let observer = edge.current.observer();
    match acceptor.accept(stream).await {
        Ok(accepted) => {
            observer.tls_agreed(&rules.name, accepted.met.version, accepted.met.is_resumed);
            Some(Secured { stream: Stream::from(accepted.stream), met: Some(accepted.met) })
        }
        Err(NotAccepted { failure, detail, stream }) => {
            tracing::debug!(listener = rules.name, reason = failure.as_str(), detail, "no TLS with a client");
            observer.tls_failed(&rules.name, failure.as_str());
            if let Some(mut stream) = stream {
                let last = if failure == Failure::NotTls { answer::not_tls() } else { Vec::new() };
                refusal::send(Client::Unread(&mut stream), &last).await;
            }
            None
        }
    }
}
