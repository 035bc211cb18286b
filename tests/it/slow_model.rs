//! One client behind two kernels of our own, on a clock of our own: whatever its kernel takes in and however slowly it reads,
//! it is not cut, is sent what is new, and never has much before it; and once it stops it is cut in time. Over a thin
//! link it is sent the newest values while they are new.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tickfan::cli::watch::ledger::SequenceLedger;
use tickfan::cli::watch::message::Message;
use tickfan::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use tickfan::model::tick::{Body, Channel, Decimal, Quote, Tick, Trade, TradeId};
use tickfan::ring::{Seen, TickWriter, tick_ring};
use tickfan::session::{FRAME_RING_BYTES_MIN, Policy};
use tickfan::shard::{
    CatchUps, ClientInfo, ClientLimits, Peer, SessionOptions, SessionTimes, Sessions, Shard, Socket, Tuning,
};
use tickfan::system::counters::{Ending, ShardCounters};
use tickfan::time::clock::Clock;

const MS: u64 = 1_000_000;
/// How far the clock goes in one step.
const STEP_MS: u64 = 10;
/// Bytes that our kernel may hold unsent, the default.
const UNSENT_MAX: usize = 16_384;
/// The defaults of `[session]`, milliseconds.
const SHED_BEHIND_MS: u64 = 3_000;
const CUT_AFTER_MS: u64 = 20_000;
/// The longest that a client is given beyond that to come to its next ping.
const ALLOWANCE_MAX_MS: u64 = 60_000;

/// Our kernel, the road and the kernel of the client.
#[derive(Default)]
struct Road {
    /// What is to be sent.
    unsent: VecDeque<u8>,
    /// What the client's kernel holds, and how much it would.
    buffered: VecDeque<u8>,
    buffer: usize,
    /// Its window is closed until so much is free again.
    closed: bool,
    /// How long acknowledgements and answers are on their way, and those that are: when they come, and of how many bytes.
    back_ms: u64,
    acks: VecDeque<(u64, usize)>,
    now_ms: u64,
    /// How often it was asked for what is not acknowledged.
    asked: Cell<u64>,
}

impl Road {
    fn carry(&mut self) {
        let free = self.buffer - self.buffered.len();
        // As Linux does it: a window that closed stays so until a sixteenth is free.
        self.closed = if self.closed { free < (self.buffer / 16).max(1) } else { free == 0 };
        if !self.closed {
            let n = free.min(self.unsent.len());
            self.buffered.extend(self.unsent.drain(..n));
            self.acks.push_back((self.now_ms + self.back_ms, n));
        }
        while self.acks.pop_front_if(|(at, _)| *at <= self.now_ms).is_some() {}
    }
}

struct Kernel(Rc<RefCell<Road>>);

impl Socket for Kernel {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut road = self.0.borrow_mut();
        road.carry();
        let room = UNSENT_MAX.saturating_sub(road.unsent.len());
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(room);
        road.unsent.extend(&bytes[..n]);
        road.carry();
        Ok(n)
    }

    fn force(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().unsent.extend(bytes);
        Ok(bytes.len())
    }

    fn peer(&self) -> Option<Peer> {
        Some(Peer { silent_ms: 0, asked: true })
    }

    fn unacked(&self) -> u64 {
        let road = self.0.borrow();
        road.asked.set(road.asked.get() + 1);
        (road.unsent.len() + road.acks.iter().map(|(_, n)| n).sum::<usize>()) as u64
    }

    fn kick(&self) {}
}

/// A market, a shard and one client.
struct World {
    clock: Clock,
    instruments: Vec<InstrumentId>,
    /// The channels on which there are ticks.
    channels: Vec<Channel>,
    writer: TickWriter,
    /// How many ticks each instrument has had on each of them.
    seqs: Vec<u64>,
    next: usize,
    counters: Arc<ShardCounters>,
    sessions: Rc<RefCell<Sessions<Kernel>>>,
    shard: Shard<Kernel>,
    id: u32,
    road: Rc<RefCell<Road>>,
    /// What the client has read of the frame that it is in.
    partial: Vec<u8>,
    /// Its answers to pings that are on their way.
    answers: VecDeque<(u64, Vec<u8>)>,
    /// What it may read of the bytes that it has not, in thousandths.
    budget: u64,
    ledger: SequenceLedger,
    levels: Vec<String>,
    /// How old the ticks were that it read last, milliseconds; and the oldest of them.
    age_ms: u64,
    oldest_ms: u64,
    /// The newest numbers that it received.
    told: HashMap<(String, Channel), u64>,
    /// It answers pings.
    answering: bool,
    /// Answers to its own pings.
    pongs: u64,
}

impl World {
    fn new(buffer: usize, back_ms: u64) -> Self {
        let subscribe = r#"{"op":"subscribe","channel":"trade","symbols":["demo:S0"],"mode":"every"}"#;
        Self::of(buffer, back_ms, 1, &[(Channel::Trade, subscribe)])
    }

    /// With so many symbols, and what the client asks for on each channel.
    fn of(buffer: usize, back_ms: u64, symbols: u64, subscriptions: &[(Channel, &str)]) -> Self {
        let clock = Clock::manual();
        let table = Arc::new(InstrumentTable::new(16));
        let symbol = |n: u64| Symbol::new("demo", &format!("S{n}")).expect("a good symbol");
        let instruments: Vec<_> =
            (0..symbols).map(|n| table.intern(&symbol(n)).expect("there is room")).collect();
        let (writer, ring) = tick_ring(4_096, 16).expect("a good capacity");
        let counters = Arc::new(ShardCounters::default());
        let options = SessionOptions {
            limits: ClientLimits {
                symbols_max: 100,
                frame_bytes_max: 65_536,
                fragments_max: 1,
                controls_per_s: 50,
                ops_per_s: 1_000,
                steps_per_turn_max: 1 << 20,
            },
            times: SessionTimes {
                heartbeat_ms: 5_000,
                close_grace_ms: 2_000,
                drain_spread_ms: 100,
                dead_peer_ms: 30_000,
            },

            epoch: "e".into(),
            feed: tickfan::protocol::json::Provenance::Live,
            policy: Policy {
                outbox_bytes_max: 262_144,
                control_bytes_max: 65_536,
                warn_behind_ns: 1_000 * MS,
                shed_behind_ns: SHED_BEHIND_MS * MS,
                cut_after_ns: CUT_AFTER_MS * MS,
                pong_timeout_ns: 20_000 * MS,
                ahead_ns: 500 * MS,
                rates_max: 2,
            },
            tuning: Tuning { unsent_bytes_max: UNSENT_MAX as u32 },
            frame_ring_bytes: FRAME_RING_BYTES_MIN,
            venues: ["demo".to_owned()].into(),
            replay_control: None,
            catch_ups: CatchUps::new(2, 2, 3_600_000),
            reread_per_turn: 4_096,
        };
        let sessions = Sessions::new(options, table, ring.clone(), clock.clone(), Arc::clone(&counters));
        let sessions = Rc::new(RefCell::new(sessions));
        let shard = Shard::new(ring.reader(), Rc::clone(&sessions), Arc::clone(&counters));
        let road = Rc::new(RefCell::new(Road { buffer, back_ms, ..Road::default() }));
        let who = ClientInfo { name: "c".into(), peer: None };
        let id = sessions.borrow_mut().open(Kernel(Rc::clone(&road)), who, clock.now());
        for (_, subscribe) in subscriptions {
            sessions.borrow_mut().request(id, subscribe, clock.now());
        }
        let channels: Vec<Channel> = subscriptions.iter().map(|(channel, _)| *channel).collect();
        Self {
            clock,
            seqs: vec![0; instruments.len() * channels.len()],
            instruments,
            channels,
            writer,
            next: 0,
            counters,
            sessions,
            shard,
            id,
            road,
            partial: Vec::new(),
            answers: VecDeque::new(),
            budget: 0,
            ledger: SequenceLedger::new(false),
            levels: Vec::new(),
            age_ms: 0,
            oldest_ms: 0,
            told: HashMap::new(),
            answering: true,
            pongs: 0,
        }
    }

    /// Publishes a tick of the next instrument and channel in turn.
    fn tick(&mut self) {
        let at = self.next % self.seqs.len();
        self.next += 1;
        self.seqs[at] += 1;
        let instrument = self.instruments[at / self.channels.len()];
        let price = Decimal::new(12_345, 2);
        let body = match self.channels[at % self.channels.len()] {
            Channel::Trade => {
                Body::Trade(Trade { price, size: Decimal::new(1, 0), side: None, id: TradeId::NONE })
            }
            Channel::Quote => Body::Quote(Quote { bid: Some(price), ask: Some(price), ..Quote::default() }),
        };
        let (seq, rx_ns) = (self.seqs[at], self.clock.wall_ns());
        let tick = Tick { instrument, seq, rx_ns, ts_us: None, snap: false, body };
        self.writer.publish(&tick, Seen::UNMEASURED).expect("a place in the ring");
    }

    /// Asks for proof that everything until now has been sent.
    fn ask(&mut self) {
        let request = format!(r#"{{"op":"ping","t":"{}"}}"#, self.seqs[0]);
        self.sessions.borrow_mut().request(self.id, &request, self.clock.now());
    }

    /// What it has received, and what there was.
    fn heads(&self) -> (u64, u64) {
        (self.told.values().sum(), self.seqs.iter().sum())
    }

    /// Bytes on their way to the client that it has not read.
    fn before_it(&self) -> usize {
        let road = self.road.borrow();
        road.unsent.len() + road.buffered.len()
    }

    /// One step: so many ticks come, and so many bytes a second are read.
    fn step(&mut self, ticks: u64, bytes_per_s: u64) {
        self.clock.advance(Duration::from_millis(STEP_MS));
        self.road.borrow_mut().now_ms += STEP_MS;
        let now_ms = self.road.borrow().now_ms;
        while let Some((_, payload)) = self.answers.pop_front_if(|(at, _)| *at <= now_ms) {
            let (now, mut sessions) = (self.clock.now(), self.sessions.borrow_mut());
            sessions.heard(self.id, now);
            assert!(sessions.answered(self.id, &payload, now), "each ping is answered once");
        }
        (0..ticks).for_each(|_| self.tick());
        self.turn();
        self.budget += bytes_per_s * STEP_MS;
        self.read();
        self.turn();
    }

    fn turn(&mut self) {
        self.road.borrow_mut().carry();
        if self.road.borrow().unsent.len() < UNSENT_MAX {
            self.sessions.borrow_mut().writable(self.id);
        }
        while self.shard.turn(self.clock.now()) {}
    }

    fn read(&mut self) {
        while self.budget >= 1_000 {
            let Some(byte) = self.road.borrow_mut().buffered.pop_front() else {
                // Who is up to date reads what comes, and saves nothing for later.
                self.budget = self.budget.min(100_000);
                return;
            };
            self.budget -= 1_000;
            self.partial.push(byte);
            let (len, at) = match *self.partial.as_slice() {
                [_, 126, a, b, ..] => (usize::from(u16::from_be_bytes([a, b])), 4),
                [_, len @ ..=125, ..] => (usize::from(len), 2),
                _ => continue,
            };
            if self.partial.len() == at + len {
                let frame = std::mem::take(&mut self.partial);
                self.hear(frame[0], &frame[at..]);
            }
        }
    }

    fn hear(&mut self, first: u8, payload: &[u8]) {
        let now = self.clock.now();
        if first == 0x89 {
            if !self.answering {
                return;
            }
            let road = self.road.borrow();
            return self.answers.push_back((road.now_ms + road.back_ms, payload.to_vec()));
        }
        if first == 0x88 {
            return;
        }
        let text = std::str::from_utf8(payload).expect("UTF-8");
        let message = Message::parse(text).expect("a message");
        self.ledger.hear(&message);
        match message {
            Message::Lag(lag) => self.levels.push(lag.level.to_string()),
            Message::Update(channel, update) => {
                self.age_ms = (now.wall_ns / 1_000).saturating_sub(update.rx_us.unwrap_or(0)) / 1_000;
                self.oldest_ms = self.oldest_ms.max(self.age_ms);
                self.told.insert((update.symbol.to_string(), channel), update.seq);
            }
            _ if text.starts_with(r#"{"type":"pong""#) => self.hear_pong(text),
            _ => {}
        }
    }

    /// Whatever was to be sent before a ping has been sent before its answer, unless a `lag` reported that it is
    /// not.
    fn hear_pong(&mut self, text: &str) {
        let pong: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let asked: u64 = pong["t"].as_str().and_then(|t| t.parse().ok()).expect("what was sent");
        let told = self.told.get(&("demo:S0".to_owned(), self.channels[0])).copied().unwrap_or(0);
        let shed = self.levels.last().is_some_and(|level| level == "shed" || level == "cut");
        assert!(told >= asked || shed, "the answer to a ping overtook {} numbers", asked - told);
        self.pongs += 1;
    }

    /// Why it is to go, if it is.
    fn ended(&self) -> Option<Ending> {
        Ending::ALL.into_iter().find(|ending| self.counters.ended[ending.index()].get() > 0)
    }
}

/// Bytes of a tick, as far as it matters.
const TICK_BYTES: u64 = 130;

/// A client that is fast at first, then slow, then fast again.
fn reads_slowly(buffer: usize, bytes_per_s: u64, ticks: u64, back_ms: u64) {
    let fed = ticks * 100 * TICK_BYTES;
    let what = format!("buffer {buffer}, {bytes_per_s} B/s of {fed}, {back_ms} ms back");
    let mut world = World::new(buffer, back_ms);
    (0..300).for_each(|_| world.step(ticks, 2_000_000));
    assert!(world.levels.is_empty() && world.age_ms <= STEP_MS, "{what}");
    // What is sent in the second in which its slowness shows, and what was before it.
    let most = 65_536 + UNSENT_MAX + 2 * fed as usize;
    for ms in (0..120_000).step_by(STEP_MS as usize) {
        world.step(ticks, bytes_per_s);
        assert_eq!(world.ended(), None, "{what}: after {ms} ms, {:?}", world.levels);
        assert!(world.before_it() <= most, "{what}: {} bytes before it", world.before_it());
    }
    assert!(world.ledger.held(), "{what}: {:?}", world.ledger.breaks());
    assert_eq!(world.levels[..2], ["warn", "shed"], "{what}");
    assert!(world.levels.iter().all(|level| level != "cut"), "{what}: {:?}", world.levels);
    (0..1_000).for_each(|_| world.step(ticks, 2_000_000));
    assert_eq!(world.levels.last().map(String::as_str), Some("ok"), "{what}: {:?}", world.levels);
    assert!(world.age_ms <= STEP_MS && world.ledger.held(), "{what}: {} ms old", world.age_ms);
}

#[test]
fn who_reads_slowly_is_not_cut_and_never_has_much_before_it() {
    for (buffer, bytes_per_s) in
        [(2_048, 2_000), (65_536, 3_000), (65_536, 20_000), (16 << 20, 2_000), (16 << 20, 5_000)]
    {
        reads_slowly(buffer, bytes_per_s, 8, 0);
    }
}

#[test]
fn nor_is_who_falls_behind_little_by_little() {
    for buffer in [2_048, 16 << 20] {
        reads_slowly(buffer, 2_000, 1, 0);
    }
}

#[test]
fn nor_is_who_is_far_away() {
    reads_slowly(16 << 20, 3_000, 8, 300);
}

/// A client that reads for 30 s at most so fast, then nothing.
fn stops(buffer: usize, bytes_per_s: u64, ticks: u64, back_ms: u64) {
    let fed = ticks * 100 * TICK_BYTES;
    let what = format!("buffer {buffer}, {bytes_per_s} B/s of {fed}, {back_ms} ms back");
    let mut world = World::new(buffer, back_ms);
    (0..3_000).for_each(|_| world.step(ticks, bytes_per_s));
    assert_eq!(world.ended(), None, "{what}");
    // What may stand before its next ping: as much as comes in a second, and what one write takes.
    let before = fed.clamp(16_384, 120_000) + 33_000;
    let bound = CUT_AFTER_MS + (before / 2).min(ALLOWANCE_MAX_MS) + SHED_BEHIND_MS + 3_000;
    let mut ms = 0;
    while world.ended().is_none() {
        world.step(ticks, 0);
        ms += STEP_MS;
        assert!(ms < bound, "{what}: still there after {ms} ms, {:?}", world.levels);
    }
    assert_eq!(world.ended(), Some(Ending::SlowConsumer), "{what}");
    assert!(ms >= CUT_AFTER_MS - 2_000, "{what}: {ms} ms");
}

#[test]
fn who_stops_is_cut_in_time() {
    for buffer in [2_048, 65_536, 16 << 20] {
        for (bytes_per_s, ticks) in [(2_000_000, 2), (2_000_000, 12), (5_000, 12), (2_000_000, 100)] {
            stops(buffer, bytes_per_s, ticks, 0);
        }
        for back_ms in [20, 300] {
            stops(buffer, 5_000, 12, back_ms);
        }
    }
}

// ---- a thin link --------------------------------------------------------------------------------------

const LATEST: &str = r#"{"op":"subscribe","channel":"quote","symbols":["demo:*"],"mode":"latest"}"#;
const EVERY: &str = r#"{"op":"subscribe","channel":"trade","symbols":["demo:*"],"mode":"every"}"#;

/// How old the newest values are, at most, that a client reads in a minute at so many bytes a second, after it was
/// fast for some seconds and slow for some more, of five times as much as it takes or more.
fn thin(buffer: usize, bytes_per_s: u64, symbols: u64, back_ms: u64, answering: bool) -> u64 {
    let what = format!("buffer {buffer}, {bytes_per_s} B/s, {symbols} symbols, {back_ms} ms back");
    let mut world = World::of(buffer, back_ms, symbols, &[(Channel::Quote, LATEST)]);
    world.answering = answering;
    (0..300).for_each(|_| world.step(8, 2_000_000));
    assert_eq!((world.levels.len(), world.heads().0), (0, world.heads().1), "{what}");
    // What was before it when it was known to be slow.
    let first_s = 10 + (buffer.min(200_000) as u64 + 65_536) / bytes_per_s;
    (0..first_s * 100).for_each(|_| world.step(8, bytes_per_s));
    world.oldest_ms = 0;
    for n in 0..6_000 {
        if n % 100 == 0 {
            world.ask();
        }
        world.step(8, bytes_per_s);
        assert_eq!(world.ended(), None, "{what}");
    }
    let oldest_ms = world.oldest_ms;
    assert!(world.ledger.held(), "{what}: {:?}", world.ledger.breaks());
    let (told, merged) = (world.ledger.heard_all().updates, world.ledger.heard_all().merged);
    assert!(merged > told && world.ledger.gaps_all().count == 0, "{what}: {told} told, {merged} merged");
    assert!(world.pongs >= 50, "{what}: {} answers to pings", world.pongs);
    // As fast as before, it is sent all there is, and each tick by itself again.
    (0..1_000).for_each(|_| world.step(8, 2_000_000));
    assert_eq!(world.heads().0, world.heads().1, "{what}");
    assert!(world.ledger.held() && world.age_ms <= STEP_MS, "{what}");
    oldest_ms
}

#[test]
fn the_newest_values_over_a_thin_link_are_less_than_a_second_old() {
    for buffer in [8_192, 65_536, 16 << 20] {
        for (symbols, back_ms) in [(1, 0), (4, 0), (4, 100)] {
            let oldest_ms = thin(buffer, 20_000, symbols, back_ms, true);
            assert!(oldest_ms < 1_000, "{oldest_ms} ms: buffer {buffer}, {symbols}, {back_ms}");
        }
    }
}

#[test]
fn over_a_thinner_one_they_are_newer_than_what_the_kernels_would_hold() {
    for buffer in [8_192, 65_536, 16 << 20] {
        let oldest_ms = thin(buffer, 5_000, 4, 0, true);
        assert!(oldest_ms < (UNSENT_MAX as u64 + 8_192) / 5, "{oldest_ms} ms: buffer {buffer}");
    }
}

#[test]
fn the_kernel_tells_how_far_a_client_is_that_answers_no_ping() {
    // Its own buffer holds some of it, which is unknown: 16,384 bytes of ours would be 800 ms more.
    let oldest_ms = thin(8_192, 20_000, 4, 0, false);
    assert!(oldest_ms < 1_300, "{oldest_ms} ms");
}

#[test]
fn who_keeps_up_is_told_each_tick_and_costs_no_question() {
    let mut world = World::of(65_536, 0, 4, &[(Channel::Quote, LATEST)]);
    let before = world.road.borrow().asked.get();
    (0..3_000).for_each(|_| world.step(8, 2_000_000));
    assert_eq!(world.ledger.heard_all().updates, 24_000);
    assert_eq!((world.ledger.heard_all().merged, world.levels.len()), (0, 0));
    // A heartbeat asks once, every five seconds.
    assert_eq!(world.road.borrow().asked.get() - before, 6);
}

#[test]
fn trades_are_told_or_named_beside_values_that_are_merged() {
    let subscriptions = [(Channel::Quote, LATEST), (Channel::Trade, EVERY)];
    // Trades alone are less than the link takes, and then more.
    for (ticks_per_s, loses) in [(200, false), (800, true)] {
        let mut world = World::of(8_192, 0, 2, &subscriptions);
        (0..300).for_each(|_| world.step(1, 2_000_000));
        for _ in 0..6_000 {
            world.step(ticks_per_s / 100, 20_000);
        }
        (0..2_000).for_each(|_| world.step(1, 2_000_000));
        let (quotes, trades) = (world.ledger.heard(Channel::Quote), world.ledger.heard(Channel::Trade));
        assert!(world.ledger.held() && world.ended().is_none(), "{:?}", world.ledger.breaks());
        assert_eq!(world.heads().0, world.heads().1, "{ticks_per_s}");
        assert!(quotes.merged > 0 && trades.merged == 0, "{ticks_per_s}: {quotes:?} {trades:?}");
        assert_eq!(world.ledger.gaps_all().count > 0, loses, "{ticks_per_s}: {trades:?}");
    }
}
