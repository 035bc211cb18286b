//! Captures: recorded market data frames, read from files and written to them.
//!
//! A capture is a text file with one frame a line and the time it was received in front. Three forms
//! are in use and told apart by looking, never by the file's name ([`Form`]); each may be plain, gzip
//! or zstd. The gateway writes one of them, the tardis slice ([`Writer`]); while it runs, in segments that
//! survive a kill ([`SegmentWriter`]). A folder of segments is read as one capture.
//!
//! [`Reader`] yields the records of one file in the order of its lines, [`Merged`] those of many files
//! by receive time. Both stream: what they hold does not grow with the files. A line that cannot be
//! read is a [`BadLine`] in its place, and the rest is read all the same.
//!
//! A [`Catalog`] is a folder of captures that are asked for by name.

mod catalog;
mod form;
mod lines;
mod merged;
mod reader;
mod segment;
mod source;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::text::printable;
use crate::time::rfc3339;
use crate::venue::{Evidence, Wire};

pub use catalog::{Catalog, CatalogEntry, Listing};
pub(crate) use form::in_range;
pub use form::{Form, Unit};
pub use lines::LINE_BYTES_MAX;
pub use merged::{Merged, Places, STEP_BACK_NS, SourcePlace};
pub use reader::{Capture, Place, Reader};
pub use segment::{BLOCK_BYTES_MAX, Block, Index, SegmentWriter, segment_name, segments};
pub use writer::{Compression, Writer};

/// One line of a capture that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Number of the line in its file, from 1.
    pub line: u64,
    /// When it was received, nanoseconds since the Unix epoch, as recorded. A line that has no time of
    /// its own (a tardis disconnect) carries that of the line before it, or at the start that of the first that has one.
    pub rx_ns: u64,
    /// What was recorded.
    pub kind: Kind<'a>,
}

/// What a [`Record`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A message of the venue, byte for byte. It may be empty, and need not be UTF-8.
    Frame(&'a [u8]),
    /// A connection to this URL was made.
    Connected(&'a str),
    /// A message that was sent to the venue: no data.
    Sent(&'a [u8]),
    /// The connection was lost: what is missing before the next frame is unknown.
    Disconnected,
    /// Here one capture went on from another, and something may be missing between them.
    Joined,
    /// The recorder could not keep up, or not write: here so many frames are missing that the gateway had.
    Dropped {
        /// How many; 0 where only a note is missing.
        frames: u64,
    },
    /// A file of a recording begins.
    Segment(Segment),
    /// Another remark of the recorder, the whole line: no data.
    Note(&'a [u8]),
}

impl<'a> Kind<'a> {
    /// What it tells of the venue.
    fn evidence(self) -> Evidence<'a> {
        match self {
            Self::Frame(frame) => Evidence::Message(frame),
            Self::Connected(url) => Evidence::Connected(url),
            Self::Segment(segment) => Evidence::Noted(segment.venue),
            _ => Evidence::Nothing,
        }
    }
}

/// Which part of a recording a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// When the recorder started, nanoseconds since the Unix epoch: the name of its run.
    pub run_ns: u64,
    /// Which of the run's files of this feed line it is, from 1.
    pub number: u32,
    /// Whose messages it holds.
    pub venue: Option<Wire>,
    /// It goes on where what was read before ends. If not, anything may be missing.
    pub continues: bool,
}

impl Segment {
    /// Whether `next` is the segment behind this one, of the same run.
    pub fn precedes(&self, next: &Self) -> bool {
        self.run_ns == next.run_ns && self.number.checked_add(1) == Some(next.number)
    }
}

/// A capture that cannot be read or written at all.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file does not open.
    #[error("{}: cannot open the capture: {source}", printable::path(path))]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file opens, but gives not one line.
    #[error("{}: cannot read the capture: {source}", printable::path(path))]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system, or the decompressor, said.
        source: io::Error,
    },
    /// The file has nothing in it.
    #[error("{}: the capture is empty", printable::path(path))]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// It is a folder, but of no recording.
    #[error(
        "{}: a folder without segments (*.zst): name the folder of one feed line, or a file",
        printable::path(path)
    )]
    NoSegments {
        /// Which folder.
        path: PathBuf,
    },
    /// None of the first lines is in a known form.
    #[error(
        "{}: no capture: none of the first lines has a receive time in front, as in \
         `2021-04-17T16:43:37.4319360Z {{…}}`, `1618677817.431936: {{…}}` or `1618677817431936000 {{…}}`",
        printable::path(path)
    )]
    UnknownForm {
        /// Which file.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error("{}: cannot create the capture: {source}", printable::path(path))]
    Create {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A line that could not be read. Prints as `file:line: what was wrong`.
#[derive(Debug)]
pub struct BadLine {
    /// The file.
    pub path: Arc<Path>,
    /// Number of the line in it, from 1.
    pub line: u64,
    /// What was wrong.
    pub fault: Fault,
}

/// What was wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The line does not begin with a time in the form of its file.
    #[error("no receive time in the form of this capture ({0})")]
    NoTime(Form),
    /// A date or time of day that does not exist, or one outside of 1970 to 2554.
    #[error("a receive time that does not exist, or is out of range")]
    NoSuchTime,
    /// A receive time before 2000 or after 2199, a number in the unit that it would be read in. No capture is so old: it is a
    /// number in another unit than that of its capture, or was written by a clock that was not set.
    #[error("a receive time outside of the years 2000 to 2199{}", Read(*.0))]
    OutOfRange(Option<Unit>),
    /// The line is longer than [`LINE_BYTES_MAX`] and was skipped without being held.
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The gateway was killed while it wrote this file, or the file was spoilt: what is not whole was cut off.
    #[error("the recording is torn: its last {bytes} bytes, {}, are cut off", After(*.last_rx_ns))]
    Torn {
        /// How many bytes.
        bytes: u64,
        /// The newest receive time before them, nanoseconds since the Unix epoch; `None` where nothing is before them.
        last_rx_ns: Option<u64>,
    },
    /// The file broke off or could not be read any further. Nothing comes after this.
    #[error("cannot read any further: {0}")]
    Io(io::Error),
}

/// How a time was read that is out of range.
struct Read(Option<Unit>);

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |unit| write!(f, ", in {unit} as the times of this capture are"))
    }
}

/// What comes behind a time, as people read it.
struct After(Option<u64>);

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rx_ns) = self.0 else { return f.write_str("all of this file") };
        let mut text = b"after ".to_vec();
        rfc3339::write(rx_ns, rfc3339::FractionDigits::SevenOrNine, &mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl BadLine {
    /// Whether the capture is truncated here: what was to come is missing, to its end ([`Fault::Io`]) or, in a recording, to
    /// the next of its files ([`Fault::Torn`]).
    pub fn is_truncation(&self) -> bool {
        matches!(self.fault, Fault::Io(_) | Fault::Torn { .. })
    }

    /// Whether this ended the file: nothing comes after it.
    pub fn is_end(&self) -> bool {
        matches!(self.fault, Fault::Io(_))
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", printable::path(&self.path), self.line, self.fault)
    }
}

impl std::error::Error for BadLine {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Io(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
