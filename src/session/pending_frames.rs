//! The pending frames of a session: what it was offered since it was last accessed, in two cache lines.

use super::buffers::{Buffers, FrameRange};

/// Maximum number of runs of consecutive frames.
const RUNS_MAX: usize = 28;
/// A run is the lowest bits of the number of its first frame, then, in this many bits, how many more frames follow.
const MORE_BITS: u32 = 7;
const MORE_MAX: u32 = (1 << MORE_BITS) - 1;

/// Frames in the frame ring that are pushed for one session.
///
/// A tick for a hundred sessions rarely finds them in the cache. A session, its outbox and its list of ranges take four
/// cache lines, reached through two others. Its row of pending frames takes two, in a table, and the second is needed
/// only if very many frames are pending. So ticks are pushed to that row, and [absorbed](super::Session::absorb) before
/// the session is accessed. The row of a session that cannot simply be offered a tick has no
/// [room](super::Session::room).
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct PendingFrames {
    /// When the first pending frame was pushed, in nanoseconds of steady time.
    since_ns: u64,
    /// Bytes that may still be pushed.
    room: u32,
    /// How many pending frames count as sent in the ledger.
    counted: u16,
    /// The number of runs.
    used: u8,
    /// Its session is in the queue of those with something to write. It is kept here because each tick reads it.
    pub queued: bool,
    runs: [u32; RUNS_MAX],
}

const _: () = assert!(size_of::<PendingFrames>() == 128, "two lines of memory");

impl PendingFrames {
    /// Pushes a frame; returns false if there is no room.
    #[inline]
    pub fn push(&mut self, range: FrameRange, counted: bool, now_ns: u64) -> bool {
        let Some(left) = (self.room as usize).checked_sub(range.len) else { return false };
        let run = range.first() << MORE_BITS;
        let used = usize::from(self.used);
        match self.runs[..used].last_mut() {
            Some(last) if *last & MORE_MAX < MORE_MAX && joins(*last, run) => *last += 1,
            _ => {
                let Some(free) = self.runs.get_mut(used) else { return false };
                *free = run;
                if used == 0 {
                    self.since_ns = now_ns;
                }
                self.used += 1;
            }
        }
        self.room = left as u32;
        self.counted += u16::from(counted);
        true
    }

    /// Prefetches what a tick needs. The returned number has no meaning.
    #[inline]
    pub fn prefetch(&self) -> usize {
        self.runs[usize::from(self.used).min(RUNS_MAX - 1)] as usize
    }

    /// Returns true if no frame is pending.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Sets how many more bytes may be pushed.
    pub fn set_room(&mut self, bytes: usize) {
        self.room = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Returns when the first pending frame was pushed, in nanoseconds of steady time.
    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Passes all pending frames to `to`, in order, and removes them. Returns how many count as sent in the ledger.
    ///
    /// # Panics
    /// If the frame ring has reclaimed one of them: a frame that counts as sent would be lost without a number. Rows
    /// are [absorbed](super::Session::absorb) before the frame ring reclaims their frames.
    #[inline(always)]
    pub(super) fn take(&mut self, buffers: &Buffers, mut to: impl FnMut(FrameRange)) -> u64 {
        let counted = u64::from(std::mem::take(&mut self.counted));
        for run in &self.runs[..usize::from(self.used)] {
            let count = (run & MORE_MAX) + 1;
            let range = buffers.range(run >> MORE_BITS, u32::BITS - MORE_BITS, count);
            to(range.expect("the frame ring holds the pending frames"));
        }
        self.used = 0;
        counted
    }
}

/// Returns true if a run of one frame begins where the run `last` ends.
#[inline]
fn joins(last: u32, run: u32) -> bool {
    (last >> MORE_BITS).wrapping_add((last & MORE_MAX) + 1) << MORE_BITS == run
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::buffers::{FRAME_RING_BYTES_MIN, Times};
    use super::*;
    use crate::latency::meter::Class;
    use crate::model::instrument::InstrumentId;
    use crate::model::tick::Channel;

    fn append(buffers: &Buffers, frame: &[u8]) -> FrameRange {
        if !buffers.has_room() {
            buffers.reclaim(buffers.reclaim_before());
        }
        let times =
            Times { rx_ns: 0, tx_ns: 0, class: Class::new(0, Channel::Trade), instrument: InstrumentId(0) };
        buffers.append(frame, times).expect("there is room")
    }

    /// What is taken off a row of pending frames: the bytes, when it was pushed, how much was counted.
    fn taken(pending_frames: &mut PendingFrames, buffers: &Buffers) -> (Vec<u8>, u64, u64) {
        let (mut bytes, since_ns) = (Vec::new(), pending_frames.since_ns());
        let counted =
            pending_frames.take(buffers, |range| buffers.read(range, |part| bytes.extend_from_slice(part)));
        (bytes, since_ns, counted)
    }

    proptest! {
        /// Whatever is pushed comes off again, the same and in order, wherever it stands in the frame ring.
        #[test]
        fn what_is_laid_is_taken(
            frames in prop::collection::vec((1_usize..400, any::<bool>(), 0_u8..8), 1..400),
            before in 0_usize..200,
        ) {
            let buffers = Buffers::new(FRAME_RING_BYTES_MIN);
            (0..before).for_each(|n| { append(&buffers, &vec![b'x'; 100 + n]); });
            let mut pending_frames = PendingFrames::default();
            pending_frames.set_room(FRAME_RING_BYTES_MIN / 4);
            let (mut pushed, mut counted, mut first, mut room) = (Vec::new(), 0, None, FRAME_RING_BYTES_MIN / 4);
            for (nth, (len, counts, dice)) in frames.iter().enumerate() {
                let frame = vec![nth as u8; *len];
                // As a shard does it, before the frame ring comes round.
                let comes_round = !buffers.has_room();
                let range = (!comes_round).then(|| append(&buffers, &frame));
                // Some are for others, or nothing would ever end a run.
                if let Some(range) = range.filter(|_| *dice > 0)
                    && pending_frames.push(range, *counts, nth as u64)
                {
                    pushed.extend_from_slice(&frame);
                    counted += u64::from(*counts);
                    first = first.or(Some(nth as u64));
                    room -= len;
                    continue;
                }
                if !comes_round && *dice == 0 {
                    continue;
                }
                let full = usize::from(pending_frames.used) == RUNS_MAX;
                prop_assert!(comes_round || full || *len > room, "{len} of {room}");
                let (bytes, since, sum) = taken(&mut pending_frames, &buffers);
                prop_assert_eq!(bytes, std::mem::take(&mut pushed));
                prop_assert!(first.is_none_or(|first| first == since));
                prop_assert_eq!((sum, pending_frames.is_empty()), (std::mem::take(&mut counted), true));
                room = FRAME_RING_BYTES_MIN / 4;
                pending_frames.set_room(room);
                first = None;
                if comes_round {
                    buffers.reclaim(buffers.reclaim_before());
                }
            }
            let (bytes, _, sum) = taken(&mut pending_frames, &buffers);
            prop_assert_eq!((bytes, sum), (pushed, counted));
        }
    }

    #[test]
    #[should_panic(expected = "the frame ring holds the pending frames")]
    fn a_frame_that_the_frame_ring_forgot_is_not_lost_in_silence() {
        let buffers = Buffers::new(FRAME_RING_BYTES_MIN);
        let mut pending_frames = PendingFrames::default();
        pending_frames.set_room(usize::MAX);
        assert!(pending_frames.push(append(&buffers, b"frame"), true, 1));
        (0..FRAME_RING_BYTES_MIN).for_each(|_| {
            append(&buffers, &[b'x'; 100]);
        });
        taken(&mut pending_frames, &buffers);
    }

    #[test]
    fn a_run_is_as_long_as_its_count_and_its_numbers_wrap() {
        let buffers = Buffers::default();
        let mut pending_frames = PendingFrames::default();
        pending_frames.set_room(usize::MAX);
        let frame = [b'y'; 10];
        // One instrument that ticks fast: very many frames in a row.
        let mut all = 0;
        while pending_frames.push(append(&buffers, &frame), true, 1) {
            all += 1;
        }
        assert_eq!(all, RUNS_MAX as u64 * (u64::from(MORE_MAX) + 1));
        let (bytes, _, counted) = taken(&mut pending_frames, &buffers);
        assert_eq!((bytes.len() as u64, counted), (10 * all, all));
        let last = u32::MAX << MORE_BITS;
        assert!(joins(last, 0) && joins(last - (1 << MORE_BITS) + 1, 0) && !joins(last, last));
    }
}
