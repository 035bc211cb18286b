//! Captures and the lines that read them: the part of a replay that knows the order of records, not their
//! timing.

use std::path::PathBuf;
use std::sync::Arc;

use super::ReplayError;
use super::capture_files::{self, CaptureFiles};
use super::joins::Reads;
use crate::capture::{CaptureError, CaptureReader, Merged, Places, RecordKind, SourcePlace};
use crate::feed::line::{Line, LineLimits, Memory};
use crate::feed::sequencer::{LineId, Sequencer};
use crate::model::instrument::{InstrumentId, InstrumentTable};
use crate::model::tick::{Body, Channel, Tick};
use crate::text::printable;
use crate::venue::WireFormat;

/// Maximum number of captures kept open from the start; if there are more, each is reopened when its first
/// record is due.
const OPEN_MAX: usize = 16;

/// Captures, merged by receive time, and their lines.
pub(super) struct MergedCapture {
    pub(super) capture_files: Arc<CaptureFiles>,
    pub(super) merged: Merged,
    /// A line for each capture; those of captures that continue others stay unused.
    pub(super) lines: Vec<Line>,
    /// The assignment of captures to lines.
    pub(super) reads: Reads,
    /// Unreadable records, by source.
    pub(super) bad_lines: Vec<u64>,
    /// Whether the source was truncated, by source.
    pub(super) truncated: Vec<bool>,
    /// The number of trades, quotes and gaps so far, which is the number of the next.
    pub(super) ticks: u64,
}

/// The outcome of taking one record of a [`MergedCapture`].
pub(super) struct Taken {
    /// When it was received, or is stamped as received, in nanoseconds since the Unix epoch.
    pub(super) rx_ns: u64,
    /// How far the clock of its capture stepped back before it, in nanoseconds.
    pub(super) stepped_back_ns: Option<u64>,
    /// The fault of the record, as `file:line: what`.
    pub(super) bad: Option<String>,
}

impl MergedCapture {
    /// Opens captures and determines their venues and order.
    pub(super) fn open(
        files: &[PathBuf],
        venue: Option<WireFormat>,
        limits: &LineLimits,
        first: LineId,
    ) -> Result<(Self, Arc<CaptureFiles>), ReplayError> {
        if files.is_empty() {
            return Err(ReplayError::NoFiles);
        }
        let (mut captures, mut heads, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        let mut readers = Vec::new();
        for file in files {
            let reader = match CaptureReader::open(file) {
                // With one file per minute, some files are empty.
                Err(CaptureError::Empty { path }) if files.len() > 1 => {
                    empty.push(path);
                    continue;
                }
                other => other?,
            };
            heads.push(match reader.sample().next().map(|record| record.kind) {
                Some(RecordKind::Segment(segment)) => Some(segment),
                _ => None,
            });
            captures.push(Arc::clone(reader.capture()));
            if files.len() <= OPEN_MAX || !reader.capture().is_seekable() {
                readers.push(reader);
            }
        }
        if captures.is_empty() {
            return Err(CaptureError::Empty { path: files[0].clone() }.into());
        }
        let wires = capture_files::wires(&captures, venue)?;
        let begin_ns = capture_files::begin_ns(&captures, &wires);
        let primed = capture_files::primed(&captures, &wires);
        for (index, capture) in captures.iter_mut().enumerate() {
            if !primed.contains(&index) {
                *capture = Arc::new(capture.without_sample());
            }
        }
        let limits = limits.clone();
        let capture_files = Arc::new(CaptureFiles {
            captures,
            wires,
            begin_ns,
            heads,
            primed,
            empty,
            limits,
            first: first.0,
        });
        Ok((
            Self::on(
                &capture_files,
                Merged::from_start(&capture_files.captures, &capture_files.begin_ns, readers),
            ),
            capture_files,
        ))
    }

    fn on(capture_files: &Arc<CaptureFiles>, merged: Merged) -> Self {
        Self {
            merged,
            lines: capture_files.new_lines(),
            reads: Reads::new(capture_files.captures.len()),
            bad_lines: vec![0; capture_files.wires.len()],
            truncated: vec![false; capture_files.wires.len()],
            ticks: 0,
            capture_files: Arc::clone(capture_files),
        }
    }

    /// Restarts with the first record.
    ///
    /// # Errors
    /// The capture that no longer exists.
    pub(super) fn rewind(&mut self) -> Result<(), CaptureError> {
        for capture in &self.capture_files.captures {
            let path = capture.path();
            let gone = |source| CaptureError::Open { path: path.into(), source };
            std::fs::metadata(path).map_err(gone)?;
        }
        self.merged =
            Merged::from_start(&self.capture_files.captures, &self.capture_files.begin_ns, Vec::new());
        self.reads = Reads::new(self.capture_files.captures.len());
        self.ticks = 0;
        Ok(())
    }

    /// Primes the lines with the first frames of their captures: see [`Line::prime`].
    pub(super) fn prime(&mut self, sequencer: &mut Sequencer) {
        for index in &self.capture_files.primed {
            capture_files::prime(&mut self.lines[*index], &self.capture_files.captures[*index], sequencer);
        }
    }

    /// Returns the receive time of the next record by the clock of its capture; `None` at the end.
    #[inline]
    pub(super) fn next_ns(&mut self) -> Option<u64> {
        self.merged.peek_ns()
    }

    /// Takes the next record, and passes its ticks to `out`, with the number that each trade, quote and gap
    /// has in the captures. The record is stamped with `rx_ns`, or as recorded if that is `None`. `heard_ns`
    /// is steady time. Call it only if there is a next record.
    #[inline]
    pub(super) fn take(
        &mut self,
        rx_ns: Option<u64>,
        heard_ns: u64,
        sequencer: &mut Sequencer,
        mut out: impl FnMut(Option<u64>, &Tick),
    ) -> Taken {
        let ticks = &mut self.ticks;
        let mut numbered = |tick: &Tick| {
            if matches!(tick.body, Body::Status(_)) {
                return out(None, tick);
            }
            *ticks += 1;
            out(Some(*ticks - 1), tick);
        };
        let Self { capture_files, merged, lines, reads, bad_lines, truncated, .. } = self;
        if merged.has_news() {
            reads.update(capture_files, merged, lines, rx_ns, sequencer, &mut numbered);
        }
        let Some((source, record)) = merged.next_record() else {
            return Taken { rx_ns: 0, stepped_back_ns: None, bad: None };
        };
        let (line, bad_lines) = (&mut lines[reads.line(source)], &mut bad_lines[source]);
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                *bad_lines += 1;
                truncated[source] |= error.is_truncation();
                let bad = Some(error.to_string());
                return Taken { rx_ns: rx_ns.unwrap_or(0), stepped_back_ns: None, bad };
            }
        };
        let rx_ns = rx_ns.unwrap_or(record.rx_ns);
        let mut bad = None;
        match record.kind {
            RecordKind::Frame(frame) => {
                line.touch(heard_ns);
                if let Err(error) = line.frame(rx_ns, frame, sequencer, numbered) {
                    *bad_lines += 1;
                    bad = Some((record.line, error));
                }
            }
            RecordKind::Connected(to) => line.connected(rx_ns, to, sequencer, numbered),
            // What is missing is unknown, so books and sequences start anew.
            RecordKind::Disconnected | RecordKind::Dropped { .. } => {
                line.disconnected(rx_ns, sequencer, &mut numbered);
            }
            RecordKind::Joined => line.joined(rx_ns, sequencer, &mut numbered),
            RecordKind::Segment(segment) => {
                if !reads.continues(source, segment) {
                    line.disconnected(rx_ns, sequencer, &mut numbered);
                }
            }
            RecordKind::Sent(_) | RecordKind::Note(_) => {}
        }
        let stepped_back_ns = merged.stepped_back_ns();
        let path = || printable::path(&capture_files.captures[source].path()).to_string();
        let bad = bad.map(|(number, error)| format!("{}:{number}: {error}", path()));
        Taken { rx_ns, stepped_back_ns, bad }
    }
}

/// The newest trade and quote of each instrument, by instrument id.
pub(super) type Values = Vec<[Option<Tick>; 2]>;

/// A merged capture that is played without publishing, on a sequencer of its own, to compute the state at
/// some place.
pub(super) struct ShadowReplay {
    pub(super) merged_capture: MergedCapture,
    pub(super) sequencer: Sequencer,
    pub(super) values: Values,
    /// The newest receive time taken so far, in nanoseconds since the Unix epoch.
    pub(super) last_ns: u64,
}

impl ShadowReplay {
    /// Returns a shadow replay before the first record.
    pub(super) fn at_start(capture_files: &Arc<CaptureFiles>, table: &Arc<InstrumentTable>) -> Self {
        let mut merged_capture = MergedCapture::on(
            capture_files,
            Merged::from_start(&capture_files.captures, &capture_files.begin_ns, Vec::new()),
        );
        let mut sequencer = Sequencer::new(Arc::clone(table));
        merged_capture.prime(&mut sequencer);
        Self { merged_capture, sequencer, values: Values::new(), last_ns: 0 }
    }

    /// Returns a shadow replay at a checkpoint.
    pub(super) fn at(checkpoint: &Checkpoint, capture_files: &Arc<CaptureFiles>) -> Result<Self, String> {
        let mut merged_capture =
            MergedCapture::on(capture_files, capture_files.read_from(&checkpoint.places)?);
        merged_capture.ticks = checkpoint.ticks;
        merged_capture.reads.clone_from(&checkpoint.reads);
        for (line, memory) in merged_capture.lines.iter_mut().zip(&checkpoint.memories) {
            line.recall(memory.clone(), checkpoint.last_ns);
        }
        let (sequencer, values) = (checkpoint.sequencer.clone(), checkpoint.values.clone());
        Ok(Self { merged_capture, sequencer, values, last_ns: checkpoint.last_ns })
    }

    /// Takes the next record. Call it only if there is one.
    pub(super) fn step(&mut self) {
        let Self { merged_capture, sequencer, values, last_ns } = self;
        let next_ns = merged_capture.next_ns().unwrap_or(0);
        // Unreadable records are reported when they are played.
        let _ = merged_capture.take(None, 0, sequencer, |_, tick| keep(values, tick));
        *last_ns = (*last_ns).max(next_ns);
    }

    /// Returns a checkpoint of the current place.
    pub(super) fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint {
            places: self.merged_capture.merged.places(),
            text_bytes: self.merged_capture.merged.text_bytes(),
            last_ns: self.last_ns,
            ticks: self.merged_capture.ticks,
            reads: self.merged_capture.reads.clone(),
            memories: self.merged_capture.lines.iter().map(Line::memory).collect(),
            sequencer: self.sequencer.clone(),
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

/// Returns the newest value of a channel.
pub(super) fn value(values: &Values, id: InstrumentId, channel: Channel) -> Option<&Tick> {
    values.get(id.index())?[channel as usize].as_ref()
}

/// A place in the captures and the complete state there: playback from here equals playback from the start.
pub(super) struct Checkpoint {
    places: Places,
    /// Bytes of text before it.
    pub(super) text_bytes: u64,
    /// All records received before this time are included and none received after; of those received at this
    /// time perhaps only some.
    pub(super) last_ns: u64,
    ticks: u64,
    reads: Reads,
    memories: Vec<Memory>,
    sequencer: Sequencer,
    values: Values,
}

impl Checkpoint {
    /// Returns its approximate memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let memories: usize = self.memories.iter().map(Memory::bytes).sum();
        let places = self.places.len() * size_of::<SourcePlace>() + self.reads.bytes();
        places + memories + self.sequencer.bytes() + self.values.len() * size_of::<[Option<Tick>; 2]>()
    }
}
