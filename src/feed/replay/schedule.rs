//! The timing of a replay: when its records are due, under pauses, seeks and changes of speed.

use crate::protocol::replay::Speed;
use crate::time::clock::{Now, Pace};

/// The longest silence that is played unless `idle_ns_max` is set, in nanoseconds: one hour. A longer one is
/// probably a step of the recorder's clock, or the time between two captures, and is skipped entirely.
pub const SILENCE_NS_MAX: u64 = 3_600_000_000_000;

/// The schedule of a replay: `start + (time of the record − time of the start position) / speed`. A pause, a
/// change of speed and a seek each restart it at the exact position reached, so errors do not accumulate.
///
/// Times of records are those of the capture, in nanoseconds since the Unix epoch, and never go back.
#[derive(Debug)]
pub(super) struct ReplaySchedule {
    speed: Speed,
    /// The longest silence that is played; `None`: see [`SILENCE_NS_MAX`].
    idle_ns_max: Option<u64>,
    /// `Some` while it runs.
    pace: Option<Pace>,
    /// The position at which it last stopped or took a record; `None` before the first record, which is due
    /// at once.
    stood_ns: Option<u64>,
    /// The time of the newest record.
    last_ns: Option<u64>,
    /// How far the wall clock is [ahead](Now::ahead_ns) of steady time; `rx` follows it.
    ahead_ns: Option<u64>,
}

/// How far the wall clock may drift before `rx` follows it, in nanoseconds: two readings of the clocks never
/// agree exactly, and records due in order should have times in order.
const RUN_OFF_NS_MAX: u64 = 10_000_000;

impl ReplaySchedule {
    /// Returns a schedule that is stopped before the first record.
    pub(super) fn new(speed: Speed, idle_ns_max: Option<u64>) -> Self {
        Self { speed, idle_ns_max, pace: None, stood_ns: None, last_ns: None, ahead_ns: None }
    }

    /// Returns the speed.
    pub(super) fn speed(&self) -> Speed {
        self.speed
    }

    /// Returns when the next record is due, and starts the schedule; `None` at unlimited speed: at once.
    pub(super) fn due(&mut self, next_ns: u64, now: Now) -> Option<Now> {
        // Records without a time precede all that have one.
        if next_ns == 0 {
            return (!self.speed.is_flat_out()).then_some(now);
        }
        let (from_ns, factor) = (self.stood_ns.unwrap_or(next_ns), self.speed.factor());
        let reach_ns = self.reach(next_ns);
        let pace = self.pace.get_or_insert_with(|| Pace::new(now.mono_ns, from_ns, factor));
        let mono_ns = pace.due(reach_ns)?;
        Some(Now { mono_ns, wall_ns: mono_ns.wrapping_add(self.follow(now)) })
    }

    /// Returns how far the wall clock is ahead of steady time. It changes if the clock was set, or this
    /// thread was suspended between the two readings.
    fn follow(&mut self, now: Now) -> u64 {
        let ahead_ns = now.ahead_ns();
        let known = self.ahead_ns.filter(|known| {
            let off_ns = ahead_ns.wrapping_sub(*known) as i64;
            off_ns.unsigned_abs() <= RUN_OFF_NS_MAX
        });
        *self.ahead_ns.insert(known.unwrap_or(ahead_ns))
    }

    /// Records that the next record was taken.
    pub(super) fn took(&mut self, record_ns: u64) {
        if record_ns == 0 {
            return;
        }
        let skipped_ns = record_ns - self.reach(record_ns);
        if let Some(pace) = self.pace.as_mut().filter(|_| skipped_ns > 0) {
            pace.skip(skipped_ns);
        }
        (self.last_ns, self.stood_ns) = (Some(record_ns), Some(record_ns));
    }

    /// Returns the silence before a record, in nanoseconds.
    pub(super) fn silence_ns(&self, record_ns: u64) -> u64 {
        self.last_ns.map_or(0, |last| record_ns.saturating_sub(last))
    }

    /// Returns the position that has to be reached for a record.
    fn reach(&self, record_ns: u64) -> u64 {
        let Some(last_ns) = self.last_ns else { return record_ns };
        match self.idle_ns_max {
            Some(idle_ns_max) => record_ns.min(last_ns.saturating_add(idle_ns_max)),
            None if record_ns.saturating_sub(last_ns) > SILENCE_NS_MAX => last_ns,
            None => record_ns,
        }
    }

    /// Returns the position, which is before the next record; `None` before the first.
    pub(super) fn position_ns(&self, next_ns: Option<u64>, now: Now) -> Option<u64> {
        let at_ns = match &self.pace {
            Some(pace) if !self.speed.is_flat_out() => pace.at(now.mono_ns),
            _ => return self.stood_ns,
        };
        let least = self.last_ns.or(self.stood_ns).unwrap_or(0);
        let most = next_ns.map_or(least, |next| self.reach(next));
        Some(at_ns.clamp(least, most.max(least)))
    }

    /// Stops at the current position.
    pub(super) fn stand(&mut self, next_ns: Option<u64>, now: Now) {
        self.stood_ns = self.position_ns(next_ns, now);
        self.pace = None;
    }

    /// Changes the speed at the current position.
    pub(super) fn set_speed(&mut self, speed: Speed, next_ns: Option<u64>, now: Now) {
        self.stand(next_ns, now);
        self.speed = speed;
    }

    /// Stops at another position.
    pub(super) fn place(&mut self, at_ns: u64) {
        (self.pace, self.stood_ns, self.last_ns) = (None, Some(at_ns), Some(at_ns));
    }

    /// Stops before the first record.
    pub(super) fn rewind(&mut self) {
        (self.pace, self.stood_ns, self.last_ns) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::clock::{Clock, MS, SECOND};

    /// The start of the capture.
    const T: u64 = 1_700_000_000 * SECOND;

    struct Rig {
        clock: Clock,
        schedule: ReplaySchedule,
    }

    impl Rig {
        fn new(speed: f64, idle_ns_max: Option<u64>) -> Self {
            let speed = Speed::new(speed).expect("a speed");
            Self { clock: Clock::manual(), schedule: ReplaySchedule::new(speed, idle_ns_max) }
        }

        /// Returns when a record is due, in milliseconds of the clock.
        fn due(&mut self, offset_ns: u64) -> u64 {
            let due = self.schedule.due(T + offset_ns, self.clock.now()).expect("not flat out");
            let now = self.clock.now();
            assert_eq!(due.wall_ns.wrapping_sub(now.wall_ns), due.mono_ns.wrapping_sub(now.mono_ns));
            due.mono_ns / MS
        }

        /// Waits until a record is due, and takes it.
        fn take(&mut self, offset_ns: u64) {
            let due_ms = self.due(offset_ns);
            self.pass(due_ms.saturating_sub(self.now_ms()));
            self.schedule.took(T + offset_ns);
        }

        fn pass(&self, ms: u64) {
            self.clock.advance(Duration::from_millis(ms));
        }

        fn now_ms(&self) -> u64 {
            self.clock.now().mono_ns / MS
        }

        fn position(&self, next_ns: u64) -> u64 {
            let at = self.schedule.position_ns(Some(T + next_ns), self.clock.now()).expect("a place");
            at - T
        }
    }

    #[test]
    fn records_are_due_from_one_origin_at_any_speed() {
        for (speed, second_ms, hour_ms) in
            [(1.0, 1_000, 3_600_000), (10.0, 100, 360_000), (0.01, 100_000, 360_000_000), (1000.0, 1, 3_600)]
        {
            let mut rig = Rig::new(speed, None);
            assert_eq!(rig.due(0), 0, "the first at once");
            rig.take(0);
            // A late record does not delay the next one.
            rig.pass(second_ms / 2);
            assert_eq!(rig.due(SECOND), second_ms);
            rig.pass(3 * second_ms);
            rig.take(SECOND);
            assert_eq!(rig.due(3_600 * SECOND), hour_ms);
        }
        let mut flat_out = Rig::new(0.0, None);
        assert_eq!(flat_out.schedule.due(T, flat_out.clock.now()), None);
    }

    #[test]
    fn a_pause_takes_place_between_two_records_and_moves_nothing() {
        let mut rig = Rig::new(2.0, None);
        rig.take(0);
        for round in 0..100 {
            // 7 ms of time are 14 ms of the capture.
            rig.pass(7);
            let now = rig.clock.now();
            rig.schedule.stand(Some(T + 60 * SECOND), now);
            rig.pass(1_000 * round);
            assert_eq!(rig.position(60 * SECOND), (round + 1) * 14 * MS, "it stands");
            assert_eq!(rig.due(60 * SECOND), rig.now_ms() + (60_000 - (round + 1) * 14) / 2);
        }
    }

    #[test]
    fn another_speed_counts_from_where_it_was() {
        let mut rig = Rig::new(1.0, None);
        rig.take(0);
        rig.pass(500);
        let faster = Speed::new(10.0).expect("a speed");
        rig.schedule.set_speed(faster, Some(T + 2 * SECOND), rig.clock.now());
        assert_eq!(rig.due(2 * SECOND), 650);
        rig.pass(100);
        assert_eq!(rig.position(2 * SECOND), 1_500 * MS);
        rig.schedule.set_speed(Speed::FLAT_OUT, Some(T + 2 * SECOND), rig.clock.now());
        assert_eq!(rig.schedule.due(T + 2 * SECOND, rig.clock.now()), None);
        assert_eq!(rig.position(2 * SECOND), 1_500 * MS);
        rig.schedule.took(T + 2 * SECOND);
        rig.schedule.set_speed(Speed::RECORDED, Some(T + 3 * SECOND), rig.clock.now());
        assert_eq!(rig.due(3 * SECOND), rig.now_ms() + 1_000);
    }

    #[test]
    fn long_silences_are_cut_and_nothing_else_moves() {
        let mut rig = Rig::new(2.0, Some(5 * SECOND));
        rig.take(0);
        rig.take(5 * SECOND);
        assert_eq!(rig.now_ms(), 2_500);
        // A silence of one hour takes five seconds.
        rig.pass(1_000);
        assert_eq!(rig.position(3_600 * SECOND), 7 * SECOND);
        assert_eq!(rig.due(3_600 * SECOND), 5_000);
        rig.pass(9_000);
        assert_eq!(rig.position(3_600 * SECOND), 10 * SECOND, "not into what is left out");
        rig.take(3_600 * SECOND);
        assert_eq!(rig.due(3_601 * SECOND), 5_500, "late as it came");
    }

    #[test]
    fn after_a_jump_time_counts_from_there() {
        let mut rig = Rig::new(1.0, Some(60 * SECOND));
        rig.take(0);
        rig.pass(300);
        rig.schedule.place(T + 1_000 * SECOND);
        assert_eq!(rig.position(1_001 * SECOND), 1_000 * SECOND);
        assert_eq!(rig.due(1_001 * SECOND), 1_300);
        rig.schedule.rewind();
        assert_eq!(rig.due(0), 300);
        // Records without a time come first.
        assert_eq!(rig.schedule.due(0, rig.clock.now()), Some(rig.clock.now()));
    }
}
