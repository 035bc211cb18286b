//! The fan-out: each tick of the ring is delivered to the subscriptions of its stream.

use super::Sessions;
use crate::latency::Stage;
use crate::latency::meter::Class;
use crate::model::tick::{Body, Channel, GapCause, Tick};
use crate::ring::{Packed, Seen};
use crate::session::{FrameRange, Ledger, Subscription, Times};
use crate::shard::deadlines::phase_ns;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Bytes that the frame of a state takes at most.
const STATE_BYTES_MAX: usize = 256;
/// Sessions whose memory is prefetched at once.
const GROUP: usize = 16;

/// A tick that is being delivered.
struct FanOut {
    tick: Tick,
    /// What it adds to the ledger of a session that it is queued for.
    counts: Ledger,
    times: Times,
    /// The head of the frame ring before its frame.
    since: u64,
    /// When it was taken from the ring, nanoseconds since the Unix epoch.
    taken_ns: u64,
    /// How many ticks it stands for in measurements.
    weight: u64,
    /// Its frame, once a session has wanted it; the inner `None` if the frame ring has no room for it.
    range: Option<Option<FrameRange>>,
}

impl<S: Socket> Sessions<S> {
    /// Fans out one tick.
    #[inline]
    pub(super) fn tick(&mut self, packed: Packed<'_>, now: Now) {
        let key = packed.key();
        if !self.directory.knows(key.instrument()) {
            self.learn_at_once(now);
        }
        if self.directory.of(key).is_empty() {
            return;
        }
        if !self.egress.buffers().has_room() {
            self.make_room();
        }
        let row = self.directory.of(key);
        let tick = packed.unpack();
        if matches!(tick.body, Body::Gap { .. }) && row.iter().any(Subscription::is_held) {
            return self.gap_after_held(packed, now);
        }
        // Each tick starts its row at another session, so that none is always last.
        let start = (tick.seq % row.len() as u64) as usize;
        let Some(mut fan_out) = self.prepare(tick, packed.seen(), now) else { return };
        let mut row = self.directory.take(key);
        let (last, first) = row.split_at_mut(start);
        for group in first.chunks_mut(GROUP).chain(last.chunks_mut(GROUP)) {
            // Memory is prefetched for all of them before the first is worked on.
            let wanting = group.iter().filter(|subscription| subscription.wants(tick.seq));
            let prefetched = wanting.fold(0, |sum, wanting| sum ^ self.connections.prefetch(wanting.session));
            std::hint::black_box(prefetched);
            for subscription in group {
                self.deliver(subscription, &mut fan_out, now);
            }
        }
        self.directory.put_back(key, row);
        if self.deadlines.has_overflowed() {
            self.on_overflow(now);
        }
    }

    /// A tick that is about to be delivered; `None` if its instrument is not listed.
    fn prepare(&mut self, tick: Tick, seen: Seen, now: Now) -> Option<FanOut> {
        let symbol = self.env.table.get(tick.instrument)?;
        let counts = match tick.body {
            Body::Trade(_) | Body::Quote(_) => Ledger { sent: 1, ..Ledger::default() },
            Body::Gap { from, .. } => Ledger { lost: tick.seq - from + 1, ..Ledger::default() },
            Body::Status(_) => Ledger::default(),
        };
        let numbered_ns = tick.rx_ns + seen.since_rx_ns();
        // It may have been published after this turn began.
        let taken_ns = now.wall_ns.max(numbered_ns);
        let meter = self.egress.meter();
        let class = match tick.body {
            Body::Trade(_) => meter.class(tick.instrument, Channel::Trade, || symbol.venue()),
            Body::Quote(_) => meter.class(tick.instrument, Channel::Quote, || symbol.venue()),
            Body::Gap { .. } | Body::Status(_) => Class::NONE,
        };
        // A value that a seek publishes again was received long ago.
        let class = if tick.snap { Class::NONE } else { class };
        let times = Times { rx_ns: tick.rx_ns, tx_ns: 0, class, instrument: tick.instrument };
        meter.record(Stage::Pickup, class, numbered_ns, taken_ns, seen.weight());
        let since = self.egress.buffers().head();
        Some(FanOut { tick, counts, times, since, taken_ns, weight: seen.weight(), range: None })
    }

    /// Delivers a tick to one subscription. The fast path pushes its frame to the pending frames without touching the
    /// session.
    #[inline]
    fn deliver(&mut self, subscription: &mut Subscription, fan_out: &mut FanOut, now: Now) {
        let wants = subscription.wants(fan_out.tick.seq);
        if !wants && !subscription.is_opening() {
            return;
        }
        let plain = wants && fan_out.counts.lost == 0 && (subscription.rate().is_none() || self.draining);
        let range = if plain { self.frame(fan_out) } else { None };
        let counted = fan_out.counts.sent > 0;
        let id = subscription.session;
        let pushed = range.and_then(|range| self.connections.push(id, range, counted, now.mono_ns));
        let Some(was_queued) = pushed else { return self.deliver_slow(subscription, fan_out, now) };
        subscription.queued(fan_out.tick.seq);
        self.egress.count(fan_out.counts);
        if !was_queued {
            self.egress.enqueue(id, fan_out.since);
        }
    }

    /// Delivers a tick to one subscription by way of its session, which may have no room for it.
    #[inline(never)]
    fn deliver_slow(&mut self, subscription: &mut Subscription, fan_out: &mut FanOut, now: Now) {
        let (id, key, seq) = (subscription.session, fan_out.tick.key(), fan_out.tick.seq);
        // A closing session is offered nothing more.
        let Some(connection) = self.connections.get_mut(id).filter(|c| !c.session.is_closing()) else {
            return;
        };
        if !subscription.wants(seq) {
            connection.open(subscription, &fan_out.tick);
        }
        if let Some(rate) = subscription.rate()
            && !self.draining
        {
            subscription.hold();
            let (serial, phase_ns) = (connection.serial, phase_ns(connection.serial));
            if let Some(due_ns) = connection.session.hold(key, rate, phase_ns, now.mono_ns) {
                self.deadlines.release_at(due_ns, id, serial, rate);
            }
            return;
        }
        let may_wait = key.channel().is_some() && subscription.is_latest();
        if may_wait && connection.session.conflates(now.mono_ns) {
            if subscription.fell_behind(GapCause::SlowConsumer) {
                connection.session.wait(key, now.mono_ns);
            }
            return;
        }
        let states_wait = connection.session.has_states_waiting();
        let range = self.frame(fan_out);
        let range =
            range.filter(|range| !states_wait || self.state_first(id, &fan_out.tick, range.bytes(), now));
        let why = self.surroundings.why_behind(now);
        let Some((connection, pending_frames)) = self.connections.get_with_pending(id) else { return };
        let mut context = self.egress.write_context(&self.env.counters, &self.env.clock);
        if range.is_some_and(|range| connection.offer(range, &mut context, now.mono_ns)) {
            subscription.queued(seq);
            connection.session.count(fan_out.counts);
            self.egress.count(fan_out.counts);
            if fan_out.counts.lost > 0 {
                self.egress.frames().told(&fan_out.tick);
            }
            connection.allow_pending(pending_frames);
            if !std::mem::replace(&mut pending_frames.queued, true) {
                self.egress.enqueue(id, fan_out.since);
            }
        } else if subscription.fell_behind(why) {
            connection.session.wait(key, now.mono_ns);
            let disconnects = subscription.disconnects_on_loss() && why == GapCause::SlowConsumer;
            if connection.session.shed() || disconnects {
                self.deadlines.overflowed(id, disconnects);
            }
        }
    }

    /// Sends a session in which states wait for room the state of a tick's instrument first. False if there is no room
    /// for both that state and the tick, of `bytes` bytes.
    #[cold]
    fn state_first(&mut self, id: u32, tick: &Tick, bytes: usize, now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.link.dead) else {
            return true;
        };
        let mut context = self.egress.write_context(&self.env.counters, &self.env.clock);
        let has_room = connection.will_take(bytes + STATE_BYTES_MAX, &mut context, now.mono_ns);
        if has_room {
            self.tell_state(id, tick.instrument, now);
        }
        has_room
    }

    /// The frame of a tick, in the frame ring; `None` if there is no room for it.
    #[inline]
    fn frame(&mut self, fan_out: &mut FanOut) -> Option<FrameRange> {
        if let Some(range) = fan_out.range {
            return range;
        }
        let FanOut { tick, times, taken_ns, weight, .. } = fan_out;
        let symbol = self.env.table.get(tick.instrument)?;
        let range = self.egress.append((tick, symbol), times, (*taken_ns, *weight), &self.env.clock);
        fan_out.range = Some(range);
        range
    }

    /// Makes room in the frame ring before it wraps over frames that waiting sessions need: lengthens it, or has these
    /// sessions copy their frames.
    #[cold]
    fn make_room(&mut self) {
        let buffers = self.egress.buffers();
        let before = buffers.reclaim_before();
        if self.egress.is_late(before) && self.shortage.lengthen_frame_ring(buffers) {
            return;
        }
        for id in self.egress.late(before) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.session.own();
            }
        }
        buffers.reclaim(before);
    }
}
