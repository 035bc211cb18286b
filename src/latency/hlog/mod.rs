//! HdrHistogram's interval log, version 1.3 with V2 compressed histograms: a text line for each tag and interval, which
//! the tools of HdrHistogram in every language read. Format: `HistogramLogWriter` and `HistogramLogReader` of
//! <https://github.com/HdrHistogram/HdrHistogram>.
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
//! Timestamps count from `BaseTime`, to the millisecond. Everything is in whole nanoseconds here.

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

/// Writes an interval log. It writes line by line and does not flush: hand it something buffered.
pub struct Writer<W> {
    out: W,
    serializer: V2DeflateSerializer,
}

impl<W: Write> Writer<W> {
    /// Begins a log with its header. Intervals count from `start_ns`, nanoseconds since the Unix epoch; what is
    /// smaller than a millisecond is cut off.
    ///
    /// # Errors
    /// Output that cannot be written.
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

    /// Writes what was measured under `tag` in the `duration` that began `since_start` after the start of the log,
    /// values in nanoseconds.
    ///
    /// # Errors
    /// Output that cannot be written, or a tag that a log cannot hold: it must not have a comma, space or line break,
    /// nor more than [`TAG_BYTES_MAX`] bytes, nor be empty.
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

    /// Writes a comment line of ours, which other tools skip.
    ///
    /// # Errors
    /// Output that cannot be written, or a note that is longer than [`NOTE_BYTES_MAX`](note::NOTE_BYTES_MAX).
    pub fn note(&mut self, note: &Note) -> io::Result<()> {
        let line = note.line();
        if line.len() > note::NOTE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too long a note"));
        }
        self.out.write_all(&line)
    }

    /// Where it writes to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Gives back where it wrote to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

const LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// What was measured under one tag in one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The tag, whoever made it; "" where there is none.
    pub tag: String,
    /// When it began, nanoseconds since the Unix epoch, or since whatever the log counts from if it does not say.
    pub start_ns: u64,
    /// How long it took, nanoseconds.
    pub duration_ns: u64,
    /// The values.
    pub histogram: Histogram<u64>,
}

/// What a log has to say, line by line.
#[derive(Clone, Debug)]
pub enum Entry {
    /// What was measured.
    Interval(Interval),
    /// A comment line of ours.
    Note(Box<Note>),
}

/// Why the next entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A line that is wrong; the next one may be read.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be read on.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The longest line that is read, bytes.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// The longest tag, bytes.
pub const TAG_BYTES_MAX: usize = 128;
/// The longest histogram once it is unpacked, bytes. The counts that it declares take at most 50 MB beside it.
pub const PLAIN_BYTES_MAX: u64 = 16 << 20;
/// Most values that one histogram may count, so that sums neither overflow nor get lost in a float.
pub const COUNT_MAX: u64 = 1 << 53;

/// A year, as the format uses it to guess what timestamps count from.
const YEAR_NS: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// Reads an interval log line by line, holding one line and one histogram.
pub struct Reader<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    start_ns: Option<u64>,
    base_ns: Option<u64>,
    torn_line: Option<u64>,
    decoder: Decoder,
}

impl<R: BufRead> Reader<R> {
    /// Reads from here.
    pub fn new(input: R) -> Self {
        let decoder = Decoder { packed: Vec::new(), plain: Vec::new(), v2: Deserializer::new() };
        Self { input, line: Vec::new(), number: 0, start_ns: None, base_ns: None, torn_line: None, decoder }
    }

    /// The number of the last line, if it was cut off: it has no line break and cannot be read. Whoever was writing
    /// it had no time to end it.
    pub fn torn_line(&self) -> Option<u64> {
        self.torn_line
    }

    /// The next interval, or `None` at the end. Notes are passed over.
    ///
    /// # Errors
    /// [`ReadError`], as of [`next_entry`](Self::next_entry).
    pub fn next_interval(&mut self) -> Result<Option<Interval>, ReadError> {
        loop {
            match self.next_entry()? {
                Some(Entry::Note(_)) => {}
                Some(Entry::Interval(interval)) => return Ok(Some(interval)),
                None => return Ok(None),
            }
        }
    }

    /// The next interval or note, or `None` at the end. After [`ReadError::Line`] it goes on with the line after it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
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

    /// Reads a line; false if it ends without a line break, `None` at the end.
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

    fn parse(&mut self) -> Result<Option<Entry>, String> {
        if self.line.trim_ascii().is_empty() {
            return Ok(None);
        }
        if let Some(note) = Note::read(&self.line)? {
            return Ok(Some(Entry::Note(Box::new(note))));
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
        // The format's own rule: without a base, stamps that are far smaller than the start count from it.
        let base_ns =
            self.base_ns.or_else(|| self.start_ns.filter(|start| stamp_ns < start.saturating_sub(YEAR_NS)));
        Ok(Some(Entry::Interval(Interval {
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

/// Unpacks histograms on buffers that are used again. It trusts nothing that it reads: the library panics, overflows or
/// takes as much memory as the bytes tell it to where this looks first.
struct Decoder {
    packed: Vec<u8>,
    plain: Vec<u8>,
    v2: Deserializer,
}

/// The first four bytes of a V2 histogram, and of one that is compressed.
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

    /// Decompresses what was compressed.
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

    /// Looks at the header and at the counts.
    fn check(&self) -> Result<(), String> {
        let Some((header, counts)) = self.plain.split_first_chunk::<V2_HEADER_BYTES>() else {
            return Err("histogram: shorter than its header".to_owned());
        };
        let declared = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if declared as usize > counts.len() {
            return Err("histogram: shorter than it says".to_owned());
        }
        // The highest value, the lowest of its eight bytes left out: beyond 2^63 its arithmetic overflows.
        if header[24] >= 0x80 {
            return Err("histogram: its highest value is beyond 2^63".to_owned());
        }
        // The one number that has no negative, which it would take of it. No count comes near.
        if memmem::find(counts, &[0xff; 9]).is_some() {
            return Err("histogram: a run of zeros without end".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
