//! The memory of a shard's clients, and what they give back where it is short: outboxes hold little of their own, and slow
//! clients give back what they hold, those that hold most first. A client that keeps up loses nothing by it, unless all
//! memory is in use.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::tick::{GapCause, Key, Stream};
use crate::protocol::json::{self, Said};
use crate::protocol::{Id, frame};
use crate::session::{Buffers, Ledger, Subscription};
use crate::system::memory::{Memory, MemoryDemand, MemoryLevel, REFUSAL, RETRY_AFTER_MS};

/// The code of the error that answers what is refused for want of memory.
pub(super) const SHORT_OF_MEMORY: &str = "short_of_memory";
/// What an outbox may hold of its own while memory is short: a moment of a client that keeps up, and a portion of what it
/// has to catch up with. When memory is critical, nothing but a message.
const OWN_BYTES_MAX: usize = 16_384;
/// Subscriptions that take fewer bytes are made without asking.
const ASKED_BYTES_MIN: u64 = 1 << 16;
/// What a subscription to one stream takes: its row, its place, and its turn while it waits for room. Tables grow by
/// doubling, so half as much again.
const SUBSCRIPTION_BYTES: u64 = (size_of::<Subscription>() + 2 * size_of::<(Key, u32)>()) as u64 * 3 / 2;

/// What a shard is to give back, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    /// By slow clients, out of their outboxes: gaps or newer values report what they miss.
    pub shed_bytes: u64,
    /// By slow clients that are cut.
    pub cut_bytes: u64,
    /// By clients that are cut though they keep up: those that hold very much.
    pub large_bytes: u64,
}

/// What a client gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// What is queued for it: gaps or newer values report what it misses.
    Queue,
    /// Everything: it is disconnected.
    Everything,
}

/// The memory of a shard's clients.
pub(super) struct Shortage {
    memory: Arc<Memory>,
    /// The measurement at which outboxes were bounded last.
    sample: u64,
    /// What the kernel holds for the clients that are watched, as far as this round has come.
    unacked_bytes: u64,
    /// A watched client is judged: what the kernel holds for it counts.
    counts_next: bool,
    /// The clients that give something back, one a turn.
    giving: VecDeque<(u32, u64, Gives)>,
}

impl Shortage {
    /// Keeps to this bound.
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        memory.join();
        Self { memory, sample: 0, unacked_bytes: 0, counts_next: false, giving: VecDeque::new() }
    }

    // ---- taking ---------------------------------------------------------------------------------------

    /// Whether there is so little memory that this is refused.
    pub(super) fn refuses(&self, asked: MemoryDemand) -> bool {
        self.memory.refuses(asked)
    }

    /// Whether there is memory for a request: for subscriptions to so many instruments on so many channels.
    pub(super) fn has_room_for(&self, instruments: u64, channels: usize) -> bool {
        // The state of each, too.
        let subscriptions = instruments * (channels as u64 + 1);
        let bytes = subscriptions * SUBSCRIPTION_BYTES;
        bytes < ASKED_BYTES_MIN || self.memory.grants(MemoryDemand::Subscription, bytes)
    }

    /// Bounds what outboxes may hold, after each measurement: this shard's share of what is spare more than they do. Beyond
    /// that each holds little that is not in the frame ring.
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

    /// Makes the frame ring longer, if it may be and there is memory for it.
    #[cold]
    pub(super) fn lengthen_frame_ring(&self, buffers: &Buffers) -> bool {
        let next = buffers.next_frame_ring_bytes();
        next.is_some_and(|bytes| self.memory.claim(bytes as u64)) && buffers.lengthen()
    }

    // ---- what the kernel holds ------------------------------------------------------------------------

    /// Watched clients are looked at from the first on.
    pub(super) fn begin_round(&mut self) {
        self.unacked_bytes = 0;
    }

    /// The client that is judged next is one of this round.
    pub(super) fn count_next(&mut self) {
        self.counts_next = true;
    }

    /// A client is judged, for which the kernel holds so many bytes.
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

    /// Drops what was chosen to be given back, and was not yet.
    pub(super) fn choose_anew(&mut self) {
        self.giving.clear();
    }

    /// Has a client give something back in one of the next turns.
    pub(super) fn choose(&mut self, id: u32, serial: u64, gives: Gives) {
        self.giving.push_back((id, serial, gives));
    }

    /// The next client that gives something back.
    pub(super) fn next_giving(&mut self) -> Option<(u32, u64, Gives)> {
        self.giving.pop_front()
    }

    /// Whether some are left that give something back.
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

/// The error that answers what is refused for want of memory.
pub(super) fn short_of_memory(name: Option<&Id>) -> serde_json::Value {
    let mut error = json::error(name, SHORT_OF_MEMORY, REFUSAL, true);
    error["retry_after_ms"] = RETRY_AFTER_MS.into();
    error
}

/// Contents of frames taken back.
pub(super) struct TakenBack<'a> {
    /// The first number of each stream.
    firsts: FxHashMap<(&'a str, Stream), u64>,
    bytes: usize,
    counts: Ledger,
}

impl<'a> TakenBack<'a> {
    /// The updates behind everything else that is queued: answers and snapshots stay, and so does what is before them.
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

    /// How many bytes that are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How they were counted.
    pub(super) fn counts(&self) -> Ledger {
        self.counts
    }

    /// The first number of each stream.
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
