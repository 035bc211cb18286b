//! A feed line: one connection, capture or peer. Frames in, numbered ticks out.

mod books;
mod processor;
mod splice;
mod stats;

use self::processor::{LineProcessor, SymbolState, Symbols};
use super::recorder::Tap;
use super::sequencer::{LineId, Origin, Sequencer};
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Channel, Tick};
use crate::venue::{self, ChecksOff, DecodeError, Event, Scratch, Wire};

pub use stats::{Kind, Kinds, LineStats, Refused};

/// Limits of a line, and which checks it leaves out.
#[derive(Clone, Debug)]
pub struct LineLimits {
    /// Levels a side that a book keeps at most.
    pub book_levels_max: usize,
    /// Venues that native messages may name; `None`: any.
    pub venues: Option<Vec<String>>,
    /// Instruments that the line may name.
    pub instruments_max: usize,
    /// It lists new ones only while fewer than this are listed, by whatever line.
    pub listed_max: usize,
    /// Changes of a book that are kept for a snapshot that is older than they are, of each symbol…
    pub splice_messages_max: usize,
    /// …and bytes of them, of all symbols together.
    pub splice_bytes_max: usize,
    /// Checks of the venue's messages that are left out.
    pub checks_off: ChecksOff,
}

impl Default for LineLimits {
    /// The limits of the shipped configuration; all checks are made.
    fn default() -> Self {
        Self {
            book_levels_max: 100_000,
            venues: None,
            instruments_max: usize::MAX,
            listed_max: usize::MAX,
            splice_messages_max: 256,
            splice_bytes_max: 4 << 20,
            checks_off: ChecksOff::default(),
        }
    }
}

/// What a line remembers at one place of its captures.
#[derive(Clone)]
pub(super) struct Memory {
    symbols: Symbols,
    /// A frame has come since the connection was made.
    connected: bool,
}

impl Memory {
    /// The instruments it knows.
    pub(super) fn instruments(&self) -> impl Iterator<Item = InstrumentId> {
        self.symbols.iter().map(|listed| listed.id)
    }

    /// Gives each instrument another number; those that get none are forgotten.
    pub(super) fn renumber(&mut self, number: impl Fn(InstrumentId) -> Option<InstrumentId>) {
        self.symbols.renumber(number);
    }

    /// Bytes that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.symbols.memory_bytes()
    }
}

/// One connection, capture or peer. It does no I/O and reads no clock.
pub struct Line {
    id: LineId,
    origin: Origin,
    wire: Wire,
    limits: LineLimits,
    scratch: Scratch,
    symbols: Symbols,
    stats: LineStats,
    /// For changes of a book that are read again.
    splice_scratch: Scratch,
    /// Bytes of changes that are kept.
    splice_bytes: usize,
    last_rx_ns: Option<u64>,
    /// When something was heard of it last, steady time.
    heard_ns: u64,
    silent: bool,
    tap: Option<Tap>,
}

impl Line {
    /// A line of a venue, before its first frame.
    pub fn new(id: LineId, origin: Origin, wire: Wire, limits: LineLimits) -> Self {
        Self {
            id,
            origin,
            wire,
            limits,
            scratch: Scratch::default(),
            symbols: Symbols::default(),
            stats: LineStats::default(),
            splice_scratch: Scratch::default(),
            splice_bytes: 0,
            last_rx_ns: None,
            heard_ns: 0,
            silent: false,
            tap: None,
        }
    }

    /// Its number.
    pub(super) fn id(&self) -> LineId {
        self.id
    }

    /// Where its frames come from, from the next one on: see [`Sequencer::set_origin`].
    pub(super) fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// Another line tells what this one would have told, and has said of it what [`prime`](Self::prime) learned.
    pub(super) fn hand_over_to(&mut self, line: LineId, sequencer: &mut Sequencer) {
        sequencer.hand_over(self.id, line);
        self.symbols = Symbols::default();
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
        self.splice_bytes = self.symbols.iter().map(|listed| listed.window.bytes()).sum();
        self.last_rx_ns = memory.connected.then_some(rx_ns);
        self.silent = false;
    }

    /// The instruments it knows.
    pub(super) fn instruments(&self) -> impl Iterator<Item = InstrumentId> {
        self.symbols.iter().map(|listed| listed.id)
    }

    /// Something is heard of it, or it was not its silence that nothing came: that begins now, steady time.
    pub(super) fn touch(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
    }

    /// For how long nothing has come, nanoseconds of steady time; 0 before the first frame of a connection.
    pub(super) fn silence_ns(&self, now_ns: u64) -> u64 {
        self.last_rx_ns.map_or(0, |_| now_ns.saturating_sub(self.heard_ns))
    }

    /// Looks at a frame that will come, without handing out anything: which sources tell of which symbol.
    /// So a ticker that comes before the book's snapshot, or an aggregate before the first trade, is known
    /// from the start to be a repetition. Frames that cannot be read are left for [`frame`](Self::frame) to report.
    pub fn prime(&mut self, frame: &[u8], sequencer: &mut Sequencer) {
        let mut stats = LineStats::default();
        let mut processor = LineProcessor {
            id: self.id,
            origin: self.origin,
            wire: self.wire,
            limits: &self.limits,
            symbols: &mut self.symbols,
            stats: &mut stats,
            splice_scratch: &mut self.splice_scratch,
            splice_bytes: &mut self.splice_bytes,
            sequencer,
            frame,
            rx_ns: 0,
            out: |_: &Tick| {},
        };
        // An unreadable frame is counted when it really comes.
        let _ = venue::decode(self.wire, &mut self.scratch, frame, &mut |event| processor.prime(&event));
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
        sequencer: &mut Sequencer,
        mut out: impl FnMut(&Tick),
    ) -> Result<(), DecodeError> {
        if let Some(tap) = &mut self.tap {
            tap.frame(rx_ns, frame);
        }
        let gaps = self.stats.gaps;
        self.stats.frames += 1;
        self.last_rx_ns = Some(rx_ns);
        if self.silent {
            self.set_silent(false, rx_ns, sequencer, &mut out);
        }
        let mut processor = LineProcessor {
            id: self.id,
            origin: self.origin,
            wire: self.wire,
            limits: &self.limits,
            symbols: &mut self.symbols,
            stats: &mut self.stats,
            splice_scratch: &mut self.splice_scratch,
            splice_bytes: &mut self.splice_bytes,
            sequencer,
            frame,
            rx_ns,
            out,
        };
        let result = venue::decode(self.wire, &mut self.scratch, frame, &mut |event| processor.take(&event));
        if let Err(fault) = &result {
            self.stats.bad_frames += 1;
            self.stats.refused.count(fault);
        }
        if let Some(tap) = self.tap.as_mut().filter(|_| self.stats.gaps > gaps) {
            tap.gap(rx_ns, self.stats.gaps - gaps);
        }
        result
    }

    /// The connection was lost or the capture ended: what it spoke for is down, and books and sequences
    /// begin anew with the next frame. Before the first frame there is nothing to end, and what
    /// [`prime`](Self::prime) learned stays.
    pub fn disconnected(&mut self, rx_ns: u64, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        if self.last_rx_ns.is_some() {
            self.release(false, rx_ns, sequencer, &mut out);
        }
    }

    /// The replay that it is of has ended, and so has what it spoke for, now or before.
    pub(super) fn over(&mut self, rx_ns: u64, sequencer: &mut Sequencer, out: &mut impl FnMut(&Tick)) {
        self.release(true, rx_ns, sequencer, out);
    }

    fn release(&mut self, over: bool, rx_ns: u64, sequencer: &mut Sequencer, out: &mut impl FnMut(&Tick)) {
        for listed in self.symbols.iter_mut() {
            sequencer.release(listed.id, self.id, over, rx_ns, out);
            *listed = SymbolState::new(listed.id);
        }
        self.splice_bytes = 0;
        self.silent = false;
        if self.last_rx_ns.take().is_some()
            && let Some(tap) = &mut self.tap
        {
            tap.disconnected(rx_ns);
        }
    }

    /// Its capture ended, and others are to come. What it has told is stale until something comes of the same symbol, and
    /// whichever line that comes on may speak.
    pub(super) fn ended(&mut self, rx_ns: u64, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        for listed in self.symbols.iter_mut() {
            listed.ended(self.id, rx_ns, sequencer, &mut out);
        }
    }

    /// What comes now follows what came before it [ended](Self::ended), and nothing is missing between them.
    pub(super) fn resumed(&mut self, rx_ns: u64, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        for listed in self.symbols.iter_mut() {
            listed.resumed(self.id, rx_ns, sequencer, &mut out);
        }
    }

    /// How much of what a frame tells is of symbols and channels that this line has told of.
    pub(super) fn likeness(&mut self, frame: &[u8], sequencer: &Sequencer) -> usize {
        let (id, symbols) = (self.id, &self.symbols);
        let mut alike = 0;
        // What cannot be read is like nothing.
        let _ = venue::decode(self.wire, &mut self.splice_scratch, frame, &mut |event| {
            let (symbol, channel) = match event {
                Event::Trade { symbol, .. } => (symbol, Channel::Trade),
                Event::Quote { symbol, .. } => (symbol, Channel::Quote),
                Event::Book(ref message) => {
                    let has_book = |listed: &SymbolState| listed.book.is_some() || listed.update.is_some();
                    alike += usize::from(symbols.get(message.symbol).is_some_and(has_book));
                    return Ok(());
                }
                _ => return Ok(()),
            };
            let speaks = |listed: &SymbolState| sequencer.rank(listed.id, channel, id).is_some();
            alike += usize::from(symbols.get(symbol).is_some_and(speaks));
            Ok(())
        });
        alike
    }

    /// Its capture ended, and another one goes on from here, perhaps with something missing between them. What it has told
    /// is stale until something comes of the same symbol. A book is stale until the venue's own numbers or checksum prove
    /// that nothing is missing, or a snapshot comes; where the next change proves nothing, the book is dropped.
    pub fn joined(&mut self, rx_ns: u64, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        if self.last_rx_ns.is_none() {
            return;
        }
        for listed in self.symbols.iter_mut() {
            listed.joined(self.id, rx_ns, sequencer, &mut out);
        }
        if let Some(tap) = &mut self.tap {
            tap.joined(rx_ns);
        }
    }

    /// A connection was made. What the one before it told does not hold any more.
    pub fn connected(&mut self, rx_ns: u64, to: &str, sequencer: &mut Sequencer, out: impl FnMut(&Tick)) {
        self.disconnected(rx_ns, sequencer, out);
        if let Some(tap) = &mut self.tap {
            tap.connected(rx_ns, to);
        }
    }

    /// Nothing was received for too long (`silent`), or again.
    pub fn set_silent(
        &mut self,
        silent: bool,
        rx_ns: u64,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        if self.silent == silent {
            return;
        }
        self.silent = silent;
        for listed in self.symbols.iter() {
            // Of what has not come since a join, nothing has come now.
            if listed.unheard && !silent {
                continue;
            }
            let speaks = Channel::ALL.into_iter().any(|c| sequencer.rank(listed.id, c, self.id).is_some());
            if speaks {
                sequencer.set_silent(listed.id, silent, rx_ns, out);
            }
        }
    }
}
