//! The instruments that publishers list, and what a line of theirs may say.

use super::*;

fn refused(gateway: &Gateway, what: &str) -> u64 {
    let label = format!("what=\"{what}\"");
    let rows = gateway.metric("tickfan_feed_refused_total");
    rows.iter().filter(|(labels, _)| labels.contains(&label)).map(|(_, count)| count).sum()
}

#[test]
fn a_publisher_names_as_many_instruments_as_are_its_share() {
    let gateway = Gateway::publishing(r#"["demo"]"#, &["publish.instruments_per_publisher_max=3"]);
    let mut stream = publisher(&gateway);
    let named = ["demo:A", "demo:B", "demo:C", "demo:D", "demo:A", "demo:E", "demo:C"];
    stream.get_mut().write_all(named.map(trade).concat().as_bytes()).expect("sent");
    let told = faults(&mut stream);
    let msg = |symbol| {
        format!(
            "field `symbol`: {symbol:?}: no room for another instrument of this publisher: it has named 3"
        )
    };
    assert_eq!(told, [(5, msg("demo:D")), (7, msg("demo:E"))], "it goes on with those it has");
    // Another one has a share of its own.
    let mut other = publisher(&gateway);
    other.get_mut().write_all([trade("demo:D"), trade("demo:A")].concat().as_bytes()).expect("sent");
    assert_eq!(faults(&mut other), []);
    crate::support::eventually("it is counted", || refused(&gateway, "instruments") == 2);
    let (status, rows) = Gateway::get(gateway.http, "/api/symbols");
    assert_eq!(status, 200);
    assert!(rows.contains("demo:D") && !rows.contains("demo:E"), "{rows}");
}

#[test]
fn publishers_leave_room_for_what_feeds_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("feed");
    // The first lines are read before the replay begins: the last symbols are met only when it plays.
    let symbols = std::iter::repeat_n("F0", 300).chain(["F1", "F2", "F3"]);
    let lines = (1_780_000_000u64..).zip(symbols).map(|(second, name)| {
        let tick = json!({"type": "trade", "symbol": format!("feed:{name}"), "price": "1", "size": "1"});
        format!("{second}000000000 {tick}\n")
    });
    std::fs::write(&capture, lines.collect::<String>()).expect("written");
    let settings = Gateway::settings(&[
        "publish.listen=127.0.0.1:0",
        "publish.token=token-of-the-tests",
        "limits.instruments_max=8",
        "publish.instruments_percent_max=50",
    ]);
    let capture = capture.to_str().expect("UTF-8");
    let args = ["replay", "--speed", "0", "--wait-subscribers", "1", capture];
    let gateway = Gateway::start(&[&args[..], &settings].concat());
    let mut stream = publisher(&gateway);
    let names: String = (0..20).map(|n| trade(&format!("demo:P{n:02}"))).collect();
    stream.get_mut().write_all((names + &trade("demo:P00")).as_bytes()).expect("sent");
    let told = faults(&mut stream);
    assert_eq!(told.len(), 17, "feed:F0 and three of demo are half of the table: {told:?}");
    assert!(told.iter().all(|(_, msg)| msg.contains("4 are listed, the rest is kept for feeds")), "{told:?}");

    let mut client = RawSocket::open(&gateway, "?symbols=feed:*&channel=trade");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 4 {
        let message = client.message();
        if message["type"] == "trade" {
            seen.insert(message["symbol"].as_str().expect("a name").to_owned());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["feed:F0", "feed:F1", "feed:F2", "feed:F3"]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_counted() {
    let gateway = Gateway::publishing(r#"["demo","kraken"]"#, &[]);
    let mut stream = publisher(&gateway);
    let now_us = Clock::real().wall_ns() / 1_000;
    let at = |ts: u64| {
        json!({"type": "trade", "symbol": "demo:A", "price": "1", "size": "1", "ts": ts}).to_string()
    };
    let trade_at = |symbol: &str, price: &str| {
        json!({"type": "trade", "symbol": symbol, "price": price, "size": "1"}).to_string()
    };
    let bid =
        |symbol: &str| json!({"type": "quote", "symbol": symbol, "bid": "-1", "bid_size": "1"}).to_string();
    let lines = [
        (trade_at("demo:A\u{202e}B", "1"), "has no character that is not seen or turns others round: U+202E"),
        (trade_at("demo:A\u{200b}", "1"), "U+200B"),
        (trade_at("demo:A\u{a0}B", "1"), "without spaces"),
        (trade_at("other:A", "1"), "venue \"other\" may not be published"),
        (trade_at("kraken:XBT/USD", "-1"), "field `price`: -1: a price is not negative on this venue"),
        (trade_at("kraken:XBT/USD", "0"), "field `price`: 0: a trade has a price above 0 on this venue"),
        (bid("kraken:XBT/USD"), "field `bid`: -1: a price is not negative on this venue"),
        (at(1_000_000), "field `ts`: 1000000 microseconds since 1970 are not between 2000 and 2199"),
        (at(now_us + 90_000_000_000), "microseconds since 1970 are more than a day ahead"),
        (trade_at("demo:A", "-1"), ""),
        (bid("demo:A"), ""),
        (at(now_us + 80_000_000_000), ""),
        (at(now_us - 80_000_000_000_000), ""),
        (trade_at("kraken:币安/USD", "1"), ""),
    ];
    for (text, _) in &lines {
        writeln!(stream.get_mut(), "{text}").expect("sent");
    }
    let told = faults(&mut stream);
    let expected: Vec<(u64, &str)> =
        (2..).zip(lines.iter().map(|(_, msg)| *msg)).filter(|l| !l.1.is_empty()).collect();
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((number, msg), (line, word)) in told.iter().zip(expected) {
        assert_eq!(*number, line, "{msg}");
        assert!(msg.contains(word), "{msg}: {word}");
        assert!(!msg.contains(['\u{202e}', '\u{200b}', '\u{a0}']), "{msg:?}");
    }
    crate::support::eventually("all is counted", || {
        ["symbols", "numbers", "times"].map(|what| refused(&gateway, what)) == [4, 3, 2]
    });
}

#[test]
fn who_lists_thousands_waits_for_the_wildcards_of_others_and_loses_nothing() {
    const NAMES: usize = 4_000;
    const TICKS: u64 = 200;
    let gateway = Gateway::publishing(r#"["demo"]"#, &["session.outbox_bytes_max=67108864"]);
    // Each takes every instrument that is listed, and is sent nothing for a long time.
    let wild: Vec<_> = (0..50)
        .map(|_| RawSocket::open(&gateway, "?symbols=*&mode=latest&max_hz=0.01&snapshot=false"))
        .collect();
    let all = 2 * NAMES as u64 + TICKS;
    let mut client = Client::open(&gateway, "?symbols=*&channel=trade");
    let reader = std::thread::spawn(move || {
        while client.told.values().sum::<u64>() < all {
            assert!(client.step(), "it is not closed");
        }
        client
    });
    let mut many = publisher(&gateway);
    let names: String = (0..NAMES).map(|n| trade(&format!("demo:N{n:04}"))).collect();
    let writer = std::thread::spawn(move || {
        many.get_mut().write_all((names.clone() + "no tick\n" + &names).as_bytes()).expect("sent");
        // It is gone before most of it was taken.
        faults(&mut many)
    });
    let mut other = publisher(&gateway);
    for _ in 0..TICKS {
        other.get_mut().write_all(trade("demo:OTHER").as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    let told = writer.join().expect("it is told its faults");
    assert_eq!(told.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [NAMES as u64 + 2], "{told:?}");
    let client = reader.join().expect("it is told everything");
    assert!(client.ledger.held(), "{:?}", client.ledger.breaks());
    assert_eq!(client.told.len(), NAMES + 1);
    assert_eq!(client.told[&("demo:OTHER".to_owned(), "trade")], TICKS);
    assert_eq!((client.missing("feed"), client.missing("slow_consumer")), (0, 0));
    drop(wild);
    gateway.stop();
}

/// An ingest thread that takes what comes through a door, turned by hand.
struct Rig {
    door: Door,
    ingest: Ingest,
    table: Arc<InstrumentTable>,
    /// Instruments that subscriptions have taken.
    registered: Arc<AtomicUsize>,
    view: Arc<IngestView>,
    _notices: mpsc::Receiver<String>,
}

impl Rig {
    fn new() -> Self {
        let mut door = usual();
        let table = Arc::new(InstrumentTable::new(1_024));
        let (writer, _) = tick_ring(1_024, 1_024).expect("a good capacity");
        let (notices, log) = mpsc::channel(8);
        let registered = Arc::new(AtomicUsize::new(0));
        let (taken, listed) = (Arc::clone(&registered), Arc::clone(&table));
        let (_, nothing) = mpsc::channel(1);
        let view = Arc::new(IngestView::new(0));
        let ingest = Ingest::new(IngestParts {
            sequencer: Sequencer::new(Arc::clone(&table)),
            writer,
            bells: Vec::new(),
            rest: Duration::ZERO,
            replays: Vec::new(),
            replay_control: None,
            publishing: PublishingParts {
                input: Some(std::mem::replace(&mut door.input, nothing)),
                limits: LineLimits { venues: Some(vec!["demo".to_owned()]), ..LineLimits::default() },
                tap: None,
            },
            clock: Clock::real(),
            stale_after_ns: u64::MAX,
            // As with 7 wildcards.
            listing_backlog: Box::new(move || 8 * (listed.len() - taken.load(Ordering::Relaxed))),
            may_start: Box::new(|| true),
            view: Arc::clone(&view),
            notices,
            meter: Meter::off(),
            reporter: IncidentReporter::off(),
        });
        Self { door, ingest, table, registered, view, _notices: log }
    }

    /// Turns until so many instruments are listed.
    fn turn_until(&mut self, listed: usize) {
        crate::support::eventually("they are listed", || {
            self.ingest.turn(Clock::real().now());
            self.table.len() >= listed
        });
    }

    /// Turns for a while, in which nothing more is listed.
    fn turn_in_vain(&mut self) {
        let listed = self.table.len();
        for _ in 0..100 {
            self.ingest.turn(Clock::real().now());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.table.len(), listed);
    }

    /// Subscriptions take all that is listed.
    fn register(&self) {
        self.registered.store(self.table.len(), Ordering::Relaxed);
    }

    fn held(&self) -> u64 {
        self.view.publishers_held.get()
    }
}

#[test]
fn a_publisher_waits_until_what_it_listed_is_subscribed_to_and_others_go_on() {
    let mut rig = Rig::new();
    let mut many = rig.door.tcp(AUTH);
    let mut other = rig.door.tcp(AUTH);
    rig.turn_until(0);
    assert_eq!((line(&mut many), line(&mut other)), (ACK.to_owned(), ACK.to_owned()));
    let names: String = (0..40).map(|n| trade(&format!("demo:N{n:02}"))).collect();
    many.get_mut().write_all((names.clone() + "no tick\n").as_bytes()).expect("sent");
    // 16 may wait to be subscribed to when it lists another one.
    rig.turn_until(17);
    rig.turn_in_vain();
    assert_eq!(rig.held(), 1);
    let published = rig.view.published.get();
    // Of itself nothing is taken meanwhile, however often it sends; another's ticks are.
    for _ in 0..200 {
        many.get_mut().write_all(trade("demo:N00").as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_micros(100));
    }
    let reader = std::thread::spawn(move || faults(&mut many));
    rig.turn_in_vain();
    assert_eq!(rig.view.published.get(), published);
    other.get_mut().write_all(trade("demo:OTHER").as_bytes()).expect("sent");
    rig.turn_until(18);
    rig.turn_in_vain();
    assert_eq!(rig.held(), 2, "it has listed one, too");
    while rig.table.len() < 41 {
        let listed = rig.table.len();
        rig.register();
        rig.turn_until(listed + 1);
        rig.turn_in_vain();
    }
    crate::support::eventually("it is told all, and has gone", || {
        rig.ingest.turn(Clock::real().now());
        rig.register();
        reader.is_finished()
    });
    let told = reader.join().expect("told");
    assert_eq!(told.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [42], "{told:?}");
    crate::support::eventually("nobody is held", || {
        rig.ingest.turn(Clock::real().now());
        rig.held() == 0
    });
    // Each trade, and the state of each instrument.
    assert!(rig.view.published.get() >= 40 + 200 + 1 + 41);
    let named = |name: &str| rig.table.find(&Symbol::parse(name).expect("a name")).is_some();
    assert!(named("demo:N39") && named("demo:OTHER"));
}
