//! Validation of the `Host` of requests, against DNS rebinding: to a browser, a web page whose name resolves to this
//! machine has the same origin as the gateway. Only the name in its requests differs.
//!
//! A literal address cannot be rebound. The local address of the connection is therefore always valid, also
//! on a listener of all addresses (`0.0.0.0`, `[::]`).

use std::net::{IpAddr, Ipv6Addr};

use axum::body::Body;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Response, StatusCode, Version, request};

use super::answer::{error, foreign};
use super::origin::Origins;

/// Error of an invalid entry in the list of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hosts: {0:?} is not like \"desk.example\", \"desk.example:8443\" or an address")]
pub struct BadHost(pub String);

/// Longest host name (RFC 1035 §2.3.4), bytes.
const NAME_BYTES_MAX: usize = 253;

/// Configured host names of a listener, with their ports.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<(Host, Option<u16>)>);

/// A host in a request or in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// In lower case.
    Name(String),
    Address(IpAddr),
}

impl Hosts {
    /// Parses the entries of `[server] hosts`.
    ///
    /// # Errors
    /// [`BadHost`] names the invalid entry.
    pub fn new(entries: &[String]) -> Result<Self, BadHost> {
        let read = |entry: &String| authority(entry).ok_or_else(|| BadHost(entry.clone()));
        entries.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a request may name this `host[:port]`; `own` are the addresses of the listener. The port is
    /// only checked against an entry with a port, because the gateway cannot know a forwarded port.
    fn hold(&self, named: &str, own: [IpAddr; 2]) -> bool {
        let Some((host, port)) = authority(named) else { return false };
        let is_known = match &host {
            Host::Name(name) => name == "localhost",
            Host::Address(address) => {
                address.is_loopback() || own.iter().any(|own| own.to_canonical() == *address)
            }
        };
        let is_entry = |(entry, at): &(Host, Option<u16>)| {
            // A missing port is the default of the scheme, which a proxy in between may have changed.
            *entry == host && at.is_none_or(|at| port.map_or(at == 80 || at == 443, |port| port == at))
        };
        is_known || self.0.iter().any(is_entry)
    }
}

/// Parses `host[:port]`; `None` for anything else.
fn authority(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            (Host::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?).to_canonical()), rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let host = match host.parse() {
                Ok(address) => Host::Address(address),
                Err(_) => Host::Name(name(host)?),
            };
            (host, rest)
        }
    };
    if rest.is_empty() {
        return Some((host, None));
    }
    let digits = rest.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((host, Some(digits.parse().ok()?)))
}

fn name(text: &str) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(letter);
    is_name.then(|| text.to_ascii_lowercase())
}

/// The checks on each request before it reaches a route.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) hosts: Hosts,
    /// Origins allowed on all routes; `None` if each route checks the origin itself.
    pub(super) origins: Option<Origins>,
}

impl Gate {
    /// The response to a request for a foreign host, or from a page that is not allowed. `own` are the
    /// addresses of the listener and of the local end of the connection.
    pub(super) fn refusal(&self, head: &request::Parts, own: [IpAddr; 2]) -> Option<Response<Body>> {
        let mut named = head.headers.get_all(HOST).iter();
        let host = match (named.next(), named.next()) {
            (Some(host), None) => Some(host),
            // Optional before HTTP/1.1 (RFC 9112 §3.2).
            (None, _) if head.version < Version::HTTP_11 => None,
            _ => return Some(error(StatusCode::BAD_REQUEST, "`Host` must be there, once")),
        };
        // An absolute target overrides the header (RFC 9112 §3.2.2); both must be valid.
        let target = head.uri.authority().map(Authority::as_str);
        let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()));
        let Some(host) = host.as_deref() else { return Some(misdirected("the request names no `Host`")) };
        let strange = [Some(host), target].into_iter().flatten().find(|named| !self.hosts.hold(named, own));
        if let Some(strange) = strange {
            let shown: String = strange.chars().take(100).collect();
            return Some(misdirected(&format!("this gateway is not called {shown:?}: see `[server] hosts`")));
        }
        let is_foreign = self.origins.as_ref().is_some_and(|origins| !origins.allow(&head.headers));
        is_foreign.then(foreign)
    }
}

fn misdirected(msg: &str) -> Response<Body> {
    error(StatusCode::MISDIRECTED_REQUEST, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(entries: &[&str], named: &str) -> bool {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        let own = ["0.0.0.0", "::ffff:192.0.2.7"].map(|own| own.parse().expect("an address"));
        Hosts::new(&entries).expect("good entries").hold(named, own)
    }

    #[test]
    fn loopback_and_own_addresses_hold_on_whatever_port() {
        for own in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1",
            "127.3.2.1:1",
            "[::1]",
            "[::1]:8080",
            "[0:0::1]:8080",
            // The address of the connection, and the configured address of the listener.
            "192.0.2.7:8080",
            "[::ffff:192.0.2.7]",
            "0.0.0.0:8080",
        ] {
            assert!(holds(&[], own), "{own}");
        }
    }

    #[test]
    fn what_is_none_of_these_does_not_hold() {
        for strange in [
            "",
            ":8080",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost.",
            "localhost:",
            "localhost:65536",
            "localhost:+80",
            "localhost:80:80",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost/",
            "localhost ",
            "192.0.2.8",
            "::1",
            "[::2]",
            "[::1",
            "[::1]x",
            "[localhost]",
            "[::]",
            // Browsers normalise these.
            "127.1",
            "2130706433",
            "0177.0.0.1",
            "\u{217}ocalhost",
        ] {
            assert!(!holds(&[], strange), "{strange:?}");
        }
    }

    #[test]
    fn entries_hold_as_they_are_written() {
        let entries =
            ["Desk.example", "ops.example:8443", "web.example:443", "203.0.113.9", "[2001:db8::1]:81"];
        for (named, expected) in [
            ("desk.example", true),
            ("DESK.example:1", true),
            ("a.desk.example", false),
            ("desk.example.", false),
            ("ops.example:8443", true),
            ("ops.example:8444", false),
            ("ops.example", false),
            ("web.example", true),
            ("web.example:443", true),
            ("web.example:80", false),
            ("203.0.113.9:7", true),
            ("[2001:db8:0::1]:81", true),
            ("[2001:db8::1]", false),
        ] {
            assert_eq!(holds(&entries, named), expected, "{named}");
        }
    }

    #[test]
    fn entries_that_mean_nothing_are_named() {
        for bad in [
            "",
            "*",
            "*.example",
            "http://desk.example",
            "desk.example/",
            "desk example",
            "d\u{e4}sk",
            "a:b",
            "::1",
        ] {
            assert_eq!(Hosts::new(&[bad.to_owned()]).err(), Some(BadHost(bad.to_owned())));
        }
    }
}
