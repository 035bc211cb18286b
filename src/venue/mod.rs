//! Venue messages, read without doing I/O: bytes of one frame in, [`Event`]s out.
//!
//! A venue is one file with one `decode` function over a parsed frame. It keeps no state: what
//! must be remembered between messages (books, sequences) belongs to the feed line, which is the
//! same for every venue. `docs/ADD_A_VENUE.md` is the recipe, with a table per venue of what each
//! message becomes.

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

/// Venue times that are believed, microseconds since the Unix epoch: from 2000 to 2199. What is outside is in another unit, or
/// no time.
pub const PLAUSIBLE_US: Range<u64> = 946_684_800_000_000..7_258_118_400_000_000;

/// How far ahead of the gateway's clock the time of a publisher's tick may be, in microseconds: a day. No time zone
/// is further ahead.
pub const AHEAD_MAX_US: u64 = 86_400_000_000;

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

    /// Whether a price of this venue can be below 0. On a spot market none can, and the contracts that Binance lists
    /// have a least price above 0; what a publisher calls a price is one, since spreads, power and oil have traded
    /// below 0.
    pub const fn has_negative_prices(self) -> bool {
        match self {
            Self::Coinbase | Self::Binance | Self::BinanceFutures | Self::Kraken => false,
            Self::Native => true,
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

/// What a message says, as far as the gateway cares. Symbols are spelled as the venue spells them
/// (for [`Wire::Native`] with the venue in front).
#[derive(Debug)]
pub enum Event<'t, 'i> {
    /// Said once per frame, before anything else: the venue's word for this message.
    Kind {
        /// The word.
        name: &'t str,
        /// False where the decoder does not know it: it is counted and nothing else.
        known: bool,
    },
    /// A new trade.
    Trade {
        /// Venue's symbol.
        symbol: &'t str,
        /// The trade, side being the aggressor's.
        trade: Trade,
        /// Venue time, microseconds since the Unix epoch.
        ts_us: Option<u64>,
        /// What one message stands for.
        print: TradeKind,
    },
    /// The last trade before the subscription, repeated by the venue: a baseline, not a new trade.
    LastTrade {
        /// Venue's symbol.
        symbol: &'t str,
        /// Its number.
        id: u64,
    },
    /// Best bid and offer, told by the venue itself.
    Quote {
        /// Venue's symbol.
        symbol: &'t str,
        /// The quote.
        quote: Quote,
        /// Venue time, microseconds since the Unix epoch.
        ts_us: Option<u64>,
        /// Which of the venue's streams it comes from.
        source: QuoteSource,
    },
    /// A snapshot or a change of an L2 book.
    Book(BookMessage<'t, 'i>),
    /// How deep the venue keeps a book, told apart from the book itself.
    BookDepth {
        /// Venue's symbol.
        symbol: &'t str,
        /// Levels a side.
        depth: usize,
    },
    /// The venue's own proof of what it sent for a symbol.
    Heartbeat {
        /// Venue's symbol.
        symbol: &'t str,
        /// The product's sequence number at this moment.
        sequence: u64,
        /// The number of its newest trade.
        last_trade_id: u64,
    },
    /// A product sequence number that came with another message; it never goes back.
    Sequence {
        /// Venue's symbol.
        symbol: &'t str,
        /// The number.
        sequence: u64,
    },
}

/// What one trade message stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TradeKind {
    /// One execution whose ids the venue does not number without holes.
    Single,
    /// One execution; the venue numbers them without holes.
    Numbered(u64),
    /// One execution with this number, on a venue that also sends aggregates.
    Plain(u64),
    /// Executions of one taker order at one price, up to this number.
    Aggregate {
        /// The newest execution it covers.
        last: u64,
    },
}

/// Where a quote comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteSource {
    /// A stream of every change of the best bid and offer, that wins over a book (Binance `bookTicker`).
    BookTicker,
    /// A stream of the best bid and offer that is used where there is no book (Kraken `spread`, [`Wire::Native`]).
    Spread,
    /// The best levels of a book, all of them in each message (Binance `depth5`): used where the book itself does not come.
    Partial,
    /// A ticker message.
    Ticker,
}

/// A side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BookSide {
    /// Who wants to buy; the best price is the highest.
    Bid,
    /// Who wants to sell; the best price is the lowest.
    Ask,
}

/// A snapshot or a change of an L2 book. The levels are read when the book takes them in.
#[derive(Clone, Copy, Debug)]
pub struct BookMessage<'t, 'i> {
    /// Venue's symbol.
    pub symbol: &'t str,
    /// Venue time, microseconds since the Unix epoch.
    pub ts_us: Option<u64>,
    /// True where it replaces the book.
    pub snapshot: bool,
    /// The levels: a size of 0 takes a level away.
    pub levels: Levels<'t, 'i>,
    /// How it follows the message before it.
    pub link: Link,
    /// CRC32 of the ten best levels a side after this message (Kraken).
    pub checksum: Option<u32>,
    /// How many levels a side the subscription keeps; further ones are dropped.
    pub depth: Option<usize>,
}

/// How a book message says which one it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The venue numbers nothing.
    None,
    /// Binance: covers update ids `first` to `last`; futures also name the last one of the message before.
    Updates {
        /// `U`
        first: u64,
        /// `u`, in a snapshot `lastUpdateId`
        last: u64,
        /// `pu`
        previous: Option<u64>,
    },
}

/// Why a frame could not be read. The venue erred, or we do not know its newest form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// The JSON is no message of this venue.
    #[error("not a message of this venue: {0}")]
    Shape(&'static str),
    /// A field is missing or of the wrong type.
    #[error("field `{0}` is missing or has the wrong type")]
    Field(&'static str),
    /// A price or size cannot be held.
    #[error("field `{field}`: {text:?}: {cause}")]
    Decimal {
        /// The field.
        field: &'static str,
        /// What stood there, shortened.
        text: String,
        /// What is wrong with it.
        cause: DecimalError,
    },
    /// A number is one, and makes no sense.
    #[error("field `{field}`: {value}: {why}")]
    Value {
        /// The field.
        field: &'static str,
        /// The number.
        value: Decimal,
        /// Why it makes no sense.
        why: &'static str,
    },
    /// A time that is not between 2000 and 2199.
    #[error("field `{field}`: {ts_us} microseconds since 1970 are not between 2000 and 2199")]
    Time {
        /// The field.
        field: &'static str,
        /// The time, microseconds since the Unix epoch.
        ts_us: u64,
    },
    /// A time that is more than [`AHEAD_MAX_US`] after the frame came in.
    #[error("field `{field}`: {ts_us} microseconds since 1970 are more than a day ahead")]
    Ahead {
        /// The field.
        field: &'static str,
        /// The time, microseconds since the Unix epoch.
        ts_us: u64,
    },
    /// The symbol cannot be one.
    #[error("field `symbol`: {text:?}: {why}")]
    Symbol {
        /// What stood there, shortened.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The symbol is a new one, and there is no room for it.
    #[error("field `symbol`: {text:?}: {why}")]
    RoomError {
        /// What stood there, shortened.
        text: String,
        /// What is full.
        why: String,
    },
}

impl DecodeError {
    /// A number that makes no sense.
    pub(crate) fn value(field: &'static str, value: Decimal, why: &'static str) -> Self {
        Self::Value { field, value, why }
    }
}

/// Reads each part of a frame, also those behind one that cannot be read.
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

/// What takes in the events of a frame. An error it returns ends the frame.
pub type Emit<'e> = &'e mut dyn FnMut(Event<'_, '_>) -> Result<(), DecodeError>;

/// Reads one frame of a venue and hands its events to `emit`, in order.
///
/// # Errors
/// What is wrong with the frame; events before the fault were handed out.
pub fn decode(wire: Wire, scratch: &mut Scratch, frame: &[u8], emit: Emit<'_>) -> Result<(), DecodeError> {
    match wire {
        Wire::Coinbase => scratch.parse(frame, |message| coinbase::decode(message, emit)),
        Wire::Binance | Wire::BinanceFutures => {
            scratch.parse(frame, |message| binance::decode(message, emit))
        }
        Wire::Kraken if frame.trim_ascii_start().first() == Some(&b'{') => {
            scratch.parse_numbers_as_text(frame, |message| kraken::decode_object(message, emit))
        }
        Wire::Kraken => scratch.parse(frame, |message| kraken::decode_array(message, emit)),
        Wire::Native => scratch.parse_numbers_as_text(frame, |message| native::decode(message, emit)),
    }
}
