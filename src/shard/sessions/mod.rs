//! All sessions of a shard: fan-out, coming and going. It does what it is told when it is told; the sockets
//! are behind [`Socket`], so a test can put its own in their place.

pub(super) mod allowance;
pub(super) mod answers;
pub(super) mod awaited;
pub(super) mod change;
pub(super) mod clocks;
pub(super) mod connection;
pub(super) mod connections;
pub(super) mod incidents;
pub(super) mod interest;
pub(super) mod leaving;
pub(super) mod listing;
pub(super) mod pongs;
pub(super) mod pressure;
pub(super) mod rates;
pub(super) mod readers;
pub(super) mod reading;
pub(super) mod recovery;
pub(super) mod replay_status;
pub(super) mod report;
pub(super) mod resume;
pub(super) mod shortage;
pub(super) mod subscribe;
pub(super) mod work;
pub(super) mod writing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::history::HistoryClient;
use crate::latency::Stage;
use crate::latency::meter::{Class, Meter};
use crate::model::instrument::InstrumentTable;
use crate::model::tick::{Body, Channel, GapCause, Tick};
use crate::net::Peer;
use crate::ops::flight::IncidentReporter;
use crate::protocol::json;
use crate::ring::{Packed, Seen, TickRing};
use crate::session::{Buffers, FrameRange, Ledger, Policy, Session, Subscription, Times};
use crate::shard::frames::Frames;
use crate::shard::options::SessionOptions;
use crate::shard::sessions::allowance::Allowance;
use crate::shard::sessions::answers::LongAnswers;
use crate::shard::sessions::awaited::{Awaited, AwaitedBy};
use crate::shard::sessions::clocks::Surroundings;
use crate::shard::sessions::connection::{Connection, Sample, WriteContext};
use crate::shard::sessions::connections::Connections;
use crate::shard::sessions::leaving::Parting;
use crate::shard::sessions::pongs::HeldPings;
use crate::shard::sessions::rates::{Release, phase_ns};
use crate::shard::sessions::readers::Readers;
use crate::shard::sessions::replay_status::News;
use crate::shard::sessions::resume::Resumes;
use crate::shard::sessions::shortage::Shortage;
use crate::shard::sessions::work::Leaving;
use crate::shard::steps::Steps;
use crate::shard::subscriptions::Subscriptions;
use crate::system::counters::ShardCounters;
use crate::text;
use crate::time::clock::{Clock, MS, Now};

/// What a shard needs of a client's socket.
pub trait Socket {
    /// Writes as much as the kernel takes now, of at least one slice.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing; anything else ends the connection.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Writes though the socket holds as much unsent as it may: what comes last, and what a slow client has to know.
    ///
    /// # Errors
    /// As [`write`](Self::write), when even the kernel has no room.
    fn force(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// What the kernel knows of the other side; `None` where the system does not tell.
    fn peer(&self) -> Option<Peer>;

    /// Bytes it took that the other side has not acknowledged; 0 where the system does not tell.
    fn unacked(&self) -> u64;

    /// Something happened to the session that its driver has to look at: see [`Sessions::wants`].
    fn kick(&self);

    /// Reads what a write needs, and says nothing of it.
    fn prefetch(&self) -> usize {
        0
    }
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Random name of the session.
    pub name: Box<str>,
    /// Where it connected from.
    pub peer: Option<SocketAddr>,
}

/// What the driver of a connection has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Requests may be read.
    pub read: bool,
    /// The socket took nothing: wait until it can be written to.
    pub write: bool,
    /// Everything is out and nothing more will come, or the socket failed: end it.
    pub end: bool,
}

/// Bytes that the frame of a state takes at most.
const STATE_BYTES_MAX: usize = 256;
/// Sessions whose memory is asked for at once.
const GROUP: usize = 16;

/// A tick that is being told.
struct FanOut {
    tick: Tick,
    /// What it adds to the ledger of who is told.
    counts: Ledger,
    times: Times,
    /// How much was in the frame ring before it.
    since: u64,
    /// When it was taken from the ring, nanoseconds since the Unix epoch.
    taken_ns: u64,
    /// How many it stands for where it is measured.
    weight: u64,
    /// Its frame, once somebody wanted it: nothing where the frame ring has no room for it.
    range: Option<Option<FrameRange>>,
}

/// All sessions of one shard, and what they want.
pub struct Sessions<S> {
    pub(in crate::shard) options: SessionOptions,
    pub(in crate::shard) table: Arc<InstrumentTable>,
    pub(in crate::shard) ring: TickRing,
    pub(in crate::shard) clock: Clock,
    pub(in crate::shard) counters: Arc<ShardCounters>,
    pub(in crate::shard) connections: Connections<S>,
    pub(in crate::shard) subscriptions: Subscriptions,
    pub(in crate::shard) frames: Frames,
    /// Who has something to write, the longest waiting first: the order of deadlines. And how much was printed in the frame ring
    /// when that began: what a session holds of the frame ring stands behind it.
    pub(in crate::shard) flush_queue: VecDeque<(u32, u64)>,
    /// The same, of readers: what they missed is much, and others do not wait for it.
    pub(in crate::shard) bulk_queue: VecDeque<(u32, u64)>,
    /// When each session's heartbeat is due; all have the same period, so the order stays.
    pub(in crate::shard) heartbeats: VecDeque<(u64, u32, u64)>,
    /// By when closing connections are given up; all have the same grace, so the order stays.
    pub(in crate::shard) closing: VecDeque<(u64, u32, u64)>,
    /// Whose socket was full: looked at until they are at ease.
    pub(in crate::shard) watched: VecDeque<(u32, u64)>,
    /// When those are looked at next, steady time; and how many of this round are still to be looked at.
    pub(in crate::shard) watch_at_ns: u64,
    pub(in crate::shard) to_watch: usize,
    /// Steps that are left of this turn.
    pub(in crate::shard) steps: Steps,
    /// Sessions with something under way, the one that waits longest first.
    pub(in crate::shard) workers: VecDeque<(u32, u64)>,
    pub(in crate::shard) long_answers: LongAnswers,
    /// What sessions that are gone have left, by their numbers, which no others have until it is taken away.
    pub(in crate::shard) leaving: BTreeMap<u32, Leaving>,
    /// Ticks were lost on the way to this shard: the key, and the place in its row, before which subscriptions are still to
    /// be looked at for it.
    pub(in crate::shard) sweep: Option<(u32, usize)>,
    /// Who lost a tick in this turn for want of room, and whether that ends it.
    pub(in crate::shard) pressed: Vec<(u32, bool)>,
    /// When rates let go what they hold back.
    pub(in crate::shard) releases: BinaryHeap<Reverse<Release>>,
    /// Who reads again what was in the ring.
    pub(in crate::shard) readers: Readers,
    /// Where resumes begin.
    pub(in crate::shard) resumes: Resumes,
    /// Positions that may still be looked at again in this turn.
    pub(in crate::shard) slots: usize,
    /// Where what is no longer in the ring is asked for, if it is kept.
    pub(in crate::shard) past: Option<HistoryClient>,
    /// What outboxes are made of.
    pub(in crate::shard) buffers: Buffers,
    /// When those shrink next, steady time.
    pub(in crate::shard) shrink_at_ns: u64,
    policy: Rc<Policy>,
    /// Where the shard reads the ring next.
    pub(in crate::shard) cursor: u64,
    /// Pings that came before it was there.
    pub(in crate::shard) held_pings: HeldPings,
    /// Nothing is held back any more: the end is near.
    pub(in crate::shard) draining: bool,
    serials: u64,
    /// Instruments that wildcards and awaited symbols have taken; of the next, so have the sessions before this number.
    pub(in crate::shard) known: usize,
    pub(in crate::shard) learned: u32,
    /// Sessions with a wildcard.
    pub(in crate::shard) wild: BTreeSet<u32>,
    pub(in crate::shard) awaited: Awaited,
    /// The ledgers of all sessions, those that are gone too.
    pub(in crate::shard) totals: Ledger,
    /// What this shard measures with, and which writes.
    pub(in crate::shard) meter: Meter,
    pub(in crate::shard) sample: Sample,
    /// Where it tells incidents.
    pub(in crate::shard) reporter: IncidentReporter,
    /// Where the replay is.
    pub(in crate::shard) news: News,
    /// What is done where memory is short.
    pub(in crate::shard) shortage: Shortage,
    /// The feed, and the clocks.
    pub(in crate::shard) context: Surroundings,
}

impl<S: Socket> Sessions<S> {
    /// A shard without clients.
    pub fn new(
        options: SessionOptions,
        table: Arc<InstrumentTable>,
        ring: TickRing,
        clock: Clock,
        counters: Arc<ShardCounters>,
    ) -> Self {
        let known = table.len();
        let policy = Rc::new(options.policy);
        let buffers = Buffers::new(options.frame_ring_bytes);
        let steps = Steps::new(options.steps_per_turn_max);
        let slots = options.reread_per_turn;
        Self {
            options,
            table,
            ring,
            clock,
            counters,
            connections: Connections::default(),
            subscriptions: Subscriptions::default(),
            frames: Frames::default(),
            flush_queue: VecDeque::new(),
            bulk_queue: VecDeque::new(),
            heartbeats: VecDeque::new(),
            shrink_at_ns: 0,
            closing: VecDeque::new(),
            watched: VecDeque::new(),
            watch_at_ns: 0,
            to_watch: 0,
            steps,
            workers: VecDeque::new(),
            long_answers: LongAnswers::default(),
            leaving: BTreeMap::new(),
            sweep: None,
            pressed: Vec::new(),
            releases: BinaryHeap::new(),
            readers: Readers::default(),
            resumes: Resumes::default(),
            slots,
            past: None,
            buffers,
            policy,
            cursor: 0,
            held_pings: HeldPings::default(),
            draining: false,
            serials: 0,
            known,
            learned: 0,
            wild: BTreeSet::new(),
            awaited: Awaited::default(),
            totals: Ledger::default(),
            meter: Meter::off(),
            sample: Sample::default(),
            reporter: IncidentReporter::off(),
            news: News::default(),
            shortage: Shortage::default(),
            context: Surroundings::default(),
        }
    }

    /// Measures what happens from now on.
    pub fn measure_with(&mut self, meter: Meter) {
        self.meter = meter;
    }

    /// Reads what is no longer in the ring here from now on.
    pub fn read_past_at(&mut self, client: HistoryClient) {
        self.past = Some(client);
    }

    // ---- ticks ----------------------------------------------------------------------------------------

    /// Fans out one tick.
    #[inline]
    pub(in crate::shard) fn tick(&mut self, packed: Packed<'_>, now: Now) {
        let key = packed.key();
        if key.instrument().index() >= self.known {
            self.learn_at_once(now);
        }
        if self.subscriptions.of(key).is_empty() {
            return;
        }
        if !self.buffers.has_room() {
            self.make_room();
        }
        let row = self.subscriptions.of(key);
        let tick = packed.unpack();
        if matches!(tick.body, Body::Gap { .. }) && row.iter().any(Subscription::is_held) {
            return self.gap_after_held(packed, now);
        }
        // Each tick begins with somebody else, so that nobody is always last.
        let start = (tick.seq % row.len() as u64) as usize;
        let Some(mut fan_out) = self.fan_out(tick, packed.seen(), now) else { return };
        let mut row = self.subscriptions.take(key);
        let (last, first) = row.split_at_mut(start);
        for group in first.chunks_mut(GROUP).chain(last.chunks_mut(GROUP)) {
            // Memory is asked for all of them before the first is worked on.
            let wanting = group.iter().filter(|subscription| subscription.wants(tick.seq));
            let prefetched = wanting.fold(0, |sum, wanting| sum ^ self.connections.prefetch(wanting.session));
            std::hint::black_box(prefetched);
            for subscription in group {
                self.tell(subscription, &mut fan_out, now);
            }
        }
        self.subscriptions.put_back(key, row);
        if !self.pressed.is_empty() {
            self.press(now);
        }
    }

    /// A tick that is about to be told.
    fn fan_out(&mut self, tick: Tick, seen: Seen, now: Now) -> Option<FanOut> {
        let symbol = self.table.get(tick.instrument)?;
        let counts = match tick.body {
            Body::Trade(_) | Body::Quote(_) => Ledger { sent: 1, ..Ledger::default() },
            Body::Gap { from, .. } => Ledger { lost: tick.seq - from + 1, ..Ledger::default() },
            Body::Status(_) => Ledger::default(),
        };
        let numbered_ns = tick.rx_ns + seen.since_rx_ns();
        // It may have been published after this turn began.
        let taken_ns = now.wall_ns.max(numbered_ns);
        let class = match tick.body {
            Body::Trade(_) => self.meter.class(tick.instrument, Channel::Trade, || symbol.venue()),
            Body::Quote(_) => self.meter.class(tick.instrument, Channel::Quote, || symbol.venue()),
            Body::Gap { .. } | Body::Status(_) => Class::NONE,
        };
        // What stands at another place of a replay came long ago.
        let class = if tick.snap { Class::NONE } else { class };
        let times = Times { rx_ns: tick.rx_ns, tx_ns: 0, class, instrument: tick.instrument };
        self.meter.record(Stage::Pickup, class, numbered_ns, taken_ns, seen.weight());
        let since = self.buffers.head();
        Some(FanOut { tick, counts, times, since, taken_ns, weight: seen.weight(), range: None })
    }

    /// Tells one subscription a tick: as a rule the session needs not be asked.
    #[inline]
    fn tell(&mut self, subscription: &mut Subscription, fan_out: &mut FanOut, now: Now) {
        let wants = subscription.wants(fan_out.tick.seq);
        if !wants && !subscription.is_opening() {
            return;
        }
        let plain = wants && fan_out.counts.lost == 0 && (subscription.rate().is_none() || self.draining);
        let range = if plain { self.print(fan_out) } else { None };
        let counted = fan_out.counts.sent > 0;
        let id = subscription.session;
        let laid = range.and_then(|range| self.connections.lay(id, range, counted, now.mono_ns));
        let Some(was_queued) = laid else { return self.ask(subscription, fan_out, now) };
        subscription.queued(fan_out.tick.seq);
        self.totals += fan_out.counts;
        if !was_queued {
            self.flush_queue.push_back((id, fan_out.since));
        }
    }

    /// Tells one subscription a tick whose session may not take it.
    #[inline(never)]
    fn ask(&mut self, subscription: &mut Subscription, fan_out: &mut FanOut, now: Now) {
        let (id, key, seq) = (subscription.session, fan_out.tick.key(), fan_out.tick.seq);
        // To one that leaves, nothing more is offered.
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
                self.releases.push(Reverse(Release { due_ns, id, serial, rate }));
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
        let range = self.print(fan_out);
        let range =
            range.filter(|range| !states_wait || self.state_first(id, &fan_out.tick, range.bytes(), now));
        let why = self.why_behind(now);
        let Some((connection, pending_frames)) = self.connections.get_with_pending(id) else { return };
        let mut context = WriteContext {
            counters: &self.counters,
            clock: &self.clock,
            meter: &mut self.meter,
            sample: &mut self.sample,
        };
        if range.is_some_and(|range| connection.offer(range, &mut context, now.mono_ns)) {
            subscription.queued(seq);
            connection.session.count(fan_out.counts);
            self.totals += fan_out.counts;
            if fan_out.counts.lost > 0 {
                self.frames.told(&fan_out.tick);
            }
            connection.set_out(pending_frames);
            if !std::mem::replace(&mut pending_frames.queued, true) {
                self.flush_queue.push_back((id, fan_out.since));
            }
        } else if subscription.fell_behind(why) {
            connection.session.wait(key, now.mono_ns);
            let cut = subscription.cuts() && why == GapCause::SlowConsumer;
            if connection.session.shed() || cut {
                self.pressed.push((id, cut));
            }
        }
    }

    /// A tick of so many bytes may be told to a session where states wait for room: that of its instrument comes first. False if
    /// there is no room for both.
    #[cold]
    fn state_first(&mut self, id: u32, tick: &Tick, bytes: usize, now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.dead) else {
            return true;
        };
        let mut context = WriteContext {
            counters: &self.counters,
            clock: &self.clock,
            meter: &mut self.meter,
            sample: &mut self.sample,
        };
        let has_room = connection.will_take(bytes + STATE_BYTES_MAX, &mut context, now.mono_ns);
        if has_room {
            self.tell_state(id, tick.instrument, now);
        }
        has_room
    }

    /// The frame of a tick, in the frame ring; `None` if there is no room for it.
    #[inline]
    fn print(&mut self, fan_out: &mut FanOut) -> Option<FrameRange> {
        if let Some(range) = fan_out.range {
            return range;
        }
        let FanOut { tick, times, .. } = fan_out;
        let symbol = self.table.get(tick.instrument)?;
        times.tx_ns = self.clock.wall_ns();
        self.frames.encode(tick, symbol, times.tx_ns / 1_000);
        let range = self.buffers.append(self.frames.encoded(), *times);
        self.meter.record(Stage::Encode, times.class, fan_out.taken_ns, times.tx_ns, fan_out.weight);
        fan_out.range = Some(range);
        range
    }

    /// The frame ring comes round: if somebody has waited for too long to be written to, it gets longer, or whoever did makes
    /// copies.
    #[cold]
    fn make_room(&mut self) {
        let old = self.buffers.reclaim_before();
        let waits = |queue: &VecDeque<(u32, u64)>| queue.front().is_some_and(|(_, since)| *since < old);
        if waits(&self.flush_queue) && self.lengthen_frame_ring() {
            return;
        }
        let bulk = self.bulk_queue.iter().take_while(|(_, since)| *since < old);
        for (id, _) in self.flush_queue.iter().take_while(|(_, since)| *since < old).chain(bulk) {
            if let Some(connection) = self.connections.get_mut(*id) {
                connection.session.own();
            }
        }
        self.buffers.reclaim(old);
    }

    pub(in crate::shard) fn ids(&self) -> Vec<u32> {
        self.connections.iter().map(|(id, _)| id).collect()
    }

    // ---- coming and going -----------------------------------------------------------------------------

    /// A client is connected; it is greeted. Its number.
    pub fn open(&mut self, socket: S, who: ClientInfo, now: Now) -> u32 {
        let hello = json::Hello {
            session: &who.name,
            epoch: &self.options.epoch,
            feed: self.options.feed,
            time_us: now.wall_ns / 1_000,
            heartbeat_ms: self.options.heartbeat_ms,
            symbols: self.options.symbols_max,
            frame_bytes: self.options.frame_bytes_max,
            ops_per_s: self.options.ops_per_s,
        }
        .message();
        self.serials += 1;
        let serial = self.serials;
        // The top bits, which are spread best.
        let stagger = (phase_ns(serial) >> 40) as u8;
        let id = self.connections.insert(Box::new(Connection {
            socket,
            session: Session::new(Rc::clone(&self.policy), self.buffers.clone(), stagger, now.mono_ns),
            who: Box::new(who),
            serial,
            since_us: now.wall_ns / 1_000,
            places: BTreeMap::new(),
            wildcards: Vec::new(),
            awaited: AwaitedBy::new(),
            work: None,
            at_work: false,
            unsettled: false,
            pongs: Vec::new(),
            way: None,
            history: None,
            reading: None,
            reads: false,
            waits_for: None,
            named: 0,
            seam: None,
            withheld: None,
            news: 0,
            watched: false,
            slowed: false,
            dead: false,
            ending: None,
            parting: Parting::Linger,
            ask_kernel_ns: 0,
            allowance: Allowance::new(self.options.ops_per_s, now.mono_ns),
        }));
        self.heartbeats.push_back((now.mono_ns + self.options.heartbeat_ms * MS, id, serial));
        self.counters.sessions.add(1);
        self.counters.came.add(1);
        // Urgent, or a heartbeat could overtake it. What it answers to a ping at once tells that it answers them.
        self.say_urgently(id, &hello, now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.session.mark(now.mono_ns);
        }
        self.tell_news_to(id, now);
        id
    }

    /// Whole frames made by somebody else, which overtake what is queued: pongs.
    pub fn push_raw(&mut self, id: u32, frames: &[u8], now: Now) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.session.push_urgent(frames, now.mono_ns);
            self.queue_urgent(id);
        }
    }

    /// Has an urgent frame written: at once where the socket has room, but the client enough before it.
    pub(in crate::shard) fn queue_urgent(&mut self, id: u32) {
        match self.connections.get_mut(id) {
            Some(connection) if connection.session.awaits_answer() => connection.force(false, &self.counters),
            _ => self.queue(id),
        }
    }

    /// Sends one message that overtakes what is queued.
    pub(in crate::shard) fn say_urgently(&mut self, id: u32, message: &impl serde::Serialize, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let frame = self.frames.text(|out| text::json::write(message, out));
        connection.session.push_urgent(frame, now.mono_ns);
        self.queue(id);
    }

    /// Sends one message behind what is queued, whether or not there is room for ticks.
    pub(in crate::shard) fn say(&mut self, id: u32, message: &impl serde::Serialize, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let frame = self.frames.text(|out| text::json::write(message, out));
        connection.session.push_answer(frame, now.mono_ns);
        self.queue(id);
    }

    // ---- the socket -----------------------------------------------------------------------------------

    /// Something came from the client.
    pub fn heard(&mut self, id: u32, now: Now) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.session.heard(now.mono_ns);
        }
    }

    /// The socket can be written to again.
    pub fn writable(&mut self, id: u32) {
        if self.connections.get(id).is_some_and(|connection| !connection.session.awaits_answer()) {
            self.go_on(id);
        }
    }

    /// The client has answered a ping, with this payload. False if it was none that waits for an answer.
    pub fn answered(&mut self, id: u32, payload: &[u8], now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if !connection.session.answered(payload, now.mono_ns) {
            return false;
        }
        self.go_on_answered(id, now);
        // One that sheds is given the next portion when it has come to the one before.
        self.recover(id, now);
        true
    }

    /// How many answers to pings may come of a client at once.
    pub(in crate::shard) fn unanswered(&self, id: u32) -> usize {
        self.connections.get(id).map_or(0, |connection| connection.session.unanswered())
    }

    /// Goes on with a session that waits for an answer, unless the client has still too much before it.
    pub(in crate::shard) fn go_on_answered(&mut self, id: u32, now: Now) {
        let Some(Connection { session, .. }) = self.connections.get(id) else { return };
        if session.awaits_answer() && !session.is_ahead(now.mono_ns) {
            self.go_on(id);
        }
    }

    /// A session that was blocked is written to again when its turn comes.
    pub(in crate::shard) fn go_on(&mut self, id: u32) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.session.is_blocked()
        {
            connection.session.unblock();
            self.connections.set_queued(id, true);
            self.enqueue(id);
        }
    }

    /// What the driver of a connection has to wait for.
    pub fn wants(&mut self, id: u32) -> Wants {
        let Some(connection) = self.connections.get_mut(id) else {
            return Wants { read: false, write: false, end: true };
        };
        let closing = connection.session.is_closing();
        Wants {
            read: !closing && !connection.session.is_over_full() && connection.work.is_none(),
            write: connection.session.is_blocked() && !connection.session.awaits_answer(),
            end: connection.dead || (closing && connection.session.outbox().is_empty()),
        }
    }

    /// True while some session has something to write and its socket is not known to be full.
    pub fn has_to_flush(&self) -> bool {
        !(self.flush_queue.is_empty() && self.bulk_queue.is_empty())
    }

    /// Steps that were taken since the shard began. Between the beginnings of two turns they are at most
    /// [`steps_per_turn_max`](SessionOptions::steps_per_turn_max).
    pub fn steps(&self) -> u64 {
        self.steps.taken()
    }

    /// True when every session has been told all there is.
    pub(in crate::shard) fn is_settled(&mut self) -> bool {
        self.connections.iter_mut().all(|(_, c)| {
            let told = c.session.waiting() == 0 && c.reading.is_none() && c.work.is_none();
            c.dead || (told && c.session.outbox().is_empty())
        })
    }

    /// True when nobody is left.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Publishes the counts of a turn.
    pub(in crate::shard) fn count(&mut self) {
        self.look_at_memory();
        self.counters.subscriptions.set(self.subscriptions.len() as u64);
        self.counters.instruments.set(self.known as u64);
        self.counters.wild.set(self.wild.len() as u64);
        self.counters.steps.set(self.steps.taken());
        self.counters.encoded.set(self.frames.count);
        self.counters.sent.set(self.totals.sent);
        self.counters.merged.set(self.totals.merged);
        self.counters.dropped.set(self.totals.dropped);
        self.counters.lost.set(self.totals.lost);
        for (counted, (told, ticks)) in self.counters.gaps.iter().zip(self.frames.gaps) {
            counted.told.set(told);
            counted.ticks.set(ticks);
        }
    }
}
