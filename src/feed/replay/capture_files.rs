//! The captures of a replay: their venue formats, how they are reopened, and which are read before playback
//! starts.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::ReplayError;
use crate::capture::{Capture, Merged, Places, RecordKind, STEP_BACK_NS, Segment};
use crate::feed::line::{Line, LineLimits};
use crate::feed::sequencer::{LineId, Origin, Sequencer};
use crate::text::printable;
use crate::venue::{Sniffed, WireFormat};

/// How much later than the first capture another may begin to have its first frames read before playback
/// starts, in nanoseconds. Connections that were recorded in parallel begin within this time.
const PRIMED_NS: u64 = 10_000_000_000;
/// How many preceding captures are checked for one that ends where a capture begins.
const NEIGHBOURS: usize = 8;

/// The captures of a replay, and what is needed to read them again.
pub(super) struct CaptureFiles {
    pub(super) captures: Vec<Arc<Capture>>,
    pub(super) wires: Vec<WireFormat>,
    /// The earliest beginning of each, in nanoseconds since the Unix epoch.
    pub(super) begin_ns: Vec<u64>,
    /// The recording segment that each begins with.
    pub(super) heads: Vec<Option<Segment>>,
    /// Captures whose first frames are read before playback starts.
    pub(super) primed: Vec<usize>,
    /// Captures that are empty.
    pub(super) empty: Vec<PathBuf>,
    pub(super) limits: LineLimits,
    /// The number of the first line.
    pub(super) first: u32,
}

impl CaptureFiles {
    /// Returns the numbers of the lines.
    pub(super) fn lines(&self) -> Range<u32> {
        self.first..self.first + self.wires.len() as u32
    }

    /// Reads the captures again from these places on.
    ///
    /// # Errors
    /// The path of the capture that cannot be opened, and the cause.
    pub(super) fn read_from(&self, places: &Places) -> Result<Merged, String> {
        let named = |(index, error)| {
            let path = self
                .captures
                .get(index)
                .map(|capture: &Arc<Capture>| printable::path(&capture.path()).to_string());
            format!("{}: {error}", path.unwrap_or_default())
        };
        Merged::resume(&self.captures, places).map_err(named)
    }

    /// Returns true if the first frames of a capture are read before playback starts.
    pub(super) fn is_primed(&self, capture: usize) -> bool {
        self.primed.contains(&capture)
    }

    /// Returns new lines, one per capture.
    pub(super) fn new_lines(&self) -> Vec<Line> {
        let lines = self.lines().zip(&self.wires);
        let line = |(number, wire): (u32, &WireFormat)| {
            Line::new(LineId(number), Origin::Replay, *wire, self.limits.clone())
        };
        lines.map(line).collect()
    }
}

/// Primes a line with the first frames of its capture.
pub(super) fn prime(line: &mut Line, capture: &Capture, sequencer: &mut Sequencer) {
    for record in capture.sample() {
        if let RecordKind::Frame(frame) = record.kind {
            line.prime(frame, sequencer);
        }
    }
}

/// Returns the venue format of each capture. If the format of a capture is unclear, and all captures of the
/// same form with a known format agree, that one is used: the capture is probably a part of the same
/// recording.
pub(super) fn wires(
    captures: &[Arc<Capture>],
    venue: Option<WireFormat>,
) -> Result<Vec<WireFormat>, ReplayError> {
    let neighbours = |capture: &Capture| {
        let same = captures.iter().filter(|other| other.form() == capture.form());
        let mut sure = same.filter_map(|other| match other.venue() {
            Sniffed::Sure(wire) => Some(wire),
            _ => None,
        });
        let first = sure.next()?;
        sure.all(|wire| wire == first).then_some(first)
    };
    let is_binance = |wire: &WireFormat| matches!(wire, WireFormat::Binance | WireFormat::BinanceFutures);
    let wire = |capture: &Arc<Capture>| {
        let wire = venue.or_else(|| match capture.venue() {
            Sniffed::Sure(wire) => Some(wire),
            Sniffed::Likely(wire) => Some(neighbours(capture).filter(is_binance).unwrap_or(wire)),
            Sniffed::Unknown => neighbours(capture),
            Sniffed::Another => None,
        });
        wire.ok_or_else(|| ReplayError::NoVenue(capture.path().to_path_buf()))
    };
    captures.iter().map(wire).collect()
}

/// Returns the earliest beginning of each capture: its first record or, if another one of its venue ends less
/// than [`STEP_BACK_NS`] later, that end. Two consecutive files whose clock steps back a little at the cut
/// thus do not overlap.
pub(super) fn begin_ns(captures: &[Arc<Capture>], wires: &[WireFormat]) -> Vec<u64> {
    let mut begin_ns: Vec<u64> = captures.iter().map(|capture| capture.first_ns()).collect();
    if captures.len() < 2 {
        return begin_ns;
    }
    let mut order: Vec<usize> = (0..captures.len()).collect();
    order.sort_by_key(|index| captures[*index].first_ns());
    let ends: Vec<Option<u64>> = captures.iter().map(|capture| capture.quick_end_ns()).collect();
    for (at, index) in order.iter().enumerate() {
        let first_ns = captures[*index].first_ns();
        // Only the nearest few can have been recorded directly before it.
        for before in
            order[at.saturating_sub(NEIGHBOURS)..at].iter().filter(|other| wires[**other] == wires[*index])
        {
            let Some(end_ns) = ends[*before] else { continue };
            let overlap_ns = end_ns.saturating_sub(first_ns);
            let span_ns = end_ns.saturating_sub(captures[*before].first_ns());
            // Captures of parallel connections overlap for most of their time.
            if overlap_ns < STEP_BACK_NS && overlap_ns * 4 <= span_ns && ends[*index] > Some(end_ns) {
                begin_ns[*index] = begin_ns[*index].max(end_ns);
            }
        }
    }
    begin_ns
}

/// Returns the captures whose first frames are read before playback starts, in the order of their beginnings:
/// those that begin with the first one or shortly after, and continue none of the others.
pub(super) fn primed(captures: &[Arc<Capture>], wires: &[WireFormat]) -> Vec<usize> {
    let begin_ns = captures.iter().map(|capture| capture.first_ns()).min().unwrap_or(0);
    let is_early = |index: &usize| captures[*index].first_ns() - begin_ns <= PRIMED_NS;
    let mut early: Vec<usize> = (0..captures.len()).filter(is_early).collect();
    early.sort_by_key(|index| captures[*index].first_ns());
    // Only a capture that begins later can continue another.
    let ends: Vec<Option<u64>> = match early.len() {
        0 | 1 => vec![None; early.len()],
        _ => early.iter().map(|index| captures[*index].end_ns()).collect(),
    };
    let follows = |index: usize| {
        early.iter().zip(&ends).any(|(other, end_ns)| {
            *other != index
                && wires[*other] == wires[index]
                && end_ns.is_some_and(|end_ns| end_ns <= captures[index].first_ns())
        })
    };
    early.iter().copied().filter(|index| !follows(*index)).collect()
}
