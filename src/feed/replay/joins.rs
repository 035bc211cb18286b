//! Consecutive captures: one file per minute, or the segments of a recording. A capture that begins after
//! another one of its venue has ended continues it, on the same line.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::capture_files::{self, CaptureFiles};
use crate::capture::{CaptureReader, Merged, RecordKind, Segment};
use crate::feed::line::Line;
use crate::feed::sequencer::Sequencer;
use crate::model::tick::Tick;
use crate::venue::WireFormat;

/// Frames of a capture that are decoded to find the capture it continues.
const LOOKED_AT_MAX: usize = 64;
/// Maximum number of joins that are listed.
const JOINS_MAX: usize = 1_000;

/// A capture that continues another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The capture that ended.
    pub from: PathBuf,
    /// The capture that continues it.
    pub to: PathBuf,
    /// Nanoseconds between the last record of the one and the first of the other.
    pub pause_ns: u64,
    /// True if both are segments of one recording with none missing between: they are read as if they were
    /// one file. If false, something may be missing, and a book continues only if the venue's update ids or
    /// checksum prove that nothing is.
    pub is_seamless: bool,
}

/// The captures that have begun and ended, and the line that reads each.
#[derive(Clone)]
pub(super) struct Reads {
    sources: Vec<Read>,
    joins: Vec<Joined>,
}

/// A [`Join`], by index of the captures.
#[derive(Clone, Copy)]
struct Joined {
    from: usize,
    to: usize,
    pause_ns: u64,
    is_seamless: bool,
}

#[derive(Clone, Copy)]
struct Read {
    state: State,
    line: usize,
    /// The last segment read.
    segment: Option<Segment>,
    /// The latest receive time.
    last_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ahead,
    Open,
    /// It has ended, and another capture may continue it.
    Ended,
    /// Another capture has continued it, or none can.
    Over,
}

impl Reads {
    pub(super) fn new(captures: usize) -> Self {
        let read = |line| Read { state: State::Ahead, line, segment: None, last_ns: 0 };
        Self { sources: (0..captures).map(read).collect(), joins: Vec::new() }
    }

    /// Returns the line that reads a capture.
    #[inline]
    pub(super) fn line(&self, source: usize) -> usize {
        self.sources[source].line
    }

    /// Returns the captures that each line has read or will read, in order of their first record.
    pub(super) fn by_line(&self, capture_files: &CaptureFiles) -> BTreeMap<usize, Vec<usize>> {
        let mut lines: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (source, read) in self.sources.iter().enumerate() {
            lines.entry(read.line).or_default().push(source);
        }
        for sources in lines.values_mut() {
            sources.sort_by_key(|source| capture_files.captures[*source].first_ns());
        }
        lines
    }

    /// Returns the joins so far, the first [`JOINS_MAX`] of them.
    pub(super) fn joins(&self, capture_files: &CaptureFiles) -> Vec<Join> {
        let path = |capture: usize| capture_files.captures[capture].path().to_path_buf();
        let join = |Joined { from, to, pause_ns, is_seamless }: &Joined| Join {
            from: path(*from),
            to: path(*to),
            pause_ns: *pause_ns,
            is_seamless: *is_seamless,
        };
        self.joins.iter().map(join).collect()
    }

    /// Returns its memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.sources.len() * size_of::<Read>() + self.joins.len() * size_of::<Joined>()
    }

    /// Returns true if a segment is marked as continuing and follows the one that its line has read before,
    /// if any.
    pub(super) fn continues(&mut self, source: usize, segment: Segment) -> bool {
        let before = self.sources[source].segment.replace(segment);
        segment.continues && before.is_none_or(|before| before.precedes(&segment))
    }

    /// Handles captures that have ended, and the one that begins with the next record.
    #[cold]
    pub(super) fn update(
        &mut self,
        capture_files: &CaptureFiles,
        merged: &mut Merged,
        lines: &mut [Line],
        rx_ns: Option<u64>,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        let at_ns = rx_ns.or_else(|| merged.peek_ns()).unwrap_or(0);
        for (source, last_ns) in merged.take_ended() {
            let read = &mut self.sources[source];
            (read.state, read.last_ns) = (State::Ended, last_ns);
            lines[read.line].ended(at_ns, sequencer, &mut *out);
        }
        if let Some(source) = merged.begins() {
            self.begin(source, capture_files, lines, at_ns, sequencer, out);
        }
        // Lines of captures that no other capture can continue are disconnected.
        let ahead =
            self.sources.iter().zip(&capture_files.wires).filter(|(read, _)| read.state == State::Ahead);
        let ahead: HashSet<WireFormat> = ahead.map(|(_, wire)| *wire).collect();
        for (read, wire) in self.sources.iter_mut().zip(&capture_files.wires) {
            if read.state == State::Ended && !ahead.contains(wire) {
                read.state = State::Over;
                lines[read.line].disconnected(at_ns, sequencer, &mut *out);
            }
        }
    }

    /// Begins a capture: on the line of the one it continues, or on its own line.
    fn begin(
        &mut self,
        source: usize,
        capture_files: &CaptureFiles,
        lines: &mut [Line],
        at_ns: u64,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        self.sources[source].state = State::Open;
        let Some(before) = self.predecessor(source, capture_files, lines, sequencer) else {
            if !capture_files.is_primed(source)
                && let Ok(reader) = CaptureReader::open(capture_files.captures[source].path())
            {
                capture_files::prime(&mut lines[source], reader.capture(), sequencer);
            }
            return;
        };
        let Read { line, segment, last_ns, .. } = self.sources[before];
        self.sources[before].state = State::Over;
        (self.sources[source].line, self.sources[source].segment) = (line, segment);
        // Its own line may have been primed with its first frames.
        lines[source].hand_over_to(lines[line].id(), sequencer);
        let head = capture_files.heads[source];
        let is_seamless = segment.zip(head).is_some_and(|(before, head)| before.precedes(&head));
        // Between two segments it is known whether one is missing: see `continues`.
        if is_seamless {
            lines[line].resumed(at_ns, sequencer, out);
        } else if head.is_none() || segment.is_none() {
            lines[line].joined(at_ns, sequencer, out);
        }
        if self.joins.len() < JOINS_MAX {
            let pause_ns = capture_files.captures[source].first_ns().saturating_sub(last_ns);
            self.joins.push(Joined { from: before, to: source, pause_ns, is_seamless });
        }
    }

    /// Returns the capture that this one continues, among those of its venue that have ended: the segment
    /// before it; otherwise the one with the most content in common with its first frames; otherwise the one
    /// in the same folder with the most similar name; otherwise the one that ended last.
    fn predecessor(
        &self,
        source: usize,
        capture_files: &CaptureFiles,
        lines: &mut [Line],
        sequencer: &Sequencer,
    ) -> Option<usize> {
        let is_candidate = |other: &usize| {
            self.sources[*other].state == State::Ended
                && capture_files.wires[*other] == capture_files.wires[source]
        };
        let candidates: Vec<usize> = (0..self.sources.len()).filter(is_candidate).collect();
        let mut content = vec![0; candidates.len()];
        if candidates.len() > 1
            && let Ok(reader) = CaptureReader::open(capture_files.captures[source].path())
        {
            let frames = reader.sample().filter_map(|record| match record.kind {
                RecordKind::Frame(frame) => Some(frame),
                _ => None,
            });
            for frame in frames.take(LOOKED_AT_MAX) {
                for (content, other) in content.iter_mut().zip(&candidates) {
                    *content += lines[self.sources[*other].line].likeness(frame, sequencer);
                }
            }
        }
        let likeness = |other: usize, content: usize| {
            let (mine, theirs) =
                (capture_files.captures[source].path(), capture_files.captures[other].path());
            let same_folder = mine.parent() == theirs.parent();
            let segment = self.sources[other].segment.zip(capture_files.heads[source]);
            let precedes = segment.is_some_and(|(before, head)| before.precedes(&head));
            (
                precedes,
                content,
                same_folder,
                alike(mine, theirs),
                self.sources[other].last_ns,
                usize::MAX - other,
            )
        };
        let best =
            candidates.into_iter().zip(content).max_by_key(|(other, content)| likeness(*other, *content));
        best.map(|(other, _)| other)
    }
}

/// Returns the length in bytes of the common prefix of two file names.
fn alike(a: &Path, b: &Path) -> usize {
    let name =
        |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
    name(a).iter().zip(name(b)).take_while(|(a, b)| **a == *b).count()
}
