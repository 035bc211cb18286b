//! What the real binary measures of itself, as its operator reads it: the log, `/api/latency`, `/metrics`, `/readyz`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tickfan::latency::Stage;

use crate::support::client::Client;
use crate::support::{
    Capture, Gateway, Process, RawSocket, TOKEN, connect, eventually, python, run, tickfan, undisturbed,
};

/// The counts of all tags over an interval.
fn counts(gateway: &Gateway, interval: &str) -> BTreeMap<String, u64> {
    let (status, body) = Gateway::get(gateway.admin, &format!("/api/latency?interval={interval}"));
    assert_eq!(status, 200, "{body}");
    counts_of(serde_json::from_str::<Value>(&body).expect("JSON")["tags"].as_array().expect("rows"))
}

fn counts_of(rows: &[Value]) -> BTreeMap<String, u64> {
    let row = |row: &Value| {
        (row["tag"].as_str().expect("a tag").to_owned(), row["count"].as_u64().expect("a count"))
    };
    rows.iter().map(row).collect()
}

/// Takes publishers of these venues.
fn publishing(settings: &[&str]) -> Gateway {
    Gateway::publishing(r#"["demo", "other", "last"]"#, settings)
}

/// Sends so many trades of two venues, and when a client has them all a last one of a third.
fn trades(gateway: &Gateway, count: u64) {
    let mut publisher = connect(gateway.publish.expect("it listens"));
    let mut client = RawSocket::open(gateway, "?symbols=*");
    let mut lines = format!("{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}\n");
    let trade = |venue, n| {
        format!("{{\"type\":\"trade\",\"symbol\":\"{venue}:A\",\"price\":\"1\",\"size\":\"{n}\"}}\n")
    };
    for n in 0..count {
        lines += &trade(["demo", "other"][n as usize % 2], n + 1);
    }
    for (lines, count) in [(lines, count), (trade("last", 1), 1)] {
        publisher.write_all(lines.as_bytes()).expect("sent");
        let mut heard = 0;
        while heard < count {
            heard += u64::from(client.message()["type"] == "trade");
        }
    }
}

#[test]
fn a_short_replay_leaves_a_whole_log() {
    let capture = Capture::generate("kraken", "XBT/USD,ETH/USD", 3, 60);
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("latency.hlog");
    let log = log.to_str().expect("utf-8");
    let setting = format!("latency.log={log}");
    // Its one interval is longer than the replay: all that was measured comes at the end.
    let settings = Gateway::settings(&[&setting, "latency.interval_ms=60000"]);
    let args = ["replay", "--speed", "10", "--wait-subscribers", "1", "--exit", capture.path()];
    let gateway = Gateway::start(&[&args[..], &settings].concat());
    let watch = run(&["watch", "--url", &gateway.ws, "*"]);
    assert_eq!(watch.code(), Some(0), "{watch:?}");
    let ended = gateway.process.end();
    assert_eq!((ended.code(), ended.complaints().as_str()), (Some(0), ""));

    let theirs = counts_of(&python("hlog.py", &[log]).end().values());
    let report = Process::start(tickfan(&["report", "--json", log]).current_dir(folder.path())).end();
    let report: Value = serde_json::from_str(&report.lines.join("\n")).expect("JSON");
    assert_eq!(counts_of(report["tags"].as_array().expect("rows")), theirs);
    let counts = ["trade", "quote"].map(|channel| {
        let count =
            |stage: Stage| theirs.get(&format!("{}/kraken/{channel}", stage.name())).copied().unwrap_or(0);
        let all = Stage::ALL.map(count);
        // Whether its socket ever refuses anything is the client's affair.
        assert!(all[..7].iter().all(|count| *count > 0), "{channel}: {theirs:?}");
        assert_eq!(all[5] + all[7], all[6], "each delivery is a way's end");
        all
    });
    // Where many records are due at once, one that is measured stands for others, of whatever channel.
    let [recv, normalise, publish] = [0, 1, 2].map(|stage| counts[0][stage] + counts[1][stage]);
    assert!(recv == normalise && normalise == publish, "one thread measures them all: {counts:?}");
}

#[test]
fn the_log_and_the_api_say_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("latency.hlog");
    let log = log.to_str().expect("utf-8");
    let setting = format!("latency.log={log}");
    let gateway = publishing(&[&setting, "latency.interval_ms=100"]);
    trades(&gateway, 500);
    // What threads hand over comes in order: with the last trade all of them are there.
    eventually("all is collected", || {
        let counts = counts(&gateway, "start");
        ["publish", "total"].iter().all(|stage| counts.contains_key(&format!("{stage}/last/trade")))
    });
    let asked = counts(&gateway, "start");
    assert_eq!(counts(&gateway, "1m"), asked, "the minute is not over");

    let scraped = gateway.metric_sum("tickfan_latency_seconds_count");
    assert_eq!(scraped, asked.values().sum::<u64>());
    for stage in Stage::ALL {
        let (status, text) =
            Gateway::get(gateway.admin, &format!("/api/latency.hgrm?stage={}&interval=start", stage.name()));
        assert_eq!(status, 200, "{text}");
        std::fs::write(folder.path().join(stage.name()), text).expect("written");
    }
    let ended = gateway.stop();
    assert_eq!(ended.complaints(), "");
    assert_eq!(counts_of(&python("hlog.py", &[log]).end().values()), asked);
    for stage in Stage::ALL.into_iter().filter(|stage| *stage != Stage::SlowClient) {
        let text = folder.path().join(stage.name());
        let said = python("hgrm.py", &[stage.name(), log, text.to_str().expect("utf-8")]).end().values();
        assert!(said[0]["rows"].as_u64() >= Some(2), "{said:?}");
    }
}

#[test]
fn symbols_and_clients_are_told_apart() {
    let gateway = publishing(&["latency.interval_ms=100", "latency.symbols=2"]);
    let mut staying = RawSocket::open(&gateway, "?symbols=demo:A&channel=trade");
    trades(&gateway, 500);
    while staying.word()["seq"] != 250 {}
    let asked = |path: &str| {
        let (status, body) = Gateway::get(gateway.admin, path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")
    };
    eventually("the one that waited for the trades has left", || asked("/api/clients")["total"] == 1);
    let clients = asked("/api/clients?sort=latency");
    let staying = &clients["clients"][0];
    // What it was told of before its symbol was listed is not measured.
    let count = staying["total"]["count"].as_u64().expect("a count");
    assert!(clients["total"] == 1 && (1..=250).contains(&count), "{clients}");
    let times = ["p50_ns", "p90_ns", "p99_ns", "max_ns"].map(|name| staying["total"][name].as_u64());
    assert!(times[0] > Some(0) && times.is_sorted(), "{staying}");

    eventually("the symbols and the rest are all there is", || {
        let (symbols, all) = (asked("/api/latency/symbols?interval=start"), counts(&gateway, "start"));
        let rows = symbols["symbols"].as_array().expect("rows");
        // Three symbols, two of which are told apart.
        let names: Vec<_> = rows.iter().filter_map(|row| row["symbol"].as_str()).collect();
        let sum: u64 = rows.iter().chain([&symbols["rest"]]).filter_map(|row| row["count"].as_u64()).sum();
        let totals = all.iter().filter(|(tag, _)| tag.starts_with("total/"));
        sum == totals.map(|(_, count)| count).sum::<u64>()
            && all.contains_key("total/last/trade")
            && names.len() == 2
            && names.iter().all(|name| ["demo:A", "other:A"].contains(name))
    });
    assert_eq!(gateway.stop().complaints(), "");
}

#[test]
fn a_log_that_cannot_be_written_is_an_alarm_and_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("logs");
    let setting = format!("latency.log={}", inside.join("latency.hlog").display());
    let gateway = publishing(&[&setting, "latency.interval_ms=100"]);
    trades(&gateway, 10);
    let alarms = || {
        let (_, body) = Gateway::get(gateway.http, "/readyz");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["alarms"].as_array().expect("a list").len()
    };
    let failing = || gateway.metric_sum("tickfan_latency_log_failing");
    assert_eq!((alarms(), failing()), (1, 1));
    eventually("intervals are missing", || gateway.metric_sum("tickfan_latency_log_missing_total") > 3);
    std::fs::create_dir(&inside).expect("created");
    eventually("it is written again", || alarms() == 0 && failing() == 0);
    let ended = gateway.stop();
    let told: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(told.len(), 2, "once when it fails, once when it does no more: {told:?}");
    assert!(told.iter().all(|line| line.starts_with("tickfan: latency.log: ")), "{told:?}");
    assert_eq!(
        run(&["report", inside.join("latency.hlog").to_str().expect("utf-8")]).code(),
        Some(2),
        "nothing in it"
    );
}

#[test]
fn measuring_can_be_off() {
    let gateway = publishing(&["latency.interval_ms=0"]);
    trades(&gateway, 10);
    assert_eq!(Gateway::get(gateway.admin, "/api/latency").0, 404);
    assert_eq!(gateway.metric("tickfan_latency_seconds_count"), []);
    assert_eq!(gateway.stop().complaints(), "");
}

#[test]
fn the_runtimes_show_that_they_work() {
    let gateway = publishing(&["shard.threads=2"]);
    trades(&gateway, 10);
    let names =
        |metric: &str| gateway.metric(metric).into_iter().map(|(labels, _)| labels).collect::<Vec<_>>();
    let runtimes = ["control", "ingest", "shard-0", "shard-1"].map(|name| format!("{{runtime=\"{name}\"}}"));
    for metric in ["tickfan_runtime_parks_total", "tickfan_runtime_tasks", "tickfan_runtime_queued"] {
        assert_eq!(names(metric), runtimes, "{metric}");
    }
    let busy = |name: &str| {
        let (_, text) = Gateway::get(gateway.admin, "/metrics");
        let row = format!("tickfan_runtime_busy_seconds_total{{runtime=\"{name}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&row)).expect("a row").parse::<f64>();
        value.expect("a number")
    };
    // Each request that is answered is work of the first; the others wake at the end of each interval.
    for name in ["control", "ingest", "shard-0", "shard-1"] {
        let before = busy(name);
        eventually(name, || busy(name) > before);
    }
    let turns = gateway.metric_sum("tickfan_shard_turns_total");
    eventually("turns", || gateway.metric_sum("tickfan_shard_turns_total") > turns);
    assert!(gateway.metric_sum("tickfan_ingest_turns_total") > 0);
    assert_eq!(gateway.stop().complaints(), "");
}

#[test]
fn clients_feel_what_is_reported_and_their_own_way_besides() {
    let _undisturbed = undisturbed();
    let gateway = Gateway::start(&["serve"]);
    let felt = &python("arrivals.py", &[&gateway.ws, "2", "5"]).end().values()[0];
    let (_, body) = Gateway::get(gateway.admin, "/api/latency?interval=start");
    let report: Value = serde_json::from_str(&body).expect("JSON");
    let total = report["stages"].as_array().expect("rows").iter().find(|row| row["stage"] == "total");
    let number = |row: &Value, field: &str| row[field].as_u64().unwrap_or_else(|| panic!("{field} of {row}"));
    let total = total.unwrap_or_else(|| panic!("no total: {body}"));
    assert!(number(felt, "count") > 100, "{felt}");
    for field in ["p50_ns", "p90_ns"] {
        // Both saw not quite the same ticks: what is felt takes in the way to the client, and no less than that is missing.
        assert!(number(total, field) <= 2 * number(felt, field), "{field}: {total} and {felt}");
    }
    gateway.stop();
}

// ---- slow clients beside fast ones ----------------------------------------------------------------------

/// Everything of a capture that goes round and round, 30 kB a second times four.
const FEED: &[&str] = &["replay", "--loop", "--speed", "4"];
const EVERYTHING: &str = "?symbols=*&channel=trade,quote&mode=every";
const FAST: usize = 6;

/// A client that reads at most so many bytes a second until it is told that the end is near.
/// Its session, and its thread.
fn reader(gateway: &Gateway, rate: Option<u64>, near: &Arc<AtomicBool>) -> (String, JoinHandle<Client>) {
    let mut client = match rate {
        Some(_) => Client::open_small(gateway, EVERYTHING),
        None => Client::open(gateway, EVERYTHING),
    };
    client.socket.read_at_most(rate);
    let near = Arc::clone(near);
    let name = client.socket.hello["session"].as_str().expect("a name").to_owned();
    let reads = move || {
        while client.step() {
            if near.load(Ordering::Relaxed) {
                client.socket.read_at_most(None);
            }
        }
        client
    };
    (name, std::thread::spawn(reads))
}

/// Lets so many slow clients read beside six fast ones for a while. What the report says in lines, and as JSON; who was slow.
fn beside_slow_clients(slow: usize, folder: &Path) -> (Vec<String>, Value, BTreeSet<String>) {
    let (log, flights) = (folder.join("latency.hlog"), folder.join("flights"));
    let log = log.to_str().expect("UTF-8");
    let settings = [
        format!("latency.log={log}"),
        format!("flight.dir={}", flights.display()),
        "latency.interval_ms=500".to_owned(),
        // What waits is read in seconds, and then the slow ones are told what they did not get.
        "session.outbox_bytes_max=32768".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let args = [FEED, &Gateway::settings(&settings), &["feeds/coinbase.zst"]].concat();
    let gateway = Gateway::start(&args);
    let near = Arc::<AtomicBool>::default();
    let fast: Vec<_> = (0..FAST).map(|_| reader(&gateway, None, &near)).collect();
    let slow: Vec<_> = (0..slow).map(|_| reader(&gateway, Some(3_000), &near)).collect();
    let start = Instant::now();
    let count = slow.len() as u64;
    while gateway.metric_sum("tickfan_sheds_total") < count
        || start.elapsed() < Duration::from_secs(14)
        || gateway.metric_sum("tickfan_flights_written_total") == 0
    {
        let told = || {
            ["tickfan_sheds_total", "tickfan_gaps_total", "tickfan_flights_written_total"]
                .map(|m| gateway.metric_sum(m))
        };
        assert!(start.elapsed() < Duration::from_secs(90), "they do not become slow: {:?}", told());
        std::thread::sleep(Duration::from_millis(200));
    }
    let (_, clients) = Gateway::get(gateway.admin, "/api/clients?sort=latency");
    let clients: Value = serde_json::from_str(&clients).expect("JSON");
    let rows = clients["clients"].as_array().expect("rows");
    let felt = rows[..slow.len()].iter().filter_map(|row| row["session"].as_str().map(str::to_owned));
    let (names, slow): (BTreeSet<String>, Vec<_>) = slow.into_iter().unzip();
    assert_eq!(felt.collect::<BTreeSet<_>>(), names, "what a client felt says who it was: {clients}");
    near.store(true, Ordering::Relaxed);
    gateway.process.signal("TERM");
    for (_, client) in fast {
        let client = client.join().expect("it reads");
        assert_eq!((client.missing("slow_consumer"), client.steps.len()), (0, 0), "it was never slow");
    }
    slow.into_iter().for_each(|client| drop(client.join().expect("it reads")));
    assert_eq!(gateway.process.end().code(), Some(0));
    let json = run(&["report", "--json", log]);
    let json = serde_json::from_str(&json.lines.join("\n")).expect("JSON");
    (run(&["report", log]).lines, json, names)
}

#[test]
fn slow_clients_are_named_and_change_nothing_of_what_the_gateway_took() {
    let _undisturbed = undisturbed();
    let cases = [1, 5].map(|slow| {
        std::thread::spawn(move || {
            let folder = tempfile::tempdir().expect("a folder");
            let (lines, json, names) = beside_slow_clients(slow, folder.path());
            let number = |stage: &str, field: &str| {
                let stages = json["stages"].as_array().expect("stages");
                let row = stages.iter().find(|row| row["stage"] == stage);
                row.and_then(|row| row[field].as_u64()).unwrap_or_else(|| panic!("{stage} {field}: {json}"))
            };
            let waited = number("slow_client", "max_ns");
            assert!(waited > 3_000_000_000, "a slow one lets its ticks wait for seconds: {waited}");
            for stage in ["write", "total"] {
                // However slow the machine is: of what clients kept waiting, nothing is in it.
                let (p99, max) = (number(stage, "p99_ns"), number(stage, "max_ns"));
                assert!(10 * p99 < waited && 3 * max < waited, "{stage}: {p99}, {max}; clients: {waited}");
            }
            let [write, total, slow_client] =
                ["write", "total", "slow_client"].map(|stage| number(stage, "count"));
            assert_eq!(write + slow_client, total, "each delivery is in one of them");
            assert!(write > 5 * slow_client, "{write} and {slow_client}");

            // A budget on the gateway's part is kept, and one on the clients' names them.
            let limit = waited / 10_000_000;
            let log = folder.path().join("latency.hlog");
            let budget = |rule: String| run(&["report", "--budget", &rule, log.to_str().expect("UTF-8")]);
            let kept = budget(format!("total.p99<{limit}ms,write.p99<{limit}ms"));
            assert_eq!(kept.code(), Some(0), "{kept:?}");
            let broken = budget(format!("slow_client.max<{limit}ms"));
            assert_eq!(broken.code(), Some(1), "{broken:?}");
            let told =
                lines.iter().take_while(|line| !line.is_empty()).cloned().collect::<Vec<_>>().join(" ");
            let were = if slow == 1 { "was" } else { "were" };
            let clients = format!("; {slow} of {} clients {were} slow, ", FAST + slow);
            assert!(told.contains(&clients) && told.contains("(all told by gaps), none was cut."), "{told}");

            // The account adds up, and the incident has its file.
            let account = &json["run"]["account"];
            assert_eq!(account["gaps"]["slow_consumer"]["ticks"], account["dropped"], "{account}");
            assert_eq!(account["ended"], serde_json::json!({ "shutdown": FAST + slow }));
            assert_eq!(
                account["clients"],
                serde_json::json!({ "at_start": 0, "new": FAST + slow, "at_end": 0 })
            );
            let flight = &json["run"]["flights"][0];
            let session = flight["flight"]["session"].as_str().expect("a client");
            assert!(names.contains(session), "{session} of {names:?}");
            let path = flight["path"].as_str().expect("a path");
            assert!(Path::new(path).is_file() && lines.iter().any(|line| line.ends_with(path)), "{lines:?}");
            let head = &json["run"]["logs"][0];
            assert_eq!(head["build"]["version"], env!("CARGO_PKG_VERSION"));
            assert!(head["machine"]["cores"].as_u64() > Some(0), "{head}");
        })
    });
    cases.into_iter().for_each(|case| case.join().expect("see above"));
}
