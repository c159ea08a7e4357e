//! Configuration: TOML text in, a [`Config`] out, or every problem with it. Pure: it reads no files, no environment and no
//! clock, and resolves no names. Nothing else in the gateway knows TOML.

pub mod file;
pub mod location;
pub mod model;
pub mod pattern;
pub mod problem;
pub mod units;

mod bounds;
mod choice;
mod print;
mod read;
mod resolve;
mod shape;
mod suggest;

use std::num::NonZeroUsize;
use std::ops::Range;

pub use choice::Choice;
pub use model::Config;
pub use print::print;
pub use problem::{Look, Problem, ProblemCode, Problems};

/// Reads a configuration. `name` is what problems call the file, `cores` what `threads = 0` stands for, as
/// [`std::thread::available_parallelism`] gives it.
///
/// # Errors
/// All problems of the text, not only the first.
pub fn parse(name: &str, text: &str, cores: NonZeroUsize) -> Result<Config, Problems> {
    let reading = read::read(text);
    let resolution = resolve::resolve(&reading, cores);
    let mut problems = reading.problems;
    let mut more = resolution.problems;
    // Where the syntax is broken, nobody can say what the author left out; a line may be half read, and what the parser
    // made up to go on has no place in the text.
    let broken = problems.iter().filter(|problem| problem.code == ProblemCode::Syntax);
    let broken: Vec<Range<usize>> = broken.map(|problem| lines_of(text, &problem.span)).collect();
    if !broken.is_empty() {
        let is_sound = |problem: &Problem| {
            let at = &problem.span;
            !at.is_empty() && !broken.iter().any(|lines| lines.contains(&at.start))
        };
        problems.retain(|problem| problem.code == ProblemCode::Syntax || is_sound(problem));
        more.retain(|problem| problem.code.is_local() && is_sound(problem));
    }
    problems.append(&mut more);
    match resolution.config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems::new(name, text, problems)),
    }
}

/// Every key that a file may have, with its path: `gateway.threads`, `route.tunnel.max_age`.
pub fn key_paths() -> Vec<String> {
    read::shape().key_paths()
}

/// The lines that a span touches, their ends included.
fn lines_of(text: &str, span: &Range<usize>) -> Range<usize> {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    let after = &text.as_bytes()[span.end.min(text.len())..];
    let is_end = |byte: &u8| *byte == b'\n';
    let start = before.iter().rposition(is_end).map_or(0, |end| end + 1);
    let end = after.iter().position(is_end).map_or(text.len(), |end| span.end + end);
    start..end.max(start) + 1
}

#[cfg(test)]
mod tests {
    use crate::dialect::Dialect;
    use std::time::Duration;

    use super::*;

    const MINIMAL: &str = "
[[listener]]
name = 'public'
listen = '127.0.0.1:8080'

[[route]]
name = 'all'
upstream = 'app'

[[upstream]]
name = 'app'
servers = ['127.0.0.1:9001']
";

    fn cores() -> NonZeroUsize {
        NonZeroUsize::new(6).unwrap()
    }

    fn good(text: &str) -> Config {
        parse("test.toml", text, cores()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Replaces one line of [`MINIMAL`].
    fn changed(line: &str, by: &str) -> String {
        assert!(MINIMAL.contains(line), "{line}");
        MINIMAL.replace(line, by)
    }

    fn check_codes(text: &str, expected: &[ProblemCode]) {
        let problems = parse("test.toml", text, cores()).unwrap_err();
        let codes: Vec<ProblemCode> = problems.as_slice().iter().map(|problem| problem.code).collect();
        assert_eq!(codes, expected, "{problems}");
    }

    #[test]
    fn the_least_configuration_gets_every_default() {
        let config = good(MINIMAL);
        assert_eq!(config.gateway.threads, 6);
        assert_eq!(config.admin.listen, Some("127.0.0.1:9090".parse().unwrap()));
        assert_eq!(config.listeners[0].header_limit, 16 * 1024);
        assert_eq!(config.routes[0].listeners, [0]);
        assert!(config.routes[0].hosts.is_empty());
        assert_eq!(config.routes[0].paths, [pattern::PathPattern::root()]);
        assert_eq!(config.routes[0].versions.accept, [Dialect::Rfc6455]);
        assert_eq!(config.routes[0].tunnel.idle_timeout, Some(Duration::from_secs(300)));
        assert_eq!(config.upstreams[0].servers[0].weight, 1);
    }

    #[test]
    fn threads_of_the_file_win_over_the_cores() {
        assert_eq!(good(&format!("[gateway]\nthreads = 2\n{MINIMAL}")).gateway.threads, 2);
        assert_eq!(good(&format!("[gateway]\nthreads = 0\n{MINIMAL}")).gateway.threads, 6);
    }

    #[test]
    fn admin_can_be_off() {
        assert_eq!(good(&format!("[admin]\nlisten = 'off'\n{MINIMAL}")).admin.listen, None);
    }

    #[test]
    fn optional_keys_of_a_tunnel_can_be_off() {
        let off = "idle_timeout = 'off'\nping_interval = 'off'\nmax_age = 'off'\nmax_frame = 'off'";
        let text = changed("upstream = 'app'", &format!("upstream = 'app'\n[route.tunnel]\n{off}"));
        let tunnel = good(&text).routes[0].tunnel;
        assert_eq!(tunnel.idle_timeout, None);
        assert_eq!((tunnel.ping_interval, tunnel.max_age, tunnel.max_frame_bytes), (None, None, None));
    }

    #[test]
    fn a_route_accepts_what_it_says_whatever_its_upstream_speaks() {
        let accept = changed("upstream = 'app'", "upstream = 'app'\nversions.accept = [7, 13, 0, 'hixie-75', 8]");
        let config = good(&accept.replace("servers =", "versions = [0, 8]\nservers ="));
        let names = |list: &[Dialect]| list.iter().map(|version| version.name()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&config.routes[0].versions.accept), "7 13 0 hixie-75 8");
        let model::Spoken::Listed(spoken) = &config.upstreams[0].versions else { panic!() };
        assert_eq!(names(spoken), "0 8");
        let auto = good(&accept.replace("servers =", "versions = 'auto'\nservers ="));
        assert_eq!(auto.upstreams[0].versions, model::Spoken::Auto);
    }

    #[test]
    fn a_blind_route_has_no_bridge() {
        let blind = "upstream = 'app'\nversions.accept = [13, 8]\ntunnel.frames = 'blind'";
        let text = changed("upstream = 'app'", blind);
        check_codes(&text, &[ProblemCode::NoBridge]);
        check_codes(&text.replace("servers =", "versions = 'auto'\nservers ="), &[ProblemCode::NoBridge]);
        good(&text.replace("servers =", "versions = [8, 13]\nservers ="));
    }

    #[test]
    fn the_default_spread_is_no_longer_than_the_timeout() {
        let drain = good(&format!("[gateway.drain]\ntimeout = '2s'\n{MINIMAL}")).gateway.drain;
        assert_eq!(drain.spread, Duration::from_secs(2));
    }

    #[test]
    fn problems_come_all_at_once_in_the_order_of_the_file() {
        let text = "
[gateway]
thread = 1
[[listener]]
name = 1
listen = 'x'
[[route]]
upstream = 'b'
[[upstream]]
name = 'a'
servers = []
";
        check_codes(
            text,
            &[
                ProblemCode::UnknownKey,
                ProblemCode::WrongType,
                ProblemCode::BadAddress,
                ProblemCode::MissingKey,
                ProblemCode::UnknownUpstream,
                ProblemCode::EmptyList,
            ],
        );
    }

    #[test]
    fn a_key_that_is_misspelt_or_of_a_wrong_type_is_not_called_missing_too() {
        check_codes(&changed("listen = '127.0.0.1:8080'", "lisen = '127.0.0.1:8080'"), &[ProblemCode::UnknownKey]);
        check_codes(&changed("listen = '127.0.0.1:8080'", "listen = 8080"), &[ProblemCode::WrongType]);
        check_codes(&changed("servers = ['127.0.0.1:9001']", "servers = [9001]"), &[ProblemCode::WrongType]);
        check_codes(&changed("[[listener]]", "[[listner]]"), &[ProblemCode::UnknownKey]);
        check_codes(&changed("[[listener]]", "[listener]"), &[ProblemCode::WrongType]);
    }

    #[test]
    fn a_misspelt_upstream_is_not_called_unused_too() {
        check_codes(&changed("upstream = 'app'", "upstream = 'ap'"), &[ProblemCode::UnknownUpstream]);
    }

    #[test]
    fn broken_syntax_hides_only_what_depends_on_the_rest() {
        let text = "[[listener]]\nname = 'x\nlisten = = 1\n[log]\nlevel = 'inof'\n[[route]]\nupstream = 'none'\n";
        check_codes(text, &[ProblemCode::Syntax, ProblemCode::Syntax, ProblemCode::UnknownChoice]);
    }

    #[test]
    fn routes_together_can_hide_a_later_one() {
        let hidden = "
[[listener]]
name = 'public'
listen = '127.0.0.1:0'
[[listener]]
name = 'inner'
listen = '127.0.0.1:0'
[[route]]
name = 'one'
listeners = ['public']
upstream = 'app'
[[route]]
name = 'two'
listeners = ['inner']
hosts = ['*.example.com']
upstream = 'app'
[[route]]
name = 'three'
hosts = ['a.example.com']
paths = ['/ws', '=/x']
upstream = 'app'
[[upstream]]
name = 'app'
servers = ['127.0.0.1:9001']
";
        check_codes(hidden, &[ProblemCode::UnreachableRoute]);
        good(&hidden.replace("'a.example.com'", "'a.example.org'"));
        good(&hidden.replace("hosts = ['a.example.com']", ""));
        good(&hidden.replace("'*.example.com'", "'*.a.example.com'"));
    }

    #[test]
    fn listeners_collide_where_the_system_would_not_bind_both() {
        let second = |listen: &str| format!("{MINIMAL}[[listener]]\nname = 'two'\nlisten = '{listen}'\n");
        check_codes(&second("127.0.0.1:8080"), &[ProblemCode::DuplicateListen]);
        check_codes(&second("0.0.0.0:8080"), &[ProblemCode::DuplicateListen]);
        check_codes(&second("127.0.0.1:9090"), &[ProblemCode::DuplicateListen]);
        good(&second("127.0.0.2:8080"));
        good(&second("[::1]:8080"));
        good(&second("127.0.0.1:0"));
        good(&format!("[admin]\nlisten = 'off'\n{}", second("127.0.0.1:9090")));
    }

    #[test]
    fn prints_what_parses_to_an_equal_configuration() {
        let several = "
[gateway]
upgrade_socket = '/run/x\"y'
[log]
access = '/var/log/wsgate/access.log'
[admin]
listen = 'off'
[limits]
exempt = ['10.0.0.0/8']
[limits.shared]
redis = 'redis://:p%22w@[::1]:6379/1'
password_file = '/etc/x y'
prefix = '~'
[[listener]]
name = 'six'
connections_per_client = 3
listen = '[::]:443'
trusted_proxies = ['10.0.0.0/8', '2001:db8::/32']
[[route]]
name = 'a'
hosts = ['[::1]', '*.a.b']
paths = ['=/x', '/y/']
upstream = 'two'
listeners = ['six']
[route.handshake]
origins = ['null', 'http://[::1]:3000']
relax = ['origin-refused']
[route.tunnel]
idle_timeout = 'off'
max_frame = '1000B'
ping_timeout = '10s'
[route.limits]
tunnels = 3
handshakes_per_client = '5/m'
[[upstream]]
name = 'two'
balance = 'client-hash'
servers = ['[::1]:1', { address = '1.2.3.4:5', max_tunnels = 7 }]
health = { check = 'websocket', interval = '1500ms' }
";
        for text in [MINIMAL, several] {
            let config = good(text);
            assert_eq!(good(&print(&config)), config, "{}", print(&config));
        }
    }

    fn check_no_panic(text: &str) {
        match parse("test.toml", text, cores()) {
            Ok(config) => assert_eq!(good(&print(&config)), config),
            Err(problems) => {
                assert!(!problems.as_slice().is_empty());
                assert!(!problems.render(Look::Plain).is_empty());
            }
        }
    }

    #[test]
    fn a_position_is_where_an_editor_shows_it() {
        let problems = parse("test.toml", "[log]\r\n\u{e9} = 1\nlevel = 'x'\n", cores()).unwrap_err();
        let position = |code| {
            let problem = problems.as_slice().iter().find(|problem| problem.code == code).unwrap();
            problems.position(&problem.span)
        };
        assert_eq!(position(ProblemCode::Syntax), (2, 1));
        assert_eq!(position(ProblemCode::UnknownChoice), (3, 9));
        assert_eq!(problems.position(&(1000..2000)), (4, 1));
    }

    #[test]
    fn spans_at_odd_places_can_be_shown() {
        for text in
            ["", "\u{feff}", "\u{feff}[log]\r\nlevel = 'x'\r\n", "x", "x = '", "\u{e9} = 1", "a = '\u{1f600}\n", "\0"]
        {
            check_no_panic(text);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            check_no_panic(&text);
        }

        #[test]
        fn no_damage_makes_it_panic(cut in 0..MINIMAL.len(), length in 0_usize..40, with in "[\\PC\n]{0,5}") {
            let end = (cut + length).min(MINIMAL.len());
            check_no_panic(&format!("{}{with}{}", &MINIMAL[..cut], &MINIMAL[end..]));
        }
    }
}
