//! The instruments of a run: their symbols, and the dense ids that index everything else.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use rustc_hash::FxBuildHasher;

use crate::text::printable::is_hidden;

/// The dense number of an instrument, from 0 in the order of listing. Valid within one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstrumentId(pub u32);

impl InstrumentId {
    /// Returns the id as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The full name of an instrument, `venue:NAME`, with `NAME` spelled as the venue does.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol {
    text: Box<str>,
    venue_len: u8,
}

/// Why a text is not a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// The prefix `venue:` is missing.
    #[error("a symbol is written venue:NAME")]
    NoVenue,
    /// The venue part is not 1 to 32 of `a-z 0-9 - _`.
    #[error("a venue is 1 to 32 of a-z, 0-9, '-' and '_'")]
    BadVenue,
    /// The name is empty, longer than [`Symbol::NAME_BYTES_MAX`], or contains an invalid character.
    #[error("a symbol's name is 1 to 64 bytes without spaces, quotes, '\\', ',' and '*'")]
    BadName,
    /// The name contains an invisible character, or one that changes how others look: see [`is_hidden`]. Two
    /// names that look alike would be two instruments.
    #[error("a symbol's name has no character that is not seen or turns others round: U+{:04X}", u32::from(*.0))]
    Hidden(char),
}

impl Symbol {
    /// The longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 64;
    /// The longest venue, in bytes.
    pub const VENUE_BYTES_MAX: usize = 32;

    /// Parses `venue:NAME`.
    ///
    /// # Errors
    /// [`SymbolError`] states which part is wrong.
    pub fn parse(text: &str) -> Result<Self, SymbolError> {
        let (venue, name) = text.split_once(':').ok_or(SymbolError::NoVenue)?;
        Self::new(venue, name)
    }

    /// Returns the symbol of a venue and a name.
    ///
    /// # Errors
    /// [`SymbolError`] states which part is wrong.
    pub fn new(venue: &str, name: &str) -> Result<Self, SymbolError> {
        if !Self::is_venue(venue) {
            return Err(SymbolError::BadVenue);
        }
        Self::check_name(name)?;
        Ok(Self { text: format!("{venue}:{name}").into(), venue_len: venue.len() as u8 })
    }

    /// Returns true if a text is a valid venue name.
    pub fn is_venue(text: &str) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        (1..=Self::VENUE_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
    }

    /// Checks a venue's name of an instrument. A valid name needs no escaping in JSON and no quoting in a
    /// list, and is visible.
    fn check_name(text: &str) -> Result<(), SymbolError> {
        if let Some(hidden) = text.chars().find(|c| is_hidden(*c)) {
            return Err(SymbolError::Hidden(hidden));
        }
        let odd = |c: char| c.is_whitespace() || matches!(c, '"' | '\\' | ',' | '*');
        let fits = (1..=Self::NAME_BYTES_MAX).contains(&text.len());
        if fits && !text.contains(odd) { Ok(()) } else { Err(SymbolError::BadName) }
    }

    /// Returns `venue:NAME`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part before the colon.
    pub fn venue(&self) -> &str {
        &self.text[..usize::from(self.venue_len)]
    }

    /// Returns the part after the colon.
    pub fn name(&self) -> &str {
        &self.text[usize::from(self.venue_len) + 1..]
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Instruments per chunk of the table.
const CHUNK: usize = 256;

/// Why an instrument cannot be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableFull {
    /// The table is full.
    #[error("no room for another instrument: [limits] instruments_max is {0}")]
    Full(usize),
    /// The remaining capacity is reserved for feeds.
    #[error("no room for another instrument of a publisher: {0} are listed, the rest is kept for feeds")]
    Kept(usize),
}

/// A chunk of the table, filled in order.
type Chunk = Box<[OnceLock<Symbol>]>;

/// All instruments of a run. They are added, never removed. The ingest thread adds; every thread reads.
/// Access by id takes no lock; a search by name takes one, and is for cold paths.
pub struct InstrumentTable {
    chunks: Box<[OnceLock<Chunk>]>,
    len: AtomicU32,
    capacity: usize,
    index: RwLock<Index>,
}

/// Finds instruments by symbol, name and venue.
#[derive(Default)]
struct Index {
    ids: HashMap<Symbol, InstrumentId, FxBuildHasher>,
    /// By the name alone: the first two venues that list it suffice to detect that it is ambiguous.
    names: HashMap<Box<str>, (InstrumentId, Option<InstrumentId>), FxBuildHasher>,
    venues: HashSet<Box<str>, FxBuildHasher>,
}

impl InstrumentTable {
    /// Returns an empty table for at most `capacity` instruments.
    pub fn new(capacity: usize) -> Self {
        let chunks = capacity.div_ceil(CHUNK);
        Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            len: AtomicU32::new(0),
            capacity,
            index: RwLock::default(),
        }
    }

    /// Returns the number of listed instruments. Every id below it is readable.
    pub fn len(&self) -> usize {
        // Acquire pairs with the Release in `intern_below`: a thread that sees the length sees the symbols
        // below it.
        self.len.load(Ordering::Acquire) as usize
    }

    /// Returns true before the first is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the maximum number of instruments.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the symbol of an id; `None` if the id is not listed.
    pub fn get(&self, id: InstrumentId) -> Option<&Symbol> {
        self.chunks.get(id.index() / CHUNK)?.get()?[id.index() % CHUNK].get()
    }

    /// Returns the id of a symbol, if it is listed.
    pub fn find(&self, symbol: &Symbol) -> Option<InstrumentId> {
        self.index().ids.get(symbol).copied()
    }

    /// Returns the instruments with this name at any venue: the first, and another if there is one.
    pub fn find_name(&self, name: &str) -> Option<(InstrumentId, Option<InstrumentId>)> {
        self.index().names.get(name).copied()
    }

    /// Returns true if an instrument of this venue is listed.
    pub fn has_venue(&self, venue: &str) -> bool {
        self.index().venues.contains(venue)
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns every listed instrument, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (InstrumentId, &Symbol)> {
        (0..self.len() as u32).filter_map(|n| Some((InstrumentId(n), self.get(InstrumentId(n))?)))
    }

    /// Returns the id of `symbol`, and lists the symbol if it is new.
    ///
    /// # Errors
    /// [`TableFull`] if it is new and there is no room.
    pub fn intern(&self, symbol: &Symbol) -> Result<InstrumentId, TableFull> {
        self.intern_below(symbol, self.capacity)
    }

    /// As [`intern`](Self::intern), but a new symbol is listed only while fewer than `most` are: the rest is
    /// reserved.
    ///
    /// # Errors
    /// [`TableFull`] if it is new and there is no room.
    pub fn intern_below(&self, symbol: &Symbol, most: usize) -> Result<InstrumentId, TableFull> {
        if let Some(id) = self.find(symbol) {
            return Ok(id);
        }
        let mut names = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = names.ids.get(symbol) {
            return Ok(*id);
        }
        let index = names.ids.len();
        let most = self.capacity.min(most);
        if index >= most {
            return Err(if most < self.capacity { TableFull::Kept(most) } else { TableFull::Full(most) });
        }
        let chunk = self.chunks[index / CHUNK].get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        let id = InstrumentId(index as u32);
        chunk[index % CHUNK].get_or_init(|| symbol.clone());
        names.ids.insert(symbol.clone(), id);
        names
            .names
            .entry(symbol.name().into())
            .and_modify(|found| found.1 = found.1.or(Some(id)))
            .or_insert((id, None));
        if !names.venues.contains(symbol.venue()) {
            names.venues.insert(symbol.venue().into());
        }
        self.len.store(id.0 + 1, Ordering::Release);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_read_and_refused() {
        let symbol = Symbol::parse("kraken:XBT/USD").expect("good");
        assert_eq!((symbol.venue(), symbol.name()), ("kraken", "XBT/USD"));
        assert!(Symbol::parse("binance:币安人生USDT").is_ok());
        assert!(Symbol::parse("a:b:c").is_ok_and(|s| s.name() == "b:c"));
        assert_eq!(Symbol::parse("BTC-USD"), Err(SymbolError::NoVenue));
        assert_eq!(Symbol::parse("Coinbase:BTC"), Err(SymbolError::BadVenue));
        for bad in ["", "a b", "a\"b", "a\\b", "a,b", "*", &"x".repeat(65)] {
            assert_eq!(Symbol::new("v", bad), Err(SymbolError::BadName), "{bad:?}");
        }
        for hidden in
            ['\u{7}', '\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{ad}', '\u{e0041}', '\u{3164}']
        {
            let name = format!("BTC{hidden}USD");
            assert_eq!(Symbol::new("v", &name), Err(SymbolError::Hidden(hidden)));
        }
        for space in ['\u{a0}', '\u{2003}', '\u{3000}', '\u{1680}', '\u{202f}'] {
            assert_eq!(Symbol::new("v", &format!("A{space}B")), Err(SymbolError::BadName), "{space:?}");
        }
        let error = Symbol::parse("v:A\u{202e}").expect_err("hidden").to_string();
        assert!(error.ends_with("U+202E"), "{error}");
    }

    #[test]
    fn some_places_are_kept() {
        let table = InstrumentTable::new(3);
        let [a, b, c] = ["A", "B", "C"].map(|name| Symbol::new("v", name).expect("good"));
        assert_eq!(table.intern_below(&a, 1), Ok(InstrumentId(0)));
        assert_eq!(table.intern_below(&b, 1), Err(TableFull::Kept(1)));
        assert_eq!(table.intern_below(&a, 0), Ok(InstrumentId(0)), "it is listed");
        assert_eq!(table.intern(&b), Ok(InstrumentId(1)));
        assert_eq!(table.intern_below(&b, 1), Ok(InstrumentId(1)));
        assert_eq!(table.intern_below(&c, 9), Ok(InstrumentId(2)));
    }

    #[test]
    fn ids_are_dense_and_bounded() {
        let table = InstrumentTable::new(300);
        for n in 0..300 {
            let symbol = Symbol::new("v", &format!("S{n}")).expect("good");
            assert_eq!(table.intern(&symbol), Ok(InstrumentId(n)));
            assert_eq!(table.intern(&symbol), Ok(InstrumentId(n)), "twice is once");
        }
        let extra = Symbol::new("v", "X").expect("good");
        assert_eq!(table.intern(&extra), Err(TableFull::Full(300)));
        assert_eq!(table.len(), 300);
        assert_eq!(table.find(&extra), None);
        assert_eq!(table.get(InstrumentId(299)).map(Symbol::as_str), Some("v:S299"));
        let other = Symbol::new("w", "S3").expect("good");
        let two = InstrumentTable::new(2);
        two.intern(&Symbol::new("v", "S3").expect("good")).expect("room");
        assert_eq!(two.find_name("S3"), Some((InstrumentId(0), None)));
        two.intern(&other).expect("room");
        assert_eq!(two.find_name("S3"), Some((InstrumentId(0), Some(InstrumentId(1)))));
        assert!(two.has_venue("w") && !two.has_venue("x"));
        assert_eq!(table.get(InstrumentId(300)), None);
        assert_eq!(table.get(InstrumentId(u32::MAX)), None);
    }
}
