//! The messages in the ring: trades, quotes, and two marks in order with them (a gap in the feed, a change of
//! state).
//!
//! A [`Tick`] packs into [`WORDS`] 64-bit words, so that the ring can store it in plain atomics; a test at
//! the end of this file pins the layout.

use std::fmt;

use crate::model::instrument::InstrumentId;

pub use crate::model::decimal::{Decimal, DecimalError};

/// The channels of a symbol that clients subscribe to. Each has its own `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Channel {
    /// Executed trades: events, merged only on request.
    Trade = 0,
    /// Best bid and offer: state, of which the newest counts.
    Quote = 1,
}

impl Channel {
    /// Every channel, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Trade, Self::Quote];

    /// Returns the name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trade => "trade",
            Self::Quote => "quote",
        }
    }
}

/// The streams of an instrument that have a newest value: its channels, and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stream {
    /// [`Channel::Trade`].
    Trade = 0,
    /// [`Channel::Quote`].
    Quote = 1,
    /// The instrument's [`State`].
    Status = 2,
}

impl Stream {
    /// Every stream, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Trade, Self::Quote, Self::Status];
}

impl From<Channel> for Stream {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Trade => Self::Trade,
            Channel::Quote => Self::Quote,
        }
    }
}

/// The dense number of a stream of an instrument, used as a table index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u32);

impl Key {
    /// Returns the key of a stream of an instrument.
    pub const fn new(instrument: InstrumentId, stream: Stream) -> Self {
        Self(instrument.0 * Stream::ALL.len() as u32 + stream as u32)
    }

    /// Returns the number of keys of `instruments` instruments.
    pub const fn count(instruments: usize) -> usize {
        instruments * Stream::ALL.len()
    }

    /// Returns the key as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the instrument.
    pub const fn instrument(self) -> InstrumentId {
        InstrumentId(self.0 / Stream::ALL.len() as u32)
    }

    /// Returns the stream.
    pub const fn stream(self) -> Stream {
        match self.0 % Stream::ALL.len() as u32 {
            0 => Stream::Trade,
            1 => Stream::Quote,
            _ => Stream::Status,
        }
    }

    /// Returns the channel; `None` for the state.
    pub const fn channel(self) -> Option<Channel> {
        match self.stream() {
            Stream::Trade => Some(Channel::Trade),
            Stream::Quote => Some(Channel::Quote),
            Stream::Status => None,
        }
    }
}

/// The side of a trade's aggressor (taker).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The taker bought.
    Buy,
    /// The taker sold.
    Sell,
}

impl Side {
    /// Returns the name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }

    /// Returns the other side: the taker's from the maker's.
    #[must_use]
    pub const fn flipped(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

/// A venue's trade id, as text of at most [`TradeId::BYTES_MAX`] bytes (a UUID fits). Empty if the venue
/// sends none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TradeId {
    len: u8,
    bytes: [u8; Self::BYTES_MAX],
}

impl TradeId {
    /// The longest id, in bytes.
    pub const BYTES_MAX: usize = 40;
    /// No id.
    pub const NONE: Self = Self { len: 0, bytes: [0; Self::BYTES_MAX] };

    /// Returns an id from its text; `None` if it is too long or would need escaping in JSON.
    pub fn new(text: &str) -> Option<Self> {
        let safe = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
        if text.len() > Self::BYTES_MAX || !text.as_bytes().iter().all(safe) {
            return None;
        }
        let mut id = Self::NONE;
        id.len = text.len() as u8;
        id.bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(id)
    }

    /// Returns an id that the venue sends as a number.
    pub fn from_number(number: u64) -> Self {
        Self::new(itoa::Buffer::new().format(number)).unwrap_or(Self::NONE)
    }

    /// Returns the text, which is ASCII that needs no escaping in JSON.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(Self::BYTES_MAX)]
    }
}

impl fmt::Debug for TradeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// One executed trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trade {
    /// Price, in the quote currency.
    pub price: Decimal,
    /// Size, in the unit of the venue (base currency or contracts).
    pub size: Decimal,
    /// The aggressor's side; `None` if the source does not send it.
    pub side: Option<Side>,
    /// The venue's id of the trade.
    pub id: TradeId,
}

/// Best bid and offer. A side that is empty, or that the venue does not send, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// The highest price of a buy order.
    pub bid: Option<Decimal>,
    /// The size at that price.
    pub bid_size: Option<Decimal>,
    /// The lowest price of a sell order.
    pub ask: Option<Decimal>,
    /// The size at that price.
    pub ask_size: Option<Decimal>,
}

/// Why ticks are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GapCause {
    /// The venue's sequence numbers or checksum broke.
    Feed = 0,
    /// A shard was lapped by the ring.
    Overrun = 1,
    /// The client did not keep up.
    SlowConsumer = 2,
    /// The ticks were published while the client was disconnected, and are no longer kept.
    Resume = 3,
    /// A replay moved to another position.
    Seek = 4,
}

impl GapCause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Feed, Self::Overrun, Self::SlowConsumer, Self::Resume, Self::Seek];

    /// Returns the name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Overrun => "overrun",
            Self::SlowConsumer => "slow_consumer",
            Self::Resume => "resume",
            Self::Seek => "seek",
        }
    }
}

/// Whether the prices of an instrument can be trusted. Only [`Live`](Self::Live) prices are live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum State {
    /// No feed line has published it yet.
    #[default]
    Waiting = 0,
    /// The feed line is up and its book is good.
    Live = 1,
    /// The last value may be old: the line is silent, or its book is being rebuilt.
    Stale = 2,
    /// The feed line is disconnected.
    Down = 3,
    /// A recording is playing, and the last value is that of the recording.
    Replay = 4,
    /// The replay of a recording is paused.
    Paused = 5,
    /// The replay of a recording has ended, and its values no longer hold.
    Ended = 6,
}

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Live, Self::Stale, Self::Down, Self::Replay, Self::Paused, Self::Ended];

    /// Returns the name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Down => "down",
            Self::Replay => "replay",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

/// Why sequence numbers of a feed have no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FeedGap {
    /// The feed lost messages. The last value stays the last value: lost messages take sequence numbers so
    /// that they are counted.
    Lost = 0,
    /// A replay moved to a position where the channel has no value. There is no last value any more.
    NoValue = 1,
}

impl FeedGap {
    /// Returns the cause that clients are sent.
    pub const fn why(self) -> GapCause {
        match self {
            Self::Lost => GapCause::Feed,
            Self::NoValue => GapCause::Seek,
        }
    }
}

/// The content of a [`Tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A trade on [`Channel::Trade`].
    Trade(Trade),
    /// A quote on [`Channel::Quote`].
    Quote(Quote),
    /// The sequence numbers from `from` to the tick's own `seq` (both included) of this channel have no
    /// value.
    Gap {
        /// The channel.
        channel: Channel,
        /// The first missing number; the last one is the tick's `seq`.
        from: u64,
        /// Why they have no value.
        void: FeedGap,
    },
    /// The instrument's state changed at the tick's `rx_ns`. Its `seq` counts the changes.
    Status(State),
}

impl Body {
    /// Returns the stream that its `seq` belongs to.
    pub const fn stream(&self) -> Stream {
        match self {
            Self::Trade(_) | Self::Gap { channel: Channel::Trade, .. } => Stream::Trade,
            Self::Quote(_) | Self::Gap { channel: Channel::Quote, .. } => Stream::Quote,
            Self::Status(_) => Stream::Status,
        }
    }
}

/// An update of one instrument, as stored in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The instrument.
    pub instrument: InstrumentId,
    /// The sequence number per instrument and stream, from 1 within an epoch.
    pub seq: u64,
    /// When the gateway received the frame, in nanoseconds since the Unix epoch.
    pub rx_ns: u64,
    /// The venue's time, in microseconds since the Unix epoch; `None` if the venue sent none.
    pub ts_us: Option<u64>,
    /// True if it repeats the value at the position that a replay moved to, and is not new.
    pub snap: bool,
    /// The content.
    pub body: Body,
}

/// The newest value of a stream.
#[derive(Clone, Copy, Debug)]
pub struct LastValue {
    /// The newest tick that is not a gap; `None` if there is none.
    pub tick: Option<Tick>,
    /// The sequence number of the [`FeedGap::NoValue`] after which there is no value, if that is the reason.
    pub void: Option<u64>,
    /// The newest sequence number of the stream: the tick's, or that of a gap after it.
    pub head: u64,
    /// The newest sequence numbers lost by the feed: first and last, both included.
    pub feed_gap: Option<(u64, u64)>,
}

/// The number of 64-bit words of a packed [`Tick`].
pub const WORDS: usize = 12;

/// A [`Tick`] packed for the ring:
///
/// ```text
/// word 0   instrument (32) | kind (8) | detail (8) | present (8) | trade id length (8)
///      1   seq
///      2   rx_ns
///      3   ts_us
///      4   four scales (8 each) | free (32)
///      5…  trade: price, size, then the id (5 words)   quote: bid, bid_size, ask, ask_size   gap: from
/// ```
///
/// Words 5… hold the low 64 bits of mantissas. If one needs more, `present` has the bit `WIDE` and the bits
/// above 64 of each mantissa, 32 for a quote and 31 for a trade, use words that are free: for a quote words 9
/// and 10, for a trade the upper 48 bits of word 4 (its scales are at most 63) and the bits `TRADE_SPARE` of
/// word 0.
pub type Words = [u64; WORDS];

const KIND_TRADE: u8 = 0;
const KIND_QUOTE: u8 = 1;
const KIND_GAP: u8 = 2;
const KIND_STATUS: u8 = 3;
/// Bits of `present`: bit i for decimal i, this one for `ts_us`.
const PRESENT_TS: u8 = 1 << 7;
/// The bit for [`Tick::snap`].
const SNAP: u8 = 1 << 6;
/// The bit for mantissas with bits above their words: see [`Words`].
const WIDE: u8 = 1 << 5;
/// The bits of word 0 that a trade does not use: six bits each of kind and detail, and the bits of decimals 2
/// and 3 in `present`.
const TRADE_SPARE: u64 = 0b1111_1100 << 32 | 0b1111_1100 << 40 | 0b1100 << 48;
/// The mask of the kind of a packed tick, in word 0 (shifted).
const KIND: u64 = 0b11;

/// A packed tick under construction.
struct Packer {
    words: Words,
    scales: u64,
    present: u8,
    /// True if a mantissa has bits above its word.
    wide: bool,
}

impl Packer {
    fn decimal(&mut self, at: usize, value: Option<Decimal>) {
        if let Some(value) = value {
            self.words[5 + at] = value.halves().0;
            self.wide |= value.is_wide();
            self.scales |= u64::from(value.scale()) << (8 * at);
            self.present |= 1 << at;
        }
    }
}

/// Returns decimal number `at` of packed words, if its mantissa fits into its word.
fn decimal_at(words: &Words, at: usize) -> Option<Decimal> {
    let present = (words[0] >> 48) as u8;
    (present & (1 << at) != 0)
        .then(|| Decimal::new(words[5 + at].cast_signed(), (words[4] >> (8 * at)) as u8))
}

/// Packs the bits above 64 of a trade's mantissas: 31 each, of which 48 go to word 4 and 14 to word 0.
#[cold]
fn pack_wide_trade(words: &mut Words, trade: &Trade) {
    let high = |value: Decimal| u64::from(value.halves().1.cast_unsigned() & 0x7fff_ffff);
    let both = high(trade.price) | high(trade.size) << 31;
    words[4] |= both << 16;
    let mut spare = TRADE_SPARE;
    for bit in 48..62 {
        words[0] |= (both >> bit & 1) << spare.trailing_zeros();
        spare &= spare - 1;
    }
}

/// Returns price and size of a trade packed by [`pack_wide_trade`].
#[cold]
fn wide_trade(words: &Words) -> [Decimal; 2] {
    let (mut both, mut spare) = (words[4] >> 16, TRADE_SPARE);
    for bit in 48..62 {
        both |= (words[0] >> spare.trailing_zeros() & 1) << bit;
        spare &= spare - 1;
    }
    // Bit 30 is the sign.
    let high = |bits: u64| ((bits as u32) << 1).cast_signed() >> 1;
    [(5, 0, both), (6, 8, both >> 31)]
        .map(|(word, scale, bits)| Decimal::from_halves(words[word], high(bits), (words[4] >> scale) as u8))
}

/// Packs the bits above 64 of a quote's mantissas.
#[cold]
fn pack_wide_quote(words: &mut Words, quote: &Quote) {
    let high = |value: Option<Decimal>| u64::from(value.unwrap_or_default().halves().1.cast_unsigned());
    words[9] = high(quote.bid) | high(quote.bid_size) << 32;
    words[10] = high(quote.ask) | high(quote.ask_size) << 32;
}

/// Returns decimal number `at` of a quote packed by [`pack_wide_quote`].
#[cold]
fn wide_at(words: &Words, at: usize) -> Option<Decimal> {
    let narrow = decimal_at(words, at)?;
    let high = (words[9 + at / 2] >> (32 * (at % 2))) as u32;
    Some(Decimal::from_halves(narrow.halves().0, high.cast_signed(), narrow.scale()))
}

impl Tick {
    /// Returns the stream key of the tick.
    pub const fn key(&self) -> Key {
        Key::new(self.instrument, self.body.stream())
    }

    /// Returns the stream key of a packed tick, from its first word.
    #[inline]
    pub const fn key_in(word: u64) -> Key {
        let stream = match (word >> 32 & KIND) as u8 {
            KIND_TRADE => Stream::Trade,
            KIND_QUOTE => Stream::Quote,
            KIND_GAP if (word >> 40) as u8 & 1 == 0 => Stream::Trade,
            KIND_GAP => Stream::Quote,
            _ => Stream::Status,
        };
        Key::new(InstrumentId(word as u32), stream)
    }

    /// Packs the tick; [`from_words`](Self::from_words) restores it.
    pub fn to_words(&self) -> Words {
        let mut p = Packer { words: [0; WORDS], scales: 0, present: 0, wide: false };
        let (mut detail, mut id_len) = (0u8, 0u8);
        let kind = match &self.body {
            Body::Trade(trade) => {
                p.decimal(0, Some(trade.price));
                p.decimal(1, Some(trade.size));
                detail = trade.side.map_or(0, |s| 1 + s as u8);
                id_len = trade.id.len;
                for (word, bytes) in p.words[7..].iter_mut().zip(trade.id.bytes.chunks_exact(8)) {
                    *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
                }
                KIND_TRADE
            }
            Body::Quote(quote) => {
                for (at, value) in
                    [quote.bid, quote.bid_size, quote.ask, quote.ask_size].into_iter().enumerate()
                {
                    p.decimal(at, value);
                }
                KIND_QUOTE
            }
            Body::Gap { channel, from, void } => {
                detail = *channel as u8 | (*void as u8) << 1;
                p.words[5] = *from;
                KIND_GAP
            }
            Body::Status(state) => {
                detail = *state as u8;
                KIND_STATUS
            }
        };
        if let Some(ts_us) = self.ts_us {
            p.present |= PRESENT_TS;
            p.words[3] = ts_us;
        }
        if self.snap {
            p.present |= SNAP;
        }
        p.words[0] = u64::from(self.instrument.0)
            | u64::from(kind) << 32
            | u64::from(detail) << 40
            | u64::from(p.present) << 48
            | u64::from(id_len) << 56;
        p.words[1] = self.seq;
        p.words[2] = self.rx_ns;
        p.words[4] = p.scales;
        if p.wide {
            p.words[0] |= u64::from(WIDE) << 48;
            match &self.body {
                Body::Trade(trade) => pack_wide_trade(&mut p.words, trade),
                Body::Quote(quote) => pack_wide_quote(&mut p.words, quote),
                Body::Gap { .. } | Body::Status(_) => {}
            }
        }
        p.words
    }

    /// Unpacks a tick packed by [`to_words`](Self::to_words). Other words result in an arbitrary tick, never
    /// a panic.
    pub fn from_words(words: &Words) -> Self {
        let [kind, detail, present, id_len] = [32, 40, 48, 56].map(|shift| (words[0] >> shift) as u8);
        let is_wide = present & WIDE != 0;
        let body = match kind & KIND as u8 {
            KIND_TRADE => {
                let mut id = TradeId { len: id_len, ..TradeId::NONE };
                for (bytes, word) in id.bytes.chunks_exact_mut(8).zip(&words[7..]) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                let [price, size] = match is_wide {
                    true => wide_trade(words),
                    false => [0, 1].map(|at| decimal_at(words, at).unwrap_or_default()),
                };
                let side = match detail & 0b11 {
                    1 => Some(Side::Buy),
                    2 => Some(Side::Sell),
                    _ => None,
                };
                Body::Trade(Trade { price, size, side, id })
            }
            KIND_QUOTE => {
                let at = |at| if is_wide { wide_at(words, at) } else { decimal_at(words, at) };
                Body::Quote(Quote { bid: at(0), bid_size: at(1), ask: at(2), ask_size: at(3) })
            }
            KIND_GAP => Body::Gap {
                channel: if detail & 1 == 0 { Channel::Trade } else { Channel::Quote },
                from: words[5],
                void: if detail & 2 == 0 { FeedGap::Lost } else { FeedGap::NoValue },
            },
            _ => Body::Status(State::ALL.get(usize::from(detail)).copied().unwrap_or_default()),
        };
        Self {
            instrument: InstrumentId(words[0] as u32),
            seq: words[1],
            rx_ns: words[2],
            ts_us: (present & PRESENT_TS != 0).then_some(words[3]),
            snap: present & SNAP != 0,
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_ticks() -> Vec<Tick> {
        let d = |t: &str| Decimal::parse(t.as_bytes()).expect(t);
        let tick = |body| Tick {
            instrument: InstrumentId(7),
            seq: 42,
            rx_ns: 1_618_677_817_431_936_000,
            ts_us: Some(1_618_677_817_400_000),
            snap: false,
            body,
        };
        let trade = Trade {
            price: d("64010.20"),
            size: d("-0.0100"),
            side: Some(Side::Sell),
            id: TradeId::new("2a0da34e-61f7-4c36-88e5-c9dd15927b16").expect("fits"),
        };
        let longest = TradeId::new(&"z".repeat(TradeId::BYTES_MAX)).expect("fits");
        let wide_trade = |price, size| {
            tick(Body::Trade(Trade { price: d(price), size: d(size), side: Some(Side::Buy), id: longest }))
        };
        vec![
            tick(Body::Trade(trade)),
            Tick { ts_us: None, ..tick(Body::Trade(Trade { side: None, id: TradeId::NONE, ..trade })) },
            tick(Body::Quote(Quote {
                bid: Some(d("1.5")),
                bid_size: None,
                ask: None,
                ask_size: Some(d("0")),
            })),
            tick(Body::Gap { channel: Channel::Quote, from: 40, void: FeedGap::Lost }),
            tick(Body::Status(State::Stale)),
            tick(Body::Status(State::Replay)),
            tick(Body::Status(State::Paused)),
            tick(Body::Status(State::Ended)),
            tick(Body::Gap { channel: Channel::Trade, from: 40, void: FeedGap::NoValue }),
            Tick { snap: true, ..tick(Body::Trade(trade)) },
            wide_trade("9999999999999999999999999999", "12.345678901234567890"),
            wide_trade("-9999999999999999999999999999", "9999999999999999999999999999"),
            wide_trade("1.5", "18446744073709551615"),
            wide_trade("-9223372036854775809", "-0.5"),
            tick(Body::Quote(Quote {
                bid: Some(d("-12345678901234567890.12345678")),
                bid_size: Some(d("0.5")),
                ask: Some(d("-0.5")),
                ask_size: Some(d("1000000000.000000000000000000")),
            })),
            tick(Body::Quote(Quote {
                bid: None,
                bid_size: None,
                ask: Some(d("0.000000000000000000000000000000000000001234567890123456789012345")),
                ask_size: None,
            })),
        ]
    }

    #[test]
    fn words_give_the_same_tick_back() {
        for tick in sample_ticks() {
            let back = Tick::from_words(&tick.to_words());
            assert_eq!(back, tick);
            assert_eq!(Tick::key_in(tick.to_words()[0]), tick.key());
            assert_eq!(format!("{back:?}"), format!("{tick:?}"), "digits and all");
        }
    }

    #[test]
    fn the_layout_is_pinned() {
        let words = sample_ticks()[0].to_words();
        assert_eq!(words[0], 36 << 56 | 0b1000_0011 << 48 | 2 << 40 | 7);
        assert_eq!(words[1..5], [42, 1_618_677_817_431_936_000, 1_618_677_817_400_000, 0x0402]);
        assert_eq!(words[5..7], [6_401_020, (-100i64).cast_unsigned()]);
        assert_eq!(words[7].to_le_bytes(), *b"2a0da34e");
        assert_eq!(sample_ticks()[3].to_words()[0], 0b1000_0000 << 48 | 1 << 40 | 2 << 32 | 7);
    }

    #[test]
    fn states_keep_their_numbers() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
        }
        let names = State::ALL.map(State::name);
        assert_eq!(names, ["waiting", "live", "stale", "down", "replay", "paused", "ended"]);
    }

    #[test]
    fn words_of_no_tick_never_panic() {
        for fill in [0, 1, u64::MAX, 0x5555_5555_5555_5555] {
            let tick = Tick::from_words(&[fill; WORDS]);
            if let Body::Trade(trade) = tick.body {
                assert!(trade.id.as_bytes().len() <= TradeId::BYTES_MAX);
            }
        }
    }
}
