//! One route's rules, ready to be asked: which requests it is for, what it serves, what it relaxes.

use crate::config::model;
use crate::dialect::Dialect;
use crate::handshake::VersionList;
use crate::handshake::request::Head;
use crate::reason::Reason;

/// A route of the configuration with the list that its clients are told.
#[derive(Debug)]
pub struct Route {
    rules: model::Route,
    versions: VersionList,
}

impl Route {
    pub fn new(rules: &model::Route) -> Route {
        Route { rules: rules.clone(), versions: VersionList::new(&rules.versions.accept) }
    }

    pub fn rules(&self) -> &model::Route {
        &self.rules
    }

    pub fn name(&self) -> &str {
        &self.rules.name
    }

    pub fn versions(&self) -> &VersionList {
        &self.versions
    }

    pub fn accepts(&self, version: Dialect) -> bool {
        self.rules.versions.accept.contains(&version)
    }

    /// Listener, host and path; a request without a host matches only a route for any host.
    pub fn matches(&self, listener: usize, head: &Head<'_>) -> bool {
        let host = head.host.map(|host| host.name);
        let host_matches = self.rules.hosts.is_empty()
            || host.is_some_and(|host| self.rules.hosts.iter().any(|pattern| pattern.matches(host)));
        host_matches
            && self.rules.listeners.contains(&listener)
            && self.rules.paths.iter().any(|pattern| pattern.matches(head.path))
    }

    /// Whether the route counts this reason instead of refusing for it.
    pub fn relaxes(&self, reason: Reason) -> bool {
        match reason {
            Reason::VersionUnsupported | Reason::VersionMissing | Reason::VersionMalformed => {
                self.rules.versions.mode == model::Mode::Observe
            }
            _ => self.rules.handshake.relax.iter().any(|&check| reason_of(check) == reason),
        }
    }
}

/// The reason that a relaxable check refuses with.
pub fn reason_of(check: model::Check) -> Reason {
    match check {
        model::Check::MethodNotGet => Reason::MethodNotGet,
        model::Check::HttpVersionTooOld => Reason::HttpVersionTooOld,
        model::Check::ConnectionTokenMissing => Reason::ConnectionTokenMissing,
        model::Check::UpgradeTokenMissing => Reason::UpgradeTokenMissing,
        model::Check::UpgradeTokenAmbiguous => Reason::UpgradeTokenAmbiguous,
        model::Check::HeaderNominated => Reason::HeaderNominated,
        model::Check::KeyMissing => Reason::KeyMissing,
        model::Check::KeyMalformed => Reason::KeyMalformed,
        model::Check::OriginRefused => Reason::OriginRefused,
        model::Check::SubprotocolRefused => Reason::SubprotocolRefused,
        model::Check::ExtensionRefused => Reason::ExtensionRefused,
        model::Check::BackendHandshakeWrong => Reason::BackendHandshakeWrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relaxable_check_has_the_name_of_its_reason() {
        for check in model::Check::ALL {
            assert_eq!(check.name(), reason_of(check).code());
        }
    }
}
