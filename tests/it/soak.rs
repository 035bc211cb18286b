//! The short form of `make soak`: 50 clients of all kinds with a replay, a publisher and a recording, each with an
//! account of its own. The growth of memory is judged by `make soak` alone: it needs more than 10 minutes.

use crate::support::{python, undisturbed};

#[test]
fn every_number_is_accounted_for_by_clients_of_all_kinds() {
    let _undisturbed = undisturbed();
    let mut soak = python("soak.py", &[env!("CARGO_BIN_EXE_tickfan"), "--seconds", "20"]);
    // It takes longer than the patience for the end of a script, and prints its progress.
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.ends_with("all holds")) {
        lines.push(soak.line());
    }
    let ended = soak.end();
    assert_eq!(ended.code(), Some(0), "{lines:#?}\n{}", ended.stderr);
    // Every check was made, but for memory.
    assert_eq!(lines.iter().filter(|line| line.starts_with("ok   ")).count(), 11, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("ok   memory: not judged, ")), "{lines:#?}");
}

#[test]
fn an_account_finds_what_is_wrong() {
    let ended = python("accounts_check.py", &[]).end();
    assert_eq!(ended.code(), Some(0), "{:#?}\n{}", ended.lines, ended.stderr);
    assert!(ended.lines.iter().any(|line| line.ends_with(" cases")), "{:#?}", ended.lines);
}
