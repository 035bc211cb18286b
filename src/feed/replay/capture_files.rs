//! The captures of a replay: whose messages they hold, how they are opened again, and which of them begin it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::ReplayError;
use crate::capture::{Capture, Kind, Merged, Places, STEP_BACK_NS, Segment};
use crate::feed::line::{Line, LineLimits};
use crate::feed::sequencer::{LineId, Origin, Sequencer};
use crate::text::printable;
use crate::venue::{Sniffed, Wire};

/// How much later than the first capture others may begin, nanoseconds, whose lines look at their first frames before
/// anything is played: those of connections that were recorded side by side.
const PRIMED_NS: u64 = 10_000_000_000;
/// Captures that began before one and may end where it begins.
const NEIGHBOURS: usize = 8;

/// What is needed to read some captures again.
pub(super) struct CaptureFiles {
    pub(super) captures: Vec<Arc<Capture>>,
    pub(super) wires: Vec<Wire>,
    /// Before when each does not begin, nanoseconds since the Unix epoch.
    pub(super) begin_ns: Vec<u64>,
    /// The segment of a recording that each begins with.
    pub(super) heads: Vec<Option<Segment>>,
    /// Captures whose lines look at their first frames before anything is played.
    pub(super) primed: Vec<usize>,
    /// Captures that were named and are empty.
    pub(super) empty: Vec<PathBuf>,
    pub(super) limits: LineLimits,
    /// The number of the first line.
    pub(super) first: u32,
}

impl CaptureFiles {
    /// The numbers of the lines.
    pub(super) fn lines(&self) -> Range<u32> {
        self.first..self.first + self.wires.len() as u32
    }

    /// Reads the captures again from these places on.
    ///
    /// # Errors
    /// The capture that does not open, and why.
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

    /// Whether the line of a capture looks at its first frames before anything is played.
    pub(super) fn is_primed(&self, capture: usize) -> bool {
        self.primed.contains(&capture)
    }

    /// New lines.
    pub(super) fn new_lines(&self) -> Vec<Line> {
        let lines = self.lines().zip(&self.wires);
        let line = |(number, wire): (u32, &Wire)| {
            Line::new(LineId(number), Origin::Replay, *wire, self.limits.clone())
        };
        lines.map(line).collect()
    }
}

/// Lets a line look at the first frames of its capture.
pub(super) fn prime(line: &mut Line, capture: &Capture, sequencer: &mut Sequencer) {
    for record in capture.sample() {
        if let Kind::Frame(frame) = record.kind {
            line.prime(frame, sequencer);
        }
    }
}

/// Whose messages each capture holds. Where a capture does not tell, and all others of the same form that do agree, it holds
/// theirs: it is a part of what they are parts of.
pub(super) fn wires(captures: &[Arc<Capture>], venue: Option<Wire>) -> Result<Vec<Wire>, ReplayError> {
    let neighbours = |capture: &Capture| {
        let same = captures.iter().filter(|other| other.form() == capture.form());
        let mut sure = same.filter_map(|other| match other.venue() {
            Sniffed::Sure(wire) => Some(wire),
            _ => None,
        });
        let first = sure.next()?;
        sure.all(|wire| wire == first).then_some(first)
    };
    let is_binance = |wire: &Wire| matches!(wire, Wire::Binance | Wire::BinanceFutures);
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

/// Before when each capture does not begin: with its first record, or, where another one of its venue ends less than
/// [`STEP_BACK_NS`] later, behind that. A clock that goes back a little at the cut makes no overlap of two files.
pub(super) fn begin_ns(captures: &[Arc<Capture>], wires: &[Wire]) -> Vec<u64> {
    let mut begin_ns: Vec<u64> = captures.iter().map(|capture| capture.first_ns()).collect();
    if captures.len() < 2 {
        return begin_ns;
    }
    let mut order: Vec<usize> = (0..captures.len()).collect();
    order.sort_by_key(|index| captures[*index].first_ns());
    let ends: Vec<Option<u64>> = captures.iter().map(|capture| capture.quick_end_ns()).collect();
    for (at, index) in order.iter().enumerate() {
        let first_ns = captures[*index].first_ns();
        // More than a few were not recorded one after the other.
        for before in
            order[at.saturating_sub(NEIGHBOURS)..at].iter().filter(|other| wires[**other] == wires[*index])
        {
            let Some(end_ns) = ends[*before] else { continue };
            let overlap_ns = end_ns.saturating_sub(first_ns);
            let span_ns = end_ns.saturating_sub(captures[*before].first_ns());
            // Captures of connections side by side overlap for most of their time.
            if overlap_ns < STEP_BACK_NS && overlap_ns * 4 <= span_ns && ends[*index] > Some(end_ns) {
                begin_ns[*index] = begin_ns[*index].max(end_ns);
            }
        }
    }
    begin_ns
}

/// The captures whose lines look at their first frames before anything is played, in the order of their beginnings: those
/// that begin with the first one or shortly after it, and go on from none of the others.
pub(super) fn primed(captures: &[Arc<Capture>], wires: &[Wire]) -> Vec<usize> {
    let begin_ns = captures.iter().map(|capture| capture.first_ns()).min().unwrap_or(0);
    let is_early = |index: &usize| captures[*index].first_ns() - begin_ns <= PRIMED_NS;
    let mut early: Vec<usize> = (0..captures.len()).filter(is_early).collect();
    early.sort_by_key(|index| captures[*index].first_ns());
    // Only what begins later can go on from another.
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
