//! What a shard does when memory is short: see [`shortage`](crate::shard::shortage).

use std::cmp::Reverse;
use std::sync::Arc;

use super::Sessions;
use crate::model::instrument::Symbol;
use crate::model::tick::Key;
use crate::protocol::close::Close;
use crate::protocol::{Selector, Subscribe};
use crate::session::{Ledger, Subscription};
use crate::shard::shortage::{Gives, Relief, Shortage, TakenBack};
use crate::shard::socket::Socket;
use crate::system::counters::Ending;
use crate::system::memory::Memory;
use crate::time::clock::Now;

/// Outboxes that hold less than this are left alone, bytes: there is too little to gain.
const QUEUE_BYTES_MIN: u64 = 4_096;
/// Slow clients that hold less than this are not cut, bytes.
const SLOW_BYTES_MIN: u64 = 16_384;
/// Clients that keep up and hold less than this are never cut because memory is short, bytes.
const LARGE_BYTES_MIN: u64 = 1 << 20;

impl<S: Socket> Sessions<S> {
    /// Keeps to this memory bound from now on.
    pub fn bound_by(&mut self, memory: Arc<Memory>) {
        self.shortage = Shortage::new(memory);
    }

    // ---- taking ---------------------------------------------------------------------------------------

    /// Counts what outboxes hold, once a turn, and bounds it.
    pub(super) fn look_at_memory(&mut self) {
        let buffers = self.egress.buffers();
        self.env.counters.outbox_bytes.set(buffers.lent_bytes() as u64);
        if self.deadlines.watched().next().is_none() {
            self.env.counters.unacked_bytes.set(0);
        }
        self.shortage.bound(buffers);
    }

    /// Whether there is memory for what a client wants to subscribe to.
    pub(super) fn has_memory_for(&self, wanted: &Subscribe) -> bool {
        let known = self.directory.known() as u64;
        let instruments = |selector: &Selector| if selector.is_wildcard() { known } else { 1 };
        let instruments: u64 = wanted.symbols.iter().map(instruments).sum();
        self.shortage.has_room_for(instruments, wanted.channels.len())
    }

    // ---- giving back ----------------------------------------------------------------------------------

    /// Chooses the clients that give memory back. What is left of an earlier choice is dropped.
    pub fn relieve(&mut self, relief: Relief) {
        self.shortage.choose_anew();
        let mut slow = Vec::new();
        for (id, serial) in self.deadlines.watched() {
            if let Some(connection) = self.connections.get(id).filter(|c| c.serial == serial)
                && connection.session.is_slow()
                && !connection.session.is_closing()
            {
                let queue = connection.session.outbox_held_bytes() as u64;
                slow.push((connection.held_bytes(), queue, id, serial));
            }
        }
        slow.sort_unstable_by_key(|(held, ..)| Reverse(*held));
        let mut left = relief.cut_bytes;
        let cut = slow.iter().take_while(|(held, ..)| {
            let goes = left > 0 && *held >= SLOW_BYTES_MIN;
            left = left.saturating_sub(*held);
            goes
        });
        let cut: Vec<_> = cut.map(|(_, _, id, serial)| (*id, *serial)).collect();
        let mut queues = slow.split_off(cut.len());
        queues.sort_unstable_by_key(|(_, queue, ..)| Reverse(*queue));
        for (id, serial) in cut {
            self.shortage.choose(id, serial, Gives::Everything);
        }
        if left > 0 && relief.large_bytes > 0 {
            self.relieve_of_large(relief.large_bytes.min(left));
        }
        let mut left = relief.shed_bytes;
        for (_, queue, id, serial) in queues {
            if left == 0 || queue < QUEUE_BYTES_MIN {
                break;
            }
            left = left.saturating_sub(queue);
            self.shortage.choose(id, serial, Gives::Queue);
        }
    }

    /// Chooses large clients that keep up. The last resort: all memory is in use, and slow clients hold too little of
    /// it.
    fn relieve_of_large(&mut self, mut left: u64) {
        let held = self.connections.iter_mut().map(|(id, c)| (c.held_bytes(), id, c.serial));
        let mut large: Vec<_> = held.filter(|(held, ..)| *held >= LARGE_BYTES_MIN).collect();
        large.sort_unstable_by_key(|(held, ..)| Reverse(*held));
        for (held, id, serial) in large {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(held);
            self.shortage.choose(id, serial, Gives::Everything);
        }
    }

    /// Takes memory back from one of the chosen clients. True if there are more.
    pub(super) fn give_back(&mut self, now: Now) -> bool {
        let Some((id, serial, gives)) = self.shortage.next_giving() else { return false };
        if self.connections.is_same(id, serial) {
            match gives {
                Gives::Queue => self.take_queue_back(id, now),
                Gives::Everything => self.cut_for(id, Close::SlowConsumer, Ending::Memory, now),
            }
        }
        let more = self.shortage.has_giving();
        if !more {
            // The rest of the process cannot use chunks that wait to be lent again.
            self.egress.buffers().shrink();
        }
        more
    }

    /// Takes back what is queued for a slow client: its subscriptions become dirty from there on.
    fn take_queue_back(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        // A request under way may have ended subscriptions whose frames are still queued.
        if connection.session.is_closing() || connection.request.work.is_some() {
            return;
        }
        let queued = connection.session.queued();
        let taken = TakenBack::of(&queued);
        if taken.bytes() == 0 {
            return;
        }
        let places = taken.firsts().filter_map(|(symbol, stream, first)| {
            let key = Key::new(self.env.table.find(&Symbol::parse(symbol).ok()?)?, stream);
            Some((key, connection.holdings.place(key)?, first))
        });
        let places: Vec<(Key, u32, u64)> = places.collect();
        let cuts = |(key, place, _): &(Key, u32, u64)| {
            self.directory.get(*key, *place).is_some_and(Subscription::disconnects_on_loss)
        };
        if places.iter().any(cuts) {
            return self.cut(id, Close::SlowConsumer, now);
        }
        let session = &mut connection.session;
        session.take_back(taken.bytes(), taken.counts());
        for (key, place, first) in places {
            let Some(subscription) = self.directory.at(key, place) else { continue };
            // A state has no numbers on the wire: its newest value is sent again.
            let first = if key.channel().is_some() { first } else { subscription.accounted_seq() };
            if subscription.taken_back(first) {
                session.wait(key, now.mono_ns);
            }
        }
        session.shed();
        self.env.counters.memory_sheds.add(1);
        let Ledger { sent, merged, dropped, lost } = taken.counts();
        for (counter, numbers) in self.env.counters.taken_back.iter().zip([sent, merged, dropped, lost]) {
            counter.add(numbers);
        }
        self.watch_over(id, now);
        self.judge(id, now);
    }
}
