//! The memory bound of the process: the bound, the memory in use, the level, and how much may still be taken.
//!
//! Two figures serve two decisions. *When* memory has to be freed is decided by a measurement: the memory of
//! the process, the kernel's for its sockets, and, if a cgroup sets the bound, the charge of that cgroup
//! ([`Gauge`]). *Which* clients have to free it is decided by what each of them holds, which its shard
//! counts. A measurement is slightly old: memory taken in one piece is therefore claimed first
//! ([`Memory::claim`]), and memory that grows with each tick grows by a share of the spare memory
//! ([`Memory::share`]).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::system::counters::Counter;

mod gauge;

pub use gauge::{BoundOrigin, Gauge, MemoryBound, MemoryUse};

/// The percentage of the bound from which memory is short: rooms, catch-ups and large subscriptions are
/// refused, checkpoints are dropped, and slow clients shed.
pub const SHORT_PERCENT: u64 = 80;
/// The percentage of the bound from which connections are refused and slow clients cut.
pub const CRITICAL_PERCENT: u64 = 90;
/// How far below a level, in percent of the bound, use is reduced once that level is reached.
const SLACK_PERCENT: u64 = 5;

/// How close the use is to the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryLevel {
    /// Below all thresholds.
    #[default]
    Ample,
    /// [`SHORT_PERCENT`] are in use.
    Short,
    /// [`CRITICAL_PERCENT`] are in use.
    Critical,
    /// All of it is in use.
    Full,
}

impl MemoryLevel {
    /// Returns the name for the operator.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ample => "ample",
            Self::Short => "short",
            Self::Critical => "critical",
            Self::Full => "full",
        }
    }
}

/// What is refused when memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryDemand {
    /// A connection.
    Connection,
    /// A replay room.
    Room,
    /// A request to catch up.
    CatchUp,
    /// A subscription to very many symbols.
    Subscription,
}

impl MemoryDemand {
    /// Every one, in the order of its number.
    pub const ALL: [Self; 4] = [Self::Connection, Self::Room, Self::CatchUp, Self::Subscription];

    /// Returns the name for the operator.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Room => "room",
            Self::CatchUp => "catch_up",
            Self::Subscription => "subscription",
        }
    }

    /// Returns the level from which it is refused.
    const fn refused_from(self) -> MemoryLevel {
        match self {
            Self::Connection => MemoryLevel::Critical,
            Self::Room | Self::CatchUp | Self::Subscription => MemoryLevel::Short,
        }
    }
}

/// The message of a refusal.
pub const REFUSAL: &str = "the gateway is short of memory (limits.memory_bytes_max): try again later";
/// When to try again, in milliseconds.
pub const RETRY_AFTER_MS: u64 = 1_000;

/// Returns the bytes that are allocated.
static HEAP_COUNT: OnceLock<fn() -> u64> = OnceLock::new();

/// Makes [`heap_bytes`] known. Only the first call counts.
pub fn count_heap_by(count: fn() -> u64) {
    // A second counter of the same heap would count the same.
    let _ = HEAP_COUNT.set(count);
}

/// Returns the bytes that are allocated on the heap, if the allocator counts them (feature `heap-count`). Unlike the
/// resident memory they are free of what the allocator keeps.
pub fn heap_bytes() -> Option<u64> {
    HEAP_COUNT.get().map(|count| count())
}

/// The bound, and the memory in use. Shared by all threads without locks.
#[derive(Debug)]
pub struct Memory {
    bound_bytes: u64,
    used_bytes: AtomicU64,
    /// The number of measurements so far.
    samples: AtomicU64,
    /// Bytes claimed since the last measurement, and between the two before: memory claimed just before a
    /// measurement may not have been in use yet.
    claimed_bytes: AtomicU64,
    claimed_before_bytes: AtomicU64,
    /// Threads that share the spare memory.
    sharers: AtomicU64,
    refused: [Counter; MemoryDemand::ALL.len()],
    /// Checkpoints of replays that were dropped.
    pub checkpoints_dropped: Counter,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Memory {
    /// Returns a bound of `bound_bytes`; [`u64::MAX`] means none.
    pub fn new(bound_bytes: u64) -> Self {
        Self {
            bound_bytes,
            used_bytes: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            claimed_bytes: AtomicU64::new(0),
            claimed_before_bytes: AtomicU64::new(0),
            sharers: AtomicU64::new(0),
            refused: Default::default(),
            checkpoints_dropped: Counter::default(),
        }
    }

    /// Returns the bound in bytes; `None` if there is none.
    pub fn bound_bytes(&self) -> Option<u64> {
        (self.bound_bytes < u64::MAX).then_some(self.bound_bytes)
    }

    /// Returns the use up to which memory is ample, in bytes; `None` if there is no bound.
    pub fn ample_bytes(&self) -> Option<u64> {
        self.bound_bytes().map(|_| self.percent(SHORT_PERCENT))
    }

    /// Returns the use at the last measurement, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Records a measurement of the bytes in use.
    pub fn measured(&self, used_bytes: u64) {
        let claimed = self.claimed_bytes.swap(0, Ordering::Relaxed);
        self.claimed_before_bytes.store(claimed, Ordering::Relaxed);
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of measurements: after each, a new [share](Self::share) may be taken.
    #[inline]
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Returns this percentage of the bound in bytes.
    fn percent(&self, percent: u64) -> u64 {
        (self.bound_bytes / 100).saturating_mul(percent)
    }

    /// Returns the bytes in use, plus those claimed that may not be in use yet.
    fn taken_bytes(&self) -> u64 {
        let claimed = self.claimed_bytes.load(Ordering::Relaxed);
        let before = self.claimed_before_bytes.load(Ordering::Relaxed);
        self.used_bytes().saturating_add(claimed).saturating_add(before)
    }

    /// Returns how close the use is to the bound.
    pub fn level(&self) -> MemoryLevel {
        let used = self.used_bytes();
        match () {
            () if used >= self.bound_bytes => MemoryLevel::Full,
            () if used >= self.percent(CRITICAL_PERCENT) => MemoryLevel::Critical,
            () if used >= self.percent(SHORT_PERCENT) => MemoryLevel::Short,
            () => MemoryLevel::Ample,
        }
    }

    /// Returns the bytes to free until the use is well below a level; 0 unless that level is reached.
    pub fn excess_bytes(&self, level: MemoryLevel) -> u64 {
        let percent = match level {
            MemoryLevel::Ample => return 0,
            MemoryLevel::Short => SHORT_PERCENT,
            MemoryLevel::Critical => CRITICAL_PERCENT,
            MemoryLevel::Full => 100,
        };
        if self.level() < level {
            return 0;
        }
        self.used_bytes().saturating_sub(self.percent(percent - SLACK_PERCENT))
    }

    /// Claims memory; returns false if memory would then be short. Claimed bytes count as taken until they
    /// can be measured.
    pub fn claim(&self, bytes: u64) -> bool {
        if self.taken_bytes().saturating_add(bytes) > self.percent(SHORT_PERCENT) {
            return false;
        }
        self.claimed_bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Adds a thread that shares the spare memory.
    pub fn join(&self) {
        self.sharers.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a thread that [joined](Self::join).
    pub fn leave(&self) {
        self.sharers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns what a thread that [joined](Self::join) may take until the next measurement, in bytes: its
    /// share of half of what is left until memory is short. The other half is for unclaimed use.
    pub fn share(&self) -> u64 {
        let spare = self.percent(SHORT_PERCENT).saturating_sub(self.taken_bytes());
        spare / 2 / self.sharers.load(Ordering::Relaxed).max(1)
    }

    /// Returns true if a request is refused now because memory is short, and counts the refusal.
    pub fn refuses(&self, asked: MemoryDemand) -> bool {
        let refuses = self.level() >= asked.refused_from();
        if refuses {
            self.refused[asked as usize].add(1);
        }
        refuses
    }

    /// Claims memory for a request, as [`claim`](Self::claim) does. Returns false, and counts the refusal, if
    /// it cannot.
    pub fn grants(&self, asked: MemoryDemand, bytes: u64) -> bool {
        let granted = self.claim(bytes);
        if !granted {
            self.refused[asked as usize].add(1);
        }
        granted
    }

    /// Returns how many such requests were refused.
    pub fn refused(&self, asked: MemoryDemand) -> u64 {
        self.refused[asked as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_shares_of_the_bound() {
        let memory = Memory::new(1_000);
        let cases = [
            (0, MemoryLevel::Ample, 0),
            (799, MemoryLevel::Ample, 0),
            (800, MemoryLevel::Short, 50),
            (899, MemoryLevel::Short, 149),
            (900, MemoryLevel::Critical, 150),
            (1_000, MemoryLevel::Full, 250),
            (5_000, MemoryLevel::Full, 4_250),
        ];
        for (used, level, excess) in cases {
            memory.measured(used);
            assert_eq!((memory.level(), memory.excess_bytes(MemoryLevel::Short)), (level, excess), "{used}");
        }
        memory.measured(899);
        assert_eq!(
            (memory.excess_bytes(MemoryLevel::Critical), memory.excess_bytes(MemoryLevel::Full)),
            (0, 0)
        );
        memory.measured(950);
        assert_eq!(
            (memory.excess_bytes(MemoryLevel::Critical), memory.excess_bytes(MemoryLevel::Full)),
            (100, 0)
        );
        assert!(memory.refuses(MemoryDemand::Connection) && memory.refuses(MemoryDemand::Room));
        memory.measured(850);
        assert!(!memory.refuses(MemoryDemand::Connection) && memory.refuses(MemoryDemand::CatchUp));
        assert_eq!(MemoryDemand::ALL.map(|asked| memory.refused(asked)), [1, 1, 1, 0]);
    }

    #[test]
    fn without_a_bound_nothing_is_refused() {
        let memory = Memory::default();
        memory.measured(1 << 40);
        assert!(memory.claim(1 << 40) && !memory.refuses(MemoryDemand::Room));
        assert_eq!((memory.bound_bytes(), memory.level()), (None, MemoryLevel::Ample));
        assert!(memory.share() > 1 << 59);
    }

    #[test]
    fn what_was_claimed_counts_until_it_can_be_measured() {
        let memory = Memory::new(1_000);
        memory.measured(300);
        assert!(memory.claim(400) && !memory.claim(101), "the measurement is older than the claim");
        // The claim may have been made during this measurement.
        memory.measured(300);
        assert!(!memory.claim(101) && memory.claim(100));
        memory.measured(700);
        assert!(!memory.claim(1));
        memory.measured(700);
        assert!(memory.claim(100));
        assert!(!memory.grants(MemoryDemand::Subscription, 1));
        assert_eq!(memory.refused(MemoryDemand::Subscription), 1);
    }

    #[test]
    fn what_is_spare_is_shared() {
        let memory = Memory::new(1_000);
        memory.measured(200);
        assert_eq!(memory.share(), 300);
        (0..3).for_each(|_| memory.join());
        assert_eq!(memory.share(), 100);
        memory.leave();
        assert!(memory.claim(100));
        assert_eq!(memory.share(), 125);
        memory.measured(2_000);
        assert_eq!(memory.share(), 0);
    }
}
