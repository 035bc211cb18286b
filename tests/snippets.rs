//! What the README and the pages of `docs/` show is typed as it stands: each block is run by a test here, read as JSON, or on
//! the list of those that are not, with the reason. A new block that is neither fails.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::skipped::left_out_unless_ci;
use support::{Ended, Gateway, Process, eventually, in_repository};

/// A fenced block of a page.
#[derive(Debug)]
struct Block {
    page: String,
    language: String,
    lines: Vec<String>,
}

/// What becomes of a block, by its page and how its first line begins.
enum Fate {
    /// A test here runs its lines.
    Run,
    /// Nothing does, for this reason.
    NotRun(&'static str),
}

use Fate::{NotRun, Run};

const FATES: &[(&str, &str, Fate)] = &[
    (
        "README.md",
        "make run",
        NotRun("`make test` runs this test, and `make run` is a build and the `serve` that is run here"),
    ),
    ("README.md", "new WebSocket(", Run),
    ("README.md", "target/quick/tickfan watch --for 10s", Run),
    ("README.md", "target/quick/tickfan serve --set publish", Run),
    ("README.md", "target/quick/tickfan watch --json", Run),
    ("README.md", "printf", Run),
    ("docs/ADD_A_VENUE.md", "pub(super) fn decode(", NotRun("a signature, for the compiler")),
    ("docs/CAPTURES.md", "tickfan serve --record", Run),
    ("docs/CAPTURES.md", "tickfan inspect", Run),
    ("docs/CAPTURES.md", "tickfan replay", Run),
    ("docs/CAPTURES.md", "TICKFAN_FEEDS=", NotRun("it is how this test is run where the captures are")),
    ("docs/LATENCY.md", "{\"interval\":\"1m\",\"interval_ms\"", NotRun("abridged")),
    ("docs/LATENCY.md", "{\"interval\":\"1m\",\"stage\"", NotRun("abridged")),
    (
        "docs/LATENCY.md",
        "tickfan report flights/",
        NotRun("the file is named by the time of an incident; tests/flight.rs reports on some"),
    ),
    ("docs/LATENCY.md", "tickfan report latency.hlog", Run),
    ("docs/LATENCY.md", "tickfan report --budget", Run),
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

/// What becomes of it; `None` where nobody has said.
fn fate(block: &Block) -> Option<usize> {
    let first = block.lines.first().expect("a block has a line");
    FATES.iter().position(|(page, begins, _)| block.page == *page && first.trim_start().starts_with(begins))
}

/// The block of a page that begins so.
fn block(page: &str, begins: &str) -> Block {
    let listed = FATES.iter().any(|(of, start, fate)| (*of, *start) == (page, begins) && matches!(fate, Run));
    assert!(listed, "{page}: {begins}");
    let found = blocks_of(page).into_iter().find(|block| block.lines[0].starts_with(begins));
    found.unwrap_or_else(|| panic!("{page} has no block that begins with {begins}"))
}

#[test]
fn each_block_is_run_or_read_or_has_a_reason() {
    let mut met = BTreeSet::new();
    for block in blocks() {
        match (block.language.as_str(), fate(&block)) {
            (_, Some(at)) => drop(met.insert(at)),
            ("json", None) => block.lines.iter().for_each(|line| {
                let read: Result<Value, _> = serde_json::from_str(line);
                assert!(read.is_ok_and(|read| read.is_object()), "{}: {line}", block.page);
            }),
            // Pictures, formats, and what programs print.
            ("text", None) => {}
            (_, None) => panic!("{} has a block that nothing runs: {:#?}", block.page, block.lines),
        }
    }
    for (at, (page, begins, fate)) in FATES.iter().enumerate() {
        assert!(met.contains(&at), "{page} has no block that begins with {begins}");
        assert!(!matches!(fate, NotRun("")), "{page}: {begins}: why is it not run?");
    }
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

#[test]
fn the_readme_shows_the_shipped_captures() {
    let place = Place::new();
    let gateway = place.serve("target/quick/tickfan serve");
    let watch = block("README.md", "target/quick/tickfan watch --for 10s").lines;
    let url = gateway.ws.clone();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| place.run(&watch[0], &["--url", &url]));
        in_a_console(&gateway, &block("README.md", "new WebSocket(").lines.join("\n"));
        let ended = watching.join().expect("it ends");
        assert_eq!((watch.len(), ended.code()), (1, Some(0)), "{ended:?}");
        assert!(ended.stderr.ends_with("the accounting rule held\n"), "{ended:?}");
    });
    gateway.stop();
}

/// Types a line into the console of something that has a `WebSocket`, as browsers have.
fn in_a_console(gateway: &Gateway, typed: &str) {
    let found = ["ui", "clients/ts"].map(|of| in_repository(of).join("node_modules/ws"));
    let Some(ws) = found.iter().find(|folder| folder.exists()) else {
        return left_out_unless_ci(
            "what the README types into a console",
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

#[test]
fn the_readme_publishes_a_tick_that_can_be_seen() {
    let place = Place::new();
    let serve = block("README.md", "target/quick/tickfan serve --set publish").lines;
    let gateway = place.serve(&serve[0]);
    let watch = block("README.md", "target/quick/tickfan watch --json").lines;
    let mut watching =
        Process::start(&mut place.shell(&format!("exec {}", watch[0]), &["--url", &gateway.ws]));
    eventually("somebody watches", || {
        gateway.sessions() == 1 && gateway.metric_sum("tickfan_requests_total") == 2
    });

    let publish = block("README.md", "printf").lines;
    assert_eq!([serve.len(), watch.len(), publish.len()], [1, 1, 1], "a command for each terminal");
    if Command::new("nc").arg("-h").output().is_err() {
        return left_out_unless_ci(
            "what the README publishes by nc",
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

#[test]
fn what_the_page_on_captures_shows_works() {
    let place = Place::new();
    let record = block("docs/CAPTURES.md", "tickfan serve --record").lines;
    assert_eq!(record.len(), 1);
    let gateway = place.serve(&record[0]);
    eventually("frames are written", || {
        let rows = gateway.metric("tickfan_record_frames_total");
        !rows.is_empty() && rows.iter().all(|(_, frames)| *frames > 0)
    });
    gateway.stop();
    for line in block("docs/CAPTURES.md", "tickfan inspect").lines {
        place.succeeds(&line);
    }
    for table in ["tables", "ticks.ndjson"] {
        assert!(place.path(table).exists(), "{table}");
    }
    for line in block("docs/CAPTURES.md", "tickfan replay").lines {
        let gateway = place.serve(&line);
        eventually("it plays", || Gateway::get(gateway.http, "/api/replay").1.contains("\"playing\""));
        gateway.stop();
    }
}

#[test]
fn what_the_page_on_latencies_shows_works() {
    let place = Place::new();
    let settings = "--set latency.interval_ms=1000 --set latency.log=latency.hlog";
    let gateway = place.serve(&format!("tickfan serve {settings}"));
    let mut client = support::RawSocket::open(&gateway, "?symbols=*");
    let begun = std::time::Instant::now();
    // One of the lines leaves out the first ten seconds.
    while begun.elapsed() < Duration::from_secs(12) {
        client.message();
    }
    gateway.stop();
    for name in ["latency.1.hlog", "before.hlog", "after.hlog"] {
        std::fs::copy(place.path("latency.hlog"), place.path(name)).expect("copied");
    }
    let reports = block("docs/LATENCY.md", "tickfan report latency.hlog").lines;
    assert!(reports.len() > 4, "{reports:?}");
    for line in reports {
        // What becomes of its JSON is another program's.
        let line = line.split(" | jq ").next().unwrap_or(&line).to_owned();
        let ended = place.run(&line, &[]);
        assert_eq!(ended.code(), Some(0), "{line}: {ended:?}");
        assert!(!ended.lines.is_empty() || line.contains("--html"), "{line}: {ended:?}");
    }
    assert!(place.path("latency.html").exists());
    for line in block("docs/LATENCY.md", "tickfan report --budget").lines {
        let ended = place.run(&line, &[]);
        // Whether it is kept depends on the machine.
        assert!(matches!(ended.code(), Some(0 | 1)), "{line}: {ended:?}");
        assert!(ended.lines.iter().any(|line| line.contains("write.p99")), "{line}: {ended:?}");
    }
}
