//! Writes captures.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::write::GzEncoder;

use super::CaptureError;
use crate::time::rfc3339::{self, FractionDigits};

/// The compression of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Uncompressed text.
    Plain,
    /// gzip, level 6.
    Gzip,
    /// zstd at this level: 1 is the fastest, 19 the smallest and several hundred times slower.
    Zstd(i32),
}

impl Compression {
    /// zstd level 3, which keeps up with a live feed.
    pub const FAST: Self = Self::Zstd(3);
    /// zstd level 19, the smallest file that every zstd can read.
    pub const SMALL: Self = Self::Zstd(19);

    /// Returns the compression for the extension of a path: `.gz`, `.zst` ([`FAST`](Self::FAST)), otherwise
    /// plain text.
    pub fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::FAST,
            _ => Self::Plain,
        }
    }
}

/// Writes a capture in the tardis slice form: `2021-04-17T16:43:37.4319360Z {payload}` per line, and an empty
/// line for a disconnect. [`CaptureReader`](super::CaptureReader) reads it back, with full nanoseconds.
///
/// [`finish`](Self::finish) ends the file; without it a compressed file lacks its tail, and buffered lines
/// may be missing.
pub struct CaptureWriter<W: Write> {
    out: Output<W>,
    line: Vec<u8>,
}

/// Appends the line of a frame. Returns true if the frame had line breaks, each of which is replaced by a
/// space.
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

impl CaptureWriter<File> {
    /// Creates a file, compressed according to its extension ([`Compression::of_path`]).
    ///
    /// # Errors
    /// [`CaptureError::Create`] names the path.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        Self::create_with(path, Compression::of_path(path))
    }

    /// Creates a file with this compression.
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

impl<W: Write> CaptureWriter<W> {
    /// Returns a writer to `out` with this compression. It buffers its output.
    ///
    /// # Errors
    /// The I/O error if the compressor cannot be created, for example because of an invalid level.
    pub fn new(out: W, compression: Compression) -> io::Result<Self> {
        let out = BufWriter::with_capacity(128 << 10, out);
        let out = match compression {
            Compression::Plain => Output::Plain(out),
            Compression::Gzip => Output::Gzip(GzEncoder::new(out, flate2::Compression::default())),
            Compression::Zstd(level) => Output::Zstd(zstd::stream::write::Encoder::new(out, level)?),
        };
        Ok(Self { out, line: Vec::with_capacity(4096) })
    }

    /// Writes one frame received at `rx_ns` (nanoseconds since the Unix epoch). A line break within the
    /// payload would break the form: each `\n` and `\r` is written as a space, which is equivalent in JSON.
    /// All else is kept byte for byte.
    ///
    /// # Errors
    /// The I/O error of the write.
    pub fn frame(&mut self, rx_ns: u64, payload: &[u8]) -> io::Result<()> {
        self.line.clear();
        push_line(rx_ns, payload, &mut self.line);
        self.out.as_write().write_all(&self.line)
    }

    /// Writes the loss of the connection.
    ///
    /// # Errors
    /// The I/O error of the write.
    pub fn disconnected(&mut self) -> io::Result<()> {
        self.out.as_write().write_all(b"\n")
    }

    /// Passes everything so far to the operating system, at some cost in compression, so that it survives a
    /// crash of the process.
    ///
    /// # Errors
    /// The I/O error of the write.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.as_write().flush()
    }

    /// Ends the capture and returns the underlying writer.
    ///
    /// # Errors
    /// The I/O error of writing the rest.
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
