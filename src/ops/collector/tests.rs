use std::fs;
use std::io::BufReader;
use std::num::{NonZeroU8, NonZeroU64};
use std::path::Path;
use std::sync::Mutex;

use serde_json::Value;

use super::*;
use crate::latency::NS_MAX;
use crate::latency::budget::parse;
use crate::latency::hlog::note::{Head, NotedClients, NotedGaps, NotedMoment};
use crate::latency::hlog::{HlogEntry, HlogReader, Interval};
use crate::latency::meter::Class;
use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::model::tick::GapCause;
use crate::ops::flight;
use crate::ops::flight::Flight;
use crate::ring::tick_ring;
use crate::system::counters::Ending;
use crate::time::clock::{MANUAL_EPOCH_NS, MS, SECOND};

const START: Now = Now { mono_ns: 7 * SECOND, wall_ns: MANUAL_EPOCH_NS + 7 * SECOND };

fn options(interval_ns: u64, log: Option<LogOptions>) -> CollectorOptions {
    CollectorOptions { interval_ns, symbols_max: 2, log, flights: None, budget: Vec::new() }
}

/// A table with one symbol of each venue.
fn table() -> Arc<InstrumentTable> {
    let table = InstrumentTable::new(VENUES.len());
    for venue in VENUES {
        table.intern(&Symbol::new(venue, "A").expect("a symbol")).expect("room");
    }
    Arc::new(table)
}

const VENUES: [&str; 3] = ["kraken", "coinbase", "demo"];

/// Both clocks at a steady time.
fn now(mono_ns: u64) -> Now {
    Now { mono_ns, wall_ns: mono_ns - START.mono_ns + START.wall_ns }
}

/// Two measuring threads and the collector.
struct Rig {
    collector: Collector,
    measured: Arc<Measured>,
    ingest: Meter,
    shard: Meter,
    told: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    fn new(log: Option<LogOptions>) -> Self {
        Self::with(options(SECOND, log))
    }

    fn with(options: CollectorOptions) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let tell = move |what| tell.lock().expect("not poisoned").push(what);
        let mut collector = Collector::new(options, table(), START, Box::new(tell));
        let (ingest, shard) = (collector.meter(), collector.meter());
        let measured = collector.measured();
        Self { collector, measured, ingest, shard, told }
    }

    /// Both threads hand over their interval, and the collector runs. Seconds count from the start.
    fn end(&mut self, second: u64) {
        let now_ns = START.mono_ns + second * SECOND + MS;
        self.ingest.turn(now_ns);
        self.shard.turn(now_ns);
        self.collector.turn(now(now_ns));
    }

    fn asked(&self, interval: &str) -> Value {
        self.measured.json(interval).expect("an interval")
    }

    /// The count of a tag over an interval.
    fn count(&self, interval: &str, tag: &str) -> u64 {
        let asked = self.asked(interval);
        let row = asked["tags"].as_array().expect("rows").iter().find(|row| row["tag"] == tag);
        row.map_or(0, |row| row["count"].as_u64().expect("a number"))
    }

    /// Messages to the operator since the last call.
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().expect("not poisoned"))
    }
}

/// Records `count` values of a stage; the number of the instrument is that of its venue.
fn record(meter: &mut Meter, stage: Stage, (venue, channel): (u32, Channel), ns: u64, count: u64) {
    let name = || VENUES.get(venue as usize).copied().unwrap_or_default();
    let class = meter.class(InstrumentId(venue), channel, name);
    meter.record(stage, class, 1_000, 1_000 + ns, count);
}

const KRAKEN: (u32, Channel) = (0, Channel::Trade);
const COINBASE: (u32, Channel) = (1, Channel::Quote);

#[test]
fn what_threads_measure_is_merged_by_what_it_is() {
    let mut rig = Rig::new(None);
    // The threads have encountered the venues in different orders.
    record(&mut rig.ingest, Stage::Recv, COINBASE, 10, 1);
    record(&mut rig.ingest, Stage::Recv, KRAKEN, 20_000, 2);
    record(&mut rig.shard, Stage::Recv, KRAKEN, 30_000, 3);
    record(&mut rig.shard, Stage::Total, COINBASE, 2_000_000, 4);
    rig.end(1);
    let last = rig.asked("last");
    let (from, to) = (START.wall_ns / 1_000, (START.wall_ns + SECOND + MS) / 1_000);
    assert_eq!((&last["from_us"], &last["to_us"]), (&from.into(), &to.into()));
    let tags = last["tags"].as_array().expect("rows");
    let names: Vec<_> = tags.iter().map(|row| (row["tag"].as_str().expect("text"), &row["count"])).collect();
    assert_eq!(
        names,
        [
            ("recv/coinbase/quote", &1.into()),
            ("recv/kraken/trade", &5.into()),
            ("total/coinbase/quote", &4.into())
        ]
    );
    let stages = last["stages"].as_array().expect("rows");
    assert_eq!(stages.len(), Stage::ALL.len());
    assert_eq!((&stages[0]["stage"], &stages[0]["count"]), (&"recv".into(), &6.into()));
    assert_eq!((&stages[0]["p50_ns"], &stages[0]["max_ns"]), (&20_015.into(), &30_015.into()));
    assert_eq!((&stages[3]["count"], &stages[3]["max_ns"]), (&0.into(), &0.into()));
}

#[test]
fn an_interval_without_values_is_empty_and_one_without_news_goes_on() {
    let mut rig = Rig::new(None);
    record(&mut rig.shard, Stage::Write, KRAKEN, 5, 1);
    rig.collector.turn(START);
    assert_eq!(rig.count("start", "write/kraken/trade"), 0, "it was not handed over yet");
    rig.end(1);
    rig.end(2);
    // No thread ends its third interval.
    rig.collector.turn(START);
    rig.end(4);
    let last = rig.asked("last");
    let (from, to) = (last["from_us"].as_u64().expect("a time"), last["to_us"].as_u64().expect("a time"));
    assert_eq!((to - from, rig.count("last", "write/kraken/trade")), (2_000_000, 0));
    assert_eq!(rig.count("start", "write/kraken/trade"), 1);
}

#[test]
fn a_late_thread_stands_where_it_came() {
    let mut rig = Rig::new(None);
    for second in 1..=5 {
        record(&mut rig.shard, Stage::Write, KRAKEN, 5, 1);
        record(&mut rig.ingest, Stage::Recv, KRAKEN, 5, 1);
        let now_ns = START.mono_ns + second * SECOND;
        rig.ingest.turn(now_ns);
        if second == 5 {
            rig.shard.turn(now_ns);
        }
        rig.collector.turn(START);
        let counts = ["recv", "write"].map(|stage| rig.count("last", &format!("{stage}/kraken/trade")));
        assert_eq!(counts, [1, if second == 5 { 5 } else { 0 }]);
    }
}

#[test]
fn the_minute_forgets_what_is_older() {
    let mut rig = Rig::new(None);
    for second in 1..=150 {
        record(&mut rig.shard, Stage::Write, KRAKEN, second * 1_000, second);
        if second == 100 {
            record(&mut rig.shard, Stage::Encode, COINBASE, NS_MAX + 1, 7);
        }
        rig.end(second);
        let within = (second.saturating_sub(59).max(1)..=second).sum::<u64>();
        assert_eq!(rig.count("1m", "write/kraken/trade"), within, "after {second}");
    }
    let minute = rig.asked("1m");
    let span = minute["to_us"].as_u64().zip(minute["from_us"].as_u64()).map(|(to, from)| to - from);
    assert_eq!((span, &minute["clamped"]), (Some(60_000_000), &7.into()));
    let write = minute["tags"].as_array().expect("rows").iter().find(|row| row["stage"] == "write");
    let max_ns = write.and_then(|row| row["max_ns"].as_u64()).expect("a time");
    assert!((150_000..150_200).contains(&max_ns), "{max_ns}");
    assert_eq!(rig.count("start", "write/kraken/trade"), (1..=150).sum::<u64>());
    for second in 151..=170 {
        rig.end(second);
    }
    let minute = rig.asked("1m");
    assert_eq!((&minute["clamped"], rig.count("1m", "encode/coinbase/quote")), (&0.into(), 0));
    assert_eq!(rig.measured.odd(), (0, 7));
}

#[test]
fn values_that_are_no_times_are_counted() {
    let mut rig = Rig::new(None);
    let class = rig.ingest.class(InstrumentId(0), Channel::Trade, || "kraken");
    rig.ingest.record(Stage::Recv, class, 9, 8, 3);
    rig.end(1);
    let last = rig.asked("last");
    assert_eq!((&last["negative"], &last["tags"]), (&3.into(), &Value::Array(vec![])));
    assert_eq!(rig.measured.odd(), (3, 0));
    rig.end(2);
    assert_eq!(rig.asked("last")["negative"], 0);
}

#[test]
fn the_busiest_symbols_are_told_apart() {
    let mut rig = Rig::new(None);
    let class = Class::NONE;
    assert_eq!(rig.shard.record_way(InstrumentId(0), class, 0, 9, 1), None, "states are no ticks");
    for second in 1..=6 {
        for (id, (of, us, count)) in
            [(KRAKEN, 3, 1), (COINBASE, 70, 30), ((2, Channel::Quote), 900, 4)].into_iter().enumerate()
        {
            let name = VENUES[of.0 as usize];
            let class = rig.shard.class(InstrumentId(of.0), of.1, || name);
            rig.shard.record_way(InstrumentId(id as u32), class, 0, us * 1_000, count * second);
        }
        rig.end(second);
    }
    let asked = |interval: &str| {
        let (rows, others) = rig.measured.symbols_json(interval, None).expect("an interval");
        let mut told = Value::Object(others);
        told["symbols"] = rows.into_iter().map(|(_, row)| row).collect();
        told
    };
    let rows = |asked: &Value| {
        let rows = asked["symbols"].as_array().expect("rows").iter().chain([&asked["rest"]]);
        rows.map(|row| [row["count"].clone(), row["p99_ns"].clone(), row["max_ns"].clone()])
            .collect::<Vec<_>>()
    };
    let row = |count: u64, p99_ns: u64, max_ns: u64| [count, p99_ns, max_ns].map(Value::from);
    let last = asked("last");
    assert_eq!(rows(&last), [row(180, 70_000, 70_000), row(24, 900_000, 900_000), row(6, 3_000, 3_000)]);
    // Before the thread had sets for the elected symbols, the first ones were measured separately.
    for interval in ["1m", "start"] {
        assert_eq!(
            rows(&asked(interval)),
            [row(630, 70_000, 70_000), row(44, 900_000, 900_000), row(61, 900_000, 900_000)],
            "{interval}"
        );
    }
    assert_eq!((&last["stage"], &last["symbols"][0]["symbol"]), (&"total".into(), &"coinbase:A".into()));
    assert_eq!(last["symbols"][1]["symbol"], "demo:A");
    let (from, to) = ((START.wall_ns + 5 * SECOND + MS) / 1_000, (START.wall_ns + 6 * SECOND + MS) / 1_000);
    assert_eq!((&last["from_us"], &last["to_us"]), (&from.into(), &to.into()));
    let told = rig.measured.symbols_json("5m", None).map(drop);
    assert_eq!(told, Err("`interval` must be one of last, 1m, start".to_owned()));
    // A cursor remains valid when the count of its symbol has changed, and when the symbol is no longer
    // measured separately.
    let behind = |after: &str| {
        let (rows, _) = rig.measured.symbols_json("last", Some(after)).expect("a cursor");
        rows.into_iter().map(|(cursor, _)| cursor).collect::<Vec<_>>()
    };
    assert_eq!(behind("181.coinbase:A"), ["180.coinbase:A", "24.demo:A"]);
    assert_eq!(behind("180.coinbase:A"), ["24.demo:A"]);
    assert_eq!(behind("99.coinbase:A"), ["24.demo:A"]);
    assert_eq!(behind("25.gone:A"), ["24.demo:A"]);
    assert!(behind("24.demo:A").is_empty() && behind("0.demo:A").is_empty());
    for bad in ["", "coinbase:A", "x.coinbase:A", "-1.coinbase:A"] {
        assert!(rig.measured.symbols_json("last", Some(bad)).is_err_and(|e| e.contains("`after`")), "{bad}");
    }
}

#[test]
fn a_scraper_is_told_sums_by_bounds() {
    let mut rig = Rig::new(None);
    for (second, ns, count) in [(1, 10_000, 1), (2, 10_001, 2), (3, 12_000, 4), (4, 59_000_000_000, 8)] {
        record(&mut rig.shard, Stage::Total, KRAKEN, ns, count);
        rig.end(second);
    }
    let totals = rig.measured.totals();
    let (label, total) = &totals[0];
    assert_eq!((label.tag().to_string().as_str(), totals.len()), ("total/kraken/trade", 1));
    // At 10 µs the histogram does not distinguish eight nanoseconds.
    assert_eq!((total.buckets[0], total.buckets[1], total.buckets[11], total.count()), (3, 4, 8, 15));
    let sum = 10_000 + 2 * 10_001 + 4 * 12_000 + 8 * 59_000_000_000;
    assert!(total.sum_ns.abs_diff(sum) <= sum / 1_000, "{}", total.sum_ns);
}

#[test]
fn further_venues_are_one() {
    let mut rig = Rig::new(None);
    for venue in 0..40_u32 {
        let meter = if venue % 2 == 0 { &mut rig.ingest } else { &mut rig.shard };
        let name = format!("v{venue}");
        let class = meter.class(InstrumentId(venue), Channel::Trade, || &name);
        meter.record(Stage::Pickup, class, 0, 5, 1);
    }
    rig.end(1);
    assert_eq!(rig.asked("last")["tags"].as_array().map(Vec::len), Some(VENUES_MAX + 1));
    assert_eq!(rig.count("last", "pickup/*/trade"), 40 - VENUES_MAX as u64);
}

#[test]
fn what_cannot_be_asked_for_is_said() {
    let rig = Rig::new(None);
    let one_of = |what: Result<_, String>| what.map(drop).expect_err("it is unknown");
    assert_eq!(one_of(rig.measured.json("5m").map(|_| ())), "`interval` must be one of last, 1m, start");
    let stage = rig.measured.percentiles("read", "1m").map(|_| ());
    assert_eq!(
        one_of(stage),
        "`stage` must be one of recv, normalise, publish, pickup, encode, write, total, slow_client"
    );
    assert!(one_of(rig.measured.percentiles("recv", "").map(|_| ())).starts_with("`interval`"));
}

#[test]
fn percentiles_are_the_text_that_tools_draw() {
    let mut rig = Rig::new(None);
    let empty = rig.measured.percentiles("write", "start").expect("known");
    assert_eq!(
        empty,
        "       Value     Percentile TotalCount 1/(1-Percentile)\n\n\
         #[Mean    =     0.000000, StdDeviation   =     0.000000]\n\
         #[Max     =     0.000000, Total count    =            0]\n\
         #[Buckets =           26, SubBuckets     =         2048]\n"
    );
    (1..=100).for_each(|n| record(&mut rig.shard, Stage::Write, KRAKEN, n * 10, 1));
    rig.end(1);
    let text = rig.measured.percentiles("write", "start").expect("known");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[2], "    0.000010 0.000000000000          1           1.00");
    assert!(lines.contains(&"    0.000500 0.500000000000         50           2.00"), "{text}");
    assert!(lines.contains(&"    0.001000 1.000000000000        100"), "{text}");
    assert!(text.ends_with(
        "#[Mean    =     0.000505, StdDeviation   =     0.000289]\n\
         #[Max     =     0.001000, Total count    =          100]\n\
         #[Buckets =           26, SubBuckets     =         2048]\n"
    ));
}

// ---- the log ------------------------------------------------------------------------------------------

fn log_options(path: &Path, bytes_max: u64) -> LogOptions {
    let bytes_max = NonZeroU64::new(bytes_max).expect("above 0");
    let files_max = NonZeroU8::new(2).expect("above 0");
    LogOptions { path: path.to_owned(), limits: JournalLimits { bytes_max, files_max } }
}

fn intervals(path: &Path) -> Vec<Interval> {
    let mut reader = HlogReader::new(BufReader::new(fs::File::open(path).expect("a log")));
    std::iter::from_fn(|| reader.next_interval().expect("good lines")).collect()
}

#[test]
fn the_log_has_each_value_once_and_the_last_interval() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latency.hlog");
    let mut rig = Rig::new(Some(log_options(&path, 1 << 20)));
    for second in 1..=3 {
        record(&mut rig.ingest, Stage::Recv, KRAKEN, 40 * second, second);
        record(&mut rig.shard, Stage::Recv, KRAKEN, 40 * second, 10);
        rig.end(second);
    }
    record(&mut rig.shard, Stage::Total, COINBASE, 9, 1);
    rig.shard.end(START.mono_ns + 3 * SECOND + SECOND / 2);
    rig.ingest.end(START.mono_ns + 3 * SECOND + SECOND / 4);
    rig.collector.turn(START);
    let found: Vec<_> = intervals(&path)
        .iter()
        .map(|i| (i.tag.clone(), (i.start_ns - START.wall_ns) / MS, i.duration_ns / MS, i.histogram.len()))
        .collect();
    let row = |tag: &str, start, duration, count| (tag.to_owned(), start, duration, count);
    assert_eq!(
        found,
        [
            row("recv/kraken/trade", 0, 1_001, 11),
            row("recv/kraken/trade", 1_001, 1_000, 12),
            row("recv/kraken/trade", 2_001, 1_000, 13),
            row("total/coinbase/quote", 3_001, 499, 1),
        ]
    );
    assert_eq!((rig.told(), rig.measured.log().map(|log| log.missing)), (vec![], Some(0)));
}

#[test]
fn logs_follow_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latency.hlog");
    let mut rig = Rig::new(Some(log_options(&path, 3_000)));
    for second in 1..=20 {
        record(&mut rig.shard, Stage::Total, KRAKEN, second * 1_000, 1);
        rig.end(second);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    let older = intervals(&folder.path().join("latency.1.hlog"));
    let newer = intervals(&path);
    let all: Vec<u64> = older.iter().chain(&newer).map(|i| i.histogram.max() / 1_000).collect();
    assert!(all.len() > 1 && all.last() == Some(&20) && all.is_sorted_by(|a, b| a + 1 == *b), "{all:?}");
}

#[test]
fn a_log_that_cannot_be_written_is_told_once_and_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("logs");
    let path = inside.join("latency.hlog");
    let mut rig = Rig::new(Some(log_options(&path, 1 << 20)));
    let told = rig.told();
    assert!(
        told.len() == 1 && told[0].starts_with("latency.log: ") && told[0].contains("No such file"),
        "{told:?}"
    );
    for second in 1..=3 {
        record(&mut rig.shard, Stage::Total, KRAKEN, 1_000, 1);
        rig.end(second);
    }
    assert_eq!(rig.measured.log(), Some(LogHealth { failing: true, missing: 4 }));
    assert_eq!((rig.told(), rig.count("1m", "total/kraken/trade")), (vec![], 3));
    fs::create_dir(&inside).expect("created");
    record(&mut rig.shard, Stage::Total, KRAKEN, 1_000, 1);
    rig.end(4);
    assert_eq!(rig.measured.log(), Some(LogHealth { failing: false, missing: 4 }));
    let told = rig.told();
    assert!(told.len() == 1 && told[0].ends_with("it is written again"), "{told:?}");
    let found = intervals(&path);
    assert_eq!((found.len(), found[0].start_ns), (1, START.wall_ns + 3 * SECOND + MS));
}

/// The notes of a log.
fn notes(path: &Path) -> (Vec<Head>, Vec<Account>) {
    let mut reader = HlogReader::new(BufReader::new(fs::File::open(path).expect("a log")));
    let (mut heads, mut accounts) = (Vec::new(), Vec::new());
    while let Some(entry) = reader.next_entry().expect("good lines") {
        match entry {
            HlogEntry::Interval(_) => {}
            HlogEntry::Note(note) => match *note {
                Note::Log(head) => heads.push(head),
                Note::Interval(account) => accounts.push(account),
            },
        }
    }
    (heads, accounts)
}

#[test]
fn the_log_says_how_the_clients_did_and_loses_nothing_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("logs");
    let path = inside.join("latency.hlog");
    fs::create_dir(&inside).expect("created");
    let mut rig = Rig::new(Some(log_options(&path, 1)));
    let shards: [Arc<ShardCounters>; 2] = Default::default();
    shards.iter().for_each(|shard| rig.collector.account_for(Arc::clone(shard)));
    let come = |shard: &ShardCounters, count| {
        shard.sessions.add(count);
        shard.came.add(count);
    };
    come(&shards[0], 4);
    come(&shards[1], 3);
    rig.end(1);
    let (heads, told) = notes(&inside.join("latency.1.hlog"));
    let head = &heads[0];
    assert_eq!(
        (heads.len(), head.version, head.at, head.interval_ms),
        (1, 1, NotedMoment(START.wall_ns), 1_000)
    );
    assert_eq!((head.build.version.as_str(), head.flights.as_deref()), (env!("CARGO_PKG_VERSION"), None));
    assert!(head.machine.cores > 0 && head.machine.os == std::env::consts::OS);
    let first = Account {
        from: NotedMoment(START.wall_ns),
        to: NotedMoment(START.wall_ns + SECOND + MS),
        clients: NotedClients { at_start: 0, new: 7, at_end: 7 },
        ..Account::default()
    };
    assert_eq!(told, [first]);

    // A client is slow and cut; meanwhile the log cannot be written.
    let away = folder.path().join("away");
    fs::rename(&inside, &away).expect("moved");
    shards[1].warned.add(1);
    shards[1].slowed.add(1);
    shards[1].gaps[GapCause::SlowConsumer as usize].told.add(3);
    shards[1].gaps[GapCause::SlowConsumer as usize].ticks.add(1_240);
    shards[1].dropped.add(1_240);
    shards[0].sent.add(10);
    shards[1].sent.add(5);
    rig.end(2);
    assert!(rig.told()[0].contains("latency.log"));
    fs::rename(&away, &inside).expect("moved");
    shards[1].warned.sub(1);
    shards[1].sessions.sub(1);
    shards[1].ended[Ending::SlowConsumer.index()].add(1);
    rig.end(3);
    let (_, told) = notes(&inside.join("latency.1.hlog"));
    let second = Account {
        from: NotedMoment(START.wall_ns + SECOND + MS),
        to: NotedMoment(START.wall_ns + 3 * SECOND + MS),
        clients: NotedClients { at_start: 7, new: 0, at_end: 6 },
        slow: NotedClients { at_start: 0, new: 1, at_end: 0 },
        sent: 15,
        dropped: 1_240,
        gaps: BTreeMap::from([("slow_consumer".to_owned(), NotedGaps { told: 3, ticks: 1_240 })]),
        ended: BTreeMap::from([("slow_consumer".to_owned(), 1)]),
        ..Account::default()
    };
    assert_eq!(told, [second], "of the interval that is missing, too");
}

// ---- flights ------------------------------------------------------------------------------------------

#[test]
fn an_interval_over_budget_is_an_incident() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, ring) = tick_ring(4, VENUES.len()).expect("a power of two");
    let flights = flight::FlightOptions {
        dir: folder.path().to_owned(),
        seconds: 1,
        files_max: 9,
        file_bytes_max: 1 << 20,
        quiet_s: 2,
    };
    let budget = parse("write.p50<10us,write/*/trade.max<=1ms,total.max<1ns").expect("a budget");
    let flights = Some(Flights::new(flights, ring, table()));
    let log = folder.path().join("latency.hlog");
    let options = options(SECOND, Some(log_options(&log, 1 << 20)));
    let mut rig = Rig::with(CollectorOptions { flights, budget, ..options });
    let incidents = rig.collector.flights.as_ref().map(Flights::incidents).expect("a recorder");
    // A rule without measurements is not violated.
    for (second, ns, broken) in
        [(1, 5_000, 0), (2, 20_000, 1), (3, 2_000_000, 0), (4, 20_000, 0), (5, 2_000_000, 2)]
    {
        record(&mut rig.shard, Stage::Write, KRAKEN, ns, 3);
        rig.end(second);
        let told: Vec<Incident> = incidents.try_iter().map(|incident| *incident).collect();
        let rules = told.iter().map(|incident| match &incident.cause {
            Cause::Budget(verdicts) => verdicts.len(),
            other => panic!("{other:?}"),
        });
        // A further incident is suppressed for two seconds.
        assert_eq!(
            rules.collect::<Vec<_>>(),
            if broken > 0 { vec![broken] } else { vec![] },
            "second {second}"
        );
        for incident in told {
            assert_eq!(incident.at_ns, START.wall_ns + second * SECOND + MS);
            rig.collector.record(&incident, now(START.mono_ns + second * SECOND + 2 * MS));
        }
    }
    let stats = rig.measured.flights().expect("a recorder");
    assert_eq!((stats.written.get(), stats.dropped.get(), stats.failed.get()), (2, 2, 0));
    let told = rig.told();
    assert!(told.len() == 2 && told[0].ends_with(": over budget: write.p50<10us: 20.0 µs"), "{told:?}");
    let mut files: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|e| e.expect("one").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "ndjson"));
    files.sort();
    // The log names each flight in the interval in which it was written, the last one at its end.
    rig.collector.end();
    let (heads, accounts) = notes(&log);
    assert_eq!(heads[0].flights.as_deref(), folder.path().to_str());
    let named = |account: &Account| account.flights.iter().map(|f| folder.path().join(&f.file)).collect();
    let named: Vec<Vec<PathBuf>> = accounts.iter().map(named).collect();
    assert_eq!(named, [vec![], vec![], vec![files[0].clone()], vec![], vec![], vec![files[1].clone()]]);
    let last = &accounts[5].flights[0];
    assert_eq!(last.at, NotedMoment((START.wall_ns + 5 * SECOND + MS) / 1_000 * 1_000));
    assert!(last.what.starts_with("over budget: write.p50<10us: ") && last.session.is_none(), "{last:?}");
    let flight = Flight::read(fs::read(&files[1]).expect("a file").as_slice()).expect("a flight");
    let stage = &flight.stages[0];
    assert_eq!(
        (&stage["tag"], &stage["count"]),
        (&"write/kraken/trade".into(), &3.into()),
        "the interval itself"
    );
    assert_eq!(flight.header.stages_to_us, flight.header.at_us);
    assert!(stage["max_ns"].as_u64() >= Some(2_000_000), "{stage}");
}

// ---- the thread ---------------------------------------------------------------------------------------

#[test]
fn it_comes_an_eighth_after_the_end_of_each_interval() {
    let rig = Rig::new(None);
    let due = [0, 1, SECOND / 8, SECOND / 8 + 1, SECOND, 9 * SECOND + SECOND / 8 - 1]
        .map(|now_ns| now_ns + rig.collector.left_ns(now_ns));
    let late = SECOND / 8;
    assert_eq!(due, [late, late, late + SECOND, late + SECOND, late + SECOND, late + 9 * SECOND]);
}

#[test]
fn the_thread_ends_with_everything_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latency.hlog");
    let clock = Clock::real();
    // Longer than the test: all measurements arrive at the end.
    let interval_ns = 60_000 * SECOND;
    let log = Some(log_options(&path, 1 << 20));
    let options = options(interval_ns, log);
    let mut collector = Collector::new(options, table(), clock.now(), Box::new(|_| {}));
    let mut meter = collector.meter();
    let measured = collector.measured();
    let collecting = collector.start(clock.clone()).expect("a thread");
    record(&mut meter, Stage::Total, KRAKEN, 1_000, 5);
    meter.end(clock.now().mono_ns);
    collecting.stop();
    let found = intervals(&path);
    assert_eq!((found.len(), found[0].histogram.len()), (1, 5));
    assert_eq!(measured.json("start").expect("known")["stages"][6]["count"], 5);
}
