use super::*;
use crate::protocol::Moment;

fn load(text: &str, environment: &[(&str, &str)], settings: &[&str]) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).expect("written");
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    Config::load(Some(&path), environment, &settings).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_has_every_key_at_its_default() {
    let shipped: Config = toml::from_str(SHIPPED).expect("the shipped file is good");
    assert_eq!(Config { feed: Vec::new(), ..shipped.clone() }, Config::bare());
    assert_eq!(shipped.check_together().map_err(|e| e.to_string()), Ok(()));
    let table = shipped_table();
    let debug = format!("{shipped:?}");
    let keys: usize = table.values().filter_map(Value::as_table).map(Table::len).sum();
    // Each field of each section prints as `name: `; the file contains every key.
    let fields = debug.matches(": ").count();
    assert!(keys > 20 && fields > keys, "{keys} keys, {fields} fields");
}

#[test]
fn later_sources_win() {
    let text = "[limits]\nops_per_s = 1\n[[feed]]\nkind = \"replay\"\nfiles = [\"a\"]\n";
    let environment = [("TICKFAN_LIMITS_OPS_PER_S", "2"), ("TICKFAN_FEEDS", "/x"), ("TICKFAN_CMD", "x")];
    let config = load(text, &environment, &[]).expect("good");
    assert_eq!(config.limits.ops_per_s.get(), 2);
    let settings =
        ["limits.ops_per_s=3", "publish.token=1234567890123456", "feed.0.speed=10", "feed.0.loop=true"];
    let config = load(text, &[("TICKFAN_FEED_0_SPEED", "7")], &[]).expect("good");
    assert!((config.feed[0].speed.factor() - 7.0).abs() < 1e-9);
    let config = load(text, &environment, &settings).expect("good");
    assert_eq!(config.limits.ops_per_s.get(), 3);
    assert_eq!(config.publish.token, "1234567890123456", "text stays text");
    assert!(config.feed[0].looped && (config.feed[0].speed.factor() - 10.0).abs() < 1e-9);
    assert!(config.feed[0].files[0].is_absolute(), "relative to the file");
}

#[test]
fn a_feed_begins_and_ends_at_times_with_an_offset_too() {
    // F12
    let feed =
        |key: &str, text: &str| format!("[[feed]]\nkind = \"replay\"\nfiles = []\n{key} = \"{text}\"\n");
    let at = Some(Moment::At(1_780_000_000_000_000_000));
    for text in ["2026-05-28T20:26:40Z", "2026-05-28T20:26:40+00:00", "2026-05-28t13:26:40-07:00"] {
        let config = [load(&feed("from", text), &[], &[]), load(&feed("to", text), &[], &[])];
        let [from, to] = config.map(|config| config.expect(text).feed.remove(0));
        assert_eq!((from.from, from.to, to.from, to.to), (at, None, None, at), "{text}");
        let setting = format!("feed.0.from={text}");
        let config = load(&feed("to", ""), &[], &[&setting]).expect(text);
        assert_eq!(config.feed[0].from, at, "{text}");
    }
    let error = load(&feed("from", "2026-05-28T20:26:40+24:00"), &[], &[]).expect_err("no such offset");
    assert!(error.contains("line 4, column 8") && error.contains("not a moment"), "{error}");
}

#[test]
fn errors_point_at_the_place() {
    for (text, words) in [
        ("[server]\nlistn = 1\n", ["line 2, column 1", "unknown field `listn`"]),
        ("[ring]\ncapacity = 1000\n", ["line 2, column 12", "power of two"]),
        ("[ring\n", ["line 1", "column"]),
        ("[server]\nlisten = \"here\"\n", ["line 2, column 10", "socket address"]),
        ("[limits]\nops_per_s = 0\n", ["line 2, column 13", "nonzero"]),
        ("[publish]\nvenues = [\"A b\"]\n", ["line 2", "\"A b\" is no venue"]),
        ("[[feed]]\nkind = \"replay\"\nfiles = []\nspeed = -1.0\n", ["line 4, column 9", "speed"]),
        (
            "[publish]\ntoken = \"fifteen-letters\"\n",
            ["line 2, column 9", "publish.token: a token has at least 16"],
        ),
        ("[publish]\ninstruments_percent_max = 101\n", ["line 2", "from 0 to 100"]),
        ("[session]\noutbox_bytes_max = 1\n", ["line 2", "at least 4096"]),
        ("[record]\nhistory_bytes_max = 9\n", ["line 2, column 21", "0 (none), or at least 1048576"]),
        ("[latency]\nlog_bytes_max = 9\n", ["line 2, column 17", "at least 65536"]),
        ("[flight]\nfile_bytes_max = 9\n", ["line 2, column 18", "at least 262144"]),
        ("[flight]\nbudget = \"write.p50<1ns,x\"\n", ["line 2, column 10", "column 15: `x` has no `<`"]),
        (
            "[shard]\ntape_bytes = 1\n",
            ["line 2, column 1", "`tape_bytes` is called `shard.frame_ring_bytes` now"],
        ),
        (
            "[replay]\norders_max = 1\n",
            ["line 2, column 1", "`orders_max` is called `replay.commands_max` now"],
        ),
        ("[latency]\ninterval_ms = 99\n", ["line 2, column 15", "0 (off), or from 100 to 60000"]),
    ] {
        let error = load(text, &[], &[]).expect_err(text);
        for word in words {
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
    for (setting, word) in [
        ("server", "section.key=value"),
        ("nowhere.x=1", "no section [nowhere]"),
        ("server.x=1", "unknown field `x`"),
        ("ring.capacity=3", "power of two"),
        ("feed.7.speed=1", "number 7"),
    ] {
        let error = load("", &[], &[setting]).expect_err(setting);
        let name = setting.split('=').next().unwrap_or(setting);
        assert!(error.contains(word) && error.contains(name), "{error}");
        // A value is shown where it cannot be a token.
        assert!(word != "power of two" || error.contains(setting), "{error}");
    }
    let error = load("", &[("TICKFAN_RING_SIZE", "3")], &[]).expect_err("no such key");
    assert!(error.contains("TICKFAN_RING_SIZE") && error.contains("unknown field `size`"), "{error}");
}

#[test]
fn errors_show_no_token() {
    const SHORT: &str = "q7Zk2-hidden";
    let text = |line: &str| load(&format!("[replay]\n{line}\n"), &[], &[]).expect_err(line);
    let errors = [
        text(&format!("control_token = \"{SHORT}\"")),
        text(&format!("control_token = \"{SHORT}")),
        text(&format!("control_token = [\"{SHORT}\"]")),
        text(&format!("control_tokn = \"{SHORT}\"")),
        text(&format!("control_token = \"\"\"\n{SHORT}\\q\"\"\"")),
        load("", &[], &[&format!("publish.token={SHORT}")]).expect_err("too short"),
        load("", &[], &[&format!("publish:token={SHORT}")]).expect_err("no section"),
        load("", &[], &[&format!("publish.tokn={SHORT}")]).expect_err("no key"),
        load("", &[("TICKFAN_PUBLISH_TOKN", SHORT)], &[]).expect_err("no key"),
        load("", &[], &[&format!("nowhere.token={SHORT}")]).expect_err("no section"),
        load("", &[("TICKFAN_PUBLISH_TOKEN", SHORT)], &[]).expect_err("too short"),
    ];
    for error in &errors {
        assert!(!error.contains("hidden"), "{error}");
    }
    assert!(
        errors[0].contains("line 2, column 17: replay.control_token: a token has at least 16"),
        "{}",
        errors[0]
    );
    assert!(errors[2].contains("replay.control_token: a token is text"), "{}", errors[2]);
    // A number would be shown as a wrong type.
    assert!(!text("control_token = 1234567890").contains("1234567890"));
}
