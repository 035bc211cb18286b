//! A shard turned by hand, with sockets that take as many bytes as they are told to and a clock that moves when it
//! is told to. Random schedules of ticks, requests, slow and fast readers; after each the accounting rule has held
//! for every client and everybody was told everything. A failure prints its seed; the same seed gives the same
//! bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tickfan::cli::watch::ledger::Ledger;
use tickfan::cli::watch::message::Message;
use tickfan::history::{self, History, HistoryReader, HistoryWriter};
use tickfan::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use tickfan::model::tick::{
    Body, Channel, Decimal, FeedGap, Key, Quote, State, Stream, Tick, Trade, TradeId,
};
use tickfan::protocol::close::Close;
use tickfan::protocol::json::Provenance;
use tickfan::protocol::parse_query;
use tickfan::ring::{Seen, TickWriter, tick_ring};
use tickfan::session::{FRAME_RING_BYTES_MIN, Policy};
use tickfan::shard::{
    CatchUps, ClientInfo, ClientLimits, ClientRow, Peer, Relief, STEPS_MIN, SessionOptions, SessionTimes,
    Sessions, Shard, Socket, SortBy, Tuning,
};
use tickfan::system::counters::{Counter, ShardCounters};
use tickfan::system::memory::Memory;
use tickfan::time::clock::Clock;
use tokio::sync::mpsc;

/// Schedules in one run of the test; `TICKFAN_SCHEDULES` asks for more.
const SCHEDULES: u64 = 2_000;
const STEPS: usize = 120;
const INSTRUMENTS: u64 = 4;
const OUTBOX_BYTES_MAX: usize = 4_096;
const MEMORY_BYTES_MAX: u64 = 1 << 40;
/// Positions of the ring that a shard looks at again in one turn, where they are few.
const REREAD_FEW: usize = 12;

/// Reproducible numbers: splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

const MS: u64 = 1_000_000;

/// A socket that takes what it has room for, and a kernel behind it.
#[derive(Default)]
struct Wire {
    room: usize,
    taken: Vec<u8>,
    /// How much of that the other side has acknowledged.
    acked: usize,
}

struct Fake(Rc<RefCell<Wire>>);

impl Socket for Fake {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let mut wire = self.0.borrow_mut();
        if wire.room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(wire.room);
        wire.room -= n;
        wire.taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn force(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn peer(&self) -> Option<Peer> {
        None
    }

    fn unacked(&self) -> u64 {
        let wire = self.0.borrow();
        (wire.taken.len() - wire.acked) as u64
    }

    fn kick(&self) {}
}

/// The texts of the frames in `bytes`, read as RFC 6455 §5.2 has it; the code of a close frame at the end.
fn texts(bytes: &[u8]) -> (Vec<String>, Option<u16>) {
    let (mut texts, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (len, at) = match rest[1] {
            126 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
            127 => (u64::from_be_bytes(rest[2..10].try_into().expect("8 bytes")) as usize, 10),
            len => (usize::from(len), 2),
        };
        let payload = &rest[at..at + len];
        match rest[0] {
            0x89 => {}
            0x81 => texts.push(String::from_utf8(payload.to_vec()).expect("UTF-8")),
            0x88 => {
                assert_eq!(rest.len(), at + len, "nothing comes behind a close frame");
                return (texts, Some(u16::from_be_bytes([payload[0], payload[1]])));
            }
            other => panic!("a frame that begins with {other:#x}"),
        }
        rest = &rest[at + len..];
    }
    (texts, None)
}

/// What stands in the pings of some whole frames.
fn pings(mut frames: &[u8]) -> Vec<&[u8]> {
    let mut pings = Vec::new();
    while let [first, len, ..] = *frames {
        let (frame, rest) = frames.split_at(frame_len(frames).expect("it is whole"));
        if first == 0x89 {
            pings.push(&frame[2..2 + usize::from(len)]);
        }
        frames = rest;
    }
    pings
}

struct Client {
    id: u32,
    name: String,
    wire: Rc<RefCell<Wire>>,
    /// It answers pings, as a client has to; some never do.
    answers: bool,
    /// How much it has read.
    came_to: usize,
    /// What it says that it has, of an earlier connection.
    resumes: Told,
    /// What it has sent that was not read yet.
    sent: VecDeque<String>,
}

/// The newest number of each subscription that a client was told.
type Told = BTreeMap<(String, Channel), u64>;

/// A client that has gone.
struct Gone {
    bytes: Vec<u8>,
    resumes: Told,
    row: ClientRow,
}

/// A market, a shard and its clients.
struct Rig {
    /// A replay goes elsewhere now and then.
    seeks: bool,
    random: Random,
    /// Ticks that come at once now and then.
    burst: u32,
    /// Steps that a turn may take, and how many there were when the last one began.
    steps_max: u64,
    steps: u64,
    clock: Clock,
    table: Arc<InstrumentTable>,
    writer: TickWriter,
    seqs: HashMap<Key, u64>,
    /// By the number of the instrument.
    states: HashMap<u32, State>,
    sessions: Rc<RefCell<Sessions<Fake>>>,
    shard: Shard<Fake>,
    counters: Arc<ShardCounters>,
    clients: Vec<Client>,
    gone: Vec<Gone>,
    named: usize,
    /// Numbers that the feed lost.
    lost: BTreeSet<(Key, u64)>,
    /// What is no longer in the ring, in some schedules.
    past: Option<Past>,
    /// Short now and then.
    memory: Arc<Memory>,
}

/// A history, turned by hand.
struct Past {
    writer: HistoryWriter,
    reader: HistoryReader,
    _folder: tempfile::TempDir,
}

fn symbol(n: u64) -> Symbol {
    Symbol::new("demo", &format!("S{n}")).expect("a good symbol")
}

impl Rig {
    fn new(seed: u64) -> Self {
        Self::of(seed, 16, if seed.is_multiple_of(4) { 256 } else { 16 })
    }

    /// With a table and a ring of these sizes.
    fn of(seed: u64, instruments_max: usize, capacity: usize) -> Self {
        let steps_max = [STEPS_MIN, 2 * STEPS_MIN, 1_024][(seed / 2 % 3) as usize];
        Self::bounded(seed, (steps_max, 1_000_000), instruments_max, capacity)
    }

    /// With so many steps a turn, and requests a second.
    fn bounded(
        seed: u64,
        (steps_max, ops_per_s): (u32, u32),
        instruments_max: usize,
        capacity: usize,
    ) -> Self {
        Self::tuned(seed, (steps_max, ops_per_s), instruments_max, capacity, 1)
    }

    /// With so many bytes that a kernel may hold unsent.
    fn tuned(
        seed: u64,
        (steps_max, ops_per_s): (u32, u32),
        instruments_max: usize,
        capacity: usize,
        unsent_bytes_max: u32,
    ) -> Self {
        let clock = Clock::manual();
        let table = Arc::new(InstrumentTable::new(instruments_max));
        let burst = if seed.is_multiple_of(4) { 200 } else { 40 };
        let (writer, ring) = tick_ring(capacity, instruments_max).expect("a good capacity");
        let counters = Arc::new(ShardCounters::default());
        let options = SessionOptions {
            limits: ClientLimits {
                symbols_max: 100,
                frame_bytes_max: 65_536,
                fragments_max: 1,
                controls_per_s: 1,
                ops_per_s,
                steps_per_turn_max: steps_max,
            },
            times: SessionTimes {
                heartbeat_ms: 50,
                close_grace_ms: 1_000,
                drain_spread_ms: 100,
                dead_peer_ms: 1,
            },

            epoch: "e".into(),
            feed: Provenance::Live,
            policy: Policy {
                // With more than a window has at least, clients that are behind have windows.
                outbox_bytes_max: OUTBOX_BYTES_MAX << if seed % 5 < 2 { 2 } else { 0 },
                control_bytes_max: 1 << 20,
                warn_behind_ns: 40 * MS,
                shed_behind_ns: 100 * MS,
                cut_after_ns: 200 * MS,
                pong_timeout_ns: 300 * MS,
                ahead_ns: 100 * MS,
                rates_max: 2,
            },
            tuning: Tuning { unsent_bytes_max },
            // It comes round within a long burst, or gets longer up to twice.
            frame_ring_bytes: FRAME_RING_BYTES_MIN << (seed / 4 % 3),
            venues: ["demo".to_owned()].into(),
            replay_control: None,
            // Some give up what they read too slowly.
            catch_ups: CatchUps::new(2, 2, if seed.is_multiple_of(5) { 20 } else { 3_600_000 }),
            // In some, little more than one resume needs.
            reread_per_turn: if seed.is_multiple_of(5) { REREAD_FEW } else { 4_096 },
        };
        let sessions =
            Sessions::new(options, Arc::clone(&table), ring.clone(), clock.clone(), Arc::clone(&counters));
        let sessions = Rc::new(RefCell::new(sessions));
        let memory = Arc::new(Memory::new(MEMORY_BYTES_MAX));
        sessions.borrow_mut().bound_by(Arc::clone(&memory));
        let shard = Shard::new(ring.reader(), Rc::clone(&sessions), Arc::clone(&counters));
        let past = (seed % 3 == 1).then(|| {
            let folder = tempfile::tempdir().expect("a folder");
            // Little enough to lose some of it.
            let options =
                history::Options { dir: folder.path().to_owned(), bytes_max: 8_192, run_ns: clock.wall_ns() };
            let history = History::begin(&options, &ring, mpsc::channel(1).0).expect("a folder");
            sessions.borrow_mut().read_past_at(history.access().client(|| {}));
            let (writer, reader) = history.into_halves();
            Past { writer, reader, _folder: folder }
        });
        Self {
            random: Random(seed),
            seeks: seed % 4 == 3,
            burst,
            steps_max: u64::from(steps_max),
            steps: 0,
            clock,
            table,
            writer,
            seqs: HashMap::new(),
            states: HashMap::new(),
            sessions,
            shard,
            counters,
            clients: Vec::new(),
            gone: Vec::new(),
            named: 0,
            lost: BTreeSet::new(),
            past,
            memory,
        }
    }

    /// The history takes what there is, and answers.
    fn keep(&mut self) {
        let Some(past) = &mut self.past else { return };
        while past.writer.turn() {}
        past.reader.turn(Duration::ZERO);
    }

    fn publish(&mut self, instrument: InstrumentId, body: Body, numbers: u64) {
        let snap =
            self.seeks && matches!(body, Body::Trade(_) | Body::Quote(_)) && self.random.below(20) == 0;
        let tick = Tick { instrument, seq: 0, rx_ns: self.clock.wall_ns(), ts_us: None, snap, body };
        if let Body::Status(state) = body {
            self.states.insert(instrument.0, state);
        }
        let seq = self.seqs.entry(tick.key()).or_default();
        *seq += numbers;
        self.writer.publish(&Tick { seq: *seq, ..tick }, Seen::UNMEASURED).expect("a place in the ring");
    }

    fn tick(&mut self) {
        let n = self.random.below(INSTRUMENTS);
        let instrument = self.table.intern(&symbol(n)).expect("room");
        let channel = *self.random.pick(&Channel::ALL);
        let key = Key::new(instrument, channel.into());
        match self.random.below(40) {
            0 => {
                let from = self.seqs.get(&key).copied().unwrap_or(0) + 1;
                let numbers = 1 + self.random.below(3);
                self.lost.extend((from..from + numbers).map(|n| (key, n)));
                self.publish(instrument, Body::Gap { channel, from, void: FeedGap::Lost }, numbers);
            }
            2 if self.seeks => {
                let from = self.seqs.get(&key).copied().unwrap_or(0) + 1;
                self.publish(instrument, Body::Gap { channel, from, void: FeedGap::NoValue }, 1);
            }
            1 => {
                let state = *self.random.pick(&State::ALL);
                self.publish(instrument, Body::Status(state), 1);
            }
            _ if channel == Channel::Trade => {
                let price = Decimal::new(self.random.below(1_000) as i64, 2);
                let trade = Trade { price, size: price, side: None, id: TradeId::NONE };
                self.publish(instrument, Body::Trade(trade), 1);
            }
            _ => {
                let bid = Some(Decimal::new(self.random.below(1_000) as i64, 2));
                self.publish(instrument, Body::Quote(Quote { bid, ..Quote::default() }), 1);
            }
        }
    }

    fn turn(&mut self) -> bool {
        (0..self.clients.len()).for_each(|client| self.hear(client));
        let steps = self.sessions.borrow().steps();
        assert!(steps - self.steps <= self.steps_max, "{} steps in a turn", steps - self.steps);
        self.steps = steps;
        let now = self.clock.now();
        self.shard.turn(now)
    }

    /// Reads what a client has sent, as far as its session wants to.
    fn hear(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let mut sessions = self.sessions.borrow_mut();
        while sessions.wants(client.id).read
            && let Some(text) = client.sent.pop_front()
        {
            let now = self.clock.now();
            sessions.heard(client.id, now);
            sessions.request(client.id, &text, now);
        }
    }

    fn connect(&mut self) {
        let wire = Rc::new(RefCell::new(Wire::default()));
        self.named += 1;
        let name = format!("c{}", self.named);
        let now = self.clock.now();
        let who = ClientInfo { name: name.as_str().into(), peer: None };
        let id = self.sessions.borrow_mut().open(Fake(Rc::clone(&wire)), who, now);
        let answers = self.random.below(4) > 0;
        self.clients.push(Client {
            id,
            name,
            wire,
            answers,
            came_to: 0,
            resumes: Told::new(),
            sent: VecDeque::new(),
        });
    }

    /// Somebody who has gone comes back and says what it has.
    fn come_back(&mut self) {
        let Some(gone) = self.gone.last() else { return };
        let told = check(whole_frames(&gone.bytes), &gone.resumes, self.seeks).last;
        self.connect();
        let client = self.clients.len() - 1;
        let by_wildcard = self.random.below(3) == 0;
        for channel in Channel::ALL {
            let of_channel = told.iter().filter(|((_, of), _)| *of == channel);
            let seq: Vec<(&str, u64)> =
                of_channel.map(|((symbol, _), seq)| (symbol.as_str(), *seq)).collect();
            if by_wildcard && !seq.is_empty() {
                self.resume(client, channel, "*", &seq);
            } else {
                seq.iter().for_each(|one| self.resume(client, channel, one.0, std::slice::from_ref(one)));
            }
        }
        self.clients[client].resumes = told;
    }

    fn resume(&mut self, client: usize, channel: Channel, symbol: &str, seq: &[(&str, u64)]) {
        let mode = *self.random.pick(&["", ",\"mode\":\"every\"", ",\"mode\":\"latest\""]);
        let epoch = if self.random.below(10) == 0 { "another" } else { "e" };
        self.resume_with(client, channel, symbol, seq, mode, epoch);
    }

    fn resume_with(
        &mut self,
        client: usize,
        channel: Channel,
        symbol: &str,
        seq: &[(&str, u64)],
        mode: &str,
        epoch: &str,
    ) {
        let seq: BTreeMap<&str, u64> = seq.iter().copied().collect();
        let resume = serde_json::json!({"epoch": epoch, "seq": seq});
        let channel = channel.name();
        let text = format!(
            r#"{{"op":"subscribe","channel":"{channel}","symbols":["{symbol}"]{mode},"resume":{resume}}}"#
        );
        self.ask(client, &text);
    }

    fn rows(&self) -> Vec<ClientRow> {
        self.sessions.borrow_mut().report(SortBy::Behind, usize::MAX, 0, self.clock.now())
    }

    fn leave(&mut self, at: usize) {
        let client = self.clients.swap_remove(at);
        let rows = self.rows();
        let row = rows.into_iter().find(|row| *row.session == *client.name).expect("a row for each client");
        self.sessions.borrow_mut().remove(client.id);
        self.gone.push(Gone { bytes: client.wire.take().taken, resumes: client.resumes, row });
    }

    /// Who was closed goes.
    fn reap(&mut self) {
        for at in (0..self.clients.len()).rev() {
            if self.sessions.borrow_mut().wants(self.clients[at].id).end {
                let taken = self.clients[at].wire.borrow().taken.clone();
                let (texts, code) = texts(&taken);
                assert!(code.is_some_and(|code| code == 4000 || code == 4002), "{code:?}");
                assert!(texts.last().is_some_and(|text| text.contains("\"bye\"")), "bye comes last");
                self.leave(at);
            }
        }
    }

    fn read(&mut self, client: usize, bytes: usize) {
        let client = &self.clients[client];
        let mut wire = client.wire.borrow_mut();
        wire.room += bytes;
        wire.acked = wire.taken.len();
        drop(wire);
        self.sessions.borrow_mut().writable(client.id);
    }

    /// A client reads all that its kernel has, and answers what pings there are.
    fn come_to(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let fresh = client.wire.borrow().taken[client.came_to..].to_vec();
        let whole = whole_frames(&fresh);
        client.came_to += whole.len();
        let now = self.clock.now();
        let mut sessions = self.sessions.borrow_mut();
        for payload in pings(whole) {
            sessions.heard(client.id, now);
            assert!(!client.answers || sessions.answered(client.id, payload, now), "each is answered once");
        }
    }

    fn ask(&mut self, client: usize, text: &str) {
        self.clients[client].sent.push_back(text.to_owned());
        self.hear(client);
    }

    /// A client asks for as much as it may.
    fn ask_for_much(&mut self) {
        let from = self.random.below(40);
        let names: Vec<String> = (from..from + 60).map(|n| format!("demo:N{n}")).collect();
        let names = serde_json::json!(names);
        let text = match self.random.below(8) {
            0..=2 => format!(
                r#"{{"op":"subscribe","channel":["trade","quote"],"symbols":{names},"mode":"latest"}}"#
            ),
            3 => format!(r#"{{"op":"set","symbols":{names},"max_hz":20}}"#),
            4 => format!(r#"{{"op":"unsubscribe","channel":"trade","symbols":{names}}}"#),
            5 => r#"{"op":"set","mode":"latest"}"#.to_owned(),
            6 => r#"{"op":"list"}"#.to_owned(),
            _ => r#"{"op":"symbols"}"#.to_owned(),
        };
        let client = self.random.below(self.clients.len() as u64) as usize;
        self.ask(client, &text);
    }

    fn request(&mut self) {
        let symbols = ["*", "demo:*", "demo:S0", "demo:S1", "demo:S3", "S2", "demo:NEVER"];
        let channels = ["\"trade\"", "\"quote\"", "[\"trade\",\"quote\"]"];
        let terms = [
            "",
            ",\"mode\":\"every\"",
            ",\"mode\":\"latest\"",
            ",\"mode\":\"latest\",\"max_hz\":0.5",
            ",\"mode\":\"latest\",\"max_hz\":20",
            ",\"mode\":\"latest\",\"max_hz\":50",
            ",\"mode\":\"every\",\"on_slow\":\"cut\"",
        ];
        let symbol = *self.random.pick(&symbols);
        let (channel, terms) = (*self.random.pick(&channels), *self.random.pick(&terms));
        let change = *self.random.pick(&[
            "\"mode\":\"latest\"",
            "\"mode\":\"every\"",
            "\"max_hz\":20",
            "\"max_hz\":3",
            "\"max_hz\":null",
        ]);
        let text = match self.random.below(10) {
            0..=5 => {
                let snapshot = if self.random.below(4) == 0 { ",\"snapshot\":false" } else { "" };
                let (terms, from) = match self.random.below(3) {
                    0 => (r#","mode":"every""#, *self.random.pick(&FROM)),
                    _ => (terms, ""),
                };
                format!(
                    r#"{{"op":"subscribe","channel":{channel},"symbols":["{symbol}"]{terms}{snapshot}{from}}}"#
                )
            }
            6 if self.random.below(8) == 0 => format!(r#"{{"op":"unsubscribe","channel":{channel}}}"#),
            6 => format!(r#"{{"op":"unsubscribe","channel":{channel},"symbols":["{symbol}"]}}"#),
            7 => format!(r#"{{"op":"set","channel":{channel},"symbols":["{symbol}"],{change}}}"#),
            8 => r#"{"op":"list"}"#.to_owned(),
            _ => r#"{"op":"fly"}"#.to_owned(),
        };
        let client = self.random.below(self.clients.len() as u64) as usize;
        self.ask(client, &text);
    }

    /// Memory is measured: it is full or ample. Slow clients give something back in any case.
    fn measure(&mut self) {
        let used_bytes = *self.random.pick(&[0, MEMORY_BYTES_MAX]);
        self.memory.measured(used_bytes);
        let shed_bytes = *self.random.pick(&[0, 1, 1 << 20]);
        self.sessions.borrow_mut().relieve(Relief { shed_bytes, ..Relief::default() });
    }

    fn step(&mut self) {
        if self.random.below(3) == 0 {
            self.keep();
        }
        if self.random.below(12) == 0 {
            self.measure();
        }
        match self.random.below(21) {
            0..=5 => (0..self.random.below(4)).for_each(|_| self.tick()),
            // More than the ring holds: the shard is lapped. Or more than the frame ring does: it gets longer, or sessions make copies.
            6 => (0..self.burst).for_each(|_| self.tick()),
            7..=11 => {
                self.turn();
            }
            12..=14 => {
                let client = self.random.below(self.clients.len() as u64) as usize;
                let bytes = *self.random.pick(&[1, 100, 3_000, 20_000]);
                self.read(client, bytes);
                if self.random.below(3) > 0 {
                    self.come_to(client);
                }
            }
            15..=16 => self.request(),
            17 if self.random.below(2) == 0 => self.ask_for_much(),
            17 => self.request(),
            18 => {
                let ms = if self.random.below(8) == 0 { 500 } else { 60 };
                self.clock.advance(Duration::from_millis(self.random.below(ms)));
            }
            19 if self.clients.len() < 4 => self.come_back(),
            _ if self.clients.len() < 4 => self.connect(),
            // All at once, now and then.
            _ if self.random.below(4) == 0 => (0..self.clients.len()).rev().for_each(|at| self.leave(at)),
            _ => {
                let at = self.random.below(self.clients.len() as u64) as usize;
                self.leave(at);
            }
        }
        for row in self.rows() {
            balanced(&row);
        }
        self.reap();
    }

    /// Everybody reads all there is, until nothing is held back any more.
    fn settle(&mut self) {
        self.memory.measured(0);
        for _ in 0..40 {
            self.clock.advance(Duration::from_millis(60));
            for _ in 0..30 {
                for client in 0..self.clients.len() {
                    let now = self.clock.now();
                    self.sessions.borrow_mut().heard(self.clients[client].id, now);
                    self.read(client, 1 << 20);
                    self.come_to(client);
                }
                self.keep();
                self.turn();
            }
            self.reap();
        }
    }

    /// The state of one of many symbols, as it was published last.
    fn state(&self, n: u64) -> State {
        let id = self.table.find(&symbol(n)).expect("a listed symbol");
        self.states[&id.0]
    }

    fn head(&self, symbol: &str, channel: Channel) -> u64 {
        let symbol = Symbol::parse(symbol).expect("a good symbol");
        let id = self.table.find(&symbol).expect("a listed symbol");
        self.seqs.get(&Key::new(id, Stream::from(channel))).copied().unwrap_or(0)
    }
}

/// The books of one client.
fn balanced(row: &ClientRow) -> u64 {
    let told = row.sent + row.merged + row.dropped + row.lost;
    assert_eq!(row.offered, told + row.pending, "{row:?}");
    told
}

/// What a client can tell from its messages alone.
#[derive(Default)]
struct Heard {
    last: Told,
    /// Numbers it was told of, snapshots at the start of a subscription not counted.
    told: u64,
    /// Snapshots that nothing came before: at the start of a subscription, or, where it asked for none, of a replay.
    openings: u64,
    /// The level it was told last.
    level: String,
    /// Numbers that the feed is said to have lost.
    lost: Vec<((String, Channel), u64)>,
    /// What it is told may be of the past: it was not told yet that this is over.
    catches_up: bool,
    /// What it makes of each symbol's state; nothing, where it cannot tell any more what it is subscribed to.
    states: BTreeMap<String, Option<String>>,
}

impl Heard {
    /// What was said of a state, if anything.
    fn state(&mut self, row: &Value) {
        if let (Some(symbol), Some(state)) = (row["symbol"].as_str(), row["state"].as_str()) {
            self.states.insert(symbol.to_owned(), Some(state.to_owned()));
        }
    }

    /// What is live unless something else was said.
    fn live(&mut self, symbol: &str) {
        self.states.entry(symbol.to_owned()).or_insert_with(|| Some("live".to_owned()));
    }
}

/// Since when the past may be asked for.
const FROM: [&str; 4] =
    [r#","from":"-20ms""#, r#","from":"-150ms""#, r#","from":"2030-01-01T00:00:00Z""#, r#","from":1000000"#];

/// What a client is subscribed to: names and wildcards, as the answers have it.
type Held = BTreeSet<(String, Channel)>;

fn is_wide(symbol: &str) -> bool {
    symbol == "*" || symbol.ends_with(":*")
}

/// The channels that an `ack` is about.
fn channels(ack: &Value) -> Vec<Channel> {
    let one = std::slice::from_ref(&ack["channel"]);
    let named = ack["channel"].as_array().map_or(one, Vec::as_slice);
    let of =
        |word: &Value| Channel::ALL.into_iter().find(|channel| *word == channel.name()).expect("a channel");
    named.iter().map(of).collect()
}

/// What an `ack` of `unsubscribe` ends may begin anywhere when it comes again. A wildcard leaves what is subscribed to by
/// something narrower.
fn forget(ack: &Value, held: &mut Held, last: &mut Told) {
    let of = channels(ack);
    if ack["all"] == true {
        held.retain(|(_, channel)| !of.contains(channel));
        last.retain(|(_, channel), _| !of.contains(channel));
        return;
    }
    for row in ack["ok"].as_array().expect("a list") {
        let named = row["symbol"].as_str().expect("a symbol");
        for channel in of.iter().copied() {
            held.remove(&(named.to_owned(), channel));
            let stays = |symbol: &str| {
                let venue = format!("{}:*", symbol.split(':').next().expect("a venue"));
                let narrower: &[&str] = match named {
                    "*" => &[symbol, &venue],
                    _ if is_wide(named) => &[symbol],
                    _ => &[],
                };
                narrower.iter().any(|narrow| held.contains(&((*narrow).to_owned(), channel)))
            };
            let picked = |symbol: &str| match named.strip_suffix('*') {
                Some(prefix) => symbol.starts_with(prefix),
                None => symbol == named,
            };
            last.retain(|(symbol, of), _| *of != channel || !picked(symbol) || stays(symbol));
        }
    }
}

/// What an `ack` of `subscribe` with `resume` goes on from.
fn resume(ack: &Value, resumes: &Told, last: &mut Told) {
    for row in ack["ok"].as_array().expect("a list") {
        if row["resumed"] != "ok" && row["resumed"] != "gap" {
            continue;
        }
        let channel = if row["channel"] == "trade" { Channel::Trade } else { Channel::Quote };
        let of_row = |(symbol, of): &(String, Channel)| {
            *of == channel && (row["symbol"] == "*" || row["symbol"] == symbol.as_str())
        };
        let told: Told =
            resumes.iter().filter(|(key, _)| of_row(key)).map(|(key, seq)| (key.clone(), *seq)).collect();
        assert!(!told.is_empty(), "{row}: it was not asked for");
        last.extend(told);
    }
}

/// Whether a row of an `ack` says that the past comes first. Nothing is called live then.
fn catches_up(row: &Value) -> bool {
    assert!(row["past"].is_null() || row["state"] != "live", "{row}");
    !row["past"].is_null()
}

/// A level is told once, and none is left out on the way down the ladder.
fn climb(from: &str, to: &str) {
    let rung = |level: &str| ["ok", "warn", "shed", "cut"].iter().position(|l| *l == level).expect("a level");
    assert!(rung(to) < rung(from) || rung(to) == rung(from) + 1, "from {from} to {to}");
}

/// Checks a client's messages with the program's own checker and with one that shares nothing with it.
fn check(bytes: &[u8], resumes: &Told, seeks: bool) -> Heard {
    let (texts, _) = texts(bytes);
    let mut ledger = Ledger::new(false);
    let mut heard = Heard { level: "ok".to_owned(), ..Heard::default() };
    let mut held = Held::new();
    for (at, text) in texts.iter().enumerate() {
        ledger.hear(&Message::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")));
        let message: Value = serde_json::from_str(text).expect("JSON");
        let kind = message["type"].as_str().expect("a type");
        assert_eq!(kind == "hello", at == 0, "hello comes first and once");
        let stream = match kind {
            "trade" => Channel::Trade,
            "quote" => Channel::Quote,
            "gap" if message["channel"] == "trade" => Channel::Trade,
            "gap" => Channel::Quote,
            "ack" if message["op"] == "unsubscribe" => {
                forget(&message, &mut held, &mut heard.last);
                heard.states.values_mut().for_each(|state| *state = None);
                continue;
            }
            "ack" if message["op"] == "subscribe" => {
                let rows = message["ok"].as_array().expect("a list").iter();
                let row = |row: &Value| {
                    let channel = if row["channel"] == "trade" { Channel::Trade } else { Channel::Quote };
                    (row["symbol"].as_str().expect("a symbol").to_owned(), channel)
                };
                held.extend(rows.map(row));
                resume(&message, resumes, &mut heard.last);
                let rows = message["ok"].as_array().expect("a list");
                rows.iter().filter(|row| row["past"].is_null()).for_each(|row| heard.state(row));
                heard.catches_up |= message["ok"].as_array().is_some_and(|rows| rows.iter().any(catches_up));
                continue;
            }
            "joined" => {
                assert!(heard.catches_up, "nothing was asked for: {text}");
                heard.catches_up = false;
                let symbols: BTreeSet<String> = heard.last.keys().map(|(symbol, _)| symbol.clone()).collect();
                symbols.iter().for_each(|symbol| heard.live(symbol));
                continue;
            }
            "status" => {
                heard.state(&message);
                continue;
            }
            "lag" => {
                let level = message["level"].as_str().expect("a level");
                climb(&heard.level, level);
                heard.level = level.to_owned();
                continue;
            }
            _ => continue,
        };
        let key = (message["symbol"].as_str().expect("a symbol").to_owned(), stream);
        assert!(message["past"] != true || heard.catches_up, "it was said that this is over: {text}");
        let snap = message["snap"] == true;
        let (first, last) = if kind == "gap" {
            (message["from"].as_u64().expect("from"), message["to"].as_u64().expect("to"))
        } else {
            let seq = message["seq"].as_u64().expect("seq");
            (seq + 1 - message["n"].as_u64().unwrap_or(1), seq)
        };
        assert!(first <= last, "{text}");
        if kind != "gap" && message["past"] != true {
            heard.live(&key.0);
        }
        if message["why"] == "feed" {
            heard.lost.extend((first..=last).map(|n| (key.clone(), n)));
        }
        let before = heard.last.get(&key);
        if let Some(before) = before {
            assert!(!snap || seeks, "one snapshot a subscription: {text}");
            assert_eq!(first, before + 1, "{text}");
        }
        if snap && before.is_none() {
            heard.openings += 1;
        } else {
            heard.told += last - first + 1;
        }
        heard.last.insert(key, last);
    }
    assert!(ledger.held(), "{:?}", ledger.breaks());
    heard
}

/// One schedule, as far as its steps go.
fn stepped(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    rig.connect();
    for _ in 0..STEPS {
        if rig.clients.is_empty() {
            rig.connect();
        }
        rig.step();
    }
    rig
}

/// One schedule; all bytes that all clients were sent.
fn run(seed: u64) -> Vec<Vec<u8>> {
    let mut rig = stepped(seed);
    rig.settle();
    let rows = rig.rows();
    assert_eq!(rows.len(), rig.clients.len());
    let told_lost = |key: &(String, Channel), n| {
        let instrument = rig.table.find(&Symbol::parse(&key.0).expect("a good symbol")).expect("listed");
        assert!(rig.lost.contains(&(Key::new(instrument, key.1.into()), n)), "{key:?} {n} was not lost");
    };
    for client in &rig.clients {
        let heard = check(&client.wire.borrow().taken, &client.resumes, rig.seeks);
        heard.lost.iter().for_each(|(key, n)| told_lost(key, *n));
        assert_eq!(heard.level, "ok", "everything was read: the client is told so");
        assert!(!heard.catches_up, "it has caught up: the client is told so");
        for ((symbol, channel), last) in &heard.last {
            let wanted = rig.head(symbol, *channel);
            assert_eq!(*last, wanted, "{symbol} {channel:?}: the client was not told everything");
        }
        for (symbol, heard) in
            heard.states.iter().filter_map(|(symbol, heard)| Some((symbol, heard.as_ref()?)))
        {
            let id = rig.table.find(&Symbol::parse(symbol).expect("a good symbol"));
            let state = id.and_then(|id| rig.states.get(&id.0)).copied().unwrap_or_default();
            // Before the first, what a wildcard takes counts as live.
            let is_right = heard == state.name()
                || (heard == "live" && id.is_some_and(|id| !rig.states.contains_key(&id.0)));
            assert!(is_right, "{symbol}: told {heard}, is {state:?}");
        }
        let row = rows.iter().find(|row| *row.session == *client.name).expect("a row for each client");
        let openings = if rig.seeks { heard.openings } else { 0 };
        let told = heard.told..=heard.told + openings;
        assert!(told.contains(&balanced(row)) && row.pending == 0, "{told:?}: {row:?}");
    }
    // The sums of the shard are the sums of its clients, those that have gone included.
    let all: Vec<&ClientRow> = rows.iter().chain(rig.gone.iter().map(|gone| &gone.row)).collect();
    type Figure = fn(&ClientRow) -> u64;
    let figures: [Figure; 4] = [|r| r.sent, |r| r.merged, |r| r.dropped, |r| r.lost];
    let counters = &rig.counters;
    let books = [&counters.sent, &counters.merged, &counters.dropped, &counters.lost].map(Counter::get);
    // What was taken back is counted once more when it is sent or missed.
    let taken_back = counters.taken_back.each_ref().map(Counter::get);
    let books: [u64; 4] = std::array::from_fn(|n| books[n] - taken_back[n]);
    assert_eq!(figures.map(|figure| all.iter().map(|row| figure(row)).sum::<u64>()), books);
    for gone in &rig.gone {
        balanced(&gone.row);
        check(whole_frames(&gone.bytes), &gone.resumes, rig.seeks);
    }
    let sent = rig.clients.iter().map(|c| c.wire.borrow().taken.clone());
    let sent: Vec<_> = sent.chain(rig.gone.iter().map(|gone| gone.bytes.clone())).collect();
    assert_eq!(rig.counters.sessions.get() as usize, rig.clients.len());
    goodbye(rig);
    sent
}

/// How long the frame is that these bytes begin with, as far as they tell.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, 126, a, b, ..] => Some(4 + usize::from(u16::from_be_bytes([*a, *b]))),
        [_, 127, len @ ..] => Some(10 + u64::from_be_bytes(*len.first_chunk()?) as usize),
        [_, len @ ..=125, ..] => Some(2 + usize::from(*len)),
        _ => None,
    }
}

/// A client that left in the middle of a frame was told what came before it.
fn whole_frames(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    while let Some(len) = frame_len(&bytes[at..]).filter(|len| *len <= bytes.len() - at) {
        at += len;
    }
    &bytes[..at]
}

/// A drain tells everybody goodbye and leaves nothing behind.
fn goodbye(mut rig: Rig) {
    let now = rig.clock.now();
    rig.shard.start_drain(Close::Shutdown, 1_000, now);
    for _ in 0..100 {
        (0..rig.clients.len()).for_each(|client| rig.read(client, 1 << 20));
        rig.keep();
        rig.turn();
    }
    for client in &rig.clients {
        let wire = client.wire.borrow();
        let (texts, code) = texts(&wire.taken);
        assert_eq!(code, Some(4001));
        assert!(texts.last().is_some_and(|text| text.contains("\"bye\"")), "bye comes last");
        assert!(rig.sessions.borrow_mut().wants(client.id).end);
        rig.sessions.borrow_mut().remove(client.id);
    }
    rig.clients.clear();
    // What they leave is taken away in portions.
    for _ in 0..100 {
        rig.turn();
    }
    assert!(rig.shard.is_done());
    assert_eq!(rig.counters.subscriptions.get(), 0, "a subscription outlived its session");
    assert_eq!(rig.counters.subscribed.get(), 0);
}

#[test]
fn every_schedule_keeps_the_books() {
    let asked = std::env::var("TICKFAN_SCHEDULES").ok().and_then(|text| text.parse().ok());
    for seed in 0..asked.unwrap_or(SCHEDULES) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails");
    }
}

#[test]
fn the_same_schedule_gives_the_same_bytes() {
    for seed in 0..50 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn slow_clients_lose_by_name_and_laps_are_told() {
    // Over many schedules each way of losing ticks comes up: a test of the schedules themselves.
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..300 {
        for bytes in run(seed) {
            let (texts, _) = texts(whole_frames(&bytes));
            for text in texts {
                for word in [
                    "\"why\":\"slow_consumer\"",
                    "\"why\":\"overrun\"",
                    "\"why\":\"feed\"",
                    "\"why\":\"seek\"",
                    "\"n\":",
                    "\"snap\":true",
                    "\"why\":\"resume\"",
                    "\"resumed\":\"ok\"",
                    "\"resumed\":\"gap\"",
                    "\"resumed\":\"new_epoch\"",
                    "\"max_hz\":20",
                    "\"too_many_rates\"",
                    "\"level\":\"warn\"",
                    "\"level\":\"shed\"",
                    "\"level\":\"cut\"",
                    "\"level\":\"ok\"",
                    "\"code\":4000",
                    "\"code\":4002",
                    "\"past\":\"ok\"",
                    "\"past\":\"gap\"",
                    "\"past\":true",
                    "\"type\":\"joined\"",
                    "\"missed\":",
                    "\"no_history\"",
                    "\"short_of_memory\"",
                ] {
                    if text.contains(word) {
                        *seen.entry(word).or_default() += 1;
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), 25, "{seen:?}");
}

#[test]
fn queues_are_taken_back_in_many_schedules() {
    let (mut sheds, mut taken_back) = (0, 0);
    for seed in 0..100 {
        let rig = stepped(seed);
        sheds += rig.counters.memory_sheds.get();
        taken_back += rig.counters.taken_back.iter().map(Counter::get).sum::<u64>();
    }
    assert!(sheds > 3 && taken_back > sheds, "{sheds} {taken_back}");
}

/// So many that their states find no room in an outbox together.
const MANY: u64 = 300;

/// Publishes a trade and a quote of one of many symbols.
fn tick_of_many(rig: &mut Rig, n: u64) {
    let instrument = rig.table.intern(&symbol(n)).expect("room");
    let one = Decimal::new(1, 0);
    let trade = Trade { price: one, size: one, side: None, id: TradeId::NONE };
    rig.publish(instrument, Body::Trade(trade), 1);
    rig.publish(instrument, Body::Quote(Quote { bid: Some(one), ..Quote::default() }), 1);
}

/// Lets a client read so many bytes a turn while ticks come, then all there is.
fn read_while_ticks_come(rig: &mut Rig, client: usize, bytes: usize) {
    for _ in 0..100 {
        (0..3).for_each(|_| {
            let n = rig.random.below(MANY);
            tick_of_many(rig, n);
        });
        rig.keep();
        rig.turn();
        rig.read(client, bytes);
        rig.clock.advance(Duration::from_millis(1));
    }
    rig.settle();
    (0..MANY).for_each(|n| tick_of_many(rig, n));
    rig.settle();
}

#[test]
fn nothing_of_a_symbol_is_told_to_a_wildcard_before_its_state() {
    let both = r#""channel":["trade","quote"]"#;
    let beginnings = [
        both.to_owned(),
        format!(r#"{both},"snapshot":false"#),
        format!(r#"{both},"mode":"every","snapshot":false"#),
        format!(r#"{both},"mode":"latest","snapshot":false,"max_hz":50"#),
        format!(r#"{both},"mode":"every","from":"-20ms""#),
        r#""channel":"trade","mode":"every","resume":RESUME"#.to_owned(),
        r#""channel":"quote","mode":"latest","resume":RESUME"#.to_owned(),
    ];
    for (at, beginning) in beginnings.iter().enumerate() {
        for bytes in [1_000, 1 << 20] {
            let mut rig = Rig::of(1, MANY as usize, 4_096);
            for n in 0..MANY {
                let instrument = rig.table.intern(&symbol(n)).expect("room");
                // Nothing of them is live but the first.
                let state = if n == 0 { State::Live } else { *rig.random.pick(&State::ALL[2..]) };
                rig.publish(instrument, Body::Status(state), 1);
                tick_of_many(&mut rig, n);
            }
            rig.keep();
            rig.turn();
            let seq: HashMap<String, u64> = (0..MANY).map(|n| (symbol(n).as_str().to_owned(), 1)).collect();
            let resume = serde_json::json!({"epoch": "e", "seq": seq}).to_string();
            let beginning = beginning.replace("RESUME", &resume);
            let goes_on = beginning.contains("resume");
            rig.connect();
            rig.ask(0, &format!(r#"{{"op":"subscribe","symbols":["*"],{beginning}}}"#));
            read_while_ticks_come(&mut rig, 0, bytes);
            let (texts, _) = texts(&rig.clients[0].wire.borrow().taken);
            let messages = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
            let (mut stated, mut told) = (HashMap::new(), 0);
            for message in messages.filter(|message| message["past"] != true) {
                let symbol = message["symbol"].as_str().unwrap_or_default().to_owned();
                match message["type"].as_str() {
                    Some("status") => {
                        stated.insert(symbol, message["state"].clone());
                    }
                    Some("trade" | "quote" | "gap") => {
                        let is_live = symbol == "demo:S0" && !goes_on;
                        assert!(is_live || stated.contains_key(&symbol), "{at}, {bytes}: {message}");
                        told += 1;
                    }
                    _ => {}
                }
            }
            assert!(told > MANY / 2, "{at}, {bytes}: {told}");
            for n in 0..MANY {
                let state = rig.state(n);
                let heard = stated.get(symbol(n).as_str()).map(|state| state.as_str().expect("a word"));
                let default = (n == 0 && !goes_on).then_some("live");
                assert_eq!(heard.or(default), Some(state.name()), "{at}, {bytes}: S{n}");
            }
        }
    }
}

/// The numbers of the trades that a client was sent, in the order in which it was.
fn trades_told(rig: &Rig, client: usize) -> Vec<u64> {
    let (texts, _) = texts(&rig.clients[client].wire.borrow().taken);
    let messages = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    messages
        .filter(|message| message["type"] == "trade")
        .filter_map(|message| message["seq"].as_u64())
        .collect()
}

#[test]
fn many_that_resume_at_once_are_served_by_one_walk_over_the_ring() {
    const CLIENTS: usize = 200;
    // One tick in so many is of what they resume.
    const RARE: u64 = 100;
    const MISSED: u64 = 4_000 / RARE;
    // With few looks a turn.
    let mut rig = Rig::of(5, 16, 4_096);
    let one = Decimal::new(1, 0);
    let trade = Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE });
    let instruments = [0, 1].map(|n| rig.table.intern(&symbol(n)).expect("room"));
    for n in 0..MISSED * RARE {
        rig.publish(instruments[usize::from(n % RARE > 0)], trade, 1);
        rig.turn();
    }
    for client in 0..CLIENTS {
        rig.connect();
        rig.read(client, 1 << 20);
    }
    rig.turn();
    assert_eq!(rig.counters.reread.get(), 0, "nothing is looked at for nobody");
    for client in 0..CLIENTS {
        rig.resume_with(client, Channel::Trade, "demo:S0", &[("demo:S0", 0)], ",\"mode\":\"every\"", "e");
    }
    let (mut turns, mut most) = (0, 0);
    while (0..CLIENTS).any(|client| trades_told(&rig, client).len() < MISSED as usize) {
        // Some turns between two looks at what was sent.
        for _ in 0..200 {
            let before = rig.counters.reread.get();
            rig.turn();
            most = most.max(rig.counters.reread.get() - before);
        }
        turns += 200;
        assert!(turns < 20_000, "they are not told what they missed");
    }
    assert!((1..=REREAD_FEW as u64).contains(&most), "{most} positions in one turn");
    let reread = rig.counters.reread.get();
    // The ring once, for all of them; and for each what it is sent, and what its request counts as.
    assert!(reread <= MISSED * RARE + CLIENTS as u64 * (MISSED + 40), "{reread} positions");
    assert!(reread > MISSED * RARE, "{reread} positions");
    rig.publish(instruments[0], trade, 1);
    rig.turn();
    rig.turn();
    while rig.turn() {}
    for client in 0..CLIENTS {
        assert_eq!(trades_told(&rig, client), (1..=MISSED + 1).collect::<Vec<_>>(), "client {client}");
    }
}

#[test]
fn one_that_resumes_more_streams_than_a_turn_looks_at_arrives_while_ticks_come() {
    const STREAMS: usize = 3 * REREAD_FEW;
    let mut rig = Rig::tuned(5, (1_024, 1_000_000), STREAMS, 4_096, 4_096);
    let one = Decimal::new(1, 0);
    let trade = Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE });
    let symbols: Vec<Symbol> = (0..STREAMS as u64).map(symbol).collect();
    let instruments: Vec<_> = symbols.iter().map(|name| rig.table.intern(name).expect("room")).collect();
    let mut published = 0;
    let mut ticks = |rig: &mut Rig| {
        rig.publish(instruments[published % STREAMS], trade, 1);
        published += 1;
        rig.turn();
        rig.come_to(0);
        rig.clock.advance(Duration::from_millis(1));
        let (id, now) = (rig.clients[0].id, rig.clock.now());
        rig.sessions.borrow_mut().heard(id, now);
    };
    rig.connect();
    rig.read(0, 1 << 30);
    rig.clients[0].answers = true;
    (0..2 * STREAMS).for_each(|_| ticks(&mut rig));
    let seq: Vec<(&str, u64)> = symbols.iter().map(|name| (name.as_str(), 1)).collect();
    rig.resume_with(0, Channel::Trade, "*", &seq, ",\"mode\":\"every\"", "e");
    (0..1_000).for_each(|_| ticks(&mut rig));
    // What was kept for those that resume is forgotten some seconds after the last has arrived.
    for _ in 0..250 {
        rig.clock.advance(Duration::from_millis(60));
        let (id, now) = (rig.clients[0].id, rig.clock.now());
        rig.sessions.borrow_mut().heard(id, now);
        ticks(&mut rig);
    }
    let reread = rig.counters.reread.get();
    (0..100).for_each(|_| ticks(&mut rig));
    assert_eq!(rig.counters.reread.get(), reread, "it reads on, and does not arrive");
}

#[test]
fn what_one_reader_finds_and_cannot_take_is_no_more_to_look_at_for_others() {
    const STREAMS: usize = 3 * REREAD_FEW;
    let one = Decimal::new(1, 0);
    let trade = Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE });
    let symbols: Vec<Symbol> = (0..STREAMS as u64).map(symbol).collect();
    let seq: Vec<(&str, u64)> = symbols.iter().map(|name| (name.as_str(), 1)).collect();
    // It takes some ticks a turn. When it has come near the end of what it missed, all have news at once.
    for news_at in 1..60 {
        let mut rig = Rig::tuned(5, (1_024, 1_000_000), STREAMS, 4_096, 512);
        let instruments: Vec<_> = symbols.iter().map(|name| rig.table.intern(name).expect("room")).collect();
        let all = |rig: &mut Rig| instruments.iter().for_each(|of| rig.publish(*of, trade, 1));
        rig.connect();
        rig.read(0, 1 << 30);
        (0..2).for_each(|_| all(&mut rig));
        rig.turn();
        rig.resume_with(0, Channel::Trade, "*", &seq, ",\"mode\":\"every\"", "e");
        for turn in 0..100 {
            if turn == news_at {
                all(&mut rig);
            }
            let before = rig.counters.reread.get();
            rig.turn();
            let reread = rig.counters.reread.get() - before;
            assert!(reread <= REREAD_FEW as u64, "{reread} positions in turn {turn}, news at {news_at}");
        }
        assert_eq!(trades_told(&rig, 0).len(), 2 * STREAMS, "news at {news_at}");
    }
}

#[test]
fn a_pong_comes_behind_what_was_in_the_ring_when_its_ping_came() {
    let mut rig = Rig::of(1, 16, 4_096);
    rig.connect();
    rig.ask(0, r#"{"op":"subscribe","symbols":["*"],"channel":["trade"],"mode":"every"}"#);
    rig.turn();
    // More than a shard takes in several turns.
    (0..1_000).for_each(|n| tick_of_many(&mut rig, n % 16));
    rig.ask(0, r#"{"op":"ping","id":1}"#);
    (0..1_000).for_each(|n| tick_of_many(&mut rig, n % 16));
    rig.ask(0, r#"{"op":"ping","id":2}"#);
    rig.ask(0, r#"{"op":"list","id":3}"#);
    rig.settle();
    rig.ask(0, r#"{"op":"ping","id":4}"#);
    rig.settle();
    let (texts, _) = texts(&rig.clients[0].wire.borrow().taken);
    let (mut trades, mut pongs) = (0, Vec::new());
    for text in texts {
        let message: Value = serde_json::from_str(&text).expect("JSON");
        match message["type"].as_str() {
            Some("trade") => trades += message["n"].as_u64().unwrap_or(1),
            Some("pong") => pongs.push((message["id"].as_u64(), trades)),
            _ => {}
        }
    }
    assert_eq!(trades, 2_000);
    let [(Some(1), first), (Some(2), second), (Some(4), third)] = pongs[..] else { panic!("{pongs:?}") };
    assert!(first >= 1_000 && second == 2_000 && third == 2_000, "{pongs:?}");
}

#[test]
fn very_many_pings_that_wait_are_answered_in_portions_or_refused() {
    let mut rig = Rig::bounded(1, (1 << 20, 1_000_000), 16, 4_096);
    rig.connect();
    (0..1_000).for_each(|n| tick_of_many(&mut rig, n % 16));
    // One more than may wait.
    (0..=16_384).for_each(|n| rig.ask(0, &format!(r#"{{"op":"ping","id":{n}}}"#)));
    for _ in 0..100 {
        rig.turn();
        rig.read(0, 1 << 20);
        rig.clock.advance(Duration::from_millis(1));
    }
    rig.settle();
    let (texts, _) = texts(&rig.clients[0].wire.borrow().taken);
    let messages = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    let (pongs, others): (Vec<_>, Vec<_>) = messages.partition(|message| message["type"] == "pong");
    assert!(pongs.iter().enumerate().all(|(n, pong)| pong["id"] == n), "in order");
    assert_eq!(pongs.len(), 16_384);
    let mut in_a_turn: BTreeMap<u64, usize> = BTreeMap::new();
    pongs.iter().for_each(|pong| *in_a_turn.entry(pong["out"].as_u64().expect("a time")).or_default() += 1);
    assert!(in_a_turn.values().all(|pongs| *pongs <= 256), "{in_a_turn:?}");
    let refused: Vec<_> = others.iter().filter(|message| message["code"] == "rate_limited").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["id"], 16_384);
}

/// Turns until nothing is left to do; how many.
fn turn_until_done(rig: &mut Rig) -> usize {
    let mut idle = 0;
    for turns in 1..100_000 {
        let more = rig.turn();
        for client in 0..rig.clients.len() {
            rig.read(client, 1 << 20);
            rig.come_to(client);
        }
        let unread =
            |client: &Client| !client.sent.is_empty() && rig.sessions.borrow_mut().wants(client.id).read;
        // What was read has made room for a last write.
        idle = if more || rig.clients.iter().any(unread) { 0 } else { idle + 1 };
        if idle == 2 {
            return turns;
        }
    }
    panic!("it comes to no end")
}

/// What a client was sent, and how it was closed.
fn told(rig: &Rig, client: usize) -> (Vec<Value>, Option<u16>) {
    let (texts, code) = texts(&rig.clients[client].wire.borrow().taken);
    (texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect(), code)
}

#[test]
fn long_requests_are_done_in_portions_and_paid() {
    const LISTED: u64 = 2_000;
    let mut rig = Rig::bounded(1, (STEPS_MIN, 20), LISTED as usize + 100, 8_192);
    (0..LISTED).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    rig.connect();
    rig.clients[0].answers = true;
    let both = r#""channel":["trade","quote"]"#;
    rig.ask(0, &format!(r#"{{"op":"subscribe","id":1,"symbols":["*"],{both}}}"#));
    // It is not read from meanwhile.
    rig.ask(0, r#"{"op":"ping","id":2}"#);
    assert_eq!(rig.clients[0].sent.len(), 1);
    // Each turn, clock and all, is bounded: the harness counts.
    let turns = turn_until_done(&mut rig);
    assert!(turns as u64 > 2 * 2 * LISTED / u64::from(STEPS_MIN), "{turns} turns");
    let (messages, _) = told(&rig, 0);
    let snapshots = messages.iter().filter(|message| message["snap"] == true).count();
    assert_eq!(snapshots as u64, 2 * LISTED);
    let refused = messages.iter().find(|message| message["id"] == 2).expect("an answer");
    assert!(refused["code"] == "rate_limited" && refused["retry"] == true, "{refused}");
    // Its debt is paid in some seconds, and what others ask for costs it nothing.
    rig.clock.advance(Duration::from_secs(12));
    rig.connect();
    for (client, request) in [(0, r#"{"op":"list","id":3}"#), (1, r#"{"op":"ping","id":3}"#)] {
        rig.ask(client, request);
        turn_until_done(&mut rig);
        let (messages, _) = told(&rig, client);
        let answer = messages.iter().find(|message| message["id"] == 3).expect("an answer");
        assert!(answer["type"] == "ack" || answer["type"] == "pong", "{answer}");
    }
    // So is what is listed later, and what leaves.
    (LISTED..LISTED + 50).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    let of_new =
        |message: &&Value| message["type"] == "trade" && message["seq"] == 1 && message["snap"].is_null();
    assert_eq!(told(&rig, 0).0.iter().filter(of_new).count(), 50, "from their first number on");
    assert_eq!(rig.counters.subscriptions.get(), 3 * (LISTED + 50));
    rig.leave(0);
    rig.turn();
    let left = rig.counters.subscriptions.get();
    assert!(left > 2 * LISTED && left < 3 * (LISTED + 50), "{left}");
    // Its number is not reused until then: a newcomer gets nothing that it did not ask for.
    rig.connect();
    (0..LISTED).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    assert_eq!(rig.counters.subscriptions.get(), 0);
    for client in 0..2 {
        assert!(told(&rig, client).0.iter().all(|message| message["type"] != "trade"));
    }
}

#[test]
fn the_address_of_a_client_is_paid_as_its_messages_are() {
    let mut rig = Rig::bounded(1, (STEPS_MIN, 20), 2_000, 8_192);
    (0..2_000).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    rig.connect();
    let (wanted, _) = parse_query(vec![("symbols".to_owned(), "*".to_owned())]).expect("a good address");
    let (id, now) = (rig.clients[0].id, rig.clock.now());
    rig.sessions.borrow_mut().subscribe(id, wanted.expect("symbols"), now);
    assert!(!rig.sessions.borrow_mut().wants(id).read);
    turn_until_done(&mut rig);
    assert_eq!(rig.counters.subscriptions.get(), 6_000);
    rig.ask(0, r#"{"op":"ping","id":1}"#);
    turn_until_done(&mut rig);
    let (messages, _) = told(&rig, 0);
    assert_eq!(messages.last().expect("an answer")["code"], "rate_limited");
}

#[test]
fn awaited_symbols_are_kept_changed_and_left_in_portions() {
    let names = |count: u64| serde_json::json!((0..count).map(|n| format!("demo:N{n}")).collect::<Vec<_>>());
    let mut rig = Rig::bounded(1, (STEPS_MIN, 1_000_000), 16, 1_024);
    (0..20).for_each(|_| rig.connect());
    let all = names(100);
    let requests = [
        format!(r#"{{"op":"subscribe","id":1,"channel":["trade","quote"],"symbols":{all},"mode":"latest"}}"#),
        format!(r#"{{"op":"set","id":2,"symbols":{all},"max_hz":5}}"#),
        format!(r#"{{"op":"unsubscribe","id":3,"channel":"trade","symbols":{}}}"#, names(50)),
        r#"{"op":"list","id":4}"#.to_owned(),
        r#"{"op":"set","id":5,"max_hz":20}"#.to_owned(),
        r#"{"op":"set","id":6,"max_hz":30}"#.to_owned(),
        r#"{"op":"list","id":7}"#.to_owned(),
    ];
    for request in &requests {
        (0..20).for_each(|client| rig.ask(client, request));
    }
    turn_until_done(&mut rig);
    for client in 0..20 {
        let (messages, _) = told(&rig, client);
        let answer = |id: u64| messages.iter().find(|message| message["id"] == id).expect("an answer");
        let rows = |id: u64, field: &str| answer(id)[field].as_array().expect("rows").len();
        assert_eq!((rows(1, "ok"), rows(2, "ok"), rows(3, "ok")), (200, 200, 50));
        assert_eq!((rows(4, "subscriptions"), rows(5, "ok"), rows(7, "subscriptions")), (150, 2, 150));
        // There are two rates: each is free again when nothing has it any more.
        let terms = |id: u64| answer(id)["subscriptions"][7]["max_hz"].clone();
        assert_eq!((terms(4), terms(7)), (5.into(), 30.into()));
    }
    // One is listed: those that wait for it have it, by both channels or one.
    let named = rig.table.intern(&Symbol::parse("demo:N70").expect("good")).expect("room");
    rig.publish(named, Body::Quote(Quote { bid: Some(Decimal::new(1, 0)), ..Quote::default() }), 1);
    turn_until_done(&mut rig);
    assert_eq!(rig.counters.subscriptions.get(), 20 * 3);
    // All leave at once.
    while !rig.clients.is_empty() {
        rig.leave(0);
    }
    assert_eq!(rig.counters.subscribed.get(), 0);
    let turns = turn_until_done(&mut rig);
    assert!(turns > 20 * 99 / STEPS_MIN as usize, "{turns} turns");
    assert_eq!(rig.counters.subscriptions.get(), 0);
}

#[test]
fn long_messages_over_the_allowance_are_not_read_and_many_end_the_connection() {
    let mut rig = Rig::bounded(1, (1_024, 2), 16, 1_024);
    rig.connect();
    rig.clients[0].answers = false;
    (0..2).for_each(|n| rig.ask(0, &format!(r#"{{"op":"ping","id":{n}}}"#)));
    rig.ask(0, r#"{"op":"ping","id":2}"#);
    rig.ask(0, &format!(r#"{{"op":"ping","id":3{}}}"#, " ".repeat(2_000)));
    rig.ask(0, &format!("{{{}", " ".repeat(2_000)));
    turn_until_done(&mut rig);
    let (messages, _) = told(&rig, 0);
    let told_of: Vec<_> = messages[1..].iter().map(|m| (&m["type"], &m["id"], &m["code"])).collect();
    let limited = Value::from("rate_limited");
    let nothing = Value::Null;
    let expected = [
        (&Value::from("pong"), &Value::from(0), &nothing),
        (&Value::from("pong"), &Value::from(1), &nothing),
        (&Value::from("error"), &Value::from(2), &limited),
        // It may be anything.
        (&Value::from("error"), &nothing, &limited),
        (&Value::from("error"), &nothing, &limited),
    ];
    assert_eq!(told_of, expected);
    (0..300).for_each(|n| rig.ask(0, &format!(r#"{{"op":"ping","id":{n}}}"#)));
    turn_until_done(&mut rig);
    let (messages, code) = told(&rig, 0);
    assert_eq!(code, Some(4502));
    assert_eq!(messages.last().expect("a message")["why"], "limit");
    assert!((200..300).contains(&messages.len()), "{}", messages.len());
}

#[test]
fn a_rate_brings_the_newest_once_in_each_period_and_in_one_write() {
    const PERIOD_MS: u64 = 50;
    let mut rig = Rig::new(1);
    rig.connect();
    let quote = |rig: &mut Rig, n: u64| {
        let instrument = rig.table.intern(&symbol(n)).expect("room");
        rig.publish(instrument, Body::Quote(Quote { bid: Some(Decimal::new(1, 0)), ..Quote::default() }), 1);
    };
    (0..3).for_each(|n| quote(&mut rig, n));
    rig.turn();
    rig.ask(0, r#"{"op":"subscribe","channel":"quote","symbols":["*"],"mode":"latest","max_hz":20}"#);
    // For each symbol: when the oldest tick was published that was not told yet, and when something was told last.
    let mut waits = [None; 3];
    let mut told_at: [Option<u64>; 3] = [None; 3];
    let (mut told, mut writes) = (0, 0);
    for ms in 0..5_000_u64 {
        rig.clock.advance(Duration::from_millis(1));
        // The first ticks now and then, the second always, the third in bursts.
        for n in 0..3 {
            let comes = match n {
                0 => rig.random.below(300) == 0,
                1 => true,
                _ => ms % 1_000 < 20,
            };
            if comes {
                quote(&mut rig, n);
                waits[n as usize].get_or_insert(ms);
            }
        }
        let (id, now) = (rig.clients[0].id, rig.clock.now());
        rig.sessions.borrow_mut().heard(id, now);
        rig.read(0, 1 << 20);
        while rig.turn() {}
        let taken = std::mem::take(&mut rig.clients[0].wire.borrow_mut().taken);
        rig.clients[0].wire.borrow_mut().acked = 0;
        let (texts, _) = texts(&taken);
        let updates: Vec<Value> =
            texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
        let updates = updates.iter().filter(|m| m["type"] == "quote" && m["snap"] != true);
        let symbols: Vec<usize> = updates
            .map(|m| m["symbol"].as_str().expect("a symbol")["demo:S".len()..].parse().expect("a number"))
            .collect();
        writes += u64::from(!symbols.is_empty());
        for n in symbols {
            told += 1;
            let since: u64 = waits[n].take().expect("something was new");
            assert!(ms - since <= PERIOD_MS, "S{n} waited {} ms", ms - since);
            assert!(told_at[n].is_none_or(|at| ms - at >= PERIOD_MS), "S{n} twice in a period");
            told_at[n] = Some(ms);
        }
        for (n, since) in waits.iter().enumerate() {
            assert!(since.is_none_or(|since| ms - since < PERIOD_MS), "S{n} is late");
        }
    }
    assert!((99..=101).contains(&writes) && told > writes + 10, "{told} updates in {writes} periods");
}
