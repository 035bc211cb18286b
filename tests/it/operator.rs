//! The admin listener: its routes, and what was measured as it is asked for.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tickfan::feed::IngestView;
use tickfan::http::metrics::{self, Sources};
use tickfan::http::{
    Admin, AdminHooks, AskedClients, FeedHealth, Health, Hosts, HttpLimits, ListedClients, Runtimes,
};
use tickfan::latency::Stage;
use tickfan::latency::meter::{Class, Meter};
use tickfan::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use tickfan::model::tick::Channel;
use tickfan::ops::collector::{Collector, CollectorOptions, Measured};
use tickfan::time::clock::Now;

use crate::support::answer::Answer;

/// Longer than any answer takes; only a broken gateway makes a test wait for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many clients and rooms there are.
const CLIENTS: u64 = 20_000;
const ROOMS: u64 = 250;

/// Clients by their numbers, those that are behind one in the order that is asked for.
fn clients(asked: AskedClients) -> Result<ListedClients, String> {
    if asked.sort == "size" {
        return Err("no such order".to_owned());
    }
    let first = asked.after.map_or(1, |after| after.parse::<u64>().expect("a cursor of this list") + 1);
    let row = |n: u64| (n.to_string(), json!({"session": n, "sort": asked.sort, "peer": "x".repeat(400)}));
    Ok(ListedClients { total: CLIENTS, rows: (first..=CLIENTS).take(asked.limit).map(row).collect() })
}

/// Serves the admin listener while these paths are asked for.
fn operator(latency: Option<Arc<Measured>>, paths: &[&str]) -> Vec<Answer> {
    let requests = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    asked(latency, requests.collect())
}

/// Serves it while these requests are made, each on a connection of its own.
fn asked(latency: Option<Arc<Measured>>, requests: Vec<String>) -> Vec<Answer> {
    let hooks = AdminHooks {
        metrics: Arc::new(|| "# HELP ticks Ticks\n# TYPE ticks counter\nticks_total 1\n# EOF\n".to_owned()),
        clients: Arc::new(|asked| Box::pin(async move { clients(asked) })),
        latency,
        rooms: Arc::new(|| {
            (1..=ROOMS).map(|n| (n, json!({"number": n, "captures": "x".repeat(2_000)}))).collect()
        }),
        health: Health {
            feeds: Arc::new(|| {
                let detail = "10 frames a second".to_owned();
                vec![FeedHealth { name: "feed 1".to_owned(), flowing: false, detail }]
            }),
            alarms: Arc::new(|| vec!["no room".to_owned()]),
            pulses: Arc::default(),
        },
    };
    let hosts = Hosts::new(&["metrics.example".to_owned()]).expect("a name");
    let admin = Admin::new(HttpLimits::default(), hosts, hooks);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bind");
    let addr = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let asking = std::thread::spawn(move || {
        let ask = |request: &String| {
            let mut stream = TcpStream::connect(addr).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            stream.write_all(request.as_bytes()).expect("sent");
            Answer::read(&mut stream)
        };
        let answers = requests.iter().map(ask).collect();
        drop(stop);
        answers
    });
    runtime.block_on(admin.serve(listener, async move { drop(stopped.await as Result<(), _>) }));
    asking.join().expect("answers")
}

#[test]
fn the_admin_listener_has_its_own_routes() {
    let clients = operator(
        None,
        &[
            "/api/clients",
            "/api/clients?sort=queued&limit=3",
            "/api/clients?limit=1001",
            "/api/clients?limit=x",
            "/api/clients?sort=size",
            "/api/clients?limit=3&limit=3",
            "/api/clients?limit=0",
        ],
    );
    let status = clients.iter().map(|answer| answer.status).collect::<Vec<_>>();
    assert_eq!(status, [200, 200, 400, 400, 400, 400, 400]);
    assert!(clients[5].body.contains("`limit` is given twice"), "{}", clients[5].body);
    let parsed = |at: usize| serde_json::from_str::<Value>(&clients[at].body).expect("JSON");
    assert_eq!(parsed(0)["clients"].as_array().map(Vec::len), Some(100));
    let (first, three) = (parsed(0), parsed(1));
    assert_eq!((&first["clients"][0]["sort"], &first["total"]), (&json!("behind"), &json!(CLIENTS)));
    assert_eq!(
        (&three["clients"][2]["sort"], &three["clients"][2]["session"]),
        (&json!("queued"), &json!(3))
    );
    assert_eq!((three["clients"].as_array().map(Vec::len), &three["next"]), (Some(3), &json!("3")));
    assert!(
        clients[1].head.contains("link: <?sort=queued&limit=3&after=3>; rel=\"next\""),
        "{}",
        clients[1].head
    );
    assert!(clients[2].body.contains("`limit`") && clients[4].body.contains("no such order"));

    let others = operator(None, &["/metrics", "/healthz", "/ws", "/api/rooms"]);
    assert_eq!(others.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 404, 200]);
    let rooms: Value = serde_json::from_str(&others[3].body).expect("JSON");
    assert_eq!((rooms["rooms"].as_array().map(Vec::len), &rooms["next"]), (Some(100), &json!("100")));
    // As from Prometheus itself, who asks for nothing gets the older text.
    assert!(others[0].has("content-type: text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(others[0].body, "# HELP ticks_total Ticks\n# TYPE ticks_total counter\nticks_total 1\n");
}

#[test]
fn long_lists_come_in_pages_each_as_long_as_it_may_be() {
    for (path, name, number, count) in [
        ("/api/clients?limit=1000", "clients", "session", CLIENTS),
        ("/api/rooms?limit=1000", "rooms", "number", ROOMS),
    ] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let answer = operator(None, &[&format!("{path}{after}")]).remove(0);
            assert!(answer.status == 200 && answer.body.len() < 300_000, "{path}: {}", answer.body.len());
            let body: Value = serde_json::from_str(&answer.body).expect("JSON");
            let rows = body[name].as_array().expect("rows");
            found.extend(rows.iter().map(|row| row[number].as_u64().expect("a number")));
            let Some(next) = body["next"].as_str() else { break };
            // It ends where a row more would be too much.
            assert!(answer.body.len() > 255_000, "{path}{after}: {} bytes", answer.body.len());
            after = format!("&after={next}");
        }
        assert!(found.iter().copied().eq(1..=count), "{path}: {} rows", found.len());
    }
    let bad = operator(None, &["/api/rooms?after=x"]).remove(0);
    assert!(bad.status == 400 && bad.error().contains("`after`"), "{}", bad.body);
}

#[test]
fn web_pages_of_others_hear_nothing_of_the_operators() {
    let ask = |path: &str, host: &str, origin: Option<&str>| {
        let origin = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n")
    };
    let cases = [
        ("localhost:9090", None, 200),
        ("127.0.0.1:9090", None, 200),
        ("metrics.example", None, 200),
        ("localhost:9090", Some("http://localhost:9090"), 200),
        ("metrics.example", Some("https://metrics.example"), 200),
        // Pages of this machine and sandboxes, too: nothing here is for them.
        ("localhost:9090", Some("http://localhost:3000"), 403),
        ("localhost:9090", Some("null"), 403),
        ("localhost:9090", Some("https://evil.example"), 403),
        ("localhost:9090", Some("x://localhost:9090"), 403),
        ("evil.example:9090", None, 421),
        ("evil.example:9090", Some("http://evil.example:9090"), 421),
    ];
    for path in ["/", "/metrics", "/healthz", "/api/clients", "/api/rooms"] {
        let requests = cases.iter().map(|(host, origin, _)| ask(path, host, *origin));
        for (answer, (host, origin, status)) in asked(None, requests.collect()).iter().zip(cases) {
            assert_eq!(answer.status, status, "{path} {host} {origin:?}");
            assert!(status == 200 || !answer.error().is_empty(), "{path} {host}: {}", answer.body);
        }
    }
}

#[test]
fn scrapers_get_the_form_that_they_ask_for() {
    let accept = |value: &str| format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {value}\r\n\r\n");
    let asked = asked(
        None,
        vec![
            accept("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"),
            accept("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
        ],
    );
    assert!(asked[0].has("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert_eq!(asked[0].body, "# HELP ticks Ticks\n# TYPE ticks counter\nticks_total 1\n# EOF\n");
    assert!(asked[1].has("content-type: text/plain; version=0.0.4; charset=utf-8"));
    assert!(asked.iter().all(|answer| answer.has("vary: accept")));
}

#[test]
fn the_admin_listener_lists_what_is_there() {
    let root = |accept: &str| format!("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    let answers = asked(None, vec![root("*/*"), root("text/html,application/xml;q=0.9,*/*;q=0.8")]);
    assert!(answers[0].has("content-type: text/plain; charset=utf-8"));
    assert!(answers[1].has("content-type: text/html; charset=utf-8"));
    assert!(answers[0].body.starts_with("tickfan, the admin listener\n"), "{}", answers[0].body);
    assert!(answers[1].body.contains("<p>The admin listener.</p>"), "{}", answers[1].body);
    let rows: Vec<(&str, &str)> =
        answers[0].body.lines().filter_map(|line| line.strip_prefix('/')?.split_once(' ')).collect();
    for path in ["metrics", "healthz", "readyz", "api/clients", "api/rooms", "api/latency"] {
        assert!(
            rows.iter().any(|(listed, says)| *listed == path && !says.trim().is_empty()),
            "{path}: {rows:?}"
        );
    }
    // Whatever is listed is there, in both forms.
    let paths: Vec<String> = rows.iter().map(|(path, _)| format!("/{path}")).collect();
    for (path, answer) in
        paths.iter().zip(operator(Some(measured()), &paths.iter().map(String::as_str).collect::<Vec<_>>()))
    {
        assert!(answer.status != 404 && answer.status != 405, "{path}: {}", answer.status);
        assert!(answers[1].body.contains(&format!("<a href=\"{path}\">")), "{path}");
    }
}

#[test]
fn both_listeners_tell_whether_the_gateway_is_ready() {
    let ready = operator(None, &["/readyz"]).remove(0);
    assert_eq!(ready.status, 503);
    let feeds = r#"[{"name":"feed 1","flowing":false,"detail":"10 frames a second"}]"#;
    let why = r#""error":"a feed does not flow","code":"not_ready""#;
    let expected = format!(r#"{{"ready":false,"feeds":{feeds},"alarms":["no room"],{why}}}"#);
    assert_eq!(ready.body, expected);
}

/// What a thread measures of a trade of Kraken in the second after the epoch of this test.
fn measuring(measure: impl FnOnce(&mut Meter, Class)) -> Arc<Measured> {
    const SECOND: u64 = 1_000_000_000;
    let start = Now { mono_ns: 0, wall_ns: 1_714_564_800 * SECOND };
    let table = Arc::new(InstrumentTable::new(1));
    table.intern(&Symbol::parse("kraken:XBT/USD").expect("a symbol")).expect("room");
    let options = CollectorOptions {
        interval_ns: SECOND,
        symbols_max: 2,
        log: None,
        flights: None,
        budget: Vec::new(),
    };
    let mut collector = Collector::new(options, table, start, Box::new(|_| {}));
    let mut meter = collector.meter();
    let class = meter.class(InstrumentId(0), Channel::Trade, || "kraken");
    measure(&mut meter, class);
    meter.turn(SECOND);
    collector.turn(Now { mono_ns: SECOND, wall_ns: start.wall_ns + SECOND });
    collector.measured()
}

/// It waited 48 µs for its socket.
fn measured() -> Arc<Measured> {
    measuring(|meter, class| {
        meter.record(Stage::Write, class, 1_000, 49_000, 2);
        meter.record(Stage::Write, class, 1_000, 999, 1);
    })
}

#[test]
fn an_interval_is_given_once() {
    const TWICE: [&str; 3] = [
        "/api/latency?interval=last&interval=start",
        "/api/latency/symbols?interval=last&interval=start",
        "/api/latency.hgrm?interval=last&interval=start",
    ];
    for answer in operator(Some(measured()), &TWICE) {
        assert!(answer.status == 400 && answer.error() == "`interval` is given twice", "{}", answer.body);
    }
}

#[test]
fn what_was_measured_can_be_asked_for() {
    let answers = operator(
        Some(measured()),
        &[
            "/api/latency",
            "/api/latency?interval=last",
            "/api/latency?interval=start",
            "/api/latency?interval=1h",
            "/api/latency.hgrm?stage=write",
            "/api/latency.hgrm?stage=pickup&interval=last",
            "/api/latency.hgrm",
            "/api/latency.hgrm?stage=read",
            "/api/latency.hgrm?stage=write&interval=5m",
        ],
    );
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 400, 200, 200, 400, 400, 400]);
    let nothing =
        r#""count":0,"mean_ns":0,"p50_ns":0,"p90_ns":0,"p99_ns":0,"p99.9_ns":0,"p99.99_ns":0,"max_ns":0}"#;
    let one = r#""count":2,"mean_ns":48016,"p50_ns":48031,"p90_ns":48031,"p99_ns":48031,"p99.9_ns":48031,"p99.99_ns":48031,"max_ns":48031}"#;
    for (answer, interval) in answers.iter().zip(["1m", "last", "start"]) {
        let stages = ["recv", "normalise", "publish", "pickup", "encode", "write", "total", "slow_client"]
            .map(|stage| format!(r#"{{"stage":"{stage}",{}"#, if stage == "write" { one } else { nothing }));
        let head = format!(
            r#"{{"interval":"{interval}","interval_ms":1000,"from_us":1714564800000000,"to_us":1714564801000000,"negative":1,"clamped":0,"stages":["#
        );
        let tag =
            r#""tags":[{"tag":"write/kraken/trade","stage":"write","venue":"kraken","channel":"trade","#;
        assert_eq!(answer.body, format!("{head}{}],{tag}{one}]}}", stages.join(",")));
        assert!(answer.has("content-type: application/json") && answer.has("cache-control: no-store"));
    }
    assert_eq!(answers[3].error(), "`interval` must be one of last, 1m, start");

    assert!(answers[4].has("content-type: text/plain; charset=utf-8"), "{}", answers[4].head);
    assert_eq!(
        answers[4].body,
        "       Value     Percentile TotalCount 1/(1-Percentile)\n\n\
         \x20   0.048031 0.000000000000          2           1.00\n\
         \x20   0.048031 1.000000000000          2\n\
         #[Mean    =     0.048016, StdDeviation   =     0.000000]\n\
         #[Max     =     0.048031, Total count    =            2]\n\
         #[Buckets =           26, SubBuckets     =         2048]\n"
    );
    assert!(answers[5].body.contains("Total count    =            0]"), "{}", answers[5].body);
    let stages = "`stage` must be one of recv, normalise, publish, pickup, encode, write, total, slow_client";
    assert_eq!((answers[6].error().as_str(), answers[7].error().as_str()), (stages, stages));
    assert_eq!(answers[8].error(), "`interval` must be one of last, 1m, start");
}

#[test]
fn symbols_can_be_asked_for() {
    let measured = measuring(|meter, class| {
        meter.record_way(InstrumentId(0), class, 1_000, 50_000, 2);
    });
    let paths = &["/api/latency/symbols", "/api/latency/symbols?interval=1h"];
    let answers = operator(Some(measured), paths);
    let way = r#""count":2,"mean_ns":49000,"p50_ns":49000,"p90_ns":49000,"p99_ns":49000,"max_ns":49000}"#;
    let none = r#"{"count":0,"mean_ns":0,"p50_ns":0,"p90_ns":0,"p99_ns":0,"max_ns":0}"#;
    let span = r#""from_us":1714564800000000,"to_us":1714564801000000"#;
    let head = format!(r#"{{"interval":"1m","stage":"total",{span},"rest":{none},"symbols":["#);
    assert_eq!((answers[0].status, answers[1].status), (200, 400));
    assert_eq!(answers[0].body, format!(r#"{head}{{"symbol":"kraken:XBT/USD",{way}]}}"#));
    assert!(answers[0].has("content-type: application/json") && answers[0].has("cache-control: no-store"));
    assert_eq!(answers[1].error(), "`interval` must be one of last, 1m, start");
}

#[test]
fn where_nothing_is_measured_that_is_said() {
    let answers = operator(None, &["/api/latency", "/api/latency/symbols", "/api/latency.hgrm?stage=write"]);
    for answer in &answers {
        assert_eq!(answer.status, 404);
        assert_eq!(answer.error(), "measuring is off: `latency.interval_ms` is 0");
    }
}

#[test]
fn stages_are_histograms_in_seconds_for_scrapers() {
    let sources = Sources {
        records: Arc::from([]),
        history: None,
        ingest: Arc::new(IngestView::new(0)),
        shards: Vec::new(),
        listeners: Vec::new(),
        publish: None,
        latency: Some(measured()),
        runtimes: Runtimes::new([]),
        pulses: Arc::default(),
        steps: Arc::default(),
        connections_max: 7,
        files_max: None,
        instruments: Box::new(|| 0),
        memory: Arc::default(),
        rooms: Box::new(|| None),
    };
    let text = metrics::render(Arc::new(sources));
    let from = text.find("# HELP tickfan_latency_seconds ").expect("a histogram");
    let labels = r#"stage="write",venue="kraken",channel="trade""#;
    let row = |name: &str, value| format!("tickfan_latency_seconds_{name}{{{labels}}} {value}\n");
    let bucket =
        |le: &str, count| format!("tickfan_latency_seconds_bucket{{le=\"{le}\",{labels}}} {count}\n");
    let bounds =
        ["0.00005", "0.0001", "0.0005", "0.001", "0.005", "0.01", "0.05", "0.1", "1.0", "10.0", "+Inf"];
    let expected = [
        "# HELP tickfan_latency_seconds What the stages of a tick's way took\n".to_owned(),
        "# TYPE tickfan_latency_seconds histogram\n# UNIT tickfan_latency_seconds seconds\n".to_owned(),
        row("sum", "0.000096032"),
        row("count", "2"),
        bucket("0.00001", 0),
        bounds.map(|le| bucket(le, 2)).concat(),
        "# HELP tickfan_latency_negative Values below zero, in no histogram: a clock was set back\n"
            .to_owned(),
        "# TYPE tickfan_latency_negative counter\ntickfan_latency_negative_total 1\n".to_owned(),
        "# HELP tickfan_latency_clamped Values over a minute, which count as a minute\n".to_owned(),
        "# TYPE tickfan_latency_clamped counter\ntickfan_latency_clamped_total 0\n# EOF\n".to_owned(),
    ];
    assert_eq!(text[from..], expected.concat());
}
