//! Validation of the `Origin` of requests: a browser sends requests for any page, and only this header
//! identifies the page.

use std::net::Ipv4Addr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};

/// Error of an invalid entry in the list of origins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "allowed_origins: {0:?} is not \"*\", \"self\", \"loopback\", \"null\" or like \"https://desk.example\""
)]
pub struct BadOrigin(pub String);

#[derive(Debug, PartialEq)]
enum Rule {
    Any,
    SameHost,
    Loopback,
    /// `scheme://host[:port]`, or the word `null`.
    Exact(String),
}

/// The parsed list.
#[derive(Debug)]
pub struct Origins(Vec<Rule>);

impl Origins {
    /// Parses the entries of `[server] allowed_origins`.
    ///
    /// # Errors
    /// [`BadOrigin`] names the invalid entry.
    pub fn new(entries: &[String]) -> Result<Self, BadOrigin> {
        let rule = |entry: &String| match entry.as_str() {
            "*" => Ok(Rule::Any),
            "self" => Ok(Rule::SameHost),
            "loopback" => Ok(Rule::Loopback),
            "null" => Ok(Rule::Exact(entry.clone())),
            other if host_of(other).is_some() => Ok(Rule::Exact(entry.clone())),
            _ => Err(BadOrigin(entry.clone())),
        };
        entries.iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// Only the origins that the listener itself serves.
    pub(super) fn own() -> Self {
        Self(vec![Rule::SameHost])
    }

    /// Whether a request with these headers is allowed. Without `Origin` it does not come from a web page;
    /// with two it does not come from a browser. [The gate](super::hosts) has already validated its `Host`,
    /// so that only pages under a name of the gateway are of the same origin.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => {
                let host = headers.get(HOST).and_then(|host| host.to_str().ok());
                origin.to_str().is_ok_and(|origin| self.0.iter().any(|rule| rule.allows(origin, host)))
            }
            (Some(_), Some(_)) => false,
        }
    }
}

impl Rule {
    fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::SameHost => {
                let named = origin.split_once("://").filter(|_| host_of(origin).is_some());
                matches!((named, host), (Some((_, named)), Some(host)) if named.eq_ignore_ascii_case(host))
            }
            Self::Loopback => host_of(origin).is_some_and(|host| is_loopback(&host)),
            Self::Exact(allowed) => origin.eq_ignore_ascii_case(allowed),
        }
    }
}

/// Parses the host of `http[s]://host[:port]`; `None` for anything else.
fn host_of(origin: &str) -> Option<String> {
    let (scheme, authority) = origin.split_once("://")?;
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if !web || authority.contains(['/', '@', '?', '#']) {
        return None;
    }
    let uri: Uri = origin.parse().ok()?;
    uri.host().filter(|host| !host.is_empty()).map(str::to_owned)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rules: &[&str], origin: &str, host: &str) -> bool {
        let rules: Vec<String> = rules.iter().map(|&rule| rule.to_owned()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().expect("a header"));
        headers.insert(HOST, host.parse().expect("a header"));
        Origins::new(&rules).expect("good rules").allow(&headers)
    }

    #[test]
    fn each_rule_lets_in_its_own() {
        assert!(allowed(&["*"], "https://evil.example", "h"));
        assert!(!allowed(&[], "https://evil.example", "h"));
        assert!(allowed(&["self"], "http://h:8080", "H:8080"));
        assert!(!allowed(&["self"], "http://h:8081", "h:8080"));
        assert!(!allowed(&["self"], "null", "h:8080"));
        // Only origins that a browser loads pages from are accepted.
        for odd in [
            "ftp://h:8080",
            "x://h:8080",
            "file://h:8080",
            "chrome-extension://h:8080",
            "://h:8080",
            "//h:8080",
        ] {
            assert!(!allowed(&["self"], odd, "h:8080"), "{odd}");
        }
        assert!(allowed(&["self"], "HTTPS://h:8080", "h:8080"));
        for local in ["http://localhost:1", "https://127.3.2.1", "http://[::1]:3000", "http://LOCALHOST"] {
            assert!(allowed(&["loopback"], local, "h"), "{local}");
        }
        for foreign in [
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://127.0.0.1@evil.example",
            "ftp://localhost",
            "http://localhost/x",
            "null",
            "",
        ] {
            assert!(!allowed(&["loopback"], foreign, "h"), "{foreign}");
        }
        assert!(allowed(&["null"], "null", "h"));
        assert!(allowed(&["https://desk.example"], "https://desk.example", "h"));
        assert!(!allowed(&["https://desk.example"], "http://desk.example", "h"));
        assert!(!allowed(&["https://desk.example"], "https://desk.example:444", "h"));
    }

    #[test]
    fn no_origin_is_let_in_and_two_are_not() {
        let none = Origins::new(&[]).expect("good");
        assert!(none.allow(&HeaderMap::new()));
        let mut two = HeaderMap::new();
        two.append(ORIGIN, "http://a".parse().expect("a header"));
        two.append(ORIGIN, "http://a".parse().expect("a header"));
        assert!(!Origins::new(&["*".to_owned()]).expect("good").allow(&two));
    }

    #[test]
    fn entries_that_mean_nothing_are_named() {
        for bad in ["desk.example", "https://desk.example/", "https://", "Self", "ws://desk.example"] {
            assert_eq!(Origins::new(&[bad.to_owned()]).err(), Some(BadOrigin(bad.to_owned())));
        }
    }
}
