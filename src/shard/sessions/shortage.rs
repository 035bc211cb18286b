//! What a shard does where memory is short: outboxes hold little of their own, and slow clients give back what they hold,
//! those that hold most first. A client that keeps up loses nothing by it, unless all memory is in use.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::instrument::Symbol;
use crate::model::tick::{GapCause, Key, Stream};
use crate::protocol::close::Close;
use crate::protocol::json::{self, Said};
use crate::protocol::{Id, Subscribe, frame};
use crate::session::{Ledger, Subscription};
use crate::shard::sessions::connection::Connection;
use crate::shard::sessions::{Sessions, Socket};
use crate::system::counters::Ending;
use crate::system::memory::{Asked, Level, Memory, REFUSAL, RETRY_AFTER_MS};
use crate::time::clock::Now;

/// The code of the error that answers what is refused for want of memory.
pub(in crate::shard) const SHORT_OF_MEMORY: &str = "short_of_memory";
/// What an outbox may hold of its own while memory is short: a moment of a client that keeps up, and a portion of what it
/// has to catch up with. When memory is critical, nothing but a message.
const OWN_BYTES_MAX: usize = 16_384;
/// Outboxes that hold less are left alone: there is nothing to be gained.
const QUEUE_BYTES_MIN: u64 = 4_096;
/// Slow clients that hold less are not cut.
const SLOW_BYTES_MIN: u64 = 16_384;
/// Clients that keep up and hold less are never cut for want of memory.
const LARGE_BYTES_MIN: u64 = 1 << 20;
/// Subscriptions that take fewer bytes are made without asking.
const ASKED_BYTES_MIN: u64 = 1 << 16;

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
enum Gives {
    Queue,
    Everything,
}

/// The memory of a shard's clients.
pub(in crate::shard) struct Shortage {
    pub(in crate::shard) memory: Arc<Memory>,
    /// The measurement at which outboxes were bounded last.
    sample: u64,
    /// What the kernel holds for the clients that are watched, as far as this look has come.
    pub(in crate::shard) unacked_bytes: u64,
    /// A client is looked at: what the kernel holds for it counts.
    pub(in crate::shard) looks: bool,
    /// The clients that give something back, one a turn.
    giving: VecDeque<(u32, u64, Gives)>,
}

impl Shortage {
    fn new(memory: Arc<Memory>) -> Self {
        memory.join();
        Self { memory, sample: 0, unacked_bytes: 0, looks: false, giving: VecDeque::new() }
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
pub(in crate::shard) fn short_of_memory(name: Option<&Id>) -> serde_json::Value {
    let mut error = json::error(name, SHORT_OF_MEMORY, REFUSAL, true);
    error["retry_after_ms"] = RETRY_AFTER_MS.into();
    error
}

/// Contents of frames taken back.
struct TakenBack<'a> {
    /// The first number of each stream.
    firsts: FxHashMap<(&'a str, Stream), u64>,
    bytes: usize,
    counts: Ledger,
}

impl<'a> TakenBack<'a> {
    /// The updates behind everything else that is queued: answers and snapshots stay, and so does what is before them.
    fn of(mut queued: &'a [u8]) -> Self {
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

impl<S: Socket> Sessions<S> {
    /// Keeps to this bound from now on.
    pub fn bound_by(&mut self, memory: Arc<Memory>) {
        self.shortage = Shortage::new(memory);
    }

    // ---- taking ---------------------------------------------------------------------------------------

    /// Counts what outboxes hold, once a turn. With each measurement they may hold this shard's share of what is spare more;
    /// beyond it each holds little that is not in the frame ring.
    pub(in crate::shard) fn look_at_memory(&mut self) {
        let held = self.buffers.lent_bytes() as u64;
        self.counters.outbox_bytes.set(held);
        if self.watched.is_empty() {
            self.counters.unacked_bytes.set(0);
        }
        let Shortage { memory, sample, .. } = &mut self.shortage;
        let newest = memory.samples();
        if newest != *sample {
            *sample = newest;
            let most = usize::try_from(held.saturating_add(memory.share())).unwrap_or(usize::MAX);
            let own = if memory.level() >= Level::Critical { 0 } else { OWN_BYTES_MAX };
            self.buffers.bound(most, own);
        }
    }

    /// Makes the frame ring longer, if it may be and there is memory for it.
    #[cold]
    pub(in crate::shard) fn lengthen_frame_ring(&self) -> bool {
        let next = self.buffers.next_frame_ring_bytes();
        next.is_some_and(|bytes| self.shortage.memory.claim(bytes as u64)) && self.buffers.lengthen()
    }

    /// Whether there is memory for what a client wants to subscribe to.
    pub(in crate::shard) fn has_memory_for(&self, wanted: &Subscribe) -> bool {
        let is_wide = |text: &String| text == "*" || text.ends_with(":*");
        let instruments = |text| if is_wide(text) { self.known as u64 } else { 1 };
        let instruments: u64 = wanted.symbols.iter().map(instruments).sum();
        // Its state, too.
        let subscriptions = instruments * (wanted.channels.len() as u64 + 1);
        let bytes = subscriptions * SUBSCRIPTION_BYTES;
        bytes < ASKED_BYTES_MIN || self.shortage.memory.grants(Asked::Subscription, bytes)
    }

    // ---- giving back ----------------------------------------------------------------------------------

    /// Chooses the clients that give memory back. An earlier choice is dropped as far as it was not carried out.
    pub fn relieve(&mut self, relief: Relief) {
        self.shortage.giving.clear();
        let mut slow = Vec::new();
        for (id, serial) in &self.watched {
            if let Some(connection) = self.connections.get(*id).filter(|c| c.serial == *serial)
                && connection.session.is_slow()
                && !connection.session.is_closing()
            {
                let queue = connection.session.outbox_held_bytes() as u64;
                slow.push((connection.held_bytes(), queue, *id, *serial));
            }
        }
        slow.sort_unstable_by_key(|(held, ..)| Reverse(*held));
        let mut left = relief.cut_bytes;
        let cut = slow.iter().take_while(|(held, ..)| {
            let goes = left > 0 && *held >= SLOW_BYTES_MIN;
            left = left.saturating_sub(*held);
            goes
        });
        let cut: Vec<_> = cut.map(|(_, _, id, serial)| (*id, *serial, Gives::Everything)).collect();
        let mut queues = slow.split_off(cut.len());
        queues.sort_unstable_by_key(|(_, queue, ..)| Reverse(*queue));
        self.shortage.giving.extend(cut);
        if left > 0 && relief.large_bytes > 0 {
            self.relieve_of_large(relief.large_bytes.min(left));
        }
        let mut left = relief.shed_bytes;
        for (_, queue, id, serial) in queues {
            if left == 0 || queue < QUEUE_BYTES_MIN {
                break;
            }
            left = left.saturating_sub(queue);
            self.shortage.giving.push_back((id, serial, Gives::Queue));
        }
    }

    /// The last resort: all memory is in use, and slow clients hold too little of it.
    fn relieve_of_large(&mut self, mut left: u64) {
        let held = self.connections.iter_mut().map(|(id, c)| (c.held_bytes(), id, c.serial));
        let mut large: Vec<_> = held.filter(|(held, ..)| *held >= LARGE_BYTES_MIN).collect();
        large.sort_unstable_by_key(|(held, ..)| Reverse(*held));
        for (held, id, serial) in large {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(held);
            self.shortage.giving.push_back((id, serial, Gives::Everything));
        }
    }

    /// Takes back what one of the chosen clients holds. True if there are more.
    pub(in crate::shard) fn give_back(&mut self, now: Now) -> bool {
        let Some((id, serial, gives)) = self.shortage.giving.pop_front() else { return false };
        if self.connections.get(id).is_some_and(|c| c.serial == serial) {
            match gives {
                Gives::Queue => self.take_queue_back(id, now),
                Gives::Everything => self.cut_for(id, Close::SlowConsumer, Ending::Memory, now),
            }
        }
        let more = !self.shortage.giving.is_empty();
        if !more {
            // Chunks that wait to be lent again are no use to the rest of the process.
            self.buffers.shrink();
        }
        more
    }

    /// What is queued for a slow client is not sent after all: its subscriptions are dirty from there on.
    fn take_queue_back(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        // A request that is carried out in portions may have ended subscriptions that frames are queued of.
        if connection.session.is_closing() || connection.work.is_some() {
            return;
        }
        let queued = connection.session.queued();
        let taken = TakenBack::of(&queued);
        if taken.bytes == 0 {
            return;
        }
        let key = |(symbol, stream): &(&str, Stream)| {
            let instrument = self.table.find(&Symbol::parse(symbol).ok()?)?;
            Some(Key::new(instrument, *stream))
        };
        let places = taken.firsts.iter().filter_map(|(name, first)| {
            let key = key(name)?;
            Some((key, connection.place(key)?, *first))
        });
        let places: Vec<(Key, u32, u64)> = places.collect();
        let cuts = |(key, place, _): &(Key, u32, u64)| {
            self.subscriptions.get(*key, *place).is_some_and(Subscription::cuts)
        };
        if places.iter().any(cuts) {
            return self.cut(id, Close::SlowConsumer, now);
        }
        let session = &mut connection.session;
        session.take_back(taken.bytes, taken.counts);
        for (key, place, first) in places {
            let Some(subscription) = self.subscriptions.at(key, place) else { continue };
            // A state has no numbers on the wire: its newest value is sent again.
            let first = if key.channel().is_some() { first } else { subscription.told() };
            if subscription.taken_back(first) {
                session.wait(key, now.mono_ns);
            }
        }
        session.shed();
        self.counters.memory_sheds.add(1);
        let Ledger { sent, merged, dropped, lost } = taken.counts;
        for (counter, numbers) in self.counters.taken_back.iter().zip([sent, merged, dropped, lost]) {
            counter.add(numbers);
        }
        self.watch_over(id, now);
        self.judge(id, now);
    }
}

/// What a subscription to one stream takes: its row, its place, and its turn while it waits for room. Tables grow by
/// doubling, so half as much again.
const SUBSCRIPTION_BYTES: u64 = (size_of::<Subscription>() + 2 * size_of::<(Key, u32)>()) as u64 * 3 / 2;

impl<S: Socket> Connection<S> {
    /// Bytes of memory that it holds, those of its subscriptions and in the kernel counted.
    fn held_bytes(&self) -> u64 {
        // The nodes of a tree are more than half full.
        let places = 2 * self.places.len() * size_of::<(Key, u32)>();
        let subscriptions = self.places.len() * size_of::<Subscription>();
        (self.session.held_bytes() + places + subscriptions) as u64 + self.socket.unacked()
    }
}
