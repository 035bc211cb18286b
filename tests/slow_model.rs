//! One client behind two kernels of our own, on a clock of our own: whatever its kernel takes in and however slowly it reads,
//! it is not cut, is told what is new, and never has much before it; and once it stops it is cut in time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tickfan::clock::Clock;
use tickfan::counters::{Ending, ShardCounters};
use tickfan::instrument::{InstrumentId, InstrumentTable, Symbol};
use tickfan::ring::{Seen, TickWriter, tick_ring};
use tickfan::session::{Policy, TAPE_BYTES_MIN};
use tickfan::shard::{CatchUps, Peer, SessionOptions, Sessions, Shard, Socket, Tuning, Who};
use tickfan::tick::{Body, Decimal, Tick, Trade, TradeId};
use tickfan::watch::ledger::Ledger;
use tickfan::watch::message::Message;

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
        (road.unsent.len() + road.acks.iter().map(|(_, n)| n).sum::<usize>()) as u64
    }

    fn kick(&self) {}
}

/// A market of one symbol, a shard and one client.
struct World {
    clock: Clock,
    instrument: InstrumentId,
    writer: TickWriter,
    seq: u64,
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
    ledger: Ledger,
    levels: Vec<String>,
    /// How old the ticks were that it read last, milliseconds.
    age_ms: u64,
}

impl World {
    fn new(buffer: usize, back_ms: u64) -> Self {
        let clock = Clock::manual();
        let table = Arc::new(InstrumentTable::new(16));
        let instrument = table.intern(&Symbol::new("demo", "S").expect("a good symbol")).expect("room");
        let (writer, ring) = tick_ring(4_096, 16).expect("a good capacity");
        let counters = Arc::new(ShardCounters::default());
        let options = SessionOptions {
            epoch: "e".into(),
            feed: tickfan::protocol::json::Provenance::Live,
            policy: Policy {
                outbox_bytes_max: 262_144,
                control_bytes_max: 65_536,
                warn_behind_ns: 1_000 * MS,
                shed_behind_ns: SHED_BEHIND_MS * MS,
                cut_after_ns: CUT_AFTER_MS * MS,
                pong_timeout_ns: 20_000 * MS,
                rates_max: 2,
            },
            tuning: Tuning { unsent_bytes_max: UNSENT_MAX as u32 },
            dead_peer_ms: 30_000,
            fragments_max: 1,
            tape_bytes: TAPE_BYTES_MIN,
            controls_per_s: 50,
            drain_spread_ms: 100,
            heartbeat_ms: 5_000,
            symbols_max: 100,
            frame_bytes_max: 65_536,
            ops_per_s: 1_000,
            close_grace_ms: 2_000,
            venues: ["demo".to_owned()].into(),
            remote: None,
            catch_ups: CatchUps::new(2, 2, 3_600_000),
        };
        let sessions = Sessions::new(options, table, ring.clone(), clock.clone(), Arc::clone(&counters));
        let sessions = Rc::new(RefCell::new(sessions));
        let shard = Shard::new(ring.reader(), Rc::clone(&sessions), Arc::clone(&counters));
        let road = Rc::new(RefCell::new(Road { buffer, back_ms, ..Road::default() }));
        let who = Who { name: "c".into(), peer: None };
        let id = sessions.borrow_mut().open(Kernel(Rc::clone(&road)), who, clock.now());
        let subscribe = r#"{"op":"subscribe","channel":"trade","symbols":["demo:S"],"mode":"every"}"#;
        sessions.borrow_mut().request(id, subscribe, clock.now());
        Self {
            clock,
            instrument,
            writer,
            seq: 0,
            counters,
            sessions,
            shard,
            id,
            road,
            partial: Vec::new(),
            answers: VecDeque::new(),
            budget: 0,
            ledger: Ledger::new(false),
            levels: Vec::new(),
            age_ms: 0,
        }
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
        for _ in 0..ticks {
            self.seq += 1;
            let trade = Trade {
                price: Decimal::new(12_345, 2),
                size: Decimal::new(1, 0),
                side: None,
                id: TradeId::NONE,
            };
            let (rx_ns, body) = (self.clock.wall_ns(), Body::Trade(trade));
            let tick =
                Tick { instrument: self.instrument, seq: self.seq, rx_ns, ts_us: None, snap: false, body };
            self.writer.publish(&tick, Seen::UNMEASURED).expect("a place in the ring");
        }
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
            Message::Update(_, update) => {
                self.age_ms = (now.wall_ns / 1_000).saturating_sub(update.rx_us.unwrap_or(0)) / 1_000;
            }
            _ => {}
        }
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
