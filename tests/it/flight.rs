//! The flight recorder of the real binary: what goes wrong leaves one file, which `tickfan report` tells; its bounds are
//! kept, and a disk that fails costs nobody else anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::client::Client;
use crate::support::{Capture, Gateway, RawSocket, TOKEN, connect, eventually, run};

/// A folder for flights.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("flights")
    }

    fn setting(&self) -> String {
        format!("flight.dir={}", self.dir().display())
    }

    /// The files that are there.
    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.dir()) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("one").path()).collect();
        files.sort();
        files
    }
}

/// What `tickfan report` says of a flight: as an object, and in lines.
fn report(file: &Path) -> (Value, Vec<String>) {
    let file = file.to_str().expect("UTF-8");
    let (json, lines) = (run(&["report", "--json", file]), run(&["report", file]));
    assert_eq!((json.code(), lines.code()), (Some(0), Some(0)), "{json:?} {lines:?}");
    (serde_json::from_str(&json.lines.join("\n")).expect("JSON"), lines.lines)
}

fn written(gateway: &Gateway) -> u64 {
    gateway.metric_sum("tickfan_flights_written_total")
}

/// A gateway that takes publishers of `demo`.
fn publishing(settings: &[&str]) -> Gateway {
    Gateway::publishing(r#"["demo"]"#, settings)
}

/// Publishes so many trades of `demo:ABC`, and waits until they are in the ring.
fn publish(gateway: &Gateway, count: u64) {
    let before = gateway.metric_sum("tickfan_published_total");
    let mut publisher = connect(gateway.publish.expect("it listens"));
    writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
    let line = "{\"type\":\"trade\",\"symbol\":\"demo:ABC\",\"price\":\"1.25\",\"size\":\"3\"}\n";
    publisher.write_all(line.repeat(count as usize).as_bytes()).expect("sent");
    eventually("all is published", || gateway.metric_sum("tickfan_published_total") >= before + count);
}

const TRADES: &str = "?symbols=demo:ABC&channel=trade&mode=every";

#[test]
fn a_client_that_is_cut_leaves_one_file() {
    const COUNT: u64 = 5_000;
    let folder = Folder::new();
    let gateway = publishing(&[
        &folder.setting(),
        "flight.seconds=3600",
        "flight.quiet_s=86400",
        "latency.interval_ms=100",
        "session.warn_behind_ms=100",
        "session.shed_behind_ms=200",
        "session.cut_after_ms=1000",
        "session.outbox_bytes_max=65536",
    ]);
    let client = Client::open_small(&gateway, TRADES);
    publish(&gateway, COUNT);
    eventually("it is cut", || gateway.sessions() == 0);
    eventually("that is written", || written(&gateway) == 1);
    // Another one is no other file.
    let other = Client::open_small(&gateway, TRADES);
    publish(&gateway, COUNT);
    eventually("the other is cut", || gateway.metric_sum("tickfan_flights_dropped_total") > 0);
    assert_eq!((written(&gateway), folder.files().len()), (1, 1));

    let (flight, lines) = report(&folder.files()[0]);
    let header = &flight["flight"];
    assert_eq!(
        (&header["cause"], &header["why"], &header["code"]),
        (&"cut".into(), &"slow_consumer".into(), &4_000.into()),
        "{header}"
    );
    assert_eq!(flight["client"]["subscriptions"], 1);
    let states = flight["states"].as_array().expect("states");
    let last = states.last().expect("a state");
    assert_eq!(last["level"], "cut", "{states:?}");
    assert!(
        last["queued_bytes"].as_u64() > Some(30_000) && last["behind_ms"].as_u64() >= Some(900),
        "{last}"
    );
    assert!(
        (2..=65).contains(&states.len()) && states.is_sorted_by_key(|state| state["at_us"].as_u64()),
        "{states:?}"
    );
    let ticks = flight["ticks"].as_array().expect("ticks");
    let seqs: Vec<u64> =
        ticks.iter().filter(|tick| tick["type"] == "trade").filter_map(|tick| tick["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=COUNT).collect::<Vec<_>>(), "all of its past was still in the ring");
    assert_eq!(
        (&header["ticks_bound"], header["ticks"].as_u64()),
        (&"seconds".into(), Some(ticks.len() as u64))
    );
    assert!(lines[0].contains(": a client was cut: slow_consumer (4000), at "), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(" 5,000 demo:ABC trade")), "{lines:?}");

    let name = folder.files()[0].display().to_string();
    let refused = run(&["report", "--tags", &name]);
    assert_eq!((refused.code(), refused.stderr.contains("is a flight: only --json")), (Some(2), true));
    assert_eq!(client.read_to_end().codes(), (Some(4_000), Some(4_000)));
    drop(other);
    let ended = gateway.stop();
    assert_eq!(ended.stderr, format!("tickfan: flight: {name}: a client was cut: slow_consumer (4000)\n"));
}

#[test]
fn a_client_that_is_told_a_gap_leaves_a_file() {
    let folder = Folder::new();
    let gateway = publishing(&[
        &folder.setting(),
        "flight.quiet_s=86400",
        "session.outbox_bytes_max=65536",
        "session.cut_after_ms=500000",
    ]);
    let mut client = RawSocket::open_small(&gateway, TRADES);
    publish(&gateway, 5_000);
    eventually("it sheds", || gateway.metric_sum("tickfan_sessions_shedding") == 1);
    let gap = loop {
        let message = client.word();
        if message["type"] == "gap" {
            break message;
        }
    };
    assert_eq!(gap["why"], "slow_consumer");
    eventually("that is written", || written(&gateway) == 1);
    let (flight, _) = report(&folder.files()[0]);
    let header = &flight["flight"];
    assert_eq!(header["cause"], "gap");
    for name in ["symbol", "channel", "from", "to", "why"] {
        assert_eq!(header[name], gap[name], "{name}: {header} {gap}");
    }
    let states = flight["states"].as_array().expect("states");
    assert!(states.iter().any(|state| state["level"] == "shed"), "{states:?}");
    gateway.stop();
}

#[test]
fn a_client_that_the_gateway_was_too_slow_for_leaves_a_file() {
    let capture = Capture::generate("coinbase", "BTC-USD", 10, 200);
    let folder = Folder::new();
    let setting = folder.setting();
    let settings = Gateway::settings(&[&setting, "flight.quiet_s=86400", "ring.capacity=4"]);
    let replay = ["replay", "--speed", "0", "--wait-subscribers", "1", capture.path()];
    let gateway = Gateway::start(&[&replay[..], &settings].concat());
    let client = RawSocket::open(&gateway, "?symbols=*&channel=trade&mode=every");
    eventually("that is written", || written(&gateway) == 1);
    let (flight, _) = report(&folder.files()[0]);
    let header = &flight["flight"];
    assert_eq!((&header["cause"], &header["why"]), (&"gap".into(), &"overrun".into()), "{header}");
    assert!(flight["client"].is_object() && header["ticks"].as_u64() <= Some(4), "{flight}");
    drop(client);
    gateway.stop();
}

#[test]
fn a_gap_of_the_feed_leaves_a_file() {
    let capture = Capture::generate("coinbase", "BTC-USD", 4, 50);
    let mut removed = 0;
    capture.edit(|lines| {
        let is_match = |line: &String| line.contains(r#""type":"match""#);
        let at = (50..lines.len()).find(|at| is_match(&lines[*at])).expect("a match");
        lines.remove(at);
        removed = lines[..at].iter().filter(|line| is_match(line)).count() as u64 + 1;
    });
    let folder = Folder::new();
    let setting = folder.setting();
    // Nobody has to be there.
    let settings = Gateway::settings(&[&setting, "flight.seconds=3600", "flight.quiet_s=86400"]);
    let gateway = Gateway::start(&[&["replay", "--speed", "10"][..], &settings, &[capture.path()]].concat());
    eventually("that is written", || written(&gateway) == 1);
    let (flight, lines) = report(&folder.files()[0]);
    let header = &flight["flight"];
    assert_eq!((&header["cause"], &header["why"]), (&"gap".into(), &"feed".into()), "{header}");
    assert_eq!((&header["from"], &header["to"]), (&removed.into(), &removed.into()));
    let text = format!(": the feed lost coinbase:BTC-USD trade {removed} to {removed}, at ");
    assert!(lines[0].contains(&text), "{}", lines[0]);
    let last = flight["ticks"].as_array().and_then(|ticks| ticks.last()).expect("a tick");
    assert_eq!(
        (&last["type"], &last["to"], &flight["client"]),
        (&"gap".into(), &removed.into(), &Value::Null)
    );
    gateway.stop();
}

#[test]
fn an_interval_over_budget_leaves_a_file_and_bounds_are_kept() {
    let folder = Folder::new();
    let gateway = publishing(&[
        &folder.setting(),
        "flight.budget=total.p50<1ns, write.max<60s",
        "flight.seconds=3600",
        "flight.quiet_s=1",
        "flight.files_max=2",
        "flight.file_bytes_max=262144",
        "latency.interval_ms=100",
    ]);
    let mut client = RawSocket::open(&gateway, TRADES);
    let mut seq = 0;
    eventually("some are written", || {
        publish(&gateway, 1_000);
        seq += 1_000;
        while client.word()["seq"] != seq {}
        written(&gateway) >= 4
    });
    assert!(gateway.metric_sum("tickfan_flights_dropped_total") > 0, "there are ten intervals a second");
    gateway.stop();
    let files = folder.files();
    assert_eq!(files.len(), 2);
    for file in &files {
        assert!(std::fs::metadata(file).expect("a file").len() <= 262_144);
    }
    let (flight, lines) = report(&files[1]);
    let header = &flight["flight"];
    assert_eq!((&header["cause"], &header["broken"][0]["rule"]), (&"budget".into(), &"total.p50<1ns".into()));
    assert_eq!(header["broken"].as_array().map(Vec::len), Some(1), "{header}");
    assert!(lines[0].contains(": over budget: total.p50<1ns: "), "{}", lines[0]);
    // It has more ticks than a file has room for.
    assert_eq!(header["ticks_bound"], "bytes", "{header}");
    let stages = flight["stages"].as_array().expect("stages");
    let total = stages.iter().find(|stage| stage["tag"] == "total/demo/trade").expect("it was over budget");
    assert_eq!(header["broken"][0]["measured_ns"], total["p50_ns"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_stops_nothing() {
    let folder = Folder::new();
    // Whoever runs this may be allowed to write anywhere, but not below a file.
    std::fs::write(folder.dir(), "").expect("written");
    let gateway = publishing(&[
        &folder.setting(),
        "flight.budget=total.p50<1ns",
        "flight.quiet_s=1",
        "latency.interval_ms=100",
    ]);
    let alarms = || {
        let (_, body) = Gateway::get(gateway.http, "/readyz");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["alarms"].as_array().expect("a list").len()
    };
    let failing = || gateway.metric_sum("tickfan_flights_failing");
    assert_eq!((alarms(), failing(), gateway.metric_sum("tickfan_flights_failed_total")), (1, 1, 1));
    let mut client = RawSocket::open(&gateway, TRADES);
    let mut seq = 0;
    let mut more = || {
        publish(&gateway, 10);
        seq += 10;
        while client.word()["seq"] != seq {}
    };
    eventually("some could not be written", || {
        more();
        gateway.metric_sum("tickfan_flights_failed_total") >= 3
    });
    assert_eq!(written(&gateway), 0);
    std::fs::remove_file(folder.dir()).expect("removed");
    eventually("it can be written again", || {
        more();
        alarms() == 0 && failing() == 0
    });
    assert!(written(&gateway) > 0 && !folder.files().is_empty());
    let ended = gateway.stop();
    let told: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        told[0].starts_with("tickfan: flight.dir: ") && told[0].ends_with("until it can be written"),
        "{told:?}"
    );
    assert!(told[1].starts_with("tickfan: flight: it can be written again: "), "{told:?}");
}

#[test]
fn what_would_record_nothing_is_refused() {
    for (settings, why) in [
        (&["flight.budget=total.p50<1ns"][..], "flight.dir is not"),
        (&["flight.dir=x", "latency.interval_ms=0"], "latency.interval_ms is 0"),
        (&["flight.dir=x", "flight.budget=total.p5o<1ns"], "column 7: `p5o` is no percentile"),
    ] {
        let ended = run(&[&["check", "--config", "config.toml"][..], &Gateway::settings(settings)].concat());
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
}
