//! Reads one capture from its first line to its last.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::form::{Form, Layout, Parsed, Tag, Unit};
use super::lines::{Lines, Step, split};
use super::segment::{Starts, segments};
use super::source;
use super::{BadLine, CaptureError, Record, RecordFault, Segment};
use crate::venue::{Sniffed, WireFormat, sniff};

/// Maximum number of lines read to detect the format of a capture.
const SAMPLE_LINES_MAX: usize = 256;
/// Bytes of lines after which the detection stops reading.
const SAMPLE_BYTES_MAX: usize = 4 << 20;

/// An opened capture: enough to [read](Self::read_from) it again, from any place.
pub struct Capture {
    path: Arc<Path>,
    layout: Layout,
    venue: Sniffed,
    sample: Box<[u8]>,
    /// The sample is the whole capture.
    sample_is_whole: bool,
    /// The first receive time, in nanoseconds since the Unix epoch; also that of lines before it without a
    /// time.
    first_ns: u64,
    /// The size of the file in bytes, compressed.
    bytes: u64,
    starts: Starts,
}

/// The largest compressed file that is decompressed to find its end, in bytes.
const SEARCHED_BYTES_MAX: u64 = 16 << 20;

impl Capture {
    /// Returns the path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the records of the first lines (up to 256 of them, or about 4 MiB), without bad lines.
    pub fn sample(&self) -> impl Iterator<Item = Record<'_>> {
        sampled(self.layout, self.first_ns, &self.sample)
    }

    /// Returns the latest time at its end, in nanoseconds since the Unix epoch, if it can be found without
    /// reading the whole: not for a gzip or zstd stream.
    pub fn last_ns(&self) -> Option<u64> {
        source::last_ns(&self.path, self.layout)
    }

    /// Returns the first receive time, in nanoseconds since the Unix epoch; 0 if none of the first lines has
    /// one.
    pub fn first_ns(&self) -> u64 {
        self.first_ns
    }

    /// Returns the size of the file in bytes, compressed; 0 if it is not a file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the form of its lines.
    pub fn form(&self) -> Form {
        self.layout.form
    }

    /// Returns the detected venue, and how certain it is.
    pub fn venue(&self) -> Sniffed {
        self.venue
    }

    /// Returns the latest time in it, in nanoseconds since the Unix epoch, if its beginning or end reveals
    /// it.
    pub fn quick_end_ns(&self) -> Option<u64> {
        if self.sample_is_whole {
            return self.sample().map(|record| record.rx_ns).max();
        }
        if self.is_seekable() { self.last_ns() } else { None }
    }

    /// Returns the latest time in it, in nanoseconds since the Unix epoch: as [`last_ns`](Self::last_ns), and
    /// for a gzip or zstd stream by reading it, unless that would take long.
    pub fn end_ns(self: &Arc<Self>) -> Option<u64> {
        if !self.sample_is_whole && !self.is_seekable() {
            return None;
        }
        self.quick_end_ns().or_else(|| {
            let mut reader =
                (self.bytes <= SEARCHED_BYTES_MAX).then(|| self.read_from(&CapturePlace::default()))?.ok()?;
            let mut last_ns = None;
            while let Some(record) = reader.next_record() {
                last_ns = last_ns.max(record.ok().map(|record| record.rx_ns));
            }
            last_ns
        })
    }

    /// Returns true if it can be opened again: it is a file or a folder, not a pipe.
    pub fn is_seekable(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|meta| meta.is_file() || meta.is_dir())
    }

    /// Returns the same capture without its [`sample`](Self::sample), which may be large.
    pub fn without_sample(&self) -> Self {
        Self {
            path: Arc::clone(&self.path),
            sample: Box::default(),
            sample_is_whole: false,
            starts: Arc::clone(&self.starts),
            ..*self
        }
    }

    /// Reads it again from a place where a reader of it has been.
    ///
    /// # Errors
    /// The error of the system or the decompressor.
    pub fn read_from(self: &Arc<Self>, place: &CapturePlace) -> io::Result<CaptureReader> {
        let taken = Arc::new(AtomicU64::new(0));
        let (text, bytes) = source::open(&self.path, place.text, &self.starts, &taken)?;
        let rx_ns = if place.text == 0 { self.first_ns } else { place.rx_ns };
        let place = CapturePlace { rx_ns, ..place.clone() };
        Ok(CaptureReader {
            capture: Arc::clone(self),
            lines: Lines::new(text, place.text, place.lines),
            rx_ns,
            segment: place.segment,
            before: place,
            taken,
            bytes,
        })
    }
}

/// A place in a capture: between two lines.
#[derive(Clone, Debug, Default)]
pub struct CapturePlace {
    /// Bytes of text before it.
    text: u64,
    /// Lines before it.
    lines: u64,
    /// The receive time of the line before it, in nanoseconds since the Unix epoch; that of the first if
    /// there is none before.
    rx_ns: u64,
    /// The segment that contains it.
    segment: Option<Segment>,
}

impl CapturePlace {
    /// Returns the bytes of text before it.
    pub fn text_bytes(&self) -> u64 {
        self.text
    }
}

/// The records of one capture, in the order of its lines.
///
/// Its memory is one line, the sample of the first lines, and the state of the decompressor, whatever the
/// size of the file.
pub struct CaptureReader {
    capture: Arc<Capture>,
    lines: Lines,
    rx_ns: u64,
    /// The current segment.
    segment: Option<Segment>,
    /// The place of the last record advanced to.
    before: CapturePlace,
    /// Compressed bytes of the file read so far, and their total.
    taken: Arc<AtomicU64>,
    bytes: u64,
}

/// A record whose text is still in the buffer of its reader.
#[derive(Debug)]
pub(super) struct Placed {
    line: u64,
    pub(super) rx_ns: u64,
    parsed: Parsed,
    range: Range<usize>,
}

impl CaptureReader {
    /// Opens a capture, plain, gzip or zstd, or the folder of a recording, and detects form and venue from
    /// its first lines. Reading starts at the first line nevertheless.
    ///
    /// # Errors
    /// [`CaptureError`] names the path and the fault: it cannot be opened, is empty, or is not a capture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let failed = |source| CaptureError::Open { path: path.into(), source };
        let taken = Arc::new(AtomicU64::new(0));
        if path.is_dir() && segments(path).map_err(failed)?.is_empty() {
            return Err(CaptureError::NoSegments { path: path.into() });
        }
        let starts = Starts::default();
        let (text, bytes) = match source::open(path, 0, &starts, &taken) {
            Ok(opened) => opened,
            // Nothing was read, so opening failed.
            Err(source) if taken.load(Ordering::Relaxed) == 0 => return Err(failed(source)),
            Err(source) => return Err(CaptureError::Read { path: path.into(), source }),
        };
        Self::from_text(path, text, starts, taken, bytes)
    }

    /// Reads a capture that is not a file. `path` names it in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_read(
        path: impl AsRef<Path>,
        source: impl Read + Send + 'static,
    ) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let text = source::unpacked(source, 0);
        let text = text.map_err(|source| CaptureError::Read { path: path.into(), source })?;
        Self::from_text(path, text, Starts::default(), Arc::default(), 0)
    }

    fn from_text(
        path: &Path,
        text: Box<dyn Read + Send>,
        starts: Starts,
        taken: Arc<AtomicU64>,
        bytes: u64,
    ) -> Result<Self, CaptureError> {
        let path: Arc<Path> = path.into();
        let mut lines = Lines::new(text, 0, 0);
        let (whole, cut) = lines.preview(SAMPLE_LINES_MAX, SAMPLE_BYTES_MAX);
        let (sample, cut): (Box<[u8]>, Box<[u8]>) = (whole.into(), cut[..cut.len().min(64)].into());
        let Some(layout) = Layout::of(split(&sample).chain(split(&cut))) else {
            let blank = split(&sample).chain(split(&cut)).all(<[u8]>::is_empty);
            let path = path.to_path_buf();
            return Err(match lines.into_failure() {
                Some(source) => CaptureError::Read { path, source },
                None if blank => CaptureError::Empty { path },
                None => CaptureError::UnknownForm { path },
            });
        };
        let time = |line| layout.parse(line).ok()??.rx_ns;
        let first_ns = split(&sample).chain(split(&cut)).find_map(time).unwrap_or(0);
        let venue = sniff(sampled(layout, first_ns, &sample).map(|record| record.kind.evidence()));
        let sample_is_whole = cut.is_empty() && lines.is_previewed_whole();
        let capture = Capture { path, layout, venue, sample, sample_is_whole, first_ns, bytes, starts };
        let capture = Arc::new(capture);
        let before = CapturePlace { rx_ns: first_ns, ..CapturePlace::default() };
        Ok(Self { capture, lines, rx_ns: first_ns, segment: None, before, taken, bytes })
    }

    /// Returns the capture that it reads.
    pub fn capture(&self) -> &Arc<Capture> {
        &self.capture
    }

    /// Returns the path it was opened with.
    pub fn path(&self) -> &Path {
        &self.capture.path
    }

    /// Returns the form of its lines.
    pub fn form(&self) -> Form {
        self.capture.layout.form
    }

    /// Returns the unit of the receive times, the most frequent one in the first lines; `None` if they are
    /// dates.
    pub fn unit(&self) -> Option<Unit> {
        self.capture.layout.unit()
    }

    /// Returns the venue detected from the first lines.
    pub fn venue(&self) -> Option<WireFormat> {
        self.capture.venue.wire()
    }

    /// Returns the compressed bytes of the file read so far, and their total; 0 of 0 if it is not a file.
    pub fn progress(&self) -> (u64, u64) {
        (self.taken.load(Ordering::Relaxed).min(self.bytes), self.bytes)
    }

    /// Returns the receive time of the last record, in nanoseconds since the Unix epoch; before the first
    /// record, that of the first.
    pub(super) fn rx_ns(&self) -> u64 {
        self.rx_ns
    }

    /// Returns the records of the first lines (up to 256 of them, or about 4 MiB), without bad lines. It
    /// consumes nothing of [`next_record`](Self::next_record), and may be called at any time.
    pub fn sample(&self) -> impl Iterator<Item = Record<'_>> {
        self.capture.sample()
    }

    /// Returns the next record, or the fault of the next line. After a bad line the next ones follow, unless
    /// [`BadLine::is_end`].
    pub fn next_record(&mut self) -> Option<Result<Record<'_>, BadLine>> {
        Some(match self.advance()? {
            Ok(placed) => Ok(self.record(&placed)),
            Err(bad) => Err(bad),
        })
    }

    /// Advances to the next record and leaves its text in the buffer, for [`record`](Self::record).
    pub(super) fn advance(&mut self) -> Option<Result<Placed, BadLine>> {
        let (text, lines) = (self.lines.offset(), self.lines.number());
        self.before = CapturePlace { text, lines, rx_ns: self.rx_ns, segment: self.segment };
        loop {
            let fault = match self.lines.next() {
                Step::End => return None,
                Step::Failed(error) => RecordFault::Io(error),
                Step::TooLong => RecordFault::TooLong,
                Step::Line(range) => match self.capture.layout.parse(self.lines.bytes(range.clone())) {
                    Ok(None) => continue,
                    Err(fault) => fault,
                    Ok(Some(mut parsed)) => {
                        if let Tag::Segment(segment) = &mut parsed.tag {
                            segment.continues = self.continues(segment);
                            self.segment = Some(*segment);
                        }
                        self.rx_ns = parsed.rx_ns.unwrap_or(self.rx_ns);
                        let (line, rx_ns) = (self.lines.number(), self.rx_ns);
                        return Some(Ok(Placed { line, rx_ns, parsed, range }));
                    }
                },
            };
            let (path, line) = (Arc::clone(&self.capture.path), self.lines.number());
            return Some(Err(BadLine { path, line, fault }));
        }
    }

    /// Returns true if a segment follows the one before it, or is the first one read.
    fn continues(&self, next: &Segment) -> bool {
        self.segment.is_none_or(|before| before.precedes(next))
    }

    /// Returns the place of the record that the last [`advance`](Self::advance) reached, or the end.
    pub(super) fn before(&self) -> &CapturePlace {
        &self.before
    }

    /// Returns the record that the last [`advance`](Self::advance) reached.
    pub(super) fn record(&self, placed: &Placed) -> Record<'_> {
        let kind = placed.parsed.kind(self.lines.bytes(placed.range.clone()));
        Record { line: placed.line, rx_ns: placed.rx_ns, kind }
    }
}

/// Returns the records of a text of whole lines.
fn sampled(layout: Layout, first_ns: u64, text: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rx_ns = first_ns;
    split(text).zip(1..).filter_map(move |(text, line)| {
        let parsed = layout.parse(text).ok().flatten()?;
        rx_ns = parsed.rx_ns.unwrap_or(rx_ns);
        Some(Record { line, rx_ns, kind: parsed.kind(text) })
    })
}
