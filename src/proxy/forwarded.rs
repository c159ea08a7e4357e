//! Where a plain request came from, in the fields that backends read. The same rules as for upgrades, on Pingora's header.

use pingora::Result;
use pingora::http::RequestHeader;

use crate::caller::Trust;
use crate::dial::head::{self, BELIEVED_OF_A_PROXY, Certified, Origin};

/// # Errors
/// Never for values that a parsed head can hold; Pingora's own signature has one.
pub fn set(header: &mut RequestHeader, host: Option<&str>, origin: Origin<'_>) -> Result<()> {
    let (trust, scheme, peer) = (origin.trust, origin.scheme.as_str(), origin.peer.ip());
    let (address, node) = head::names(peer);
    let named = host.map(|host| format!("host=\"{host}\";")).unwrap_or_default();
    // As for upgrades: a proxy on this machine is not added to what it says.
    let may_stay = trust == Trust::Proxy && peer.is_none();
    let forwarded = format!("for={node};{named}proto={scheme}");
    for (name, own) in [("X-Forwarded-For", address), ("Forwarded", forwarded)] {
        let is_added = !(may_stay && header.headers.contains_key(name));
        extend(header, name, is_added.then_some(own), trust)?;
    }
    for (name, own) in [("X-Forwarded-Proto", Some(scheme)), ("X-Forwarded-Host", host)] {
        let said = trust == Trust::Proxy && header.headers.contains_key(name);
        if let (false, Some(own)) = (said, own) {
            header.insert_header(name, own)?;
        }
    }
    if trust == Trust::Client {
        for name in BELIEVED_OF_A_PROXY {
            header.remove_header(name);
        }
    }
    certify(header, origin.certified)
}

/// What the client says of a certificate goes, and what is known of one comes.
fn certify(header: &mut RequestHeader, certified: Certified<'_>) -> Result<()> {
    let names = header.headers.keys().map(|name| name.as_str().to_owned());
    let made_up: Vec<String> = names.filter(|name| head::is_reserved(name, certified.reserved)).collect();
    for name in made_up {
        header.remove_header(name.as_str());
    }
    match certified.field {
        Some((name, subject)) => header.insert_header(name.to_owned(), subject),
        None => Ok(()),
    }
}

/// One line of the list so far and our own element, or either alone.
fn extend(header: &mut RequestHeader, name: &'static str, own: Option<String>, trust: Trust) -> Result<()> {
    let mut elements: Vec<String> = match trust {
        Trust::Client => Vec::new(),
        Trust::Proxy => {
            header.headers.get_all(name).iter().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
        }
    };
    elements.extend(own);
    header.insert_header(name, elements.join(", "))
}
