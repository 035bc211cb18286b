//! What the ingest thread remembers of each instrument across feed lines: the numbers it gave out, who
//! may speak for it, and whether its prices can be trusted.

use std::ops::Range;
use std::sync::Arc;

use crate::instrument::{InstrumentId, InstrumentTable, Symbol, TableFull};
use crate::tick::{Body, Channel, State, Stream, Tick, Void};

/// A feed line's number, unique within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineId(pub u32);

/// How much a source of a channel's ticks is worth: the highest one seen speaks, the others are silent.
/// (A venue repeats itself: trades and their aggregates, books and tickers.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub u8);

/// Who speaks for a channel of an instrument.
#[derive(Clone, Copy, Debug)]
struct Owner {
    line: LineId,
    rank: Rank,
    /// Its capture has ended: whoever comes first may speak.
    free: bool,
}

/// What is known of an instrument.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Instrument {
    seq: [u64; 3],
    /// A replay went to where the channel has no value, and none has come since.
    void: [bool; 2],
    owner: [Option<Owner>; 2],
    /// The channel has had an owner before.
    carried: [bool; 2],
    /// The book is being rebuilt.
    broken: bool,
    /// The line says nothing at all.
    silent: bool,
    state: State,
}

impl Instrument {
    /// What the flags amount to.
    fn judge(&self) -> State {
        let orphaned =
            |channel: Channel| self.carried[channel as usize] && self.owner[channel as usize].is_none();
        if self.owner == [None, None] {
            return if self.carried == [false, false] { State::Waiting } else { State::Down };
        }
        if self.broken || self.silent || Channel::ALL.into_iter().any(orphaned) {
            return State::Stale;
        }
        State::Live
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.line == other.line
    }
}

/// All instruments of a run, as the ingest thread sees them. Every tick gets its `seq` here.
#[derive(Clone)]
pub struct Market {
    table: Arc<InstrumentTable>,
    instruments: Vec<Instrument>,
}

impl Market {
    /// An empty market whose instruments are listed in `table`.
    pub fn new(table: Arc<InstrumentTable>) -> Self {
        Self { table, instruments: Vec::new() }
    }

    /// The instruments' names.
    pub fn table(&self) -> &Arc<InstrumentTable> {
        &self.table
    }

    /// The id of a symbol, listing it if it is new.
    ///
    /// # Errors
    /// [`TableFull`] when there is no room for another.
    pub fn intern(&mut self, symbol: &Symbol) -> Result<InstrumentId, TableFull> {
        let id = self.table.intern(symbol)?;
        if self.instruments.len() <= id.index() {
            self.instruments.resize(id.index() + 1, Instrument::default());
        }
        Ok(id)
    }

    /// Asks whether a source may speak for a channel, and remembers that it does. On one line the source
    /// of the highest rank speaks; another line takes over only with a higher one, or if it is `shared`.
    pub(super) fn claim(
        &mut self,
        id: InstrumentId,
        channel: Channel,
        line: LineId,
        rank: Rank,
        shared: bool,
    ) -> bool {
        let instrument = &mut self.instruments[id.index()];
        let owner = &mut instrument.owner[channel as usize];
        let granted = match owner {
            None => true,
            Some(held) if held.line == line => rank >= held.rank,
            Some(held) => shared || held.free || rank > held.rank,
        };
        if granted {
            let better =
                owner.replace(Owner { line, rank, free: false }).is_some_and(|held| rank > held.rank);
            // Who spoke until now may have had a broken book: it is not asked any more.
            instrument.broken &= !(better && channel == Channel::Quote);
        }
        granted
    }

    /// The rank that speaks for a channel on this line, if this line does.
    pub(super) fn rank(&self, id: InstrumentId, channel: Channel, line: LineId) -> Option<Rank> {
        self.instruments[id.index()].owner[channel as usize].filter(|o| o.line == line).map(|o| o.rank)
    }

    /// Gives a tick its number and hands it out; the instrument is live from here on unless its book is
    /// broken.
    pub(super) fn publish(&mut self, mut tick: Tick, channel: Channel, out: &mut impl FnMut(&Tick)) {
        let instrument = &mut self.instruments[tick.instrument.index()];
        instrument.carried[channel as usize] = true;
        instrument.void[channel as usize] = false;
        instrument.seq[channel as usize] += 1;
        tick.seq = instrument.seq[channel as usize];
        if instrument.state != State::Live {
            self.refresh(tick.instrument, tick.rx_ns, out);
        }
        out(&tick);
    }

    /// The most numbers that one gap takes: a venue whose numbers jump out of all reason cannot use up ours.
    const MISSING_MAX: u64 = u32::MAX as u64;

    /// Hands out a gap that takes `missing` numbers of a channel, at most [`MISSING_MAX`](Self::MISSING_MAX).
    pub(super) fn gap(
        &mut self,
        id: InstrumentId,
        channel: Channel,
        missing: u64,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        let seq = &mut self.instruments[id.index()].seq[channel as usize];
        let from = *seq + 1;
        *seq += missing.min(Self::MISSING_MAX);
        let body = Body::Gap { channel, from, void: Void::Lost };
        out(&Tick { instrument: id, seq: *seq, rx_ns, ts_us: None, snap: false, body });
    }

    /// Says whether the instrument's book is being rebuilt.
    pub(super) fn set_broken(
        &mut self,
        id: InstrumentId,
        broken: bool,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        self.instruments[id.index()].broken = broken;
        self.refresh(id, rx_ns, out);
    }

    /// Says whether the instrument's line has gone silent.
    pub(super) fn set_silent(
        &mut self,
        id: InstrumentId,
        silent: bool,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        self.instruments[id.index()].silent = silent;
        self.refresh(id, rx_ns, out);
    }

    /// A line speaks for this instrument no more.
    pub(super) fn release(
        &mut self,
        id: InstrumentId,
        line: LineId,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        let instrument = &mut self.instruments[id.index()];
        let held = |owner: &Option<Owner>| owner.is_some_and(|o| o.line == line);
        if !instrument.owner.iter().any(held) {
            return;
        }
        for owner in &mut instrument.owner {
            *owner = owner.filter(|o| o.line != line);
        }
        instrument.broken = false;
        instrument.silent = false;
        self.refresh(id, rx_ns, out);
    }

    /// A line's capture has ended: what it speaks for is stale, and is another line's if that says something of it.
    pub(super) fn set_free(
        &mut self,
        id: InstrumentId,
        line: LineId,
        free: bool,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        let instrument = &mut self.instruments[id.index()];
        let mut owned = instrument.owner.iter_mut().flatten().filter(|owner| owner.line == line).peekable();
        if owned.peek().is_some() {
            owned.for_each(|owner| owner.free = free);
            self.set_silent(id, free, rx_ns, out);
        }
    }

    /// What one line would speak for, another one does.
    pub(super) fn hand_over(&mut self, from: LineId, to: LineId) {
        for instrument in &mut self.instruments {
            for owner in instrument.owner.iter_mut().flatten().filter(|owner| owner.line == from) {
                owner.line = to;
            }
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.instruments.len() * size_of::<Instrument>()
    }

    /// What is known of an instrument.
    pub(super) fn known(&self, id: InstrumentId) -> Instrument {
        self.instruments.get(id.index()).copied().unwrap_or_default()
    }

    /// A replay went somewhere else: takes on what is `known` of an instrument there, and hands out its state if it is
    /// another one. `lines` are those of the replay; for what others speak, they go on to.
    pub(super) fn adopt(
        &mut self,
        id: InstrumentId,
        known: &Instrument,
        lines: &Range<u32>,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        let instrument = &mut self.instruments[id.index()];
        let mut shared = false;
        for channel in 0..Channel::ALL.len() {
            let other = instrument.owner[channel].filter(|owner| !lines.contains(&owner.line.0));
            instrument.owner[channel] = known.owner[channel].or(other);
            if other.is_none() {
                instrument.carried[channel] = known.carried[channel];
            }
            shared |= other.is_some();
        }
        (instrument.broken, instrument.silent) = (known.broken, false);
        // Who will speak may be known before anything was said.
        let state = if shared { instrument.judge() } else { known.state };
        self.tell_state(id, state, rx_ns, out);
    }

    /// Hands out what a channel has at the place that a replay went to, or that it has nothing there.
    pub(super) fn place(
        &mut self,
        id: InstrumentId,
        channel: Channel,
        value: Option<&Tick>,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        let instrument = &mut self.instruments[id.index()];
        let (seq, void) = (&mut instrument.seq[channel as usize], &mut instrument.void[channel as usize]);
        if value.is_none() && (*seq == 0 || *void) {
            return;
        }
        *seq += 1;
        *void = value.is_none();
        let body = value.map_or(Body::Gap { channel, from: *seq, void: Void::NoValue }, |tick| tick.body);
        let ts_us = value.and_then(|tick| tick.ts_us);
        out(&Tick { instrument: id, seq: *seq, rx_ns, ts_us, snap: value.is_some(), body });
    }

    fn refresh(&mut self, id: InstrumentId, rx_ns: u64, out: &mut impl FnMut(&Tick)) {
        let state = self.instruments[id.index()].judge();
        self.tell_state(id, state, rx_ns, out);
    }

    fn tell_state(&mut self, id: InstrumentId, state: State, rx_ns: u64, out: &mut impl FnMut(&Tick)) {
        let instrument = &mut self.instruments[id.index()];
        if state != instrument.state {
            instrument.state = state;
            let seq = &mut instrument.seq[Stream::Status as usize];
            *seq += 1;
            let body = Body::Status(state);
            out(&Tick { instrument: id, seq: *seq, rx_ns, ts_us: None, snap: false, body });
        }
    }
}
