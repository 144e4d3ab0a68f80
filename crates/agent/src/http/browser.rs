//! What a browser says of the page that has it ask: the unix socket knows users by their process, so a socket that is forwarded
//! to a browser (`ssh -L 8080:/run/evenkeel/api.sock`) would answer every page that the browser shows.

use axum::http::{HeaderMap, HeaderName, header};

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a browser asks for another page than the agent's own, or under a name that somebody else's name server may have given
/// this machine. A page of such a name need send no other header that would tell, but the name has a dot in it; whatever a program
/// calls the agent has none.
pub(super) fn of_another_page(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let (site, origin) = (text(&SITE), text(&header::ORIGIN));
    let host = text(&header::HOST).unwrap_or_default();
    if site.is_none() && origin.is_none() && !host.contains('.') {
        return false;
    }
    let same_site = site.is_none_or(|site| ["same-origin", "none"].contains(&site));
    let same_origin = origin.is_none_or(|origin| origin == format!("http://{host}"));
    !(same_site && same_origin && of_this_machine(host))
}

fn of_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &str)]) -> bool {
        let one = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a value"))
        };
        of_another_page(&headers.iter().map(one).collect())
    }

    #[test]
    fn only_the_agents_own_page_on_this_machine_is_answered_to_a_browser() {
        let here = ("host", "localhost:8080");
        for (headers, another) in [
            (&[("host", "agent")][..], false),
            (&[], false),
            (&[("host", "localhost:8080")], false),
            (&[("host", "127.0.0.1:8080")], false),
            (&[("host", "rebound.example:8080")], true),
            (&[here, ("sec-fetch-site", "same-origin")], false),
            (&[here, ("sec-fetch-site", "none")], false),
            (
                &[here, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")],
                false,
            ),
            (&[("host", "[::1]:8080"), ("sec-fetch-site", "none")], false),
            (&[here, ("sec-fetch-site", "cross-site")], true),
            (&[here, ("sec-fetch-site", "same-site")], true),
            (&[here, ("origin", "https://elsewhere.example")], true),
            (&[here, ("origin", "null")], true),
            (&[("host", "rebound.example:8080"), ("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
        ] {
            assert_eq!(asked(headers), another, "{headers:?}");
        }
    }
}
