//! The house rules of `docs/ARCHITECTURE.md` that a program can read: who may import whom, who may know the
//! time, and what must not be there at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each room with the rooms it may import, the lowest first: a room imports only what stands above it in this
/// list. `docs/ARCHITECTURE.md` shows the same table.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // leaves
    ("printable", &[]),
    ("instrument", &["printable"]),
    ("decimal", &[]),
    ("tick", &["instrument", "decimal"]),
    ("rfc3339", &[]),
    ("clock", &[]),
    ("pulse", &["clock"]),
    ("faults", &[]),
    ("threads", &[]),
    ("counters", &[]),
    ("memory", &["counters"]),
    ("complaint", &[]),
    ("atomic_file", &[]),
    // pure
    ("venue", &["tick", "rfc3339"]),
    ("book", &["tick", "venue"]),
    ("capture", &["instrument", "tick", "rfc3339", "printable", "venue"]),
    ("protocol", &["instrument", "tick", "rfc3339"]),
    ("latency", &["instrument", "tick", "rfc3339"]),
    ("session", &["instrument", "tick", "protocol", "latency"]),
    // threads
    ("ring", &["instrument", "tick"]),
    ("remote", &["protocol"]),
    ("history", &["tick", "threads", "counters", "printable", "ring"]),
    // I/O
    ("socket", &["protocol"]),
    ("journal", &["latency"]),
    (
        "flight",
        &["instrument", "tick", "rfc3339", "counters", "printable", "protocol", "latency", "session", "ring"],
    ),
    ("collector", &["instrument", "tick", "clock", "counters", "printable", "latency", "journal", "flight"]),
    (
        "feed",
        &[
            "instrument",
            "tick",
            "clock",
            "pulse",
            "faults",
            "threads",
            "counters",
            "printable",
            "venue",
            "book",
            "capture",
            "protocol",
            "latency",
            "ring",
            "remote",
            "socket",
            "flight",
        ],
    ),
    (
        "shard",
        &[
            "instrument",
            "tick",
            "clock",
            "pulse",
            "faults",
            "counters",
            "memory",
            "protocol",
            "session",
            "latency",
            "ring",
            "remote",
            "history",
            "socket",
            "flight",
        ],
    ),
    (
        "front",
        &[
            "instrument",
            "tick",
            "clock",
            "pulse",
            "faults",
            "counters",
            "memory",
            "protocol",
            "latency",
            "ring",
            "remote",
            "history",
            "socket",
            "collector",
            "feed",
        ],
    ),
    ("watch", &["tick", "clock", "complaint", "printable"]),
    ("report", &["rfc3339", "atomic_file", "printable", "latency", "flight"]),
    // wiring
    ("config", &["instrument", "printable", "venue", "protocol", "latency", "session", "ring", "shard"]),
    (
        "offline",
        &[
            "instrument",
            "tick",
            "rfc3339",
            "clock",
            "atomic_file",
            "printable",
            "venue",
            "capture",
            "protocol",
            "feed",
            "config",
        ],
    ),
    (
        "gateway",
        &[
            "instrument",
            "clock",
            "pulse",
            "threads",
            "counters",
            "memory",
            "printable",
            "venue",
            "capture",
            "protocol",
            "session",
            "latency",
            "ring",
            "remote",
            "history",
            "socket",
            "journal",
            "flight",
            "collector",
            "feed",
            "shard",
            "front",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "clock",
            "complaint",
            "printable",
            "venue",
            "capture",
            "protocol",
            "watch",
            "report",
            "config",
            "offline",
            "gateway",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Rooms that do no I/O, start no task and do not know what time it is.
const PURE: &[&str] =
    &["instrument", "decimal", "tick", "rfc3339", "venue", "book", "protocol", "session", "latency"];

/// The longest file, tests counted.
const LINES_MAX: usize = 700;
struct Source {
    path: PathBuf,
    room: String,
    /// Everything before the tests, comments taken out.
    code: String,
    lines: usize,
}

/// Every Rust file below these folders of the repository.
fn rust_files(below: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        below.iter().map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found: Vec<Source> = rust_files(&["src"]).iter().map(|path| source(&root, path)).collect();
    assert!(found.len() > 40, "only {} files under {}", found.len(), root.display());
    found
}

fn source(root: &Path, path: &Path) -> Source {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let inside = path.strip_prefix(root).expect("under src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    let is_test = inside.file_name().is_some_and(|name| name == "tests.rs" || name == "model.rs");
    let before_tests = if is_test { "" } else { text.split("#[cfg(test)]\nmod tests").next().unwrap_or("") };
    let before_tests =
        before_tests.split("#[cfg(all(test, not(tickfan_loom)))]\nmod tests").next().unwrap_or("");
    let code = before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| {
        // A comment behind code; `//` within a string has a colon or quote before it here.
        line.split(" // ").next().unwrap_or("")
    });
    Source {
        room: first.trim_end_matches(".rs").to_owned(),
        code: code.collect::<Vec<_>>().join("\n"),
        lines: text.lines().count(),
        path: inside.to_owned(),
    }
}

/// The words that follow `before` in the code.
fn words_after<'a>(code: &'a str, before: &str) -> BTreeSet<&'a str> {
    let word = |rest: &'a str| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        &rest[..end]
    };
    code.match_indices(before)
        .map(|(at, _)| word(&code[at + before.len()..]))
        .filter(|w| !w.is_empty())
        .collect()
}

#[test]
fn imports_go_down_only() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    for (at, (room, imports)) in MAY_IMPORT.iter().enumerate() {
        let above: Vec<&str> = MAY_IMPORT[..at].iter().map(|(room, _)| *room).collect();
        for import in *imports {
            assert!(above.contains(import), "the table itself: {room} may not import {import}");
        }
    }
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let allowed = table.get(source.room.as_str());
        let allowed =
            allowed.unwrap_or_else(|| panic!("{} is in no room of the table", source.path.display()));
        let prefix = if source.room == "main" { "tickfan::" } else { "crate::" };
        for import in words_after(&source.code, prefix) {
            if import == source.room {
                continue;
            }
            assert!(
                allowed.contains(&import),
                "{} imports {import}, which {} may not",
                source.path.display(),
                source.room
            );
            used.entry(source.room.clone()).or_default().insert(import.to_owned());
        }
    }
    for (room, imports) in MAY_IMPORT {
        for import in *imports {
            let used = used.get(*room).is_some_and(|used| used.contains(*import));
            assert!(used, "{room} may import {import} but does not: take it out of the table");
        }
    }
}

#[test]
fn the_architecture_page_shows_the_same_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let page = std::fs::read_to_string(page).expect("docs/ARCHITECTURE.md");
    for (room, imports) in MAY_IMPORT {
        let imports = if imports.is_empty() { "nothing".to_owned() } else { imports.join(" ") };
        let row = format!("| `{room}` | {imports} |");
        assert!(page.contains(&row), "docs/ARCHITECTURE.md lacks the row: {row}");
    }
}

/// What must not stand in the code of some rooms, and what to do instead.
type Ban = (&'static str, fn(&Source) -> bool, &'static str);

const BANS: &[Ban] = &[
    ("Instant::now", |s| s.room != "clock", "only clock.rs reads the time: take `now` as an argument"),
    ("SystemTime::now", |s| s.room != "clock", "only clock.rs reads the time: take `now` as an argument"),
    ("unbounded", |_| true, "everything has a bound"),
    // The ingest thread rests while shards are busy: that is what it waits for.
    ("thread::sleep", |s| !s.path.ends_with("feed/ingest.rs"), "wait for something"),
    (
        "f64",
        |s| ["decimal", "tick", "venue", "book", "session"].contains(&s.room.as_str()),
        "money is decimal text",
    ),
    ("f32", |_| true, "money is decimal text, times are whole"),
    ("tokio", |s| PURE.contains(&s.room.as_str()), "a pure room knows no task"),
    ("std::net", |s| PURE.contains(&s.room.as_str()), "a pure room knows no socket"),
    ("std::fs", |s| PURE.contains(&s.room.as_str()), "a pure room knows no file"),
    ("clock::", |s| PURE.contains(&s.room.as_str()), "a pure room is told what time it is"),
    ("Mutex", |s| s.room == "shard" || s.room == "ring" || s.room == "session", "no lock on the tick path"),
    ("RwLock", |s| s.room == "shard" || s.room == "ring" || s.room == "session", "no lock on the tick path"),
    (
        "format!",
        |s| s.path.ends_with("protocol/json.rs") || s.path.ends_with("shard/frames.rs"),
        "written by hand",
    ),
    ("println!", |_| true, "write to a handle"),
    (".display()", |_| true, "a name may hold anything: printable::path shows it on one line"),
    (
        "unsafe",
        |s| !s.path.ends_with("socket/kernel.rs"),
        "there is none but for two questions to the kernel",
    ),
];

#[test]
fn what_must_not_be_there_is_not() {
    for source in sources() {
        for (word, applies, instead) in BANS {
            if applies(&source) {
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(told, [root.join("tests/support/skipped.rs")]);
}

#[test]
fn what_was_left_out_is_summed_up() {
    let summed_up = |code: &str, noted: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), noted).expect("written");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/skipped.awk");
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
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    assert!(manifest.expect("Cargo.toml").contains("unsafe_code = \"deny\""));
    let blocks: usize = sources().iter().map(|source| source.code.matches("unsafe {").count()).sum();
    assert_eq!(blocks, 2, "src/socket/kernel.rs asks what is not acknowledged, and whether anything is");
}
