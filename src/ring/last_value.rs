//! The newest value of each key, for readers that start late or were lapped.

use crossbeam::utils::CachePadded;

use super::slot::Slot;
use super::sync::{Backoff, OnceLock};

/// Keys that are allocated together. Small under loom, where each atomic is expensive.
const CHUNK: usize = if cfg!(tickfan_loom) { 2 } else { 256 };

/// The error for a key beyond the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no last value for key {key}: the keys are 0 to {capacity}, exclusive")]
pub struct KeyOutOfRange {
    /// The requested key.
    pub key: usize,
    /// The number of keys.
    pub capacity: usize,
}

type Chunk<const N: usize> = Box<[CachePadded<Slot<N>>]>;

/// The newest `N` words of each dense key, stored by the [`Writer`](super::Writer) alone and read from any
/// thread.
///
/// **Guarantee.** The writer stores a value *before* it publishes the tick that announces it. A reader that
/// has taken position `p` from the ring, or starts at position `p + 1` (a new or lapped reader), and then
/// loads a value, gets one at least as new as those announced at `p` and before. The value may be newer: its
/// tick then follows in the ring and must be skipped as already known.
///
/// Memory: the first store to a chunk of 256 keys allocates the chunk, one cache line pair per key (128 bytes
/// for up to 15 words on x86-64). Chunks are never freed.
pub struct LastValues<const N: usize> {
    chunks: Box<[OnceLock<Chunk<N>>]>,
    capacity: usize,
}

impl<const N: usize> LastValues<N> {
    /// Returns values for the keys `0..capacity`, none of them allocated yet.
    pub(super) fn new(capacity: usize) -> Self {
        let chunks = capacity.div_ceil(CHUNK);
        Self { chunks: (0..chunks).map(|_| OnceLock::new()).collect(), capacity }
    }

    /// Returns the number of keys.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the newest value of `key`; `None` if none was stored or `key` is out of range.
    ///
    /// Takes no lock. While the writer is storing this key it spins: for a dozen stores if the writer runs,
    /// or until the writer is scheduled again if it was pre-empted.
    pub fn load(&self, key: usize) -> Option<[u64; N]> {
        let slot = self.chunks.get(key / CHUNK)?.get()?.get(key % CHUNK)?;
        let backoff = Backoff::new();
        loop {
            let stamp = slot.stamp();
            if stamp == 0 {
                return None;
            }
            if stamp.is_multiple_of(2)
                && let Some(words) = slot.copy(stamp)
            {
                return Some(words);
            }
            backoff.snooze();
        }
    }

    /// Stores the newest value of `key`. There must be only one writer, which [`Writer`](super::Writer)
    /// guarantees.
    pub(super) fn store(&self, key: usize, words: &[u64; N]) -> Result<(), KeyOutOfRange> {
        if key >= self.capacity {
            return Err(KeyOutOfRange { key, capacity: self.capacity });
        }
        let chunk = self.chunks[key / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| CachePadded::new(Slot::new())).collect());
        let slot = &chunk[key % CHUNK];
        slot.write(slot.versions(), words);
        Ok(())
    }
}

#[cfg(all(test, not(tickfan_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_newest_counts_and_keys_do_not_mix() {
        let values = LastValues::<2>::new(CHUNK + 10);
        assert_eq!(values.load(0), None);
        for n in 1..=3 {
            assert_eq!(values.store(0, &[n, n]), Ok(()));
            assert_eq!(values.store(CHUNK + 9, &[n, 0]), Ok(()));
        }
        assert_eq!(values.load(0), Some([3, 3]));
        assert_eq!(values.load(CHUNK + 9), Some([3, 0]));
        assert_eq!(values.load(1), None, "allocated, never stored");
    }

    #[test]
    fn the_bound_is_kept() {
        let values = LastValues::<2>::new(10);
        let refused = KeyOutOfRange { key: 10, capacity: 10 };
        assert_eq!(values.store(10, &[1, 1]), Err(refused));
        assert_eq!(refused.to_string(), "no last value for key 10: the keys are 0 to 10, exclusive");
        assert_eq!(values.store(9, &[1, 1]), Ok(()));
        for key in [10, CHUNK, usize::MAX] {
            assert_eq!(values.load(key), None);
        }
        assert_eq!(LastValues::<2>::new(0).load(0), None);
    }
}
