//! Synthetic captures: a small simulated market per symbol, encoded in a venue's own messages.
//!
//! The [`Spec`] determines everything: equal ones give equal bytes on every machine. Clocks, floating-point
//! numbers and hash order are not used. Books, quotes and trades are consistent: a trade takes liquidity at
//! the touch, a quote is the touch, a book is never crossed.

mod binance;
mod coinbase;
mod kraken;
mod market;
mod native;
mod rng;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use crate::capture::{CaptureWriter, in_range};
use crate::model::instrument::{Symbol, SymbolError};
use crate::time::rfc3339;
use crate::venue::WireFormat;
use market::Market;
use rng::Rng;

/// Maximum number of symbols of one capture.
pub const SYMBOLS_MAX: usize = 1000;

const SECOND_NS: u64 = 1_000_000_000;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The venue format.
    pub venue: WireFormat,
    /// The instruments, as the venue spells them (`BTC-USD`, `BTCUSDT`, `XBT/USD`), optionally with the
    /// venue's name as prefix (`coinbase:BTC-USD`). The gateway's own format has a venue in each symbol; the
    /// default is `demo:`. The first symbols are the busiest.
    pub symbols: Vec<String>,
    /// The duration, in seconds of the capture's clock. At least 1.
    pub seconds: u32,
    /// The approximate number of messages per second, over all symbols. At least 1.
    pub rate: u32,
    /// The seed of the simulation.
    pub seed: u64,
    /// The start, in nanoseconds since the Unix epoch.
    pub start_ns: u64,
}

/// What was generated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of messages.
    pub messages: u64,
    /// The number of messages of each kind, by the venue's name for it.
    pub kinds: BTreeMap<&'static str, u64>,
}

/// Why generation failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A rate of 0.
    #[error("the rate must be at least 1 message a second")]
    NoRate,
    /// A duration of 0.
    #[error("the capture must last at least 1 second")]
    NoTime,
    /// The capture would begin before 2000 or end after 2199, which a reader rejects.
    #[error("the capture must lie within the years 2000 to 2199")]
    OutOfRange,
    /// An empty list of symbols.
    #[error("at least 1 symbol is needed")]
    NoSymbols,
    /// More than [`SYMBOLS_MAX`] symbols.
    #[error("{0} symbols are too many: the most is {SYMBOLS_MAX}")]
    TooManySymbols(usize),
    /// An invalid symbol.
    #[error("the symbol {symbol:?} is invalid: {reason}")]
    BadSymbol {
        /// The symbol as given.
        symbol: String,
        /// The fault.
        reason: SymbolError,
    },
    /// A symbol that is listed twice.
    #[error("the symbol {0:?} is named twice")]
    SymbolTwice(String),
    /// The capture cannot be written.
    #[error("cannot write the capture: {0}")]
    Write(#[from] io::Error),
}

/// Writes the capture that `spec` describes to `writer`, which the caller has to finish.
///
/// # Errors
/// [`GenerateError`]: an invalid spec, before anything is written, or a failed write.
pub fn generate<W: Write>(spec: &Spec, writer: &mut CaptureWriter<W>) -> Result<Summary, GenerateError> {
    let names = checked_names(spec)?;
    let mut rng = Rng::new(spec.seed);
    // A turn of a market produces two or three messages on average.
    let turn_ns = SECOND_NS * 2 * names.len() as u64 / u64::from(spec.rate);
    let markets: Vec<_> =
        names.into_iter().map(|name| Market::new(name, spec.venue, turn_ns, &mut rng)).collect();
    let dialect = dialect(spec.venue, &markets, &mut rng);
    let mut run = Run {
        markets,
        dialect,
        batch: Batch::default(),
        rng,
        last_rx_ns: 0,
        writer,
        summary: Summary::default(),
    };
    run.all(spec)?;
    Ok(run.summary)
}

/// Returns the names as the venue spells them, if the rest of the spec is valid too.
fn checked_names(spec: &Spec) -> Result<Vec<String>, GenerateError> {
    if spec.rate == 0 {
        return Err(GenerateError::NoRate);
    }
    if spec.seconds == 0 {
        return Err(GenerateError::NoTime);
    }
    // One second more, since messages are received slightly later than they are sent.
    let lasts_ns = (u64::from(spec.seconds) + 1) * SECOND_NS;
    let end_ns = spec.start_ns.checked_add(lasts_ns);
    if !in_range(spec.start_ns) || !end_ns.is_some_and(in_range) {
        return Err(GenerateError::OutOfRange);
    }
    match spec.symbols.len() {
        0 => return Err(GenerateError::NoSymbols),
        1..=SYMBOLS_MAX => {}
        many => return Err(GenerateError::TooManySymbols(many)),
    }
    let mut seen = BTreeSet::new();
    let mut names = Vec::with_capacity(spec.symbols.len());
    for text in &spec.symbols {
        let name = checked_name(spec.venue, text)
            .map_err(|reason| GenerateError::BadSymbol { symbol: text.clone(), reason })?;
        if !seen.insert(name.clone()) {
            return Err(GenerateError::SymbolTwice(text.clone()));
        }
        names.push(name);
    }
    Ok(names)
}

fn checked_name(venue: WireFormat, text: &str) -> Result<String, SymbolError> {
    if venue == WireFormat::Native {
        let full = if text.contains(':') { text.to_owned() } else { format!("demo:{text}") };
        return Symbol::parse(&full).map(|symbol| symbol.as_str().to_owned());
    }
    let bare = text.strip_prefix(venue.name()).and_then(|rest| rest.strip_prefix(':')).unwrap_or(text);
    Symbol::new(venue.name(), bare).map(|symbol| symbol.name().to_owned())
}

fn dialect(venue: WireFormat, markets: &[Market], rng: &mut Rng) -> Box<dyn Dialect> {
    match venue {
        WireFormat::Coinbase => Box::new(coinbase::Coinbase::new(markets.len(), rng)),
        WireFormat::Binance => Box::new(binance::Binance::new(false, markets.len(), rng)),
        WireFormat::BinanceFutures => Box::new(binance::Binance::new(true, markets.len(), rng)),
        WireFormat::Kraken => Box::new(kraken::Kraken::new(markets, rng)),
        WireFormat::Native => Box::new(native::Native),
    }
}

/// The encoding of markets in a venue's messages.
trait Dialect {
    /// Adds the messages right after the subscription, at `now` (nanoseconds since the Unix epoch).
    fn opening(&mut self, markets: &[Market], now: u64, rng: &mut Rng, batch: &mut Batch);

    /// Adds the messages for the last turn of a market.
    fn turn(&mut self, index: usize, market: &Market, now: u64, rng: &mut Rng, batch: &mut Batch);

    /// Adds the messages sent once a second.
    fn second(&mut self, markets: &[Market], now: u64, batch: &mut Batch);
}

/// Messages ready to be written.
#[derive(Default)]
struct Batch {
    messages: Vec<(&'static str, String)>,
}

impl Batch {
    fn push(&mut self, kind: &'static str, text: String) {
        self.messages.push((kind, text));
    }
}

/// A generation in progress.
struct Run<'w, W: Write> {
    markets: Vec<Market>,
    dialect: Box<dyn Dialect>,
    batch: Batch,
    rng: Rng,
    last_rx_ns: u64,
    writer: &'w mut CaptureWriter<W>,
    summary: Summary,
}

impl<W: Write> Run<'_, W> {
    fn all(&mut self, spec: &Spec) -> Result<(), GenerateError> {
        self.dialect.opening(&self.markets, spec.start_ns, &mut self.rng, &mut self.batch);
        self.send(spec.start_ns)?;
        let opened = self.summary.messages;
        let end_ns = spec.start_ns + u64::from(spec.seconds) * SECOND_NS;
        let mut second_ns = spec.start_ns + SECOND_NS;
        loop {
            // The number of messages so far determines the time, so the rate holds whatever they were.
            let sent = u128::from(self.summary.messages - opened);
            let due = |n: u128| (n * u128::from(SECOND_NS) / u128::from(spec.rate)) as u64;
            let slot_ns = due(sent + 1) - due(sent);
            let now = spec.start_ns + due(sent) + self.rng.below(slot_ns.max(1));
            if now >= end_ns {
                return Ok(());
            }
            if second_ns <= now {
                self.dialect.second(&self.markets, second_ns, &mut self.batch);
                self.send(second_ns)?;
                second_ns += SECOND_NS;
            } else {
                self.turn(now)?;
            }
        }
    }

    /// Simulates one turn of one market. The venue may send nothing for it.
    fn turn(&mut self, now: u64) -> Result<(), GenerateError> {
        let count = self.markets.len() as u64;
        // The smaller of two draws: the first symbols are drawn most.
        let index = self.rng.below(count).min(self.rng.below(count)) as usize;
        self.markets[index].turn(&mut self.rng);
        self.dialect.turn(index, &self.markets[index], now, &mut self.rng, &mut self.batch);
        self.send(now)
    }

    /// Writes the batch in order, received a few milliseconds after the venue's time `now`.
    fn send(&mut self, now: u64) -> Result<(), GenerateError> {
        let travel_ns = 1_500_000 + self.rng.below(2000) * 1000;
        for (kind, text) in self.batch.messages.drain(..) {
            let between_ns = (1 + self.rng.below(40)) * 1000;
            let rx_ns = (self.last_rx_ns + between_ns).max((now + travel_ns) / 1000 * 1000);
            self.writer.frame(rx_ns, text.as_bytes())?;
            self.last_rx_ns = rx_ns;
            self.summary.messages += 1;
            *self.summary.kinds.entry(kind).or_default() += 1;
        }
        Ok(())
    }
}

/// Returns `now` in seconds and microseconds, as Kraken writes times: `1618678133.365913`.
fn seconds_text(now: u64) -> String {
    format!("{}.{:06}", now / SECOND_NS, now % SECOND_NS / 1000)
}

/// Returns `now` as RFC 3339 with microseconds, as Coinbase writes times: `2021-04-17T16:43:37.089723Z`.
fn rfc3339_text(now: u64) -> String {
    let mut text = Vec::with_capacity(27);
    rfc3339::write(now, rfc3339::FractionDigits::Six, &mut text);
    text.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests;
