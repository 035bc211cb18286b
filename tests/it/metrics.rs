//! `/metrics` of a gateway with everything switched on, in both forms: by the rules of their specifications, written down here,
//! and by Prometheus' own `promtool` where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::skipped::left_out_unless_ci;
use crate::support::{Gateway, RawSocket, TOKEN, eventually, in_repository};

/// Families with a help and a type, in their order, and the rows of each: name, labels and value.
#[derive(Default)]
struct Families(Vec<Family>);

struct Family {
    name: String,
    help: String,
    kind: String,
    unit: Option<String>,
    rows: Vec<(String, String, f64)>,
}

impl Families {
    /// Reads either form. A row belongs to the family before it.
    fn read(text: &str) -> Self {
        let mut families = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => families.0.push(Family {
                    name: name.to_owned(),
                    help: help.to_owned(),
                    kind: String::new(),
                    unit: None,
                    rows: Vec::new(),
                }),
                ["#", "TYPE", name, kind] => families.last(name).kind = kind.to_owned(),
                ["#", "UNIT", name, unit] => families.last(name).unit = Some(unit.to_owned()),
                ["#", "EOF"] => {}
                _ => {
                    let (row, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no row: {line}"));
                    let (name, labels) = row.split_once('{').unwrap_or((row, "}"));
                    let value = value.replace("+Inf", "inf").parse().unwrap_or_else(|_| panic!("{line}"));
                    let family = families.0.last_mut().expect("a family first");
                    family.rows.push((name.to_owned(), labels.to_owned(), value));
                }
            }
        }
        families
    }

    /// The family that is being told.
    fn last(&mut self, name: &str) -> &mut Family {
        self.0.last_mut().filter(|family| family.name == name).expect("its help comes first")
    }
}

impl Family {
    /// What the linter of Prometheus asks of each family, and what both specifications do.
    fn check(&self, counter: &str) {
        let Self { name, help, kind, rows, .. } = self;
        assert!(!help.trim().is_empty(), "{name} has no help");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.starts_with("tickfan_") && name.chars().all(plain), "{name}");
        let words: BTreeSet<&str> = name.split('_').collect();
        for word in [
            "counter",
            "gauge",
            "histogram",
            "summary",
            "ms",
            "us",
            "ns",
            "sec",
            "s",
            "milliseconds",
            "microseconds",
            "nanoseconds",
            "minutes",
            "hours",
            "days",
            "kb",
            "mb",
            "kib",
            "mib",
            "kilobytes",
            "megabytes",
            "bits",
            "percent",
            "celsius",
        ] {
            assert!(!words.contains(word), "{name}: no unit but the base unit, no type: {word}");
        }
        for unit in ["seconds", "bytes"].into_iter().filter(|unit| words.contains(unit)) {
            let ends = name.ends_with(unit) || name.ends_with(&format!("{unit}_total"));
            assert!(ends, "{name}: the unit stands last");
        }
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &[counter],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{name}: {other}"),
        };
        for (row, labels, value) in rows {
            assert!(suffixes.iter().any(|suffix| *row == format!("{name}{suffix}")), "{row} in {name}");
            assert!(*value >= 0.0, "{row}{{{labels} {value}");
            assert!(row.ends_with("_bucket") == labels.contains("le=\""), "{row}{{{labels}");
        }
        // By its own name, or by that of its rows.
        assert_eq!(kind == "counter" && counter.is_empty(), name.ends_with("_total"), "{name}");
        let distinct: BTreeSet<(&str, &str)> =
            rows.iter().map(|(row, labels, _)| (row.as_str(), labels.as_str())).collect();
        assert_eq!(distinct.len(), rows.len(), "{name}: a row twice");
    }
}

/// Everything that can be counted: a replay that is recorded, publishers, rooms, a history, an interval log and flights.
fn everything(folder: &std::path::Path) -> Gateway {
    let path = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    let settings = [
        "publish.listen=127.0.0.1:0".to_owned(),
        format!("publish.token={TOKEN}"),
        format!("record.dir={}", path("recordings")),
        "record.enabled=true".to_owned(),
        format!("replay.dir={}", in_repository("feeds").display()),
        "latency.interval_ms=200".to_owned(),
        format!("latency.log={}", path("latency.hlog")),
        format!("flight.dir={}", path("flights")),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Gateway::start(&[&["serve"][..], &Gateway::settings(&settings)].concat())
}

/// The counters, as this `Accept` asks for them, and what they are said to be.
fn scraped(gateway: &Gateway, accept: &str) -> String {
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{accept}\r\n\r\n");
    let (status, text) = Gateway::ask(gateway.admin, &request);
    assert_eq!(status, 200);
    text
}

#[test]
fn both_forms_keep_the_rules_of_prometheus() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = everything(folder.path());
    let _client = RawSocket::open(&gateway, "?symbols=*");
    let _room = RawSocket::open(&gateway, "?replay=kraken.zst&symbols=*");
    eventually("something is measured", || {
        scraped(&gateway, "Accept: */*").contains("tickfan_latency_seconds_bucket{")
    });
    let classic = scraped(&gateway, "Accept: */*");
    let open = scraped(&gateway, "Accept: application/openmetrics-text; version=1.0.0");
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"), "{classic}");
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1, "{open}");

    let (classic_families, open_families) = (Families::read(&classic), Families::read(&open));
    assert!(classic_families.0.len() > 80, "{}", classic_families.0.len());
    classic_families.0.iter().for_each(|family| family.check(""));
    open_families.0.iter().for_each(|family| family.check("_total"));
    for (classic, open) in classic_families.0.iter().zip(&open_families.0) {
        let total = if open.kind == "counter" { "_total" } else { "" };
        assert_eq!(classic.name, format!("{}{total}", open.name));
        assert_eq!((&classic.help, &classic.kind), (&open.help, &open.kind));
        let unit = ["seconds", "bytes"].into_iter().find(|unit| open.name.ends_with(&format!("_{unit}")));
        assert_eq!((open.unit.as_deref(), &classic.unit), (unit, &None), "{}", open.name);
    }
    assert_eq!(classic_families.0.len(), open_families.0.len());
    let names: BTreeSet<&str> = open_families.0.iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names.len(), open_families.0.len(), "a family twice");
    check_histograms(&classic_families);
    by_promtool(&classic);
    gateway.stop();
}

/// Buckets add up: none is less than the one before it, and the last is the count.
fn check_histograms(families: &Families) {
    let mut seen = 0;
    for family in families.0.iter().filter(|family| family.kind == "histogram") {
        let mut buckets: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        for (row, labels, value) in &family.rows {
            let others: Vec<&str> =
                labels.trim_end_matches('}').split(',').filter(|label| !label.starts_with("le=")).collect();
            match row.strip_prefix(&family.name) {
                Some("_bucket") => buckets.entry(others.join(",")).or_default().push(*value),
                Some("_count") => drop(counts.insert(others.join(","), *value)),
                _ => {}
            }
        }
        for (labels, values) in &buckets {
            assert!(values.is_sorted(), "{labels}: {values:?}");
            assert_eq!(values.last(), counts.get(labels), "{labels}");
            seen += 1;
        }
    }
    assert!(seen > 0, "there is a histogram");
}

/// What Prometheus' own linter says: nothing.
fn by_promtool(text: &str) {
    let ours = in_repository("target/promtool");
    let program = if ours.exists() { ours.into_os_string() } else { "promtool".into() };
    let started = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Ok(promtool) => promtool,
        Err(error) => return left_out_unless_ci("what `promtool check metrics` says", &error.to_string()),
    };
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}
