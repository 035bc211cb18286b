//! Applies the decoded events of a frame: which source may publish, the plausibility of trades and quotes,
//! breaks of the venue's sequence numbers. Books are in `books`.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};

use rustc_hash::FxBuildHasher;

use super::LineLimits;
use super::splice::Window;
use super::stats::LineStats;
use crate::feed::book::{Book, Places};
use crate::feed::sequencer::{LineId, Origin, Rank, Sequencer};
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Body, Channel, Decimal, Quote, Tick, Trade};
use crate::venue::{self, DecodeError, Event, QuoteSource, Scratch, TradeKind, WireFormat};

/// The state of a symbol on a line.
#[derive(Clone)]
pub(super) struct SymbolState {
    pub(super) id: InstrumentId,
    pub(super) book: Option<Book>,
    /// The book has seen a break and waits for a snapshot.
    pub(super) broken: bool,
    /// The current quote is crossed or uncertain: the instrument is stale until it is neither.
    pub(super) held: bool,
    /// The previous capture has ended, and nothing has proved yet that the book is complete.
    pub(super) unproven: bool,
    /// The previous capture has ended, and no message of this symbol has arrived since.
    pub(super) unheard: bool,
    /// The depth of the book, if sent separately.
    pub(super) depth: Option<usize>,
    /// The decimal places of prices and sizes in the venue's checksum, if they differ from the received ones.
    pub(super) places: Option<Places>,
    /// The last quote published from the book.
    pub(super) top: Quote,
    /// The last quote published that the venue sent as a quote.
    told: Quote,
    /// The newest update id of the book.
    pub(super) update: Option<Updates>,
    /// Changes of the book, kept for a snapshot that is older than they are.
    pub(super) window: Window,
    /// The number of the newest trade, from any event.
    last_trade: Option<u64>,
    /// The newest trade covered by a published aggregate.
    last_told_by_aggregate: Option<u64>,
    /// The newest sequence number of the product.
    sequence: Option<u64>,
}

/// The newest update id of a book.
#[derive(Clone, Copy)]
pub(super) struct Updates {
    pub(super) last: u64,
    /// `last` is a snapshot's: the next message only has to cover the id after it.
    pub(super) from_snapshot: bool,
}

impl SymbolState {
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

    /// See [`Line::ended`](super::Line::ended).
    pub(super) fn ended(
        &mut self,
        line: LineId,
        rx_ns: u64,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        self.unheard = true;
        sequencer.set_free(self.id, line, true, rx_ns, out);
    }

    /// See [`Line::resumed`](super::Line::resumed).
    pub(super) fn resumed(
        &mut self,
        line: LineId,
        rx_ns: u64,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        self.unheard = false;
        sequencer.set_free(self.id, line, false, rx_ns, out);
    }

    /// See [`Line::joined`](super::Line::joined).
    pub(super) fn joined(
        &mut self,
        line: LineId,
        rx_ns: u64,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        self.ended(line, rx_ns, sequencer, out);
        self.unproven = self.book.is_some();
        if self.unproven && sequencer.rank(self.id, Channel::Quote, line) == Some(RANK_BOOK) {
            self.held = true;
            sequencer.set_broken(self.id, true, rx_ns, out);
        }
    }
}

/// The symbols of a line. A symbol is looked up by name once per message and then accessed by index.
#[derive(Clone, Default)]
pub(super) struct Symbols {
    places: HashMap<Box<str>, usize, FxBuildHasher>,
    listed: Vec<SymbolState>,
}

impl Symbols {
    #[inline]
    fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    fn add(&mut self, name: &str, id: InstrumentId) -> usize {
        let place = self.listed.len();
        self.places.insert(name.into(), place);
        self.listed.push(SymbolState::new(id));
        place
    }

    /// Returns the number of symbols.
    pub(super) fn len(&self) -> usize {
        self.listed.len()
    }

    /// Returns the state of a symbol.
    pub(super) fn get(&self, name: &str) -> Option<&SymbolState> {
        self.place(name).map(|place| &self.listed[place])
    }

    /// Iterates over all symbols.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, SymbolState> {
        self.listed.iter()
    }

    /// Iterates over all symbols mutably.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, SymbolState> {
        self.listed.iter_mut()
    }

    /// Renumbers the instruments; those mapped to `None` are removed.
    pub(super) fn renumber(&mut self, number: impl Fn(InstrumentId) -> Option<InstrumentId>) {
        let Self { places, listed } = std::mem::take(self);
        let mut listed: Vec<Option<SymbolState>> = listed.into_iter().map(Some).collect();
        for (name, place) in places {
            if let Some(mut kept) = listed[place].take()
                && let Some(id) = number(kept.id)
            {
                kept.id = id;
                self.places.insert(name, self.listed.len());
                self.listed.push(kept);
            }
        }
    }

    /// Returns their approximate memory in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let names: usize = self.places.keys().map(|name| name.len() + size_of::<(Box<str>, usize)>()).sum();
        let book = |listed: &SymbolState| listed.book.as_ref().map_or(0, Book::memory_bytes);
        let parts =
            |listed: &SymbolState| size_of::<SymbolState>() + book(listed) + listed.window.memory_bytes();
        names + self.listed.iter().map(parts).sum::<usize>()
    }
}

impl Index<usize> for Symbols {
    type Output = SymbolState;

    fn index(&self, place: usize) -> &SymbolState {
        &self.listed[place]
    }
}

impl IndexMut<usize> for Symbols {
    fn index_mut(&mut self, place: usize) -> &mut SymbolState {
        &mut self.listed[place]
    }
}

/// Single trades take precedence over aggregates of them.
const RANK_AGGREGATE: Rank = Rank(1);
const RANK_TRADE: Rank = Rank(2);
/// Precedence of quotes: a stream of every best bid and offer (Binance `bookTicker`), then a book, partial
/// books, a spread stream, a ticker.
const RANK_TICKER: Rank = Rank(1);
const RANK_SPREAD: Rank = Rank(2);
const RANK_PARTIAL: Rank = Rank(3);
pub(super) const RANK_BOOK: Rank = Rank(4);
const RANK_BOOK_TICKER: Rank = Rank(5);

/// The parts of a [`Line`](super::Line) that process events while its scratch is borrowed by the decoder.
pub(super) struct LineProcessor<'a, Out> {
    pub(super) id: LineId,
    pub(super) origin: Origin,
    pub(super) wire: WireFormat,
    pub(super) limits: &'a LineLimits,
    pub(super) symbols: &'a mut Symbols,
    pub(super) stats: &'a mut LineStats,
    pub(super) splice_scratch: &'a mut Scratch,
    pub(super) splice_bytes: &'a mut usize,
    pub(super) sequencer: &'a mut Sequencer,
    /// The frame that is being decoded.
    pub(super) frame: &'a [u8],
    pub(super) rx_ns: u64,
    pub(super) out: Out,
}

impl<Out: FnMut(&Tick)> LineProcessor<'_, Out> {
    /// Learns which source an event comes from, without publishing it.
    pub(super) fn prime(&mut self, event: &Event<'_, '_>) -> Result<(), DecodeError> {
        let (symbol, channel, rank) = match event {
            Event::Trade { symbol, print, .. } => (symbol, Channel::Trade, trade_rank(*print)),
            Event::Quote { symbol, source, .. } => (symbol, Channel::Quote, quote_rank(*source)),
            Event::Book(message) if message.snapshot => (&message.symbol, Channel::Quote, RANK_BOOK),
            _ => return Ok(()),
        };
        let at = self.find(symbol)?;
        self.claim(at, channel, rank);
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
                let at = self.find(symbol)?;
                let last_trade = &mut self.symbols[at].last_trade;
                *last_trade = (*last_trade).max(Some(id));
                Ok(())
            }
            Event::Quote { symbol, quote, ts_us, source } => self.quote(symbol, quote, ts_us, source),
            Event::Book(ref message) => self.book(message),
            Event::BookDepth { symbol, depth } => {
                let at = self.find(symbol)?;
                let listed = &mut self.symbols[at];
                listed.depth = Some(depth);
                if let Some(book) = &mut listed.book {
                    book.set_depth(depth.min(self.limits.book_levels_max));
                }
                Ok(())
            }
            Event::Heartbeat { symbol, sequence, last_trade_id } => {
                self.heartbeat(symbol, sequence, last_trade_id)
            }
            Event::Sequence { symbol, sequence } => {
                let at = self.find(symbol)?;
                let newest = &mut self.symbols[at].sequence;
                *newest = (*newest).max(Some(sequence));
                Ok(())
            }
        }
    }

    /// Returns the index of a symbol, and lists the symbol if it is new.
    #[inline]
    fn find(&mut self, name: &str) -> Result<usize, DecodeError> {
        match self.symbols.place(name) {
            Some(at) => Ok(at),
            None => self.meet(name),
        }
    }

    #[cold]
    fn meet(&mut self, name: &str) -> Result<usize, DecodeError> {
        let symbol = self.symbol(name)?;
        let most = self.limits.instruments_max;
        let listed = if self.symbols.len() < most {
            self.sequencer.intern_below(&symbol, self.limits.listed_max).map_err(|full| full.to_string())
        } else {
            Err(format!("no room for another instrument of this publisher: it has named {most}"))
        };
        let id = listed.map_err(|why| DecodeError::RoomError { text: shortened(name), why })?;
        Ok(self.symbols.add(name, id))
    }

    /// Returns the index of a symbol for which data has arrived.
    #[inline]
    pub(super) fn heard(&mut self, symbol: &str) -> Result<usize, DecodeError> {
        let at = self.find(symbol)?;
        let listed = &mut self.symbols[at];
        if listed.unheard {
            listed.resumed(self.id, self.rx_ns, self.sequencer, &mut self.out);
        }
        Ok(at)
    }

    /// Returns the symbol of this name, if it is valid and its venue may be published here.
    fn symbol(&self, name: &str) -> Result<Symbol, DecodeError> {
        let symbol = match self.wire {
            WireFormat::Native => Symbol::parse(name),
            wire => Symbol::new(wire.name(), name),
        };
        let refused = |why| DecodeError::Symbol { text: shortened(name), why };
        let symbol = symbol.map_err(|error| refused(error.to_string()))?;
        match &self.limits.venues {
            Some(venues) if !venues.iter().any(|venue| venue == symbol.venue()) => {
                let venue = symbol.venue();
                Err(refused(format!("venue {venue:?} may not be published: see [publish] venues")))
            }
            _ => Ok(symbol),
        }
    }

    /// Claims a channel for this line's source of `rank`; returns true if the source may publish. Publishers
    /// share their instruments: a tick from any of them is published.
    pub(super) fn claim(&mut self, at: usize, channel: Channel, rank: Rank) -> bool {
        self.sequencer.claim(
            self.symbols[at].id,
            channel,
            self.id,
            self.origin,
            rank,
            self.wire == WireFormat::Native,
        )
    }

    pub(super) fn publish(&mut self, at: usize, channel: Channel, ts_us: Option<u64>, body: Body) {
        let ts_us = match ts_us {
            Some(ts_us) if !venue::PLAUSIBLE_US.contains(&ts_us) => {
                self.stats.refused.times += 1;
                None
            }
            ts_us => ts_us,
        };
        match channel {
            Channel::Trade => self.stats.trades += 1,
            Channel::Quote => self.stats.quotes += 1,
        }
        let (instrument, rx_ns) = (self.symbols[at].id, self.rx_ns);
        let tick = Tick { instrument, seq: 0, rx_ns, ts_us, snap: false, body };
        self.sequencer.publish(tick, channel, &mut self.out);
    }

    /// Sets whether the current quote is untrustworthy (crossed or uncertain).
    pub(super) fn hold(&mut self, at: usize, hold: bool) {
        let listed = &mut self.symbols[at];
        listed.held = hold;
        self.sequencer.set_broken(listed.id, hold, self.rx_ns, &mut self.out);
    }

    fn trade(
        &mut self,
        symbol: &str,
        trade: Trade,
        ts_us: Option<u64>,
        print: TradeKind,
    ) -> Result<(), DecodeError> {
        let is_told = self.makes_sense(symbol, &trade)?;
        self.check_time(ts_us)?;
        let unchecked = self.limits.checks_off.sequence;
        let at = self.heard(symbol)?;
        let listed = &mut self.symbols[at];
        let mut missing = 0;
        let repeated = match print {
            TradeKind::Single => false,
            TradeKind::Numbered(number) => {
                let before = listed.last_trade.filter(|_| !unchecked);
                listed.last_trade = before.max(Some(number));
                missing = before.map_or(0, |before| number.saturating_sub(before.saturating_add(1)));
                before.is_some_and(|before| number <= before)
            }
            // When single trades begin, an aggregate may already have covered some of them.
            TradeKind::Plain(number) => listed.last_told_by_aggregate.is_some_and(|last| number <= last),
            TradeKind::Aggregate { .. } => false,
        };
        // A repeated trade also shows that this source is active, and so silences the one of lower rank.
        let speaks = self.claim(at, Channel::Trade, trade_rank(print));
        if repeated || !speaks {
            self.stats.repeated += 1;
            return Ok(());
        }
        if let TradeKind::Aggregate { last } = print {
            self.symbols[at].last_told_by_aggregate = Some(last);
        }
        if missing > 0 {
            self.stats.sequence_breaks += 1;
            // Coinbase documents that this channel may drop messages and that its level2 channel does not:
            // the book is still good.
            self.gap(at, Channel::Trade, missing);
        }
        if is_told {
            self.publish(at, Channel::Trade, ts_us, Body::Trade(trade));
        } else {
            self.stats.refused.zero_trades += 1;
        }
        Ok(())
    }

    /// Returns true if a trade is to be published: its size is above 0, and so is its price, unless prices of
    /// the symbol can be negative. Returns false for a venue's trade with size or price 0, which is left out.
    /// Any other trade is a fault of the frame.
    fn makes_sense(&self, symbol: &str, trade: &Trade) -> Result<bool, DecodeError> {
        if trade.size.is_positive() && trade.price.is_positive() {
            return Ok(true);
        }
        let is_native = self.wire == WireFormat::Native;
        if trade.size.is_negative() || (is_native && trade.size.is_zero()) {
            return Err(DecodeError::value("size", trade.size, "a trade has a size above 0"));
        }
        let is_free = self.has_negative_prices(symbol);
        if trade.price.is_negative() && !is_free {
            return Err(DecodeError::value("price", trade.price, NOT_NEGATIVE));
        }
        if is_native && !is_free {
            return Err(DecodeError::value(
                "price",
                trade.price,
                "a trade has a price above 0 on this venue",
            ));
        }
        // Publishers may send prices of 0 and below: spreads trade there.
        Ok(is_free)
    }

    /// Returns true if prices of this symbol can be 0 or below. Native messages that name a known venue
    /// follow the rule of that venue.
    #[cold]
    fn has_negative_prices(&self, symbol: &str) -> bool {
        let venue = symbol.split_once(':').filter(|_| self.wire == WireFormat::Native);
        let wire = venue.and_then(|(venue, _)| venue.parse().ok()).unwrap_or(self.wire);
        wire.has_negative_prices()
    }

    /// Rejects a published tick whose time is more than a day ahead. A replay may be of any time.
    fn check_time(&self, ts_us: Option<u64>) -> Result<(), DecodeError> {
        let latest_us = self.rx_ns / 1_000 + venue::AHEAD_MAX_US;
        match ts_us {
            Some(ts_us) if ts_us > latest_us && self.origin == Origin::Live => {
                Err(DecodeError::Ahead { field: "ts", ts_us })
            }
            _ => Ok(()),
        }
    }

    /// Handles a quote that the venue sends as a quote.
    fn quote(
        &mut self,
        symbol: &str,
        quote: Quote,
        ts_us: Option<u64>,
        source: QuoteSource,
    ) -> Result<(), DecodeError> {
        self.check_time(ts_us)?;
        let at = self.heard(symbol)?;
        let quote = match has_two_sides(&quote) {
            true => Ok(quote),
            false => self.with_real_sides(symbol, quote),
        };
        let quote = match quote {
            Ok(quote) => quote,
            Err(error) => {
                // There is a newer quote than the published one, and it cannot be represented.
                if self.claim(at, Channel::Quote, quote_rank(source)) {
                    self.hold(at, true);
                }
                return Err(error);
            }
        };
        // A partial book is sent whether it has changed or not, and the second of two empty quotes carries no
        // information.
        let is_empty = quote.bid.is_none() && quote.ask.is_none();
        let may_repeat = source == QuoteSource::Partial || is_empty;
        // An equal quote is redundant, unless another line has published quotes since: then it must be
        // published again.
        let id = self.symbols[at].id;
        let spoke =
            may_repeat && self.sequencer.rank(id, Channel::Quote, self.id) == Some(quote_rank(source));
        if !self.claim(at, Channel::Quote, quote_rank(source)) {
            self.stats.repeated += 1;
            return Ok(());
        }
        let is_crossed = self.wire != WireFormat::Native && self.is_crossed(&quote);
        if is_crossed != self.symbols[at].held {
            self.hold(at, is_crossed);
        }
        let told = &mut self.symbols[at].told;
        let says_nothing = may_repeat && quote == *told && (spoke || is_empty);
        if is_crossed || says_nothing {
            return Ok(());
        }
        *told = quote;
        self.publish(at, Channel::Quote, ts_us, Body::Quote(quote));
        Ok(())
    }

    /// Returns the quote without its empty sides, which venues encode as price 0 or size 0.
    #[cold]
    fn with_real_sides(&self, symbol: &str, quote: Quote) -> Result<Quote, DecodeError> {
        let is_free = self.has_negative_prices(symbol);
        let side = |fields: [&'static str; 2], price: Option<Decimal>, size: Option<Decimal>| {
            if let Some(size) = size.filter(|size| size.is_negative()) {
                return Err(DecodeError::value(fields[1], size, "a size is not negative"));
            }
            if let Some(price) = price.filter(|price| price.is_negative() && !is_free) {
                return Err(DecodeError::value(fields[0], price, NOT_NEGATIVE));
            }
            let is_none =
                price.is_some_and(|price| price.is_zero() && !is_free) || size.is_some_and(Decimal::is_zero);
            Ok(if is_none || price.is_none() { (None, None) } else { (price, size) })
        };
        let (bid, bid_size) = side(["bid", "bid_size"], quote.bid, quote.bid_size)?;
        let (ask, ask_size) = side(["ask", "ask_size"], quote.ask, quote.ask_size)?;
        Ok(Quote { bid, bid_size, ask, ask_size })
    }

    /// Returns true if the bid is above the ask, which is counted. Returns false if that check is disabled.
    pub(super) fn is_crossed(&mut self, quote: &Quote) -> bool {
        let is_crossed = quote.bid.zip(quote.ask).is_some_and(|(bid, ask)| bid > ask);
        self.stats.crossed += u64::from(is_crossed);
        is_crossed && !self.limits.checks_off.crossed
    }

    fn gap(&mut self, at: usize, channel: Channel, missing: u64) {
        self.stats.gaps += 1;
        self.sequencer.gap(self.symbols[at].id, channel, missing, self.rx_ns, &mut self.out);
    }

    /// Handles a Coinbase heartbeat: the newest trade and sequence number of the product. A missing trade, or
    /// a sequence number that goes back, proves that messages of this product were lost.
    fn heartbeat(&mut self, symbol: &str, sequence: u64, last_trade_id: u64) -> Result<(), DecodeError> {
        let unchecked = self.limits.checks_off.sequence;
        let at = self.find(symbol)?;
        let listed = &mut self.symbols[at];
        let missing = listed.last_trade.map_or(0, |seen| last_trade_id.saturating_sub(seen));
        let back = listed.sequence.is_some_and(|seen| sequence < seen);
        let (missing, back) = if unchecked { (0, false) } else { (missing, back) };
        listed.last_trade = listed.last_trade.max(Some(last_trade_id));
        listed.sequence = Some(sequence);
        // If another line publishes the trades, none were lost.
        if missing > 0 && self.claim(at, Channel::Trade, RANK_TRADE) {
            self.gap(at, Channel::Trade, missing);
        }
        if missing > 0 || back {
            self.stats.sequence_breaks += 1;
            self.break_quotes(at);
        }
        Ok(())
    }

    /// Handles lost messages of a symbol: its quotes have a gap if this line publishes them, and its book, if
    /// any, waits for a snapshot.
    pub(super) fn break_quotes(&mut self, at: usize) {
        let listed = &mut self.symbols[at];
        let id = listed.id;
        let had_book = listed.book.take().is_some();
        listed.broken = had_book || listed.broken;
        listed.unproven = false;
        listed.update = None;
        let speaks = self.sequencer.rank(id, Channel::Quote, self.id);
        if speaks.is_some() {
            self.gap(at, Channel::Quote, 1);
        }
        if had_book && speaks == Some(RANK_BOOK) {
            self.sequencer.set_broken(id, true, self.rx_ns, &mut self.out);
        }
    }
}

const NOT_NEGATIVE: &str = "a price is not negative on this venue";

/// Returns the first 80 characters of a rejected name, for the error message.
fn shortened(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Returns true if both sides of a quote exist, with prices and sizes above 0.
#[inline]
fn has_two_sides(quote: &Quote) -> bool {
    let Quote { bid, bid_size, ask, ask_size } = quote;
    [bid, bid_size, ask, ask_size].into_iter().all(|value| value.is_some_and(Decimal::is_positive))
}

fn trade_rank(print: TradeKind) -> Rank {
    match print {
        TradeKind::Aggregate { .. } => RANK_AGGREGATE,
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
