//! Which full names a name stands for: the search list of `resolv.conf(5)`. It does not know who is asked.

/// What `resolv.conf` says of short names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// In the order in which they are put behind a name.
    pub domains: Vec<String>,
    /// A name with so many dots is asked for as it is first.
    pub ndots: usize,
}

impl Search {
    /// The names to ask for, each with its last dot, until one of them is known. One that ends in a dot is whole already.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let whole = format!("{name}.");
        let mut names: Vec<String> = Vec::with_capacity(1 + self.domains.len());
        for domain in self.domains.iter().map(|domain| domain.trim_matches('.')).filter(|domain| !domain.is_empty()) {
            let longer = format!("{name}.{domain}.");
            if longer.len() <= NAME_LENGTH_MAX && longer != whole && !names.contains(&longer) {
                names.push(longer);
            }
        }
        let is_long = name.matches('.').count() >= self.ndots;
        names.insert(if is_long { 0 } else { names.len() }, whole);
        names
    }
}

/// Whether there is no dot in a name but the last.
pub fn is_top_level(name: &str) -> bool {
    !name.trim_end_matches('.').contains('.')
}

/// With its last dot, RFC 1035 §2.3.4.
const NAME_LENGTH_MAX: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ndots: usize, name: &str, expected: &[&str]) {
        let domains = ["chat.svc.cluster.local", "svc.cluster.local", "cluster.local."].map(str::to_owned).to_vec();
        assert_eq!(Search { domains, ndots }.candidates(name), expected, "{name} with ndots {ndots}");
    }

    #[test]
    fn a_short_name_is_looked_for_in_the_search_list_first() {
        check(5, "app", &["app.chat.svc.cluster.local.", "app.svc.cluster.local.", "app.cluster.local.", "app."]);
        check(
            2,
            "app.chat",
            &[
                "app.chat.chat.svc.cluster.local.",
                "app.chat.svc.cluster.local.",
                "app.chat.cluster.local.",
                "app.chat.",
            ],
        );
    }

    #[test]
    fn a_name_with_dots_enough_is_asked_for_as_it_is_first() {
        check(
            1,
            "app.example",
            &[
                "app.example.",
                "app.example.chat.svc.cluster.local.",
                "app.example.svc.cluster.local.",
                "app.example.cluster.local.",
            ],
        );
    }

    #[test]
    fn a_name_that_ends_in_a_dot_is_whole() {
        check(5, "app.example.", &["app.example."]);
    }

    #[test]
    fn a_name_that_would_be_too_long_is_left_out() {
        let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(60)].join(".");
        check(1, &long, &[&format!("{long}.")]);
    }

    #[test]
    fn a_name_without_dots_is_top_level() {
        for (name, expected) in [("app.", true), ("app", true), ("app.example.", false), ("a.b", false)] {
            assert_eq!(is_top_level(name), expected, "{name}");
        }
    }

    #[test]
    fn without_a_search_list_there_is_one_name() {
        assert_eq!(Search::default().candidates("app"), ["app."]);
    }
}
