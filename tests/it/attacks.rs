//! The short form of `make attack`: beside each kind of hostile client the gateway serves, the account of a healthy
//! client holds, and violations are closed with their codes. Latency is judged by `make attack` alone.

use crate::support::{python, undisturbed};

const CASES: usize = 16;

#[test]
fn a_healthy_client_is_accounted_for_beside_hostile_ones() {
    let _undisturbed = undisturbed();
    let mut attack = python("attack.py", &[env!("CARGO_BIN_EXE_tickfan"), "--short"]);
    // It takes longer than the patience for the end of a script, and prints a line for each case.
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.starts_with(&format!("{CASES} cases, "))) {
        lines.push(attack.line());
    }
    let ended = attack.end();
    assert_eq!(ended.code(), Some(0), "{lines:#?}\n{}", ended.stderr);
    assert_eq!(lines.iter().filter(|line| line.ends_with(": ok")).count(), CASES, "{lines:#?}");
}
