//! Recordings: captures that are written while the gateway runs, of which a kill damages at most the end.
//!
//! A recording of a feed line is a folder of segments, `<time of the start>-<number>.zst`. A segment is a
//! sequence of pieces, each a whole zstd frame or a skippable one (RFC 8878, 3.1.1 and 3.1.2), so any zstd
//! decompressor yields the tardis slice form, line by line:
//!
//! ```text
//! note    skippable frame 0x184D2A57: "TKFN" 'N' 0 0 0 | CRC-32 of the text | text: `# time what…`
//! block   skippable frame 0x184D2A57: "TKFN" 'B' 0 0 0 | first_rx_ns u64 | last_rx_ns u64 | lines u32
//!         | text_bytes u32 | packed_bytes u32 | CRC-32 of the 36 bytes before
//!         zstd frame of packed_bytes, with its checksum: the lines
//! ```
//!
//! Numbers are little-endian. The heads of the blocks are the index: each contains the time range of its
//! lines and the offset of the next piece, and is written with them. So there is no index at the end that a
//! kill would leave unwritten, and no second file that could disagree. A piece left incomplete by a kill is
//! detected by its length or its checksum.
//!
//! [`SegmentWriter`] writes the pieces, [`Pieces`] decodes them to text, with the notes as lines in their
//! place, and [`SegmentIndex`] reads the heads alone.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::lines::LINE_BYTES_MAX;
use super::writer;
use crate::text::printable;
use crate::time::rfc3339::{self, FractionDigits};

/// One of the sixteen magic numbers of skippable frames; 0x184D2A5E (seekable zstd) and 0x184D2A50 (pzstd)
/// are taken.
const MAGIC: [u8; 4] = 0x184D_2A57_u32.to_le_bytes();
const SIGNATURE: &[u8; 4] = b"TKFN";
const BLOCK: u8 = b'B';
const NOTE: u8 = b'N';
/// Bytes of magic number and size of a skippable frame.
const FRAME_HEAD_BYTES: usize = 8;
/// Bytes of the payload of a block's head.
const HEAD_BYTES: usize = 40;
/// Bytes before the text of a note.
const NOTE_HEAD_BYTES: usize = 12;
/// The longest note, in bytes of text.
const NOTE_BYTES_MAX: usize = 4_096;
/// The length of a block's text, in bytes, at which it is written at the latest.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// The longest text of a block, in bytes: a nearly full one followed by the longest line.
const TEXT_BYTES_MAX: usize = BLOCK_BYTES_MAX + LINE_BYTES_MAX + 64;

/// Writes the pieces of one segment. Added lines are buffered as text until [`flush`](Self::flush).
pub struct SegmentWriter<W: Write> {
    out: W,
    packer: zstd::bulk::Compressor<'static>,
    text: Vec<u8>,
    lines: u32,
    first_ns: u64,
    last_ns: u64,
    /// Reused buffers.
    packed: Vec<u8>,
    piece: Vec<u8>,
}

impl<W: Write> SegmentWriter<W> {
    /// Starts a segment; nothing is written yet. `level` is the zstd compression level, 1 to 19.
    ///
    /// # Errors
    /// The I/O error if the compressor cannot be created, for example because of an invalid level.
    pub fn new(out: W, level: i32) -> io::Result<Self> {
        let mut packer = zstd::bulk::Compressor::new(level)?;
        packer.include_checksum(true)?;
        Ok(Self {
            out,
            packer,
            text: Vec::new(),
            lines: 0,
            first_ns: u64::MAX,
            last_ns: 0,
            packed: Vec::new(),
            piece: Vec::new(),
        })
    }

    /// Adds a frame received at `rx_ns` (nanoseconds since the Unix epoch). Returns true if it had line
    /// breaks: each is replaced by a space. Nothing is written before [`flush`](Self::flush).
    pub fn frame(&mut self, rx_ns: u64, payload: &[u8]) -> bool {
        self.count(rx_ns);
        writer::push_line(rx_ns, payload, &mut self.text)
    }

    /// Adds the loss of the connection.
    pub fn disconnected(&mut self, rx_ns: u64) {
        self.count(rx_ns);
        self.text.push(b'\n');
    }

    fn count(&mut self, rx_ns: u64) {
        self.lines += 1;
        self.first_ns = self.first_ns.min(rx_ns);
        self.last_ns = self.last_ns.max(rx_ns);
    }

    /// Returns the bytes of text not yet written.
    pub fn pending_bytes(&self) -> usize {
        self.text.len()
    }

    /// Writes the buffered lines, then a remark about this moment. Line breaks in it become spaces, and text
    /// beyond 4 KiB is cut off. Returns the number of bytes written.
    ///
    /// # Errors
    /// The I/O error of the write.
    pub fn note(&mut self, rx_ns: u64, what: &str) -> io::Result<u64> {
        let before = self.flush()?;
        let mut text = b"# ".to_vec();
        rfc3339::write(rx_ns, FractionDigits::SevenOrNine, &mut text);
        text.push(b' ');
        text.extend(what.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        text.truncate(NOTE_BYTES_MAX);
        self.piece.clear();
        push_frame_head(NOTE, NOTE_HEAD_BYTES + text.len(), &mut self.piece);
        self.piece.extend_from_slice(&crc32fast::hash(&text).to_le_bytes());
        self.piece.extend_from_slice(&text);
        self.out.write_all(&self.piece)?;
        Ok(before + self.piece.len() as u64)
    }

    /// Writes the buffered lines as one block, in one write. Returns the number of bytes written.
    ///
    /// # Errors
    /// The I/O error of the write; the buffered lines are then lost.
    pub fn flush(&mut self) -> io::Result<u64> {
        if self.lines == 0 {
            return Ok(0);
        }
        let packed = self.pack();
        self.text.clear();
        // The memory for one long line is released again.
        self.text.shrink_to(2 * BLOCK_BYTES_MAX);
        (self.lines, self.first_ns, self.last_ns) = (0, u64::MAX, 0);
        packed?;
        self.out.write_all(&self.piece)?;
        let bytes = self.piece.len() as u64;
        self.piece.clear();
        self.piece.shrink_to(2 * BLOCK_BYTES_MAX);
        Ok(bytes)
    }

    /// Builds the block of the buffered text.
    fn pack(&mut self) -> io::Result<()> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.text.len()));
        let packed = self.packer.compress_to_buffer(&self.text, &mut self.packed)?;
        let piece = &mut self.piece;
        piece.clear();
        push_frame_head(BLOCK, HEAD_BYTES, piece);
        piece.extend_from_slice(&self.first_ns.to_le_bytes());
        piece.extend_from_slice(&self.last_ns.to_le_bytes());
        for number in [self.lines, self.text.len() as u32, packed as u32] {
            piece.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&piece[FRAME_HEAD_BYTES..]);
        piece.extend_from_slice(&crc.to_le_bytes());
        piece.extend_from_slice(&self.packed);
        self.packed.shrink_to(2 * BLOCK_BYTES_MAX);
        Ok(())
    }

    /// Writes the buffered lines and returns the underlying writer.
    ///
    /// # Errors
    /// The I/O error of the write.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.out)
    }
}

fn push_frame_head(kind: u8, payload_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[kind, 0, 0, 0]);
}

/// The head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    first_rx_ns: u64,
    last_rx_ns: u64,
    lines: u32,
    text_bytes: u32,
    packed_bytes: u32,
}

impl Head {
    /// Parses the payload of a skippable frame; `None` if it is not a head of ours, or corrupt.
    fn parse(payload: &[u8]) -> Option<Self> {
        let (head, crc) = payload.split_at_checked(HEAD_BYTES - 4)?;
        let is_head = is_kind(head, BLOCK) && crc == crc32fast::hash(head).to_le_bytes();
        let wide = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
        let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let parsed = Self {
            first_rx_ns: wide(8)?,
            last_rx_ns: wide(16)?,
            lines: number(24)?,
            text_bytes: number(28)?,
            packed_bytes: number(32)?,
        };
        let bounded = parsed.text_bytes as usize <= TEXT_BYTES_MAX
            && parsed.packed_bytes as usize <= zstd::zstd_safe::compress_bound(TEXT_BYTES_MAX);
        (is_head && bounded).then_some(parsed)
    }
}

/// Returns true if the payload of a skippable frame is ours, and of this kind.
fn is_kind(payload: &[u8], kind: u8) -> bool {
    payload.strip_prefix(SIGNATURE).is_some_and(|rest| rest.starts_with(&[kind, 0, 0, 0]))
}

/// Returns the text of a note from the payload of its frame.
fn note_text(payload: &[u8]) -> Option<&[u8]> {
    let (head, text) = payload.split_at_checked(NOTE_HEAD_BYTES)?;
    let is_note = is_kind(head, NOTE) && head[8..] == crc32fast::hash(text).to_le_bytes();
    is_note.then_some(text)
}

/// Returns true if a file with this beginning is a segment of a recording. 12 bytes are enough.
pub(super) fn is_segment(beginning: &[u8]) -> bool {
    beginning.starts_with(&MAGIC) && beginning.get(8..12) == Some(SIGNATURE)
}

/// Reads the text of a segment, with notes as lines in their places. At a torn or corrupt piece the text
/// ends, and its last line is a note with the number of bytes cut off.
pub(super) struct Pieces<R> {
    source: R,
    unpacker: zstd::bulk::Decompressor<'static>,
    packed: Vec<u8>,
    text: Vec<u8>,
    /// Bytes of the text already returned.
    given: usize,
    /// The newest time read.
    last_ns: u64,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    /// Reads a segment from its first piece.
    pub(super) fn new(source: R) -> io::Result<Self> {
        let unpacker = zstd::bulk::Decompressor::new()?;
        Ok(Self {
            source,
            unpacker,
            packed: Vec::new(),
            text: Vec::new(),
            given: 0,
            last_ns: 0,
            ended: false,
        })
    }

    /// Decodes the next piece. A torn one ends the text.
    fn advance(&mut self) -> io::Result<()> {
        self.text.clear();
        self.given = 0;
        let mut head = [0; FRAME_HEAD_BYTES];
        let mut seen = read_full(&mut self.source, &mut head)?;
        if seen == 0 {
            self.ended = true;
            return Ok(());
        }
        if seen < head.len() || !self.piece(head, &mut seen)? {
            let rest = io::copy(&mut self.source, &mut io::sink())?;
            self.text = b"# ".to_vec();
            rfc3339::write(self.last_ns, FractionDigits::SevenOrNine, &mut self.text);
            self.text.extend_from_slice(format!(" torn bytes={}\n", seen as u64 + rest).as_bytes());
            self.ended = true;
        }
        Ok(())
    }

    /// Reads the piece that begins with `head`; returns false if it is incomplete. `seen` counts its bytes.
    fn piece(&mut self, head: [u8; FRAME_HEAD_BYTES], seen: &mut usize) -> io::Result<bool> {
        let [magic @ .., a, b, c, d] = head;
        let payload_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        if magic != MAGIC || payload_bytes > NOTE_HEAD_BYTES + NOTE_BYTES_MAX {
            return Ok(false);
        }
        if !self.take_in(payload_bytes, seen)? {
            return Ok(false);
        }
        if let Some(note) = note_text(&self.packed) {
            let time = note.get(2..).and_then(|rest| rest.split(|b| *b == b' ').next());
            self.last_ns = time.and_then(|time| rfc3339::parse(time).ok()).unwrap_or(self.last_ns);
            self.text.extend_from_slice(note);
            self.text.push(b'\n');
            return Ok(true);
        }
        let Some(head) = Head::parse(&self.packed) else { return Ok(false) };
        if !self.take_in(head.packed_bytes as usize, seen)? {
            return Ok(false);
        }
        self.text.reserve(head.text_bytes as usize);
        let unpacked = self.unpacker.decompress_to_buffer(&self.packed, &mut self.text);
        if !unpacked.is_ok_and(|bytes| bytes == head.text_bytes as usize) {
            self.text.clear();
            return Ok(false);
        }
        self.last_ns = head.last_rx_ns;
        Ok(true)
    }

    /// Reads `bytes` bytes into `packed`; returns false if there are fewer.
    fn take_in(&mut self, bytes: usize, seen: &mut usize) -> io::Result<bool> {
        self.packed.resize(bytes, 0);
        let read = read_full(&mut self.source, &mut self.packed)?;
        *seen += read;
        Ok(read == bytes)
    }
}

impl Pieces<BufReader<Counted<File>>> {
    /// Reads the text of a segment after its first `text` bytes. `taken` counts the bytes of the file read or
    /// skipped.
    pub(super) fn begin_at(mut file: File, text: u64, taken: Arc<AtomicU64>) -> io::Result<Self> {
        let place = piece_at(&mut file, text)?;
        file.seek(SeekFrom::Start(place.offset))?;
        taken.fetch_add(place.offset, Ordering::Relaxed);
        let mut pieces = Self::new(BufReader::with_capacity(128 << 10, Counted { source: file, taken }))?;
        pieces.last_ns = place.last_ns;
        skip(&mut pieces, text - place.text)?;
        Ok(pieces)
    }
}

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            if self.ended {
                return Ok(0);
            }
            self.advance()?;
        }
        let n = out.len().min(self.text.len() - self.given);
        out[..n].copy_from_slice(&self.text[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// Discards this many bytes, or all there are.
pub(super) fn skip(source: &mut impl Read, bytes: u64) -> io::Result<()> {
    io::copy(&mut source.by_ref().take(bytes), &mut io::sink()).map(|_| ())
}

/// Fills the buffer as far as the source goes.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The offset of each segment's text in the text of a folder, as far as any reader has come. It is shared by
/// all readers of the folder, so that each can return to where another has been.
pub(super) type Starts = Arc<Mutex<Vec<u64>>>;

/// The text of all segments of a folder, in the order of their names, which is chronological.
pub(super) struct Folder {
    paths: VecDeque<PathBuf>,
    /// Segments opened or skipped.
    opened: usize,
    current: Option<Pieces<BufReader<Counted<File>>>>,
    /// Bytes of text so far, including skipped ones.
    given: u64,
    starts: Starts,
    taken: Arc<AtomicU64>,
}

impl Folder {
    /// Opens the text of a folder after its first `text` bytes; also returns the total bytes of its segments.
    /// `taken` counts the bytes read.
    pub(super) fn open(
        path: &Path,
        text: u64,
        starts: Starts,
        taken: Arc<AtomicU64>,
    ) -> io::Result<(Self, u64)> {
        let paths = segments(path)?;
        let bytes = paths.iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).sum();
        let known = starts.lock().map(|starts| starts.clone()).unwrap_or_default();
        let begun = known.iter().rposition(|start| *start <= text).filter(|at| *at < paths.len());
        let mut folder = Self { paths: paths.into(), opened: 0, current: None, given: 0, starts, taken };
        if let Some(at) = begun {
            folder.paths.drain(..at);
            (folder.opened, folder.given) = (at, known[at]);
        }
        if text > folder.given
            && let Some(path) = folder.paths.pop_front()
        {
            let file = File::open(&path).map_err(|error| named(&path, &error))?;
            let pieces = Pieces::begin_at(file, text - folder.given, Arc::clone(&folder.taken))?;
            (folder.opened, folder.given, folder.current) = (folder.opened + 1, text, Some(pieces));
        }
        Ok((folder, bytes))
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", printable::path(path)))
}

impl Read for Folder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(current) = &mut self.current {
                let n = current.read(out)?;
                if n > 0 || out.is_empty() {
                    self.given += n as u64;
                    return Ok(n);
                }
            }
            let Some(path) = self.paths.pop_front() else { return Ok(0) };
            if let Ok(mut starts) = self.starts.lock()
                && starts.len() == self.opened
            {
                starts.push(self.given);
            }
            self.opened += 1;
            let file = File::open(&path).map_err(|error| named(&path, &error))?;
            let file = Counted { source: file, taken: Arc::clone(&self.taken) };
            self.current = Some(Pieces::new(BufReader::with_capacity(128 << 10, file))?);
        }
    }
}

/// Returns the segments of a recording's folder, oldest first.
///
/// # Errors
/// The I/O error if the folder cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Returns the file name of a segment: the start of the recorder, and the number of the segment, from 1.
pub fn segment_name(run_ns: u64, number: u32) -> String {
    let mut time = Vec::new();
    rfc3339::write(run_ns, FractionDigits::Six, &mut time);
    format!("{}-{number:05}.zst", String::from_utf8_lossy(&time).replace(':', "-"))
}

/// A source that counts the bytes read from it.
pub(super) struct Counted<R> {
    pub(super) source: R,
    pub(super) taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(out)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A row of a [`SegmentIndex`]: the location of about 200 ms of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBlock {
    /// The offset of its head in the file. [`from_read`](super::CaptureReader::from_read) can start here.
    pub offset: u64,
    /// The earliest receive time in it, in nanoseconds since the Unix epoch.
    pub first_rx_ns: u64,
    /// The latest receive time in it, in nanoseconds since the Unix epoch.
    pub last_rx_ns: u64,
    /// Lines in it, including disconnects.
    pub lines: u32,
}

/// The time index of a segment, read from the heads of its blocks alone.
#[derive(Clone, Debug, Default)]
pub struct SegmentIndex {
    /// The blocks, in the order of the file.
    pub blocks: Vec<SegmentBlock>,
    /// Bytes of the file up to the end of the last whole piece.
    pub whole_bytes: u64,
    /// Bytes after it: the incomplete piece that a kill left.
    pub torn_bytes: u64,
}

impl SegmentIndex {
    /// Reads the index of a segment: about 100 bytes per block, and 24 bytes of memory for each, of which an
    /// hour has 18,000 at 200 ms. `None` if the file is not a segment.
    ///
    /// # Errors
    /// The I/O error if the file cannot be read.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        let mut index = Self::default();
        let mut piece = [0; FRAME_HEAD_BYTES + HEAD_BYTES];
        while index.whole_bytes < end {
            file.seek(SeekFrom::Start(index.whole_bytes))?;
            let read = read_full(&mut file, &mut piece)?;
            if index.whole_bytes == 0 && !is_segment(&piece[..read]) {
                return Ok(None);
            }
            let Some((next, head)) =
                following(&piece[..read], index.whole_bytes).filter(|(next, _)| *next <= end)
            else {
                break;
            };
            if let Some(Head { first_rx_ns, last_rx_ns, lines, .. }) = head {
                index.blocks.push(SegmentBlock { offset: index.whole_bytes, first_rx_ns, last_rx_ns, lines });
            }
            index.whole_bytes = next;
        }
        index.torn_bytes = end - index.whole_bytes;
        Ok(Some(index))
    }

    /// Returns the first block with a line of this time or later.
    pub fn at(&self, rx_ns: u64) -> Option<&SegmentBlock> {
        self.blocks.iter().find(|block| block.last_rx_ns >= rx_ns)
    }
}

/// The location of a piece of a segment.
struct PieceAt {
    /// Its offset in the file.
    offset: u64,
    /// Bytes of text before it.
    text: u64,
    /// The newest time before it.
    last_ns: u64,
}

/// Returns the piece that contains the text after the first `text` bytes of a segment, found by the heads;
/// the first incomplete one if there is less text.
fn piece_at(file: &mut File, text: u64) -> io::Result<PieceAt> {
    let end = file.metadata()?.len();
    let mut at = PieceAt { offset: 0, text: 0, last_ns: 0 };
    let mut piece = [0; FRAME_HEAD_BYTES + HEAD_BYTES];
    while at.offset < end {
        file.seek(SeekFrom::Start(at.offset))?;
        let read = read_full(file, &mut piece)?;
        let Some((next, head)) = following(&piece[..read], at.offset).filter(|(next, _)| *next <= end) else {
            break;
        };
        // A note is a line of its own.
        let note_bytes = || next - at.offset - (FRAME_HEAD_BYTES + NOTE_HEAD_BYTES) as u64 + 1;
        let behind = at.text + head.map_or_else(note_bytes, |head| u64::from(head.text_bytes));
        if behind > text {
            break;
        }
        at = PieceAt { offset: next, text: behind, last_ns: head.map_or(at.last_ns, |head| head.last_rx_ns) };
    }
    Ok(at)
}

/// Returns the end of the piece that begins with these bytes at `offset`, and its head if it is a block.
fn following(piece: &[u8], offset: u64) -> Option<(u64, Option<Head>)> {
    let payload = piece.get(FRAME_HEAD_BYTES..).filter(|_| is_segment(piece))?;
    let payload_bytes = u32::from_le_bytes(piece[4..8].try_into().ok()?);
    let end = offset + FRAME_HEAD_BYTES as u64 + u64::from(payload_bytes);
    if is_kind(payload, NOTE) {
        return Some((end, None));
    }
    let head = Head::parse(payload)?;
    Some((end + u64::from(head.packed_bytes), Some(head)))
}
