//! A connection: how its socket is written to, and what it accepts.

use std::io;

use super::{Connection, Link, Progress, RequestState};
use crate::model::tick::Tick;
use crate::net::Tuning;
use crate::session::{FrameRange, PendingFrames, Session, Subscription};
use crate::shard::allowance::Allowance;
use crate::shard::ending::Parting;
use crate::shard::holdings::Holdings;
use crate::shard::measure::WriteContext;
use crate::shard::pongs::Pings;
use crate::shard::positions::first_of;
use crate::shard::socket::{ClientInfo, Socket};
use crate::shard::workload::Workload;
use crate::system::counters::{Ending, ShardCounters};
use crate::time::clock::Now;

impl<S: Socket> Connection<S> {
    /// Does one write of what waits. A socket that takes nothing blocks the session until it is writable.
    pub(super) fn write(&mut self, context: &mut WriteContext<'_>, now_ns: u64) {
        if self.session.is_blocked() || self.link.dead {
            return;
        }
        if self.session.is_at_mark() && !self.session.look_at_marks(now_ns) {
            // Copies its pending frames: the frame ring may overwrite them before its next turn.
            self.session.own();
            if self.session.has_urgent() {
                self.force(false, context.counters());
            }
            return;
        }
        let Self { session, socket, way, .. } = self;
        match session.show(|slices| socket.write(slices)) {
            Ok(0) if !session.outbox().is_empty() => self.fails(Ending::Failed, context.counters()),
            Ok(n) => {
                context.counters().writes.add(u64::from(n > 0));
                context.counters().bytes.add(n as u64);
                context.measure(session, way, n);
                session.wrote(n, now_ns);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => session.block(now_ns),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.fails(Ending::from(&error), context.counters()),
        }
        if self.link.dead || self.session.is_blocked() {
            // Copies its pending frames: the frame ring may overwrite them before its next turn.
            self.session.own();
            self.socket.kick();
        }
    }

    /// Writes what is urgent, or all there is, even if the socket has reached its limit of unsent bytes. What the
    /// kernel does not take waits for its turn.
    pub(super) fn force(&mut self, all: bool, counters: &ShardCounters) {
        let bytes = self.session.copied(all);
        if bytes.is_empty() || self.link.dead {
            return;
        }
        if let Ok(n) = self.socket.force(&bytes) {
            counters.writes.add(1);
            counters.bytes.add(n as u64);
            self.session.forced(n);
        }
    }

    /// Queues a tick's frame. A full outbox is written first, so that only a client whose socket takes nothing is slow.
    #[inline]
    pub(super) fn offer(&mut self, frame: FrameRange, context: &mut WriteContext<'_>, now_ns: u64) -> bool {
        // A dead connection sends nothing any more: its frames are dropped.
        if self.link.dead || self.session.offer(frame, now_ns) {
            return true;
        }
        self.write(context, now_ns);
        self.session.offer(frame, now_ns)
    }

    /// Whether a tick of this size will find room, after a write if need be. For ticks that a state has to precede.
    #[cold]
    pub(super) fn will_take(&mut self, bytes: usize, context: &mut WriteContext<'_>, now_ns: u64) -> bool {
        if !self.session.fits(bytes) {
            self.write(context, now_ns);
        }
        self.session.fits(bytes)
    }
}

impl<S> Connection<S> {
    /// A new connection, subscribed to nothing.
    pub(super) fn new(
        (socket, who): (S, ClientInfo),
        session: Session,
        serial: u64,
        allowance: Allowance,
        now: Now,
    ) -> Self {
        let (watched, dead, slowed, ending, parting) = (false, false, false, None, Parting::Linger);
        Self {
            progress: Progress { reading: None, seam: None, status: 0, reads: false },
            link: Link { watched, dead, slowed, ending, parting },
            serial,
            socket,
            session,
            who: Box::new(who),
            since_us: now.wall_ns / 1_000,
            holdings: Holdings::default(),
            request: RequestState { work: None, waits_for: None, at_work: false, allowance },
            pings: Pings::default(),
            way: None,
            history: None,
            ask_kernel_ns: 0,
        }
    }

    /// Notes that the socket has failed.
    #[cold]
    fn fails(&mut self, cause: Ending, counters: &ShardCounters) {
        self.ends(cause, counters);
        (self.link.dead, self.link.parting) = (true, Parting::Abort);
    }

    /// See [`Session::prefetch`].
    #[inline]
    pub(super) fn prefetch(&self) -> usize {
        usize::from(self.link.watched) ^ self.session.prefetch()
    }

    /// Whether there is room for more reread data: no more may wait than the kernel may hold unsent.
    pub(super) fn may_read(&self, tuning: Tuning) -> bool {
        self.session.has_room_ahead(tuning.unsent_bytes_max as usize)
    }

    /// Gives it a turn in the workload, unless it has one.
    pub(super) fn put_to_work(&mut self, id: u32, workload: &mut Workload) {
        if !std::mem::replace(&mut self.request.at_work, true) {
            workload.push(id, self.serial);
        }
    }

    /// Whether it needs nothing but writes of what it is offered.
    #[inline]
    pub(super) fn is_at_rest(&self) -> bool {
        let session = &self.session;
        let caught_up =
            session.waiting() == 0 && self.progress.reading.is_none() && self.progress.seam.is_none();
        caught_up && session.outbox().is_empty() && !session.is_closing()
    }

    /// Allows ticks to be pushed to its pending frames, as far as its session has room for them.
    #[inline]
    pub(super) fn allow_pending(&self, pending_frames: &mut PendingFrames) {
        pending_frames.set_room(if self.link.dead { 0 } else { self.session.room() });
    }

    /// Begins the count of one of its subscriptions with this tick.
    #[cold]
    pub(super) fn open(&mut self, subscription: &mut Subscription, tick: &Tick) {
        let by = subscription.open(first_of(tick));
        // States are not counted.
        if tick.key().channel().is_some() {
            self.session.rebased(by);
        }
    }

    /// Passes over a tick that precedes the time at which a subscription begins.
    pub(super) fn pass(&mut self, subscription: &mut Subscription, seq: u64) {
        self.session.rebased(subscription.pass(seq));
    }

    /// Notes why it ends. Only the first cause counts.
    pub(super) fn ends(&mut self, ending: Ending, counters: &ShardCounters) {
        if self.link.ending.is_none() {
            self.link.ending = Some(ending);
            counters.ended[ending.index()].add(1);
        }
    }
}

impl<S: Socket> Connection<S> {
    /// Bytes of memory that it holds, including its subscriptions and what the kernel holds for it.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.session.held_bytes() + self.holdings.held_bytes()) as u64 + self.socket.unacked()
    }
}
