//! Whether there is room: for a connection, and for the tunnel that an upgrade asks for. What is shared with other gateways
//! is asked last, and only where this gateway alone would say yes.

use super::Edge;
use super::arrival::Arrival;
use super::refusal::Why;
use crate::fleet::{Question, Verdict};
use crate::generation::RouteHandle;
use crate::limits::{Client, ClientSlot, Full, Occupied};
use crate::policy::Permit;
use crate::reason::Reason;

/// So many clients over a limit are told at once; a flood beyond it is closed without a word, because each word holds a
/// descriptor for a while.
pub const TURNED_AWAY_MAX: usize = 256;

/// Room for a connection, from its accept to its end.
pub fn connection(arrival: &Arrival<'_>) -> Result<Occupied, Reason> {
    let listener = &arrival.generation.listeners[arrival.edge.listener];
    let of_all = listener.connections.take().ok_or(Reason::LimitConnections)?;
    let of_client = match client(arrival) {
        Some(client) => listener.connections_per_client.take(client).map_err(|Full| Reason::LimitClientConnections)?,
        None => None,
    };
    Ok(Occupied { of_all, of_client: of_client.map(|taken| taken.slot) })
}

/// Room for a tunnel. The client is asked for first: what it may not have takes nothing from others.
pub async fn tunnel(arrival: &Arrival<'_>, permit: &Permit) -> Result<Occupied, Why<'static>> {
    let route = arrival.generation.route(permit);
    let of_client = match client(arrival) {
        Some(client) => tunnel_of(arrival, route, client).await?,
        None => None,
    };
    let of_all = route.tunnels.take().ok_or(Reason::LimitTunnels)?;
    Ok(Occupied { of_all, of_client })
}

/// `None` for whoever has no limits of its own.
fn client(arrival: &Arrival<'_>) -> Option<Client> {
    arrival.client.ip().and_then(|address| arrival.generation.clients.identify(address))
}

async fn tunnel_of(
    arrival: &Arrival<'_>,
    route: &RouteHandle,
    client: Client,
) -> Result<Option<ClientSlot>, Why<'static>> {
    let limits = &route.per_client;
    if let Some(handshakes) = &limits.handshakes {
        handshakes.take(client, arrival.at).map_err(|wait| too_fast(wait, None))?;
    }
    let taken = limits.tunnels.take(client).map_err(|Full| Reason::LimitClientTunnels)?;
    let question = Question {
        route: &route.name,
        client,
        pace: limits.handshakes.as_ref().map(|handshakes| handshakes.pace),
        tunnels: taken.as_ref().and_then(|taken| Some((limits.tunnels.limit()?, taken.count))),
    };
    match ask(arrival.edge, &question).await {
        Verdict::Yes => Ok(taken.map(|taken| taken.slot)),
        Verdict::TooMany => Err(Why { detail: IN_THE_FLEET, ..Reason::LimitClientTunnels.into() }),
        Verdict::TooFast { wait } => {
            // The token was for a tunnel that is not opened.
            if let Some(handshakes) = &limits.handshakes {
                handshakes.put_back(client);
            }
            Err(too_fast(wait, IN_THE_FLEET))
        }
    }
}

/// Where nobody can be asked, what this gateway knows has to do.
async fn ask(edge: &Edge, question: &Question<'_>) -> Verdict {
    edge.fleet.ask(question).await.unwrap_or(Verdict::Yes)
}

const IN_THE_FLEET: Option<&str> = Some("counted over all gateways");

fn too_fast(wait: std::time::Duration, detail: Option<&'static str>) -> Why<'static> {
    Why { reason: Reason::LimitClientHandshakes, detail, wait: Some(wait) }
}
