//! Commands that fail leave what was there.

use super::*;

/// Runs something that has to fail with this code and word, and changes nothing in the folder.
fn fails(folder: &Path, (code, word): (i32, &str), args: &[&str]) {
    let state = || -> Vec<(String, Vec<u8>)> {
        let read = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap_or_default());
        names(folder).into_iter().map(read).collect()
    };
    let before = state();
    let ended = run(args);
    assert_eq!(ended.code(), Some(code), "{args:?}: {}", ended.stderr);
    assert!(ended.stderr.contains(word), "{args:?}: {}", ended.stderr);
    assert!(state() == before, "{args:?}: {:?}", names(folder));
}

const TABLES: [&str; 3] = ["gaps", "quotes", "trades"];

#[test]
fn a_convert_that_fails_leaves_what_was_there() {
    let files = Files::new();
    let good = files.write("good", trades(10));
    let bad = files.write("bad", trades(8_000) + "no line\n");
    let long = files.write("long", format!("{}1780000000000000001 {{\"type\":\"trade\",\"symbol\":\"demo:A\",\"price\":\"1e-19\",\"size\":\"1\"}}\n", trades(10)));
    let another = files.write("another", "1780000000000000000 {}\n");
    let out = files.path("out");
    for to in ["csv", "parquet"] {
        let expected: Vec<String> = TABLES.iter().map(|name| format!("{name}.{to}")).collect();
        let first = ["convert", "--to", to, "--out", text(&out)];
        let fails_with = |said: (i32, &str), more: &[&str]| fails(&out, said, &[&first, more].concat());
        fs::create_dir(&out).expect("made");
        // Nothing was there: nothing is.
        fails_with((1, "no receive time"), &["--strict", &bad]);
        let ended = run(&[&first[..], &[&good]].concat());
        assert_eq!((ended.code(), names(&out)), (Some(0), expected.clone()));
        fails_with((1, "no receive time"), &["--strict", &bad]);
        fails_with((2, "cannot open the capture"), &["no/such/file"]);
        fails_with((2, "cannot open the capture"), &[&good, "no/such/file"]);
        fails_with((2, "tell the venue"), &[&another]);
        if to == "parquet" {
            fails_with((2, "more than the 18 places"), &[&long]);
        }
        // A table that cannot take its place keeps the others from theirs.
        fs::remove_file(out.join(&expected[1])).expect("removed");
        fs::create_dir(out.join(&expected[1])).expect("made");
        fails_with((2, "cannot create it"), &[&good]);
        // A folder that was made for nothing goes.
        let nowhere = files.path("nowhere");
        let ended = run(&["convert", "--to", to, "--out", text(&nowhere), "--strict", &bad]);
        assert_eq!((ended.code(), nowhere.exists()), (Some(1), false), "{}", ended.stderr);
        fs::remove_dir_all(&out).expect("removed");
    }
    fs::create_dir(&out).expect("made");
    fs::write(out.join("lines"), "earlier\n").expect("written");
    let lines = out.join("lines");
    fails(
        &out,
        (1, "no receive time"),
        &["convert", "--to", "ndjson", "--out", text(&lines), "--strict", &bad],
    );
    fails(&out, (2, "cannot open"), &["convert", "--to", "ndjson", "--out", text(&lines), "no/such/file"]);
    // Into its own input.
    let ended = run(&["convert", "--to", "ndjson", "--out", &good, &good]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&good).expect("written").lines().count(), 10);
    // What is no file is written as it comes.
    let ended = run(&["convert", "--to", "ndjson", "--out", "/dev/stdout", &bad]);
    assert!(ended.lines == run(&["normalize", &bad]).lines && ended.lines.len() == 8_000);
}

/// A kill leaves the earlier tables too. What it leaves of the new ones goes with the next.
#[test]
fn a_convert_that_is_killed_leaves_what_was_there() {
    let files = Files::new();
    let (out, pipe) = (files.path("out"), files.path("pipe"));
    let good = files.write("good", trades(10));
    let convert = ["convert", "--to", "csv", "--out", text(&out)];
    assert_eq!(run(&[&convert[..], &[&good]].concat()).code(), Some(0));
    let read = || TABLES.map(|name| fs::read(out.join(format!("{name}.csv"))).expect("a table"));
    let before = read();
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let process = Process::start(&mut tickfan(&[&convert[..], &[text(&pipe)]].concat()));
    // It opens once there is who writes, and wants more than it gets.
    let mut writer = fs::File::options().write(true).open(&pipe).expect("a pipe");
    writer.write_all(trades(1_000).as_bytes()).expect("written");
    eventually("the new tables are begun", || names(&out).len() == 6);
    process.signal("KILL");
    assert_eq!(process.end().code(), None);
    assert!(read() == before);
    assert_eq!(names(&out).len(), 6, "what the kill left");
    assert_eq!(run(&[&convert[..], &[&good]].concat()).code(), Some(0));
    assert_eq!(names(&out), TABLES.map(|name| format!("{name}.csv")));
}

#[test]
fn a_generate_that_fails_leaves_what_was_there() {
    let files = Files::new();
    let out = files.path("out");
    fs::create_dir(&out).expect("made");
    for name in ["a.zst", "a.gz", "a"] {
        let path = out.join(name);
        let first =
            ["generate", "--venue", "kraken", "--symbols", "XBT/USD", "--seconds", "1", "--out", text(&path)];
        let none = [&first[..], &["--rate", "0"]].concat();
        fails(&out, (2, "the rate must be"), &none);
        assert_eq!(run(&[&first[..], &["--rate", "50"]].concat()).code(), Some(0));
        fails(&out, (2, "the rate must be"), &none);
    }
    assert_eq!(names(&out), ["a", "a.gz", "a.zst"]);
    // A disk that is full, for all that is written to it.
    let ended = run(&[
        "generate",
        "--venue",
        "kraken",
        "--symbols",
        "XBT/USD",
        "--seconds",
        "1",
        "--rate",
        "50",
        "--out",
        "/dev/full",
    ]);
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
}

#[test]
fn a_report_that_fails_leaves_the_page_that_was_there() {
    let files = Files::new();
    let mut log = HlogWriter::new(Vec::new(), 1_780_000_000_000_000_000).expect("begun");
    let mut histogram = tickfan::latency::histogram();
    histogram.record(1_000).expect("in its bounds");
    let second = std::time::Duration::from_secs(1);
    log.write("write", second, second, &histogram).expect("written");
    let log = files.write("a.hlog", log.into_inner());
    let out = files.path("out");
    fs::create_dir(&out).expect("made");
    let page = out.join("page.html");
    assert_eq!(run(&["report", "--html", text(&page), &log]).code(), Some(0));
    assert!(fs::read_to_string(&page).expect("written").contains("</html>"));
    let empty = files.write("empty.hlog", "");
    fails(&out, (2, "empty.hlog"), &["report", "--html", text(&page), &empty]);
    fails(&out, (2, "cannot write"), &["report", "--html", text(&out), &log]);
    assert_eq!(names(&out), ["page.html"]);
}
