//! What a reload cannot change: sockets that are bound and threads that run. A new configuration is made to fit them, or
//! refused. It does not know how either came to be.

use std::fmt::Display;
use std::net::SocketAddr;

use super::Refusal;
use crate::address::Address;
use crate::config::Config;

/// What the process began with and keeps to its end.
#[derive(Debug)]
pub struct Fixed {
    threads: usize,
    admin: Option<Bound<SocketAddr>>,
    /// In the order of [`Generation::listeners`](crate::generation::Generation::listeners), which is that of the sockets.
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    name: String,
    address: Bound<Address>,
    socket_mode: u32,
}

/// Where a socket is bound.
#[derive(Clone, Copy, Debug)]
struct Bound<A> {
    /// As the file said it at the start.
    asked: A,
    /// Another one only where port 0 was asked for.
    bound: A,
}

/// A value of the new configuration that waits for the next start.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// The key's full path, such as `listener.public.listen`.
    pub key: String,
    pub in_force: String,
    pub wanted: String,
}

impl Fixed {
    /// `asked` is the configuration of the start as its file has it, `in_force` the same one with the addresses that were
    /// bound.
    pub fn new(asked: &Config, in_force: &Config) -> Fixed {
        let listeners = asked.listeners.iter().zip(&in_force.listeners).map(|(asked, in_force)| Listener {
            name: in_force.name.clone(),
            address: Bound { asked: asked.listen.clone(), bound: in_force.listen.clone() },
            socket_mode: asked.socket_mode,
        });
        let admin = asked.admin.listen.zip(in_force.admin.listen);
        Fixed {
            threads: in_force.gateway.threads,
            admin: admin.map(|(asked, bound)| Bound { asked, bound }),
            listeners: listeners.collect(),
        }
    }

    /// Brings the listeners into the order of the sockets and puts back what cannot change. Returns what was put back.
    ///
    /// # Errors
    /// When a listener is new or gone: a reload neither binds nor drops a socket.
    pub fn fit(&self, config: &mut Config) -> Result<Vec<Kept>, Refusal> {
        self.reorder_listeners(config)?;
        let mut kept = Vec::new();
        for (listener, fixed) in config.listeners.iter_mut().zip(&self.listeners) {
            let key = format!("listener.{}.listen", fixed.name);
            let Bound { asked, bound } = fixed.address.clone();
            kept.extend(keep(key, &mut listener.listen, bound, Some(asked)));
            let key = format!("listener.{}.socket_mode", fixed.name);
            let mut mode = SocketMode(listener.socket_mode);
            kept.extend(keep(key, &mut mode, SocketMode(fixed.socket_mode), None));
            listener.socket_mode = mode.0;
        }
        let (bound, asked) = (self.admin.map(|admin| admin.bound), self.admin.map(|admin| admin.asked));
        let mut admin = Admin(config.admin.listen);
        kept.extend(keep("admin.listen".to_owned(), &mut admin, Admin(bound), Some(Admin(asked))));
        config.admin.listen = admin.0;
        kept.extend(keep("gateway.threads".to_owned(), &mut config.gateway.threads, self.threads, None));
        Ok(kept)
    }

    /// An edge finds its listener by position, so the order of a new file must not matter.
    fn reorder_listeners(&self, config: &mut Config) -> Result<(), Refusal> {
        let position = |name: &str| self.listeners.iter().position(|fixed| fixed.name == name);
        let positions: Vec<Option<usize>> = config.listeners.iter().map(|new| position(&new.name)).collect();
        let is_new = |name: &&str| position(name).is_none();
        let is_gone = |name: &&str| config.listeners.iter().all(|new| new.name != *name);
        let added: Vec<&str> = config.listeners.iter().map(|new| new.name.as_str()).filter(is_new).collect();
        let removed: Vec<&str> = self.listeners.iter().map(|fixed| fixed.name.as_str()).filter(is_gone).collect();
        if !added.is_empty() || !removed.is_empty() {
            return Err(Refusal::Listeners { added: added.join(", "), removed: removed.join(", ") });
        }
        let positions: Vec<usize> = positions.into_iter().flatten().collect();
        for route in &mut config.routes {
            route.listeners.iter_mut().for_each(|listener| *listener = positions[*listener]);
        }
        config.listeners.sort_by_key(|listener| position(&listener.name));
        Ok(())
    }
}

/// Puts `in_force` back. It is worth a word unless the file says it, or says what it said at the start.
fn keep<T: PartialEq + Display>(key: String, value: &mut T, in_force: T, asked: Option<T>) -> Option<Kept> {
    let says_the_same = *value == in_force || asked.is_some_and(|asked| *value == asked);
    let wanted = value.to_string();
    *value = in_force;
    (!says_the_same).then(|| Kept { key, in_force: value.to_string(), wanted })
}

/// As the file writes it.
#[derive(PartialEq)]
struct SocketMode(u32);

impl Display for SocketMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// As the file writes it.
#[derive(PartialEq)]
struct Admin(Option<SocketAddr>);

impl Display for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::config;

    const PUBLIC: &str = "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\nmax_connections = 1\n";
    const INNER: &str = "[[listener]]\nname = 'inner'\nlisten = '127.0.0.1:8081'\nmax_connections = 2\n";

    fn config(listeners: &[&str], more: &str) -> Config {
        let text = format!(
            "{more}\n{}[[route]]\nname = 'one'\nlisteners = ['inner']\npaths = ['/one']\nupstream = 'app'\n[[route]]\nname = 'all'\n\
             upstream = 'app'\n[[upstream]]\nname = 'app'\nservers = ['127.0.0.1:9001']\n",
            listeners.concat()
        );
        config::parse("test.toml", &text, NonZeroUsize::MIN).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Began with `PUBLIC` and `INNER`; the system chose 45001 for the first and 45002 for the admin listener.
    fn fixed() -> Fixed {
        let asked = config(&[PUBLIC, INNER], "[admin]\nlisten = '127.0.0.1:0'");
        let mut in_force = asked.clone();
        in_force.listeners[0].listen = "127.0.0.1:45001".parse().unwrap();
        in_force.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 45002)));
        Fixed::new(&asked, &in_force)
    }

    fn check_kept(listeners: &[&str], more: &str, expected: &[(&str, &str, &str)]) {
        let mut new = config(listeners, more);
        let kept = fixed().fit(&mut new).unwrap();
        let expected: Vec<Kept> = expected
            .iter()
            .map(|&(key, in_force, wanted)| Kept {
                key: key.to_owned(),
                in_force: in_force.to_owned(),
                wanted: wanted.to_owned(),
            })
            .collect();
        assert_eq!(kept, expected);
        assert_eq!(new.listeners[0].listen, "127.0.0.1:45001".parse().unwrap());
        assert_eq!(new.listeners[1].listen, "127.0.0.1:8081".parse().unwrap());
        assert_eq!(new.admin.listen, Some("127.0.0.1:45002".parse().unwrap()));
        assert_eq!(new.gateway.threads, 1);
    }

    #[test]
    fn what_the_system_chose_for_port_0_stays_without_a_word() {
        check_kept(&[PUBLIC, INNER], "[admin]\nlisten = '127.0.0.1:0'", &[]);
        let chosen = PUBLIC.replace(":0'", ":45001'");
        check_kept(&[&chosen, INNER], "[admin]\nlisten = '127.0.0.1:45002'", &[]);
    }

    #[test]
    fn addresses_and_threads_stay_and_are_named() {
        let admin = "[admin]\nlisten = '127.0.0.1:0'";
        let moved = PUBLIC.replace("127.0.0.1", "127.0.0.2");
        let any_port = INNER.replace("8081", "0");
        check_kept(
            &[&moved, &any_port],
            admin,
            &[
                ("listener.public.listen", "127.0.0.1:45001", "127.0.0.2:0"),
                ("listener.inner.listen", "127.0.0.1:8081", "127.0.0.1:0"),
            ],
        );
        check_kept(&[PUBLIC, INNER], "[admin]\nlisten = 'off'", &[("admin.listen", "127.0.0.1:45002", "off")]);
        check_kept(&[PUBLIC, INNER], &format!("[gateway]\nthreads = 3\n{admin}"), &[("gateway.threads", "1", "3")]);
    }

    #[test]
    fn an_admin_listener_cannot_be_switched_on() {
        let off = config(&[PUBLIC, INNER], "[admin]\nlisten = 'off'");
        let mut new = config(&[PUBLIC, INNER], "");
        let kept = Fixed::new(&off, &off).fit(&mut new).unwrap();
        assert_eq!((kept.len(), kept[0].in_force.as_str()), (1, "off"));
        assert_eq!(new.admin.listen, None);
    }

    #[test]
    fn another_order_of_the_listeners_changes_nothing() {
        let mut new = config(&[INNER, PUBLIC], "[admin]\nlisten = '127.0.0.1:0'");
        assert_eq!(new.routes[0].listeners, [0]);
        fixed().fit(&mut new).unwrap();
        let listeners: Vec<_> = new.listeners.iter().map(|new| (new.name.as_str(), new.max_connections)).collect();
        assert_eq!(listeners, [("public", 1), ("inner", 2)]);
        assert_eq!(new.routes[0].listeners, [1]);
        assert_eq!(new.routes[1].listeners.len(), 2);
    }

    #[test]
    fn a_listener_more_or_less_is_refused_with_its_name() {
        let other = INNER.replace("'inner'", "'other'").replace("8081", "8082");
        let mut new = config(&[PUBLIC, INNER, &other], "");
        let refusal = fixed().fit(&mut new).unwrap_err().to_string();
        assert!(refusal.contains("adds `other`"), "{refusal}");

        let alone = config(&[INNER], "");
        let mut more = config(&[INNER, PUBLIC], "");
        let refusal = Fixed::new(&more, &more).fit(&mut alone.clone()).unwrap_err().to_string();
        assert!(refusal.contains("removes `public`"), "{refusal}");
        assert!(Fixed::new(&alone, &alone).fit(&mut more).is_err());
    }
}
