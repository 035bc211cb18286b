//! Whether the threads that others depend on move, and whether the machine's clocks did something unusual.
//!
//! A thread counts its turns in a [`Pulse`], one plain store each. The [`Watcher`] reads the counts, ten times a
//! second, on a thread that does nothing else: a thread whose count stands is late, and one that is late for too
//! long hangs. The watcher takes no time for passed in which it did not run itself: a process that was stopped, or
//! a machine that slept, is not a thread that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::time::clock::{MS, Now, SECOND, STOOD_NS_MIN, Steps};

/// How often the watcher is to look.
pub const LOOK_EVERY_NS: u64 = 100 * MS;
/// A thread is late that has made no turn for so long.
pub const LATE_NS_MIN: u64 = SECOND;
/// The wall clock was set if it is off by so much from one look to the next; what is less is slewed, or a reading
/// that was held up.
const SET_NS_MIN: u64 = 250 * MS;

/// One thread that counts its turns.
#[derive(Debug, Default)]
pub struct Pulse {
    name: Box<str>,
    turns: AtomicU64,
    ended: AtomicBool,
    late_ms: AtomicU64,
}

/// Held by the thread of a [`Pulse`]: when it is dropped, the thread has ended and is not watched any more.
#[derive(Debug)]
pub struct Beating(Arc<Pulse>);

impl Pulse {
    /// The pulse of a thread of this name.
    pub fn new(name: impl Into<Box<str>>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), ..Self::default() })
    }

    /// The name of its thread.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its thread begins to count. There is one.
    pub fn begin(self: &Arc<Self>) -> Beating {
        Beating(Arc::clone(self))
    }

    /// For how long the thread has made no turn, milliseconds, if that is too long.
    #[inline]
    pub fn late_ms(&self) -> Option<u64> {
        match self.late_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(ms),
        }
    }

    /// Whether the thread has made no turn for too long.
    #[inline]
    pub fn is_late(&self) -> bool {
        self.late_ms().is_some()
    }
}

impl Beating {
    /// The thread makes a turn.
    #[inline]
    pub fn beat(&self) {
        let turns = &self.0.turns;
        // One thread writes it: no exchange is needed.
        turns.store(turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// What a shard sees of all this.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// The shard itself.
    pub own: Arc<Pulse>,
    /// The thread that makes its ticks.
    pub feed: Arc<Pulse>,
}

/// What a look found, once each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A thread has made no turn for so long.
    Late(Box<str>, u64),
    /// It goes on, after so long.
    GoesOn(Box<str>, u64),
    /// It has made no turn for so long that it is given up.
    Hangs(Box<str>, u64),
    /// The process did not run for so many milliseconds.
    Stood(u64),
    /// The wall clock was set by so many microseconds.
    ClockSet(i64),
    /// The machine slept, and the wall clock has gone on meanwhile by so many microseconds.
    Slept(i64),
}

/// Looks at pulses and at the clocks. It is given the time.
#[derive(Debug)]
pub struct Watcher {
    rows: Vec<Row>,
    steps: Arc<Steps>,
    /// After so long a thread hangs; 0: never.
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
    /// Watches these from now on. `slept_ns`: for how long the machine has slept so far.
    pub fn new(
        pulses: impl IntoIterator<Item = Arc<Pulse>>,
        steps: Arc<Steps>,
        hang_after_ms: u64,
        now: Now,
        slept_ns: u64,
    ) -> Self {
        let row = |pulse: Arc<Pulse>| Row { turns: pulse.turns.load(Ordering::Relaxed), pulse, stands_ns: 0 };
        let rows = pulses.into_iter().map(row).collect();
        // A thread that is not late yet is not known to hang.
        let hang_after_ms = if hang_after_ms == 0 { 0 } else { hang_after_ms.max(LATE_NS_MIN / MS) };
        Self { rows, steps, hang_after_ms, last: now, slept_ns }
    }

    /// One look; what is new.
    pub fn look(&mut self, now: Now, slept_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        let passed_ns = now.mono_ns.saturating_sub(self.last.mono_ns);
        if passed_ns >= STOOD_NS_MIN {
            self.steps.process_stood(passed_ns / MS);
            found.push(Finding::Stood(passed_ns / MS));
        }
        self.look_at_clocks(now, slept_ns, &mut found);
        self.last = now;
        // What is longer is not the others' lateness but the watcher's.
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

        /// Looks so often, ten times a second.
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
        // One that has ended is another matter.
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
