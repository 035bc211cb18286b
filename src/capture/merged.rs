//! Merges captures into one stream in the order of receive time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use super::reader::{Capture, CapturePlace, CaptureReader, Placed};
use super::{BadLine, Record, RecordFault};

/// A receive time that is at least this much earlier than the one before it in the same file, in nanoseconds,
/// is a step of the recorder's clock: times continue from there. After a smaller step back, the record keeps
/// its place in the file.
pub const STEP_BACK_NS: u64 = 1_000_000_000;

/// The records of several captures by receive time, whatever their forms.
///
/// Within a file the order of lines is kept even if its clock steps back: records are ordered by the latest
/// time in the file so far, and each keeps its own time. After a step of [`STEP_BACK_NS`] or more that time
/// advances with the clock. At equal times the file that was named first comes first, but a file that has not
/// begun comes after the others. So the order is the same in every run.
///
/// A bad line is returned in the place of its line.
///
/// A file is opened when its first record is due, and closed after its last one.
pub struct Merged {
    sources: Vec<Source>,
    /// The sources with a next item, by time and by the order at equal times; those that have begun come
    /// first.
    due: BinaryHeap<Reverse<(u64, bool, usize, usize)>>,
    /// The source of the last returned item: its buffer is borrowed until the next call.
    lent: Option<usize>,
    /// Sources that have ended and were not yet returned by [`take_ended`](Merged::take_ended), with their
    /// latest times.
    ended: Vec<(usize, u64)>,
    /// How far the clock stepped back before the last returned record, in nanoseconds.
    stepped_back_ns: u64,
}

/// A place between two records of merged captures: the place of each source.
pub type Places = Vec<SourcePlace>;

/// The place of one source of merged captures.
#[derive(Clone, Debug, Default)]
pub struct SourcePlace {
    at: Start,
    /// The latest receive time so far.
    key_ns: u64,
    /// The offset added to its receive times since its clock stepped back.
    offset_ns: u64,
}

#[derive(Clone, Debug, Default)]
enum Start {
    #[default]
    Ahead,
    At(CapturePlace),
    Ended {
        text_bytes: u64,
    },
}

struct Source {
    capture: Arc<Capture>,
    state: State,
    /// The latest receive time so far.
    key_ns: u64,
    offset_ns: u64,
    /// How far the clock stepped back before the next item.
    step_ns: u64,
}

enum State {
    /// It has not begun. A source that cannot be reopened, such as a pipe, is already open.
    Ahead(Option<Box<CaptureReader>>),
    Open {
        reader: Box<CaptureReader>,
        next: Option<Result<Placed, BadLine>>,
    },
    Ended {
        text_bytes: u64,
    },
}

impl Merged {
    /// Merges `readers`; their indices are the source numbers, and the order at equal times.
    pub fn new(readers: Vec<CaptureReader>) -> Self {
        let source = |reader: CaptureReader| Source {
            capture: Arc::clone(reader.capture()),
            key_ns: reader.rx_ns(),
            offset_ns: 0,
            step_ns: 0,
            state: State::Open { reader: Box::new(reader), next: None },
        };
        Self::of(readers.into_iter().map(source).collect())
    }

    /// Merges captures from their beginnings, each not before its time in `begin_ns`. Readers at the
    /// beginning of their captures are used instead of opening the files again.
    pub fn from_start(captures: &[Arc<Capture>], begin_ns: &[u64], readers: Vec<CaptureReader>) -> Self {
        let ahead = |(capture, begin_ns): (&Arc<Capture>, &u64)| {
            let source = Source::ahead(Arc::clone(capture));
            Source { key_ns: source.key_ns.max(*begin_ns), ..source }
        };
        let mut sources: Vec<Source> = captures.iter().zip(begin_ns).map(ahead).collect();
        for reader in readers {
            if let Some(source) = sources.iter_mut().find(|source| source.capture.path() == reader.path()) {
                source.state = State::Ahead(Some(Box::new(reader)));
            }
        }
        Self::of(sources)
    }

    /// Merges captures from [places](Self::places) in them.
    ///
    /// # Errors
    /// The index of the capture that cannot be opened, and the error of the system or the decompressor.
    pub fn resume(captures: &[Arc<Capture>], places: &Places) -> Result<Self, (usize, io::Error)> {
        let source = |(index, (capture, place)): (usize, (&Arc<Capture>, &SourcePlace))| {
            let ahead = Source::ahead(Arc::clone(capture));
            let state = match &place.at {
                Start::Ahead => State::Ahead(None),
                Start::At(place) => {
                    let reader = capture.read_from(place).map_err(|error| (index, error))?;
                    State::Open { reader: Box::new(reader), next: None }
                }
                Start::Ended { text_bytes } => State::Ended { text_bytes: *text_bytes },
            };
            Ok(Source { state, key_ns: place.key_ns, offset_ns: place.offset_ns, ..ahead })
        };
        let sources = captures.iter().zip(places).enumerate().map(source);
        sources.collect::<Result<_, _>>().map(Self::of)
    }

    fn of(sources: Vec<Source>) -> Self {
        let due = BinaryHeap::with_capacity(sources.len());
        let mut merged = Self { due, sources, lent: None, ended: Vec::new(), stepped_back_ns: 0 };
        // Captures that begin at the same time are ordered by path.
        let mut by_name: Vec<usize> = (0..merged.sources.len()).collect();
        by_name.sort_by(|a, b| merged.sources[*a].capture.path().cmp(merged.sources[*b].capture.path()));
        for (rank, index) in by_name.into_iter().enumerate() {
            match merged.sources[index].state {
                State::Ahead(_) => {
                    merged.due.push(Reverse((merged.sources[index].key_ns, true, rank, index)));
                }
                State::Open { .. } => merged.refill(index),
                State::Ended { .. } => {}
            }
        }
        merged
    }

    /// Returns the compressed bytes of the files read so far, and their total.
    pub fn progress(&self) -> (u64, u64) {
        let of = |source: &Source| match &source.state {
            State::Ahead(_) => (0, source.capture.bytes()),
            State::Open { reader, .. } => reader.progress(),
            State::Ended { .. } => (source.capture.bytes(), source.capture.bytes()),
        };
        self.sources.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Returns the current place, before the next record.
    pub fn places(&mut self) -> Places {
        self.return_lent();
        let place = |source: &Source| SourcePlace {
            at: match &source.state {
                State::Ahead(_) => Start::Ahead,
                State::Open { reader, .. } => Start::At(reader.before().clone()),
                State::Ended { text_bytes } => Start::Ended { text_bytes: *text_bytes },
            },
            key_ns: source.key_ns,
            // The step before the next record is detected again when it is read again.
            offset_ns: source.offset_ns.saturating_sub(source.step_ns),
        };
        self.sources.iter().map(place).collect()
    }

    /// Returns the bytes of text of all sources read so far.
    pub fn text_bytes(&self) -> u64 {
        let bytes = |source: &Source| match &source.state {
            State::Ahead(_) => 0,
            State::Open { reader, .. } => reader.before().text_bytes(),
            State::Ended { text_bytes } => *text_bytes,
        };
        self.sources.iter().map(bytes).sum()
    }

    /// Returns the due time of the next record: the latest receive time in its file up to it. `None` at the
    /// end.
    pub fn peek_ns(&mut self) -> Option<u64> {
        self.return_lent();
        self.due.peek().map(|Reverse((key_ns, ..))| *key_ns)
    }

    /// Returns the source of the next record, if that is its first.
    pub fn begins(&mut self) -> Option<usize> {
        self.return_lent();
        self.due.peek().and_then(|Reverse((_, is_ahead, _, index))| is_ahead.then_some(*index))
    }

    /// Returns true if a source has ended, or one begins with the next record.
    #[inline]
    pub fn has_news(&mut self) -> bool {
        self.begins().is_some() || !self.ended.is_empty()
    }

    /// Returns the sources that have ended since the last call, with their latest receive times.
    pub fn take_ended(&mut self) -> Vec<(usize, u64)> {
        self.return_lent();
        std::mem::take(&mut self.ended)
    }

    /// Returns how far the clock stepped back before the last returned record, in nanoseconds, if
    /// [`STEP_BACK_NS`] or more.
    pub fn stepped_back_ns(&self) -> Option<u64> {
        (self.stepped_back_ns > 0).then_some(self.stepped_back_ns)
    }

    /// Returns the next record, and the number of its source.
    pub fn next_record(&mut self) -> Option<(usize, Result<Record<'_>, BadLine>)> {
        self.return_lent();
        let index = loop {
            let Reverse((_, is_ahead, _, index)) = self.due.pop()?;
            if !is_ahead {
                break index;
            }
            if let Err(bad) = self.open(index) {
                return Some((index, Err(bad)));
            }
        };
        self.lent = Some(index);
        let source = &mut self.sources[index];
        self.stepped_back_ns = std::mem::take(&mut source.step_ns);
        let State::Open { reader, next } = &mut source.state else { return None };
        let item = next.take()?;
        Some((index, item.map(|placed| reader.record(&placed))))
    }

    fn open(&mut self, index: usize) -> Result<(), BadLine> {
        let source = &mut self.sources[index];
        let opened = match &mut source.state {
            State::Ahead(reader) => reader.take(),
            State::Open { .. } | State::Ended { .. } => None,
        };
        let opened =
            opened.map_or_else(|| source.capture.read_from(&CapturePlace::default()).map(Box::new), Ok);
        match opened {
            Ok(reader) => {
                source.state = State::Open { reader, next: None };
                self.refill(index);
                Ok(())
            }
            Err(error) => {
                source.state = State::Ended { text_bytes: 0 };
                self.ended.push((index, source.key_ns));
                let path = source.capture.path().into();
                Err(BadLine { path, line: 0, fault: RecordFault::Io(error) })
            }
        }
    }

    fn return_lent(&mut self) {
        if let Some(index) = self.lent.take() {
            self.refill(index);
        }
    }

    /// Reads the next item of a source and queues the source for it.
    fn refill(&mut self, index: usize) {
        let source = &mut self.sources[index];
        let State::Open { reader, next } = &mut source.state else { return };
        *next = reader.advance();
        match next {
            None => {
                source.state = State::Ended { text_bytes: reader.before().text_bytes() };
                self.ended.push((index, source.key_ns));
                return;
            }
            Some(Ok(placed)) => {
                let rx_ns = placed.rx_ns;
                source.came(rx_ns);
            }
            Some(Err(_)) => {}
        }
        self.due.push(Reverse((source.key_ns, false, index, index)));
    }
}

impl Source {
    fn ahead(capture: Arc<Capture>) -> Self {
        Self { key_ns: capture.first_ns(), capture, state: State::Ahead(None), offset_ns: 0, step_ns: 0 }
    }

    /// Updates the order for the receive time of the next record.
    #[inline]
    fn came(&mut self, rx_ns: u64) {
        // The clock was corrected.
        if self.offset_ns > 0 && rx_ns >= self.key_ns {
            self.offset_ns = 0;
        }
        let mut at_ns = rx_ns.saturating_add(self.offset_ns);
        if self.key_ns.saturating_sub(at_ns) >= STEP_BACK_NS {
            self.step_ns = self.key_ns - at_ns;
            self.offset_ns += self.step_ns;
            at_ns = self.key_ns;
        }
        self.key_ns = self.key_ns.max(at_ns);
    }
}
