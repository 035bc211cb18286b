//! F02: the unit of times.

use super::*;

/// The receive times of what `normalize` prints, microseconds.
fn rx_us(ended: &Ended) -> Vec<u64> {
    let rx =
        |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["rx"].as_u64().expect("a time");
    ended.lines.iter().map(rx).collect()
}

#[test]
fn f02_the_unit_of_times_is_told_by_looking() {
    let files = Files::new();
    for (name, times, unit, rx) in [
        (
            "us",
            ["1660228023037049", "1660228024037049"],
            "microseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_049],
        ),
        (
            "ms",
            ["1660228023037", "1660228024999"],
            "milliseconds",
            [1_660_228_023_037_000, 1_660_228_024_999_000],
        ),
        ("s", ["1660228023", "1660228025"], "seconds", [1_660_228_023_000_000, 1_660_228_025_000_000]),
        (
            "ns",
            ["1660228023037049123", "1660228024037049999"],
            "nanoseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_049],
        ),
        (
            "s:",
            ["1660228023.037049", "1660228024.5"],
            "seconds",
            [1_660_228_023_037_049, 1_660_228_024_500_000],
        ),
        (
            "ms:",
            ["1660228023037.049", "1660228024037"],
            "milliseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_000],
        ),
        (
            "us:",
            ["1660228023037049", "1660228024037050"],
            "microseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_050],
        ),
    ] {
        let mark = if name.ends_with(':') { ":" } else { "" };
        let lines = times.iter().zip(1..).map(|(time, id)| format!("{time}{mark} {}\n", trade(id)));
        let file = files.write(name, lines.collect::<String>());
        let ended = run(&["normalize", &file]);
        assert_eq!((ended.code(), rx_us(&ended)), (Some(0), rx.to_vec()), "{name}: {}", ended.stderr);
        let report = inspected(&[&file]);
        assert_eq!((&report["time_unit"], &report["bad_lines"]), (&unit.into(), &0.into()), "{report}");
        assert_eq!(report["first_rx_ns"].as_u64().map(|ns| ns / 1_000), Some(rx[0]), "{report}");
        let shown = run(&["inspect", &file]).lines;
        assert!(shown[0].ends_with(&format!(", times in {unit}")), "{shown:?}");
        assert!(shown[1].starts_with("  from 2022-08-11T14:27:03."), "{shown:?}");
    }
    let dates = files.write("dates", format!("2022-08-11T14:27:03.037049Z {}\n", trade(1)));
    assert_eq!(inspected(&[&dates])["time_unit"], Value::Null);
    assert!(!run(&["inspect", &dates]).lines[0].contains("times in"));
}

#[test]
fn f02_a_time_in_another_unit_is_a_bad_line() {
    let files = Files::new();
    let lines = [
        format!("1660228023037049 {}\n", trade(1)),
        format!("1660228024 {}\n", trade(2)),
        format!("1660228025037049000 {}\n", trade(3)),
        format!("1660228026037049 {}\n", trade(4)),
    ];
    let file = files.write("mixed", lines.concat());
    let ended = run(&["normalize", &file]);
    assert_eq!(rx_us(&ended), [1_660_228_023_037_049, 1_660_228_026_037_049]);
    for line in [2, 3] {
        let fault =
            format!("{file}:{line}: a receive time outside of the years 2000 to 2199, in microseconds");
        assert!(ended.stderr.contains(&fault), "{}", ended.stderr);
    }
    assert!(ended.stderr.contains("bad lines 2,"), "{}", ended.stderr);
    assert_eq!(run(&["check", &file]).code(), Some(1));
    // Nor does a first line decide against all others.
    let file = files.write("first", [&lines[1], &lines[0], &lines[3]].map(String::as_str).concat());
    assert_eq!(inspected(&[&file])["time_unit"], "microseconds");
    assert_eq!(run(&["normalize", "--strict", &file]).code(), Some(1));
}

#[test]
fn f02_no_form_has_times_before_2000_or_after_2199() {
    let files = Files::new();
    for (name, good, bad) in [
        ("tardis", "2022-08-11T14:27:03.037049Z ", ["1970-01-20T05:10:28.023Z ", "2345-01-01T00:00:00Z "]),
        ("cryptofeed", "1660228023.037049: ", ["1660228.023037: ", "1660228023037049: "]),
        ("hftbacktest", "1660228023037049000 ", ["1660228023037049 ", "9660228023037049000 "]),
    ] {
        let line = |time: &str, id| format!("{time}{}\n", trade(id));
        let file =
            files.write(name, [line(good, 1), line(bad[0], 2), line(bad[1], 3), line(good, 4)].concat());
        let ended = run(&["normalize", &file]);
        assert_eq!(rx_us(&ended), [1_660_228_023_037_049; 2], "{name}: {}", ended.stderr);
        let faults = ended.stderr.matches("a receive time outside of the years 2000 to 2199").count();
        assert_eq!(faults, 2, "{name}: {}", ended.stderr);
        assert_eq!(inspected(&[&file])["bad_lines"], 2);
    }
    let ended = run(&[
        "generate",
        "--venue",
        "native",
        "--symbols",
        "A",
        "--seconds",
        "1",
        "--rate",
        "1",
        "--start-ns",
        "0",
    ]);
    assert_eq!((ended.code(), ended.lines.len()), (Some(2), 0), "what nothing reads is not written");
}
