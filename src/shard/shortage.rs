//! The memory of a shard's clients, and how it is reclaimed when it is short: outboxes are bounded more tightly, and
//! the queues of slow clients are taken back, the largest first. A client that keeps up loses nothing, unless all
//! memory is in use.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::tick::{GapCause, Key, Stream};
use crate::protocol::json::{self, Said};
use crate::protocol::{Id, frame};
use crate::session::{Buffers, Ledger, Subscription};
use crate::system::memory::{Memory, MemoryDemand, MemoryLevel, REFUSAL, RETRY_AFTER_MS};

/// The code of the error for a request that is refused because memory is short.
pub(super) const SHORT_OF_MEMORY: &str = "short_of_memory";
/// What an outbox may hold outside the frame ring once the shard's share of memory is used, bytes: enough for a client
/// that keeps up, or for a portion of a recovery. When memory is critical: one message.
const OWN_BYTES_MAX: usize = 16_384;
/// Subscriptions that take fewer bytes are made without claiming memory.
const ASKED_BYTES_MIN: u64 = 1 << 16;
/// Bytes of a subscription to one stream: its entry in the directory, its place, and its entry in a queue while it is
/// dirty. Tables grow by doubling, hence half as much again.
const SUBSCRIPTION_BYTES: u64 = (size_of::<Subscription>() + 2 * size_of::<(Key, u32)>()) as u64 * 3 / 2;

/// How much memory a shard has to free, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    /// From the outboxes of slow clients: gaps or newer values stand for what they miss.
    pub shed_bytes: u64,
    /// By cutting slow clients.
    pub cut_bytes: u64,
    /// By cutting clients that keep up but hold very much.
    pub large_bytes: u64,
}

/// What is reclaimed from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// Its queue: gaps or newer values stand for what it misses.
    Queue,
    /// Everything: it is cut.
    Everything,
}

/// The memory of a shard's clients.
pub(super) struct Shortage {
    memory: Arc<Memory>,
    /// The number of the measurement by which outboxes were last bounded.
    sample: u64,
    /// Bytes that the kernel holds for watched clients, summed over this round so far.
    unacked_bytes: u64,
    /// The next client that is judged belongs to this round: its bytes count.
    counts_next: bool,
    /// The clients from which memory is reclaimed, one per turn.
    giving: VecDeque<(u32, u64, Gives)>,
}

impl Shortage {
    /// A shard under this bound: joins those that share it.
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        memory.join();
        Self { memory, sample: 0, unacked_bytes: 0, counts_next: false, giving: VecDeque::new() }
    }

    // ---- taking ---------------------------------------------------------------------------------------

    /// Whether this is refused because memory is short.
    pub(super) fn refuses(&self, asked: MemoryDemand) -> bool {
        self.memory.refuses(asked)
    }

    /// Whether there is memory to subscribe to this many instruments on this many channels.
    pub(super) fn has_room_for(&self, instruments: u64, channels: usize) -> bool {
        // And to the state of each.
        let subscriptions = instruments * (channels as u64 + 1);
        let bytes = subscriptions * SUBSCRIPTION_BYTES;
        bytes < ASKED_BYTES_MIN || self.memory.grants(MemoryDemand::Subscription, bytes)
    }

    /// After each measurement, bounds what outboxes may hold: what they hold now plus this shard's share of the spare
    /// memory. Beyond that, each may hold little outside the frame ring.
    pub(super) fn bound(&mut self, buffers: &Buffers) {
        let newest = self.memory.samples();
        if newest != self.sample {
            self.sample = newest;
            let held = buffers.lent_bytes() as u64;
            let most = usize::try_from(held.saturating_add(self.memory.share())).unwrap_or(usize::MAX);
            let own = if self.memory.level() >= MemoryLevel::Critical { 0 } else { OWN_BYTES_MAX };
            buffers.bound(most, own);
        }
    }

    /// Lengthens the frame ring, if it may grow and there is memory for it.
    #[cold]
    pub(super) fn lengthen_frame_ring(&self, buffers: &Buffers) -> bool {
        let next = buffers.next_frame_ring_bytes();
        next.is_some_and(|bytes| self.memory.claim(bytes as u64)) && buffers.lengthen()
    }

    // ---- what the kernel holds ------------------------------------------------------------------------

    /// Begins a round over the watched clients.
    pub(super) fn begin_round(&mut self) {
        self.unacked_bytes = 0;
    }

    /// Notes that the next client that is judged belongs to this round.
    pub(super) fn count_next(&mut self) {
        self.counts_next = true;
    }

    /// Counts the bytes that the kernel holds for a judged client, if it belongs to this round.
    pub(super) fn count(&mut self, unacked: u64) {
        if std::mem::take(&mut self.counts_next) {
            self.unacked_bytes += unacked;
        }
    }

    /// What the kernel holds for the clients of this round, bytes.
    pub(super) fn unacked_bytes(&self) -> u64 {
        self.unacked_bytes
    }

    // ---- giving back ----------------------------------------------------------------------------------

    /// Drops the clients that were chosen and have not given back yet.
    pub(super) fn choose_anew(&mut self) {
        self.giving.clear();
    }

    /// Chooses a client that gives memory back in one of the next turns.
    pub(super) fn choose(&mut self, id: u32, serial: u64, gives: Gives) {
        self.giving.push_back((id, serial, gives));
    }

    /// Takes the next client that gives memory back.
    pub(super) fn next_giving(&mut self) -> Option<(u32, u64, Gives)> {
        self.giving.pop_front()
    }

    /// Whether chosen clients are left.
    pub(super) fn has_giving(&self) -> bool {
        !self.giving.is_empty()
    }
}

impl Default for Shortage {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        self.memory.leave();
    }
}

/// The error for a request that is refused because memory is short.
pub(super) fn short_of_memory(name: Option<&Id>) -> serde_json::Value {
    let mut error = json::error(name, SHORT_OF_MEMORY, REFUSAL, true);
    error["retry_after_ms"] = RETRY_AFTER_MS.into();
    error
}

/// The contents of queued frames that are taken back.
pub(super) struct TakenBack<'a> {
    /// The first sequence number of each stream.
    firsts: FxHashMap<(&'a str, Stream), u64>,
    bytes: usize,
    counts: Ledger,
}

impl<'a> TakenBack<'a> {
    /// The updates at the end of a queue: answers and snapshots stay, and so does what is before them.
    pub(super) fn of(mut queued: &'a [u8]) -> Self {
        let mut taken = Self { firsts: FxHashMap::default(), bytes: 0, counts: Ledger::default() };
        while !queued.is_empty() {
            let (whole, behind) = queued.split_at(frame::len(queued).min(queued.len()));
            queued = behind;
            match frame::payload(whole).and_then(json::said) {
                Some(said) => taken.take(&said, whole.len()),
                None => {
                    taken.firsts.clear();
                    (taken.bytes, taken.counts) = (0, Ledger::default());
                }
            }
        }
        taken
    }

    /// Their size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How they were counted in the ledger.
    pub(super) fn counts(&self) -> Ledger {
        self.counts
    }

    /// The first sequence number of each stream.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (&'a str, Stream, u64)> {
        self.firsts.iter().map(|((symbol, stream), first)| (*symbol, *stream, *first))
    }

    fn take(&mut self, said: &Said<'a>, bytes: usize) {
        self.bytes += bytes;
        let stream = said.channel.map_or(Stream::Status, Stream::from);
        self.firsts.entry((said.symbol, stream)).or_insert(said.from);
        let numbers = (said.to + 1).saturating_sub(said.from);
        match said.why {
            _ if said.channel.is_none() => {}
            None => {
                self.counts.sent += 1;
                self.counts.merged += numbers.saturating_sub(1);
            }
            Some(GapCause::Feed | GapCause::Seek) => self.counts.lost += numbers,
            Some(GapCause::SlowConsumer | GapCause::Overrun | GapCause::Resume) => {
                self.counts.dropped += numbers;
            }
        }
    }
}
