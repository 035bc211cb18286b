//! Decoders of venue messages, without I/O: one frame in, [`Event`]s out.
//!
//! A venue is one file with one `decode` function over a parsed frame. It keeps no state: what must be
//! remembered between messages (books, sequences) belongs to the feed line, which is the same for every
//! venue. `docs/ADD_A_VENUE.md` describes how to add one, with a table per venue of what each message
//! becomes.

mod binance;
mod checks;
mod coinbase;
mod json;
mod kraken;
mod native;
mod sniff;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::model::tick::{Decimal, DecimalError, Quote, Trade};

pub use checks::ChecksOff;
pub use json::{Levels, LevelsError, Scratch};
pub use sniff::{Evidence, Sniffed, sniff};

/// Plausible venue times, in microseconds since the Unix epoch: from 2000 to 2199. Values outside are in
/// another unit, or not times.
pub const PLAUSIBLE_US: Range<u64> = 946_684_800_000_000..7_258_118_400_000_000;

/// How far the time of a publisher's tick may be ahead of the gateway's clock, in microseconds: one day. No
/// time zone is further ahead.
pub const AHEAD_MAX_US: u64 = 86_400_000_000;

/// The venue format of a feed line's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireFormat {
    /// Coinbase Exchange WebSocket feed.
    Coinbase,
    /// Binance spot streams.
    Binance,
    /// Binance USDⓈ-M and COIN-M futures streams.
    BinanceFutures,
    /// Kraken WebSocket v1 and v2.
    Kraken,
    /// The gateway's own format; each symbol contains the venue.
    Native,
}

impl WireFormat {
    /// Every venue format.
    pub const ALL: [Self; 5] =
        [Self::Coinbase, Self::Binance, Self::BinanceFutures, Self::Kraken, Self::Native];

    /// Returns the name, as used before the colon of a symbol and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coinbase => "coinbase",
            Self::Binance => "binance",
            Self::BinanceFutures => "binance-futures",
            Self::Kraken => "kraken",
            Self::Native => "native",
        }
    }

    /// Returns true if prices of this venue can be below 0. On spot markets they cannot, and the contracts
    /// that Binance lists have a minimum price above 0; prices from publishers can, since spreads, power and
    /// oil have traded below 0.
    pub const fn has_negative_prices(self) -> bool {
        match self {
            Self::Coinbase | Self::Binance | Self::BinanceFutures | Self::Kraken => false,
            Self::Native => true,
        }
    }
}

impl fmt::Display for WireFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WireFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|w| w.name() == text)
            .ok_or_else(|| format!("unknown venue {text:?}: one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// The content of a message, as far as the gateway uses it. Symbols are spelled as the venue spells them (for
/// [`WireFormat::Native`] with the venue as prefix).
#[derive(Debug)]
pub enum Event<'t, 'i> {
    /// Emitted once per frame, before all others: the venue's name of the message type.
    Kind {
        /// The name.
        name: &'t str,
        /// False if the decoder does not know it: then it is only counted.
        known: bool,
    },
    /// A new trade.
    Trade {
        /// The venue's symbol.
        symbol: &'t str,
        /// The trade; its side is the aggressor's.
        trade: Trade,
        /// Venue time, in microseconds since the Unix epoch.
        ts_us: Option<u64>,
        /// What the message represents.
        print: TradeKind,
    },
    /// The last trade before the subscription, repeated by the venue: a baseline, not a new trade.
    LastTrade {
        /// The venue's symbol.
        symbol: &'t str,
        /// Its number.
        id: u64,
    },
    /// The best bid and offer, sent by the venue as such.
    Quote {
        /// The venue's symbol.
        symbol: &'t str,
        /// The quote.
        quote: Quote,
        /// Venue time, in microseconds since the Unix epoch.
        ts_us: Option<u64>,
        /// The stream it comes from.
        source: QuoteSource,
    },
    /// A snapshot or a change of an L2 book.
    Book(BookMessage<'t, 'i>),
    /// The depth of a book, sent separately from the book.
    BookDepth {
        /// The venue's symbol.
        symbol: &'t str,
        /// Levels per side.
        depth: usize,
    },
    /// The venue's summary of what it has sent for a symbol.
    Heartbeat {
        /// The venue's symbol.
        symbol: &'t str,
        /// The current sequence number of the product.
        sequence: u64,
        /// The number of its newest trade.
        last_trade_id: u64,
    },
    /// The sequence number of a product, sent with another message; it never goes back.
    Sequence {
        /// The venue's symbol.
        symbol: &'t str,
        /// The number.
        sequence: u64,
    },
}

/// What a trade message represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TradeKind {
    /// One execution; the venue's ids have holes, or there are none.
    Single,
    /// One execution; the venue numbers executions without holes.
    Numbered(u64),
    /// One execution with this number, on a venue that also sends aggregates.
    Plain(u64),
    /// The executions of one taker order at one price.
    Aggregate {
        /// The newest execution it covers.
        last: u64,
    },
}

/// The source of a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteSource {
    /// A stream of every change of the best bid and offer, which takes precedence over a book (Binance
    /// `bookTicker`).
    BookTicker,
    /// A stream of the best bid and offer that is used if there is no book (Kraken `spread`,
    /// [`WireFormat::Native`]).
    Spread,
    /// The best levels of a book, all of them in each message (Binance `depth5`): used if there is no full
    /// book.
    Partial,
    /// A ticker message.
    Ticker,
}

/// A side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BookSide {
    /// Buy orders; the best price is the highest.
    Bid,
    /// Sell orders; the best price is the lowest.
    Ask,
}

/// A snapshot or a change of an L2 book. The levels are decoded when the book applies them.
#[derive(Clone, Copy, Debug)]
pub struct BookMessage<'t, 'i> {
    /// The venue's symbol.
    pub symbol: &'t str,
    /// Venue time, in microseconds since the Unix epoch.
    pub ts_us: Option<u64>,
    /// True if it replaces the book.
    pub snapshot: bool,
    /// The levels; size 0 removes a level.
    pub levels: Levels<'t, 'i>,
    /// How it relates to the message before it.
    pub link: Link,
    /// CRC32 of the ten best levels a side after this message (Kraken).
    pub checksum: Option<u32>,
    /// The levels per side of the subscription; further ones are dropped.
    pub depth: Option<usize>,
}

/// How book messages are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The venue does not number them.
    None,
    /// Binance: update ids `first` to `last`; futures also send the last id of the message before.
    Updates {
        /// `U`
        first: u64,
        /// `u`, in a snapshot `lastUpdateId`
        last: u64,
        /// `pu`
        previous: Option<u64>,
    },
}

/// Why a frame could not be decoded: the venue made an error, or changed its format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// The JSON is not a message of this venue.
    #[error("not a message of this venue: {0}")]
    Shape(&'static str),
    /// A field is missing or of the wrong type.
    #[error("field `{0}` is missing or has the wrong type")]
    Field(&'static str),
    /// A price or size that cannot be represented.
    #[error("field `{field}`: {text:?}: {cause}")]
    Decimal {
        /// The field.
        field: &'static str,
        /// The value, shortened.
        text: String,
        /// The fault.
        cause: DecimalError,
    },
    /// An implausible number.
    #[error("field `{field}`: {value}: {why}")]
    Value {
        /// The field.
        field: &'static str,
        /// The number.
        value: Decimal,
        /// Why it is implausible.
        why: &'static str,
    },
    /// A time that is not between 2000 and 2199.
    #[error("field `{field}`: {ts_us} microseconds since 1970 are not between 2000 and 2199")]
    Time {
        /// The field.
        field: &'static str,
        /// The time, in microseconds since the Unix epoch.
        ts_us: u64,
    },
    /// A time that is more than [`AHEAD_MAX_US`] after the frame was received.
    #[error("field `{field}`: {ts_us} microseconds since 1970 are more than a day ahead")]
    Ahead {
        /// The field.
        field: &'static str,
        /// The time, in microseconds since the Unix epoch.
        ts_us: u64,
    },
    /// The symbol is invalid.
    #[error("field `symbol`: {text:?}: {why}")]
    Symbol {
        /// The symbol, shortened.
        text: String,
        /// The fault.
        why: String,
    },
    /// The symbol is new, and there is no room for it.
    #[error("field `symbol`: {text:?}: {why}")]
    RoomError {
        /// The symbol, shortened.
        text: String,
        /// The limit that is reached.
        why: String,
    },
}

impl DecodeError {
    /// Returns the error for an implausible number.
    pub(crate) fn value(field: &'static str, value: Decimal, why: &'static str) -> Self {
        Self::Value { field, value, why }
    }
}

/// Decodes each part of a frame, including those after a faulty one.
///
/// # Errors
/// The first fault.
fn each<T>(
    parts: impl Iterator<Item = T>,
    mut read: impl FnMut(T) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut told = Ok(());
    for part in parts {
        let read = read(part);
        told = told.and(read);
    }
    told
}

/// The receiver of a frame's events. An error it returns ends the frame.
pub type Emit<'e> = &'e mut dyn FnMut(Event<'_, '_>) -> Result<(), DecodeError>;

/// Decodes one frame of a venue and passes its events to `emit`, in order.
///
/// # Errors
/// The fault of the frame; events before it were passed on.
pub fn decode(
    wire: WireFormat,
    scratch: &mut Scratch,
    frame: &[u8],
    emit: Emit<'_>,
) -> Result<(), DecodeError> {
    match wire {
        WireFormat::Coinbase => scratch.parse(frame, |message| coinbase::decode(message, emit)),
        WireFormat::Binance | WireFormat::BinanceFutures => {
            scratch.parse(frame, |message| binance::decode(message, emit))
        }
        WireFormat::Kraken if frame.trim_ascii_start().first() == Some(&b'{') => {
            scratch.parse_numbers_as_text(frame, |message| kraken::decode_object(message, emit))
        }
        WireFormat::Kraken => scratch.parse(frame, |message| kraken::decode_array(message, emit)),
        WireFormat::Native => scratch.parse_numbers_as_text(frame, |message| native::decode(message, emit)),
    }
}
