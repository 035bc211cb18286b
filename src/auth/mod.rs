//! Tokens: secrets that clients present to publish, or to control a replay.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// A secret. `Debug` does not print it, and there is no accessor.
pub struct Token(Box<[u8]>);

impl Token {
    /// Returns a token with this text; `None` if it is empty.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.as_bytes().into()))
    }

    /// Compares what a client shows. For a text of the same length the time tells nothing; another length is refused
    /// at once.
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_it_and_nothing_shows_it() {
        let token = Token::new("a-token-of-16-ch").expect("one");
        assert!(token.is(b"a-token-of-16-ch"));
        let others: [&[u8]; 5] =
            [b"", b"a-token-of-16-c", b"a-token-of-16-cH", b"a-token-of-16-cha", b"A-token-of-16-ch"];
        for other in others {
            assert!(!token.is(other), "{other:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert!(Token::new("").is_none());
    }
}
