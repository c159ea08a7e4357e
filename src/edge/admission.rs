//! Whether there is room: for a connection, and for the tunnel that an upgrade asks for. What is shared with other gateways
//! is asked last, and only where this gateway alone would say yes.

use super::Edge;
use super::arrival::Arrival;
use super::refusal::Why;
use crate::caller::Trust;
use crate::config::model::ClientAddress;
use crate::fleet::{Question, Verdict};
use crate::generation::{Generation, RouteHandle};
use crate::limits::{Client, ClientSlot, Full, Occupied, Slot};
use crate::policy::Permit;
use crate::reason::Reason;

/// So many clients over a limit are told at once; a flood beyond it is closed without a word, because each word holds a
/// descriptor for a while.
pub const TURNED_AWAY_MAX: usize = 256;

/// What a connection takes up, from its accept to its end.
pub enum Room {
    Taken(Occupied),
    /// It is too much, and is told so.
    Full {
        why: Reason,
        _told: Slot,
    },
}

impl Room {
    /// Among all of the listener. `None` where there is not even room to be told.
    pub fn of_all(edge: &Edge, generation: &Generation) -> Option<Room> {
        match generation.listeners[edge.listener].connections.take() {
            Some(slot) => Some(Room::Taken(slot.into())),
            None => Room::full(edge, Reason::LimitConnections),
        }
    }

    /// Among those of its client, once it is known who that is.
    pub fn of_client(self, arrival: &Arrival<'_>) -> Option<Room> {
        let Room::Taken(occupied) = self else { return Some(self) };
        let Some(client) = client_of_connection(arrival) else { return Some(Room::Taken(occupied)) };
        let per_client = &arrival.generation.listeners[arrival.edge.listener].connections_per_client;
        match per_client.take(client) {
            Ok(taken) => {
                let of_client = taken.map(|taken| taken.slot);
                Some(Room::Taken(Occupied { of_client, ..occupied }))
            }
            Err(Full) => Room::full(arrival.edge, Reason::LimitClientConnections),
        }
    }

    fn full(edge: &Edge, why: Reason) -> Option<Room> {
        edge.turned_away.take().map(|told| Room::Full { why, _told: told })
    }
}

/// A proxy that names another client with each request is not limited as one client.
fn client_of_connection(arrival: &Arrival<'_>) -> Option<Client> {
    let rules = arrival.generation.listener(arrival.edge.listener);
    let is_of_many = rules.client_address == ClientAddress::Forwarded && arrival.trust() == Trust::Proxy;
    if is_of_many { None } else { client(arrival) }
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
