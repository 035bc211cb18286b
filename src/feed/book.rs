//! An L2 order book, reduced to what the best bid and offer and the venue's checksum need.

use crate::model::tick::{Decimal, Quote};
use crate::venue::{BookSide, DecodeError, Levels, LevelsError};

/// A price level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    price: Decimal,
    size: Decimal,
}

/// One side of the book, sorted with the best price last: most changes are near it and move few levels.
#[derive(Clone, Debug, Default)]
struct Ladder {
    levels: Vec<Level>,
}

impl Ladder {
    /// Returns the index of `price`, or the index to insert it at, by binary search.
    fn place(&self, side: BookSide, price: Decimal) -> Result<usize, usize> {
        self.levels.binary_search_by(|level| match side {
            BookSide::Bid => level.price.cmp(&price),
            BookSide::Ask => price.cmp(&level.price),
        })
    }

    fn set(&mut self, side: BookSide, price: Decimal, size: Decimal) {
        match (self.place(side, price), size.is_zero()) {
            (Ok(at), true) => {
                self.levels.remove(at);
            }
            (Ok(at), false) => self.levels[at] = Level { price, size },
            (Err(_), true) => {}
            (Err(at), false) => self.levels.insert(at, Level { price, size }),
        }
    }

    /// Replaces all levels. They may come in any order; of several at one price the last one counts.
    fn replace(&mut self, side: BookSide, levels: &mut Vec<Level>) {
        levels.sort_by(|a, b| match side {
            BookSide::Bid => a.price.cmp(&b.price),
            BookSide::Ask => b.price.cmp(&a.price),
        });
        self.levels.clear();
        for level in levels.drain(..) {
            match self.levels.last_mut() {
                Some(last) if last.price == level.price => *last = level,
                _ => self.levels.push(level),
            }
        }
        self.levels.retain(|level| !level.size.is_zero());
    }

    fn truncate(&mut self, depth: usize) {
        if let Some(extra) = self.levels.len().checked_sub(depth).filter(|extra| *extra > 0) {
            self.levels.drain(..extra);
        }
    }

    fn best(&self) -> Option<Level> {
        self.levels.last().copied()
    }
}

/// The decimal places of prices and sizes in a venue's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    price: u8,
    size: u8,
}

/// The outcome of applying the levels of a message.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Levels whose size cannot be represented or is invalid: the size at their prices is unknown.
    pub levels_refused: u64,
    /// A level's price cannot be read, or too many levels are unknown: the book must be rebuilt.
    pub is_lost: bool,
    /// The first fault.
    pub fault: Option<Box<DecodeError>>,
}

impl Taken {
    /// Adds the outcome of another message of the same book.
    pub(super) fn add(&mut self, other: Self) {
        self.levels_refused += other.levels_refused;
        self.is_lost |= other.is_lost;
        self.fault = self.fault.take().or(other.fault);
    }

    /// Records how reading the levels ended: complete, or with an error that may make the book unusable.
    fn end(mut self, read: Result<(), LevelsError>) -> Self {
        if let Err(error) = read {
            self.is_lost |= error.costs_book;
            self.fault = Some(error.cause);
        }
        self
    }

    /// Converts to a result.
    ///
    /// # Errors
    /// The first fault, if there was one.
    pub(super) fn into_result(self) -> Result<(), DecodeError> {
        self.fault.map_or(Ok(()), |fault| Err(*fault))
    }
}

/// Zeros that the checksum appends to the received digits: at most as many as it has decimal places.
const ZEROS: [u8; 32] = [b'0'; 32];

/// Maximum number of levels of unknown size before the book is given up.
const UNKNOWN_MAX: usize = 64;

/// An L2 book built from a snapshot and the changes after it.
#[derive(Clone, Debug)]
pub(super) struct Book {
    bids: Ladder,
    asks: Ladder,
    depth: usize,
    /// Prices whose size is unknown until the venue sends it again.
    unknown: Vec<(BookSide, Decimal)>,
}

impl Book {
    /// The levels of each side that [`kraken_checksum`](Self::kraken_checksum) covers.
    pub(super) const CHECKSUM_LEVELS: usize = 10;

    /// Returns an empty book that keeps at most `depth` levels per side and drops the worst beyond.
    pub(super) fn new(depth: usize) -> Self {
        Self { bids: Ladder::default(), asks: Ladder::default(), depth, unknown: Vec::new() }
    }

    /// Sets how many levels per side are kept.
    pub(super) fn set_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// Replaces the book with a snapshot.
    pub(super) fn snapshot(&mut self, levels: &Levels<'_, '_>) -> Taken {
        let (mut bids, mut asks) = (Vec::new(), Vec::new());
        self.unknown.clear();
        let mut taken = Taken::default();
        let read = levels.for_each(|side, price, size| {
            let Some(size) = size else { return self.forget(side, price, &mut taken) };
            match side {
                BookSide::Bid => bids.push(Level { price, size }),
                BookSide::Ask => asks.push(Level { price, size }),
            }
        });
        self.bids.replace(BookSide::Bid, &mut bids);
        self.asks.replace(BookSide::Ask, &mut asks);
        self.truncate();
        taken.end(read)
    }

    /// Applies a change.
    pub(super) fn change(&mut self, levels: &Levels<'_, '_>) -> Taken {
        let mut taken = Taken::default();
        let read = levels.for_each(|side, price, size| match size {
            Some(size) => self.set(side, price, size),
            None => self.forget(side, price, &mut taken),
        });
        self.truncate();
        taken.end(read)
    }

    #[inline]
    fn set(&mut self, side: BookSide, price: Decimal, size: Decimal) {
        if !self.unknown.is_empty() {
            self.unknown.retain(|known| *known != (side, price));
        }
        match side {
            BookSide::Bid => self.bids.set(side, price, size),
            BookSide::Ask => self.asks.set(side, price, size),
        }
    }

    /// Marks the size at a price as unknown.
    #[cold]
    fn forget(&mut self, side: BookSide, price: Decimal, taken: &mut Taken) {
        self.set(side, price, Decimal::default());
        self.unknown.push((side, price));
        taken.levels_refused += 1;
        taken.is_lost |= self.unknown.len() > UNKNOWN_MAX;
    }

    /// Returns true if the best bid and offer are known: no level of unknown size may be one of them.
    pub(super) fn is_certain(&self) -> bool {
        self.is_certain_to(1)
    }

    /// Returns true if the best `levels` of each side are known.
    pub(super) fn is_certain_to(&self, levels: usize) -> bool {
        let is_worse = |(side, price): &(BookSide, Decimal)| {
            let ladder = match side {
                BookSide::Bid => &self.bids.levels,
                BookSide::Ask => &self.asks.levels,
            };
            let last = ladder.len().checked_sub(levels).and_then(|at| ladder.get(at));
            last.is_some_and(|last| match side {
                BookSide::Bid => *price < last.price,
                BookSide::Ask => *price > last.price,
            })
        };
        self.unknown.is_empty() || self.unknown.iter().all(is_worse)
    }

    fn truncate(&mut self) {
        self.bids.truncate(self.depth);
        self.asks.truncate(self.depth);
    }

    /// Returns the best bid and offer.
    pub(super) fn quote(&self) -> Quote {
        let (bid, ask) = (self.bids.best(), self.asks.best());
        Quote {
            bid: bid.map(|l| l.price),
            bid_size: bid.map(|l| l.size),
            ask: ask.map(|l| l.price),
            ask_size: ask.map(|l| l.size),
        }
    }

    /// Returns Kraken's CRC32 over the ten best asks, then the ten best bids, best first: for each level the
    /// digits of price and size without decimal point and leading zeros
    /// (<https://docs.kraken.com/api/docs/guides/spot-ws-book-v1>, `…-v2`). With `places`, each price and
    /// size is padded to that many decimal places.
    pub(super) fn kraken_checksum(&self, places: Option<Places>) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut digits = itoa::Buffer::new();
        for level in self.checked_levels() {
            for (value, places) in
                [(level.price, places.map(|p| p.price)), (level.size, places.map(|p| p.size))]
            {
                hasher.update(value.digits(&mut digits).as_bytes());
                // A value with more decimal places than `places` is not padded, so the checksum does not
                // match.
                if let Some(zeros) = places.and_then(|places| places.checked_sub(value.scale())) {
                    hasher.update(&ZEROS[..usize::from(zeros).min(ZEROS.len())]);
                }
            }
        }
        hasher.finalize()
    }

    /// Returns the decimal places with which the checksum equals `checksum`. Programs that re-encode a
    /// venue's numbers as floats lose trailing zeros, which the checksum covers. Tries at most 4 more places
    /// for prices and 8 more for sizes than the longest values have.
    pub(super) fn find_places(&self, checksum: u32) -> Option<Places> {
        let longest =
            |part: fn(&Level) -> Decimal| self.checked_levels().map(|level| part(level).scale()).max();
        let (price, size) = (longest(|level| level.price)?, longest(|level| level.size)?);
        let up_to = |from: u8, more: u8| from..=from.saturating_add(more).min(ZEROS.len() as u8);
        let places = up_to(price, 4).flat_map(|price| up_to(size, 8).map(move |size| Places { price, size }));
        let mut places = places.filter(|places| self.kraken_checksum(Some(*places)) == checksum);
        places.next()
    }

    fn checked_levels(&self) -> impl Iterator<Item = &Level> {
        [&self.asks, &self.bids]
            .into_iter()
            .flat_map(|side| side.levels.iter().rev().take(Self::CHECKSUM_LEVELS))
    }

    /// Returns the number of levels on both sides.
    pub(super) fn len(&self) -> usize {
        self.bids.levels.len() + self.asks.levels.len()
    }

    /// Returns the memory that the levels occupy, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.len() * size_of::<Level>() + self.unknown.len() * size_of::<(BookSide, Decimal)>()
    }
}
