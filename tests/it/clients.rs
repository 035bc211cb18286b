//! The clients that ship, against the gateway, and the trading page, which Chromium opens: each has tests of its own, in
//! its own language, which are run here.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use crate::support::skipped::left_out_unless_ci;
use crate::support::{Gateway, in_repository};

/// The oldest Node that the TypeScript client runs in.
const NODE_MIN: u32 = 20;

/// Why there is no Node to run its tests with, if there is none.
fn no_node() -> Option<String> {
    let version = match Command::new("node").arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => return Some(format!("node: {error}")),
    };
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MIN) {
        return Some(format!("node is {version:?}, and has to be {NODE_MIN} or newer"));
    }
    Command::new("npm").arg("--version").output().err().map(|error| format!("npm: {error}"))
}

/// Why there is no browser to open the page with, if there is none; `TICKFAN_CHROMIUM` may name one.
fn no_browser() -> Option<String> {
    let browser = std::env::var("TICKFAN_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    Command::new(&browser).arg("--version").output().err().map(|error| format!("{browser}: {error}"))
}

/// Why there is no page to open, if there is none.
fn no_page() -> Option<String> {
    let gateway = Gateway::start(&["replay", "--loop", "feeds/coinbase.zst"]);
    let (_, page) = Gateway::get(gateway.http, "/");
    (!page.contains("id=\"rows\""))
        .then(|| "it is not in this binary: `make ui` builds it, before cargo".to_owned())
}

fn npm(folder: &Path, args: &[&str]) -> Output {
    let run = || {
        let mut command = Command::new("npm");
        command.args(args).current_dir(folder).env("TICKFAN_BIN", env!("CARGO_BIN_EXE_tickfan"));
        command.output().expect("npm runs")
    };
    let mut output = run();
    // A renderer of Chromium itself broke down, which no page can bring about: everything once more, and then it counts.
    if !output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Target crashed") {
        writeln!(io::stderr(), "AGAIN: Chromium crashed in `npm {}`", args.join(" ")).expect("stderr");
        output = run();
    }
    assert!(
        output.status.success(),
        "npm {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Installs what the lock file names, if it was not installed yet. No script of a package runs.
fn install(folder: &Path) {
    // Two tests are of one folder.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lock = fs::read(folder.join("package-lock.json")).expect("a lock file");
    let installed = folder.join("node_modules/installed");
    if fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return;
    }
    npm(folder, &["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    fs::write(&installed, lock).expect("written");
}

/// How many tests the runner's summary says this of: `# pass 77`, or `ℹ pass 77` in newer ones.
fn count(summary: &str, word: &str) -> Option<u64> {
    let of_word = |line: &str| line.split_once(&format!(" {word} "))?.1.trim().parse().ok();
    summary.lines().rev().find_map(of_word)
}

/// Runs a script of a folder that tests it; nothing may be left out.
fn test_in(folder: &str, script: &str) {
    let folder = in_repository(folder);
    install(&folder);
    let output = npm(&folder, &["run", script]);
    let summary = String::from_utf8_lossy(&output.stdout);
    assert_eq!((count(&summary, "fail"), count(&summary, "skipped")), (Some(0), Some(0)), "{summary}");
    assert!(count(&summary, "pass").is_some_and(|passed| passed > 0), "{summary}");
}

#[test]
fn the_typescript_client_does_what_it_says() {
    match no_node() {
        Some(why) => left_out_unless_ci("clients/ts", &why),
        None => test_in("clients/ts", "test"),
    }
}

#[test]
fn the_trading_page_reckons_right() {
    match no_node() {
        Some(why) => left_out_unless_ci("ui", &why),
        None => test_in("ui", "test"),
    }
}

#[test]
fn the_trading_page_in_a_browser() {
    match no_node().or_else(no_browser).or_else(no_page) {
        Some(why) => left_out_unless_ci("the trading page in a browser", &why),
        None => test_in("ui", "browser"),
    }
}
