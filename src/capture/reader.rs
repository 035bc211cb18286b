//! One capture, read from its first line to its last.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::form::{Form, Layout, Parsed, Tag, Unit};
use super::lines::{Lines, Step, split};
use super::segment::{Starts, segments};
use super::source;
use super::{BadLine, CaptureError, Fault, Record, Segment};
use crate::venue::{Sniffed, Wire, sniff};

/// How many lines are looked at to find out what a capture is…
const SAMPLE_LINES_MAX: usize = 256;
/// …and after how many bytes of them it is enough.
const SAMPLE_BYTES_MAX: usize = 4 << 20;

/// What is known of a capture once it was opened: enough to [read](Self::read_from) it again, from any place on.
pub struct Capture {
    path: Arc<Path>,
    layout: Layout,
    venue: Sniffed,
    sample: Box<[u8]>,
    /// The sample is all there is.
    sample_is_whole: bool,
    /// The first time in it, nanoseconds since the Unix epoch; what comes before it and has none goes by it.
    first_ns: u64,
    /// Bytes of the file, as it is packed.
    bytes: u64,
    starts: Starts,
}

/// Bytes of a packed file that are unpacked to find its end.
const SEARCHED_BYTES_MAX: u64 = 16 << 20;

impl Capture {
    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records of the first lines (up to 256 of them, or about 4 MiB), bad lines left out.
    pub fn sample(&self) -> impl Iterator<Item = Record<'_>> {
        sampled(self.layout, self.first_ns, &self.sample)
    }

    /// The latest time at its end, nanoseconds since the Unix epoch, where it can be found without reading it: not in a
    /// gzip or zstd stream.
    pub fn last_ns(&self) -> Option<u64> {
        source::last_ns(&self.path, self.layout)
    }

    /// The first receive time, nanoseconds since the Unix epoch; 0 where none of the first lines has one.
    pub fn first_ns(&self) -> u64 {
        self.first_ns
    }

    /// Bytes of the file, as it is packed; 0 for what is no file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How its lines are written.
    pub fn form(&self) -> Form {
        self.layout.form
    }

    /// Whose messages it holds, and how sure that is.
    pub fn venue(&self) -> Sniffed {
        self.venue
    }

    /// The latest time in it, nanoseconds since the Unix epoch, where a look at its beginning or its end tells it.
    pub fn quick_end_ns(&self) -> Option<u64> {
        if self.sample_is_whole {
            return self.sample().map(|record| record.rx_ns).max();
        }
        if self.is_seekable() { self.last_ns() } else { None }
    }

    /// The latest time in it, nanoseconds since the Unix epoch: as [`last_ns`](Self::last_ns), and of a gzip or zstd
    /// stream by reading it, unless that would take long.
    pub fn end_ns(self: &Arc<Self>) -> Option<u64> {
        if !self.sample_is_whole && !self.is_seekable() {
            return None;
        }
        self.quick_end_ns().or_else(|| {
            let mut reader =
                (self.bytes <= SEARCHED_BYTES_MAX).then(|| self.read_from(&Place::default()))?.ok()?;
            let mut last_ns = None;
            while let Some(record) = reader.next_record() {
                last_ns = last_ns.max(record.ok().map(|record| record.rx_ns));
            }
            last_ns
        })
    }

    /// Whether it can be opened again: it is a file or a folder, no pipe.
    pub fn is_seekable(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|meta| meta.is_file() || meta.is_dir())
    }

    /// The same capture without its [`sample`](Self::sample), which may be large.
    pub fn without_sample(&self) -> Self {
        Self {
            path: Arc::clone(&self.path),
            sample: Box::default(),
            sample_is_whole: false,
            starts: Arc::clone(&self.starts),
            ..*self
        }
    }

    /// Reads it from a place on at which a reader of it has been.
    ///
    /// # Errors
    /// What the system or the decompressor says.
    pub fn read_from(self: &Arc<Self>, place: &Place) -> io::Result<Reader> {
        let taken = Arc::new(AtomicU64::new(0));
        let (text, bytes) = source::open(&self.path, place.text, &self.starts, &taken)?;
        let rx_ns = if place.text == 0 { self.first_ns } else { place.rx_ns };
        let place = Place { rx_ns, ..place.clone() };
        Ok(Reader {
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
pub struct Place {
    /// Bytes of text before it.
    text: u64,
    /// Lines before it.
    lines: u64,
    /// The receive time of the line before it, nanoseconds since the Unix epoch; that of the first where none is before it.
    rx_ns: u64,
    /// The segment it is in.
    segment: Option<Segment>,
}

impl Place {
    /// Bytes of text before it.
    pub fn text_bytes(&self) -> u64 {
        self.text
    }
}

/// The records of one capture, in the order of its lines.
///
/// Holds one line, the sample of the first lines, and the state of the decompressor, whatever the size
/// of the file.
pub struct Reader {
    capture: Arc<Capture>,
    lines: Lines,
    rx_ns: u64,
    /// The segment that is being read.
    segment: Option<Segment>,
    /// Where the record is that was advanced to last.
    before: Place,
    /// Bytes of the file that were read, packed, and how many it has.
    taken: Arc<AtomicU64>,
    bytes: u64,
}

/// A record whose text still lies in the buffer of its reader.
#[derive(Debug)]
pub(super) struct Placed {
    line: u64,
    pub(super) rx_ns: u64,
    parsed: Parsed,
    range: Range<usize>,
}

impl Reader {
    /// Opens a capture, plain, gzip or zstd, or the folder of a recording, and looks at its first lines to find its
    /// form and venue. Reading starts at the first line all the same.
    ///
    /// # Errors
    /// [`CaptureError`] names the path and what is wrong: it does not open, is empty, or is no capture.
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
            // Nothing was read: it did not even open.
            Err(source) if taken.load(Ordering::Relaxed) == 0 => return Err(failed(source)),
            Err(source) => return Err(CaptureError::Read { path: path.into(), source }),
        };
        Self::from_text(path, text, starts, taken, bytes)
    }

    /// Reads a capture that is no file. `path` is what it is called in errors.
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
        let before = Place { rx_ns: first_ns, ..Place::default() };
        Ok(Self { capture, lines, rx_ns: first_ns, segment: None, before, taken, bytes })
    }

    /// What it reads.
    pub fn capture(&self) -> &Arc<Capture> {
        &self.capture
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.capture.path
    }

    /// How its lines are written.
    pub fn form(&self) -> Form {
        self.capture.layout.form
    }

    /// The unit of the times in front of its lines, as most of the first ones tell it; `None` where they are dates.
    pub fn unit(&self) -> Option<Unit> {
        self.capture.layout.unit()
    }

    /// Whose messages it holds, as far as the first lines tell.
    pub fn venue(&self) -> Option<Wire> {
        self.capture.venue.wire()
    }

    /// Bytes of the file that were read so far, as it is packed, and how many it has; 0 of 0 for what is no file.
    pub fn progress(&self) -> (u64, u64) {
        (self.taken.load(Ordering::Relaxed).min(self.bytes), self.bytes)
    }

    /// The receive time of the last record, nanoseconds since the Unix epoch; before the first, the first one's.
    pub(super) fn rx_ns(&self) -> u64 {
        self.rx_ns
    }

    /// The records of the first lines (up to 256 of them, or about 4 MiB), bad lines left out. Looking
    /// at them takes nothing from [`next_record`](Self::next_record), and can be done at any time.
    pub fn sample(&self) -> impl Iterator<Item = Record<'_>> {
        self.capture.sample()
    }

    /// The next record, or what is wrong with the next line. After a line that could not be read the
    /// next ones follow, unless [`BadLine::is_end`].
    pub fn next_record(&mut self) -> Option<Result<Record<'_>, BadLine>> {
        Some(match self.advance()? {
            Ok(placed) => Ok(self.record(&placed)),
            Err(bad) => Err(bad),
        })
    }

    /// Goes on to the next record and leaves it in place, for [`record`](Self::record).
    pub(super) fn advance(&mut self) -> Option<Result<Placed, BadLine>> {
        let (text, lines) = (self.lines.offset(), self.lines.number());
        self.before = Place { text, lines, rx_ns: self.rx_ns, segment: self.segment };
        loop {
            let fault = match self.lines.next() {
                Step::End => return None,
                Step::Failed(error) => Fault::Io(error),
                Step::TooLong => Fault::TooLong,
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

    /// Whether a segment goes on where the one before it ends, or is the first that is read.
    fn continues(&self, next: &Segment) -> bool {
        self.segment.is_none_or(|before| before.precedes(next))
    }

    /// The place of the record that the last [`advance`](Self::advance) came to, or the end.
    pub(super) fn before(&self) -> &Place {
        &self.before
    }

    /// The record that the last [`advance`](Self::advance) placed.
    pub(super) fn record(&self, placed: &Placed) -> Record<'_> {
        let kind = placed.parsed.kind(self.lines.bytes(placed.range.clone()));
        Record { line: placed.line, rx_ns: placed.rx_ns, kind }
    }
}

/// The records of a text that holds whole lines.
fn sampled(layout: Layout, first_ns: u64, text: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rx_ns = first_ns;
    split(text).zip(1..).filter_map(move |(text, line)| {
        let parsed = layout.parse(text).ok().flatten()?;
        rx_ns = parsed.rx_ns.unwrap_or(rx_ns);
        Some(Record { line, rx_ns, kind: parsed.kind(text) })
    })
}
