//! The market of one instrument: a random-walk price, a limit order book around it, trades at the touch.
//!
//! All in whole ticks and lots; [`Market::price`] and [`Market::size`] convert them to a venue's digits.

use super::rng::Rng;
use crate::model::tick::{Decimal, Side};
use crate::venue::WireFormat;

/// A side of the book is refilled to this many levels.
const LEVELS_MIN: usize = 12;
/// Levels of a side at the start.
const LEVELS_START: usize = 18;
/// Maximum number of levels of a side.
const LEVELS_MAX: usize = 25;

/// Lots traded in the day before the start.
const DAY_VOLUME: i64 = 50_000_000;

/// Fraction bits of the fair price, so that it can move by less than a tick.
const FAIR_BITS: u32 = 16;

/// A price level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// In ticks.
    pub price: i64,
    /// In lots; 0 in a change that removes the level.
    pub size: i64,
}

/// A level changed in a turn, with its new size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// `Buy` for a bid, `Sell` for an ask.
    pub side: Side,
    pub level: Level,
}

/// An executed trade.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    /// Consecutive within the market.
    pub id: u64,
    pub taker: Side,
    /// In ticks.
    pub price: i64,
    /// In lots.
    pub size: i64,
}

/// The statistics shown by a ticker. Prices in ticks, volumes in lots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day {
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub volume: i64,
    /// The sum of price times size.
    pub notional: i128,
    pub trades: u64,
}

impl Day {
    /// Returns the volume-weighted average price in ticks, rounded down.
    pub(super) fn vwap(&self) -> i64 {
        (self.notional / i128::from(self.volume.max(1))) as i64
    }
}

/// The precision of a venue's prices and sizes: mantissa units per tick and lot, and their scales.
#[derive(Clone, Copy, Debug)]
struct Digits {
    tick: i64,
    price_scale: u8,
    lot: i64,
    size_scale: u8,
}

/// The market of one instrument.
pub(super) struct Market {
    name: String,
    digits: Digits,
    /// Both sides with the best level first.
    bids: Vec<Level>,
    asks: Vec<Level>,
    /// The fair price, in units of 2^-`FAIR_BITS` ticks.
    fair: i64,
    /// Maximum move of the fair price in a turn, in the same unit.
    step: i64,
    /// The typical distance of two levels, in ticks.
    gap: i64,
    touch_before: (Level, Level),
    changes: Vec<Change>,
    fills: Vec<Fill>,
    last: Fill,
    day: Day,
}

/// Initial prices, in millionths of the quote currency, by the beginning of a name.
const START_PRICES: [(&str, i64); 20] = [
    ("BTC", 64_010_200_000),
    ("XBT", 64_010_200_000),
    ("ETH", 3_054_480_000),
    ("SOL", 148_370_000),
    ("BNB", 586_100_000),
    ("XRP", 524_100),
    ("ADA", 452_300),
    ("DOGE", 124_610),
    ("XDG", 124_610),
    ("AVAX", 35_420_000),
    ("LINK", 14_305_000),
    ("DOT", 7_112_000),
    ("LTC", 82_640_000),
    ("BCH", 478_900_000),
    ("UNI", 7_684_000),
    ("ATOM", 8_423_000),
    ("XMR", 128_900_000),
    ("TRX", 118_200),
    ("SHIB", 25),
    ("USDT", 1_000_100),
];
/// The initial price of all others.
const START_PRICE: i64 = 25_000_000;

fn start_price(name: &str) -> i64 {
    let base = name.rsplit_once(':').map_or(name, |(_, base)| base).to_ascii_uppercase();
    START_PRICES.iter().find(|(start, _)| base.starts_with(start)).map_or(START_PRICE, |(_, price)| *price)
}

/// Returns the decimal places of a tick, for a price in millionths.
fn tick_digits(venue: WireFormat, price: i64) -> u8 {
    let coarse = matches!(venue, WireFormat::BinanceFutures | WireFormat::Kraken);
    match price {
        10_000_000_000.. if coarse => 1,
        10_000_000.. => 2,
        1_000_000.. => 3,
        10_000.. => 5,
        _ => 8,
    }
}

/// Returns the decimal places of a lot, which is worth about 1 to 10. Negative for lots of 10, 100….
fn lot_digits(price: i64) -> i32 {
    let (mut worth, mut digits) = (price, 0);
    while worth >= 10_000_000 {
        (worth, digits) = (worth / 10, digits + 1);
    }
    while worth < 1_000_000 {
        (worth, digits) = (worth * 10, digits - 1);
    }
    digits
}

impl Digits {
    fn of(venue: WireFormat, price: i64) -> Self {
        let tick_digits = tick_digits(venue, price);
        // Futures have larger lots.
        let lot_digits = lot_digits(price) - i32::from(venue == WireFormat::BinanceFutures);
        let fine = lot_digits.clamp(0, 8) as u8;
        let (price_scale, size_scale) = match venue {
            WireFormat::Coinbase => (tick_digits, 8),
            WireFormat::Binance => (8, 8),
            WireFormat::BinanceFutures => (tick_digits.max(2), fine),
            WireFormat::Kraken => (tick_digits.max(5), 8),
            WireFormat::Native => (tick_digits, fine),
        };
        let unit = |places: i32| 10i64.pow(places.clamp(0, 9).unsigned_abs());
        Self {
            tick: unit(i32::from(price_scale) - i32::from(tick_digits)),
            price_scale,
            lot: unit(i32::from(size_scale) - lot_digits),
            size_scale,
        }
    }
}

impl Market {
    /// Returns a market with a book, whose turns are about `turn_ns` nanoseconds apart.
    pub(super) fn new(name: String, venue: WireFormat, turn_ns: u64, rng: &mut Rng) -> Self {
        let micros = start_price(&name);
        let digits = Digits::of(venue, micros);
        let tick_digits = u32::from(tick_digits(venue, micros));
        let price = (micros * 10i64.pow(tick_digits) / 1_000_000).max(1000);
        let first = Fill { id: 1_000_000 + rng.below(900_000_000), taker: Side::Buy, price, size: 10 };
        let nowhere = Level { price, size: 0 };
        let day = Day {
            open: price - rng.around(price / 50),
            high: price + price / 40 + rng.up_to(price / 100),
            low: price - price / 40 - rng.up_to(price / 100),
            volume: DAY_VOLUME,
            notional: i128::from(price) * i128::from(DAY_VOLUME),
            trades: 20_000 + rng.below(100_000),
        };
        let mut market = Self {
            name,
            digits,
            bids: Vec::new(),
            asks: Vec::new(),
            fair: price << FAIR_BITS,
            step: step(price, turn_ns),
            gap: (price / 20_000).max(1),
            touch_before: (nowhere, nowhere),
            changes: Vec::new(),
            fills: Vec::new(),
            last: first,
            day,
        };
        market.fill_up(LEVELS_START, rng);
        market.last.price = market.asks[0].price;
        market.touch_before = market.touch();
        market
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Converts a price in ticks to the venue's digits.
    pub(super) fn price(&self, ticks: i64) -> Decimal {
        Decimal::new(ticks * self.digits.tick, self.digits.price_scale)
    }

    /// Converts a size in lots to the venue's digits.
    pub(super) fn size(&self, lots: i64) -> Decimal {
        Decimal::new(lots * self.digits.lot, self.digits.size_scale)
    }

    /// Returns the levels of one side, best first.
    pub(super) fn levels(&self, side: Side) -> &[Level] {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }

    /// Returns best bid and best ask. Both always exist.
    pub(super) fn touch(&self) -> (Level, Level) {
        let nothing = Level { price: 0, size: 0 };
        let best = |levels: &[Level]| levels.first().copied().unwrap_or(nothing);
        (best(&self.bids), best(&self.asks))
    }

    /// Returns true if the last turn changed the best bid or ask.
    pub(super) fn touch_changed(&self) -> bool {
        self.touch() != self.touch_before
    }

    /// Returns the levels that the last turn changed, each once.
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the trades of the last turn.
    pub(super) fn fills(&self) -> &[Fill] {
        &self.fills
    }

    /// Returns the newest trade, possibly from before the start.
    pub(super) fn last(&self) -> Fill {
        self.last
    }

    pub(super) fn day(&self) -> &Day {
        &self.day
    }

    /// Simulates one small step.
    pub(super) fn turn(&mut self, rng: &mut Rng) {
        self.changes.clear();
        self.fills.clear();
        self.touch_before = self.touch();
        self.wander(rng);
        let fair = self.fair >> FAIR_BITS;
        let (bid, ask) = self.touch();
        let side = if rng.one_in(2) { Side::Buy } else { Side::Sell };
        if ask.price < fair {
            self.give_way(Side::Sell, ask, rng);
        } else if bid.price > fair {
            self.give_way(Side::Buy, bid, rng);
        } else {
            // A wide spread soon narrows.
            let improving = if ask.price - bid.price > self.gap / 4 + 1 { 3..12 } else { 3..5 };
            match rng.below(16) {
                0 | 1 => self.trade(side, draw_size(rng)),
                2 => self.cancel(side, rng),
                draw if improving.contains(&draw) => self.improve(side, rng),
                _ => self.reorder(side, rng),
            }
        }
        if rng.one_in(4) {
            self.reorder(side.flipped(), rng);
        }
        self.fill_up(LEVELS_MIN, rng);
    }

    /// Moves the fair price, but not so low that there is no room for a book below it.
    fn wander(&mut self, rng: &mut Rng) {
        let floor = (self.gap * 4 * LEVELS_MAX as i64).max(500) << FAIR_BITS;
        let moved = self.fair + rng.around(self.step);
        self.fair = if moved < floor { self.fair + self.step } else { moved };
    }

    /// Handles a fair price beyond the best level of `side`: the level is traded, or cancelled before that.
    fn give_way(&mut self, side: Side, best: Level, rng: &mut Rng) {
        match rng.below(8) {
            0..4 => self.set(side, Level { size: 0, ..best }),
            4..7 => self.trade(side.flipped(), best.size),
            _ => self.trade(side.flipped(), best.size + draw_size(rng)),
        }
    }

    /// Executes a taker's order against the touch and at most the next level. The rest is cancelled.
    fn trade(&mut self, taker: Side, mut left: i64) {
        for _ in 0..2 {
            let Some(best) = self.levels(taker.flipped()).first().copied() else { return };
            let size = left.min(best.size);
            self.last = Fill { id: self.last.id + 1, taker, price: best.price, size };
            self.fills.push(self.last);
            self.count(self.last);
            self.set(taker.flipped(), Level { size: best.size - size, ..best });
            left -= size;
            if left == 0 {
                return;
            }
        }
    }

    fn count(&mut self, fill: Fill) {
        let day = &mut self.day;
        day.high = day.high.max(fill.price);
        day.low = day.low.min(fill.price);
        day.volume += fill.size;
        day.notional += i128::from(fill.price) * i128::from(fill.size);
        day.trades += 1;
        // Approximates a rolling day, and keeps the volume within 64 bits however long the run.
        if day.volume > 2 * DAY_VOLUME {
            (day.volume, day.notional) = (day.volume / 2, day.notional / 2);
        }
    }

    /// Adds a better price on `side`, towards the fair price, if the spread has room.
    fn improve(&mut self, side: Side, rng: &mut Rng) {
        let (bid, ask) = self.touch();
        let fair = self.fair >> FAIR_BITS;
        let room = match side {
            Side::Buy => fair.min(ask.price - 1) - bid.price,
            Side::Sell => ask.price - fair.max(bid.price + 1),
        };
        if room < 1 {
            return self.reorder(side, rng);
        }
        let by = rng.up_to(room).max(rng.up_to(room));
        let price = if side == Side::Buy { bid.price + by } else { ask.price - by };
        self.set(side, Level { price, size: draw_size(rng) });
    }

    /// Removes one of the better levels.
    fn cancel(&mut self, side: Side, rng: &mut Rng) {
        let index = near_the_touch(self.levels(side).len(), rng);
        let level = self.levels(side)[index];
        self.set(side, Level { size: 0, ..level });
    }

    /// Changes the size of a level, or adds a new one behind it.
    fn reorder(&mut self, side: Side, rng: &mut Rng) {
        let levels = self.levels(side);
        let index = near_the_touch(levels.len(), rng);
        let level = levels[index];
        let room = levels.get(index + 1).map_or(0, |next| (next.price - level.price).abs() - 1);
        let price =
            if room > 0 && rng.one_in(4) { worse(side, level.price, rng.up_to(room)) } else { level.price };
        self.set(side, Level { price, size: draw_size(rng) });
    }

    /// Adds levels behind the last one until there are `count`, and drops those beyond the maximum.
    fn fill_up(&mut self, count: usize, rng: &mut Rng) {
        for side in [Side::Buy, Side::Sell] {
            while self.levels(side).len() < count {
                let other = self.levels(side.flipped()).first().copied();
                let price = match (self.levels(side).last(), other) {
                    // No price is below one tick, so a side may be short there.
                    (Some(last), _) if side == Side::Buy && last.price <= 1 => break,
                    (Some(last), _) => worse(side, last.price, rng.up_to(2 * self.gap)),
                    (None, Some(best)) => {
                        let fair = self.fair >> FAIR_BITS;
                        let limit = worse(side, best.price, 1);
                        let own = worse(side, fair, rng.up_to(self.gap / 4 + 1));
                        if side == Side::Buy { own.min(limit) } else { own.max(limit) }
                    }
                    (None, None) => worse(side, self.fair >> FAIR_BITS, rng.up_to(self.gap / 4 + 1)),
                };
                self.set(side, Level { price, size: draw_size(rng) });
            }
            while self.levels(side).len() > LEVELS_MAX {
                let last = self.levels(side)[LEVELS_MAX];
                self.set(side, Level { size: 0, ..last });
            }
        }
    }

    /// Sets the size at a price, and records the change.
    fn set(&mut self, side: Side, level: Level) {
        set_level(if side == Side::Buy { &mut self.bids } else { &mut self.asks }, side, level);
        let same = |c: &&mut Change| c.side == side && c.level.price == level.price;
        match self.changes.iter_mut().find(same) {
            Some(change) => change.level = level,
            None => self.changes.push(Change { side, level }),
        }
    }
}

/// Sets, adds or (size 0) removes a level of a side that is sorted best first.
pub(super) fn set_level(levels: &mut Vec<Level>, side: Side, level: Level) {
    let found = levels.binary_search_by(|at| match side {
        Side::Buy => level.price.cmp(&at.price),
        Side::Sell => at.price.cmp(&level.price),
    });
    match (found, level.size) {
        (Ok(index), 0) => drop(levels.remove(index)),
        (Ok(index), _) => levels[index] = level,
        (Err(_), 0) => {}
        (Err(index), _) => levels.insert(index, level),
    }
}

/// Returns the price `ticks` further from the other side.
fn worse(side: Side, price: i64, ticks: i64) -> i64 {
    match side {
        Side::Buy => (price - ticks).max(1),
        Side::Sell => price + ticks,
    }
}

/// Returns the maximum move of the fair price in a turn: 1.5 basis points per second, growing with the square
/// root of the time.
fn step(price: i64, turn_ns: u64) -> i64 {
    let per_second = (price << FAIR_BITS) / 10_000 * 3 / 2;
    // The square root of 10⁹ ns is 31,623.
    let scaled = i128::from(per_second) * i128::from(turn_ns.isqrt()) / 31_623;
    (scaled as i64).max(1)
}

/// Returns a random size in lots: mostly small, sometimes large.
fn draw_size(rng: &mut Rng) -> i64 {
    let magnitude = 4 + rng.below(9);
    rng.up_to(1 << magnitude)
}

/// Returns a random index below `len`, with a preference for small ones.
fn near_the_touch(len: usize, rng: &mut Rng) -> usize {
    let len = len as u64;
    rng.below(len).min(rng.below(len)).min(rng.below(len)) as usize
}
