//! The page for people: three files that are part of the program, served as they are. The page asks `/status` and shows
//! the answer; nothing here knows what that says.

use http::HeaderValue;

/// One file of the page.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub content_type: &'static str,
    pub body: &'static str,
}

/// The page loads its own two files, asks its own listener, and does nothing else; nobody else frames it. The icon is
/// in the page itself.
pub const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

pub const HTML: File = File { content_type: "text/html; charset=utf-8", body: include_str!("page/index.html") };
pub const STYLE: File = File { content_type: "text/css; charset=utf-8", body: include_str!("page/page.css") };
pub const SCRIPT: File = File { content_type: "text/javascript; charset=utf-8", body: include_str!("page/page.js") };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
        for file in [HTML, STYLE, SCRIPT] {
            for word in ["http:", "https:", "//cdn", "@import", "url("] {
                assert!(!file.body.replace("http://www.w3.org/2000/svg", "").contains(word), "{word}");
            }
        }
        for word in ["<style", " style=", "<script>", " onclick=", " onload="] {
            assert!(!HTML.body.contains(word), "{word}");
        }
        assert!(HTML.body.contains(r#"href="page.css""#) && HTML.body.contains(r#"src="page.js""#));
    }

    #[test]
    fn what_the_script_shows_is_never_markup() {
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "Function("]
        {
            assert!(!SCRIPT.body.contains(word), "{word}");
        }
    }

    #[test]
    fn the_script_stays_small() {
        assert!(SCRIPT.body.lines().count() < 250);
    }

    #[test]
    fn every_place_that_the_script_fills_is_there() {
        let calls = [" place(\"", " put(\"", " table(\""].into_iter().flat_map(|call| SCRIPT.body.split(call).skip(1));
        let named: Vec<&str> = calls.filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.len() > 15, "{named:?}");
        for id in named {
            assert!(HTML.body.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }

    #[test]
    fn without_script_the_reader_is_sent_to_what_works() {
        let (_, rest) = HTML.body.split_once("<noscript>").unwrap();
        let (text, _) = rest.split_once("</noscript>").unwrap();
        assert!(text.contains(r#"href="status""#) && text.contains(r#"href="metrics""#), "{text}");
    }
}
