//! Captures that are bad, or cannot be opened.

use super::*;

/// Puts lines into a capture that cannot be read, and gives their numbers.
fn spoil(capture: &Capture) -> [usize; 3] {
    capture.edit(|lines| {
        let time = lines[10].split(' ').next().expect("a time").to_owned();
        lines.insert(20, "not a line of a capture".to_owned());
        lines.insert(30, format!("{time} {{\"e\":\"trade\","));
        lines.insert(40, format!("{time} {{\"e\":\"trade\",\"s\":\"BTCUSDT\",\"p\":\"one\",\"q\":\"1\",\"t\":1,\"T\":1,\"m\":true}}"));
    });
    [21, 31, 41]
}

#[test]
fn bad_lines_of_a_capture_are_counted_and_told_and_cost_only_themselves() {
    let capture = Capture::generate("binance-futures", "BTCUSDT", 10, 100);
    let whole = capture.normalized();
    let bad = spoil(&capture);
    assert_eq!(capture.normalized(), whole);
    let gateway = Gateway::start(&["replay", "--speed", "0", "--wait-subscribers", "1", capture.path()]);
    let client = subscribers(&gateway, 1, &["--mode", "every"]);
    gateway.replay_has_ended();
    let counted = gateway.metric("tickfan_feed_bad_lines_total");
    assert_eq!((counted.len(), counted[0].1), (1, 3), "{counted:?}");
    let ended = gateway.stop();
    for line in bad {
        let place = format!("{}:{line}: ", capture.path());
        assert_eq!(ended.stderr.matches(&place).count(), 1, "{place} in {}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), bad.len(), "{}", ended.stderr);
    let summary = &client.end().values()[0];
    assert_eq!((number(summary, "trades"), number(summary, "quotes")), whole);
    said_goodbye(summary);
}

#[test]
fn a_strict_replay_ends_at_the_first_bad_line() {
    let capture = Capture::generate("binance-futures", "BTCUSDT", 10, 100);
    let [first, second, _] = spoil(&capture);
    let gateway =
        Gateway::start(&["replay", "--speed", "0", "--strict", "--wait-subscribers", "1", capture.path()]);
    let client = subscribers(&gateway, 1, &[]);
    let ended = gateway.process.end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("{}:{first}: ", capture.path())), "{}", ended.stderr);
    assert!(!ended.stderr.contains(&format!(":{second}: ")), "{}", ended.stderr);
    said_goodbye(&client.end().values()[0]);
    let normalize = run(&["normalize", "--strict", capture.path()]);
    assert!(!normalize.status.success(), "{normalize:?}");
    assert!(normalize.stderr.contains(&format!("{}:{first}: ", capture.path())), "{normalize:?}");
}

#[test]
fn what_cannot_begin_says_why_and_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("odd.toml");
    let config = config.to_str().expect("utf-8");
    std::fs::write(config, "[limits]\n\nops_per_second = 5\n").expect("written");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let feed = SHIPPED[2];
    let lost = folder.path().join("lost.zst");
    let lost = lost.to_str().expect("utf-8");
    for (args, words) in [
        (vec!["serve", "--config", config], vec![config, "line 3", "column 1", "ops_per_second"]),
        (vec!["serve", "--config", "no/such.toml"], vec!["no/such.toml"]),
        (vec!["replay", lost], vec![lost, "cannot open"]),
        (vec!["replay", "Cargo.toml"], vec!["Cargo.toml", "no capture"]),
        (vec!["replay", feed, "--set", "limits.ops=5"], vec!["limits.ops=...", "unknown field"]),
        (vec!["replay", feed, "--set", "ring.capacity=1000"], vec!["ring.capacity=1000", "power of two"]),
        (vec!["replay", feed, "--speed=-1"], vec!["--speed"]),
        (vec!["replay", feed, "--listen", &taken], vec!["server.listen", &taken, "in use"]),
        (vec!["replay", feed, "--admin", &taken], vec!["admin.listen", &taken, "in use"]),
        (vec!["normalize", lost], vec![lost, "cannot open"]),
    ] {
        // A later address wins over these only where the case names one.
        let serves = matches!(args[0], "serve" | "replay");
        let doors = free.chunks(2).filter(|door| serves && !args.contains(&door[0])).flatten();
        let ended = run(&args.iter().chain(doors).copied().collect::<Vec<_>>());
        assert_eq!(ended.code(), Some(2), "{args:?}: {ended:?}");
        assert!(ended.lines.is_empty(), "{args:?}: {ended:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{args:?}: no {word:?} in {}", ended.stderr);
        }
    }
}

/// A name that would begin a line of its own, colour what follows and turn its direction.
const FORGER: &str = "a\ntickfan: all is well\r\u{1b}[31m\u{202e}b";

#[cfg(unix)]
#[test]
fn the_name_of_a_file_forges_no_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |suffix: &str| folder.path().join(format!("{FORGER}{suffix}")).display().to_string();
    let (capture, log, page, tables) = (path(".txt"), path(".hlog"), path(".html"), path("-csv"));
    let generate = ["generate", "--venue", "coinbase", "--symbols", "A-B", "--seconds", "1", "--rate", "50"];
    assert_eq!(run(&[&generate[..], &["--out", &capture]].concat()).code(), Some(0));
    let mut file = std::fs::OpenOptions::new().append(true).open(&capture).expect("it was written");
    file.write_all(b"this is no record\n").expect("written");
    let logged = format!("latency.log={log}");
    let replay = ["replay", "--exit", "--speed", "0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let commands: [(&str, Vec<&str>); 9] = [
        ("inspect", vec![&capture]),
        ("inspect", vec![&capture, "/no/such/\u{1b}[31m\nfile"]),
        ("normalize", vec![&capture]),
        ("convert", vec!["--to", "csv", "--out", &tables, &capture]),
        ("check", vec![&capture]),
        ("replay", [&replay[1..], &["--set", &logged, &capture]].concat()),
        ("report", vec![&log, "--html", &page]),
        ("report", vec![&capture]),
        ("serve", vec!["--config", &tables]),
    ];
    for (command, args) in &commands {
        let ended = run(&[&[*command][..], args].concat());
        let shown = ended.lines.join("\n") + "\n" + &ended.stderr;
        let hidden = shown.chars().find(|c| *c != '\n' && tickfan::text::printable::is_hidden(*c));
        assert_eq!(hidden, None, "{command} {args:?}: {shown}");
        assert!(!shown.lines().any(|line| line.starts_with("tickfan: all is well")), "{command}: {shown}");
        let escaped = r"a\ntickfan: all is well\r\u{1b}[31m\u{202e}b";
        assert!(shown.contains(escaped), "{command} {args:?} does not name it: {shown}");
    }
    let page = std::fs::read_to_string(&page).expect("a page");
    assert!(page.contains(r"a\ntickfan: all is well"), "it is not named");
    assert!(!page.chars().any(|c| c != '\n' && tickfan::text::printable::is_hidden(c)));
}
