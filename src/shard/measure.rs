//! Which writes are measured, and how.

use crate::latency::meter::Meter;
use crate::latency::{Log2Histogram, NS_MAX, Stage};
use crate::session::{Session, Times};
use crate::system::counters::ShardCounters;
use crate::time::clock::Clock;

/// The first writes of a turn, which are all measured.
const MEASURED: u32 = 4;

/// After them, one write in this many is measured, and the last.
const SAMPLED: u32 = 16;

/// The counters and the meter for a write.
pub(super) struct WriteContext<'a> {
    counters: &'a ShardCounters,
    clock: &'a Clock,
    meter: &'a mut Meter,
    sample: &'a mut Sample,
}

/// Selects which writes of a turn are measured, because a measurement takes as long as a thirtieth of a write.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Writes that are left in this turn.
    left: u32,
    /// Writes of this turn so far.
    writes: u32,
    /// Ticks of writes that were not measured. The next measured write stands for them, too.
    skipped: u64,
}

impl Sample {
    /// Begins a turn with this many writes.
    pub(super) fn begin(&mut self, writes: usize) {
        (self.left, self.writes) = (writes as u32, 0);
    }

    /// Counts a write. True if it is measured.
    #[inline]
    fn takes(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.writes = self.writes.wrapping_add(1);
        self.writes <= MEASURED || self.writes.is_multiple_of(SAMPLED) || self.left == 0
    }
}

impl<'a> WriteContext<'a> {
    #[inline]
    pub(super) fn new(
        counters: &'a ShardCounters,
        clock: &'a Clock,
        meter: &'a mut Meter,
        sample: &'a mut Sample,
    ) -> Self {
        Self { counters, clock, meter, sample }
    }

    /// The counters of the shard.
    #[inline]
    pub(super) fn counters(&self) -> &'a ShardCounters {
        self.counters
    }

    /// Measures a write: the kernel has just taken the first `n` bytes that waited for a session.
    #[inline]
    pub(super) fn measure(&mut self, session: &Session, way: &mut Option<Box<Log2Histogram>>, n: usize) {
        let Self { clock, meter, sample, .. } = self;
        if !meter.is_on() || n == 0 {
            return;
        }
        let takes = sample.takes();
        if session.has_refused() {
            // Not sampled: it stands for no other write and no other for it, because clients without such waits are
            // measured apart.
            return self.measure_refused(session, way, n);
        }
        if !takes {
            sample.skipped += u64::from(session.ticks_within(n));
            return;
        }
        let now_ns = clock.wall_ns();
        let told = session.going(n, sample.skipped, |times, own, weight| {
            let Times { rx_ns, tx_ns, class, instrument } = times;
            meter.record(Stage::Write, class, tx_ns, now_ns, weight);
            if let Some(ns) = meter.record_way(instrument, class, rx_ns, now_ns, weight) {
                way.get_or_insert_default().record(ns, own);
            }
        });
        if told {
            sample.skipped = 0;
        }
    }

    /// As [`measure`](Self::measure), if the socket refused some of these bytes before: that wait is attributed to the
    /// client.
    #[cold]
    fn measure_refused(&mut self, session: &Session, way: &mut Option<Box<Log2Histogram>>, n: usize) {
        let Self { clock, meter, .. } = self;
        let now_ns = clock.wall_ns();
        session.going_refused(n, |times, refused| {
            let Times { rx_ns, tx_ns, class, instrument } = times;
            let (stage, ours_ns) = if refused { (Stage::SlowClient, tx_ns) } else { (Stage::Write, now_ns) };
            meter.record(stage, class, tx_ns, now_ns, 1);
            let measured = meter.record_way(instrument, class, rx_ns, ours_ns, 1).is_some();
            // What the client experienced is the sum of both.
            if let Some(ns) = now_ns.checked_sub(rx_ns).filter(|_| measured) {
                way.get_or_insert_default().record(ns.min(NS_MAX), 1);
            }
        });
    }
}
