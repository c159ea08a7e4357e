//! Where a plain request came from, in the fields that backends read. The same rules as for upgrades, on Pingora's header.

use pingora::Result;
use pingora::http::RequestHeader;

use crate::address::ClientAddr;
use crate::dial::head::{self, BELIEVED_OF_A_PROXY, Trust};

/// # Errors
/// Never for values that a parsed head can hold; Pingora's own signature has one.
pub fn set(header: &mut RequestHeader, client: ClientAddr, host: Option<&str>, trust: Trust) -> Result<()> {
    let (address, node) = head::names(client.ip());
    let named = host.map(|host| format!("host=\"{host}\";")).unwrap_or_default();
    extend(header, "X-Forwarded-For", &address, trust)?;
    extend(header, "Forwarded", &format!("for={node};{named}proto=http"), trust)?;
    for (name, own) in [("X-Forwarded-Proto", Some("http")), ("X-Forwarded-Host", host)] {
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
    Ok(())
}

/// One line of the list so far and our own element, or our own alone.
fn extend(header: &mut RequestHeader, name: &'static str, own: &str, trust: Trust) -> Result<()> {
    let mut elements: Vec<String> = match trust {
        Trust::Client => Vec::new(),
        Trust::Proxy => {
            header.headers.get_all(name).iter().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
        }
    };
    elements.push(own.to_owned());
    header.insert_header(name, elements.join(", "))
}
