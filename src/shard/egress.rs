//! The output of a shard: frames, the frame ring, the queues of sessions with something to write, and the counts and
//! measurements of writes.

use std::collections::VecDeque;

use super::frames::Frames;
use super::measure::{Sample, WriteContext};
use crate::latency::Stage;
use crate::latency::meter::Meter;
use crate::model::instrument::Symbol;
use crate::model::tick::Tick;
use crate::session::{Buffers, FrameRange, Ledger, Times};
use crate::system::counters::ShardCounters;
use crate::time::clock::Clock;

/// Frames, queues, counts and measurements of a shard's writes.
pub(super) struct Egress {
    frames: Frames,
    /// The frame ring, and the chunks of outboxes.
    buffers: Buffers,
    /// Sessions with something to write, the longest waiting first, each with the head of the frame ring when its wait
    /// began: its pending frames lie after that position.
    flush_queue: VecDeque<(u32, u64)>,
    /// The same for rereading sessions, which missed much: others do not wait for them.
    bulk_queue: VecDeque<(u32, u64)>,
    /// The sum of the ledgers of all sessions, ended ones included.
    totals: Ledger,
    meter: Meter,
    sample: Sample,
}

impl Egress {
    /// With a frame ring of at most `frame_ring_bytes`, and without measurements.
    pub(super) fn new(frame_ring_bytes: usize) -> Self {
        Self {
            frames: Frames::default(),
            buffers: Buffers::new(frame_ring_bytes),
            flush_queue: VecDeque::new(),
            bulk_queue: VecDeque::new(),
            totals: Ledger::default(),
            meter: Meter::off(),
            sample: Sample::default(),
        }
    }

    // ---- frames ---------------------------------------------------------------------------------------

    /// The encoder of frames.
    #[inline]
    pub(super) fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// The frame of a message for one session.
    pub(super) fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.frames.text(write)
    }

    /// Encodes a tick and appends its frame to the frame ring; `None` if there is no room for it. Sets `times.tx_ns`, and
    /// measures the time since `taken_ns`, when the tick was taken from the ring, with this weight.
    #[inline]
    pub(super) fn append(
        &mut self,
        (tick, symbol): (&Tick, &Symbol),
        times: &mut Times,
        (taken_ns, weight): (u64, u64),
        clock: &Clock,
    ) -> Option<FrameRange> {
        times.tx_ns = clock.wall_ns();
        self.frames.encode(tick, symbol, times.tx_ns / 1_000);
        let range = self.buffers.append(self.frames.encoded(), *times);
        self.meter.record(Stage::Encode, times.class, taken_ns, times.tx_ns, weight);
        range
    }

    /// The buffers that outboxes share.
    #[inline]
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    // ---- queues ---------------------------------------------------------------------------------------

    /// Queues a session for writing. Its pending frames lie in the frame ring after position `since`.
    #[inline]
    pub(super) fn enqueue(&mut self, id: u32, since: u64) {
        self.flush_queue.push_back((id, since));
    }

    /// As [`enqueue`](Self::enqueue), with the current head of the frame ring. `reads`: the session rereads.
    pub(super) fn enqueue_now(&mut self, id: u32, reads: bool) {
        let since = self.buffers.head();
        let queue = if reads { &mut self.bulk_queue } else { &mut self.flush_queue };
        queue.push_back((id, since));
    }

    /// Begins the writes of a turn, at most `most`. Returns how many there are.
    pub(super) fn begin_writes(&mut self, most: usize) -> usize {
        let writes = most.min(self.flush_queue.len());
        self.sample.begin(writes);
        writes
    }

    /// Takes the session that has waited longest.
    pub(super) fn next_write(&mut self) -> Option<u32> {
        self.flush_queue.pop_front().map(|(id, _)| id)
    }

    /// The sessions that are written to next.
    pub(super) fn upcoming(&self, count: usize) -> impl Iterator<Item = u32> {
        self.flush_queue.iter().take(count).map(|(id, _)| *id)
    }

    /// How many rereading sessions have something to write.
    pub(super) fn bulk_writes(&self) -> usize {
        self.bulk_queue.len()
    }

    /// Takes the rereading session that has waited longest.
    pub(super) fn next_bulk_write(&mut self) -> Option<u32> {
        self.bulk_queue.pop_front().map(|(id, _)| id)
    }

    /// True while a session has something to write.
    pub(super) fn has_writes(&self) -> bool {
        !(self.flush_queue.is_empty() && self.bulk_queue.is_empty())
    }

    /// Whether a session that does not reread has waited since before this position of the frame ring.
    pub(super) fn is_late(&self, before: u64) -> bool {
        self.flush_queue.front().is_some_and(|(_, since)| *since < before)
    }

    /// All sessions that have waited since before this position of the frame ring.
    pub(super) fn late(&self, before: u64) -> impl Iterator<Item = u32> {
        let late = move |queue: &'_ VecDeque<(u32, u64)>| {
            queue.iter().take_while(|(_, since)| *since < before).count()
        };
        let bulk = self.bulk_queue.iter().take(late(&self.bulk_queue));
        self.flush_queue.iter().take(late(&self.flush_queue)).chain(bulk).map(|(id, _)| *id)
    }

    // ---- counts and measurements ----------------------------------------------------------------------

    /// Counts what a session was sent, or lost.
    #[inline]
    pub(super) fn count(&mut self, counts: Ledger) {
        self.totals += counts;
    }

    /// Publishes the counts.
    pub(super) fn publish(&self, counters: &ShardCounters) {
        let Ledger { sent, merged, dropped, lost } = self.totals;
        counters.sent.set(sent);
        counters.merged.set(merged);
        counters.dropped.set(dropped);
        counters.lost.set(lost);
        self.frames.publish(counters);
    }

    /// Measures with this from now on.
    pub(super) fn measure_with(&mut self, meter: Meter) {
        self.meter = meter;
    }

    #[inline]
    pub(super) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// When the measurements are to be handed over, by the clock of the machine.
    pub(super) fn meter_due_ns(&self) -> Option<u64> {
        self.meter.due_ns()
    }

    /// The counters and the meter for a write.
    #[inline]
    pub(super) fn write_context<'a>(
        &'a mut self,
        counters: &'a ShardCounters,
        clock: &'a Clock,
    ) -> WriteContext<'a> {
        WriteContext::new(counters, clock, &mut self.meter, &mut self.sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::FRAME_RING_BYTES_MIN;

    #[test]
    fn each_queue_has_its_order_and_its_late_ones() {
        let mut egress = Egress::new(FRAME_RING_BYTES_MIN);
        assert!(!egress.has_writes() && egress.next_write().is_none());
        egress.enqueue(1, 10);
        egress.enqueue(2, 20);
        egress.enqueue_now(3, true);
        assert!(egress.is_late(11) && !egress.is_late(10));
        assert_eq!(egress.late(11).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(egress.late(21).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(egress.begin_writes(1), 1);
        assert_eq!(egress.upcoming(8).collect::<Vec<_>>(), [1, 2]);
        assert_eq!([egress.next_write(), egress.next_write(), egress.next_write()], [Some(1), Some(2), None]);
        assert!(egress.has_writes());
        assert_eq!((egress.bulk_writes(), egress.next_bulk_write()), (1, Some(3)));
        assert!(!egress.has_writes());
    }
}
