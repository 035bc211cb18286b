//! Random inputs for everything that reads bytes from outside. `make fuzz` does it for longer, and says where it has written an
//! input that is not stood; `TICKFAN_FUZZ_INPUT` names such a file, which is then the only one. `fuzz/corpus` has what was found.

mod mutate;
mod run;
mod targets;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tickfan::venue::WireFormat;

use crate::support::{in_repository, undisturbed};
use run::{Crash, Target};
use targets::target;

/// How long each target is fuzzed.
fn duration() -> Duration {
    let asked = std::env::var("TICKFAN_FUZZ_SECONDS").ok();
    Duration::from_secs(asked.map_or(2, |text| text.parse().expect("a number of seconds")))
}

/// The seed of random numbers: `TICKFAN_FUZZ_SEED`, or another one each time.
fn seed() -> u64 {
    let asked = std::env::var("TICKFAN_FUZZ_SEED").ok();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos().into();
    asked.map_or_else(now, |text| text.parse().expect("a number"))
}

/// Writes the input of a crash to a file, and says how it is run again.
fn report(target: &Target, crash: Crash, seed: u64) -> ! {
    let crash = target.shortened(crash);
    let folder = in_repository("target/found");
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join(format!("{}-{:08x}", target.name, crc32fast::hash(&crash.input)));
    fs::write(&file, &crash.input).expect("a file");
    panic!(
        "{} (seed {seed}): {}\nthe input is {}\nonce more: make fuzz INPUT={}",
        target.name,
        crash.why,
        String::from_utf8_lossy(&crash.input),
        file.display()
    );
}

/// The input that alone is asked for, if it is one of this target: its file is named for it.
fn asked_input() -> Option<PathBuf> {
    std::env::var_os("TICKFAN_FUZZ_INPUT").filter(|file| !file.is_empty()).map(PathBuf::from)
}

fn is_of(file: &Path, target: &str) -> bool {
    let parent = file.parent().and_then(Path::file_name);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let hash = name.strip_prefix(target).and_then(|rest| rest.strip_prefix('-'));
    parent.is_some_and(|folder| folder == target)
        || hash.is_some_and(|hash| hash.len() == 8 || hash.starts_with("running"))
}

/// Fuzzes a target for a while.
fn fuzz(name: &'static str) {
    let _undisturbed = undisturbed();
    let target = target(name);
    if let Some(file) = asked_input() {
        assert!(PLANTED.iter().any(|(name, _)| is_of(&file, name)), "{} names no target", file.display());
        if is_of(&file, name) {
            let input = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            match target.try_one(&input) {
                Ok(outcome) => writeln!(io::stderr(), "{name}: {outcome}").expect("stderr"),
                Err(crash) => report(&target, crash, 0),
            }
        }
        return;
    }
    // Empty: all.
    let asked = std::env::var("TICKFAN_FUZZ_TARGET").unwrap_or_default();
    assert!(asked.is_empty() || PLANTED.iter().any(|(name, _)| *name == asked), "{asked} is no target");
    if !asked.is_empty() && asked != name {
        return;
    }
    let (seed, start, duration) = (seed(), Instant::now(), duration());
    let summary = match target.fuzz(seed, |_| start.elapsed() < duration) {
        Ok(summary) => summary,
        Err(crash) => report(&target, crash, seed),
    };
    writeln!(
        io::stderr(),
        "fuzz {name}: {} inputs, {} with an outcome of their own, seed {seed}",
        summary.inputs,
        summary.new.len()
    )
    .expect("stderr");
    if std::env::var_os("TICKFAN_FUZZ_KEEP").is_some() {
        keep(name, &summary.new);
    }
}

/// Adds inputs to the corpus: the shortest of those that brought something new (`TICKFAN_FUZZ_KEEP`).
fn keep(name: &str, inputs: &[Vec<u8>]) {
    let mut inputs: Vec<_> = inputs.iter().filter(|input| input.len() <= 300).collect();
    inputs.sort_by_key(|input| input.len());
    for input in inputs.iter().take(24) {
        let file = in_repository("fuzz/corpus").join(name).join(format!("{:08x}", crc32fast::hash(input)));
        fs::write(file, input).expect("written");
    }
}

#[test]
fn any_request_is_read_or_refused() {
    fuzz("request");
}

#[test]
fn any_query_is_read_or_refused() {
    fuzz("query");
}

#[test]
fn any_capture_is_read_to_its_end_or_refused() {
    fuzz("capture");
}

#[test]
fn any_line_of_a_publisher_is_read_or_refused() {
    fuzz("native");
}

#[test]
fn any_frame_of_coinbase_is_read_or_refused() {
    fuzz("coinbase");
}

#[test]
fn any_frame_of_binance_is_read_or_refused() {
    fuzz("binance");
}

#[test]
fn any_frame_of_binance_futures_is_read_or_refused() {
    fuzz("binance-futures");
}

#[test]
fn any_frame_of_kraken_is_read_or_refused() {
    fuzz("kraken");
}

/// What a target is made to panic at: an outcome that some changed input has. The random numbers are the same each time, so that the
/// speed of the machine makes no difference.
const PLANTED: [(&str, &str); 8] = [
    ("request", "unknown `do`"),
    ("query", "is given twice"),
    ("capture", "the recording is torn"),
    ("native", "more than 28 digits"),
    ("coinbase", "not a decimal number"),
    ("binance", "not a decimal number"),
    ("binance-futures", "not a decimal number"),
    ("kraken", "a price is not negative"),
];

/// Each is found within so many inputs: some seconds at most, as the short form has.
const INPUTS_MAX: u64 = 10_000;

#[test]
fn a_panic_that_is_planted_in_a_target_is_found_and_comes_again_from_its_file() {
    let _undisturbed = undisturbed();
    let has_target = |wire: &WireFormat| PLANTED.iter().any(|(name, _)| *name == wire.name());
    assert!(WireFormat::ALL.iter().all(has_target), "a venue has no target");
    for (name, word) in PLANTED {
        let Target { mut seeds, read, .. } = target(name);
        // Its corpus may have what is to be found.
        seeds.retain(|seed| !read(seed).contains(word));
        let panics = Box::new(move |input: &[u8]| {
            let outcome = read(input);
            assert!(!outcome.contains(word), "planted: {word}");
            outcome
        });
        let broken = Target { name, seeds, read: panics };
        let Err(crash) = broken.fuzz(1, |inputs| inputs < INPUTS_MAX) else {
            panic!("{name}: {word} is not found")
        };
        let found = crash.input.len();
        let crash = broken.shortened(crash);
        assert!(crash.input.len() <= found, "{name}: {crash:?}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), &crash.input).expect("written");
        let again = broken.try_one(&fs::read(file.path()).expect("read")).expect_err(name);
        assert_eq!(
            (again.why, crash.why),
            (format!("planted: {word}"), format!("planted: {word}")),
            "{name}"
        );
    }
}
