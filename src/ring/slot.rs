//! A cell with one writer and any number of readers, without a lock: a seqlock over plain atomics.

use std::array;
use std::sync::atomic::Ordering::Relaxed;

use super::sync::{AtomicU64, Site};

/// `N` words and a stamp that identifies their version.
///
/// A slot is written in versions with increasing numbers. The stamp has three forms:
///
/// ```text
/// 0        never written
/// 2n + 1   version n is being written: the words are a mixture
/// 2n + 2   version n is complete
/// ```
///
/// The writer stores the odd stamp, the words, the even stamp. A reader loads the stamp, copies the
/// words, and loads the stamp again: if it has changed, the copy may be torn and is discarded. The
/// [`Site`]s explain why this is sound.
pub(super) struct Slot<const N: usize> {
    stamp: AtomicU64,
    words: [AtomicU64; N],
}

/// Returns the stamp of a slot while version `n` is being written.
const fn intent(n: u64) -> u64 {
    2 * n + 1
}

/// Returns the stamp of a slot that holds version `n`.
pub(super) const fn complete(n: u64) -> u64 {
    2 * n + 2
}

impl<const N: usize> Slot<N> {
    /// Returns a slot that was never written.
    pub(super) fn new() -> Self {
        Self { stamp: AtomicU64::new(0), words: array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Writes version `n`. There must be one writer, and `n` must increase.
    #[inline]
    pub(super) fn write(&self, n: u64, words: &[u64; N]) {
        self.stamp.store(intent(n), Relaxed);
        Site::SlotIntent.fence();
        for (cell, word) in self.words.iter().zip(words) {
            cell.store(*word, Relaxed);
        }
        self.stamp.store(complete(n), Site::SlotPublish.order());
    }

    /// Returns the number of versions written, if they are numbered from 0 without a hole. For the writer,
    /// which needs no ordering to see its own stores.
    pub(super) fn versions(&self) -> u64 {
        self.stamp.load(Relaxed) / 2
    }

    /// Returns the stamp of the words that [`copy`](Self::copy) would find: the first of the two loads.
    #[inline]
    pub(super) fn stamp(&self) -> u64 {
        self.stamp.load(Site::SlotLook.order())
    }

    /// Returns the first word of the version `stamp`, under the conditions of [`copy`](Self::copy).
    #[inline]
    pub(super) fn first(&self, stamp: u64) -> Option<u64> {
        let word = self.words[0].load(Relaxed);
        Site::SlotRecheck.fence();
        (self.stamp.load(Relaxed) == stamp).then_some(word)
    }

    /// Copies the words of the version `stamp`; `None` if they were overwritten meanwhile. `stamp` must be
    /// the even value that [`stamp`](Self::stamp) has just returned.
    #[inline]
    pub(super) fn copy(&self, stamp: u64) -> Option<[u64; N]> {
        let words = array::from_fn(|i| self.words[i].load(Relaxed));
        Site::SlotRecheck.fence();
        (self.stamp.load(Relaxed) == stamp).then_some(words)
    }
}

#[cfg(all(test, not(tickfan_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_there_whole_or_not_at_all() {
        let slot = Slot::<3>::new();
        assert_eq!((slot.stamp(), slot.versions()), (0, 0));
        slot.write(0, &[1, 2, 3]);
        assert_eq!((slot.stamp(), slot.versions()), (complete(0), 1));
        assert_eq!(slot.copy(complete(0)), Some([1, 2, 3]));
        assert_eq!((slot.first(complete(0)), slot.first(complete(1))), (Some(1), None));
        slot.write(4, &[4, 5, 6]);
        assert_eq!(slot.copy(complete(0)), None, "written over since the first look");
        assert_eq!(slot.copy(slot.stamp()), Some([4, 5, 6]));
    }

    #[test]
    fn a_slot_of_twelve_words_is_one_padded_line() {
        assert_eq!(size_of::<Slot<12>>(), 104);
    }
}
