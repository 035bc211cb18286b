//! How a watch ends, and what that means: the connection's end in words, and the verdict. Pure.

use std::fmt;
use std::process::ExitCode;

/// The code of the ordinary end of a replay, or of the gateway.
const SHUTDOWN: u16 = 4001;

/// How a watch came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every number was accounted for: exit code 0.
    Held,
    /// The accounting rule was broken: exit code 1.
    Broke,
    /// Every number that came was accounted for, but the connection ended before its time, or something that was asked for never
    /// came: exit code 1.
    Short,
    /// There was nothing to watch, or nowhere to write it: exit code 2.
    Failed,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::Held => 0,
            Verdict::Broke | Verdict::Short => 1,
            Verdict::Failed => 2,
        })
    }
}

/// Why a watch ended, when it did not fail.
#[derive(Debug)]
pub(super) enum End {
    Interrupted,
    TimeUp,
    /// The server closed, or its connection broke.
    Closed(Closed),
    /// Whoever read our output has enough.
    OutputClosed,
}

/// How a connection ended that we did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The code of the close frame, or of the `bye` where none came.
    pub(super) code: Option<u16>,
    /// What was seen of it.
    pub(super) how: String,
}

impl Closed {
    /// A close frame came.
    pub(super) fn with(code: u16, reason: &str) -> Self {
        Self { code: Some(code), how: format!("closed with {code}: {reason}") }
    }

    /// The connection went away.
    pub(super) fn without(how: impl Into<String>) -> Self {
        Self { code: None, how: how.into() }
    }

    /// Whether there was no more to come: the replay, or the gateway, came to its end.
    pub(super) fn is_ordinary(&self) -> bool {
        self.code == Some(SHUTDOWN)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how)?;
        match self.code.and_then(in_words) {
            Some(words) => write!(f, " ({words})"),
            None => Ok(()),
        }
    }
}

/// What a close code of `docs/PROTOCOL.md` means.
fn in_words(code: u16) -> Option<&'static str> {
    Some(match code {
        1000 => "nothing more is sent",
        1002 => "what this client sent is no WebSocket",
        1003 => "this client sent a binary message",
        1007 => "this client sent text that is not UTF-8",
        1009 => "this client sent a message that is too long",
        1013 => "there is no room at this moment, or the room of the replay broke",
        4000 => "this client was too slow",
        SHUTDOWN => "the gateway stops, or its replay has come to the end",
        4002 => "nothing was heard of this client for too long",
        4500 => "the token is missing or wrong",
        4502 => "this client went over a limit",
        4503 => "the room of the replay has ended",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_protocol_has_its_words() {
        let protocol = include_str!("../../../docs/PROTOCOL.md");
        let closing = protocol.split("## Closing").nth(1).expect("a section");
        let code = |line: &str| line.strip_prefix("| ")?.get(..4)?.parse::<u16>().ok();
        let codes: Vec<u16> = closing.lines().filter_map(code).collect();
        assert!(codes.len() >= 12, "{codes:?}");
        assert!(codes.iter().all(|code| in_words(*code).is_some()), "{codes:?}");
        assert_eq!(
            Closed::with(4000, "slow_consumer").to_string(),
            "closed with 4000: slow_consumer (this client was too slow)"
        );
        assert_eq!(Closed::with(3_000, "why").to_string(), "closed with 3000: why");
    }

    #[test]
    fn only_the_end_of_the_gateway_is_ordinary() {
        assert!(Closed::with(SHUTDOWN, "shutdown").is_ordinary());
        for other in [Closed::with(4000, "slow_consumer"), Closed::with(1000, ""), Closed::without("reset")] {
            assert!(!other.is_ordinary(), "{other}");
        }
    }
}
