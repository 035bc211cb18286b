//! Delays are planted by hand, on a clock that moves only when told, and have to be found: in the right stage, with the
//! right count.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tickfan::feed::{
    Ingest, IngestParts, IngestView, LineId, LineLimits, PublishingParts, Replay, ReplaySpec, Sequencer,
};
use tickfan::latency::Stage;
use tickfan::latency::meter::{Meter, MeterLine};
use tickfan::model::instrument::InstrumentTable;
use tickfan::model::tick::Channel;
use tickfan::ops::flight::IncidentReporter;
use tickfan::protocol::json::Provenance;
use tickfan::ring::tick_ring;
use tickfan::session::{FRAME_RING_BYTES_MIN, Policy};
use tickfan::shard::{
    CatchUps, ClientInfo, ClientLimits, ClientRow, Peer, SessionOptions, SessionTimes, Sessions, Shard,
    Socket, SortBy, Tuning,
};
use tickfan::system::counters::ShardCounters;
use tickfan::time::clock::{Clock, MS, Now, SECOND};
use tokio::sync::mpsc;

/// How many bytes a socket still takes; `usize::MAX`: all there are.
#[derive(Clone)]
struct Gate(Rc<Cell<usize>>);

impl Gate {
    fn open() -> Self {
        Self(Rc::new(Cell::new(usize::MAX)))
    }

    fn set(&self, full: bool) {
        self.0.set(if full { 0 } else { usize::MAX });
    }
}

struct Wire(Gate);

impl Socket for Wire {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Gate(left) = &self.0;
        let taken = slices.iter().map(|slice| slice.len()).sum::<usize>().min(left.get());
        if left.get() == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        if left.get() < usize::MAX {
            left.set(left.get() - taken);
        }
        Ok(taken)
    }

    fn force(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn peer(&self) -> Option<Peer> {
        None
    }

    fn unacked(&self) -> u64 {
        0
    }

    fn kick(&self) {}
}

fn options() -> SessionOptions {
    SessionOptions {
        limits: ClientLimits {
            symbols_max: 10,
            frame_bytes_max: 65_536,
            fragments_max: 1,
            controls_per_s: 1,
            ops_per_s: 100,
            steps_per_turn_max: 1 << 20,
        },
        times: SessionTimes {
            heartbeat_ms: 100_000,
            close_grace_ms: 1_000,
            drain_spread_ms: 1,
            dead_peer_ms: 1,
        },

        epoch: "e".into(),
        feed: Provenance::Replay,
        policy: Policy {
            outbox_bytes_max: 1 << 20,
            control_bytes_max: 1 << 16,
            warn_behind_ns: SECOND,
            shed_behind_ns: 20 * SECOND,
            cut_after_ns: 10 * SECOND,
            pong_timeout_ns: 100 * SECOND,
            ahead_ns: SECOND,
            rates_max: 2,
        },
        tuning: Tuning { unsent_bytes_max: 1 },
        frame_ring_bytes: FRAME_RING_BYTES_MIN,
        venues: ["demo".to_owned()].into(),
        replay_control: None,
        catch_ups: CatchUps::new(0, 0, 1),
        reread_per_turn: 4_096,
    }
}

/// A capture with a trade every millisecond, and one long after, so that it does not end.
fn capture(trades: u32) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("demo");
    let mut file = std::fs::File::create(&path).expect("created");
    for ms in (0..trades).chain([50_000]) {
        let (s, ms) = (ms / 1_000, ms % 1_000);
        let trade = r#"{"type":"trade","symbol":"demo:A","price":"1","size":"1"}"#;
        writeln!(file, "2026-01-01T00:00:{s:02}.{ms:03}0000Z {trade}").expect("written");
    }
    (folder, path)
}

/// A client of the only symbol; its number.
fn join(sessions: &RefCell<Sessions<Wire>>, name: &str, gate: &Gate, now: Now) -> u32 {
    let mut sessions = sessions.borrow_mut();
    let who = ClientInfo { name: name.into(), peer: None };
    let client = sessions.open(Wire(gate.clone()), who, now);
    sessions.request(client, r#"{"op":"subscribe","channel":"trade","symbols":["demo:A"]}"#, now);
    client
}

/// From a capture to a socket, turn by turn.
struct Rig {
    clock: Clock,
    ingest: Ingest,
    shard: Shard<Wire>,
    sessions: Rc<RefCell<Sessions<Wire>>>,
    full: Gate,
    client: u32,
    lines: [Arc<MeterLine>; 2],
    found: BTreeMap<&'static str, hdrhistogram::Histogram<u64>>,
    _folder: tempfile::TempDir,
    _log: mpsc::Receiver<String>,
}

impl Rig {
    fn new(trades: u32) -> Self {
        let clock = Clock::manual();
        let (folder, file) = capture(trades);
        let table = Arc::new(InstrumentTable::new(4));
        let (writer, ring) = tick_ring(1_024, 4).expect("a good capacity");
        let lines = [Arc::new(MeterLine::default()), Arc::new(MeterLine::default())];
        let meter = |line: &Arc<MeterLine>| Meter::new(Arc::clone(line), SECOND, 0);
        let limits = LineLimits { book_levels_max: 10, ..LineLimits::default() };
        let spec = ReplaySpec { strict: true, ..ReplaySpec::new(vec![file]) };
        let (notices, log) = mpsc::channel(8);
        let ingest = Ingest::new(IngestParts {
            listing_backlog: Box::new(|| 0),
            sequencer: Sequencer::new(Arc::clone(&table)),
            writer,
            bells: Vec::new(),
            rest: Duration::ZERO,
            replays: vec![Replay::open(spec, &limits, LineId(0)).expect("a capture")],
            replay_control: None,
            publishing: PublishingParts { input: None, limits: limits.clone(), tap: None },
            clock: clock.clone(),
            stale_after_ns: 100 * SECOND,
            may_start: Box::new(|| true),
            view: Arc::new(IngestView::new(1)),
            notices,
            meter: meter(&lines[0]),
            reporter: IncidentReporter::off(),
        });
        let counters = Arc::new(ShardCounters::default());
        let sessions = Sessions::new(options(), table, ring.clone(), clock.clone(), Arc::clone(&counters));
        let sessions = Rc::new(RefCell::new(sessions));
        sessions.borrow_mut().measure_with(meter(&lines[1]));
        let mut shard = Shard::new(ring.reader(), Rc::clone(&sessions), counters);
        let full = Gate::open();
        let now = clock.now();
        let client = join(&sessions, "c", &full, now);
        while shard.turn(now) {}
        let found = BTreeMap::new();
        Self { clock, ingest, shard, sessions, full, client, lines, found, _folder: folder, _log: log }
    }

    fn wait(&self, ns: u64) {
        self.clock.advance(Duration::from_nanos(ns));
    }

    fn ingest(&mut self) {
        self.ingest.turn(self.clock.now());
    }

    fn shard(&mut self) {
        while self.shard.turn(self.clock.now()) {}
    }

    /// So many milliseconds without any delay.
    fn smoothly(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ingest();
            self.shard();
            self.wait(MS);
        }
    }

    /// The socket of a client takes something again, and is written to.
    fn writable(&mut self, client: u32) {
        self.sessions.borrow_mut().writable(client);
        self.shard();
    }

    /// The level that a client was told.
    fn level(&self, name: &str) -> &'static str {
        let rows = self.sessions.borrow_mut().report(SortBy::Since, 99, 0, self.clock.now());
        rows.iter().find(|row| *row.session == *name).expect("it is there").level
    }

    /// Everything that was measured, in microseconds: how often, by stage.
    fn found(&mut self) -> BTreeMap<&'static str, BTreeMap<u64, u64>> {
        self.clock.step(Duration::ZERO);
        self.wait(SECOND);
        self.ingest();
        self.shard();
        for line in &self.lines {
            while let Some(set) = line.take() {
                assert_eq!((set.negative, set.clamped), (0, 0));
                for (stage, venue, channel, values) in set.values() {
                    assert_eq!((venue, channel), (Some("demo"), Channel::Trade));
                    let all = self.found.entry(stage.name()).or_insert_with(tickfan::latency::histogram);
                    all.add(values).expect("the same bounds");
                }
                line.give_back(set, &[]);
            }
        }
        let all = self.found.iter().map(|(stage, values)| {
            let mut counts = BTreeMap::new();
            for value in values.iter_recorded() {
                // To a thousandth, which is less than a microsecond up to here.
                *counts.entry((value.value_iterated_to() + 500) / 1_000).or_default() +=
                    value.count_at_value();
            }
            (*stage, counts)
        });
        all.collect()
    }
}

/// What was found, as text: `stage: value in microseconds × count`.
fn shown(found: &BTreeMap<&'static str, BTreeMap<u64, u64>>, stage: Stage) -> String {
    let mut text = String::new();
    for (us, count) in found.get(stage.name()).into_iter().flatten() {
        write!(text, "{}×{count} ", near(*us)).expect("a string takes it");
    }
    text.trim_end().to_owned()
}

/// The nearest millisecond: a histogram is off by a thousandth.
fn near(us: u64) -> u64 {
    (us + 500) / 1_000 * 1_000
}

#[test]
fn a_delay_is_found_in_its_stage() {
    for ms in [1, 10, 100] {
        let delay = ms * MS;
        let us = ms * 1_000;
        let late = |times: u64| format!("0×1 {}×1", times * us);
        // A trade without any delay, then one with it.
        let begun = || {
            let mut rig = Rig::new(2);
            rig.smoothly(1);
            rig
        };
        let mut rig = begun();
        rig.wait(delay);
        rig.ingest();
        rig.shard();
        let found = rig.found();
        assert_eq!(shown(&found, Stage::Recv), late(1), "nobody took it up");
        assert_eq!(shown(&found, Stage::Pickup), "0×2");
        assert_eq!(shown(&found, Stage::Total), late(1));

        let mut rig = begun();
        rig.ingest();
        rig.wait(delay);
        rig.shard();
        let found = rig.found();
        assert_eq!(shown(&found, Stage::Recv), "0×2");
        assert_eq!(shown(&found, Stage::Pickup), late(1), "the shard did not come");
        assert_eq!(shown(&found, Stage::Write), "0×2");
        assert_eq!(shown(&found, Stage::Total), late(1));

        let mut rig = begun();
        rig.full.set(true);
        rig.ingest();
        rig.shard();
        rig.wait(delay);
        rig.full.set(false);
        rig.sessions.borrow_mut().writable(rig.client);
        rig.shard();
        let found = rig.found();
        assert_eq!(shown(&found, Stage::Pickup), "0×2");
        assert_eq!(shown(&found, Stage::SlowClient), format!("{us}×1"), "the socket was full");
        assert_eq!(shown(&found, Stage::Write), "0×1");
        assert_eq!(shown(&found, Stage::Total), "0×2", "the gateway did its part at once");

        // Now every reading of the clock takes so long.
        let mut rig = begun();
        rig.clock.step(Duration::from_nanos(delay));
        rig.ingest();
        rig.shard();
        let found = rig.found();
        assert_eq!(shown(&found, Stage::Recv), "0×2");
        assert_eq!(shown(&found, Stage::Normalise), late(1));
        // There was a look whether another one is due.
        assert_eq!(shown(&found, Stage::Publish), late(2));
        // It is in the ring while the doorbells are rung, and until the shard comes.
        assert_eq!(shown(&found, Stage::Pickup), late(3));
        assert_eq!(shown(&found, Stage::Encode), "0×2");
        assert_eq!(shown(&found, Stage::Write), late(1));
        assert_eq!(shown(&found, Stage::Total), late(5));
    }
}

#[test]
fn who_waited_is_told_by_client() {
    let mut rig = Rig::new(3);
    let full = Gate::open();
    let slow = join(&rig.sessions, "slow", &full, rig.clock.now());
    let rows = |rig: &Rig| rig.sessions.borrow_mut().report(SortBy::Latency, 9, 0, rig.clock.now());
    rig.shard();
    assert!(rows(&rig).iter().all(|row| row.total.is_none()), "nothing was written yet");
    rig.smoothly(2);
    full.set(true);
    rig.ingest();
    rig.shard();
    rig.wait(10 * MS);
    full.set(false);
    rig.sessions.borrow_mut().writable(slow);
    rig.shard();
    let told = |row: &ClientRow| {
        let total = row.total.expect("it was written to");
        (row.session.to_string(), total.count, total.mean_ns, total.p50_ns, total.p99_ns, total.max_ns)
    };
    let delay = 10 * MS;
    assert_eq!(
        rows(&rig).iter().map(told).collect::<Vec<_>>(),
        [("slow".to_owned(), 3, delay / 3, 1_000, delay, delay), ("c".to_owned(), 3, 0, 0, 0, 0)]
    );
    let measured = rig.found();
    assert_eq!(shown(&measured, Stage::Total), "0×6", "what a client felt is not what the gateway took");
    assert_eq!(shown(&measured, Stage::SlowClient), "10000×1");
}

#[test]
fn a_tick_waits_for_those_encoded_before_it() {
    let mut rig = Rig::new(3);
    rig.smoothly(1);
    rig.ingest();
    rig.wait(MS);
    rig.ingest();
    rig.clock.step(Duration::from_millis(10));
    rig.shard();
    let found = rig.found();
    assert_eq!(shown(&found, Stage::Encode), "0×2 10000×1");
    // One write for both.
    assert_eq!(shown(&found, Stage::Write), "0×1 10000×1 20000×1");
}

#[test]
fn a_stall_delays_every_tick_that_was_due_meanwhile() {
    let mut rig = Rig::new(300);
    rig.smoothly(100);
    // Nobody comes for 50 ms: as many ticks are due, the first waits 50, the last 1.
    rig.wait(50 * MS);
    rig.smoothly(200);
    let found = rig.found();
    let mut expected = BTreeMap::from([(0, 250)]);
    (1..=50).for_each(|ms| *expected.entry(ms * 1_000).or_default() += 1);
    let recv: BTreeMap<u64, u64> = found["recv"].iter().map(|(us, count)| (near(*us), *count)).collect();
    assert_eq!(recv, expected);
    // They go out in one write, of which some are told and stand for their neighbours.
    let total: BTreeMap<u64, u64> = found["total"].iter().map(|(us, count)| (near(*us), *count)).collect();
    assert_eq!(total.values().sum::<u64>(), 300, "each delivery counts");
    assert_eq!(total.last_key_value().map(|(us, _)| *us), Some(50_000), "the oldest is told by itself");
    let below = |values: &BTreeMap<u64, u64>, us: u64| values.range(..=us).map(|(_, n)| n).sum::<u64>();
    for us in (0..=50_000).step_by(1_000) {
        let (found, expected) = (below(&total, us), below(&expected, us));
        assert!(found.abs_diff(expected) <= 8, "{us} µs: {found} instead of {expected}");
    }
    for stage in ["normalise", "publish", "pickup"] {
        let count: u64 = found[stage].values().sum();
        assert!((293..=300).contains(&count), "{stage}: {count}");
    }
}

#[test]
fn what_is_copied_while_a_socket_is_full_keeps_its_times() {
    let mut rig = Rig::new(200);
    rig.smoothly(50);
    rig.full.set(true);
    rig.smoothly(100);
    rig.full.set(false);
    rig.sessions.borrow_mut().writable(rig.client);
    rig.smoothly(60);
    let found = rig.found();
    let waited: BTreeMap<u64, u64> = (1..=100).map(|ms| (ms * 1_000, 1)).collect();
    let slow: BTreeMap<u64, u64> =
        found["slow_client"].iter().map(|(us, count)| (near(*us), *count)).collect();
    assert_eq!(slow, waited);
    assert_eq!((shown(&found, Stage::Write), shown(&found, Stage::Total)), ("0×100".into(), "0×200".into()));
}

#[test]
fn very_many_clients_are_told_by_some_of_them() {
    let mut rig = Rig::new(100);
    for _ in 1..1_000 {
        join(&rig.sessions, "c", &rig.full, rig.clock.now());
    }
    rig.shard();
    rig.smoothly(50);
    // The shard comes late for the other half.
    for _ in 50..100 {
        rig.ingest();
        rig.wait(10 * MS);
        rig.shard();
    }
    let found = rig.found();
    for stage in [Stage::Write, Stage::Total] {
        let count: u64 = found[stage.name()].values().sum();
        assert_eq!(count, 100_000, "{}: each delivery counts", stage.name());
    }
    let late: u64 = found["total"].range(5_000..).map(|(_, count)| count).sum();
    assert!(late.abs_diff(50_000) <= 1_000, "{late} of them were late");
}

/// A gateway of so many trades with a fast client, and a slow one with its gate; one trade has reached both.
fn with_a_slow_client(trades: u32) -> (Rig, Gate, u32) {
    let mut rig = Rig::new(trades);
    let gate = Gate::open();
    let slow = join(&rig.sessions, "slow", &gate, rig.clock.now());
    rig.smoothly(1);
    (rig, gate, slow)
}

fn shown_all(rig: &mut Rig) -> [String; 3] {
    let found = rig.found();
    [Stage::Write, Stage::Total, Stage::SlowClient].map(|stage| shown(&found, stage))
}

#[test]
fn what_waits_for_a_client_is_measured_apart_before_it_is_told_that_it_is_slow() {
    // Written while it is still `ok`, some hundred milliseconds later, and when it has long been told.
    for (ms, level) in [(300, "ok"), (1_050, "warn")] {
        let (mut rig, gate, slow) = with_a_slow_client(2);
        gate.set(true);
        rig.ingest();
        rig.shard();
        assert_eq!(rig.level("slow"), "ok", "the tick came while nobody knew that it would wait");
        rig.wait(ms * MS);
        rig.shard();
        assert_eq!(rig.level("slow"), level);
        gate.set(false);
        rig.writable(slow);
        assert_eq!(shown_all(&mut rig), ["0×3", "0×4", &format!("{}×1", ms * 1_000)], "{level}");
    }
}

#[test]
fn what_waited_for_a_client_stays_its_own_when_it_is_told_that_all_is_well() {
    let (mut rig, gate, slow) = with_a_slow_client(6);
    gate.set(true);
    for _ in 0..3 {
        rig.ingest();
        rig.shard();
        rig.wait(MS);
    }
    rig.wait(1_997 * MS);
    rig.shard();
    assert_eq!(rig.level("slow"), "warn");
    // Its socket takes one frame and a half. In that moment it is not stuck, and is told so.
    rig.sessions.borrow_mut().writable(slow);
    gate.0.set(400);
    rig.wait(100 * MS);
    rig.shard.turn(rig.clock.now());
    assert_eq!(rig.level("slow"), "ok", "though old frames still wait");
    // Then it takes nothing for another 400 ms.
    rig.shard();
    rig.wait(400 * MS);
    gate.set(false);
    rig.sessions.borrow_mut().writable(slow);
    // What comes when the socket is known to take something again waits for nobody.
    rig.ingest();
    rig.shard();
    let [write, total, slow] = shown_all(&mut rig);
    let counts = |text: &str| -> u64 {
        let count = |row: &str| row.split_once('×').expect("a row").1.parse::<u64>().expect("a count");
        text.split(' ').map(count).sum()
    };
    assert_eq!((counts(&write), counts(&total), counts(&slow)), (9, 12, 3), "{write} / {total} / {slow}");
    assert!(write == "0×9", "{write}");
    let values: Vec<u64> =
        slow.split(' ').map(|row| row.split_once('×').expect("a row").0.parse().expect("µs")).collect();
    assert!(values.iter().all(|us| (2_000_000..=2_510_000).contains(us)), "{slow}");
}

#[test]
fn a_gateway_that_is_slow_for_everybody_shows_though_a_client_is_slow_too() {
    let (mut rig, gate, slow) = with_a_slow_client(2);
    gate.set(true);
    rig.ingest();
    // The shard comes a second late, and then the slow client lets it wait for 300 ms more.
    rig.wait(1_000 * MS);
    rig.shard();
    rig.wait(300 * MS);
    gate.set(false);
    rig.writable(slow);
    assert_eq!(shown_all(&mut rig), ["0×3", "0×2 1000000×2", "300000×1"], "each delivery was late");

    // Its turn to be written to comes late: every frame is queued, and no socket refuses anything.
    let (mut rig, ..) = with_a_slow_client(2);
    rig.ingest();
    rig.clock.step(Duration::from_millis(500));
    rig.shard();
    let found = rig.found();
    assert_eq!(found.get("slow_client"), None);
    let late: u64 = found["write"].range(400_000..).map(|(_, count)| count).sum();
    assert_eq!(late, 2, "{found:?}");
}

#[test]
fn slow_clients_among_many_stand_for_nobody_else() {
    const ALL: u64 = 200;
    let mut rig = Rig::new(100);
    let slow: Vec<(Gate, u32)> = (1..ALL)
        .filter_map(|n| {
            let (gate, now) = (Gate::open(), rig.clock.now());
            let client = join(&rig.sessions, "c", &gate, now);
            (n % 20 == 0).then_some((gate, client))
        })
        .collect();
    rig.shard();
    rig.smoothly(50);
    slow.iter().for_each(|(gate, _)| gate.set(true));
    rig.smoothly(25);
    rig.wait(475 * MS);
    for (gate, client) in &slow {
        gate.set(false);
        rig.sessions.borrow_mut().writable(*client);
    }
    rig.ingest();
    rig.smoothly(25);
    let found = rig.found();
    let count = |stage: Stage| found[stage.name()].values().sum::<u64>();
    let waited = 25 * slow.len() as u64;
    assert_eq!(count(Stage::SlowClient), waited, "each of theirs, and nobody else's");
    assert_eq!(count(Stage::Write), 100 * ALL - waited);
    assert_eq!(count(Stage::Total), 100 * ALL);
    let (least, most) = (found["slow_client"].first_key_value(), found["slow_client"].last_key_value());
    assert!(
        least.map(|(us, _)| near(*us)) == Some(476_000) && most.map(|(us, _)| near(*us)) == Some(500_000)
    );
    assert!(found["write"].last_key_value().is_some_and(|(us, _)| *us < 1_000), "{:?}", found["write"]);
}
