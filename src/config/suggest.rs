//! "Did you mean": the known word that is nearest to one that is not known. It does not know what the words are for.

/// The known word that a person most likely meant, if any is near enough to say so.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = normal(word);
    // One slip in a short word, one in three letters of a longer one.
    let distance_max = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn normal(word: &str) -> String {
    word.to_lowercase().replace('_', "-")
}

/// `` `a`, `b`, `c` ``
pub fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, known: &[&'static str], expected: Option<&str>) {
        assert_eq!(nearest(word, known.iter().copied()), expected, "{word}");
    }

    #[test]
    fn finds_a_slip_of_the_finger() {
        check("lisen", &["name", "listen"], Some("listen"));
        check("uptsream", &["upstream", "hosts"], Some("upstream"));
        check("header-limit", &["header_limit", "tries"], Some("header_limit"));
    }

    #[test]
    fn prefers_the_nearer_word() {
        check("tcp", &["udp", "tcp"], Some("tcp"));
        check("routes", &["routers", "route"], Some("routers"));
    }

    #[test]
    fn stays_silent_where_nothing_is_near() {
        check("colour", &["name", "listen"], None);
        check("", &["name"], None);
    }
}
