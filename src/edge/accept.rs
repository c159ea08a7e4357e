//! The accept loop of a listener. Pingora's own would wrap each socket in buffers, digests and a 60-second timer before the
//! first byte is read; a refusal or a handshake is over before that pays.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora::server::ShutdownWatch;

use super::{Edge, connection};
use crate::stream::Listener;

/// How long nothing is accepted when the process is out of descriptors: others have to end first.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

impl Edge {
    /// Accepts until `stopping` turns true; what is open by then goes on. A connection is accepted and served, or left to
    /// whoever else has the socket: nothing is awaited in between.
    pub async fn accept(self: Arc<Self>, listener: &Listener, stopping: ShutdownWatch) {
        let _accepting = self.lifecycle.arrival();
        let mut watch = stopping.clone();
        // One wait for all connections: each new one would take its place in the list of those to be woken.
        let mut stop = pin!(watch.wait_for(|stopping| *stopping));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let arrival = self.lifecycle.arrival();
                    tokio::spawn(connection::serve(Arc::clone(&self), stream, peer, stopping.clone(), arrival));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    }
}

/// The client left between its SYN and our accept; the next one is none the worse for it.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
