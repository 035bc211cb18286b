//! The end of a watch: the end of the connection in words, and the verdict. Pure.

use std::fmt;
use std::process::ExitCode;

/// Close code of the ordinary end of a replay or of the gateway.
const SHUTDOWN: u16 = 4001;

/// Result of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchVerdict {
    /// Every sequence number was accounted for: exit code 0.
    Held,
    /// The accounting rule was violated: exit code 1.
    Broke,
    /// Every received sequence number was accounted for, but the connection ended early, or a requested
    /// symbol never came: exit code 1.
    Short,
    /// There was nothing to watch, or the output failed: exit code 2.
    Failed,
}

impl From<WatchVerdict> for ExitCode {
    fn from(verdict: WatchVerdict) -> Self {
        Self::from(match verdict {
            WatchVerdict::Held => 0,
            WatchVerdict::Broke | WatchVerdict::Short => 1,
            WatchVerdict::Failed => 2,
        })
    }
}

/// Why a watch ended, unless it failed.
#[derive(Debug)]
pub(super) enum End {
    Interrupted,
    TimeUp,
    /// The server closed the connection, or the connection broke.
    Closed(Closed),
    /// The reader closed the output.
    OutputClosed,
}

/// How the server or the network ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// Code of the close frame, or of the `bye` if no close frame came.
    pub(super) code: Option<u16>,
    /// Description of the end.
    pub(super) how: String,
}

impl Closed {
    /// The end with a close frame.
    pub(super) fn with(code: u16, reason: &str) -> Self {
        Self { code: Some(code), how: format!("closed with {code}: {reason}") }
    }

    /// The end without a close frame.
    pub(super) fn without(how: impl Into<String>) -> Self {
        Self { code: None, how: how.into() }
    }

    /// Whether the stream was complete: the replay or the gateway ended.
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

/// Meaning of a close code of `docs/PROTOCOL.md`.
fn in_words(code: u16) -> Option<&'static str> {
    Some(match code {
        1000 => "nothing further is sent",
        1002 => "this client sent invalid WebSocket frames",
        1003 => "this client sent a binary message",
        1007 => "this client sent text that is not UTF-8",
        1009 => "this client sent a message that is too long",
        1013 => "there is no capacity at the moment, or the room of the replay failed",
        4000 => "this client was too slow",
        SHUTDOWN => "the gateway stops, or its replay has ended",
        4002 => "this client answered no ping in time",
        4500 => "the token is missing or wrong",
        4502 => "this client exceeded a limit",
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
