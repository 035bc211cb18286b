//! The text of a capture, from its beginning or from any place.
//!
//! A plain file and a recording can be read from any place: a recording from the piece that contains it,
//! found by the heads of the pieces. A gzip or zstd stream has to be decompressed and discarded up to the
//! place.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use flate2::bufread::MultiGzDecoder;

use super::form::{Layout, in_range};
use super::lines::split;
use super::segment::{self, Counted, Folder, Pieces, SegmentIndex, Starts, skip};

/// Bytes of a file that identify its format.
const MAGIC_BYTES: usize = 12;
/// How much of the end of a plain file is searched for its last time, in bytes: more than the longest line.
const TAIL_BYTES: u64 = 17 << 20;

/// The compression of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
    Segment,
}

impl Packing {
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            _ if segment::is_segment(magic) => Self::Segment,
            // A zstd frame, or a skippable one before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Returns the decompressed text of `source` after its first `text` bytes.
pub(super) fn unpacked(
    mut source: impl Read + Send + 'static,
    text: u64,
) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    source.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
    let packing = Packing::of(&magic);
    let whole = Cursor::new(magic).chain(source);
    let buffered = |whole| BufReader::with_capacity(128 << 10, whole);
    let mut unpacked: Box<dyn Read + Send> = match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(buffered(whole))),
        Packing::Segment => Box::new(Pieces::new(buffered(whole))?),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
        Packing::Plain => Box::new(whole),
    };
    skip(&mut unpacked, text)?;
    Ok(unpacked)
}

fn packing_of(file: &mut File) -> io::Result<Packing> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    file.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
    file.rewind()?;
    Ok(Packing::of(&magic))
}

/// Opens the text of a capture after its first `text` bytes. `taken` counts the bytes of the file read; the
/// second value is its size in bytes.
pub(super) fn open(
    path: &Path,
    text: u64,
    starts: &Starts,
    taken: &Arc<AtomicU64>,
) -> io::Result<(Box<dyn Read + Send>, u64)> {
    if path.is_dir() {
        let (folder, bytes) = Folder::open(path, text, starts.clone(), Arc::clone(taken))?;
        return Ok((Box::new(folder), bytes));
    }
    let mut file = File::open(path)?;
    let bytes = file.metadata().map_or(0, |meta| meta.len());
    let counted = |file| Counted { source: file, taken: Arc::clone(taken) };
    if text == 0 {
        return Ok((unpacked(counted(file), 0)?, bytes));
    }
    let packing = packing_of(&mut file)?;
    let text: Box<dyn Read + Send> = match packing {
        Packing::Plain => {
            file.seek(SeekFrom::Start(text))?;
            Box::new(counted(file))
        }
        Packing::Segment => Box::new(Pieces::begin_at(file, text, Arc::clone(taken))?),
        Packing::Gzip | Packing::Zstd => unpacked(counted(file), text)?,
    };
    Ok((text, bytes))
}

/// Returns the latest time at the end of a capture, in nanoseconds since the Unix epoch, if it can be found
/// without reading the whole.
pub(super) fn last_ns(path: &Path, layout: Layout) -> Option<u64> {
    if path.is_dir() {
        let segments = segment::segments(path).ok()?;
        return segments.iter().rev().find_map(|path| last_of_segment(path));
    }
    let mut file = File::open(path).ok()?;
    match packing_of(&mut file).ok()? {
        Packing::Plain => last_of_text(&mut file, layout),
        Packing::Segment => last_of_segment(path),
        Packing::Gzip | Packing::Zstd => None,
    }
}

fn last_of_segment(path: &Path) -> Option<u64> {
    let blocks = SegmentIndex::read(path).ok()??.blocks;
    blocks.iter().map(|block| block.last_rx_ns).filter(|rx_ns| in_range(*rx_ns)).max()
}

/// Searches a growing part of the end for a line with a time.
fn last_of_text(file: &mut File, layout: Layout) -> Option<u64> {
    let end = file.metadata().ok()?.len();
    let mut bytes = 64 << 10;
    loop {
        let from = end.saturating_sub(bytes);
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut tail = Vec::new();
        file.by_ref().take(bytes).read_to_end(&mut tail).ok()?;
        // The first line may be cut off.
        let whole = if from == 0 { 0 } else { memchr::memchr(b'\n', &tail).map_or(tail.len(), |at| at + 1) };
        let times = split(&tail[whole..]).filter_map(|line| layout.parse(line).ok()??.rx_ns);
        if let Some(last) = times.max() {
            return Some(last);
        }
        if from == 0 || bytes >= TAIL_BYTES {
            return None;
        }
        bytes *= 8;
    }
}
