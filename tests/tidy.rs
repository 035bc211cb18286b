//! The rules of `docs/ARCHITECTURE.md` that a program can read: which module may import which, how long functions and
//! files may be, which may know the time, and what must not be there at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/source.rs"]
mod source;

use graph::Graph;
use source::{Source, parsed, root, rust_files, sources};

/// Each folder of `src` with the folders it may import, the lowest first: a folder imports only what stands above it in
/// this list. `docs/ARCHITECTURE.md` shows the same table.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // leaves
    ("auth", &[]),
    ("text", &[]),
    ("time", &[]),
    ("model", &["text"]),
    ("system", &["time"]),
    // pure
    ("venue", &["model", "time"]),
    ("protocol", &["text", "model", "time"]),
    ("latency", &["text", "model", "time"]),
    ("session", &["model", "protocol", "latency"]),
    // between threads
    ("ring", &["model"]),
    ("replay_control", &["auth", "protocol"]),
    // files and sockets
    ("capture", &["text", "time", "venue"]),
    ("synth", &["model", "time", "venue", "capture"]),
    ("history", &["text", "model", "system", "ring"]),
    ("net", &["protocol"]),
    ("ops", &["text", "time", "model", "system", "protocol", "latency", "session", "ring"]),
    // threads
    (
        "feed",
        &[
            "auth",
            "text",
            "time",
            "model",
            "system",
            "venue",
            "protocol",
            "latency",
            "ring",
            "replay_control",
            "capture",
            "net",
            "ops",
        ],
    ),
    (
        "shard",
        &[
            "text",
            "time",
            "model",
            "system",
            "protocol",
            "latency",
            "session",
            "ring",
            "replay_control",
            "history",
            "net",
            "ops",
        ],
    ),
    (
        "http",
        &[
            "time",
            "model",
            "system",
            "protocol",
            "latency",
            "ring",
            "replay_control",
            "history",
            "net",
            "ops",
            "feed",
        ],
    ),
    // wiring
    ("config", &["text", "model", "venue", "protocol", "latency", "session", "ring", "shard"]),
    (
        "gateway",
        &[
            "text",
            "time",
            "model",
            "system",
            "venue",
            "protocol",
            "latency",
            "session",
            "ring",
            "replay_control",
            "capture",
            "history",
            "net",
            "ops",
            "feed",
            "shard",
            "http",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "text", "time", "model", "system", "venue", "protocol", "latency", "capture", "synth", "ops",
            "feed", "config", "gateway",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Code that does no I/O, starts no task and is told what time it is.
const PURE: &[&str] = &[
    "model",
    "time/duration.rs",
    "time/rfc3339.rs",
    "venue",
    "protocol",
    "latency",
    "session",
    "feed/book.rs",
];

/// The longest file, tests counted.
const LINES_MAX: usize = 700;
/// The longest function, without blank lines and comments.
const FUNCTION_LINES_MAX: usize = 60;
/// Functions that are longer, with the reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("gateway/mod.rs", "run", "the start and the shutdown of the gateway, in their order"),
    ("http/metrics.rs", "encode_shards", "a row for each metric of the shards"),
];
/// The most fields of a struct.
const FIELDS_MAX: usize = 15;
/// Structs that have more, with the reason.
const WIDE_STRUCTS: &[(&str, &str, &str)] = &[
    ("cli/offline/inspect.rs", "Report", "a field for each line of the report"),
    ("config/limits.rs", "Limits", "a field for each key of [limits]"),
    ("feed/ingest/mod.rs", "IngestParts", "all that the ingest thread is made of"),
    ("feed/replay/mod.rs", "Replay", "a replay with its schedule, seeks and counts"),
    ("session/mod.rs", "Session", "laid out by hand, so that a write touches few lines of memory"),
    ("shard/report.rs", "ClientRow", "a field for each column of /api/clients"),
    ("system/counters.rs", "ShardCounters", "a field for each counter of a shard"),
];

#[test]
fn imports_go_down_only() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    for (at, (folder, imports)) in MAY_IMPORT.iter().enumerate() {
        let above: Vec<&str> = MAY_IMPORT[..at].iter().map(|(folder, _)| *folder).collect();
        for import in *imports {
            assert!(above.contains(import), "the table itself: {folder} may not import {import}");
        }
    }
    let sources = sources();
    let graph = Graph::of(sources);
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let (path, top) = (source.path.display(), source.top());
        let allowed = table.get(top).unwrap_or_else(|| panic!("{path} is in no folder of the table"));
        for import in imported(source, &graph) {
            assert!(allowed.contains(&import.as_str()), "{path} imports {import}, which {top} may not");
            used.entry(top.to_owned()).or_default().insert(import);
        }
    }
    for (folder, imports) in MAY_IMPORT {
        for import in *imports {
            let used = used.get(*folder).is_some_and(|used| used.contains(*import));
            assert!(used, "{folder} may import {import} but does not: take it out of the table");
        }
    }
}

/// The folders that a file imports.
fn imported(source: &Source, graph: &Graph<'_>) -> BTreeSet<String> {
    match source.top() {
        "main" => {
            let named = source.paths.iter().filter(|path| path[0] == "tickfan");
            named.map(|path| path[1].clone()).collect()
        }
        // It declares them.
        "lib" => BTreeSet::new(),
        top => {
            let named = graph.named_by(source).into_iter();
            named.filter_map(|module| module.first().cloned()).filter(|other| other != top).collect()
        }
    }
}

#[test]
fn no_two_files_name_each_other() {
    let circles = Graph::of(sources()).circles();
    assert!(circles.is_empty(), "circles of files: {circles:#?}");
}

#[test]
fn parts_of_a_shard_keep_their_fields_to_themselves() {
    let of_shard = sources().iter().filter(|source| source.top() == "shard");
    let open = of_shard.flat_map(|source| {
        let structs = source.structs.iter().filter(|(_, _, restricted)| *restricted > 0);
        structs.map(|(name, ..)| format!("{}: `{name}`", source.path.display()))
    });
    let open: Vec<String> = open.collect();
    assert!(open.is_empty(), "give them methods, or put the code that needs them below: {open:#?}");
}

/// What the checks above must see.
#[test]
fn imports_are_seen_however_they_are_written() {
    let files = [
        ("a/mod.rs", "pub mod b; pub mod c; pub use b::B; use crate::{d::D, e::{self, E as F}};"),
        ("a/b.rs", "pub struct B; fn f() { super::super::f::g(); }"),
        (
            "a/c.rs",
            "use super::B; fn f() { assert!(crate::g::h()); } #[cfg(test)] mod tests { use crate::x::X; }",
        ),
        ("d.rs", ""),
        ("e.rs", ""),
        ("f.rs", ""),
        ("g.rs", "mod inner { fn f() { crate::d::f() } }"),
        ("x.rs", ""),
    ];
    let sources = files.map(|(path, text)| parsed(Path::new(path), text));
    let graph = Graph::of(&sources);
    let named = |at: usize| -> Vec<String> {
        graph.named_by(&sources[at]).into_iter().map(|module| module.join("::")).collect()
    };
    assert_eq!(named(0), ["a::b", "d", "e"]);
    assert_eq!(named(1), ["f"]);
    assert_eq!(named(2), ["a::b", "g"]);
    assert_eq!(named(6), ["d"]);
    assert!(graph.circles().is_empty());
    let circle =
        [("a/b.rs", "use super::c::C;"), ("a/c.rs", "fn f() { crate::a::b::g() }"), ("a/mod.rs", "")];
    let circle = circle.map(|(path, text)| parsed(Path::new(path), text));
    let circles = Graph::of(&circle).circles();
    assert_eq!(circles, BTreeSet::from([BTreeSet::from(["a::b".to_owned(), "a::c".to_owned()])]));
}

#[test]
fn the_architecture_page_shows_the_same_table() {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    for (folder, imports) in MAY_IMPORT {
        let imports = if imports.is_empty() { "nothing".to_owned() } else { imports.join(" ") };
        let row = format!("| `{folder}` | {imports} |");
        assert!(page.contains(&row), "docs/ARCHITECTURE.md lacks the row: {row}");
    }
}

#[test]
fn functions_and_structs_are_of_a_size_to_be_read() {
    let (mut long, mut wide, mut faults) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for source in sources() {
        let path = source.path.to_string_lossy();
        for (name, lines) in source.functions.iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            if !LONG_FUNCTIONS.iter().any(|(at, function, _)| *at == path && function == name) {
                faults.push(format!("{path}: `{name}` has {lines} lines"));
            }
            long.insert(format!("{path} {name}"));
        }
        for (name, fields, _) in source.structs.iter().filter(|(_, fields, _)| *fields > FIELDS_MAX) {
            if !WIDE_STRUCTS.iter().any(|(at, this, _)| *at == path && this == name) {
                faults.push(format!("{path}: `{name}` has {fields} fields"));
            }
            wide.insert(format!("{path} {name}"));
        }
    }
    let exempt = LONG_FUNCTIONS.iter().map(|exempt| (exempt, &long));
    for ((path, name, reason), found) in exempt.chain(WIDE_STRUCTS.iter().map(|exempt| (exempt, &wide))) {
        if !found.contains(&format!("{path} {name}")) {
            faults.push(format!("{path}: `{name}` needs no exemption"));
        }
        assert!(reason.len() > 20, "{path}: `{name}` is exempt, and why?");
    }
    assert!(faults.is_empty(), "split them: {faults:#?}");
}

#[test]
fn modules_are_laid_out_in_one_way() {
    for source in sources() {
        let folder = root().join("src").join(&source.path).with_extension("");
        let path = source.path.display();
        assert!(!folder.is_dir(), "{path}: a module with a folder is its mod.rs");
    }
}

/// What must not stand in some code, and what to do instead.
type Ban = (&'static str, fn(&Source) -> bool, &'static str);

const BANS: &[Ban] = &[
    (
        "Instant::now",
        |s| !s.path.ends_with("time/clock.rs"),
        "only clock.rs reads the time: take `now` as an argument",
    ),
    (
        "SystemTime::now",
        |s| !s.path.ends_with("time/clock.rs"),
        "only clock.rs reads the time: take `now` as an argument",
    ),
    ("unbounded", |_| true, "everything has a bound"),
    // The ingest thread rests while shards are busy: that is what it waits for.
    ("thread::sleep", |s| !s.path.ends_with("feed/ingest/mod.rs"), "wait for something"),
    ("f64", |s| s.is_in(&["model", "venue", "feed/book.rs", "session"]), "money is decimal text"),
    ("f32", |_| true, "money is decimal text, times are whole"),
    ("tokio", |s| s.is_in(PURE), "pure code knows no task"),
    ("std::net", |s| s.is_in(PURE), "pure code knows no socket"),
    ("std::fs", |s| s.is_in(PURE), "pure code knows no file"),
    ("clock::", |s| s.is_in(PURE), "pure code is told what time it is"),
    ("Mutex", |s| s.is_in(&["shard", "ring", "session"]), "no lock on the tick path"),
    ("RwLock", |s| s.is_in(&["shard", "ring", "session"]), "no lock on the tick path"),
    (
        "format!",
        |s| s.path.ends_with("protocol/json.rs") || s.path.ends_with("shard/frames.rs"),
        "written by hand",
    ),
    ("println!", |_| true, "write to a handle"),
    (".display()", |_| true, "a name may hold anything: printable::path shows it on one line"),
    ("unsafe", |s| !s.path.ends_with("net/kernel.rs"), "there is none but for two questions to the kernel"),
];

#[test]
fn what_must_not_be_there_is_not() {
    for source in sources() {
        for (word, applies, instead) in BANS {
            if applies(source) {
                assert!(!source.code.contains(word), "{} has `{word}`: {instead}", source.path.display());
            }
        }
    }
}

#[test]
fn no_file_is_two_subjects() {
    for source in sources() {
        let (path, lines) = (source.path.display(), source.lines);
        assert!(lines <= LINES_MAX, "{path} has {lines} lines: split it");
    }
}

/// What is left out is counted by `make test`, which reads what one module writes.
#[test]
fn what_tests_leave_out_is_said_in_one_place() {
    let words = ["SKIPPED", "shared/feeds"];
    let told: Vec<PathBuf> = rust_files(&["src", "tests"])
        .into_iter()
        .filter(|path| !path.ends_with("tests/tidy.rs"))
        .filter(|path| {
            let text = std::fs::read_to_string(path).expect("a readable file");
            words.iter().any(|word| text.contains(*word))
        })
        .collect();
    let root = root();
    assert_eq!(told, [root.join("tests/support/skipped.rs")]);
}

#[test]
fn what_was_left_out_is_summed_up() {
    let summed_up = |code: &str, noted: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), noted).expect("written");
        let script = root().join("tests/support/skipped.awk");
        let mut awk = std::process::Command::new("awk");
        let output = awk.args(["-v", &format!("code={code}"), "-f"]).arg(script).arg(file.path()).output();
        String::from_utf8(output.expect("awk runs").stdout).expect("UTF-8")
    };
    assert_eq!(summed_up("0", ""), "nothing was skipped\n");
    let captures = "captures\tx-1\ta::b\tno x\ncaptures\tx-1\ta::b\tno y\ncaptures\tx-1\tc\tno x\ncaptures\ty-2\tc\tno x\n";
    let here = "needed captures that are not here (docs/CAPTURES.md says how to get them)";
    assert_eq!(summed_up("0", captures), format!("skipped: 3 tests: 3 {here}\n"));
    let other = "other\tx-1\td\ta full disk: no tmpfs\n";
    let needed = "1 needed something else (a full disk: no tmpfs)";
    assert_eq!(summed_up("0", other), format!("skipped: 1 test: {needed}\n"));
    assert_eq!(
        summed_up("0", &[captures, other].concat()),
        format!("skipped: 4 tests: 3 {here}, {needed}\n")
    );
    // What several tests lack is said once.
    let shared = [other, other, "other\tx-1\td\tno nc\n", "other\ty-2\td\ta full disk: no tmpfs\n"].concat();
    let needed = "2 needed something else (a full disk: no tmpfs (2 tests); no nc)";
    assert_eq!(summed_up("0", &shared), format!("skipped: 2 tests: {needed}\n"));
    // Not every test may have run.
    let failed = "cargo test failed (exit 101); ";
    assert_eq!(summed_up("101", ""), format!("{failed}nothing was skipped so far\n"));
    assert_eq!(summed_up("101", &shared), format!("{failed}skipped so far: 2 tests: {needed}\n"));
}

#[test]
fn there_are_two_unsafe_calls() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"));
    assert!(manifest.expect("Cargo.toml").contains("unsafe_code = \"deny\""));
    let blocks: usize = sources().iter().map(|source| source.code.matches("unsafe {").count()).sum();
    assert_eq!(blocks, 2, "src/net/kernel.rs asks what is not acknowledged, and whether anything is");
}
