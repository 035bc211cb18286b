//! `tickfan report` as its users run it: on logs that the gateway's own writer wrote, which HdrHistogram's Python
//! library reads too.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tickfan::latency::hlog::HlogWriter;
use tickfan::latency::hlog::note::{
    Account, Build, FlightNote, Head, Machine, Note, NotedClients, NotedGaps, NotedMoment,
};
use tickfan::latency::{self, Stage, Tag};
use tickfan::model::tick::Channel;

use crate::support::{Process, python, tickfan};

const START_NS: u64 = 1_790_000_000_123_000_000;
const SECONDS: u64 = 12;
const CHANNELS: [(&str, Channel); 3] =
    [("kraken", Channel::Trade), ("kraken", Channel::Quote), ("binance-futures", Channel::Quote)];

fn head() -> Note {
    Note::Log(Head {
        version: 1,
        at: NotedMoment(START_NS),
        interval_ms: 1_000,
        build: Build { version: "0.1.0".to_owned(), profile: "release".to_owned() },
        machine: Machine {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            kernel: Some("6.1.0".to_owned()),
            cpu: Some("A <CPU>".to_owned()),
            cores: 2,
        },
        flights: Some("run/flights".to_owned()),
    })
}

/// Of seven clients one is slow from the third second on; its ticks are dropped in the fourth and fifth, and it is cut in the
/// last but one.
fn account(second: u64) -> Note {
    let (slow, end) = ((3..10).contains(&second), START_NS + (second + 1) * 1_000_000_000);
    let dropped = if (4..6).contains(&second) { 620 } else { 0 };
    let flight = FlightNote {
        file: "flight-a.ndjson".to_owned(),
        at: NotedMoment(end - 500_000_000),
        what: "a client was cut: slow_consumer (4000)".to_owned(),
        session: Some("c0ffee".to_owned()),
        peer: Some("127.0.0.1:5000".to_owned()),
    };
    Note::Interval(Account {
        from: NotedMoment(START_NS + second * 1_000_000_000),
        to: NotedMoment(end),
        clients: NotedClients {
            at_start: [7, 0, 6][usize::from(second == 0) + 2 * usize::from(second > 10)],
            new: if second == 0 { 7 } else { 0 },
            at_end: if second >= 10 { 6 } else { 7 },
        },
        slow: NotedClients {
            at_start: (second > 3 && second < 11).into(),
            new: (second == 3).into(),
            at_end: slow.into(),
        },
        sent: 1_000,
        merged: 1,
        dropped,
        lost: 2,
        gaps: (dropped > 0)
            .then(|| ("slow_consumer".to_owned(), NotedGaps { told: 1, ticks: dropped }))
            .into_iter()
            .collect(),
        ended: (second == 10).then(|| ("slow_consumer".to_owned(), 1)).into_iter().collect(),
        flights: if second == 10 { vec![flight] } else { Vec::new() },
        flights_left_out: 0,
    })
}

/// A log of all stages from one second to another; each value ten times, so that no rank is at an edge, and `percent` of
/// what it would be.
fn log(from: u64, to: u64, percent: u64) -> Vec<u8> {
    let mut writer = HlogWriter::new(Vec::new(), START_NS).expect("written");
    writer.note(&head()).expect("written");
    for second in from..to {
        for (stage, (venue, channel)) in Stage::ALL.iter().flat_map(|stage| CHANNELS.map(|of| (*stage, of))) {
            let mut values = latency::histogram();
            for step in 1..=300_u64 {
                // Spread over some decades, another way each second.
                let ns =
                    (step * step * (stage as u64 + 1) * 37 + second * 911 + step % 7 * 100) * percent / 100;
                values.record_n(ns, 10).expect("in its bounds");
            }
            let tag = Tag { stage, venue: Some(venue), channel: Some(channel) }.to_string();
            let (start, second) = (Duration::from_secs(second), Duration::from_secs(1));
            writer.write(&tag, start, second, &values).expect("written");
        }
        writer.note(&account(second)).expect("written");
    }
    writer.into_inner()
}

/// The same without what only `tickfan` reads in it.
fn without_notes(log: &[u8]) -> Vec<u8> {
    let lines = log.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"#tickfan ")).collect::<Vec<_>>().concat()
}

/// A folder with files of these names and contents.
struct Files(tempfile::TempDir);

impl Files {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("written");
        }
        Self(folder)
    }

    /// Runs `tickfan report` among them.
    fn report(&self, args: &[&str]) -> crate::support::Ended {
        let mut command = tickfan(&["report"]);
        Process::start(command.args(args).current_dir(self.path())).end()
    }

    fn json(&self, args: &[&str]) -> Value {
        let ended = self.report(&[args, &["--json"]].concat());
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        serde_json::from_str(&ended.lines.join("\n")).expect("JSON")
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn name(&self, file: &str) -> String {
        self.path().join(file).to_str().expect("UTF-8").to_owned()
    }
}

#[test]
fn hdrhistogram_in_python_reads_the_same_from_the_same_logs() {
    let files = Files::with(&[("1.hlog", &log(0, 7, 100)), ("2.hlog", &log(7, SECONDS, 100))]);
    let ours = files.json(&["2.hlog", "1.hlog"]);
    let ours: BTreeMap<&str, &Value> = ours["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .map(|tag| (tag["tag"].as_str().expect("text"), tag))
        .collect();
    let theirs = python("hlog.py", &[&files.name("1.hlog"), &files.name("2.hlog")]).end().values();
    assert_eq!(theirs.len(), Stage::ALL.len() * CHANNELS.len());
    assert_eq!(ours.len(), theirs.len());
    for their in &theirs {
        let our = ours[their["tag"].as_str().expect("a tag")];
        for number in ["count", "max_ns", "p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "p99.99_ns"] {
            assert!(our[number].is_u64() && our[number] == their[number], "{number}: {our} and {their}");
        }
        let means = [our, their].map(|side| side["mean_ns"].as_f64().expect("a mean"));
        assert!((means[0] - means[1]).abs() <= means[1] / 1_000.0 + 1.0, "{means:?}");
        assert_eq!(their["first_ms"].as_f64(), Some(START_NS as f64 / 1e6), "when its first interval began");
        assert_eq!(our["over_time"][0]["at_ns"].as_u64(), Some(START_NS));
    }
}

#[test]
fn stages_are_the_sum_of_their_tags_and_stand_in_their_order() {
    let files = Files::with(&[("a.hlog", &log(0, SECONDS, 100))]);
    let report = files.json(&["a.hlog"]);
    let stages = report["stages"].as_array().expect("stages");
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage["stage"].as_str()).collect();
    assert_eq!(names, Stage::ALL.map(Stage::name));
    for stage in stages {
        assert_eq!(stage["count"].as_u64(), Some(SECONDS * 3 * 3_000));
        assert_eq!(stage["over_time"].as_array().map(Vec::len), Some(SECONDS as usize));
        assert!(stage["over_time"].as_array().into_iter().flatten().all(|point| point["count"] == 9_000));
    }
    assert_eq!(report["run"]["start"], "2026-09-21T14:13:20.123000Z");
    let middle = files.json(&["a.hlog", "--from", "2s", "--to", "5s"]);
    assert_eq!(middle["stages"][0]["count"].as_u64(), Some(3 * 3 * 3_000));
}

#[test]
fn the_table_shows_every_stage_and_its_p99_over_time() {
    let files = Files::with(&[("a.hlog", &log(0, SECONDS, 100))]);
    let ended = files.report(&["a.hlog"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(
        ended.lines[0].starts_with("The gateway was prompt: total p99 22.9 ms over 12.0 s; "),
        "{ended:?}"
    );
    let heading = "a.hlog: 12.0 s from 2026-09-21T14:13:20.123000Z".to_owned();
    assert!(ended.lines.contains(&heading), "{ended:?}");
    let top = ended.lines.iter().position(|line| line.starts_with("stage")).expect("a table");
    assert_eq!(
        ended.lines[top].split_whitespace().collect::<Vec<_>>().join(" "),
        "stage p50 p90 p99 p99.9 p99.99 max count"
    );
    for (at, stage) in Stage::ALL.iter().enumerate() {
        let row: Vec<&str> = ended.lines[top + 1 + at].split_whitespace().collect();
        assert_eq!((row[0], row[row.len() - 1], row.len()), (stage.name(), "108,000", 14), "{row:?}");
        let line = &ended.lines[top + 3 + Stage::ALL.len() + at];
        let bars = line.chars().filter(|c| ('▁'..='█').contains(c)).count();
        assert!(line.starts_with(stage.name()) && bars == SECONDS as usize, "{line}");
    }
    assert!(ended.lines.iter().all(|line| line.chars().count() <= 100), "{:?}", ended.lines);
    let tags = files.report(&["a.hlog", "--tags"]);
    assert!(
        tags.lines.iter().any(|line| line.starts_with("write/binance-futures/quote ")),
        "{:?}",
        tags.lines
    );
}

#[test]
fn a_budget_is_kept_or_broken_or_no_budget() {
    let files = Files::with(&[("a.hlog", &log(0, SECONDS, 100))]);
    let budget = "write.p99<1s, total/*/trade.max <= 1s";
    let kept = files.report(&["a.hlog", "--budget", budget, "--budget", "recv.mean<1s"]);
    assert_eq!((kept.code(), kept.stderr.as_str()), (Some(0), ""), "{kept:?}");
    assert_eq!(kept.lines.iter().filter(|line| line.starts_with("kept ")).count(), 3);

    let broken =
        files.report(&["a.hlog", "--budget", "recv.p50<1us,write.p99<1s,total.p99.9<2us,nowhere.max<1s"]);
    assert_eq!(broken.code(), Some(1), "{broken:?}");
    let told: Vec<&str> = broken.stderr.lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("over budget: recv.p50<1us: 8") && told[0].ends_with(" µs"), "{told:?}");
    assert!(told[1].starts_with("over budget: total.p99.9<2us: 2") && told[1].ends_with(" ms"), "{told:?}");
    assert_eq!(told[2], "over budget: nowhere.max<1s: nothing was measured");

    let wrong = files.report(&["a.hlog", "--budget", "recv.p50<1us,write.p9o<1s"]);
    assert_eq!((wrong.code(), wrong.lines.len()), (Some(2), 0), "{wrong:?}");
    assert!(wrong.stderr.contains("column 20: `p9o` is no percentile"), "{}", wrong.stderr);
}

#[test]
fn two_runs_stand_side_by_side() {
    let files = Files::with(&[("new.hlog", &log(0, SECONDS, 200)), ("old.hlog", &log(0, SECONDS, 100))]);
    let report = files.json(&["new.hlog", "--compare", "old.hlog"]);
    for row in report["stages"].as_array().into_iter().chain(report["tags"].as_array()).flatten() {
        for name in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
            let ratio = row["ratio"][name].as_f64().expect("a ratio");
            assert!((1.99..2.01).contains(&ratio), "{name}: {row}");
        }
        assert_eq!(row["count"], row["compared"]["count"]);
    }
    let table = files.report(&["new.hlog", "--compare", "old.hlog"]);
    let heading = "compared with old.hlog: 12.0 s from 2026-09-21T14:13:20.123000Z".to_owned();
    assert!(table.lines.contains(&heading), "{table:?}");
    assert_eq!(
        table.lines.iter().filter(|line| line.starts_with("  ratio") && line.contains("2.00×")).count(),
        8
    );
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let hostile = b"<script>alert(1)</script>&'\"";
    let mut log = log(0, SECONDS, 100);
    let line = log.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"Tag=total")).expect("a line");
    let rest = line.iter().position(|byte| *byte == b',').expect("a tag");
    let line = [b"Tag=", &hostile[..], &line[rest..], b"\n"].concat();
    log.extend_from_slice(&line);
    let files = Files::with(&[("a&b.hlog", &log), ("old.hlog", &log)]);
    for (compare, rows) in [(&[][..], 9 + 8 * 3), (&["--compare", "old.hlog"][..], 3 * (9 + 8 * 3))] {
        let args = [&["a&b.hlog", "--html", "page.html", "--budget", "recv.max<1s"], compare].concat();
        let ended = files.report(&args);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let found = &python("page.py", &[&files.name("page.html")]).end().values()[0];
        assert_eq!(found["problems"], Value::Array(vec![]));
        assert_eq!(
            (&found["charts"], &found["named"], &found["dark"]),
            (&19.into(), &true.into(), &true.into())
        );
        let page = std::fs::read_to_string(files.path().join("page.html")).expect("a page");
        for told in [
            "<p class=\"verdict kept\">The gateway was prompt: total p99 22.9 ms over 12.0 s; 1 of 7 clients was slow, ",
            "A &lt;CPU&gt;, 2 cores, linux 6.1.0, x86_64",
            "client c0ffee from 127.0.0.1:5000</span> <code>run/flights/flight-a.ndjson</code>",
        ] {
            assert!(page.contains(told), "{told}");
        }
        assert_eq!(found["rows"].as_array().map(Vec::len), Some(rows));
        assert!(
            found["titles"]
                .as_array()
                .expect("titles")
                .iter()
                .any(|title| { title.as_str().is_some_and(|title| title.as_bytes().starts_with(hostile)) })
        );
    }
}

/// The verdict of a table: its lines up to the first empty one.
fn verdict(ended: &crate::support::Ended) -> String {
    ended.lines.iter().take_while(|line| !line.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_verdict_says_who_was_slow_the_gateway_or_a_client() {
    let (good, slow) = (log(0, SECONDS, 100), log(0, SECONDS, 1_000));
    let files =
        Files::with(&[("good.hlog", &good), ("slow.hlog", &slow), ("old.hlog", &without_notes(&good))]);
    let client = "1 of 7 clients was slow, 1,240 ticks were dropped for it (all told by gaps), 1 was cut.";
    let prompt = "The gateway was prompt: total p99 22.9 ms over 12.0 s";
    let late = "The gateway was slow: total p99 229 ms over 12.0 s, write took the most (p99 196 ms)";
    for (file, budget, code, expected) in [
        ("good.hlog", None, 0, format!("{prompt}; {client}")),
        ("old.hlog", None, 0, format!("{prompt}; how its clients did is not in this log.")),
        ("slow.hlog", None, 0, format!("{late}; {client}")),
        // A budget decides what is slow.
        ("slow.hlog", Some("total.p99<1s"), 0, format!("{}; {client}", prompt.replace("22.9", "229"))),
        (
            "good.hlog",
            Some("total.p99<1ms,pickup.p99<1us"),
            1,
            format!(
                "The gateway was over budget: total p99 22.9 ms over 12.0 s, write took the most (p99 19.6 ms); broken: \
                 total.p99<1ms was 22.9 ms (stage write took the most, p99 19.6 ms), pickup.p99<1us was 13.1 ms (stage \
                 pickup); {client}"
            ),
        ),
        (
            "good.hlog",
            Some("slow_client.p99<1ms,writ.p99<1s"),
            1,
            format!(
                "The gateway was over budget: total p99 22.9 ms over 12.0 s, write took the most (p99 19.6 ms); broken: \
                 slow_client.p99<1ms was 26.1 ms (stage slow_client: what clients kept waiting, not the gateway), \
                 writ.p99<1s: nothing was measured; {client}"
            ),
        ),
        (
            "good.hlog",
            Some("slow_client.p99<1ms"),
            1,
            format!(
                "{prompt}; broken: slow_client.p99<1ms was 26.1 ms (stage slow_client: what clients kept waiting, not the \
                 gateway); {client}"
            ),
        ),
    ] {
        let args = [&[file][..], &budget.map_or(vec![], |budget| vec!["--budget", budget])].concat();
        let ended = files.report(&args);
        assert_eq!((verdict(&ended), ended.code()), (expected, Some(code)), "{budget:?}");
    }
}

/// A log of a hundred equal values under each of these tags, in this second, of so many nanoseconds.
fn measured(lines: &[(&str, u64, u64)]) -> Vec<u8> {
    let mut writer = HlogWriter::new(Vec::new(), START_NS).expect("written");
    for (tag, second, ns) in lines {
        let mut values = latency::histogram();
        values.record_n(*ns, 100).expect("in its bounds");
        writer.write(tag, Duration::from_secs(*second), Duration::from_secs(1), &values).expect("written");
    }
    writer.into_inner()
}

/// What `verdict` of the JSON says of the gateway, the stage, and the stages of the broken rules.
fn blamed(ended: &crate::support::Ended) -> (Value, Value, Vec<Value>) {
    let report: Value = serde_json::from_str(&ended.lines.join("\n")).expect("JSON");
    let verdict = &report["verdict"];
    let broken = verdict["broken"].as_array().expect("rules").iter();
    (verdict["gateway"].clone(), verdict["stage"].clone(), broken.map(|rule| rule["stage"].clone()).collect())
}

#[test]
fn no_stage_is_blamed_for_more_than_the_whole_way_took() {
    const US: u64 = 1_000;
    // Ticks that nobody was sent waited long in `recv`.
    let alone = ("recv/kraken/trade", 0, 79_400 * US);
    let total = ("total/kraken/trade", 1, 3_490 * US);
    let explained =
        [alone, ("write/kraken/trade", 1, 2_000 * US), ("pickup/kraken/trade", 1, 300 * US), total];
    let unexplained =
        [alone, ("write/kraken/trade", 1, 1_000 * US), ("pickup/kraken/trade", 1, 300 * US), total];
    // Equal to it but for the rounding.
    let rounded = [("recv/kraken/trade", 1, 3_491 * US), total];
    // One venue waits in `pickup`, the other, of fewer ticks, in `write`.
    let two = [
        ("pickup/kraken/trade", 1, 3_000 * US),
        total,
        ("write/coinbase/trade", 1, 90 * US),
        ("total/coinbase/trade", 1, 100 * US),
    ];
    let files = Files::with(&[
        ("explained.hlog", &measured(&explained)),
        ("unexplained.hlog", &measured(&unexplained)),
        ("rounded.hlog", &measured(&rounded)),
        ("two.hlog", &measured(&two)),
    ]);
    for (file, budget, stage, broken) in [
        ("explained.hlog", "total.p99<1us", Some("write"), Some("write")),
        ("unexplained.hlog", "total.p99<1us", None, None),
        ("unexplained.hlog", "recv.p99<1us", None, Some("recv")),
        ("rounded.hlog", "total.p99<1us", Some("recv"), Some("recv")),
        ("two.hlog", "total/coinbase/trade.p99<1us", Some("pickup"), Some("write")),
        ("two.hlog", "total/binance.p99<1us", Some("pickup"), None),
    ] {
        let told = blamed(&files.report(&[file, "--json", "--budget", budget]));
        assert_eq!(told, ("over_budget".into(), stage.into(), vec![broken.into()]), "{file} {budget}");
    }
    let ended = files.report(&["unexplained.hlog", "--budget", "total.p99<1us"]);
    let expected = "The gateway was over budget: total p99 3.49 ms over 2.00 s; broken: total.p99<1us was 3.49 ms; how \
                    its clients did is not in this log.";
    assert_eq!(verdict(&ended), expected);
}

#[test]
fn only_a_rule_about_the_slow_end_of_all_deliveries_makes_a_slow_gateway_prompt() {
    const S: u64 = 1_000_000_000;
    let lines =
        [("write/kraken/trade", 0, 8 * S), ("total/kraken/trade", 0, 8 * S), ("total/coinbase/trade", 0, 9)];
    let files = Files::with(&[("a.hlog", &measured(&lines))]);
    for (budget, gateway) in [
        ("total/coinbase/trade.p99<1s", "slow"),
        ("total.p0<1s", "slow"),
        ("total.p50<60s", "slow"),
        ("total.mean<60s", "slow"),
        ("total/kraken.p99<60s", "slow"),
        ("write.p99<60s", "slow"),
        ("total.p99<60s", "prompt"),
        ("total.p99.9<=60s", "prompt"),
        ("total.max<60s", "prompt"),
    ] {
        let ended = files.report(&["a.hlog", "--json", "--budget", budget]);
        assert_eq!((blamed(&ended).0, ended.code()), (gateway.into(), Some(0)), "{budget}");
    }
}

#[test]
fn a_rule_of_which_nothing_was_measured_is_broken_unless_no_client_was_slow() {
    let lines =
        [("write/kraken/trade", 0, 10), ("total/kraken/trade", 0, 20), ("slow_client/kraken/quote", 0, 5)];
    let files = Files::with(&[("quick.hlog", &measured(&lines[..2])), ("other.hlog", &measured(&lines))]);
    for (file, budget, gateway, code) in [
        ("quick.hlog", "nosuch.p99<1s", "over_budget", 1),
        ("quick.hlog", "recv.p99<1s", "over_budget", 1),
        ("quick.hlog", "slow_client.p99<5s", "prompt", 0),
        ("quick.hlog", "slow_client/kraken.p99<5s", "prompt", 0),
        ("quick.hlog", "slow_client/krakn.p99<5s", "prompt", 1),
        ("other.hlog", "slow_client/kraken/trade.p99<5s", "prompt", 0),
        ("other.hlog", "slow_client.p99<1ns", "prompt", 1),
    ] {
        let ended = files.report(&[file, "--json", "--budget", budget]);
        assert_eq!((blamed(&ended).0, ended.code()), (gateway.into(), Some(code)), "{budget}");
    }
    let ended = files.report(&["quick.hlog", "--budget", "slow_client.p99<5s"]);
    let kept = "kept   slow_client.p99<5s: no delivery waited for a client".to_owned();
    assert!(ended.lines.contains(&kept) && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn a_report_says_how_the_clients_did_and_where_and_names_the_flights() {
    let (one, two) = (log(0, 7, 100), log(7, SECONDS, 100));
    let files = Files::with(&[("1.hlog", &one), ("2.hlog", &two)]);
    let ended = files.report(&["2.hlog", "1.hlog"]);
    let from =
        ended.lines.iter().position(|line| line.starts_with("2.hlog and 1 files more")).expect("a heading");
    let told = [
        "  clients 7, at most 7 at once, 1 slow",
        "  ticks   12,000 sent, 12 merged, 1,240 dropped, 24 lost by the feed",
        "  gaps    slow_consumer 2 (1,240 ticks)",
        "  ended   slow_consumer 1",
        "  machine A <CPU>, 2 cores, linux 6.1.0, x86_64",
        "  program tickfan 0.1.0 (release)",
        "  flight  2026-09-21T14:13:30.623000Z a client was cut: slow_consumer (4000), client c0ffee from",
        "          127.0.0.1:5000: run/flights/flight-a.ndjson",
    ];
    assert_eq!(ended.lines[from + 1..=from + told.len()], told);
    let report = files.json(&["2.hlog", "1.hlog"]);
    assert_eq!(report["verdict"]["gateway"], "prompt");
    assert_eq!(
        (&report["verdict"]["stage"], &report["verdict"]["broken"]),
        (&"write".into(), &Value::Array(vec![]))
    );
    let run = &report["run"];
    assert_eq!(run["account"]["gaps"]["slow_consumer"]["ticks"], 1_240);
    assert_eq!(run["account"]["clients"], serde_json::json!({ "at_start": 0, "new": 7, "at_end": 6 }));
    assert_eq!((&run["clients_at_once"], &run["logs"][0]["machine"]["cores"]), (&7.into(), &2.into()));
    assert_eq!(run["flights"][0]["path"], "run/flights/flight-a.ndjson");
    assert_eq!(run["flights"][0]["flight"]["session"], "c0ffee");
    // A part of the run has its own account.
    let part = files.json(&["1.hlog", "2.hlog", "--from", "5s", "--to", "8s"]);
    assert_eq!(part["run"]["account"]["dropped"], 620);
    assert_eq!(part["run"]["account"]["slow"], serde_json::json!({ "at_start": 1, "new": 0, "at_end": 1 }));
    assert_eq!(part["run"]["flights"], Value::Array(vec![]));

    let broken = String::from_utf8(one).expect("text").replacen("\"sent\":1000", "\"sent\":\"many\"", 1);
    let old = without_notes(&two);
    let files = Files::with(&[("bad.hlog", broken.as_bytes()), ("old.hlog", &old)]);
    let ended = files.report(&["bad.hlog"]);
    let line = broken.lines().position(|line| line.contains("many")).expect("a line") + 1;
    assert_eq!(ended.code(), Some(1));
    let why = format!(
        "bad.hlog: line {line}: a note that cannot be read: invalid type: string \"many\", expected u64"
    );
    assert!(ended.stderr.starts_with(&why), "{}", ended.stderr);
    let old = files.json(&["old.hlog"]);
    assert_eq!((&old["run"]["account"], &old["run"]["flights"]), (&Value::Null, &Value::Null));
    assert!(files.report(&["old.hlog"]).lines.contains(&"  clients not in this log".to_owned()));
}

/// Changes a log's text everywhere.
fn edited(log: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(log).expect("text");
    assert!(text.contains(from), "{from}");
    text.replace(from, to).into_bytes()
}

#[test]
fn each_flight_has_the_folder_of_its_own_log_and_many_runs_are_no_obstacle() {
    let one = log(0, SECONDS, 100);
    let two = edited(&edited(&one, "run/flights", "other"), "flight-a", "flight-b");
    let none = edited(&edited(&one, "\"run/flights\"", "null"), "flight-a", "flight-c");
    let headless: Vec<u8> = without_notes(&one).into_iter().chain(account(10).line()).collect::<Vec<_>>();
    let files = Files::with(&[("1.hlog", &one), ("2.hlog", &two), ("3.hlog", &none), ("4.hlog", &headless)]);
    let run = files.json(&["1.hlog", "2.hlog", "3.hlog", "4.hlog"])["run"].clone();
    let paths: Vec<&str> = run["flights"]
        .as_array()
        .expect("flights")
        .iter()
        .filter_map(|flight| flight["path"].as_str())
        .collect();
    assert_eq!(
        paths,
        ["run/flights/flight-a.ndjson", "other/flight-b.ndjson", "flight-c.ndjson", "flight-a.ndjson"]
    );
    assert_eq!(run["account"]["flights"].as_array().map(Vec::len), Some(4));

    let runs: Vec<(String, Vec<u8>)> = (0..19_u64)
        .map(|run| (format!("{run}.hlog"), edited(&one, "\"cores\":2", &format!("\"cores\":{}", run + 2))))
        .collect();
    let files = Files::with(&runs.iter().map(|(name, log)| (name.as_str(), &log[..])).collect::<Vec<_>>());
    let names: Vec<&str> = runs.iter().map(|(name, _)| name.as_str()).collect();
    let ended = files.report(&names);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let note = "note: the machine and program of 3 logs more are left out: 16 runs are named".to_owned();
    assert!(ended.lines.contains(&note), "{:?}", ended.lines);
    assert_eq!(ended.lines.iter().filter(|line| line.starts_with("  machine ")).count(), 16);
    assert!(
        ended.lines.contains(&"  gaps    slow_consumer 38 (23,560 ticks)".to_owned()),
        "{:?}",
        ended.lines
    );
}

#[test]
fn nothing_in_a_log_forges_a_row() {
    const FORGED: &str = r"\u001b[2J\u0007\nkept   total.p99<1us\u202e\u200b";
    let plain = log(0, SECONDS, 100);
    let mut forged = edited(&plain, "Tag=write/kraken/trade", "Tag=gc\u{202e}");
    for word in [
        "A <CPU>",
        "6.1.0",
        "linux",
        "x86_64",
        "release",
        "run/flights",
        "flight-a",
        "a client was",
        "c0ffee",
        "127.0.0.1",
    ] {
        forged = edited(&forged, word, &format!("{word}{FORGED}"));
    }
    forged.extend_from_slice(b"#tickfan {\"type\":\"\\u001b[2J\\nx\"}\n");
    let files = Files::with(&[("plain.hlog", &plain), ("forged.hlog", &forged)]);
    let ended = files.report(&["forged.hlog", "--tags", "--html", "page.html"]);
    let hidden = |c: char| c != '\n' && (c.is_control() || ['\u{202e}', '\u{200b}'].contains(&c));
    let told = ended.lines.join("\n");
    assert!(!told.contains(hidden) && !ended.stderr.contains(hidden), "{ended:?}");
    assert!(ended.stderr.contains("unknown variant `?[2J?x`"), "{}", ended.stderr);
    assert!(!ended.lines.iter().any(|line| line.starts_with("kept")), "{told}");
    assert!(told.contains("gc? ") && told.contains("client c0ffee?[2J??kept"), "{told}");
    let page = std::fs::read_to_string(files.path().join("page.html")).expect("a page");
    assert!(!page.contains(hidden));
}

#[test]
fn bad_lines_are_told_and_a_torn_one_is_forgiven() {
    let whole = log(0, SECONDS, 100);
    let torn = &whole[..whole.len() - 40];
    let bad = [b"Tag=write,nonsense\n", &whole[..]].concat();
    let files = Files::with(&[
        ("torn.hlog", torn),
        ("bad.hlog", &bad),
        ("empty.hlog", b""),
        ("text.hlog", b"no\nlog\n"),
    ]);
    let ended = files.report(&["torn.hlog", "--budget", "recv.max<1s"]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    let note = format!("note: torn.hlog: line {lines}, the last, was cut off and is left out");
    assert!(ended.lines.contains(&note), "{:?}", ended.lines);

    let ended = files.report(&["bad.hlog", "--budget", "recv.max<1s"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("bad.hlog: line 1: neither a comment nor"), "{}", ended.stderr);

    for (file, why) in [
        ("empty.hlog", "empty.hlog: no measurements"),
        ("text.hlog", "text.hlog: line 1: "),
        ("gone.hlog", "gone.hlog: No such file"),
    ] {
        let ended = files.report(&[file]);
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
}
