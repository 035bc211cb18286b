//! An L2 order book, as far as a best bid and offer needs one.

use crate::tick::{Decimal, Quote};
use crate::venue::{BookSide, DecodeError, Levels};

/// The size that stands at a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    price: Decimal,
    size: Decimal,
}

/// One side, sorted with the best price last: most changes are near it and move few levels.
#[derive(Clone, Debug, Default)]
struct Ladder {
    levels: Vec<Level>,
}

impl Ladder {
    /// Where `price` is or belongs. `better(a, b)`: a is the better price.
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

    /// Replaces all levels; they may come in any order, and of two at one price the later counts.
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

/// An L2 book built from a snapshot and the changes after it.
#[derive(Clone, Debug)]
pub struct Book {
    bids: Ladder,
    asks: Ladder,
    depth: usize,
}

impl Book {
    /// An empty book that keeps at most `depth` levels a side and drops the worst beyond.
    pub fn new(depth: usize) -> Self {
        Self { bids: Ladder::default(), asks: Ladder::default(), depth }
    }

    /// Changes how many levels a side are kept.
    pub fn set_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// Replaces the book by a snapshot.
    ///
    /// # Errors
    /// A level that cannot be read; the book is as it was.
    pub fn snapshot(&mut self, levels: &Levels<'_, '_>) -> Result<(), DecodeError> {
        let (mut bids, mut asks) = (Vec::new(), Vec::new());
        levels.for_each(|side, price, size| match side {
            BookSide::Bid => bids.push(Level { price, size }),
            BookSide::Ask => asks.push(Level { price, size }),
        })?;
        self.bids.replace(BookSide::Bid, &mut bids);
        self.asks.replace(BookSide::Ask, &mut asks);
        self.truncate();
        Ok(())
    }

    /// Takes in a change.
    ///
    /// # Errors
    /// A level that cannot be read; those before it were taken in, so the book is not to be trusted.
    pub fn change(&mut self, levels: &Levels<'_, '_>) -> Result<(), DecodeError> {
        levels.for_each(|side, price, size| match side {
            BookSide::Bid => self.bids.set(side, price, size),
            BookSide::Ask => self.asks.set(side, price, size),
        })?;
        self.truncate();
        Ok(())
    }

    fn truncate(&mut self) {
        self.bids.truncate(self.depth);
        self.asks.truncate(self.depth);
    }

    /// The best bid and offer.
    pub fn quote(&self) -> Quote {
        let (bid, ask) = (self.bids.best(), self.asks.best());
        Quote {
            bid: bid.map(|l| l.price),
            bid_size: bid.map(|l| l.size),
            ask: ask.map(|l| l.price),
            ask_size: ask.map(|l| l.size),
        }
    }

    /// Kraken's CRC32 over the ten best asks, then the ten best bids, best first: of each level the digits
    /// of price and size without point and leading zeros
    /// (<https://docs.kraken.com/api/docs/guides/spot-ws-book-v1>, `…-v2`).
    pub fn kraken_checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut digits = itoa::Buffer::new();
        for ladder in [&self.asks, &self.bids] {
            for level in ladder.levels.iter().rev().take(10) {
                hasher.update(level.price.digits(&mut digits).as_bytes());
                hasher.update(level.size.digits(&mut digits).as_bytes());
            }
        }
        hasher.finalize()
    }

    /// How many levels stand on both sides.
    pub fn len(&self) -> usize {
        self.bids.levels.len() + self.asks.levels.len()
    }

    /// Bytes of memory that its levels take.
    pub fn memory_bytes(&self) -> usize {
        self.len() * size_of::<Level>()
    }

    /// True where no level stands.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
