use super::*;
use crate::latency::{self, Figures};
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Body, GapCause, Key, Quote, Stream, Tick};
use crate::ops::flight::{Cause, Client, ClientSnapshot, Flight};
use crate::ring::{Seen, TickWriter, tick_ring};
use crate::session::Level;
use crate::system::counters::Ending;

const SECOND: u64 = 1_000_000_000;
const START_NS: u64 = 1_714_564_800 * SECOND;

/// A ring with ticks, and a recorder with a folder.
struct Rig {
    folder: tempfile::TempDir,
    writer: TickWriter,
    flights: Flights,
}

impl Rig {
    fn new(capacity: usize, options: impl FnOnce(FlightOptions) -> FlightOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let table = Arc::new(InstrumentTable::new(1));
        table.intern(&Symbol::parse("demo:A").expect("a symbol")).expect("room");
        let (writer, ring) = tick_ring(capacity, 1).expect("a power of two");
        let dir = folder.path().join("flights");
        let options =
            options(FlightOptions { dir, seconds: 10, files_max: 3, file_bytes_max: 1 << 20, quiet_s: 30 });
        Self { folder, writer, flights: Flights::new(options, ring, table) }
    }

    /// Publishes a quote that was received `second` seconds after the start.
    fn publish(&mut self, second: u64) {
        let body = Body::Quote(Quote::default());
        let rx_ns = START_NS + second * SECOND;
        let tick =
            Tick { instrument: InstrumentId(0), seq: second + 1, rx_ns, ts_us: None, snap: false, body };
        self.writer.publish(&tick, Seen::UNMEASURED).expect("a place");
    }

    fn cut(&self, second: u64) -> Incident {
        Incident {
            at_ns: START_NS + second * SECOND,
            position: self.writer.published(),
            cause: Cause::Cut { why: Ending::SlowConsumer, code: 4_000 },
            client: None,
        }
    }

    fn write(&mut self, incident: &Incident) -> Option<String> {
        self.flights.write(incident, &Stages::default(), 0).told
    }

    /// The names of the files.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.flights.options.dir).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("one").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// The newest flight.
    fn read(&self) -> Flight {
        let path = self.flights.options.dir.join(self.names().last().expect("a file"));
        Flight::read(fs::read(path).expect("a file").as_slice()).expect("a flight")
    }
}

/// The sequence numbers of its ticks.
fn seqs(flight: &Flight) -> Vec<u64> {
    flight.ticks.iter().map(|tick| tick["seq"].as_u64().expect("a number")).collect()
}

#[test]
fn a_flight_goes_back_its_seconds() {
    let mut rig = Rig::new(64, |options| options);
    (0..20).for_each(|second| rig.publish(second));
    let incident = rig.cut(20);
    // Later ticks are not part of the flight.
    rig.publish(21);
    rig.write(&incident);
    let flight = rig.read();
    assert_eq!((seqs(&flight), flight.header.ticks), ((11..=20).collect(), 10));
    assert_eq!(flight.header.ticks_bound, FlightBound::Seconds);
    assert_eq!((flight.header.at_us, flight.header.seconds), ((START_NS + 20 * SECOND) / 1_000, 10));
}

#[test]
fn a_ring_that_holds_less_says_so() {
    let mut rig = Rig::new(4, |options| options);
    (0..20).for_each(|second| rig.publish(second));
    rig.write(&rig.cut(20));
    let flight = rig.read();
    assert_eq!((seqs(&flight), flight.header.ticks_bound), (vec![17, 18, 19, 20], FlightBound::Ring));
    // There was no tick before the first one.
    let mut rig = Rig::new(4, |options| options);
    (0..2).for_each(|second| rig.publish(second));
    rig.write(&rig.cut(2));
    assert_eq!((seqs(&rig.read()), rig.read().header.ticks_bound), (vec![1, 2], FlightBound::Seconds));
}

#[test]
fn a_file_is_bounded_in_bytes_and_has_all_but_old_ticks() {
    let (mut whole, mut first) = (None, None);
    for file_bytes_max in [1 << 20, 2_000, 1_000, 10] {
        let mut rig = Rig::new(64, |options| FlightOptions { file_bytes_max, ..options });
        (0..20).for_each(|second| rig.publish(second));
        let state = ClientSnapshot {
            at_us: 1,
            level: Level::Shed,
            behind_ms: 2,
            queued_bytes: 3,
            kernel_unsent_bytes: 4,
            waiting: 5,
            sent: 6,
            merged: 7,
            dropped: 8,
        };
        let client =
            Client { session: "a".into(), peer: None, since_us: 1, subscriptions: 2, states: vec![state; 2] };
        let incident = Incident { client: Some(client.clone()), ..rig.cut(20) };
        let mut histogram = latency::histogram();
        histogram.record(5).expect("in its bounds");
        let rows = vec![("write/demo/quote".to_owned(), Figures::of(&histogram))];
        rig.flights.write(&incident, &Stages { from_us: 1, to_us: 2, rows, longest_turns_us: vec![7, 9] }, 0);
        let bytes = fs::metadata(rig.flights.options.dir.join(&rig.names()[0])).expect("a file").len();
        let flight = rig.read();
        assert_eq!((flight.client.as_ref(), flight.stages[0]["max_ns"].as_u64()), (Some(&client), Some(5)));
        let seqs = seqs(&flight);
        whole.get_or_insert_with(|| seqs.clone());
        assert!(whole.as_ref().expect("the first").ends_with(&seqs), "the newest: {seqs:?}");
        let bound = if seqs.len() == 10 { FlightBound::Seconds } else { FlightBound::Bytes };
        assert_eq!((flight.header.ticks, flight.header.ticks_bound), (seqs.len() as u64, bound));
        // What precedes the ticks is written in any case.
        let least = *first.get_or_insert(bytes - 10 * 60);
        assert!(bytes <= (file_bytes_max as u64).max(least), "{bytes} bytes of {file_bytes_max}");
    }
    assert_eq!(whole.map(|seqs| seqs.len()), Some(10));
}

#[test]
fn the_newest_files_are_kept_and_nothing_else_is_touched() {
    let mut rig = Rig::new(4, |options| options);
    fs::create_dir_all(&rig.flights.options.dir).expect("a folder");
    let others = ["flight-plan.ndjson", "flight-2024.txt", "notes"];
    others.iter().for_each(|name| fs::write(rig.flights.options.dir.join(name), name).expect("written"));
    for second in 0..6 {
        let told = rig.write(&rig.cut(second)).expect("the operator hears of each");
        assert!(told.ends_with("Z.ndjson: a client was cut: slow_consumer (4000)"), "{told}");
    }
    let expected: Vec<String> =
        (3..6).map(|n| format!("flight-2024-05-01T12-00-0{n}.000000Z.ndjson")).collect();
    let mut expected = [expected, others.map(str::to_owned).to_vec()].concat();
    expected.sort();
    assert_eq!(rig.names(), expected);
    assert_eq!(rig.flights.stats().written.get(), 6);
}

#[test]
fn one_incident_is_on_its_way_and_then_it_is_quiet() {
    let mut rig = Rig::new(4, |options| options);
    let (reporter, incidents) = (rig.flights.reporter(), rig.flights.incidents());
    let key = Key::new(InstrumentId(0), Stream::Quote);
    let tell = |now_ns| {
        reporter.tell(now_ns, || Incident {
            at_ns: START_NS + now_ns,
            position: 0,
            cause: Cause::Gap { key, from: now_ns, to: now_ns, why: GapCause::Feed },
            client: None,
        });
    };
    (0..5).for_each(|_| tell(SECOND));
    let taken: Vec<_> = incidents.try_iter().collect();
    assert_eq!((taken.len(), rig.flights.stats().dropped.get()), (1, 4));
    tell(100 * SECOND);
    assert_eq!(incidents.try_iter().count(), 0, "it is not written yet");
    rig.flights.write(&taken[0], &Stages::default(), 2 * SECOND);
    for (second, expected) in [(2, 0), (31, 0), (32, 1), (33, 0)] {
        tell(second * SECOND);
        assert_eq!(incidents.try_iter().count(), expected, "after {second} s");
    }
    assert_eq!(rig.flights.stats().dropped.get(), 8);
    IncidentReporter::off().tell(0, || panic!("nobody listens"));
}

#[test]
fn a_folder_that_cannot_be_is_told_once_and_counted() {
    let mut rig = Rig::new(4, |options| options);
    let in_the_way = rig.folder.path().join("flights");
    fs::write(&in_the_way, "").expect("written");
    let told = rig.flights.probe().expect("it is told");
    assert!(told.starts_with("flight.dir: ") && told.contains("missing until it can be written"), "{told}");
    for second in 0..3 {
        assert_eq!(rig.write(&rig.cut(second)), None, "once is enough");
    }
    let stats = rig.flights.stats();
    assert_eq!((stats.failed.get(), stats.written.get(), stats.is_failing()), (4, 0, true));
    fs::remove_file(&in_the_way).expect("removed");
    let told = rig.write(&rig.cut(3)).expect("it is told");
    assert!(told.starts_with("flight: it can be written again: "), "{told}");
    assert_eq!((stats.failed.get(), stats.written.get(), stats.is_failing()), (4, 1, false));
    assert_eq!(rig.flights.probe(), None);
    assert_eq!(rig.names().len(), 1, "nothing is left of the others or the probe");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_half_a_file() {
    let mut rig = Rig::new(4, |options| options);
    fs::create_dir_all(&rig.flights.options.dir).expect("a folder");
    // Every write fails with "no space left on device".
    std::os::unix::fs::symlink("/dev/full", rig.flights.options.dir.join(PART)).expect("a link");
    let told = rig.write(&rig.cut(0)).expect("it is told");
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(rig.names(), Vec::<String>::new());
    rig.write(&rig.cut(1));
    assert_eq!(rig.names().len(), 1);
}
