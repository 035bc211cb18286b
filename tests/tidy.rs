//! The rules of `docs/ARCHITECTURE.md` that a program can read: which module may import which, how long functions and
//! files may be, which may know the time, and what must not be there at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/source.rs"]
mod source;

use graph::Graph;
use source::{Source, Test, files, parsed, root, rust_files, sources, tests_of};

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
    ("main", &["system", "cli"]),
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

/// The longest file, of code or of tests.
const LINES_MAX: usize = 700;
/// Files that are longer, with the reason.
const LONG_FILES: &[(&str, &str)] = &[
    ("tests/support/attack.py", "the kinds of hostile clients, each a few lines, and one loop over them"),
    ("tests/support/soak.py", "all that is accounted for in a soak, which is one run"),
];
/// The longest function, without blank lines and comments.
const FUNCTION_LINES_MAX: usize = 60;
/// Functions that are longer, with the reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];
/// The most fields of a struct.
const FIELDS_MAX: usize = 15;
/// Structs that have more, with the reason.
const WIDE_STRUCTS: &[(&str, &str, &str)] = &[
    ("config/limits.rs", "LimitsConfig", "a field for each key of [limits]"),
    ("session/mod.rs", "Session", "laid out by hand, so that a write touches few lines of memory"),
    ("shard/report.rs", "ClientRow", "a field for each column of /api/clients"),
    ("system/counters.rs", "ShardCounters", "a field for each counter of a shard"),
];
/// Names that stand for several types, with the reason.
const SHARED_NAMES: &[(&str, &str)] = &[
    ("Ack", "what the gateway writes, and what a client reads of the same message"),
    ("Hello", "what the gateway writes, and what a client reads of the same message"),
    ("Lag", "what the gateway writes, and what a client reads of the same message"),
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

/// A type that other modules may name has a name of its own, so that a search for it finds nothing else. Types that
/// are private or `pub(super)` may share theirs.
#[test]
fn a_name_stands_for_one_type() {
    let shared = several_types(sources());
    let mut faults = Vec::new();
    for (name, files) in &shared {
        if !SHARED_NAMES.iter().any(|(exempt, _)| exempt == name) {
            faults.push(format!("`{name}` is a type in {}", files.join(", ")));
        }
    }
    for (name, reason) in SHARED_NAMES {
        if !shared.contains_key(*name) {
            faults.push(format!("`{name}` needs no exemption"));
        }
        assert!(reason.len() > 20, "`{name}` is exempt, and why?");
    }
    assert!(faults.is_empty(), "rename them: {faults:#?}");
}

/// The names of which there are several types, with the files that define them.
fn several_types(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        for name in &source.shared_types {
            defined.entry(name.clone()).or_default().push(source.path.display().to_string());
        }
    }
    defined.retain(|_, files| files.len() > 1);
    defined
}

#[test]
fn types_of_one_name_are_seen_however_they_are_defined() {
    let files = [
        (
            "a/mod.rs",
            "pub struct A; pub(crate) enum B {} pub trait C {} pub type D = A; pub union E { e: u8 }",
        ),
        ("b/mod.rs", "pub type A = u8; pub trait B {} pub(crate) struct C; pub enum D {} pub struct E;"),
        ("a/b.rs", "pub struct F; pub struct G; pub struct H; pub struct I; mod i { pub struct J; }"),
        (
            "b/a.rs",
            "struct F; pub(super) struct G; pub(in crate::b) struct H; pub struct J;
             #[cfg(test)] mod tests { pub struct I; }",
        ),
    ];
    let found = several_types(&files.map(|(path, text)| parsed(Path::new(path), text)));
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["A", "B", "C", "D", "E", "J"]);
    assert_eq!(found["J"], ["a/b.rs", "b/a.rs"]);
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
    let mut faults = Vec::new();
    for path in files(&["src", "tests", "clients/ts/test"], &["rs", "py", "ts"]) {
        let lines = std::fs::read_to_string(&path).expect("a readable file").lines().count();
        let path = path.strip_prefix(root()).expect("of the repository").to_string_lossy();
        let reason = LONG_FILES.iter().find(|(long, _)| *long == path).map(|(_, reason)| reason);
        match (lines > LINES_MAX, reason) {
            (true, None) => faults.push(format!("{path} has {lines} lines: split it")),
            (false, Some(_)) => faults.push(format!("{path} needs no exemption")),
            (_, reason) => {
                assert!(reason.is_none_or(|reason| reason.len() > 20), "{path} is exempt, and why?");
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    for (path, _) in LONG_FILES {
        assert!(root().join(path).exists(), "{path} is exempt, and not there");
    }
}

/// What is left out is counted by `make test`, which reads what one module writes; and recorded captures are looked up in one.
#[test]
fn what_tests_leave_out_is_said_in_one_place() {
    let one_place = |word: &str| {
        let mut told = rust_files(&["src", "tests"]);
        told.retain(|path| !path.ends_with("tests/tidy.rs"));
        told.retain(|path| std::fs::read_to_string(path).expect("a readable file").contains(word));
        told
    };
    assert_eq!(one_place("SKIPPED"), [root().join("tests/it/support/skipped.rs")]);
    assert_eq!(one_place("var_os(\"TICKFAN_FEEDS\")"), [root().join("tests/it/support/recorded.rs")]);
}

/// `make test` counts ignored tests as those that need captures, and runs them where the captures are.
#[test]
fn a_test_is_ignored_if_it_needs_recorded_captures_and_for_no_other_reason() {
    let (mut ignored, mut faults) = (0, Vec::new());
    for path in rust_files(&["src", "tests/it"]) {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        for Test { name, ignored_for, body } in tests_of(&text) {
            let needs = body.contains("recorded([") || body.contains("recorded(names)");
            let reason = needs.then_some("needs recorded captures: TICKFAN_FEEDS");
            if ignored_for.as_deref() != reason {
                faults.push(format!("{}: {name}", path.display()));
            }
            ignored += u32::from(needs);
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(ignored > 10, "only {ignored}");
    let [test] = &tests_of("#[test]\n#[ignore]\nfn a() {\n    b();\n}")[..] else { panic!("one test") };
    assert_eq!((test.name.as_str(), test.ignored_for.as_deref()), ("a", Some("")));
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

/// A filter that takes no test makes cargo run none, and succeed.
#[test]
fn the_makefile_names_tests_that_there_are() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("Makefile");
    let filters = makefile.split_whitespace().filter(|word| word.contains("::"));
    let filters: BTreeSet<&str> = filters.filter(|word| !word.starts_with("ring::")).collect();
    assert!(filters.len() > 5, "{filters:?}");
    for filter in filters {
        let (module, begin) = filter.split_once("::").expect("a module");
        let places = [format!("tests/it/{module}.rs"), format!("tests/it/{module}")];
        let is_below = |path: &PathBuf| places.iter().any(|place| path.starts_with(root().join(place)));
        let takes = rust_files(&["tests/it"]).into_iter().filter(is_below).any(|path| {
            let text = std::fs::read_to_string(path).expect("a readable file");
            tests_of(&text).iter().any(|test| test.name.starts_with(begin))
        });
        assert!(takes, "{filter} takes no test");
    }
}

#[test]
fn there_are_two_unsafe_calls() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"));
    assert!(manifest.expect("Cargo.toml").contains("unsafe_code = \"deny\""));
    let blocks: usize = sources().iter().map(|source| source.code.matches("unsafe {").count()).sum();
    assert_eq!(blocks, 2, "src/net/kernel.rs asks what is not acknowledged, and whether anything is");
}

/// The widest line of a document, but for tables, blocks and addresses, which cannot be broken.
const COLUMNS_MAX: usize = 100;

#[test]
fn documents_are_narrow() {
    let docs = std::fs::read_dir(root().join("docs")).expect("docs");
    let docs = docs.map(|entry| entry.expect("an entry").path());
    let pages = docs.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root().join(page));
    let mut wide = Vec::new();
    for page in pages.chain(others) {
        let text = std::fs::read_to_string(&page).expect("a page");
        let mut in_block = false;
        for (n, line) in text.lines().enumerate() {
            in_block ^= line.trim_start().starts_with("```");
            let is_long = line.chars().count() > COLUMNS_MAX;
            let may_be = in_block || line.starts_with('|') || line.starts_with("<https://");
            if is_long && !may_be {
                wide.push(format!("{}:{}", page.display(), n + 1));
            }
        }
    }
    assert!(wide.is_empty(), "more than {COLUMNS_MAX} columns: {wide:#?}");
}
