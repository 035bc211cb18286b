//! HdrHistogram's interval log, version 1.3 with V2 compressed histograms: a text line per tag and interval,
//! which the HdrHistogram tools of every language can read. Format: `HistogramLogWriter` and
//! `HistogramLogReader` of <https://github.com/HdrHistogram/HdrHistogram>.
//!
//! ```text
//! #[Histogram log format version 1.3]
//! #values: nanoseconds; Interval_Max: nanoseconds; times: seconds
//! #[StartTime: 1714564800.100 (seconds since epoch)]
//! #[BaseTime: 1714564800.100 (seconds since epoch)]
//! "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//! Tag=write/kraken/trade,1.000,1.000,48191.000,HISTFAAAAEl4nJNpmSzMwMDAzAAB…
//! ```
//!
//! Timestamps count from `BaseTime`, with millisecond resolution. All values are whole nanoseconds here.

pub mod note;

use std::io::{self, BufRead, Read, Write};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, IntervalLogWriterError, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializeError, V2DeflateSerializer};
use memchr::memmem;

use note::Note;

/// Writes an interval log line by line. It does not flush, and its output should be buffered.
pub struct HlogWriter<W> {
    out: W,
    serializer: V2DeflateSerializer,
}

impl<W: Write> HlogWriter<W> {
    /// Starts a log with its header. Intervals count from `start_ns`, in nanoseconds since the Unix epoch,
    /// truncated to milliseconds.
    ///
    /// # Errors
    /// The I/O error of the output.
    pub fn new(mut out: W, start_ns: u64) -> io::Result<Self> {
        let mut serializer = V2DeflateSerializer::new();
        let start = UNIX_EPOCH + Duration::from_millis(start_ns / 1_000_000);
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("values: nanoseconds; Interval_Max: nanoseconds; times: seconds")
            .with_start_time(start)
            .with_base_time(start)
            .begin_log_with(&mut out, &mut serializer)?;
        out.write_all(LEGEND.as_bytes())?;
        Ok(Self { out, serializer })
    }

    /// Writes the measurements under `tag` in the `duration` that began `since_start` after the start of the
    /// log, values in nanoseconds.
    ///
    /// # Errors
    /// The I/O error of the output, or an invalid tag: it must not contain a comma, space or line break, have
    /// more than [`TAG_BYTES_MAX`] bytes, or be empty.
    pub fn write(
        &mut self,
        tag: &str,
        since_start: Duration,
        duration: Duration,
        histogram: &Histogram<u64>,
    ) -> io::Result<()> {
        let fits = !tag.is_empty() && tag.len() <= TAG_BYTES_MAX && !tag.contains(char::is_control);
        let tag = Tag::new(tag).filter(|_| fits);
        let tag = tag.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a tag"))?;
        IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.out, &mut self.serializer)?
            .write_histogram(histogram, since_start, duration, Some(tag))
            .map_err(|error| match error {
                IntervalLogWriterError::IoError(error)
                | IntervalLogWriterError::SerializeError(V2DeflateSerializeError::IoError(error)) => error,
                other @ IntervalLogWriterError::SerializeError(_) => io::Error::other(other.to_string()),
            })
    }

    /// Writes a comment line in our format, which other tools skip.
    ///
    /// # Errors
    /// The I/O error of the output, or a note that is longer than [`NOTE_BYTES_MAX`](note::NOTE_BYTES_MAX).
    pub fn note(&mut self, note: &Note) -> io::Result<()> {
        let line = note.line();
        if line.len() > note::NOTE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the note is too long"));
        }
        self.out.write_all(&line)
    }

    /// Returns the output.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Returns the output, consuming the writer.
    pub fn into_inner(self) -> W {
        self.out
    }
}

const LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// The measurements under one tag in one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The tag, not necessarily one of ours; "" if there is none.
    pub tag: String,
    /// Its start in nanoseconds since the Unix epoch, or since the unknown base of a log without one.
    pub start_ns: u64,
    /// Its length in nanoseconds.
    pub duration_ns: u64,
    /// The values.
    pub histogram: Histogram<u64>,
}

/// An entry of a log.
#[derive(Clone, Debug)]
pub enum HlogEntry {
    /// Measurements.
    Interval(Interval),
    /// A comment line in our format.
    Note(Box<Note>),
}

/// Why the next entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An invalid line; the next one may be valid.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// The cause.
        why: String,
    },
    /// The file cannot be read further.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;
/// The longest decompressed histogram, in bytes. The counts that it declares take at most 50 MB in addition.
pub const PLAIN_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of values of one histogram, so that sums neither overflow nor lose precision in a float.
pub const COUNT_MAX: u64 = 1 << 53;

/// One year in nanoseconds, used by the format to infer the base of timestamps.
const YEAR_NS: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// Reads an interval log line by line, with one line and one histogram in memory.
pub struct HlogReader<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    start_ns: Option<u64>,
    base_ns: Option<u64>,
    torn_line: Option<u64>,
    decoder: Decoder,
}

impl<R: BufRead> HlogReader<R> {
    /// Returns a reader of `input`.
    pub fn new(input: R) -> Self {
        let decoder = Decoder { packed: Vec::new(), plain: Vec::new(), v2: Deserializer::new() };
        Self { input, line: Vec::new(), number: 0, start_ns: None, base_ns: None, torn_line: None, decoder }
    }

    /// Returns the number of the last line, if it was cut off: it has no line break and cannot be parsed. Its
    /// writer was stopped in the middle of it.
    pub fn torn_line(&self) -> Option<u64> {
        self.torn_line
    }

    /// Returns the next interval, or `None` at the end. Skips notes.
    ///
    /// # Errors
    /// [`ReadError`], as of [`next_entry`](Self::next_entry).
    pub fn next_interval(&mut self) -> Result<Option<Interval>, ReadError> {
        loop {
            match self.next_entry()? {
                Some(HlogEntry::Note(_)) => {}
                Some(HlogEntry::Interval(interval)) => return Ok(Some(interval)),
                None => return Ok(None),
            }
        }
    }

    /// Returns the next interval or note, or `None` at the end. After [`ReadError::Line`] the next call
    /// continues with the line after it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_entry(&mut self) -> Result<Option<HlogEntry>, ReadError> {
        while let Some(whole) = self.next_line()? {
            if !whole {
                self.line.push(b'\n');
            }
            match self.parse() {
                Ok(None) => {}
                Ok(Some(entry)) => return Ok(Some(entry)),
                Err(_) if !whole => self.torn_line = Some(self.number),
                Err(why) => return Err(ReadError::Line { line: self.number, why }),
            }
        }
        Ok(None)
    }

    /// Reads a line; returns false if it has no line break, `None` at the end.
    fn next_line(&mut self) -> Result<Option<bool>, ReadError> {
        self.line.clear();
        self.number += 1;
        self.input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.line)?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(true)),
            Some(_) if self.line.len() <= LINE_BYTES_MAX => Ok(Some(false)),
            Some(_) => {
                self.input.skip_until(b'\n')?;
                let why = format!("longer than {LINE_BYTES_MAX} bytes");
                Err(ReadError::Line { line: self.number, why })
            }
        }
    }

    fn parse(&mut self) -> Result<Option<HlogEntry>, String> {
        if self.line.trim_ascii().is_empty() {
            return Ok(None);
        }
        if let Some(note) = Note::read(&self.line)? {
            return Ok(Some(HlogEntry::Note(Box::new(note))));
        }
        let entry = IntervalLogIterator::new(&self.line).next().transpose();
        let interval =
            match entry.map_err(|_| "neither a comment nor `[Tag=…,]start,length,max,histogram`")? {
                None => return Ok(None),
                Some(LogEntry::StartTime(time)) => {
                    self.start_ns = Some(nanos(time)?);
                    return Ok(None);
                }
                Some(LogEntry::BaseTime(time)) => {
                    self.base_ns = Some(nanos(time)?);
                    return Ok(None);
                }
                Some(LogEntry::Interval(interval)) => interval,
            };
        let tag = interval.tag().map_or("", |tag| tag.as_str());
        if tag.len() > TAG_BYTES_MAX || tag.contains(char::is_control) {
            return Err(format!("a tag of more than {TAG_BYTES_MAX} bytes, or with control characters"));
        }
        let stamp_ns = nanos(interval.start_timestamp())?;
        // The rule of the format: without a base, timestamps far smaller than the start count from the start.
        let base_ns =
            self.base_ns.or_else(|| self.start_ns.filter(|start| stamp_ns < start.saturating_sub(YEAR_NS)));
        Ok(Some(HlogEntry::Interval(Interval {
            tag: tag.to_owned(),
            start_ns: base_ns.unwrap_or(0).checked_add(stamp_ns).ok_or("a time beyond the year 2554")?,
            duration_ns: nanos(interval.duration())?,
            histogram: self.decoder.histogram(interval.encoded_histogram().trim_ascii_end())?,
        })))
    }
}

fn nanos(time: Duration) -> Result<u64, String> {
    u64::try_from(time.as_nanos()).map_err(|_| "a time beyond the year 2554".to_owned())
}

/// Decodes histograms into reused buffers. The input is not trusted: without the checks here the library
/// would panic, overflow, or allocate whatever the bytes declare.
struct Decoder {
    packed: Vec<u8>,
    plain: Vec<u8>,
    v2: Deserializer,
}

/// The first four bytes of a V2 histogram, and of a compressed one.
const V2: [u8; 4] = 0x1c84_9313_u32.to_be_bytes();
const V2_COMPRESSED: [u8; 4] = 0x1c84_9314_u32.to_be_bytes();
/// Cookie, length of the counts, normalising offset, digits, lowest and highest value, ratio.
const V2_HEADER_BYTES: usize = 40;

impl Decoder {
    fn histogram(&mut self, text: &str) -> Result<Histogram<u64>, String> {
        self.packed.clear();
        BASE64.decode_vec(text, &mut self.packed).map_err(|error| format!("base64: {error}"))?;
        self.unpack()?;
        self.check()?;
        let histogram: Histogram<u64> =
            self.v2.deserialize(&mut self.plain.as_slice()).map_err(|error| format!("histogram: {error}"))?;
        if histogram.len() > COUNT_MAX {
            return Err(format!("histogram: it counts more than {COUNT_MAX} values"));
        }
        Ok(histogram)
    }

    /// Decompresses the histogram, if it is compressed.
    fn unpack(&mut self) -> Result<(), String> {
        self.plain.clear();
        let compressed = match self.packed.split_first_chunk::<4>() {
            Some((&V2_COMPRESSED, rest)) => rest,
            Some((&V2, _)) => {
                std::mem::swap(&mut self.plain, &mut self.packed);
                return Ok(());
            }
            _ => return Err("histogram: not of version 2".to_owned()),
        };
        let stream = compressed
            .split_first_chunk::<4>()
            .and_then(|(bytes, rest)| rest.get(..u32::from_be_bytes(*bytes) as usize));
        let stream = stream.ok_or("histogram: shorter than it says")?;
        ZlibDecoder::new(stream)
            .take(PLAIN_BYTES_MAX + 1)
            .read_to_end(&mut self.plain)
            .map_err(|error| format!("histogram: damaged: {error}"))?;
        if self.plain.len() as u64 > PLAIN_BYTES_MAX {
            return Err(format!("histogram: more than {PLAIN_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    /// Checks the header and the counts.
    fn check(&self) -> Result<(), String> {
        let Some((header, counts)) = self.plain.split_first_chunk::<V2_HEADER_BYTES>() else {
            return Err("histogram: shorter than its header".to_owned());
        };
        let declared = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if declared as usize > counts.len() {
            return Err("histogram: shorter than it says".to_owned());
        }
        // The most significant byte of the highest value: beyond 2^63 the library's arithmetic overflows.
        if header[24] >= 0x80 {
            return Err("histogram: its highest value is beyond 2^63".to_owned());
        }
        // The encoding of `i64::MIN`, which overflows when the library negates it. No valid count comes near it.
        if memmem::find(counts, &[0xff; 9]).is_some() {
            return Err("histogram: a run of zeros without end".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
