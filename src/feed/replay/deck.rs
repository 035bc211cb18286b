//! Captures and the lines that read them: the part of a replay that knows what comes, and not when.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::ReplayError;
use crate::capture::{Capture, CaptureError, Kind, Merged, Places, Reader};
use crate::feed::line::{Line, LineLimits, Memory};
use crate::feed::market::{LineId, Market};
use crate::instrument::{InstrumentId, InstrumentTable};
use crate::tick::{Body, Channel, Tick};
use crate::venue::Wire;

/// What is needed to read some captures again.
pub(super) struct Reel {
    pub(super) captures: Vec<Arc<Capture>>,
    wires: Vec<Wire>,
    limits: LineLimits,
    /// The number of the first line.
    first: u32,
}

impl Reel {
    /// The numbers of the lines.
    pub(super) fn lines(&self) -> Range<u32> {
        self.first..self.first + self.wires.len() as u32
    }

    /// Reads the captures again from these places on.
    ///
    /// # Errors
    /// The capture that does not open, and why.
    pub(super) fn read_from(&self, places: &Places) -> Result<Merged, String> {
        let open = |(capture, (place, key_ns)): (&Arc<Capture>, &(_, u64))| {
            let reader = capture.read_from(place);
            reader
                .map(|reader| (reader, *key_ns))
                .map_err(|error| format!("{}: {error}", capture.path().display()))
        };
        self.captures.iter().zip(places).map(open).collect::<Result<_, _>>().map(Merged::resume)
    }

    /// New lines.
    fn new_lines(&self) -> Vec<Line> {
        let lines = self.lines().zip(&self.wires);
        lines.map(|(number, wire)| Line::new(LineId(number), *wire, self.limits.clone())).collect()
    }
}

/// Captures, merged by receive time, with their lines.
pub(super) struct Deck {
    pub(super) merged: Merged,
    pub(super) lines: Vec<Line>,
    /// Records of a source that could not be read, by source.
    pub(super) bad_lines: Vec<u64>,
    /// Whether a source was truncated, by source.
    pub(super) truncated: Vec<bool>,
    /// Trades, quotes and gaps up to here: the number of the next.
    pub(super) ticks: u64,
}

/// A record that a [`Deck`] has taken in.
pub(super) struct Taken {
    /// When it was received, or is said to have been.
    pub(super) rx_ns: u64,
    /// What was wrong with it, `file:line: what`.
    pub(super) bad: Option<String>,
}

impl Deck {
    /// Opens captures and finds out what they hold.
    pub(super) fn open(
        files: &[PathBuf],
        venue: Option<Wire>,
        limits: &LineLimits,
        first: LineId,
    ) -> Result<(Self, Reel), ReplayError> {
        if files.is_empty() {
            return Err(ReplayError::NoFiles);
        }
        let readers = open_all(files)?;
        let wire = |reader: &Reader| {
            let wire = venue.or_else(|| reader.venue());
            wire.ok_or_else(|| ReplayError::NoVenue(reader.path().to_path_buf()))
        };
        let wires = readers.iter().map(wire).collect::<Result<Vec<_>, _>>()?;
        let captures = readers.iter().map(|reader| Arc::clone(reader.capture())).collect();
        let reel = Reel { captures, wires, limits: limits.clone(), first: first.0 };
        Ok((Self::on(&reel, Merged::new(readers)), reel))
    }

    fn on(reel: &Reel, merged: Merged) -> Self {
        let sources = reel.wires.len();
        let (bad_lines, truncated) = (vec![0; sources], vec![false; sources]);
        Self { merged, lines: reel.new_lines(), bad_lines, truncated, ticks: 0 }
    }

    /// Opens the captures again at their beginning.
    ///
    /// # Errors
    /// [`CaptureError`] names the one that does not open any more.
    pub(super) fn rewind(&mut self, files: &[PathBuf]) -> Result<(), CaptureError> {
        self.merged = Merged::new(open_all(files)?);
        self.ticks = 0;
        Ok(())
    }

    /// Lets the lines look at the first frames of their captures: see [`Line::prime`].
    pub(super) fn prime(&mut self, market: &mut Market) {
        for (reader, line) in self.merged.readers().zip(&mut self.lines) {
            for record in reader.sample() {
                if let Kind::Frame(frame) = record.kind {
                    line.prime(frame, market);
                }
            }
        }
    }

    /// When the next record was received, as its capture goes; `None` at the end.
    #[inline]
    pub(super) fn next_ns(&mut self) -> Option<u64> {
        self.merged.peek_ns()
    }

    /// Takes in the next record, as received at `rx_ns` or as it was recorded, and hands out its ticks, with the number
    /// that each trade, quote and gap has in the captures. To be called where there is a next record.
    #[inline]
    pub(super) fn take(
        &mut self,
        rx_ns: Option<u64>,
        market: &mut Market,
        mut out: impl FnMut(Option<u64>, &Tick),
    ) -> Taken {
        let Self { merged, lines, bad_lines, truncated, ticks } = self;
        let Some((source, record)) = merged.next_record() else { return Taken { rx_ns: 0, bad: None } };
        let (line, bad_lines) = (&mut lines[source], &mut bad_lines[source]);
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                *bad_lines += 1;
                truncated[source] |= error.is_truncation();
                return Taken { rx_ns: rx_ns.unwrap_or(0), bad: Some(error.to_string()) };
            }
        };
        let rx_ns = rx_ns.unwrap_or(record.rx_ns);
        let mut numbered = |tick: &Tick| {
            if matches!(tick.body, Body::Status(_)) {
                return out(None, tick);
            }
            *ticks += 1;
            out(Some(*ticks - 1), tick);
        };
        let mut bad = None;
        match record.kind {
            Kind::Frame(frame) => {
                if let Err(error) = line.frame(rx_ns, frame, market, numbered) {
                    *bad_lines += 1;
                    bad = Some((record.line, error));
                }
            }
            Kind::Connected(to) => line.connected(rx_ns, to, market, numbered),
            // Nobody can tell what is missing: books and sequences begin anew.
            Kind::Disconnected | Kind::Dropped { .. } => line.disconnected(rx_ns, market, &mut numbered),
            Kind::Segment(segment) if !segment.continues => line.disconnected(rx_ns, market, &mut numbered),
            Kind::Segment(_) | Kind::Sent(_) | Kind::Note(_) => {}
        }
        let path = || merged.readers().nth(source).map(|reader| reader.path().display().to_string());
        let bad = bad.map(|(number, error)| format!("{}:{number}: {error}", path().unwrap_or_default()));
        Taken { rx_ns, bad }
    }
}

fn open_all(files: &[PathBuf]) -> Result<Vec<Reader>, CaptureError> {
    files.iter().map(Reader::open).collect()
}

/// The newest trade and quote of each instrument, by its number.
pub(super) type Values = Vec<[Option<Tick>; 2]>;

/// A deck that plays for nobody, with a market of its own: to find out how things stand at some place.
pub(super) struct Rehearsal {
    pub(super) deck: Deck,
    pub(super) market: Market,
    pub(super) values: Values,
    /// The newest receive time that was taken in.
    pub(super) last_ns: u64,
}

impl Rehearsal {
    /// In front of the first record.
    pub(super) fn at_start(reel: &Reel, table: &Arc<InstrumentTable>) -> Result<Self, String> {
        let merged = reel.read_from(&vec![Default::default(); reel.captures.len()])?;
        let mut deck = Deck::on(reel, merged);
        let mut market = Market::new(Arc::clone(table));
        deck.prime(&mut market);
        Ok(Self { deck, market, values: Values::new(), last_ns: 0 })
    }

    /// Where it was when this was written down.
    pub(super) fn at(checkpoint: &Checkpoint, reel: &Reel) -> Result<Self, String> {
        let mut deck = Deck::on(reel, reel.read_from(&checkpoint.places)?);
        deck.ticks = checkpoint.ticks;
        for (line, memory) in deck.lines.iter_mut().zip(&checkpoint.memories) {
            line.recall(memory.clone(), checkpoint.last_ns);
        }
        let (market, values) = (checkpoint.market.clone(), checkpoint.values.clone());
        Ok(Self { deck, market, values, last_ns: checkpoint.last_ns })
    }

    /// Takes in the next record. To be called where there is one.
    pub(super) fn step(&mut self) {
        let Self { deck, market, values, last_ns } = self;
        let next_ns = deck.next_ns().unwrap_or(0);
        // What cannot be read is told when it is played.
        let _ = deck.take(None, market, |_, tick| keep(values, tick));
        *last_ns = (*last_ns).max(next_ns);
    }

    /// Writes down where it is.
    pub(super) fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint {
            places: self.deck.merged.places(),
            text_bytes: self.deck.merged.text_bytes(),
            last_ns: self.last_ns,
            ticks: self.deck.ticks,
            memories: self.deck.lines.iter().map(Line::memory).collect(),
            market: self.market.clone(),
            values: self.values.clone(),
        }
    }
}

fn keep(values: &mut Values, tick: &Tick) {
    let channel = match tick.body {
        Body::Trade(_) => Channel::Trade,
        Body::Quote(_) => Channel::Quote,
        Body::Gap { .. } | Body::Status(_) => return,
    };
    let at = tick.instrument.index();
    if values.len() <= at {
        values.resize(at + 1, [None; 2]);
    }
    values[at][channel as usize] = Some(*tick);
}

/// The newest value of a channel.
pub(super) fn value(values: &Values, id: InstrumentId, channel: Channel) -> Option<&Tick> {
    values.get(id.index())?[channel as usize].as_ref()
}

/// A place in captures, and all that is known there: from here one can go on as if one had come from the start.
pub(super) struct Checkpoint {
    places: Places,
    /// Bytes of text before it.
    pub(super) text_bytes: u64,
    /// Everything received up to this time, and nothing later, was taken in; but perhaps not all that was received then.
    pub(super) last_ns: u64,
    ticks: u64,
    memories: Vec<Memory>,
    market: Market,
    values: Values,
}

impl Checkpoint {
    /// Bytes of memory that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let memories: usize = self.memories.iter().map(Memory::bytes).sum();
        memories + self.market.bytes() + self.values.len() * size_of::<[Option<Tick>; 2]>()
    }
}
