//! Selectors: the symbols and wildcards that a request names.

use std::fmt;

use crate::model::instrument::{Symbol, SymbolError};

/// One entry of the `symbols` of a request, parsed. It is displayed as the client wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    /// `*`: every symbol.
    All,
    /// `venue:*`: every symbol of a venue, which need not exist.
    Venue(Box<str>),
    /// `venue:NAME`: one symbol.
    Symbol(Symbol),
    /// A name without a venue.
    Bare(Box<str>),
    /// A text that cannot be a symbol, and why.
    Malformed(Box<str>, SymbolError),
}

impl Selector {
    /// Parses a text.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "*" => Self::All,
            Some((venue, "*")) => Self::Venue(venue.into()),
            Some(_) => Symbol::parse(text).map_or_else(|why| Self::Malformed(text.into(), why), Self::Symbol),
            None => Self::Bare(text.into()),
        }
    }

    /// Whether it may match many symbols.
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::All | Self::Venue(_))
    }

    /// Whether it matches this symbol. A name without a venue matches none, because it has to be resolved first.
    pub fn takes(&self, symbol: &Symbol) -> bool {
        match self {
            Self::All => true,
            Self::Venue(venue) => **venue == *symbol.venue(),
            Self::Symbol(one) => one == symbol,
            Self::Bare(_) | Self::Malformed(..) => false,
        }
    }

    /// The venue that it names, if any.
    pub fn venue(&self) -> Option<&str> {
        match self {
            Self::Venue(venue) => Some(venue),
            Self::Symbol(symbol) => Some(symbol.venue()),
            Self::Malformed(text, _) => text.split_once(':').map(|(venue, _)| venue),
            Self::All | Self::Bare(_) => None,
        }
    }

    /// The length of its text, bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::All => 1,
            Self::Venue(venue) => venue.len() + 2,
            Self::Symbol(symbol) => symbol.as_str().len(),
            Self::Bare(text) | Self::Malformed(text, _) => text.len(),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Venue(venue) => write!(f, "{venue}:*"),
            Self::Symbol(symbol) => f.write_str(symbol.as_str()),
            Self::Bare(text) | Self::Malformed(text, _) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_as_it_was_written() {
        for text in ["*", "kraken:*", ":*", "kraken:BTC/USD", "BTC/USD", "", "a:b:*", "a:", "A:b", "**", "a*"]
        {
            let selector = Selector::parse(text);
            assert_eq!((selector.to_string().as_str(), selector.bytes()), (text, text.len()));
        }
    }

    #[test]
    fn it_takes_what_it_stands_for() {
        let symbol = Symbol::parse("kraken:BTC/USD").expect("a symbol");
        let takes = |text| Selector::parse(text).takes(&symbol);
        assert!(["*", "kraken:*", "kraken:BTC/USD"].map(takes).into_iter().all(|takes| takes));
        assert!(!["coinbase:*", "kraken:ETH/USD", "BTC/USD", "kraken:*:"].map(takes).into_iter().any(|t| t));
        assert!(Selector::parse("kraken:*").is_wildcard() && !Selector::parse("a:b:*").is_wildcard());
        assert_eq!(Selector::parse("a:b:*").venue(), Some("a"));
    }
}
