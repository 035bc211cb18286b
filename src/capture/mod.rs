//! Captures: recorded market data frames, read from files and written to them.
//!
//! A capture is a text file with one frame per line, preceded by its receive time. Three forms are in use;
//! they are detected from the content, never from the file's name ([`Form`]). Each may be plain, gzip or
//! zstd. The gateway writes one of them, the tardis slice ([`CaptureWriter`]); while it runs, in segments that
//! survive a kill ([`SegmentWriter`]). A folder of segments is read as one capture.
//!
//! [`CaptureReader`] yields the records of one file in the order of its lines, [`Merged`] those of many files by
//! receive time. Both stream: their memory does not grow with the files. An unreadable line is returned as a
//! [`BadLine`] in its place, and the rest is read nevertheless.
//!
//! A [`Catalog`] is a folder of captures that are requested by name.

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
use crate::venue::{Evidence, WireFormat};

pub use catalog::{Catalog, CatalogEntry, Listing};
pub(crate) use form::in_range;
pub use form::{Form, Unit};
pub use lines::LINE_BYTES_MAX;
pub use merged::{Merged, Places, STEP_BACK_NS, SourcePlace};
pub use reader::{Capture, CapturePlace, CaptureReader};
pub use segment::{BLOCK_BYTES_MAX, SegmentBlock, SegmentIndex, SegmentWriter, segment_name, segments};
pub use writer::{CaptureWriter, Compression};

/// A record of a capture: one line that is not ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Number of the line in its file, from 1.
    pub line: u64,
    /// The recorded receive time, in nanoseconds since the Unix epoch. A line without a time (a tardis
    /// disconnect) has that of the line before it, or at the start that of the first line with one.
    pub rx_ns: u64,
    /// The content.
    pub kind: RecordKind<'a>,
}

/// The content of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind<'a> {
    /// A message of the venue, byte for byte. It may be empty, and need not be UTF-8.
    Frame(&'a [u8]),
    /// A connection to this URL was established.
    Connected(&'a str),
    /// A message sent to the venue, not market data.
    Sent(&'a [u8]),
    /// The connection was lost: what is missing before the next frame is unknown.
    Disconnected,
    /// Another capture continues here, and something may be missing before it.
    Joined,
    /// The recorder was too slow or could not write: frames that the gateway received are missing here.
    Dropped {
        /// The number of missing frames; 0 if only a note is missing.
        frames: u64,
    },
    /// The start of a file of a recording.
    Segment(Segment),
    /// Another remark of the recorder, the whole line; not market data.
    Note(&'a [u8]),
}

impl<'a> RecordKind<'a> {
    /// Returns what it reveals about the venue.
    fn evidence(self) -> Evidence<'a> {
        match self {
            Self::Frame(frame) => Evidence::Message(frame),
            Self::Connected(url) => Evidence::Connected(url),
            Self::Segment(segment) => Evidence::Noted(segment.venue),
            _ => Evidence::Nothing,
        }
    }
}

/// The position of a file in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// When the recorder started, in nanoseconds since the Unix epoch; identifies its run.
    pub run_ns: u64,
    /// The number of the file among the run's files of this feed line, from 1.
    pub number: u32,
    /// The venue format of its messages.
    pub venue: Option<WireFormat>,
    /// True if it continues what was read before. If not, anything may be missing.
    pub continues: bool,
}

impl Segment {
    /// Returns true if `next` is the segment after this one, of the same run.
    pub fn precedes(&self, next: &Self) -> bool {
        self.run_ns == next.run_ns && self.number.checked_add(1) == Some(next.number)
    }
}

/// A capture that cannot be read or written at all.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("{}: cannot open the capture: {source}", printable::path(path))]
    Open {
        /// The path.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The file can be opened, but not a single line read.
    #[error("{}: cannot read the capture: {source}", printable::path(path))]
    Read {
        /// The path.
        path: PathBuf,
        /// The error of the system or the decompressor.
        source: io::Error,
    },
    /// The file is empty.
    #[error("{}: the capture is empty", printable::path(path))]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// A folder that is not a recording.
    #[error(
        "{}: a folder without segments (*.zst): name the folder of one feed line, or a file",
        printable::path(path)
    )]
    NoSegments {
        /// The path.
        path: PathBuf,
    },
    /// None of the first lines has a known form.
    #[error(
        "{}: no capture: none of the first lines has a receive time in front, as in \
         `2021-04-17T16:43:37.4319360Z {{…}}`, `1618677817.431936: {{…}}` or `1618677817431936000 {{…}}`",
        printable::path(path)
    )]
    UnknownForm {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error("{}: cannot create the capture: {source}", printable::path(path))]
    Create {
        /// The path.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
}

/// An unreadable line. Its `Display` form is `file:line: fault`.
#[derive(Debug)]
pub struct BadLine {
    /// The file.
    pub path: Arc<Path>,
    /// Number of the line in it, from 1.
    pub line: u64,
    /// The fault.
    pub fault: RecordFault,
}

/// Why a line is unreadable.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    /// The line does not begin with a time in the form of its file.
    #[error("no receive time in the form of this capture ({0})")]
    NoTime(Form),
    /// A date or time of day that does not exist, or one outside of 1970 to 2554.
    #[error("a receive time that does not exist, or is out of range")]
    NoSuchTime,
    /// A receive time before 2000 or after 2199; for a number, the unit it was read in. No capture is that
    /// old: the number is in another unit than that of its capture, or the clock was not set.
    #[error("a receive time outside of the years 2000 to 2199{}", Read(*.0))]
    OutOfRange(Option<Unit>),
    /// The line is longer than [`LINE_BYTES_MAX`] and was skipped without being stored.
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The gateway was killed while it wrote this file, or the file is corrupt: the incomplete end was cut
    /// off.
    #[error("the recording is torn: its last {bytes} bytes, {}, are cut off", After(*.last_rx_ns))]
    Torn {
        /// The number of bytes cut off.
        bytes: u64,
        /// The newest receive time before them, in nanoseconds since the Unix epoch; `None` if nothing is
        /// before them.
        last_rx_ns: Option<u64>,
    },
    /// The file is cut off or cannot be read any further. Nothing follows.
    #[error("cannot read any further: {0}")]
    Io(io::Error),
}

/// Displays the unit in which an out-of-range time was read.
struct Read(Option<Unit>);

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |unit| write!(f, ", in {unit} as the times of this capture are"))
    }
}

/// Displays the position in a capture: after a time, or the whole file.
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
    /// Returns true if the capture is truncated here: everything to its end ([`RecordFault::Io`]) or, in a
    /// recording, to its next file ([`RecordFault::Torn`]) is missing.
    pub fn is_truncation(&self) -> bool {
        matches!(self.fault, RecordFault::Io(_) | RecordFault::Torn { .. })
    }

    /// Returns true if this ended the file: nothing follows.
    pub fn is_end(&self) -> bool {
        matches!(self.fault, RecordFault::Io(_))
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
            RecordFault::Io(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
