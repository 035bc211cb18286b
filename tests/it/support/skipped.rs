//! What a test leaves out for want of something: the one place where that is said, so that `make test` can count it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Something is not tested, because this machine lacks what it takes.
pub(crate) fn left_out(what: &str, why: &str) {
    note(&format!("{what}: {why}"));
}

/// The same where everything has to be tested that `make test` can install what it takes for: where CI is set it is a failure.
pub(crate) fn left_out_unless_ci(what: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} has to be tested: {why}");
    left_out(what, why);
}

/// Past the harness, which keeps what a test says that passes; and a line for `make test`, which names the file.
fn note(what: &str) {
    writeln!(io::stderr(), "SKIPPED: {what}").expect("stderr");
    let Some(file) = std::env::var_os("SKIPPED_TESTS") else { return };
    let thread = std::thread::current();
    // Two binaries may have a test of the same name.
    let binary = std::env::current_exe().ok();
    let binary = binary.as_deref().and_then(Path::file_name).unwrap_or_default().display();
    let line = format!("other\t{binary}\t{}\t{what}\n", thread.name().unwrap_or("?"));
    let opened = OpenOptions::new().append(true).create(true).open(file);
    opened.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of SKIPPED_TESTS");
}
