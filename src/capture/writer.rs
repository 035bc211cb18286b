//! Writing captures.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::write::GzEncoder;

use super::CaptureError;
use crate::time::rfc3339::{self, FractionDigits};

/// How a capture is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Text, as it is.
    Plain,
    /// gzip, at level 6.
    Gzip,
    /// zstd at this level: 1 is fastest, 19 smallest and some hundred times slower.
    Zstd(i32),
}

impl Compression {
    /// What keeps up with a live feed: level 3 of zstd.
    pub const FAST: Self = Self::Zstd(3);
    /// What makes the smallest file that every zstd can read: level 19.
    pub const SMALL: Self = Self::Zstd(19);

    /// What the extension of a path asks for: `.gz`, `.zst` ([`FAST`](Self::FAST)), or else plain text.
    pub fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::FAST,
            _ => Self::Plain,
        }
    }
}

/// Writes a capture in the tardis slice form: `2021-04-17T16:43:37.4319360Z {payload}` a line, and an
/// empty line for a disconnect. [`Reader`](super::Reader) reads it back, to the nanosecond.
///
/// [`finish`](Self::finish) ends the file; without it a compressed one lacks its tail, and what was
/// buffered may be missing.
pub struct Writer<W: Write> {
    out: Output<W>,
    line: Vec<u8>,
}

/// Appends the line of a frame, and says whether it had line breaks, each of which is a space now.
pub(super) fn push_line(rx_ns: u64, payload: &[u8], out: &mut Vec<u8>) -> bool {
    rfc3339::write(rx_ns, FractionDigits::SevenOrNine, out);
    out.push(b' ');
    let from = out.len();
    out.extend_from_slice(payload);
    let broken = memchr::memchr2(b'\n', b'\r', payload).is_some();
    if broken {
        for byte in &mut out[from..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    out.push(b'\n');
    broken
}

enum Output<W: Write> {
    Plain(BufWriter<W>),
    Gzip(GzEncoder<BufWriter<W>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<W>>),
}

impl Writer<File> {
    /// Creates a file, packed as its extension asks for ([`Compression::of_path`]).
    ///
    /// # Errors
    /// [`CaptureError::Create`] names the path.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        Self::create_with(path, Compression::of_path(path))
    }

    /// Creates a file, packed as told.
    ///
    /// # Errors
    /// [`CaptureError::Create`] names the path.
    pub fn create_with(path: impl AsRef<Path>, compression: Compression) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        File::create(path)
            .and_then(|file| Self::new(file, compression))
            .map_err(|source| CaptureError::Create { path: path.into(), source })
    }
}

impl<W: Write> Writer<W> {
    /// Writes to `out`, packed as told. The writer buffers by itself.
    ///
    /// # Errors
    /// When the compressor does not start, as with a level that it does not have.
    pub fn new(out: W, compression: Compression) -> io::Result<Self> {
        let out = BufWriter::with_capacity(128 << 10, out);
        let out = match compression {
            Compression::Plain => Output::Plain(out),
            Compression::Gzip => Output::Gzip(GzEncoder::new(out, flate2::Compression::default())),
            Compression::Zstd(level) => Output::Zstd(zstd::stream::write::Encoder::new(out, level)?),
        };
        Ok(Self { out, line: Vec::with_capacity(4096) })
    }

    /// Writes one frame, received at `rx_ns` (nanoseconds since the Unix epoch). A line break within
    /// the payload would break the form: each `\n` and `\r` is written as a space, which to JSON is
    /// the same. All else is kept byte for byte.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn frame(&mut self, rx_ns: u64, payload: &[u8]) -> io::Result<()> {
        self.line.clear();
        push_line(rx_ns, payload, &mut self.line);
        self.out.as_write().write_all(&self.line)
    }

    /// Writes that the connection was lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn disconnected(&mut self) -> io::Result<()> {
        self.out.as_write().write_all(b"\n")
    }

    /// Hands everything so far to the system, at some cost in compression: a reader that comes after a
    /// crash finds it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.as_write().flush()
    }

    /// Ends the capture and gives back what it was written to.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn finish(self) -> io::Result<W> {
        let out = match self.out {
            Output::Plain(out) => out,
            Output::Gzip(encoder) => encoder.finish()?,
            Output::Zstd(encoder) => encoder.finish()?,
        };
        out.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl<W: Write> Output<W> {
    fn as_write(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(out) => out,
            Self::Gzip(out) => out,
            Self::Zstd(out) => out,
        }
    }
}
