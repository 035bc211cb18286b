//! The state of each instrument across feed lines: sequence numbers, the line that owns each channel, and
//! whether the prices can be trusted.

use std::ops::Range;
use std::sync::Arc;

use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol, TableFull};
use crate::model::tick::{Body, Channel, FeedGap, State, Stream, Tick};

/// The number of a feed line, unique within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineId(pub u32);

/// The precedence of a source of a channel's ticks: the highest one seen publishes, the others are
/// suppressed. (Venues send the same data several times: trades and their aggregates, books and tickers.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub u8);

/// Where the frames of a line come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Live data.
    Live,
    /// Recorded data that is replayed.
    Replay,
    /// Recorded data whose replay is paused.
    Paused,
}

/// The owner of a channel of an instrument: the source that publishes it.
#[derive(Clone, Copy, Debug)]
struct Owner {
    line: LineId,
    rank: Rank,
    /// Its capture has ended: any line may take over.
    free: bool,
    origin: Origin,
    /// The line of a replay from which this line took over, and which may publish again. While it is set, the
    /// data of the channel may be recorded as well as live.
    also: Option<LineId>,
}

impl Owner {
    fn is_recorded(&self) -> bool {
        self.origin != Origin::Live || self.also.is_some()
    }
}

/// The state of an instrument.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Instrument {
    seq: [u64; 3],
    /// A replay went to a position where the channel has no value, and none was published since.
    void: [bool; 2],
    owner: [Option<Owner>; 2],
    /// The channel has had an owner before.
    carried: [bool; 2],
    /// The book is being rebuilt.
    broken: bool,
    /// The line receives nothing.
    silent: bool,
    /// The last owner was a replay, which has ended.
    over: bool,
    state: State,
    /// `state` is up to date with the other fields.
    judged: bool,
}

impl Instrument {
    /// Derives the state from the other fields.
    fn judge(&self) -> State {
        let orphaned =
            |channel: Channel| self.carried[channel as usize] && self.owner[channel as usize].is_none();
        let owners = || self.owner.iter().flatten();
        if owners().next().is_none() {
            return match (self.carried, self.over) {
                ([false, false], _) => State::Waiting,
                (_, true) => State::Ended,
                (_, false) => State::Down,
            };
        }
        if self.broken || self.silent || Channel::ALL.into_iter().any(orphaned) {
            return State::Stale;
        }
        if owners().all(|owner| owner.origin == Origin::Paused) {
            return State::Paused;
        }
        // Some of the published data may be recorded.
        if owners().any(Owner::is_recorded) { State::Replay } else { State::Live }
    }
}

/// All instruments of a run, owned by the ingest thread. It assigns the `seq` of every tick.
#[derive(Clone)]
pub struct Sequencer {
    table: Arc<InstrumentTable>,
    instruments: Vec<Instrument>,
}

impl Sequencer {
    /// Returns a sequencer without instruments, which are listed in `table`.
    pub fn new(table: Arc<InstrumentTable>) -> Self {
        Self { table, instruments: Vec::new() }
    }

    /// Returns the instrument table.
    pub fn table(&self) -> &Arc<InstrumentTable> {
        &self.table
    }

    /// Returns the id of a symbol, and lists the symbol if it is new.
    ///
    /// # Errors
    /// [`TableFull`] if there is no room for another.
    pub fn intern(&mut self, symbol: &Symbol) -> Result<InstrumentId, TableFull> {
        self.intern_below(symbol, self.table.capacity())
    }

    /// As [`intern`](Self::intern), but a new symbol is listed only while fewer than `most` are.
    ///
    /// # Errors
    /// [`TableFull`] if there is no room for another.
    pub(super) fn intern_below(&mut self, symbol: &Symbol, most: usize) -> Result<InstrumentId, TableFull> {
        let id = self.table.intern_below(symbol, most)?;
        if self.instruments.len() <= id.index() {
            self.instruments.resize(id.index() + 1, Instrument::default());
        }
        Ok(id)
    }

    /// Claims a channel for a source; returns true if the source may publish. On one line the source of the
    /// highest rank publishes. Another line takes over only with a higher rank, if it is `shared`, or after
    /// the capture of the owner has ended.
    pub(super) fn claim(
        &mut self,
        id: InstrumentId,
        channel: Channel,
        line: LineId,
        origin: Origin,
        rank: Rank,
        shared: bool,
    ) -> bool {
        let instrument = &mut self.instruments[id.index()];
        let owner = &mut instrument.owner[channel as usize];
        let also = match owner {
            Some(held) if held.line == line && held.rank == rank && !held.free => return true,
            Some(held) if held.line == line && rank < held.rank => return false,
            Some(held) if held.line != line && !shared && !held.free && rank <= held.rank => return false,
            Some(held) if origin == Origin::Live && held.origin != Origin::Live => Some(held.line),
            Some(held) if origin == Origin::Live => held.also,
            _ => None,
        };
        let held = owner.replace(Owner { line, rank, free: false, origin, also });
        let better = held.is_some_and(|held| rank > held.rank);
        // The previous owner may have had a broken book, which no longer matters.
        instrument.broken &= !(better && channel == Channel::Quote);
        let same = held.is_some_and(|held| (held.origin, held.also) == (origin, also));
        instrument.judged &= same && !better;
        true
    }

    /// Returns the rank that owns a channel on this line, if this line owns it.
    pub(super) fn rank(&self, id: InstrumentId, channel: Channel, line: LineId) -> Option<Rank> {
        self.instruments[id.index()].owner[channel as usize].filter(|o| o.line == line).map(|o| o.rank)
    }

    /// Numbers a tick and passes it to `out`. If the state of the instrument has changed, the new state is
    /// passed first.
    pub(super) fn publish(&mut self, mut tick: Tick, channel: Channel, out: &mut impl FnMut(&Tick)) {
        let instrument = &mut self.instruments[tick.instrument.index()];
        instrument.carried[channel as usize] = true;
        instrument.void[channel as usize] = false;
        instrument.seq[channel as usize] += 1;
        tick.seq = instrument.seq[channel as usize];
        if !instrument.judged {
            self.refresh(tick.instrument, tick.rx_ns, out);
        }
        out(&tick);
    }

    /// Maximum number of sequence numbers that one gap takes, so that an implausible jump of a venue's
    /// numbers cannot use up ours.
    const MISSING_MAX: u64 = u32::MAX as u64;

    /// Publishes a gap over `missing` sequence numbers of a channel, at most
    /// [`MISSING_MAX`](Self::MISSING_MAX).
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
        let body = Body::Gap { channel, from, void: FeedGap::Lost };
        out(&Tick { instrument: id, seq: *seq, rx_ns, ts_us: None, snap: false, body });
    }

    /// Sets whether the instrument's book is being rebuilt.
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

    /// Sets whether the instrument's line is silent.
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

    /// Sets the origin of these lines, which belong to a replay that was paused or resumed.
    pub(super) fn set_origin(
        &mut self,
        lines: &Range<u32>,
        origin: Origin,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        for at in 0..self.instruments.len() {
            let instrument = &mut self.instruments[at];
            let owners = instrument.owner.iter_mut().flatten();
            for owner in owners.filter(|owner| lines.contains(&owner.line.0)) {
                (owner.origin, instrument.judged) = (origin, false);
            }
            // Priming can set an owner before anything was published.
            if !instrument.judged && instrument.state != State::Waiting {
                self.refresh(InstrumentId(at as u32), rx_ns, out);
            }
        }
    }

    /// Removes a line as owner of this instrument; `over`: it belonged to a replay, which has ended.
    pub(super) fn release(
        &mut self,
        id: InstrumentId,
        line: LineId,
        over: bool,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        let instrument = &mut self.instruments[id.index()];
        for owner in &mut instrument.owner {
            match owner {
                Some(held) if held.line == line => {
                    (*owner, instrument.broken, instrument.silent) = (None, false, false);
                }
                Some(held) if held.also == Some(line) => held.also = None,
                _ => continue,
            }
            (instrument.judged, instrument.over) = (false, false);
        }
        // The end of its replay counts even if the line owns no channel any more.
        instrument.judged &= !over;
        instrument.over |= over;
        if !instrument.judged {
            self.refresh(id, rx_ns, out);
        }
    }

    /// Sets whether the capture of a line has ended. Then its channels are stale, and the next line that
    /// publishes takes them over.
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

    /// Transfers the ownership of one line to another.
    pub(super) fn hand_over(&mut self, from: LineId, to: LineId) {
        for owner in self.instruments.iter_mut().flat_map(|instrument| instrument.owner.iter_mut().flatten())
        {
            if owner.line == from {
                owner.line = to;
            }
            owner.also = owner.also.map(|line| if line == from { to } else { line });
        }
    }

    /// Returns its memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.instruments.len() * size_of::<Instrument>()
    }

    /// Returns the state of an instrument.
    pub(super) fn known(&self, id: InstrumentId) -> Instrument {
        self.instruments.get(id.index()).copied().unwrap_or_default()
    }

    /// Applies the state `known` of an instrument at the target of a seek, and publishes a status if it
    /// changed. `lines` and `origin` are those of the replay. A channel that the replay does not own at the
    /// target stays with its other owner, if it has one.
    pub(super) fn adopt(
        &mut self,
        id: InstrumentId,
        known: &Instrument,
        lines: &Range<u32>,
        origin: Origin,
        rx_ns: u64,
        out: &mut impl FnMut(&Tick),
    ) {
        let instrument = &mut self.instruments[id.index()];
        let is_theirs = |line: LineId| lines.contains(&line.0);
        let mut shared = false;
        for channel in 0..Channel::ALL.len() {
            let other = instrument.owner[channel].filter(|owner| !is_theirs(owner.line));
            let other =
                other.map(|owner| Owner { also: owner.also.filter(|line| !is_theirs(*line)), ..owner });
            instrument.owner[channel] = known.owner[channel].map(|owner| Owner { origin, ..owner }).or(other);
            if other.is_none() {
                instrument.carried[channel] = known.carried[channel];
            }
            shared |= other.is_some();
        }
        (instrument.broken, instrument.silent) = (known.broken, false);
        (instrument.over, instrument.judged) = (known.over, false);
        // Priming can set an owner before anything was published.
        let judged = shared || known.state == State::Replay;
        let state = if judged { instrument.judge() } else { known.state };
        self.tell_state(id, state, rx_ns, out);
    }

    /// Publishes the value of a channel at the target of a seek, or a gap if it has none there.
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
        let body = value.map_or(Body::Gap { channel, from: *seq, void: FeedGap::NoValue }, |tick| tick.body);
        let ts_us = value.and_then(|tick| tick.ts_us);
        out(&Tick { instrument: id, seq: *seq, rx_ns, ts_us, snap: value.is_some(), body });
    }

    fn refresh(&mut self, id: InstrumentId, rx_ns: u64, out: &mut impl FnMut(&Tick)) {
        let instrument = &mut self.instruments[id.index()];
        instrument.judged = true;
        let state = instrument.judge();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tick::{Decimal, Trade, TradeId};

    const TRADE: Channel = Channel::Trade;
    const QUOTE: Channel = Channel::Quote;
    const REPLAY: LineId = LineId(0);
    const OTHER: LineId = LineId(1);
    const PUBLISHER: LineId = LineId(7);

    /// One instrument, and the states published for it.
    struct Rig {
        sequencer: Sequencer,
        id: InstrumentId,
        told: Vec<&'static str>,
    }

    impl Rig {
        fn new() -> Self {
            let mut sequencer = Sequencer::new(Arc::new(InstrumentTable::new(1)));
            let id = sequencer.intern(&Symbol::parse("demo:A").expect("good")).expect("room");
            Self { sequencer, id, told: Vec::new() }
        }

        fn told(&mut self, change: impl FnOnce(&mut Sequencer, InstrumentId, &mut dyn FnMut(&Tick))) {
            let told = &mut self.told;
            change(&mut self.sequencer, self.id, &mut |tick| {
                if let Body::Status(state) = tick.body {
                    told.push(state.name());
                }
            });
        }

        /// Publishes a tick from a line that shares its instruments with others.
        fn says(&mut self, line: LineId, origin: Origin, channel: Channel) {
            assert!(self.sequencer.claim(self.id, channel, line, origin, Rank(1), true));
            let one = Decimal::new(1, 0);
            let body = Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE });
            let tick = Tick { instrument: self.id, seq: 0, rx_ns: 0, ts_us: None, snap: false, body };
            self.told(|sequencer, _, mut out| sequencer.publish(tick, channel, &mut out));
        }

        fn set_origin(&mut self, lines: Range<u32>, origin: Origin) {
            self.told(|sequencer, _, mut out| sequencer.set_origin(&lines, origin, 0, &mut out));
        }

        fn goes(&mut self, line: LineId, over: bool) {
            self.told(|sequencer, id, mut out| sequencer.release(id, line, over, 0, &mut out));
        }

        /// Returns the states published since the last call.
        fn take(&mut self) -> Vec<&'static str> {
            std::mem::take(&mut self.told)
        }
    }

    #[test]
    fn what_a_replay_may_speak_for_is_not_live() {
        let mut rig = Rig::new();
        rig.says(PUBLISHER, Origin::Live, TRADE);
        assert_eq!(rig.take(), ["live"]);
        rig.says(REPLAY, Origin::Replay, TRADE);
        assert_eq!(rig.take(), ["replay"]);
        // They alternate, which publishes no status.
        for _ in 0..3 {
            rig.says(PUBLISHER, Origin::Live, TRADE);
            rig.says(REPLAY, Origin::Replay, TRADE);
        }
        rig.says(PUBLISHER, Origin::Live, TRADE);
        rig.set_origin(0..2, Origin::Paused);
        assert_eq!(rig.take(), Vec::<&str>::new());
        rig.goes(REPLAY, true);
        assert_eq!(rig.take(), ["live"], "nothing is recorded any more");
        rig.goes(PUBLISHER, false);
        assert_eq!(rig.take(), ["down"]);
    }

    #[test]
    fn one_replayed_channel_is_enough() {
        let mut rig = Rig::new();
        rig.says(PUBLISHER, Origin::Live, TRADE);
        rig.says(REPLAY, Origin::Replay, QUOTE);
        rig.set_origin(0..2, Origin::Paused);
        assert_eq!(rig.take(), ["live", "replay"], "the publisher does not stand still");
        rig.goes(PUBLISHER, false);
        assert_eq!(rig.take(), ["stale"]);
        rig.says(OTHER, Origin::Paused, TRADE);
        rig.set_origin(0..2, Origin::Replay);
        assert_eq!(rig.take(), ["paused", "replay"]);
    }

    #[test]
    fn a_replay_that_has_ended_is_told_from_a_line_that_is_gone() {
        let mut rig = Rig::new();
        rig.says(REPLAY, Origin::Replay, TRADE);
        rig.goes(REPLAY, false);
        rig.goes(OTHER, true);
        rig.goes(OTHER, true);
        assert_eq!(rig.take(), ["replay", "down", "ended"]);
        rig.says(REPLAY, Origin::Replay, TRADE);
        rig.goes(REPLAY, false);
        assert_eq!(rig.take(), ["replay", "down"], "another round");
        rig.says(PUBLISHER, Origin::Live, TRADE);
        rig.goes(PUBLISHER, false);
        assert_eq!(rig.take(), ["live", "down"]);
    }

    #[test]
    fn who_will_speak_has_no_state_yet() {
        let mut rig = Rig::new();
        assert!(rig.sequencer.claim(rig.id, TRADE, REPLAY, Origin::Replay, Rank(1), false));
        rig.set_origin(0..2, Origin::Paused);
        rig.goes(REPLAY, true);
        assert_eq!(rig.take(), Vec::<&str>::new());
    }
}
