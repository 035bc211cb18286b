//! A feed line: one connection, capture or publisher. It turns frames into numbered ticks.

mod books;
mod processor;
mod splice;
mod stats;

use self::processor::{LineProcessor, SymbolState, Symbols};
use super::recorder::Tap;
use super::sequencer::{LineId, Origin, Sequencer};
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Channel, Tick};
use crate::venue::{self, ChecksOff, DecodeError, Event, Scratch, WireFormat};

pub use stats::{FrameKind, FrameKinds, LineStats, RefusedCounts};

/// The limits of a line, and the checks it skips.
#[derive(Clone, Debug)]
pub struct LineLimits {
    /// Maximum number of levels per side of a book.
    pub book_levels_max: usize,
    /// Venues that native messages may name; `None` allows any.
    pub venues: Option<Vec<String>>,
    /// Maximum number of instruments that the line may name.
    pub instruments_max: usize,
    /// New instruments are listed only while fewer than this number are, over all lines.
    pub listed_max: usize,
    /// Maximum number of changes of a book, per symbol, kept for a snapshot that is older than they are.
    pub splice_messages_max: usize,
    /// Maximum number of bytes of those changes, over all symbols.
    pub splice_bytes_max: usize,
    /// Checks of the venue's messages that are skipped.
    pub checks_off: ChecksOff,
}

impl Default for LineLimits {
    /// Returns the limits of the shipped configuration, with all checks enabled.
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

/// The state of a line at one place of its captures.
#[derive(Clone)]
pub(super) struct Memory {
    symbols: Symbols,
    /// True if a frame has arrived since the connection was made.
    connected: bool,
}

impl Memory {
    /// Returns its instruments.
    pub(super) fn instruments(&self) -> impl Iterator<Item = InstrumentId> {
        self.symbols.iter().map(|listed| listed.id)
    }

    /// Renumbers the instruments; those mapped to `None` are removed.
    pub(super) fn renumber(&mut self, number: impl Fn(InstrumentId) -> Option<InstrumentId>) {
        self.symbols.renumber(number);
    }

    /// Returns its approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.symbols.memory_bytes()
    }
}

/// One connection, capture or publisher. It does no I/O and reads no clock.
pub struct Line {
    id: LineId,
    origin: Origin,
    wire: WireFormat,
    limits: LineLimits,
    scratch: Scratch,
    symbols: Symbols,
    stats: LineStats,
    /// Scratch for decoding kept changes of a book again.
    splice_scratch: Scratch,
    /// Bytes of kept changes.
    splice_bytes: usize,
    last_rx_ns: Option<u64>,
    /// Steady time of the last activity, in nanoseconds.
    heard_ns: u64,
    silent: bool,
    tap: Option<Tap>,
}

impl Line {
    /// Returns a line of a venue format before its first frame.
    pub fn new(id: LineId, origin: Origin, wire: WireFormat, limits: LineLimits) -> Self {
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

    /// Returns its number.
    pub(super) fn id(&self) -> LineId {
        self.id
    }

    /// Sets where its frames come from, starting with the next one: see [`Sequencer::set_origin`].
    pub(super) fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// Transfers its claims to another line, including those learned by [`prime`](Self::prime), and clears
    /// its symbols.
    pub(super) fn hand_over_to(&mut self, line: LineId, sequencer: &mut Sequencer) {
        sequencer.hand_over(self.id, line);
        self.symbols = Symbols::default();
    }

    /// Records its input from now on.
    pub fn record(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// Returns its counters.
    pub fn stats(&self) -> &LineStats {
        &self.stats
    }

    /// Returns when the newest frame was received, in nanoseconds since the Unix epoch; `None` before the
    /// first of a connection.
    pub fn last_rx_ns(&self) -> Option<u64> {
        self.last_rx_ns
    }

    /// Returns true if it was found silent and no frame has arrived since.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Returns the venue format that it reads.
    pub fn wire(&self) -> WireFormat {
        self.wire
    }

    /// Returns a copy of its state.
    pub(super) fn memory(&self) -> Memory {
        Memory { symbols: self.symbols.clone(), connected: self.last_rx_ns.is_some() }
    }

    /// As [`memory`](Self::memory), for a line that is no longer needed.
    pub(super) fn into_memory(self) -> Memory {
        Memory { connected: self.last_rx_ns.is_some(), symbols: self.symbols }
    }

    /// Restores the state at another place of its capture. A recording shows a disconnect there.
    pub(super) fn recall(&mut self, memory: Memory, rx_ns: u64) {
        if let Some(tap) = self.tap.as_mut().filter(|_| self.last_rx_ns.is_some()) {
            tap.disconnected(rx_ns);
        }
        self.symbols = memory.symbols;
        self.splice_bytes = self.symbols.iter().map(|listed| listed.window.bytes()).sum();
        self.last_rx_ns = memory.connected.then_some(rx_ns);
        self.silent = false;
    }

    /// Returns its instruments.
    pub(super) fn instruments(&self) -> impl Iterator<Item = InstrumentId> {
        self.symbols.iter().map(|listed| listed.id)
    }

    /// Restarts the measurement of its silence: a frame arrived, or the pause had another cause. `now_ns` is
    /// steady time.
    pub(super) fn touch(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
    }

    /// Returns how long no frame has arrived, in nanoseconds of steady time; 0 before the first frame of a
    /// connection.
    pub(super) fn silence_ns(&self, now_ns: u64) -> u64 {
        self.last_rx_ns.map_or(0, |_| now_ns.saturating_sub(self.heard_ns))
    }

    /// Decodes a frame before it is due, without publishing anything, to learn which sources exist for which
    /// symbol. A ticker before the book's snapshot, or an aggregate before the first trade, is then
    /// recognised as redundant from the start. Unreadable frames are left for [`frame`](Self::frame) to
    /// report.
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
        // An unreadable frame is counted when it is really received.
        let _ = venue::decode(self.wire, &mut self.scratch, frame, &mut |event| processor.prime(&event));
    }

    /// Decodes one frame received at `rx_ns` (nanoseconds since the Unix epoch) and passes its ticks to
    /// `out`.
    ///
    /// # Errors
    /// The fault of the frame; it is counted, and the ticks before the fault were passed on.
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

    /// Handles a lost connection or the end of the capture: releases the streams of this line (state `down`,
    /// unless another line owns them), and books and sequences start anew with the next frame. Before the
    /// first frame there is nothing to release, and what [`prime`](Self::prime) learned remains.
    pub fn disconnected(&mut self, rx_ns: u64, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        if self.last_rx_ns.is_some() {
            self.release(false, rx_ns, sequencer, &mut out);
        }
    }

    /// Handles the end of its replay: releases all streams it publishes now or published before.
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

    /// Handles the end of its capture when others follow. Its published values are stale until a message of
    /// the same symbol arrives, on whichever line it arrives.
    pub(super) fn ended(&mut self, rx_ns: u64, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        for listed in self.symbols.iter_mut() {
            listed.ended(self.id, rx_ns, sequencer, &mut out);
        }
    }

    /// Declares that the next frame follows the one before [`ended`](Self::ended) with nothing missing
    /// between.
    pub(super) fn resumed(&mut self, rx_ns: u64, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        for listed in self.symbols.iter_mut() {
            listed.resumed(self.id, rx_ns, sequencer, &mut out);
        }
    }

    /// Returns how many events of a frame belong to symbols and channels that this line publishes.
    pub(super) fn likeness(&mut self, frame: &[u8], sequencer: &Sequencer) -> usize {
        let (id, symbols) = (self.id, &self.symbols);
        let mut alike = 0;
        // An unreadable event counts as no match.
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

    /// Handles the end of its capture when another one continues from here, perhaps with messages missing
    /// between. Its published values are stale until a message of the same symbol arrives. A book is stale
    /// until the venue's update ids or checksum prove that nothing is missing, or a snapshot arrives; if the
    /// next change proves nothing, the book is dropped.
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

    /// Handles a new connection: the state of the one before no longer holds.
    pub fn connected(&mut self, rx_ns: u64, to: &str, sequencer: &mut Sequencer, out: impl FnMut(&Tick)) {
        self.disconnected(rx_ns, sequencer, out);
        if let Some(tap) = &mut self.tap {
            tap.connected(rx_ns, to);
        }
    }

    /// Marks the line as silent (nothing was received for too long) or as active again.
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
            // A frame of other symbols does not end the silence of one that was not heard since the join.
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
