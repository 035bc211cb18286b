//! The files of the past.

use super::*;

#[test]
fn what_a_kill_leaves_behind_is_removed_by_the_next_run() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.trades(&["demo:A"], 2 * RING);
    let Sequencer { gateway, dir, .. } = sequencer;
    let history = dir.path().join(".history");
    let own = names(&history);
    let notes = history.join("history-1.1.ticks");
    std::fs::write(&notes, "something of somebody else's").expect("written");
    assert_eq!(history_files(dir.path()), 2);
    // Another run in the same folder leaves it alone as long as it lives.
    let record = format!("record.dir={}", dir.path().display());
    let beside = Gateway::publishing(r#"["demo"]"#, &["record.enabled=true", &record]);
    assert_eq!(history_files(dir.path()), 3);
    beside.stop();
    assert_eq!(history_files(dir.path()), 2);
    gateway.process.signal("KILL");
    gateway.process.end();
    assert_eq!(history_files(dir.path()), 2);
    // Such files once lay among the recordings, where a pattern took them for captures.
    let [own] = own.as_slice() else { panic!("{own:?}") };
    std::fs::copy(history.join(own), dir.path().join(own)).expect("copied");
    let next = Gateway::publishing(r#"["demo"]"#, &["record.enabled=true", &record]);
    assert_eq!(history_files(dir.path()), 2, "its own, and what is none");
    assert_eq!(names(dir.path()), [".history", "publish"]);
    next.stop();
    assert_eq!(history_files(dir.path()), 1);
    assert!(notes.exists());
}

#[test]
fn what_is_kept_for_the_past_is_no_capture_of_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let (record, catalog) =
        (format!("record.dir={}", dir.path().display()), format!("replay.dir={}", dir.path().display()));
    let settings = ["record.enabled=true", "record.flush_ms=1", &record, &catalog];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let mut publisher = connect(gateway.publish.expect("it listens"));
    writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
    writeln!(publisher, r#"{{"type":"trade","symbol":"demo:A","price":"1","size":"2"}}"#).expect("sent");
    // As long as it records, and what it leaves.
    let listed = || Gateway::list(gateway.http, "/api/replays", "replays").0;
    eventually("the recording is offered", || !listed().is_empty());
    let captures: Vec<Value> = listed().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(captures, ["publish"]);
    assert_eq!(
        (history_files(dir.path()), names(dir.path())),
        (1, vec![".history".into(), "publish".into()])
    );
    drop(publisher);
    gateway.stop();
    assert_eq!(names(dir.path()), ["publish"], "the folder of the history goes with it");
    let pattern = format!("exec \"$0\" inspect {}/*", dir.path().display());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &pattern, env!("CARGO_BIN_EXE_tickfan")]);
    assert_eq!(crate::support::Process::start(&mut shell).end().code(), Some(0));
}
