//! The ring between the ingest thread and the shards: one writer, any number of readers, and no back-pressure
//! from readers to the writer.
//!
//! # Lapping
//!
//! There is one [`Writer`], and it never waits. The ring keeps the last `capacity` ticks; the next tick
//! overwrites the oldest, whether or not every reader has taken it. A [`Reader`] that falls behind by more
//! than the capacity is *lapped*:
//!
//! * **What is lost**: everything between its cursor and the tail, including the part that is still in the
//!   ring. A lapped reader is too slow for its load, and that part would be overwritten while it reads; a
//!   fresh start gives it the whole ring as headroom again.
//! * **What the count means**: [`Batch::lapped`] is exactly the number of skipped ticks. For each reader, at
//!   any time, `taken + lapped = cursor − start position`.
//! * **Where the cursor goes**: to the tail, so the next tick taken is the first one published after the
//!   reader detected the loss. The state of the market at that point is in [`LastValues`], never older than
//!   the cursor.
//!
//! Lapping ends a batch: the ticks taken in the same batch precede the loss.
//!
//! # Order
//!
//! For each tick the writer stores, in this order: the last value, the slot, the tail. So a last value that a
//! reader loads is at least as new as every tick before the cursor of the reader.
//!
//! The stamp of a slot alone shows whether the slot holds the position that a reader wants. So readers load
//! the tail, which the writer stores for each tick, only to start, to recover from lapping, before sleeping,
//! and for reports.
//!
//! A [`Doorbell`] wakes readers that ran out of ticks. The memory orderings, and the proof that each of them
//! is needed, are in `sync` and `model`.

mod doorbell;
mod last_value;
#[cfg(all(test, tickfan_loom))]
mod model;
mod slot;
mod sync;
mod ticks;

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::utils::CachePadded;

pub use doorbell::{Doorbell, ring_all};
pub use last_value::{KeyOutOfRange, LastValues};
use slot::{Slot, complete};
use sync::{AtomicU64, Site};
pub use ticks::{Packed, Seen, TickReader, TickRing, TickWriter, tick_ring};

/// The largest ring capacity in ticks: 2 GiB at 128 bytes per slot.
pub const CAPACITY_MAX: usize = 1 << 24;

/// Why a ring capacity is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// Not a power of two (0 included): a position becomes an index by masking.
    #[error("ring capacity {0} is not a power of two")]
    NotPowerOfTwo(usize),
    /// More than [`CAPACITY_MAX`].
    #[error("ring capacity {0} is more than {max}", max = CAPACITY_MAX)]
    TooLarge(usize),
}

/// Returns a ring for ticks of `N` words with a last value for each key in `0..keys`.
///
/// `capacity` is the number of ticks a reader may fall behind before it is lapped. Memory: one cache line
/// pair per tick (128 bytes for up to 15 words on x86-64), allocated here; for the keys see [`LastValues`].
///
/// # Errors
/// [`CapacityError`] if `capacity` is not a power of two, or too large.
pub fn ring<const N: usize>(capacity: usize, keys: usize) -> Result<(Writer<N>, Ring<N>), CapacityError> {
    if !capacity.is_power_of_two() {
        return Err(CapacityError::NotPowerOfTwo(capacity));
    }
    if capacity > CAPACITY_MAX {
        return Err(CapacityError::TooLarge(capacity));
    }
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicU64::new(0)),
        slots: (0..capacity).map(|_| CachePadded::new(Slot::new())).collect(),
        last_values: LastValues::new(keys),
    });
    Ok((Writer { next: 0, shared: Arc::clone(&shared) }, Ring { shared }))
}

struct Shared<const N: usize> {
    /// The number of published ticks. It has its own cache line, since the writer stores it for each tick.
    tail: CachePadded<AtomicU64>,
    slots: Box<[CachePadded<Slot<N>>]>,
    last_values: LastValues<N>,
}

impl<const N: usize> Shared<N> {
    /// Returns the slot of a position. Positions serve as the version numbers of their slots.
    #[inline]
    fn slot(&self, position: u64) -> &Slot<N> {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    /// Returns the tail as a start position: see [`Site::TailLook`].
    fn start(&self) -> u64 {
        self.tail.load(Site::TailLook.order())
    }
}

/// The only writer of a ring. It is not `Clone`, so only its owner can publish and store.
pub struct Writer<const N: usize> {
    next: u64,
    shared: Arc<Shared<N>>,
}

impl<const N: usize> Writer<N> {
    /// Publishes a tick without storing a last value. Never waits, never allocates.
    ///
    /// Positions have 63 bits: at 10⁹ ticks per second they last 292 years.
    #[inline]
    pub fn publish(&mut self, words: &[u64; N]) {
        let position = self.next;
        self.next += 1;
        self.shared.slot(position).write(position, words);
        // Relaxed is enough: the fence within `write` precedes this store, so an Acquire load of the tail
        // makes everything stored before that fence visible, including the last value of this tick. Whether
        // the words of the slot are readable depends on the slot's own stamp.
        self.shared.tail.store(self.next, Relaxed);
    }

    /// Stores a tick as the last value of `key`, then publishes it; the guarantee of [`LastValues`] depends
    /// on this order. Never waits; allocates if it is the first store to a chunk of keys.
    ///
    /// # Errors
    /// [`KeyOutOfRange`] if `key` is beyond the capacity; nothing was published.
    #[inline]
    pub fn publish_value(&mut self, key: usize, words: &[u64; N]) -> Result<(), KeyOutOfRange> {
        self.store(key, words)?;
        self.publish(words);
        Ok(())
    }

    /// Stores a last value that no tick announces, or that differs from the words of its tick. A tick that
    /// announces it must be published after this call.
    ///
    /// # Errors
    /// [`KeyOutOfRange`] if `key` is beyond the capacity; nothing was stored.
    pub fn store(&mut self, key: usize, words: &[u64; N]) -> Result<(), KeyOutOfRange> {
        self.shared.last_values.store(key, words)
    }

    /// Returns the number of published ticks, which is the position of the next one.
    pub fn published(&self) -> u64 {
        self.next
    }

    /// Returns the last values.
    pub fn last_values(&self) -> &LastValues<N> {
        &self.shared.last_values
    }
}

/// A handle that creates readers. Clones refer to the same ring.
pub struct Ring<const N: usize> {
    shared: Arc<Shared<N>>,
}

impl<const N: usize> Clone for Ring<N> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<const N: usize> Ring<N> {
    /// Returns a new reader. It starts at the tail: the first tick it takes is the next one published;
    /// earlier state is in the last values.
    pub fn reader(&self) -> Reader<N> {
        Reader { cursor: self.shared.start(), shared: Arc::clone(&self.shared) }
    }

    /// Returns how many ticks a reader may fall behind.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Returns the number of published ticks visible to this thread. For reports.
    pub fn published(&self) -> u64 {
        self.shared.tail.load(Relaxed)
    }

    /// Returns the tick at a position, or `None` if it is not yet published or already overwritten. For
    /// access to old ticks; a [`Reader`] is cheaper for new ones.
    pub fn at(&self, position: u64) -> Option<[u64; N]> {
        let slot = self.shared.slot(position);
        let stamp = slot.stamp();
        if stamp == complete(position) { slot.copy(stamp) } else { None }
    }

    /// Returns the first word of the tick at a position; otherwise as [`at`](Self::at).
    pub fn first_at(&self, position: u64) -> Option<u64> {
        let slot = self.shared.slot(position);
        let stamp = slot.stamp();
        if stamp == complete(position) { slot.first(stamp) } else { None }
    }

    /// Returns the last values.
    pub fn last_values(&self) -> &LastValues<N> {
        &self.shared.last_values
    }
}

/// The result of one [`Reader::poll`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "`lapped` is the only report of lost ticks"]
pub struct Batch {
    /// The number of ticks passed on.
    pub taken: usize,
    /// The number of ticks lost after those: the cursor has moved to the tail.
    pub lapped: u64,
}

impl Batch {
    /// Returns true if there was nothing to take and nothing was lost.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// A reader with its own cursor. Readers are independent of each other, and the writer keeps no state about
/// them.
pub struct Reader<const N: usize> {
    cursor: u64,
    shared: Arc<Shared<N>>,
}

impl<const N: usize> Reader<N> {
    /// Passes at most `max` ticks to `take`, in order and each whole. Never waits.
    ///
    /// Ends early when there are no more ticks, or with [`Batch::lapped`] set when ticks were overwritten
    /// before they could be read.
    #[inline]
    pub fn poll(&mut self, max: usize, mut take: impl FnMut(&[u64; N])) -> Batch {
        let mut batch = Batch::default();
        while batch.taken < max {
            let slot = self.shared.slot(self.cursor);
            let (stamp, wanted) = (slot.stamp(), complete(self.cursor));
            let words = match stamp.cmp(&wanted) {
                Ordering::Less => break,
                Ordering::Equal => slot.copy(stamp),
                Ordering::Greater => None,
            };
            let Some(words) = words else {
                batch.lapped = self.skip();
                break;
            };
            self.cursor += 1;
            batch.taken += 1;
            take(&words);
        }
        batch
    }

    /// Moves the cursor to the tail; returns the number of skipped ticks.
    ///
    /// A slot can show the overwrite while this thread still loads an older tail. Then the cursor stays and
    /// nothing is counted; the next poll finds the same slot and tries again.
    #[cold]
    fn skip(&mut self) -> u64 {
        let start = self.shared.start().max(self.cursor);
        let skipped = start - self.cursor;
        self.cursor = start;
        skipped
    }

    /// Returns the position of the next tick to take.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Returns the number of waiting ticks visible to this thread; more than the capacity means that the next
    /// poll will find the reader lapped. For reports, and for the last check before sleeping at a
    /// [`Doorbell`].
    pub fn behind(&self) -> u64 {
        // The slot is stored before the tail, so the cursor can be ahead of the tail by the newest tick.
        self.shared.tail.load(Relaxed).saturating_sub(self.cursor)
    }

    /// Returns the last values, never older than the ticks this reader has taken.
    pub fn last_values(&self) -> &LastValues<N> {
        &self.shared.last_values
    }
}

#[cfg(all(test, not(tickfan_loom)))]
mod tests {
    use std::array;
    use std::thread;

    use super::*;

    /// Twelve words unique to position `n`, so that a word from another position is detected.
    fn words_of(n: u64) -> [u64; 12] {
        array::from_fn(|i| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(5 * i as u32))
    }

    fn taken<const N: usize>(reader: &mut Reader<N>, max: usize) -> (Vec<u64>, u64) {
        let mut firsts = Vec::new();
        let batch = reader.poll(max, |words| firsts.push(words[0]));
        assert_eq!(batch.taken, firsts.len());
        (firsts, batch.lapped)
    }

    #[test]
    fn a_capacity_that_cannot_be_is_refused() {
        let refusal = |capacity| ring::<1>(capacity, 0).err();
        for capacity in [0, 3, 100, usize::MAX] {
            assert_eq!(refusal(capacity), Some(CapacityError::NotPowerOfTwo(capacity)));
        }
        let large = refusal(CAPACITY_MAX * 2);
        assert_eq!(large, Some(CapacityError::TooLarge(CAPACITY_MAX * 2)));
        let text = large.map(|e| e.to_string());
        assert_eq!(text.as_deref(), Some("ring capacity 33554432 is more than 16777216"));
        for capacity in [1, 2, 1024] {
            assert_eq!(refusal(capacity), None);
        }
    }

    #[test]
    fn ticks_come_in_order_and_in_bounded_batches() {
        let (mut writer, ring) = ring::<1>(8, 0).expect("good");
        let mut reader = ring.reader();
        assert!(reader.poll(4, |_| {}).is_empty());
        (0..6).for_each(|n| writer.publish(&[n]));
        assert_eq!((reader.behind(), ring.published(), writer.published()), (6, 6, 6));
        assert_eq!(taken(&mut reader, 4), (vec![0, 1, 2, 3], 0));
        assert_eq!(taken(&mut reader, 4), (vec![4, 5], 0));
        assert_eq!(taken(&mut reader, 4), (vec![], 0));
        assert_eq!((reader.behind(), reader.cursor()), (0, 6));
        assert_eq!(taken(&mut reader, 0), (vec![], 0));
    }

    #[test]
    fn a_full_ring_is_not_yet_lapped() {
        for capacity in [1, 2, 8] {
            let (mut writer, ring) = ring::<1>(capacity, 0).expect("good");
            let mut reader = ring.reader();
            (0..capacity as u64).for_each(|n| writer.publish(&[n]));
            assert_eq!(taken(&mut reader, 100), ((0..capacity as u64).collect(), 0));
        }
    }

    #[test]
    fn lapping_goes_to_the_tail_and_counts_all_that_was_skipped() {
        let (mut writer, ring) = ring::<1>(4, 0).expect("good");
        let mut reader = ring.reader();
        (0..5).for_each(|n| writer.publish(&[n]));
        assert_eq!(reader.behind(), 5);
        assert_eq!(taken(&mut reader, 100), (vec![], 5));
        assert_eq!((reader.behind(), reader.cursor()), (0, 5));
        writer.publish(&[5]);
        assert_eq!(taken(&mut reader, 100), (vec![5], 0));
    }

    #[test]
    fn lapping_in_the_middle_of_a_batch_ends_it() {
        let (mut writer, ring) = ring::<1>(4, 0).expect("good");
        let mut reader = ring.reader();
        (0..4).for_each(|n| writer.publish(&[n]));
        let mut firsts = Vec::new();
        let batch = reader.poll(100, |words| {
            firsts.push(words[0]);
            (4..7).for_each(|n| writer.publish(&[n]));
        });
        assert_eq!((firsts, batch), (vec![0], Batch { taken: 1, lapped: 6 }));
    }

    #[test]
    fn what_is_not_written_over_can_be_looked_at_again() {
        let (mut writer, ring) = ring::<1>(4, 0).expect("good");
        assert_eq!(ring.at(0), None, "never written");
        (0..6).for_each(|n| writer.publish(&[n]));
        let seen: Vec<_> = (0..8).map(|position| ring.at(position)).collect();
        assert_eq!(seen, [None, None, Some([2]), Some([3]), Some([4]), Some([5]), None, None]);
    }

    #[test]
    fn a_new_reader_starts_at_the_tail() {
        let (mut writer, ring) = ring::<1>(4, 0).expect("good");
        (0..6).for_each(|n| writer.publish(&[n]));
        let mut late = ring.clone().reader();
        assert_eq!((late.cursor(), late.behind(), ring.capacity()), (6, 0, 4));
        writer.publish(&[6]);
        assert_eq!(taken(&mut late, 100), (vec![6], 0));
    }

    #[test]
    fn a_key_without_a_place_publishes_nothing() {
        let (mut writer, ring) = ring::<1>(4, 2).expect("good");
        let mut reader = ring.reader();
        assert_eq!(writer.publish_value(2, &[9]), Err(KeyOutOfRange { key: 2, capacity: 2 }));
        assert!(reader.poll(1, |_| {}).is_empty());
        assert_eq!(writer.publish_value(1, &[7]), Ok(()));
        assert_eq!(writer.store(0, &[8]), Ok(()));
        assert_eq!(taken(&mut reader, 100), (vec![7], 0));
        assert_eq!([0, 1].map(|key| reader.last_values().load(key)), [Some([8]), Some([7])]);
        assert_eq!(writer.last_values().capacity(), ring.last_values().capacity());
    }

    /// Runs one reader of the stress test up to `ticks`; returns how many it took and how many it lost.
    fn follow(mut reader: Reader<12>, ticks: u64) -> (u64, u64) {
        let (mut taken, mut lapped) = (0, 0);
        while reader.cursor() < ticks {
            let mut position = reader.cursor();
            let batch = reader.poll(32, |words| {
                assert_eq!(*words, words_of(position), "torn or out of order at {position}");
                position += 1;
            });
            taken += batch.taken as u64;
            lapped += batch.lapped;
            assert_eq!(taken + lapped, reader.cursor());
            check_last_value(&reader);
            if batch.is_empty() {
                thread::yield_now();
            }
        }
        (taken, lapped)
    }

    /// Checks key 0, under which position `n` is stored with `n` in the first word.
    fn check_last_value(reader: &Reader<12>) {
        let Some(last) = reader.last_values().load(0) else {
            assert_eq!(reader.cursor(), 0, "no last value though something was seen");
            return;
        };
        assert!(last[0] + 1 >= reader.cursor(), "older than what was seen");
        assert_eq!(last[1..], words_of(last[0])[1..], "torn");
    }

    #[test]
    fn under_stress_nothing_is_torn_and_every_ledger_closes() {
        const TICKS: u64 = 1_000_000;
        let (mut writer, ring) = ring::<12>(64, 1).expect("good");
        let readers = [ring.reader(), ring.reader(), ring.reader()];
        thread::scope(|scope| {
            let runs = readers.map(|reader| scope.spawn(|| follow(reader, TICKS)));
            for n in 0..TICKS {
                let mut last = words_of(n);
                last[0] = n;
                writer.store(0, &last).expect("there is a key 0");
                writer.publish(&words_of(n));
                if n % 1024 == 0 {
                    thread::yield_now();
                }
            }
            for run in runs {
                let (taken, lapped) = run.join().expect("a reader's assertion failed");
                assert_eq!(taken + lapped, TICKS);
            }
        });
    }
}
