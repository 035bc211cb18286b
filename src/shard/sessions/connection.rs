//! A session with its socket: what is written, and what that took.

use std::collections::BTreeMap;
use std::io;

use crate::latency::meter::Meter;
use crate::latency::{Log2Histogram, NS_MAX, Stage};
use crate::model::tick::{Key, Tick};
use crate::net::Tuning;
use crate::ops::flight::History;
use crate::session::{FrameRange, PendingFrames, Session, Subscription, Times};
use crate::shard::sessions::allowance::Allowance;
use crate::shard::sessions::awaited::AwaitedBy;
use crate::shard::sessions::interest::Wildcard;
use crate::shard::sessions::leaving::Parting;
use crate::shard::sessions::pongs::{Held, Withheld};
use crate::shard::sessions::reading::{Reading, first_of};
use crate::shard::sessions::work::Work;
use crate::shard::sessions::{ClientInfo, Socket};
use crate::system::counters::{Ending, ShardCounters};
use crate::time::clock::Clock;

/// What a request under way waits for, besides its turn: it is not put to work before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum WaitsFor {
    /// The index of the ring, of a `resume`.
    Plan,
    /// That one long answer less is being written.
    LongAnswer,
}

/// A session with its socket. What a write needs comes first, on whole lines of memory: see [`Session`].
#[repr(C, align(64))]
pub(in crate::shard) struct Connection<S> {
    /// Looked at again and again, because its socket was full.
    pub(in crate::shard) watched: bool,
    /// The socket failed, or did not take its last words in time.
    pub(in crate::shard) dead: bool,
    /// Why it ends, once it does.
    pub(in crate::shard) ending: Option<Ending>,
    /// What becomes of the socket then.
    pub(in crate::shard) parting: Parting,
    /// In the list of those that read again.
    pub(in crate::shard) reads: bool,
    /// What its request waits for, besides its turn.
    pub(in crate::shard) waits_for: Option<WaitsFor>,
    /// It was above `ok` at some time.
    pub(in crate::shard) slowed: bool,
    /// Listed instruments that it asked for by name, on whatever channel.
    pub(in crate::shard) named: u32,
    /// What it reads again, while it resumes or catches up.
    pub(in crate::shard) reading: Option<Box<Reading>>,
    /// It has caught up, which it is to be told, with how many ticks were missed on the way.
    pub(in crate::shard) seam: Option<u64>,
    /// Pings that are answered when what waited for its window before them has been sent.
    pub(in crate::shard) withheld: Option<Box<Withheld>>,
    /// Which news of the replay it was told.
    pub(in crate::shard) news: u64,
    pub(in crate::shard) socket: S,
    pub(in crate::shard) session: Session,
    pub(in crate::shard) who: Box<ClientInfo>,
    /// No other session of this shard ever has it: the place of a connection is used again.
    pub(in crate::shard) serial: u64,
    /// When it came, microseconds since the Unix epoch.
    pub(in crate::shard) since_us: u64,
    /// Its subscriptions and their places in the table.
    pub(in crate::shard) places: BTreeMap<Key, u32>,
    /// Wildcards, which take instruments listed later.
    pub(in crate::shard) wildcards: Vec<Wildcard>,
    /// Symbols that no feed lists yet.
    pub(in crate::shard) awaited: AwaitedBy,
    /// The request that is under way: until it is answered, the client is not read from.
    pub(in crate::shard) work: Option<Box<Work>>,
    /// In the list of those with something under way.
    pub(in crate::shard) at_work: bool,
    /// A rate may hold back what has another rate now.
    pub(in crate::shard) unsettled: bool,
    /// Pings that are answered when it was sent what there is room for.
    pub(in crate::shard) pongs: Vec<Held>,
    /// What the whole way of its ticks took, its own part of it counted. There is none before the first that was measured.
    pub(in crate::shard) way: Option<Box<Log2Histogram>>,
    /// How it did since it was last at ease, where incidents are recorded.
    pub(in crate::shard) history: Option<Box<History>>,
    /// Requests that it may still make.
    pub(in crate::shard) allowance: Allowance,
    /// When the kernel may be asked next whether it hears of the other side, steady time.
    pub(in crate::shard) ask_kernel_ns: u64,
}

/// What a write counts and measures with.
pub(in crate::shard) struct WriteContext<'a> {
    pub(in crate::shard) counters: &'a ShardCounters,
    pub(in crate::shard) clock: &'a Clock,
    pub(in crate::shard) meter: &'a mut Meter,
    pub(in crate::shard) sample: &'a mut Sample,
}

/// Writes of a turn that are all measured.
const MEASURED: u32 = 4;
/// Of those behind them each so manieth is, and the last.
const SAMPLED: u32 = 16;

/// Which writes of a turn are measured: to look at the clock and to count what it says takes as long as a thirtieth of a
/// write.
#[derive(Debug, Default)]
pub(in crate::shard) struct Sample {
    /// Writes that are left in this turn.
    left: u32,
    /// Writes of this turn.
    writes: u32,
    /// Ticks of writes that were not measured: the next one that is stands for them, too.
    skipped: u64,
}

impl Sample {
    /// A turn that has so many writes begins.
    pub(in crate::shard) fn begin(&mut self, writes: usize) {
        (self.left, self.writes) = (writes as u32, 0);
    }

    /// A write: whether it is measured.
    #[inline]
    fn takes(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.writes = self.writes.wrapping_add(1);
        self.writes <= MEASURED || self.writes.is_multiple_of(SAMPLED) || self.left == 0
    }
}

impl WriteContext<'_> {
    /// The kernel has just taken the first `n` bytes of what waits for a session.
    #[inline]
    fn measure(&mut self, session: &Session, way: &mut Option<Box<Log2Histogram>>, n: usize) {
        let Self { clock, meter, sample, .. } = self;
        if !meter.is_on() || n == 0 {
            return;
        }
        let takes = sample.takes();
        if session.has_refused() {
            // It stands for no other write, and no other for it: whoever was not kept waiting is measured apart.
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

    /// As [`measure`](Self::measure), where the socket refused some of it before: that wait is the client's.
    #[cold]
    fn measure_refused(&mut self, session: &Session, way: &mut Option<Box<Log2Histogram>>, n: usize) {
        let Self { clock, meter, .. } = self;
        let now_ns = clock.wall_ns();
        session.going_refused(n, |times, refused| {
            let Times { rx_ns, tx_ns, class, instrument } = times;
            let (stage, ours_ns) = if refused { (Stage::SlowClient, tx_ns) } else { (Stage::Write, now_ns) };
            meter.record(stage, class, tx_ns, now_ns, 1);
            let measured = meter.record_way(instrument, class, rx_ns, ours_ns, 1).is_some();
            // What the client felt is both.
            if let Some(ns) = now_ns.checked_sub(rx_ns).filter(|_| measured) {
                way.get_or_insert_default().record(ns.min(NS_MAX), 1);
            }
        });
    }
}

impl<S: Socket> Connection<S> {
    /// One write of what waits. A socket that takes nothing is left alone until it is writable.
    pub(in crate::shard) fn write(&mut self, context: &mut WriteContext<'_>, now_ns: u64) {
        if self.session.is_blocked() || self.dead {
            return;
        }
        if self.session.is_at_mark() && !self.session.look_at_marks(now_ns) {
            // Nobody counts on its turn to come before the frame ring comes round.
            self.session.own();
            if self.session.has_urgent() {
                self.force(false, context.counters);
            }
            return;
        }
        let Self { session, socket, way, .. } = self;
        match session.show(|slices| socket.write(slices)) {
            Ok(0) if !session.outbox().is_empty() => self.fails(Ending::Failed, context.counters),
            Ok(n) => {
                context.counters.writes.add(u64::from(n > 0));
                context.counters.bytes.add(n as u64);
                context.measure(session, way, n);
                session.wrote(n, now_ns);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => session.block(now_ns),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.fails(Ending::from(&error), context.counters),
        }
        if self.dead || self.session.is_blocked() {
            // Nobody counts on its turn to come before the frame ring comes round.
            self.session.own();
            self.socket.kick();
        }
    }

    /// Writes what is urgent, or all there is, though the socket holds as much unsent as it may. What even the kernel
    /// does not take waits its turn.
    pub(in crate::shard) fn force(&mut self, all: bool, counters: &ShardCounters) {
        let bytes = self.session.copied(all);
        if bytes.is_empty() || self.dead {
            return;
        }
        if let Ok(n) = self.socket.force(&bytes) {
            counters.writes.add(1);
            counters.bytes.add(n as u64);
            self.session.forced(n);
        }
    }

    /// Queues a tick's frame. A full outbox is written before it is given up: only a client whose socket takes
    /// nothing is slow.
    #[inline]
    pub(in crate::shard) fn offer(
        &mut self,
        frame: FrameRange,
        context: &mut WriteContext<'_>,
        now_ns: u64,
    ) -> bool {
        // Of a dead one nothing will be read any more.
        if self.dead || self.session.offer(frame, now_ns) {
            return true;
        }
        self.write(context, now_ns);
        self.session.offer(frame, now_ns)
    }

    /// Whether a tick of so many bytes will find room. It is asked where something has to go before it.
    #[cold]
    pub(in crate::shard) fn will_take(
        &mut self,
        bytes: usize,
        context: &mut WriteContext<'_>,
        now_ns: u64,
    ) -> bool {
        if !self.session.fits(bytes) {
            self.write(context, now_ns);
        }
        self.session.fits(bytes)
    }
}

impl<S> Connection<S> {
    /// The socket failed.
    #[cold]
    fn fails(&mut self, cause: Ending, counters: &ShardCounters) {
        self.ends(cause, counters);
        (self.dead, self.parting) = (true, Parting::Abort);
    }

    /// See [`Session::prefetch`].
    #[inline]
    pub(in crate::shard) fn prefetch(&self) -> usize {
        usize::from(self.watched) ^ self.session.prefetch()
    }

    /// Whether there is room for more of what it reads again: no more waits for it than its kernel may hold unsent.
    pub(in crate::shard) fn may_read(&self, tuning: Tuning) -> bool {
        self.session.has_room_ahead(tuning.unsent_bytes_max as usize)
    }

    /// Nothing is to be done for it but to write what it is offered.
    #[inline]
    pub(in crate::shard) fn is_at_rest(&self) -> bool {
        let session = &self.session;
        let caught_up = session.waiting() == 0 && self.reading.is_none() && self.seam.is_none();
        caught_up && session.outbox().is_empty() && !session.is_closing()
    }

    /// Lets ticks be laid on its pending frames, if its session would take them.
    #[inline]
    pub(in crate::shard) fn set_out(&self, pending_frames: &mut PendingFrames) {
        pending_frames.set_room(if self.dead { 0 } else { self.session.room() });
    }

    /// The count of one of its subscriptions begins with this tick.
    #[cold]
    pub(in crate::shard) fn open(&mut self, subscription: &mut Subscription, tick: &Tick) {
        let by = subscription.open(first_of(tick));
        // States are not counted.
        if tick.key().channel().is_some() {
            self.session.rebased(by);
        }
    }

    /// A tick came before the time at which one of its subscriptions is to begin.
    pub(in crate::shard) fn pass(&mut self, subscription: &mut Subscription, seq: u64) {
        self.session.rebased(subscription.pass(seq));
    }

    pub(in crate::shard) fn place(&self, key: Key) -> Option<u32> {
        self.places.get(&key).copied()
    }

    pub(in crate::shard) fn is_subscribed(&self) -> bool {
        !(self.places.is_empty() && self.wildcards.is_empty() && self.awaited.is_empty())
    }
}
