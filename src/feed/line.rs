//! A feed line: one connection, capture or peer. Frames in, numbered ticks out.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::market::{LineId, Market, Rank};
use super::recorder::Tap;
use crate::book::Book;
use crate::instrument::{InstrumentId, Symbol};
use crate::tick::{Body, Channel, Quote, Tick, Trade};
use crate::venue::{self, BookMessage, DecodeError, Event, Link, Print, QuoteSource, Scratch, Wire};

/// What a line counted, from its first frame on.
#[derive(Clone, Debug, Default)]
pub struct LineStats {
    /// Frames received.
    pub frames: u64,
    /// Frames, or parts of them, that could not be read.
    pub bad_frames: u64,
    /// Trades handed out.
    pub trades: u64,
    /// Quotes handed out.
    pub quotes: u64,
    /// Trades and quotes that another source of the same line or another line already told.
    pub repeated: u64,
    /// Gaps handed out.
    pub gaps: u64,
    /// Breaks of a venue's sequence or update chain.
    pub sequence_breaks: u64,
    /// Book checksums that were right.
    pub checksums_good: u64,
    /// Book checksums that were wrong.
    pub checksums_bad: u64,
    /// Frames by the venue's word for them.
    pub kinds: Kinds,
}

impl LineStats {
    /// Adds another line's counts.
    pub fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bad_frames += other.bad_frames;
        self.trades += other.trades;
        self.quotes += other.quotes;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        self.sequence_breaks += other.sequence_breaks;
        self.checksums_good += other.checksums_good;
        self.checksums_bad += other.checksums_bad;
        self.kinds.add(&other.kinds);
    }
}

/// Frames counted by kind, for at most [`Kinds::MAX`] kinds: a venue cannot make it grow.
#[derive(Clone, Debug, Default)]
pub struct Kinds(Vec<Kind>);

/// One row of [`Kinds`].
#[derive(Clone, Debug)]
pub struct Kind {
    /// The venue's word.
    pub name: Box<str>,
    /// Whether the decoder knows it.
    pub known: bool,
    /// How many frames.
    pub frames: u64,
}

impl Kinds {
    /// How many kinds are told apart.
    pub const MAX: usize = 64;

    #[inline]
    fn count(&mut self, name: &str, known: bool) {
        self.add_frames(name, known, 1);
    }

    fn add_frames(&mut self, name: &str, known: bool, frames: u64) {
        if let Some(kind) = self.0.iter_mut().find(|kind| &*kind.name == name) {
            kind.frames += frames;
            return;
        }
        let name = match self.0.len() {
            ..Self::MAX => name.chars().filter(|c| !c.is_control()).take(32).collect(),
            _ => "(other)".to_owned(),
        };
        match self.0.iter_mut().find(|kind| *kind.name == name) {
            Some(kind) => kind.frames += frames,
            None => self.0.push(Kind { name: name.into(), known, frames }),
        }
    }

    /// Adds another's counts.
    fn add(&mut self, other: &Self) {
        for kind in &other.0 {
            self.add_frames(&kind.name, kind.known, kind.frames);
        }
    }

    /// The rows, in the order of first sight.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }
}

/// Limits of a line.
#[derive(Clone, Debug)]
pub struct LineLimits {
    /// Levels a side that a book keeps at most.
    pub book_levels_max: usize,
    /// Venues that native messages may name; `None`: any.
    pub venues: Option<Vec<String>>,
}

/// What a line remembers of a symbol.
#[derive(Clone)]
struct Listed {
    id: InstrumentId,
    book: Option<Book>,
    /// The book has seen a break and waits for a snapshot.
    broken: bool,
    /// Depth told apart from the book.
    depth: Option<usize>,
    /// The quote handed out last, from the book.
    top: Quote,
    /// Newest update id of the book.
    update: Option<Updates>,
    /// Number of the newest trade, however it was told.
    last_trade: Option<u64>,
    /// Newest trade that an aggregate covered which was handed out.
    last_told_by_aggregate: Option<u64>,
    /// Newest product sequence.
    sequence: Option<u64>,
}

/// Where an update chain stands.
#[derive(Clone, Copy)]
struct Updates {
    last: u64,
    /// `last` is a snapshot's: the next message only has to reach over it.
    from_snapshot: bool,
}

impl Listed {
    fn new(id: InstrumentId) -> Self {
        Self {
            id,
            book: None,
            broken: false,
            depth: None,
            top: Quote::default(),
            update: None,
            last_trade: None,
            last_told_by_aggregate: None,
            sequence: None,
        }
    }
}

/// Trades one by one win over their aggregates.
const RANK_AGGREGATE: Rank = Rank(1);
const RANK_TRADE: Rank = Rank(2);
/// Quotes: a stream of every best bid and offer (Binance `bookTicker`) wins over a book, that over a spread
/// stream, that over a ticker.
const RANK_TICKER: Rank = Rank(1);
const RANK_SPREAD: Rank = Rank(2);
const RANK_BOOK: Rank = Rank(3);
const RANK_BOOK_TICKER: Rank = Rank(4);

/// What a line remembers at one place of its captures.
#[derive(Clone)]
pub(super) struct Memory {
    symbols: HashMap<Box<str>, Listed, FxBuildHasher>,
    /// A frame has come since the connection was made.
    connected: bool,
}

impl Memory {
    /// The instruments it knows.
    pub(super) fn instruments(&self) -> impl Iterator<Item = InstrumentId> {
        self.symbols.values().map(|listed| listed.id)
    }

    /// Gives each instrument another number; those that get none are forgotten.
    pub(super) fn renumber(&mut self, number: impl Fn(InstrumentId) -> Option<InstrumentId>) {
        self.symbols.retain(|_, listed| {
            let renumbered = number(listed.id);
            listed.id = renumbered.unwrap_or(listed.id);
            renumbered.is_some()
        });
    }

    /// Bytes that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let books = self.symbols.values().filter_map(|listed| listed.book.as_ref());
        let names: usize = self.symbols.keys().map(|name| name.len()).sum();
        self.symbols.len() * size_of::<(Box<str>, Listed)>()
            + names
            + books.map(Book::memory_bytes).sum::<usize>()
    }
}

/// One connection, capture or peer. It does no I/O and reads no clock.
pub struct Line {
    id: LineId,
    wire: Wire,
    limits: LineLimits,
    scratch: Scratch,
    symbols: HashMap<Box<str>, Listed, FxBuildHasher>,
    stats: LineStats,
    last_rx_ns: Option<u64>,
    silent: bool,
    tap: Option<Tap>,
}

/// The parts of a [`Line`] that take in events while its scratch is lent to the decoder.
struct Intake<'a, Out> {
    id: LineId,
    wire: Wire,
    limits: &'a LineLimits,
    symbols: &'a mut HashMap<Box<str>, Listed, FxBuildHasher>,
    stats: &'a mut LineStats,
    market: &'a mut Market,
    rx_ns: u64,
    out: Out,
}

impl Line {
    /// A line of a venue, before its first frame.
    pub fn new(id: LineId, wire: Wire, limits: LineLimits) -> Self {
        Self {
            id,
            wire,
            limits,
            scratch: Scratch::default(),
            symbols: HashMap::default(),
            stats: LineStats::default(),
            last_rx_ns: None,
            silent: false,
            tap: None,
        }
    }

    /// Has what it takes in recorded from now on.
    pub fn record(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// What it counted so far.
    pub fn stats(&self) -> &LineStats {
        &self.stats
    }

    /// When the newest frame was received; `None` before the first of a connection.
    pub fn last_rx_ns(&self) -> Option<u64> {
        self.last_rx_ns
    }

    /// Whether it was found silent, and nothing has come since.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The venue whose messages it reads.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// What it remembers.
    pub(super) fn memory(&self) -> Memory {
        Memory { symbols: self.symbols.clone(), connected: self.last_rx_ns.is_some() }
    }

    /// As [`memory`](Self::memory), of a line that is not needed any more.
    pub(super) fn into_memory(self) -> Memory {
        Memory { connected: self.last_rx_ns.is_some(), symbols: self.symbols }
    }

    /// Its capture goes on at another place, where it remembers this. A recording has a break there.
    pub(super) fn recall(&mut self, memory: Memory, rx_ns: u64) {
        if let Some(tap) = self.tap.as_mut().filter(|_| self.last_rx_ns.is_some()) {
            tap.disconnected(rx_ns);
        }
        self.symbols = memory.symbols;
        self.last_rx_ns = memory.connected.then_some(rx_ns);
        self.silent = false;
    }

    /// The instruments it knows.
    pub(super) fn instruments(&self) -> impl Iterator<Item = InstrumentId> {
        self.symbols.values().map(|listed| listed.id)
    }

    /// It was not its silence that nothing came: that begins now.
    pub(super) fn touch(&mut self, rx_ns: u64) {
        self.last_rx_ns = self.last_rx_ns.map(|last| last.max(rx_ns));
    }

    /// Looks at a frame that will come, without handing out anything: which sources tell of which symbol.
    /// So a ticker that comes before the book's snapshot, or an aggregate before the first trade, is known
    /// from the start to be a repetition. Frames that cannot be read are left for [`frame`](Self::frame) to report.
    pub fn prime(&mut self, frame: &[u8], market: &mut Market) {
        let mut stats = LineStats::default();
        let mut intake = Intake {
            id: self.id,
            wire: self.wire,
            limits: &self.limits,
            symbols: &mut self.symbols,
            stats: &mut stats,
            market,
            rx_ns: 0,
            out: |_: &Tick| {},
        };
        // An unreadable frame is counted when it really comes.
        let _ = venue::decode(self.wire, &mut self.scratch, frame, &mut |event| intake.prime(&event));
    }

    /// Takes in one frame received at `rx_ns` (nanoseconds since the Unix epoch) and hands out the ticks
    /// it makes.
    ///
    /// # Errors
    /// What is wrong with the frame; it is counted, and the ticks before the fault were handed out.
    pub fn frame(
        &mut self,
        rx_ns: u64,
        frame: &[u8],
        market: &mut Market,
        mut out: impl FnMut(&Tick),
    ) -> Result<(), DecodeError> {
        if let Some(tap) = &mut self.tap {
            tap.frame(rx_ns, frame);
        }
        let gaps = self.stats.gaps;
        self.stats.frames += 1;
        self.last_rx_ns = Some(rx_ns);
        if self.silent {
            self.set_silent(false, rx_ns, market, &mut out);
        }
        let mut intake = Intake {
            id: self.id,
            wire: self.wire,
            limits: &self.limits,
            symbols: &mut self.symbols,
            stats: &mut self.stats,
            market,
            rx_ns,
            out,
        };
        let result = venue::decode(self.wire, &mut self.scratch, frame, &mut |event| intake.take(&event));
        if result.is_err() {
            self.stats.bad_frames += 1;
        }
        if let Some(tap) = self.tap.as_mut().filter(|_| self.stats.gaps > gaps) {
            tap.gap(rx_ns, self.stats.gaps - gaps);
        }
        result
    }

    /// The connection was lost or the capture ended: what it spoke for is down, and books and sequences
    /// begin anew with the next frame. Before the first frame there is nothing to end, and what
    /// [`prime`](Self::prime) learned stays.
    pub fn disconnected(&mut self, rx_ns: u64, market: &mut Market, mut out: impl FnMut(&Tick)) {
        if self.last_rx_ns.is_none() {
            return;
        }
        for listed in self.symbols.values_mut() {
            market.release(listed.id, self.id, rx_ns, &mut out);
            *listed = Listed::new(listed.id);
        }
        self.last_rx_ns = None;
        self.silent = false;
        if let Some(tap) = &mut self.tap {
            tap.disconnected(rx_ns);
        }
    }

    /// A connection was made. What the one before it told does not hold any more.
    pub fn connected(&mut self, rx_ns: u64, to: &str, market: &mut Market, out: impl FnMut(&Tick)) {
        self.disconnected(rx_ns, market, out);
        if let Some(tap) = &mut self.tap {
            tap.connected(rx_ns, to);
        }
    }

    /// Nothing was received for too long (`silent`), or again.
    pub fn set_silent(&mut self, silent: bool, rx_ns: u64, market: &mut Market, out: &mut impl FnMut(&Tick)) {
        if self.silent == silent {
            return;
        }
        self.silent = silent;
        for listed in self.symbols.values() {
            let speaks = Channel::ALL.into_iter().any(|c| market.rank(listed.id, c, self.id).is_some());
            if speaks {
                market.set_silent(listed.id, silent, rx_ns, out);
            }
        }
    }
}

impl<Out: FnMut(&Tick)> Intake<'_, Out> {
    /// Remembers which sources will speak.
    fn prime(&mut self, event: &Event<'_, '_>) -> Result<(), DecodeError> {
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

    fn take(&mut self, event: &Event<'_, '_>) -> Result<(), DecodeError> {
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
            Event::Quote { symbol, quote, ts_us, source } => {
                let id = self.listed(symbol)?.id;
                if self.claim(id, Channel::Quote, quote_rank(source)) {
                    self.publish(id, Channel::Quote, ts_us, Body::Quote(quote));
                } else {
                    self.stats.repeated += 1;
                }
                Ok(())
            }
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
    fn listed(&mut self, name: &str) -> Result<&mut Listed, DecodeError> {
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
    fn claim(&mut self, id: InstrumentId, channel: Channel, rank: Rank) -> bool {
        self.market.claim(id, channel, self.id, rank, self.wire == Wire::Native)
    }

    fn publish(&mut self, id: InstrumentId, channel: Channel, ts_us: Option<u64>, body: Body) {
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
        let listed = self.listed(symbol)?;
        let id = listed.id;
        let mut missing = 0;
        let repeated = match print {
            Print::Single => false,
            Print::Numbered(number) => {
                let before = listed.last_trade.replace(number);
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
        self.publish(id, Channel::Trade, ts_us, Body::Trade(trade));
        Ok(())
    }

    fn gap(&mut self, id: InstrumentId, channel: Channel, missing: u64) {
        self.stats.gaps += 1;
        self.market.gap(id, channel, missing, self.rx_ns, &mut self.out);
    }

    /// Coinbase: the newest trade and the product's sequence at this moment. A trade that never came, or a
    /// sequence that goes back, proves that messages of this product were lost.
    fn heartbeat(&mut self, symbol: &str, sequence: u64, last_trade_id: u64) -> Result<(), DecodeError> {
        let listed = self.listed(symbol)?;
        let id = listed.id;
        let missing = listed.last_trade.map_or(0, |seen| last_trade_id.saturating_sub(seen));
        let back = listed.sequence.is_some_and(|seen| sequence < seen);
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
    fn break_quotes(&mut self, symbol: &str) -> Result<(), DecodeError> {
        let listed = self.listed(symbol)?;
        let id = listed.id;
        let had_book = listed.book.take().is_some();
        listed.broken = had_book || listed.broken;
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

    fn book(&mut self, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        if message.snapshot {
            return self.snapshot(message);
        }
        if !self.follows(message)? {
            return Ok(());
        }
        let Some(book) = self.listed(message.symbol)?.book.as_mut() else { return Ok(()) };
        let result = book.change(&message.levels);
        self.settle(message, result)
    }

    fn snapshot(&mut self, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        let limit = self.limits.book_levels_max;
        let listed = self.listed(message.symbol)?;
        let depth = listed.depth.or(message.depth).unwrap_or(limit).min(limit);
        let mut book = Book::new(depth);
        let result = book.snapshot(&message.levels);
        let id = listed.id;
        listed.book = Some(book);
        listed.update = match message.link {
            Link::Updates { last, .. } => Some(Updates { last, from_snapshot: true }),
            Link::None => None,
        };
        self.claim(id, Channel::Quote, RANK_BOOK);
        self.settle(message, result)
    }

    /// Whether a change follows what came before it. A break is counted and told; with a snapshot in
    /// hand, changes that it already holds are skipped.
    fn follows(&mut self, message: &BookMessage<'_, '_>) -> Result<bool, DecodeError> {
        let Link::Updates { first, last, previous } = message.link else { return Ok(true) };
        let listed = self.listed(message.symbol)?;
        let Some(before) = listed.update.replace(Updates { last, from_snapshot: false }) else {
            return Ok(true);
        };
        if before.from_snapshot && last <= before.last {
            listed.update = Some(before);
            return Ok(false);
        }
        let unbroken = match previous {
            // The futures' ids are shared with other symbols, so `first` may lie far beyond the message before.
            Some(previous) if before.from_snapshot => previous <= before.last,
            None if before.from_snapshot => first <= before.last.saturating_add(1),
            Some(previous) => previous == before.last,
            None => first == before.last.saturating_add(1),
        };
        if !unbroken {
            self.stats.sequence_breaks += 1;
            self.break_quotes(message.symbol)?;
            self.listed(message.symbol)?.update = Some(Updates { last, from_snapshot: false });
        }
        Ok(unbroken)
    }

    /// After a book message: checks the book, and hands out its best bid and offer if they changed.
    fn settle(
        &mut self,
        message: &BookMessage<'_, '_>,
        taken: Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if let Err(error) = taken {
            self.break_quotes(message.symbol)?;
            return Err(error);
        }
        let listed = self.listed(message.symbol)?;
        let id = listed.id;
        let Some(book) = &listed.book else { return Ok(()) };
        if let Some(checksum) = message.checksum {
            if book.kraken_checksum() == checksum {
                self.stats.checksums_good += 1;
            } else {
                self.stats.checksums_bad += 1;
                return self.break_quotes(message.symbol);
            }
        }
        let listed = self.listed(message.symbol)?;
        let Some(quote) = listed.book.as_ref().map(Book::quote) else { return Ok(()) };
        // A book is only there again after a snapshot, and only here is it known to be a good one.
        let rebuilt = std::mem::take(&mut listed.broken);
        let same = quote == listed.top && !rebuilt;
        listed.top = quote;
        if rebuilt && self.claim(id, Channel::Quote, RANK_BOOK) {
            self.market.set_broken(id, false, self.rx_ns, &mut self.out);
        }
        if same {
            return Ok(());
        }
        if self.claim(id, Channel::Quote, RANK_BOOK) {
            self.publish(id, Channel::Quote, message.ts_us, Body::Quote(quote));
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
        QuoteSource::Spread => RANK_SPREAD,
        QuoteSource::Ticker => RANK_TICKER,
    }
}
