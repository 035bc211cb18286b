//! Liveness of the essential threads, and detection of unusual changes of the machine's clocks.
//!
//! A thread counts its turns in a [`Pulse`], with one plain store each. The [`Watcher`] reads the counts ten
//! times a second, on a thread that does nothing else: a thread whose count does not change is late, and one
//! that is late for too long hangs. Time in which the watcher itself did not run does not count: after a stop
//! of the process, or a sleep of the machine, no thread is taken to hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::time::clock::{MS, Now, SECOND, STOOD_NS_MIN, Steps};

/// The interval of the watcher's checks in nanoseconds.
pub const LOOK_EVERY_NS: u64 = 100 * MS;
/// A thread without a turn for this long is late, in nanoseconds.
pub const LATE_NS_MIN: u64 = SECOND;
/// The difference between two checks from which on the wall clock counts as set, in nanoseconds; smaller ones
/// are slewing, or a delayed reading.
const SET_NS_MIN: u64 = 250 * MS;

/// The turn counter of one thread.
#[derive(Debug, Default)]
pub struct Pulse {
    name: Box<str>,
    turns: AtomicU64,
    ended: AtomicBool,
    late_ms: AtomicU64,
}

/// Held by the thread of a [`Pulse`]: on drop, the thread has ended and is no longer watched.
#[derive(Debug)]
pub struct Beating(Arc<Pulse>);

impl Pulse {
    /// Returns the pulse of a thread with this name.
    pub fn new(name: impl Into<Box<str>>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), ..Self::default() })
    }

    /// Returns the name of its thread.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the handle for its thread. Call it once.
    pub fn begin(self: &Arc<Self>) -> Beating {
        Beating(Arc::clone(self))
    }

    /// Returns how long the thread has made no turn, in milliseconds, if it is late.
    #[inline]
    pub fn late_ms(&self) -> Option<u64> {
        match self.late_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(ms),
        }
    }

    /// Returns true if the thread is late.
    #[inline]
    pub fn is_late(&self) -> bool {
        self.late_ms().is_some()
    }
}

impl Beating {
    /// Counts a turn of the thread.
    #[inline]
    pub fn beat(&self) {
        let turns = &self.0.turns;
        // One thread writes it, so no atomic exchange is needed.
        turns.store(turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// The pulses that a shard reads.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// Its own.
    pub own: Arc<Pulse>,
    /// That of the thread that produces its ticks.
    pub feed: Arc<Pulse>,
}

/// A finding of a check, reported once each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A thread is late: its name, and milliseconds without a turn.
    Late(Box<str>, u64),
    /// It has resumed, after this many milliseconds.
    GoesOn(Box<str>, u64),
    /// It has made no turn for so many milliseconds that it is considered hung.
    Hangs(Box<str>, u64),
    /// The process did not run for this many milliseconds.
    Stood(u64),
    /// The wall clock was set by this many microseconds.
    ClockSet(i64),
    /// The machine slept, and the wall clock advanced by this many microseconds meanwhile.
    Slept(i64),
}

/// Checks pulses and clocks. The caller passes the time.
#[derive(Debug)]
pub struct Watcher {
    rows: Vec<Row>,
    steps: Arc<Steps>,
    /// The time without a turn after which a thread hangs, in milliseconds; 0: never.
    hang_after_ms: u64,
    last: Now,
    slept_ns: u64,
}

#[derive(Debug)]
struct Row {
    pulse: Arc<Pulse>,
    turns: u64,
    stands_ns: u64,
}

impl Watcher {
    /// Returns a watcher of these pulses. `slept_ns` is how long the machine has slept so far.
    pub fn new(
        pulses: impl IntoIterator<Item = Arc<Pulse>>,
        steps: Arc<Steps>,
        hang_after_ms: u64,
        now: Now,
        slept_ns: u64,
    ) -> Self {
        let row = |pulse: Arc<Pulse>| Row { turns: pulse.turns.load(Ordering::Relaxed), pulse, stands_ns: 0 };
        let rows = pulses.into_iter().map(row).collect();
        // A thread has to be late before it can hang.
        let hang_after_ms = if hang_after_ms == 0 { 0 } else { hang_after_ms.max(LATE_NS_MIN / MS) };
        Self { rows, steps, hang_after_ms, last: now, slept_ns }
    }

    /// Makes one check; returns what is new.
    pub fn look(&mut self, now: Now, slept_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        let passed_ns = now.mono_ns.saturating_sub(self.last.mono_ns);
        if passed_ns >= STOOD_NS_MIN {
            self.steps.process_stood(passed_ns / MS);
            found.push(Finding::Stood(passed_ns / MS));
        }
        self.look_at_clocks(now, slept_ns, &mut found);
        self.last = now;
        // A longer interval is a delay of the watcher, not of the other threads.
        let passed_ns = passed_ns.min(2 * LOOK_EVERY_NS);
        for row in &mut self.rows {
            row.look(passed_ns, self.hang_after_ms, &mut found);
        }
        found
    }

    fn look_at_clocks(&mut self, now: Now, slept_ns: u64, found: &mut Vec<Finding>) {
        let by_ns = now.ahead_ns().wrapping_sub(self.last.ahead_ns()) as i64;
        if by_ns.unsigned_abs() >= SET_NS_MIN {
            let by_us = by_ns / 1_000;
            self.steps.stepped(by_us);
            let slept = slept_ns.wrapping_sub(self.slept_ns) as i64;
            let is_sleep = by_ns.wrapping_sub(slept).unsigned_abs() < SET_NS_MIN;
            found.push(if is_sleep { Finding::Slept(by_us) } else { Finding::ClockSet(by_us) });
        }
        self.slept_ns = slept_ns;
    }
}

impl Row {
    fn look(&mut self, passed_ns: u64, hang_after_ms: u64, found: &mut Vec<Finding>) {
        let pulse = &self.pulse;
        let turns = pulse.turns.load(Ordering::Relaxed);
        let before_ms = self.stands_ns / MS;
        if turns != self.turns || pulse.ended.load(Ordering::Relaxed) {
            (self.turns, self.stands_ns) = (turns, 0);
            if pulse.is_late() {
                pulse.late_ms.store(0, Ordering::Relaxed);
                found.push(Finding::GoesOn(pulse.name.clone(), before_ms));
            }
            return;
        }
        self.stands_ns += passed_ns;
        if self.stands_ns < LATE_NS_MIN {
            return;
        }
        let ms = self.stands_ns / MS;
        if !pulse.is_late() {
            found.push(Finding::Late(pulse.name.clone(), ms));
        }
        pulse.late_ms.store(ms, Ordering::Relaxed);
        if hang_after_ms > 0 && before_ms < hang_after_ms && ms >= hang_after_ms {
            found.push(Finding::Hangs(pulse.name.clone(), ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::clock::Clock;
    use std::time::Duration;

    /// A watcher of one thread, on a manual clock.
    struct Rig {
        clock: Clock,
        watcher: Watcher,
        pulse: Arc<Pulse>,
        thread: Option<Beating>,
        steps: Arc<Steps>,
        slept_ns: u64,
    }

    impl Rig {
        fn new(hang_after_ms: u64) -> Self {
            let (clock, steps, pulse) = (Clock::manual(), Arc::<Steps>::default(), Pulse::new("shard-0"));
            let thread = Some(pulse.begin());
            let watcher =
                Watcher::new([Arc::clone(&pulse)], Arc::clone(&steps), hang_after_ms, clock.now(), 0);
            Self { clock, watcher, pulse, thread, steps, slept_ns: 0 }
        }

        fn look_after(&mut self, ms: u64) -> Vec<Finding> {
            self.clock.advance(Duration::from_millis(ms));
            self.watcher.look(self.clock.now(), self.slept_ns)
        }

        /// Makes `times` checks, ten per second.
        fn looks(&mut self, times: u64) -> Vec<Finding> {
            (0..times).flat_map(|_| self.look_after(100)).collect()
        }

        fn beat(&self) {
            self.thread.iter().for_each(Beating::beat);
        }
    }

    #[test]
    fn a_thread_that_stands_is_late_then_hangs() {
        let mut rig = Rig::new(10_000);
        for _ in 0..100 {
            rig.beat();
            assert_eq!(rig.look_after(100), []);
        }
        assert_eq!(rig.looks(9), []);
        assert!(!rig.pulse.is_late());
        assert_eq!(rig.looks(1), [Finding::Late("shard-0".into(), 1_000)]);
        assert_eq!(rig.looks(89), []);
        assert_eq!(rig.pulse.late_ms(), Some(9_900));
        assert_eq!(rig.looks(30), [Finding::Hangs("shard-0".into(), 10_000)], "once");
        rig.beat();
        assert_eq!(rig.looks(1), [Finding::GoesOn("shard-0".into(), 12_900)]);
        assert_eq!(rig.pulse.late_ms(), None);
        // A thread that has ended is not reported.
        rig.thread = None;
        assert_eq!(rig.looks(200), []);
    }

    #[test]
    fn no_thread_hangs_before_it_is_late() {
        let mut rig = Rig::new(500);
        let what = [Finding::Late("shard-0".into(), 1_000), Finding::Hangs("shard-0".into(), 1_000)];
        assert_eq!(rig.looks(30), what);
        assert_eq!(Rig::new(0).looks(100), [Finding::Late("shard-0".into(), 1_000)], "never");
    }

    #[test]
    fn a_process_that_was_stopped_is_no_thread_that_hangs() {
        let mut rig = Rig::new(10_000);
        rig.beat();
        assert_eq!(rig.look_after(25_000), [Finding::Stood(25_000)]);
        assert_eq!(rig.looks(8), [], "the thread has as long as ever to make a turn");
        rig.beat();
        assert_eq!(rig.looks(9), []);
        assert_eq!(rig.steps.stood(), (1, 25_000));
        assert_eq!(rig.steps.both(), (0, 0), "both clocks went on");
    }

    #[test]
    fn a_clock_that_is_set_is_told_from_a_machine_that_slept() {
        let mut rig = Rig::new(10_000);
        for (by_ns, found) in [
            (3_600 * SECOND as i64, vec![Finding::ClockSet(3_600_000_000)]),
            (-7_200 * SECOND as i64, vec![Finding::ClockSet(-7_200_000_000)]),
            // Slewed.
            (-(SET_NS_MIN as i64) / 2, vec![]),
        ] {
            rig.beat();
            rig.clock.set_wall(by_ns);
            assert_eq!(rig.look_after(100), found);
            assert_eq!(rig.looks(1), [], "once");
        }
        assert_eq!((rig.steps.count(), rig.steps.both(), rig.steps.by_us()), (2, (1, 1), -7_200_000_000));
        rig.beat();
        rig.slept_ns += 600 * SECOND;
        rig.clock.set_wall(600 * SECOND as i64);
        assert_eq!(rig.look_after(100), [Finding::Slept(600_000_000)]);
        assert_eq!(
            rig.steps.both(),
            (2, 1),
            "what was received before it is as far from what comes as if it had been set"
        );
    }
}
