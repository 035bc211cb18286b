//! What the README and the pages of `docs/` show is typed as it stands: each block is run here, held against what programs
//! print, read as JSON, or on the list of those that are not, with the reason. A new block that is neither fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::skipped::left_out_unless_ci;
use crate::support::{Ended, Gateway, Process, RawSocket, eventually, in_repository};

/// A fenced block of a page.
#[derive(Clone, Debug)]
struct Block {
    page: String,
    language: String,
    lines: Vec<String>,
}

/// A block by its page, its language and its whole first line.
type Id = (&'static str, &'static str, &'static str);

/// What runs blocks as they stand, or holds them against what programs print.
struct Trial {
    name: &'static str,
    blocks: &'static [Id],
    /// Is given these blocks, in this order.
    run: fn(&[Block]),
}

const TRIALS: &[Trial] = &[
    Trial {
        name: "readme-shipped",
        blocks: &[
            ("README.md", "sh", "target/quick/tickfan watch --for 10s '*'"),
            (
                "docs/QUICKSTART.md",
                "js",
                "new WebSocket('ws://127.0.0.1:8080/ws?symbols=*').onmessage = m => console.log(m.data)",
            ),
        ],
        run: the_shipped_captures_are_shown,
    },
    Trial {
        name: "readme-publish",
        blocks: &[
            (
                "docs/QUICKSTART.md",
                "sh",
                "target/quick/tickfan serve --set publish.token=only-for-this-demo --set publish.listen=127.0.0.1:9000",
            ),
            ("docs/QUICKSTART.md", "sh", "target/quick/tickfan watch --json demo:ABC"),
            (
                "docs/QUICKSTART.md",
                "sh",
                r#"printf '%s\n' '{"op":"auth","token":"only-for-this-demo"}' '{"type":"trade","symbol":"demo:ABC","price":"1.25","size":"3"}' | nc -N 127.0.0.1 9000"#,
            ),
        ],
        run: a_published_tick_is_seen,
    },
    Trial {
        name: "readme-transcript",
        blocks: &[(
            "README.md",
            "text",
            r#"> {"op":"subscribe","id":1,"channel":"trade","symbols":["coinbase:BTC-USD"]}"#,
        )],
        run: the_transcript_is_what_a_gateway_sends,
    },
    Trial {
        name: "quickstart-python",
        blocks: &[("docs/QUICKSTART.md", "python", "import json")],
        run: the_client_in_python_prints_trades,
    },
    Trial {
        name: "quickstart-recording",
        blocks: &[("docs/QUICKSTART.md", "sh", "target/quick/tickfan serve --record recordings")],
        run: a_recording_is_made_and_replayed,
    },
    Trial {
        name: "deployment",
        blocks: &[("docs/DEPLOYMENT.md", "toml", "[server]")],
        run: the_configuration_is_good,
    },
    Trial {
        name: "captures",
        blocks: &[
            (
                "docs/CAPTURES.md",
                "sh",
                r#"tickfan serve --record recordings        # or [record] enabled = true, dir = "…" in the configuration"#,
            ),
            ("docs/CAPTURES.md", "sh", "tickfan inspect recordings/kraken.1          # --json for programs"),
            ("docs/CAPTURES.md", "sh", "tickfan replay --speed 10 feeds/coinbase.zst feeds/kraken.zst"),
            (
                "docs/CAPTURES.md",
                "text",
                "tickfan replayed ticks=34290 of=34290 digest=5f0c… records=38841 late_us p50=61 p99=182 max=2410",
            ),
        ],
        run: captures_are_recorded_read_and_replayed,
    },
    Trial {
        name: "latency",
        blocks: &[
            ("docs/LATENCY.md", "text", "#[Histogram log format version 1.3]"),
            (
                "docs/LATENCY.md",
                "text",
                r#"#tickfan {"type":"log","version":1,"at":"2026-01-01T00:00:00.100000Z","interval_ms":1000,"build":{"version":"0.1.0","profile":"release"},"machine":{"os":"linux","arch":"x86_64","kernel":"6.1.0","cpu":"AMD EPYC","cores":2},"flights":"flights"}"#,
            ),
            (
                "docs/LATENCY.md",
                "sh",
                "tickfan report latency.hlog                                 # a table, and the p99 of each interval as a line of bars",
            ),
            (
                "docs/LATENCY.md",
                "sh",
                "tickfan report --budget 'write.p99<2ms, total.p99.9<10ms, total/*/trade.max<=50ms' latency.hlog",
            ),
        ],
        run: latencies_are_logged_and_reported,
    },
];

/// Blocks that nothing here runs, and why not.
const NOT_RUN: &[(Id, &str)] = &[
    (
        (
            "README.md",
            "sh",
            "make run     # builds (two to four minutes, once), then serves the shipped captures on port 8080",
        ),
        "`make test` runs this test, and `make run` is a build and the `serve` that is run here",
    ),
    (
        ("docs/DEPLOYMENT.md", "nginx", "map $http_upgrade $connection_upgrade {"),
        "the configuration of another program, with certificates of a site",
    ),
    (
        ("docs/DEPLOYMENT.md", "haproxy", "frontend feed"),
        "the configuration of another program, with certificates of a site",
    ),
    (("docs/DEPLOYMENT.md", "ini", "[Unit]"), "a unit of systemd, with paths of a site"),
    (
        (
            "docs/ARCHITECTURE.md",
            "text",
            "ingest thread (one writer)                        shard threads (N, one per core but one)",
        ),
        "a picture",
    ),
    (
        (
            "docs/ADD_A_VENUE.md",
            "rust",
            "pub(super) fn decode(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError>",
        ),
        "a signature, for the compiler",
    ),
    (
        (
            "docs/CAPTURES.md",
            "text",
            "word  0  kind (0 trade, 1 quote, 2 gap) | detail << 8 | present << 16 | bytes of the trade id << 24",
        ),
        "the digest in words: tests/support/digest.py reckons it so, and tests/it/replay/ compares",
    ),
    (
        ("docs/CAPTURES.md", "text", r#"2021-04-17T16:43:37.4319360Z {"type":"match", …}"#),
        "the form of a line, abridged: tests/it/record.rs reads such lines",
    ),
    (
        (
            "docs/CAPTURES.md",
            "text",
            "# 2026-01-01T00:00:00.0000000Z segment run=1767225600000000000 number=1 venue=kraken by=tickfan-0.1.0",
        ),
        "notes of several incidents: tests/it/record.rs and tests/it/tables.rs read such notes",
    ),
    (
        (
            "docs/CAPTURES.md",
            "text",
            r#"note    0x184D2A57 | size u32 | "TKFN" 'N' 0 0 0 | CRC-32 of the text u32 | text"#,
        ),
        "the form of a file: src/capture/segment.rs writes and reads it",
    ),
    (
        ("docs/CAPTURES.md", "sh", "TICKFAN_FEEDS=/path/to/captures make test"),
        "it is how this test is run where the captures are",
    ),
    (
        (
            "docs/LATENCY.md",
            "json",
            r#"{"interval":"1m","interval_ms":1000,"from_us":1714564800000000,"to_us":1714564860000000,"negative":0,"clamped":0,"stages":[{"stage":"recv","count":3208,"mean_ns":…"#,
        ),
        "abridged",
    ),
    (
        (
            "docs/LATENCY.md",
            "json",
            r#"{"interval":"1m","stage":"total","from_us":…,"to_us":…,"rest":{"count":…},"symbols":[{"symbol":"kraken:XBT/USD","count":812,"mean_ns":64012,"p50_ns":64000,"p90_ns":…,"p99_ns":…,"max_ns":…},…]}"#,
        ),
        "abridged",
    ),
    (
        (
            "docs/LATENCY.md",
            "sh",
            "tickfan report flights/flight-2026-01-01T12-00-00.000000Z.ndjson          # states, stages, how many ticks of what, the last of them",
        ),
        "the file is named by the time of an incident; tests/it/flight.rs reports on some",
    ),
    (
        (
            "docs/LATENCY.md",
            "text",
            "The gateway was prompt: total p99 22.9 ms over 12.0 s; 1 of 7 clients was slow, 1,240 ticks were dropped for it (all told by gaps), none was cut.",
        ),
        "sentences on three logs: tests/it/report.rs holds them against logs that give such",
    ),
    (
        ("docs/LATENCY.md", "text", r#"budget    = rule { "," rule }"#),
        "a grammar: src/latency/budget.rs reads it",
    ),
    (
        (
            "docs/PERFORMANCE.md",
            "text",
            "one pass over all clients    P = C × w                          the p50 of the age of a tick under load is P / 2, its p99 some 1.5 P",
        ),
        "a formula",
    ),
    (
        (
            "docs/PROTOCOL.md",
            "text",
            "GET /ws?replay=coinbase.zst,kraken.zst&from=+30s&speed=10&symbols=*     a room of one's own",
        ),
        "requests: tests/it/rooms/ opens rooms by each of these forms",
    ),
];

/// Every block of the pages.
fn blocks() -> Vec<Block> {
    let docs = std::fs::read_dir(in_repository("docs"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name());
    let mut pages: Vec<String> = docs.map(|name| format!("docs/{}", name.display())).collect();
    pages.retain(|page| page.ends_with(".md"));
    pages.push("README.md".to_owned());
    pages.sort();
    pages.iter().flat_map(|page| blocks_of(page)).collect()
}

fn blocks_of(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(in_repository(page)).expect("a page");
    let (mut found, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open =
                    Some(Block { page: page.to_owned(), language: language.to_owned(), lines: Vec::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block does not end");
    found
}

fn is(block: &Block, (page, language, first): Id) -> bool {
    (block.page.as_str(), block.language.as_str(), block.lines[0].trim()) == (page, language, first)
}

/// The blocks of which not exactly one of these entries speaks, and the entries that speak of not exactly one block. Of JSON none
/// has to: it is read.
fn unsettled(blocks: &[Block], ids: &[Id]) -> Vec<String> {
    let entries = |block: &Block| ids.iter().filter(|id| is(block, **id)).count();
    let of_block = |block: &Block| match (block.language.as_str(), entries(block)) {
        (_, 1) => None,
        ("json", 0) => {
            block.lines.iter().find(|line| !is_object(line)).map(|line| format!("no JSON: {line}"))
        }
        (_, count) => Some(format!("{count} entries speak of {block:#?}")),
    };
    let of_entry = |id: &Id| {
        let count = blocks.iter().filter(|block| is(block, *id)).count();
        (count != 1).then(|| format!("{count} blocks are {id:?}"))
    };
    blocks.iter().filter_map(of_block).chain(ids.iter().filter_map(of_entry)).collect()
}

fn is_object(line: &str) -> bool {
    serde_json::from_str(line).is_ok_and(|read: Value| read.is_object())
}

#[test]
fn each_block_is_run_or_read_or_has_a_reason() {
    let run = TRIALS.iter().flat_map(|trial| trial.blocks);
    let ids: Vec<Id> = run.chain(NOT_RUN.iter().map(|(id, _)| id)).copied().collect();
    let unsettled = unsettled(&blocks(), &ids);
    assert!(unsettled.is_empty(), "{}", unsettled.join("\n"));
    assert!(NOT_RUN.iter().all(|(_, why)| !why.is_empty()), "why are they not run?");
}

#[test]
fn an_entry_speaks_of_one_block_alone() {
    const RUN: Id = ("p.md", "sh", "tickfan replay a.zst");
    let block = |language: &str, first: &str| Block {
        page: "p.md".to_owned(),
        language: language.to_owned(),
        lines: vec![first.to_owned()],
    };
    let one = || block("sh", RUN.2);
    let count = |blocks: &[Block], ids: &[Id]| unsettled(blocks, ids).len();
    assert_eq!(count(&[one(), block("json", r#"{"a":1}"#)], &[RUN]), 0);
    for other in [
        block("text", "tickfan replayed ticks=1"),
        block("sh", "tickfan replay a.zst b.zst"),
        block("text", RUN.2),
        block("json", "{…}"),
    ] {
        assert_eq!(count(&[one(), other], &[RUN]), 1, "nobody speaks of the second");
    }
    assert_eq!(count(&[one(), one()], &[RUN]), 1, "which of the two?");
    assert_eq!(count(&[one()], &[RUN, RUN]), 1, "by which of the two?");
    assert_eq!(count(&[], &[RUN]), 1, "there is none");
}

#[test]
fn what_is_shown_works() {
    let blocks = blocks();
    let run = |trial: &Trial| {
        let block = |id: &Id| blocks.iter().find(|block| is(block, *id)).expect("the pages have it").clone();
        (trial.run)(&trial.blocks.iter().map(block).collect::<Vec<_>>());
    };
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let start = |trial: &'static Trial| {
            let thread = std::thread::Builder::new().name(trial.name.to_owned());
            (trial.name, thread.spawn_scoped(scope, || run(trial)).expect("a thread"))
        };
        let running: Vec<_> = TRIALS.iter().map(start).collect();
        running.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "{failed:?}: see above");
}

/// A folder in which the commands find what they find in the repository after a build.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let quick = folder.path().join("target/quick");
        std::fs::create_dir_all(&quick).expect("a folder");
        let link = |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to).expect("a link");
        link(Path::new(env!("CARGO_BIN_EXE_tickfan")), &quick.join("tickfan"));
        for name in ["config.toml", "feeds"] {
            link(&in_repository(name), &folder.path().join(name));
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// A shell that does what the line says, with these arguments behind its last command. `tickfan` alone is ours, too.
    fn shell(&self, line: &str, more: &[&str]) -> Command {
        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TICKFAN_")) {
            shell.env_remove(name);
        }
        let quick = self.path("target/quick");
        let path = std::env::var("PATH").unwrap_or_default();
        // What stands behind the command is for people.
        let command = line.split("  #").next().unwrap_or(line);
        let script = format!("cd '{}' && {command} \"$@\"", self.0.path().display());
        shell.env("PATH", format!("{}:{path}", quick.display()));
        shell.args(["-c", &script, "sh"]).args(more);
        shell
    }

    /// Starts what serves, on free ports, and waits until it is ready.
    fn serve(&self, line: &str) -> Gateway {
        Gateway::run(self.shell(&format!("exec {}", line.replace(":9000", ":0")), &[]), "127.0.0.1:0")
    }

    /// Does what the line says, to its end.
    fn run(&self, line: &str, more: &[&str]) -> Ended {
        Process::start(&mut self.shell(line, more)).end()
    }

    /// The same for a command that has to succeed.
    fn succeeds(&self, line: &str) {
        let ended = self.run(line, &[]);
        assert_eq!(ended.code(), Some(0), "{line}: {ended:?}");
    }
}

fn the_shipped_captures_are_shown(shown: &[Block]) {
    let [watch, console] = shown else { panic!("{shown:?}") };
    let place = Place::new();
    let gateway = place.serve("target/quick/tickfan serve");
    let url = gateway.ws.clone();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| place.run(&watch.lines[0], &["--url", &url]));
        in_a_console(&gateway, &console.lines.join("\n"));
        let ended = watching.join().expect("it ends");
        assert_eq!((watch.lines.len(), ended.code()), (1, Some(0)), "{ended:?}");
        assert!(ended.stderr.ends_with("the accounting rule held\n"), "{ended:?}");
    });
    gateway.stop();
}

/// Types a line into the console of something that has a `WebSocket`, as browsers have.
fn in_a_console(gateway: &Gateway, typed: &str) {
    let found = ["ui", "clients/ts"].map(|of| in_repository(of).join("node_modules/ws"));
    let Some(ws) = found.iter().find(|folder| folder.exists()) else {
        return left_out_unless_ci(
            "what the quick start types into a console",
            "there is no `ws` for Node: `make test` installs it",
        );
    };
    assert!(typed.contains("ws://127.0.0.1:8080/ws"), "{typed}");
    let typed = typed.replace("ws://127.0.0.1:8080/ws", &gateway.ws);
    let script = format!("globalThis.WebSocket = require('{}');\n{typed}", ws.display());
    let mut node = Process::start(Command::new("node").args(["-e", &script]));
    let mut heard = || -> Value { serde_json::from_str(&node.line()).expect("JSON") };
    assert_eq!(heard()["type"], "hello");
    let is_tick = |message: &Value| matches!(message["type"].as_str(), Some("trade" | "quote"));
    let tick = std::iter::repeat_with(heard).take(10_000).find(is_tick).expect("ticks come");
    assert!(tick["symbol"].is_string() && tick["seq"].is_u64(), "{tick}");
}

/// The messages of a transcript: the direction of each, and the message. Lines that begin with spaces go on with the one before.
fn transcript(block: &Block) -> Vec<(char, Value)> {
    let mut messages: Vec<(char, String)> = Vec::new();
    for line in &block.lines {
        match (line.chars().next(), messages.last_mut()) {
            (Some(direction @ ('>' | '<')), _) => messages.push((direction, line[2..].to_owned())),
            (Some(' '), Some((_, text))) => text.push_str(line.trim_start()),
            _ => panic!("neither a message nor its continuation: {line}"),
        }
    }
    let read = |(direction, text): (char, String)| {
        (direction, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}")))
    };
    messages.into_iter().map(read).collect()
}

fn the_transcript_is_what_a_gateway_sends(shown: &[Block]) {
    let [shown] = shown else { panic!("{shown:?}") };
    let messages = transcript(shown);
    let [('>', request), ('<', ack), ('<', trade), ('<', gap)] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    let place = Place::new();
    let gateway = place.serve("target/quick/tickfan serve");
    let mut client = RawSocket::open(&gateway, "");
    client.send(0x81, request.to_string().as_bytes());
    let mut next = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        let message = std::iter::repeat_with(|| client.message()).take(10_000).find(|message| is_it(message));
        message.unwrap_or_else(|| panic!("no {what} comes"))
    };
    assert_eq!(next("ack", &|message| message["type"] == "ack"), *ack);
    let names = |message: &Value| -> Vec<String> {
        message.as_object().expect("an object").keys().cloned().collect()
    };
    let seen = next("trade", &|message| message["type"] == "trade" && message["snap"].is_null());
    assert_eq!(names(&seen), names(trade), "{seen}");
    gateway.stop();
    // No gap can be had for the asking: the sample of the protocol is compared, which the tests of gaps hold.
    let page = std::fs::read_to_string(in_repository("docs/PROTOCOL.md")).expect("a page");
    let is_gap = |line: &&str| line.starts_with(r#"{"type":"gap""#);
    let gaps = page.lines().filter(is_gap).map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(gaps.into_iter().any(|sample| names(&sample) == names(gap)), "{gap}");
}

fn the_client_in_python_prints_trades(shown: &[Block]) {
    let [program] = shown else { panic!("{shown:?}") };
    let python = in_repository(".venv/bin/python");
    if !python.exists() {
        return left_out_unless_ci("the client in Python", "there is no .venv: `make test` makes it");
    }
    let program = program.lines.join("\n");
    assert!(program.contains("ws://127.0.0.1:8080/ws"), "{program}");
    let place = Place::new();
    let gateway = place.serve("target/quick/tickfan serve");
    let program = program.replace("ws://127.0.0.1:8080/ws", &gateway.ws);
    let mut running = Process::start(Command::new(python).args(["-u", "-c", &program]));
    for _ in 0..20 {
        let line = running.line();
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_row = matches!(words[..], [symbol, "trade" | "gap", _] if symbol.starts_with("coinbase:"));
        assert!(is_row, "{line}");
    }
    running.signal("INT");
    running.end();
    gateway.stop();
}

fn a_recording_is_made_and_replayed(shown: &[Block]) {
    let [commands] = shown else { panic!("{shown:?}") };
    let [serve, inspect, replay] = commands.lines.as_slice() else { panic!("{commands:?}") };
    let place = Place::new();
    let gateway = place.serve(serve);
    eventually("frames are written", || {
        let rows = gateway.metric("tickfan_record_frames_total");
        !rows.is_empty() && rows.iter().all(|(_, frames)| *frames > 0)
    });
    gateway.stop();
    place.succeeds(inspect);
    let gateway = place.serve(replay);
    eventually("records were due", || played_us(&gateway) > 0);
    gateway.stop();
}

fn the_configuration_is_good(shown: &[Block]) {
    let [toml] = shown else { panic!("{shown:?}") };
    let place = Place::new();
    std::fs::write(place.path("deployment.toml"), toml.lines.join("\n")).expect("written");
    place.succeeds(
        "TICKFAN_PUBLISH_TOKEN=only-for-this-demo target/quick/tickfan check --config deployment.toml",
    );
}

fn a_published_tick_is_seen(shown: &[Block]) {
    let [serve, watch, publish] = shown else { panic!("{shown:?}") };
    let [serve, watch, publish] = [&serve.lines, &watch.lines, &publish.lines];
    let place = Place::new();
    let gateway = place.serve(&serve[0]);
    let mut watching =
        Process::start(&mut place.shell(&format!("exec {}", watch[0]), &["--url", &gateway.ws]));
    eventually("somebody watches", || {
        gateway.sessions() == 1 && gateway.metric_sum("tickfan_requests_total") == 2
    });

    assert_eq!([serve.len(), watch.len(), publish.len()], [1, 1, 1], "a command for each terminal");
    if Command::new("nc").arg("-h").output().is_err() {
        return left_out_unless_ci(
            "what the quick start publishes by nc",
            "there is none: `make test` installs it",
        );
    }
    let address = gateway.publish.expect("it takes publishers");
    assert!(publish[0].ends_with("| nc -N 127.0.0.1 9000"), "{}", publish[0]);
    let typed = publish[0].replace("127.0.0.1 9000", &format!("127.0.0.1 {}", address.port()));
    let published = place.run(&typed, &[]);
    assert_eq!(
        (published.code(), published.lines),
        (Some(0), vec![r#"{"type":"ack","op":"auth"}"#.to_owned()])
    );
    let mut seen = || -> Value { serde_json::from_str(&watching.line()).expect("JSON") };
    let told = [seen(), seen(), seen()];
    let told = told
        .each_ref()
        .map(|message| (message["type"].as_str(), message["state"].as_str(), message["price"].as_str()));
    let status = |state| (Some("status"), Some(state), None);
    assert_eq!(told, [status("live"), (Some("trade"), None, Some("1.25")), status("down")]);
    watching.signal("INT");
    let watched = watching.end();
    assert_eq!(watched.code(), Some(0), "{watched:?}");
    assert!(watched.stderr.starts_with("waiting for demo:ABC: "), "{watched:?}");
    gateway.stop();
}

fn captures_are_recorded_read_and_replayed(shown: &[Block]) {
    let [record, read, replay, replayed] = shown else { panic!("{shown:?}") };
    let place = Place::new();
    assert_eq!(record.lines.len(), 1);
    let gateway = place.serve(&record.lines[0]);
    eventually("frames are written", || {
        let rows = gateway.metric("tickfan_record_frames_total");
        !rows.is_empty() && rows.iter().all(|(_, frames)| *frames > 0)
    });
    gateway.stop();
    for line in &read.lines {
        place.succeeds(line);
    }
    for table in ["tables", "ticks.ndjson"] {
        assert!(place.path(table).exists(), "{table}");
    }
    // All that was published, and a part of it.
    let [whole, part] = replayed.lines.as_slice() else { panic!("{replayed:?}") };
    for line in &replay.lines {
        let gateway = place.serve(line);
        eventually("records were due", || played_us(&gateway) > 500_000);
        let ended = gateway.stop();
        assert_eq!(ended.lines.iter().map(|line| keys(line)).collect::<Vec<_>>(), [keys(part)], "{ended:?}");
    }
    let without_part = |key: &&str| *key != "part";
    assert_eq!(keys(part).into_iter().filter(without_part).collect::<Vec<_>>(), keys(whole));
}

/// How much of its captures a replay has played, microseconds.
fn played_us(gateway: &Gateway) -> u64 {
    let shown: Value = serde_json::from_str(&Gateway::get(gateway.http, "/api/replay").1).expect("JSON");
    let at = |key: &str| shown[key].as_u64().expect("a time");
    at("position") - at("from")
}

/// The words of a line without their values.
fn keys(line: &str) -> Vec<&str> {
    line.split(' ').map(|word| word.split('=').next().unwrap_or(word)).collect()
}

fn latencies_are_logged_and_reported(shown: &[Block]) {
    let [head, notes, reports, budget] = shown else { panic!("{shown:?}") };
    let place = Place::new();
    let settings = "--set latency.interval_ms=1000 --set latency.log=latency.hlog";
    let gateway = place.serve(&format!("tickfan serve {settings}"));
    let mut client = RawSocket::open(&gateway, "?symbols=*");
    let begun = std::time::Instant::now();
    // One of the lines leaves out the first ten seconds.
    while begun.elapsed() < Duration::from_secs(12) {
        client.message();
    }
    gateway.stop();
    is_such_a_log(&place.path("latency.hlog"), head, notes);
    for name in ["latency.1.hlog", "before.hlog", "after.hlog"] {
        std::fs::copy(place.path("latency.hlog"), place.path(name)).expect("copied");
    }
    assert!(reports.lines.len() > 4, "{reports:?}");
    for line in &reports.lines {
        // What becomes of its JSON is another program's.
        let line = line.split(" | jq ").next().unwrap_or(line).to_owned();
        let ended = place.run(&line, &[]);
        assert_eq!(ended.code(), Some(0), "{line}: {ended:?}");
        assert!(!ended.lines.is_empty() || line.contains("--html"), "{line}: {ended:?}");
    }
    assert!(place.path("latency.html").exists());
    for line in &budget.lines {
        let ended = place.run(line, &[]);
        // Whether it is kept depends on the machine.
        assert!(matches!(ended.code(), Some(0 | 1)), "{line}: {ended:?}");
        assert!(ended.lines.iter().any(|line| line.contains("write.p99")), "{line}: {ended:?}");
    }
}

/// The log has lines like those that are shown.
fn is_such_a_log(path: &Path, head: &Block, notes: &Block) {
    let log = std::fs::read_to_string(path).expect("a log");
    let (tag, head) = head.lines.split_last().expect("lines");
    let numberless = |line: &str| line.split(|c: char| c.is_ascii_digit()).collect::<String>();
    let begins: Vec<String> = log.lines().take(head.len()).map(numberless).collect();
    assert_eq!(begins, head.iter().map(|line| numberless(line)).collect::<Vec<_>>());
    let fields = |line: &str| (line.split(',').next().unwrap_or(line).to_owned(), line.split(',').count());
    assert!(log.lines().any(|line| fields(line) == fields(tag)), "{tag}");
    for note in &notes.lines {
        let shown = note_keys(note).unwrap_or_else(|| panic!("{note}"));
        assert!(log.lines().filter_map(note_keys).any(|keys| keys == shown), "{note}");
    }
}

/// The type of a note of ours in a log, and what it names.
fn note_keys(line: &str) -> Option<(String, BTreeSet<String>)> {
    let note: Value = serde_json::from_str(line.strip_prefix("#tickfan ")?).ok()?;
    Some((note["type"].as_str()?.to_owned(), note.as_object()?.keys().cloned().collect()))
}
