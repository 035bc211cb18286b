//! What a line makes of the events of a frame: who may speak, trades and quotes that make sense, breaks of the venue's own
//! numbers. Books are told apart, in `books`.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::LineLimits;
use super::splice::Window;
use super::stats::LineStats;
use crate::book::{Book, Places};
use crate::feed::market::{LineId, Market, Rank};
use crate::instrument::{InstrumentId, Symbol};
use crate::tick::{Body, Channel, Decimal, Quote, Tick, Trade};
use crate::venue::{self, DecodeError, Event, Print, QuoteSource, Scratch, Wire};

/// What a line remembers of a symbol.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) id: InstrumentId,
    pub(super) book: Option<Book>,
    /// The book has seen a break and waits for a snapshot.
    pub(super) broken: bool,
    /// What would be the quote is crossed or not certain: the state is stale until it is neither.
    pub(super) held: bool,
    /// The capture of before has ended, and nothing has proved yet that the book goes on.
    pub(super) unproven: bool,
    /// The capture of before has ended, and nothing has come of this symbol since.
    pub(super) unheard: bool,
    /// Depth told apart from the book.
    pub(super) depth: Option<usize>,
    /// How many places prices and sizes have in the venue's checksum, where they are not those that came.
    pub(super) places: Option<Places>,
    /// The quote handed out last, from the book.
    pub(super) top: Quote,
    /// The quote handed out last that the venue told itself.
    told: Quote,
    /// Newest update id of the book.
    pub(super) update: Option<Updates>,
    /// Changes of the book, for a snapshot that is older than they are.
    pub(super) window: Window,
    /// Number of the newest trade, however it was told.
    last_trade: Option<u64>,
    /// Newest trade that an aggregate covered which was handed out.
    last_told_by_aggregate: Option<u64>,
    /// Newest product sequence.
    sequence: Option<u64>,
}

/// Where an update chain stands.
#[derive(Clone, Copy)]
pub(super) struct Updates {
    pub(super) last: u64,
    /// `last` is a snapshot's: the next message only has to reach over it.
    pub(super) from_snapshot: bool,
}

impl Listed {
    pub(super) fn new(id: InstrumentId) -> Self {
        Self {
            id,
            book: None,
            broken: false,
            held: false,
            unproven: false,
            unheard: false,
            depth: None,
            places: None,
            top: Quote::default(),
            told: Quote::default(),
            update: None,
            window: Window::default(),
            last_trade: None,
            last_told_by_aggregate: None,
            sequence: None,
        }
    }

    /// See [`Line::joined`](super::Line::joined).
    pub(super) fn joined(
        &mut self,
        line: LineId,
        rx_ns: u64,
        market: &mut Market,
        out: &mut impl FnMut(&Tick),
    ) {
        self.unproven = self.book.is_some();
        if Channel::ALL.into_iter().any(|channel| market.rank(self.id, channel, line).is_some()) {
            self.unheard = true;
            market.set_silent(self.id, true, rx_ns, out);
        }
        if self.unproven && market.rank(self.id, Channel::Quote, line) == Some(RANK_BOOK) {
            self.held = true;
            market.set_broken(self.id, true, rx_ns, out);
        }
    }
}

/// Trades one by one win over their aggregates.
const RANK_AGGREGATE: Rank = Rank(1);
const RANK_TRADE: Rank = Rank(2);
/// Quotes: a stream of every best bid and offer (Binance `bookTicker`) wins over a book, that over partial books, that
/// over a spread stream, that over a ticker.
const RANK_TICKER: Rank = Rank(1);
const RANK_SPREAD: Rank = Rank(2);
const RANK_PARTIAL: Rank = Rank(3);
pub(super) const RANK_BOOK: Rank = Rank(4);
const RANK_BOOK_TICKER: Rank = Rank(5);

/// The parts of a [`Line`] that take in events while its scratch is lent to the decoder.
pub(super) struct Intake<'a, Out> {
    pub(super) id: LineId,
    pub(super) wire: Wire,
    pub(super) limits: &'a LineLimits,
    pub(super) symbols: &'a mut HashMap<Box<str>, Listed, FxBuildHasher>,
    pub(super) stats: &'a mut LineStats,
    pub(super) splice_scratch: &'a mut Scratch,
    pub(super) splice_bytes: &'a mut usize,
    pub(super) market: &'a mut Market,
    /// The frame that the events are of.
    pub(super) frame: &'a [u8],
    pub(super) rx_ns: u64,
    pub(super) out: Out,
}

impl<Out: FnMut(&Tick)> Intake<'_, Out> {
    /// Remembers which sources will speak.
    pub(super) fn prime(&mut self, event: &Event<'_, '_>) -> Result<(), DecodeError> {
        match event {
            Event::Trade { symbol, print, .. } => {
                let id = self.listed(symbol)?.id;
                self.claim(id, Channel::Trade, trade_rank(*print));
            }
            Event::Quote { symbol, source, .. } => {
                let id = self.listed(symbol)?.id;
                self.claim(id, Channel::Quote, quote_rank(*source));
            }
            Event::Book(message) if message.snapshot => {
                let id = self.listed(message.symbol)?.id;
                self.claim(id, Channel::Quote, RANK_BOOK);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn take(&mut self, event: &Event<'_, '_>) -> Result<(), DecodeError> {
        match *event {
            Event::Kind { name, known } => {
                self.stats.kinds.count(name, known);
                Ok(())
            }
            Event::Trade { symbol, trade, ts_us, print } => self.trade(symbol, trade, ts_us, print),
            Event::LastTrade { symbol, id } => {
                let listed = self.listed(symbol)?;
                listed.last_trade = listed.last_trade.max(Some(id));
                Ok(())
            }
            Event::Quote { symbol, quote, ts_us, source } => self.quote(symbol, quote, ts_us, source),
            Event::Book(ref message) => self.book(message),
            Event::BookDepth { symbol, depth } => {
                let limit = self.limits.book_levels_max;
                let listed = self.listed(symbol)?;
                listed.depth = Some(depth);
                if let Some(book) = &mut listed.book {
                    book.set_depth(depth.min(limit));
                }
                Ok(())
            }
            Event::Heartbeat { symbol, sequence, last_trade_id } => {
                self.heartbeat(symbol, sequence, last_trade_id)
            }
            Event::Sequence { symbol, sequence } => {
                let listed = self.listed(symbol)?;
                listed.sequence = listed.sequence.max(Some(sequence));
                Ok(())
            }
        }
    }

    /// What is known of a symbol, listing it if it is new.
    pub(super) fn listed(&mut self, name: &str) -> Result<&mut Listed, DecodeError> {
        if !self.symbols.contains_key(name) {
            let id = self
                .list(name)
                .map_err(|why| DecodeError::Symbol { text: name.chars().take(80).collect(), why })?;
            self.symbols.insert(name.into(), Listed::new(id));
        }
        self.symbols.get_mut(name).ok_or(DecodeError::Field("symbol"))
    }

    fn list(&mut self, name: &str) -> Result<InstrumentId, String> {
        let symbol = match self.wire {
            Wire::Native => Symbol::parse(name),
            wire => Symbol::new(wire.name(), name),
        };
        let symbol = symbol.map_err(|error| error.to_string())?;
        if let Some(venues) = &self.limits.venues
            && !venues.iter().any(|venue| venue == symbol.venue())
        {
            return Err(format!("venue {:?} may not be published: see [publish] venues", symbol.venue()));
        }
        self.market.intern(&symbol).map_err(|full| full.to_string())
    }

    /// Whether this line's source of `rank` speaks for the channel. Publishers share their instruments:
    /// what any of them sends goes out.
    pub(super) fn claim(&mut self, id: InstrumentId, channel: Channel, rank: Rank) -> bool {
        self.market.claim(id, channel, self.id, rank, self.wire == Wire::Native)
    }

    pub(super) fn publish(&mut self, id: InstrumentId, channel: Channel, ts_us: Option<u64>, body: Body) {
        let is_plausible = |ts_us: &u64| venue::PLAUSIBLE_US.contains(ts_us);
        self.stats.refused.times += u64::from(!ts_us.as_ref().is_none_or(is_plausible));
        let ts_us = ts_us.filter(is_plausible);
        match channel {
            Channel::Trade => self.stats.trades += 1,
            Channel::Quote => self.stats.quotes += 1,
        }
        let tick = Tick { instrument: id, seq: 0, rx_ns: self.rx_ns, ts_us, snap: false, body };
        self.market.publish(tick, channel, &mut self.out);
    }

    fn trade(
        &mut self,
        symbol: &str,
        trade: Trade,
        ts_us: Option<u64>,
        print: Print,
    ) -> Result<(), DecodeError> {
        let is_told = self.makes_sense(&trade)?;
        let unchecked = self.limits.checks_off.sequence;
        let listed = self.heard(symbol)?;
        let id = listed.id;
        let mut missing = 0;
        let repeated = match print {
            Print::Single => false,
            Print::Numbered(number) => {
                let before = listed.last_trade.replace(number).filter(|_| !unchecked);
                missing = before.map_or(0, |before| number.saturating_sub(before.saturating_add(1)));
                before.is_some_and(|before| number <= before)
            }
            // Where the trades begin to come one by one, an aggregate may have told some already.
            Print::Plain(number) => listed.last_told_by_aggregate.is_some_and(|last| number <= last),
            Print::Aggregate { .. } => false,
        };
        // Also a repeated trade shows that this source is there, and so silences the lesser one.
        let speaks = self.claim(id, Channel::Trade, trade_rank(print));
        if repeated || !speaks {
            self.stats.repeated += 1;
            return Ok(());
        }
        if let Print::Aggregate { last } = print {
            self.listed(symbol)?.last_told_by_aggregate = Some(last);
        }
        if missing > 0 {
            self.stats.sequence_breaks += 1;
            // Coinbase says that this channel may drop messages and that its level2 does not: the book is good.
            self.gap(id, Channel::Trade, missing);
        }
        if is_told {
            self.publish(id, Channel::Trade, ts_us, Body::Trade(trade));
        } else {
            self.stats.refused.zero_trades += 1;
        }
        Ok(())
    }

    /// Whether a trade is one: of a size, and on a venue at a price. A negative size, and on a venue a negative price, is
    /// a fault of the frame.
    fn makes_sense(&self, trade: &Trade) -> Result<bool, DecodeError> {
        let is_native = self.wire == Wire::Native;
        if trade.size.is_negative() || (is_native && trade.size.is_zero()) {
            return Err(DecodeError::value("size", trade.size, "a trade has a size above 0"));
        }
        if trade.price.is_negative() && !is_native {
            return Err(DecodeError::value("price", trade.price, "a price is not negative on this venue"));
        }
        // What a publisher calls a price is one: spreads trade at 0 and below.
        Ok(!trade.size.is_zero() && (is_native || !trade.price.is_zero()))
    }

    /// A quote that the venue tells itself.
    fn quote(
        &mut self,
        symbol: &str,
        quote: Quote,
        ts_us: Option<u64>,
        source: QuoteSource,
    ) -> Result<(), DecodeError> {
        let quote = self.with_real_sides(quote)?;
        let is_crossed = self.wire != Wire::Native && self.is_crossed(&quote);
        let listed = self.heard(symbol)?;
        let (id, held) = (listed.id, listed.held);
        // A partial book comes whether it has changed or not, and of two empty quotes the second says nothing.
        let is_same = quote == listed.told && (source == QuoteSource::Partial || quote == Quote::default());
        if !self.claim(id, Channel::Quote, quote_rank(source)) {
            self.stats.repeated += 1;
            return Ok(());
        }
        if held != is_crossed {
            self.listed(symbol)?.held = is_crossed;
            self.market.set_broken(id, is_crossed, self.rx_ns, &mut self.out);
        }
        if is_crossed || is_same {
            return Ok(());
        }
        self.listed(symbol)?.told = quote;
        self.publish(id, Channel::Quote, ts_us, Body::Quote(quote));
        Ok(())
    }

    /// The quote without sides that are none: venues write an empty one as price 0 or size 0.
    fn with_real_sides(&self, quote: Quote) -> Result<Quote, DecodeError> {
        let is_native = self.wire == Wire::Native;
        let side = |fields: [&'static str; 2], price: Option<Decimal>, size: Option<Decimal>| {
            if let Some(size) = size.filter(|size| size.is_negative()) {
                return Err(DecodeError::value(fields[1], size, "a size is not negative"));
            }
            if let Some(price) = price.filter(|price| price.is_negative() && !is_native) {
                return Err(DecodeError::value(fields[0], price, "a price is not negative on this venue"));
            }
            let is_none = price.is_some_and(|price| price.is_zero() && !is_native)
                || size.is_some_and(Decimal::is_zero);
            Ok(if is_none || price.is_none() { (None, None) } else { (price, size) })
        };
        let (bid, bid_size) = side(["bid", "bid_size"], quote.bid, quote.bid_size)?;
        let (ask, ask_size) = side(["ask", "ask_size"], quote.ask, quote.ask_size)?;
        Ok(Quote { bid, bid_size, ask, ask_size })
    }

    /// Whether a bid is above the ask, which is counted. False where that is not to be checked.
    pub(super) fn is_crossed(&mut self, quote: &Quote) -> bool {
        let is_crossed = quote.bid.zip(quote.ask).is_some_and(|(bid, ask)| bid > ask);
        self.stats.crossed += u64::from(is_crossed);
        is_crossed && !self.limits.checks_off.crossed
    }

    /// What is known of a symbol of which something has come.
    pub(super) fn heard(&mut self, symbol: &str) -> Result<&mut Listed, DecodeError> {
        let listed = self.listed(symbol)?;
        if std::mem::take(&mut listed.unheard) {
            let id = listed.id;
            self.market.set_silent(id, false, self.rx_ns, &mut self.out);
        }
        self.listed(symbol)
    }

    fn gap(&mut self, id: InstrumentId, channel: Channel, missing: u64) {
        self.stats.gaps += 1;
        self.market.gap(id, channel, missing, self.rx_ns, &mut self.out);
    }

    /// Coinbase: the newest trade and the product's sequence at this moment. A trade that never came, or a
    /// sequence that goes back, proves that messages of this product were lost.
    fn heartbeat(&mut self, symbol: &str, sequence: u64, last_trade_id: u64) -> Result<(), DecodeError> {
        let unchecked = self.limits.checks_off.sequence;
        let listed = self.listed(symbol)?;
        let id = listed.id;
        let missing = listed.last_trade.map_or(0, |seen| last_trade_id.saturating_sub(seen));
        let back = listed.sequence.is_some_and(|seen| sequence < seen);
        let (missing, back) = if unchecked { (0, false) } else { (missing, back) };
        listed.last_trade = listed.last_trade.max(Some(last_trade_id));
        listed.sequence = Some(sequence);
        // Where another line tells the trades, they did not get lost.
        if missing > 0 && self.claim(id, Channel::Trade, RANK_TRADE) {
            self.gap(id, Channel::Trade, missing);
        }
        if missing > 0 || back {
            self.stats.sequence_breaks += 1;
            self.break_quotes(symbol)?;
        }
        Ok(())
    }

    /// Messages of this symbol were lost: its quotes have a gap if this line tells them, and its book, if it
    /// has one, waits for a snapshot.
    pub(super) fn break_quotes(&mut self, symbol: &str) -> Result<(), DecodeError> {
        let listed = self.listed(symbol)?;
        let id = listed.id;
        let had_book = listed.book.take().is_some();
        listed.broken = had_book || listed.broken;
        listed.unproven = false;
        listed.update = None;
        let speaks = self.market.rank(id, Channel::Quote, self.id);
        if speaks.is_some() {
            self.gap(id, Channel::Quote, 1);
        }
        if had_book && speaks == Some(RANK_BOOK) {
            self.market.set_broken(id, true, self.rx_ns, &mut self.out);
        }
        Ok(())
    }
}

fn trade_rank(print: Print) -> Rank {
    match print {
        Print::Aggregate { .. } => RANK_AGGREGATE,
        _ => RANK_TRADE,
    }
}

fn quote_rank(source: QuoteSource) -> Rank {
    match source {
        QuoteSource::BookTicker => RANK_BOOK_TICKER,
        QuoteSource::Partial => RANK_PARTIAL,
        QuoteSource::Spread => RANK_SPREAD,
        QuoteSource::Ticker => RANK_TICKER,
    }
}
