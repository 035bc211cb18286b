//! Venue messages, read without doing I/O.

use std::fmt;
use std::str::FromStr;

/// Which venue's messages a feed line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    /// Coinbase Exchange WebSocket feed.
    Coinbase,
    /// Binance spot streams.
    Binance,
    /// Binance USDⓈ-M and COIN-M futures streams.
    BinanceFutures,
    /// Kraken WebSocket v1 and v2.
    Kraken,
    /// The gateway's own wire shape; the venue is named in each symbol.
    Native,
}

impl Wire {
    /// Every venue.
    pub const ALL: [Self; 5] =
        [Self::Coinbase, Self::Binance, Self::BinanceFutures, Self::Kraken, Self::Native];

    /// The name, as it stands before the colon of a symbol and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coinbase => "coinbase",
            Self::Binance => "binance",
            Self::BinanceFutures => "binance-futures",
            Self::Kraken => "kraken",
            Self::Native => "native",
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|w| w.name() == text)
            .ok_or_else(|| format!("unknown venue {text:?}: one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}
