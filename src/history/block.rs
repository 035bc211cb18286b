//! Blocks of consecutive ticks of the ring, in memory and in their file format.
//!
//! In a file the ticks are stored by column, the first words of all ticks before all second ones, and times
//! as differences from the one before: similar values next to each other compress best. The number of ticks
//! and their positions are stored in the index only.

use std::io;

use crate::model::tick::{Key, Tick, WORDS, Words};

/// The words of a tick that are times: `rx_ns` and `ts_us`.
const TIMES: [usize; 2] = [2, 3];
/// Bytes of a word.
const WORD_BYTES: usize = 8;
/// The fastest zstd level: the data lives for minutes, and compression may share a core with a shard.
const LEVEL: i32 = 1;

/// Consecutive ticks of the ring.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    first: u64,
    ticks: Box<[Words]>,
}

impl Block {
    /// Returns a block of the ticks from position `first` on.
    pub(super) fn new(first: u64, ticks: Box<[Words]>) -> Self {
        Self { first, ticks }
    }

    /// Returns the position of its first tick.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Returns the position after its last tick.
    pub fn end(&self) -> u64 {
        self.first + self.ticks.len() as u64
    }

    /// Returns the number of ticks.
    pub fn len(&self) -> usize {
        self.ticks.len()
    }

    /// Returns true if it has no ticks.
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    fn words(&self, position: u64) -> Option<&Words> {
        let at = position.checked_sub(self.first)?;
        self.ticks.get(usize::try_from(at).ok()?)
    }

    /// Returns the stream key of the tick at a position; `None` if the block does not contain it.
    pub fn key_at(&self, position: u64) -> Option<Key> {
        self.words(position).map(|words| Tick::key_in(words[0]))
    }

    /// Returns the tick at a position; `None` if the block does not contain it.
    pub fn at(&self, position: u64) -> Option<Tick> {
        self.words(position).map(Tick::from_words)
    }
}

/// Compresses ticks.
pub(super) struct Packer {
    packer: zstd::bulk::Compressor<'static>,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    /// Returns a packer.
    ///
    /// # Errors
    /// The I/O error if the compressor cannot be created.
    pub(super) fn new() -> io::Result<Self> {
        let mut packer = zstd::bulk::Compressor::new(LEVEL)?;
        packer.include_checksum(true)?;
        Ok(Self { packer, plain: Vec::new(), packed: Vec::new() })
    }

    /// Compresses ticks to the file format.
    ///
    /// # Errors
    /// The I/O error if the compressor runs out of memory.
    pub(super) fn pack(&mut self, ticks: &[Words]) -> io::Result<&[u8]> {
        self.plain.clear();
        self.plain.reserve(ticks.len() * WORDS * WORD_BYTES);
        for column in 0..WORDS {
            let mut before = 0;
            for word in ticks.iter().map(|words| words[column]) {
                let shown = word.wrapping_sub(before);
                before = if TIMES.contains(&column) { word } else { 0 };
                self.plain.extend_from_slice(&shown.to_le_bytes());
            }
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.plain.len()));
        self.packer.compress_to_buffer(&self.plain, &mut self.packed)?;
        Ok(&self.packed)
    }
}

/// Decompresses ticks.
pub(super) struct Unpacker {
    unpacker: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
}

impl Unpacker {
    /// Returns an unpacker.
    ///
    /// # Errors
    /// The I/O error if the decompressor cannot be created.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { unpacker: zstd::bulk::Decompressor::new()?, plain: Vec::new() })
    }

    /// Decompresses `count` ticks from a [`Packer`], the first of which has the position `first`.
    ///
    /// # Errors
    /// The I/O error if the bytes are corrupt or have another length.
    pub(super) fn unpack(&mut self, packed: &[u8], first: u64, count: u32) -> io::Result<Block> {
        let count = count as usize;
        let bytes = count * WORDS * WORD_BYTES;
        self.plain.clear();
        self.plain.reserve(bytes);
        if self.unpacker.decompress_to_buffer(packed, &mut self.plain)? != bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a block of another length"));
        }
        let mut ticks = vec![[0; WORDS]; count].into_boxed_slice();
        let (mut shown, _) = self.plain.as_chunks::<WORD_BYTES>();
        for column in 0..WORDS {
            let (of_column, rest) = shown.split_at(count);
            shown = rest;
            let mut before = 0;
            for (words, shown) in ticks.iter_mut().zip(of_column) {
                let word = u64::from_le_bytes(*shown).wrapping_add(before);
                before = if TIMES.contains(&column) { word } else { 0 };
                words[column] = word;
            }
        }
        Ok(Block::new(first, ticks))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::tick::Stream;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_packed_comes_back(
            mut ticks in proptest::collection::vec(proptest::array::uniform12(any::<u64>()), 1..50),
            first in 0..u64::MAX / 2,
        ) {
            // There are not that many instruments.
            ticks.iter_mut().for_each(|words| words[0] &= !0xffff_0000);
            let mut packer = Packer::new().expect("zstd");
            let packed = packer.pack(&ticks).expect("memory").to_vec();
            let mut unpacker = Unpacker::new().expect("zstd");
            let count = ticks.len() as u32;
            let block = unpacker.unpack(&packed, first, count).expect("a block");
            prop_assert_eq!(&block, &Block::new(first, ticks.clone().into()));
            prop_assert_eq!((block.len(), block.end()), (ticks.len(), first + ticks.len() as u64));
            for (at, words) in (first..).zip(&ticks) {
                prop_assert_eq!(block.key_at(at), Some(Tick::key_in(words[0])));
                prop_assert_eq!(block.at(at), Some(Tick::from_words(words)));
            }
            prop_assert_eq!(block.at(block.end()), None);
            prop_assert_eq!(first.checked_sub(1).and_then(|before| block.key_at(before)), None);
            // A wrong count is an error.
            for count in [count - 1, count + 1] {
                prop_assert!(unpacker.unpack(&packed, first, count).is_err());
            }
            let mut spoilt = packed.clone();
            let at = spoilt.len() / 2;
            spoilt[at] ^= 0x10;
            prop_assert!(unpacker.unpack(&spoilt, first, count).is_err());
            prop_assert!(unpacker.unpack(&packed[..packed.len() - 1], first, count).is_err());
            prop_assert!(unpacker.unpack(&packed, first, count).is_ok(), "it goes on after that");
        }
    }

    #[test]
    fn alike_ticks_take_little() {
        let tick = |n: u64| {
            let mut words = [0; WORDS];
            (words[0], words[1]) = (n % 7 * Stream::ALL.len() as u64, n);
            words[2] = 1_700_000_000_000_000_000 + n * 1_000_003;
            (words[5], words[6]) = (6_401_020 + n % 13, 100 + n % 5);
            words
        };
        let ticks: Vec<Words> = (0..4_096).map(tick).collect();
        let bytes = Packer::new().expect("zstd").pack(&ticks).expect("memory").len();
        assert!(bytes < 16 * ticks.len(), "{bytes} bytes for {} ticks", ticks.len());
    }
}
