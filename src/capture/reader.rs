//! One capture, read from its first line to its last.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::form::{Form, Parsed, Tag};
use super::lines::{Lines, Step};
use super::segment::{self, Counted, Folder, Pieces};
use super::sniff;
use super::{BadLine, CaptureError, Fault, Record, Segment};
use crate::venue::Wire;

/// How many lines are looked at to find out what a capture is…
const SAMPLE_LINES_MAX: usize = 256;
/// …and after how many bytes of them it is enough.
const SAMPLE_BYTES_MAX: usize = 4 << 20;

/// The records of one capture, in the order of its lines.
///
/// Holds one line, the sample of the first lines, and the state of the decompressor, whatever the size
/// of the file.
pub struct Reader {
    path: Arc<Path>,
    lines: Lines,
    form: Form,
    venue: Option<Wire>,
    sample: Box<[u8]>,
    rx_ns: u64,
    /// The segment that is being read.
    segment: Option<Segment>,
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
        if path.is_dir() {
            let (folder, bytes) = Folder::open(path, Arc::clone(&taken)).map_err(failed)?;
            if folder.is_empty() {
                return Err(CaptureError::NoSegments { path: path.into() });
            }
            return Self::from_text(path, Box::new(folder), taken, bytes);
        }
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_or(0, |meta| meta.len());
        let text = unpacked(Counted { source: file, taken: Arc::clone(&taken) });
        let text = text.map_err(|source| CaptureError::Read { path: path.into(), source })?;
        Self::from_text(path, text, taken, bytes)
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
        let text = unpacked(source).map_err(|source| CaptureError::Read { path: path.into(), source })?;
        Self::from_text(path, text, Arc::default(), 0)
    }

    fn from_text(
        path: &Path,
        text: Box<dyn Read + Send>,
        taken: Arc<AtomicU64>,
        bytes: u64,
    ) -> Result<Self, CaptureError> {
        let path: Arc<Path> = path.into();
        let mut lines = Lines::new(text);
        let (whole, cut) = lines.preview(SAMPLE_LINES_MAX, SAMPLE_BYTES_MAX);
        let (sample, cut): (Box<[u8]>, Box<[u8]>) = (whole.into(), cut[..cut.len().min(64)].into());
        let form = split(&sample).chain([&*cut]).find_map(Form::of);
        let Some(form) = form else {
            let blank = split(&sample).chain([&*cut]).all(<[u8]>::is_empty);
            let path = path.to_path_buf();
            return Err(match lines.into_failure() {
                Some(source) => CaptureError::Read { path, source },
                None if blank => CaptureError::Empty { path },
                None => CaptureError::UnknownForm { path },
            });
        };
        let venue = sniff::venue(sampled(form, &sample).map(|record| record.kind));
        Ok(Self { path, lines, form, venue, sample, rx_ns: 0, segment: None, taken, bytes })
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How its lines are written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Whose messages it holds, as far as the first lines tell.
    pub fn venue(&self) -> Option<Wire> {
        self.venue
    }

    /// Bytes of the file that were read so far, as it is packed, and how many it has; 0 of 0 for what is no file.
    pub fn progress(&self) -> (u64, u64) {
        (self.taken.load(Ordering::Relaxed).min(self.bytes), self.bytes)
    }

    /// The records of the first lines (up to 256 of them, or about 4 MiB), bad lines left out. Looking
    /// at them takes nothing from [`next_record`](Self::next_record), and can be done at any time.
    pub fn sample(&self) -> impl Iterator<Item = Record<'_>> {
        sampled(self.form, &self.sample)
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
        loop {
            let fault = match self.lines.next() {
                Step::End => return None,
                Step::Failed(error) => Fault::Io(error),
                Step::TooLong => Fault::TooLong,
                Step::Line(range) => match self.form.parse(self.lines.bytes(range.clone())) {
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
            return Some(Err(BadLine { path: self.path.clone(), line: self.lines.number(), fault }));
        }
    }

    /// Whether a segment goes on where the one before it ends, or is the first that is read.
    fn continues(&self, next: &Segment) -> bool {
        self.segment.is_none_or(|before| {
            before.run_ns == next.run_ns && before.number.checked_add(1) == Some(next.number)
        })
    }

    /// The record that the last [`advance`](Self::advance) placed.
    pub(super) fn record(&self, placed: &Placed) -> Record<'_> {
        let kind = placed.parsed.kind(self.lines.bytes(placed.range.clone()));
        Record { line: placed.line, rx_ns: placed.rx_ns, kind }
    }
}

/// The source, decompressed if its first bytes say that it is compressed.
fn unpacked(mut source: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::with_capacity(12);
    source.by_ref().take(12).read_to_end(&mut magic)?;
    let kind = magic.clone();
    let whole = Cursor::new(magic).chain(source);
    let buffered = |whole| BufReader::with_capacity(128 << 10, whole);
    Ok(match *kind {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(buffered(whole))),
        _ if segment::is_segment(&kind) => Box::new(Pieces::new(buffered(whole))?),
        // A frame, or a skippable one in front of it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::new(whole)?)
        }
        _ => Box::new(whole),
    })
}

/// The lines of a text, without their line ends.
fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The records of a text that holds whole lines.
fn sampled(form: Form, text: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rx_ns = 0;
    split(text).zip(1..).filter_map(move |(text, line)| {
        let parsed = form.parse(text).ok().flatten()?;
        rx_ns = parsed.rx_ns.unwrap_or(rx_ns);
        Some(Record { line, rx_ns, kind: parsed.kind(text) })
    })
}
