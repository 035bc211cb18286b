//! Schedules that are written out.

use super::*;

/// So many that their states find no room in an outbox together.
const MANY: u64 = 300;

/// Publishes a trade and a quote of one of many symbols.
fn tick_of_many(rig: &mut Rig, n: u64) {
    let instrument = rig.table.intern(&symbol(n)).expect("room");
    let one = Decimal::new(1, 0);
    let trade = Trade { price: one, size: one, side: None, id: TradeId::NONE };
    rig.publish(instrument, Body::Trade(trade), 1);
    rig.publish(instrument, Body::Quote(Quote { bid: Some(one), ..Quote::default() }), 1);
}

/// Lets a client read so many bytes a turn while ticks come, then all there is.
fn read_while_ticks_come(rig: &mut Rig, client: usize, bytes: usize) {
    for _ in 0..100 {
        (0..3).for_each(|_| {
            let n = rig.random.below(MANY);
            tick_of_many(rig, n);
        });
        rig.keep();
        rig.turn();
        rig.read(client, bytes);
        rig.clock.advance(Duration::from_millis(1));
    }
    rig.settle();
    (0..MANY).for_each(|n| tick_of_many(rig, n));
    rig.settle();
}

#[test]
fn nothing_of_a_symbol_is_told_to_a_wildcard_before_its_state() {
    let both = r#""channel":["trade","quote"]"#;
    let beginnings = [
        both.to_owned(),
        format!(r#"{both},"snapshot":false"#),
        format!(r#"{both},"mode":"every","snapshot":false"#),
        format!(r#"{both},"mode":"latest","snapshot":false,"max_hz":50"#),
        format!(r#"{both},"mode":"every","from":"-20ms""#),
        r#""channel":"trade","mode":"every","resume":RESUME"#.to_owned(),
        r#""channel":"quote","mode":"latest","resume":RESUME"#.to_owned(),
    ];
    for (at, beginning) in beginnings.iter().enumerate() {
        for bytes in [1_000, 1 << 20] {
            let mut rig = Rig::of(1, MANY as usize, 4_096);
            for n in 0..MANY {
                let instrument = rig.table.intern(&symbol(n)).expect("room");
                // Nothing of them is live but the first.
                let state = if n == 0 { State::Live } else { *rig.random.pick(&State::ALL[2..]) };
                rig.publish(instrument, Body::Status(state), 1);
                tick_of_many(&mut rig, n);
            }
            rig.keep();
            rig.turn();
            let seq: HashMap<String, u64> = (0..MANY).map(|n| (symbol(n).as_str().to_owned(), 1)).collect();
            let resume = serde_json::json!({"epoch": "e", "seq": seq}).to_string();
            let beginning = beginning.replace("RESUME", &resume);
            let goes_on = beginning.contains("resume");
            rig.connect();
            rig.ask(0, &format!(r#"{{"op":"subscribe","symbols":["*"],{beginning}}}"#));
            read_while_ticks_come(&mut rig, 0, bytes);
            let (texts, _) = texts(&rig.clients[0].wire.borrow().taken);
            let messages = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
            let (mut stated, mut told) = (HashMap::new(), 0);
            for message in messages.filter(|message| message["past"] != true) {
                let symbol = message["symbol"].as_str().unwrap_or_default().to_owned();
                match message["type"].as_str() {
                    Some("status") => {
                        stated.insert(symbol, message["state"].clone());
                    }
                    Some("trade" | "quote" | "gap") => {
                        let is_live = symbol == "demo:S0" && !goes_on;
                        assert!(is_live || stated.contains_key(&symbol), "{at}, {bytes}: {message}");
                        told += 1;
                    }
                    _ => {}
                }
            }
            assert!(told > MANY / 2, "{at}, {bytes}: {told}");
            for n in 0..MANY {
                let state = rig.state(n);
                let heard = stated.get(symbol(n).as_str()).map(|state| state.as_str().expect("a word"));
                let default = (n == 0 && !goes_on).then_some("live");
                assert_eq!(heard.or(default), Some(state.name()), "{at}, {bytes}: S{n}");
            }
        }
    }
}

/// The numbers of the trades that a client was sent, in the order in which it was.
fn trades_told(rig: &Rig, client: usize) -> Vec<u64> {
    let (texts, _) = texts(&rig.clients[client].wire.borrow().taken);
    let messages = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    messages
        .filter(|message| message["type"] == "trade")
        .filter_map(|message| message["seq"].as_u64())
        .collect()
}

#[test]
fn many_that_resume_at_once_are_served_by_one_walk_over_the_ring() {
    const CLIENTS: usize = 200;
    // One tick in so many is of what they resume.
    const RARE: u64 = 100;
    const MISSED: u64 = 4_000 / RARE;
    // With few looks a turn.
    let mut rig = Rig::of(5, 16, 4_096);
    let one = Decimal::new(1, 0);
    let trade = Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE });
    let instruments = [0, 1].map(|n| rig.table.intern(&symbol(n)).expect("room"));
    for n in 0..MISSED * RARE {
        rig.publish(instruments[usize::from(n % RARE > 0)], trade, 1);
        rig.turn();
    }
    for client in 0..CLIENTS {
        rig.connect();
        rig.read(client, 1 << 20);
    }
    rig.turn();
    assert_eq!(rig.counters.reread.get(), 0, "nothing is looked at for nobody");
    for client in 0..CLIENTS {
        rig.resume_with(client, Channel::Trade, "demo:S0", &[("demo:S0", 0)], ",\"mode\":\"every\"", "e");
    }
    let (mut turns, mut most) = (0, 0);
    while (0..CLIENTS).any(|client| trades_told(&rig, client).len() < MISSED as usize) {
        // Some turns between two looks at what was sent.
        for _ in 0..200 {
            let before = rig.counters.reread.get();
            rig.turn();
            most = most.max(rig.counters.reread.get() - before);
        }
        turns += 200;
        assert!(turns < 20_000, "they are not told what they missed");
    }
    assert!((1..=REREAD_FEW as u64).contains(&most), "{most} positions in one turn");
    let reread = rig.counters.reread.get();
    // The ring once, for all of them; and for each what it is sent, and what its request counts as.
    assert!(reread <= MISSED * RARE + CLIENTS as u64 * (MISSED + 40), "{reread} positions");
    assert!(reread > MISSED * RARE, "{reread} positions");
    rig.publish(instruments[0], trade, 1);
    rig.turn();
    rig.turn();
    while rig.turn() {}
    for client in 0..CLIENTS {
        assert_eq!(trades_told(&rig, client), (1..=MISSED + 1).collect::<Vec<_>>(), "client {client}");
    }
}

#[test]
fn one_that_resumes_more_streams_than_a_turn_looks_at_arrives_while_ticks_come() {
    const STREAMS: usize = 3 * REREAD_FEW;
    let mut rig = Rig::tuned(5, (1_024, 1_000_000), STREAMS, 4_096, 4_096);
    let one = Decimal::new(1, 0);
    let trade = Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE });
    let symbols: Vec<Symbol> = (0..STREAMS as u64).map(symbol).collect();
    let instruments: Vec<_> = symbols.iter().map(|name| rig.table.intern(name).expect("room")).collect();
    let mut published = 0;
    let mut ticks = |rig: &mut Rig| {
        rig.publish(instruments[published % STREAMS], trade, 1);
        published += 1;
        rig.turn();
        rig.come_to(0);
        rig.clock.advance(Duration::from_millis(1));
        let (id, now) = (rig.clients[0].id, rig.clock.now());
        rig.sessions.borrow_mut().heard(id, now);
    };
    rig.connect();
    rig.read(0, 1 << 30);
    rig.clients[0].answers = true;
    (0..2 * STREAMS).for_each(|_| ticks(&mut rig));
    let seq: Vec<(&str, u64)> = symbols.iter().map(|name| (name.as_str(), 1)).collect();
    rig.resume_with(0, Channel::Trade, "*", &seq, ",\"mode\":\"every\"", "e");
    (0..1_000).for_each(|_| ticks(&mut rig));
    // What was kept for those that resume is forgotten some seconds after the last has arrived.
    for _ in 0..250 {
        rig.clock.advance(Duration::from_millis(60));
        let (id, now) = (rig.clients[0].id, rig.clock.now());
        rig.sessions.borrow_mut().heard(id, now);
        ticks(&mut rig);
    }
    let reread = rig.counters.reread.get();
    (0..100).for_each(|_| ticks(&mut rig));
    assert_eq!(rig.counters.reread.get(), reread, "it reads on, and does not arrive");
}

#[test]
fn what_one_reader_finds_and_cannot_take_is_no_more_to_look_at_for_others() {
    const STREAMS: usize = 3 * REREAD_FEW;
    let one = Decimal::new(1, 0);
    let trade = Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE });
    let symbols: Vec<Symbol> = (0..STREAMS as u64).map(symbol).collect();
    let seq: Vec<(&str, u64)> = symbols.iter().map(|name| (name.as_str(), 1)).collect();
    // It takes some ticks a turn. When it has come near the end of what it missed, all have news at once.
    for news_at in 1..60 {
        let mut rig = Rig::tuned(5, (1_024, 1_000_000), STREAMS, 4_096, 512);
        let instruments: Vec<_> = symbols.iter().map(|name| rig.table.intern(name).expect("room")).collect();
        let all = |rig: &mut Rig| instruments.iter().for_each(|of| rig.publish(*of, trade, 1));
        rig.connect();
        rig.read(0, 1 << 30);
        (0..2).for_each(|_| all(&mut rig));
        rig.turn();
        rig.resume_with(0, Channel::Trade, "*", &seq, ",\"mode\":\"every\"", "e");
        for turn in 0..100 {
            if turn == news_at {
                all(&mut rig);
            }
            let before = rig.counters.reread.get();
            rig.turn();
            let reread = rig.counters.reread.get() - before;
            assert!(reread <= REREAD_FEW as u64, "{reread} positions in turn {turn}, news at {news_at}");
        }
        assert_eq!(trades_told(&rig, 0).len(), 2 * STREAMS, "news at {news_at}");
    }
}

#[test]
fn a_pong_comes_behind_what_was_in_the_ring_when_its_ping_came() {
    let mut rig = Rig::of(1, 16, 4_096);
    rig.connect();
    rig.ask(0, r#"{"op":"subscribe","symbols":["*"],"channel":["trade"],"mode":"every"}"#);
    rig.turn();
    // More than a shard takes in several turns.
    (0..1_000).for_each(|n| tick_of_many(&mut rig, n % 16));
    rig.ask(0, r#"{"op":"ping","id":1}"#);
    (0..1_000).for_each(|n| tick_of_many(&mut rig, n % 16));
    rig.ask(0, r#"{"op":"ping","id":2}"#);
    rig.ask(0, r#"{"op":"list","id":3}"#);
    rig.settle();
    rig.ask(0, r#"{"op":"ping","id":4}"#);
    rig.settle();
    let (texts, _) = texts(&rig.clients[0].wire.borrow().taken);
    let (mut trades, mut pongs) = (0, Vec::new());
    for text in texts {
        let message: Value = serde_json::from_str(&text).expect("JSON");
        match message["type"].as_str() {
            Some("trade") => trades += message["n"].as_u64().unwrap_or(1),
            Some("pong") => pongs.push((message["id"].as_u64(), trades)),
            _ => {}
        }
    }
    assert_eq!(trades, 2_000);
    let [(Some(1), first), (Some(2), second), (Some(4), third)] = pongs[..] else { panic!("{pongs:?}") };
    assert!(first >= 1_000 && second == 2_000 && third == 2_000, "{pongs:?}");
}

#[test]
fn very_many_pings_that_wait_are_answered_in_portions_or_refused() {
    let mut rig = Rig::bounded(1, (1 << 20, 1_000_000), 16, 4_096);
    rig.connect();
    (0..1_000).for_each(|n| tick_of_many(&mut rig, n % 16));
    // One more than may wait.
    (0..=16_384).for_each(|n| rig.ask(0, &format!(r#"{{"op":"ping","id":{n}}}"#)));
    for _ in 0..100 {
        rig.turn();
        rig.read(0, 1 << 20);
        rig.clock.advance(Duration::from_millis(1));
    }
    rig.settle();
    let (texts, _) = texts(&rig.clients[0].wire.borrow().taken);
    let messages = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    let (pongs, others): (Vec<_>, Vec<_>) = messages.partition(|message| message["type"] == "pong");
    assert!(pongs.iter().enumerate().all(|(n, pong)| pong["id"] == n), "in order");
    assert_eq!(pongs.len(), 16_384);
    let mut in_a_turn: BTreeMap<u64, usize> = BTreeMap::new();
    pongs.iter().for_each(|pong| *in_a_turn.entry(pong["out"].as_u64().expect("a time")).or_default() += 1);
    assert!(in_a_turn.values().all(|pongs| *pongs <= 256), "{in_a_turn:?}");
    let refused: Vec<_> = others.iter().filter(|message| message["code"] == "rate_limited").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["id"], 16_384);
}

/// Turns until nothing is left to do; how many.
fn turn_until_done(rig: &mut Rig) -> usize {
    let mut idle = 0;
    for turns in 1..100_000 {
        let more = rig.turn();
        for client in 0..rig.clients.len() {
            rig.read(client, 1 << 20);
            rig.come_to(client);
        }
        let unread =
            |client: &Client| !client.sent.is_empty() && rig.sessions.borrow_mut().wants(client.id).read;
        // What was read has made room for a last write.
        idle = if more || rig.clients.iter().any(unread) { 0 } else { idle + 1 };
        if idle == 2 {
            return turns;
        }
    }
    panic!("it comes to no end")
}

#[test]
fn long_requests_are_done_in_portions_and_paid() {
    const LISTED: u64 = 2_000;
    let mut rig = Rig::bounded(1, (STEPS_MIN, 20), LISTED as usize + 100, 8_192);
    (0..LISTED).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    rig.connect();
    rig.clients[0].answers = true;
    let both = r#""channel":["trade","quote"]"#;
    rig.ask(0, &format!(r#"{{"op":"subscribe","id":1,"symbols":["*"],{both}}}"#));
    // It is not read from meanwhile.
    rig.ask(0, r#"{"op":"ping","id":2}"#);
    assert_eq!(rig.clients[0].sent.len(), 1);
    // Each turn, clock and all, is bounded: the harness counts.
    let turns = turn_until_done(&mut rig);
    assert!(turns as u64 > 2 * 2 * LISTED / u64::from(STEPS_MIN), "{turns} turns");
    let (messages, _) = told(&rig, 0);
    let snapshots = messages.iter().filter(|message| message["snap"] == true).count();
    assert_eq!(snapshots as u64, 2 * LISTED);
    let refused = messages.iter().find(|message| message["id"] == 2).expect("an answer");
    assert!(refused["code"] == "rate_limited" && refused["retry"] == true, "{refused}");
    // Its debt is paid in some seconds, and what others ask for costs it nothing.
    rig.clock.advance(Duration::from_secs(12));
    rig.connect();
    for (client, request) in [(0, r#"{"op":"list","id":3}"#), (1, r#"{"op":"ping","id":3}"#)] {
        rig.ask(client, request);
        turn_until_done(&mut rig);
        let (messages, _) = told(&rig, client);
        let answer = messages.iter().find(|message| message["id"] == 3).expect("an answer");
        assert!(answer["type"] == "ack" || answer["type"] == "pong", "{answer}");
    }
    // So is what is listed later, and what leaves.
    (LISTED..LISTED + 50).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    let of_new =
        |message: &&Value| message["type"] == "trade" && message["seq"] == 1 && message["snap"].is_null();
    assert_eq!(told(&rig, 0).0.iter().filter(of_new).count(), 50, "from their first number on");
    assert_eq!(rig.counters.subscriptions.get(), 3 * (LISTED + 50));
    rig.leave(0);
    rig.turn();
    let left = rig.counters.subscriptions.get();
    assert!(left > 2 * LISTED && left < 3 * (LISTED + 50), "{left}");
    // Its number is not reused until then: a newcomer gets nothing that it did not ask for.
    rig.connect();
    (0..LISTED).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    assert_eq!(rig.counters.subscriptions.get(), 0);
    for client in 0..2 {
        assert!(told(&rig, client).0.iter().all(|message| message["type"] != "trade"));
    }
}

#[test]
fn the_address_of_a_client_is_paid_as_its_messages_are() {
    let mut rig = Rig::bounded(1, (STEPS_MIN, 20), 2_000, 8_192);
    (0..2_000).for_each(|n| tick_of_many(&mut rig, n));
    turn_until_done(&mut rig);
    rig.connect();
    let (wanted, _) = parse_query(vec![("symbols".to_owned(), "*".to_owned())]).expect("a good address");
    let (id, now) = (rig.clients[0].id, rig.clock.now());
    rig.sessions.borrow_mut().subscribe(id, wanted.expect("symbols"), now);
    assert!(!rig.sessions.borrow_mut().wants(id).read);
    turn_until_done(&mut rig);
    assert_eq!(rig.counters.subscriptions.get(), 6_000);
    rig.ask(0, r#"{"op":"ping","id":1}"#);
    turn_until_done(&mut rig);
    let (messages, _) = told(&rig, 0);
    assert_eq!(messages.last().expect("an answer")["code"], "rate_limited");
}

#[test]
fn awaited_symbols_are_kept_changed_and_left_in_portions() {
    let names = |count: u64| serde_json::json!((0..count).map(|n| format!("demo:N{n}")).collect::<Vec<_>>());
    let mut rig = Rig::bounded(1, (STEPS_MIN, 1_000_000), 16, 1_024);
    (0..20).for_each(|_| rig.connect());
    let all = names(100);
    let requests = [
        format!(r#"{{"op":"subscribe","id":1,"channel":["trade","quote"],"symbols":{all},"mode":"latest"}}"#),
        format!(r#"{{"op":"set","id":2,"symbols":{all},"max_hz":5}}"#),
        format!(r#"{{"op":"unsubscribe","id":3,"channel":"trade","symbols":{}}}"#, names(50)),
        r#"{"op":"list","id":4}"#.to_owned(),
        r#"{"op":"set","id":5,"max_hz":20}"#.to_owned(),
        r#"{"op":"set","id":6,"max_hz":30}"#.to_owned(),
        r#"{"op":"list","id":7}"#.to_owned(),
    ];
    for request in &requests {
        (0..20).for_each(|client| rig.ask(client, request));
    }
    turn_until_done(&mut rig);
    for client in 0..20 {
        let (messages, _) = told(&rig, client);
        let answer = |id: u64| messages.iter().find(|message| message["id"] == id).expect("an answer");
        let rows = |id: u64, field: &str| answer(id)[field].as_array().expect("rows").len();
        assert_eq!((rows(1, "ok"), rows(2, "ok"), rows(3, "ok")), (200, 200, 50));
        assert_eq!((rows(4, "subscriptions"), rows(5, "ok"), rows(7, "subscriptions")), (150, 2, 150));
        // There are two rates: each is free again when nothing has it any more.
        let terms = |id: u64| answer(id)["subscriptions"][7]["max_hz"].clone();
        assert_eq!((terms(4), terms(7)), (5.into(), 30.into()));
    }
    // One is listed: those that wait for it have it, by both channels or one.
    let named = rig.table.intern(&Symbol::parse("demo:N70").expect("good")).expect("room");
    rig.publish(named, Body::Quote(Quote { bid: Some(Decimal::new(1, 0)), ..Quote::default() }), 1);
    turn_until_done(&mut rig);
    assert_eq!(rig.counters.subscriptions.get(), 20 * 3);
    // All leave at once.
    while !rig.clients.is_empty() {
        rig.leave(0);
    }
    assert_eq!(rig.counters.subscribed.get(), 0);
    let turns = turn_until_done(&mut rig);
    assert!(turns > 20 * 99 / STEPS_MIN as usize, "{turns} turns");
    assert_eq!(rig.counters.subscriptions.get(), 0);
}

#[test]
fn long_messages_over_the_allowance_are_not_read_and_many_end_the_connection() {
    let mut rig = Rig::bounded(1, (1_024, 2), 16, 1_024);
    rig.connect();
    rig.clients[0].answers = false;
    (0..2).for_each(|n| rig.ask(0, &format!(r#"{{"op":"ping","id":{n}}}"#)));
    rig.ask(0, r#"{"op":"ping","id":2}"#);
    rig.ask(0, &format!(r#"{{"op":"ping","id":3{}}}"#, " ".repeat(2_000)));
    rig.ask(0, &format!("{{{}", " ".repeat(2_000)));
    turn_until_done(&mut rig);
    let (messages, _) = told(&rig, 0);
    let told_of: Vec<_> = messages[1..].iter().map(|m| (&m["type"], &m["id"], &m["code"])).collect();
    let limited = Value::from("rate_limited");
    let nothing = Value::Null;
    let expected = [
        (&Value::from("pong"), &Value::from(0), &nothing),
        (&Value::from("pong"), &Value::from(1), &nothing),
        (&Value::from("error"), &Value::from(2), &limited),
        // It may be anything.
        (&Value::from("error"), &nothing, &limited),
        (&Value::from("error"), &nothing, &limited),
    ];
    assert_eq!(told_of, expected);
    (0..300).for_each(|n| rig.ask(0, &format!(r#"{{"op":"ping","id":{n}}}"#)));
    turn_until_done(&mut rig);
    let (messages, code) = told(&rig, 0);
    assert_eq!(code, Some(4502));
    assert_eq!(messages.last().expect("a message")["why"], "limit");
    assert!((200..300).contains(&messages.len()), "{}", messages.len());
}

#[test]
fn a_rate_brings_the_newest_once_in_each_period_and_in_one_write() {
    const PERIOD_MS: u64 = 50;
    let mut rig = Rig::new(1);
    rig.connect();
    let quote = |rig: &mut Rig, n: u64| {
        let instrument = rig.table.intern(&symbol(n)).expect("room");
        rig.publish(instrument, Body::Quote(Quote { bid: Some(Decimal::new(1, 0)), ..Quote::default() }), 1);
    };
    (0..3).for_each(|n| quote(&mut rig, n));
    rig.turn();
    rig.ask(0, r#"{"op":"subscribe","channel":"quote","symbols":["*"],"mode":"latest","max_hz":20}"#);
    // For each symbol: when the oldest tick was published that was not told yet, and when something was told last.
    let mut waits = [None; 3];
    let mut told_at: [Option<u64>; 3] = [None; 3];
    let (mut told, mut writes) = (0, 0);
    for ms in 0..5_000_u64 {
        rig.clock.advance(Duration::from_millis(1));
        // The first ticks now and then, the second always, the third in bursts.
        for n in 0..3 {
            let comes = match n {
                0 => rig.random.below(300) == 0,
                1 => true,
                _ => ms % 1_000 < 20,
            };
            if comes {
                quote(&mut rig, n);
                waits[n as usize].get_or_insert(ms);
            }
        }
        let (id, now) = (rig.clients[0].id, rig.clock.now());
        rig.sessions.borrow_mut().heard(id, now);
        rig.read(0, 1 << 20);
        while rig.turn() {}
        let taken = std::mem::take(&mut rig.clients[0].wire.borrow_mut().taken);
        rig.clients[0].wire.borrow_mut().acked = 0;
        let (texts, _) = texts(&taken);
        let updates: Vec<Value> =
            texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
        let updates = updates.iter().filter(|m| m["type"] == "quote" && m["snap"] != true);
        let symbols: Vec<usize> = updates
            .map(|m| m["symbol"].as_str().expect("a symbol")["demo:S".len()..].parse().expect("a number"))
            .collect();
        writes += u64::from(!symbols.is_empty());
        for n in symbols {
            told += 1;
            let since: u64 = waits[n].take().expect("something was new");
            assert!(ms - since <= PERIOD_MS, "S{n} waited {} ms", ms - since);
            assert!(told_at[n].is_none_or(|at| ms - at >= PERIOD_MS), "S{n} twice in a period");
            told_at[n] = Some(ms);
        }
        for (n, since) in waits.iter().enumerate() {
            assert!(since.is_none_or(|since| ms - since < PERIOD_MS), "S{n} is late");
        }
    }
    assert!((99..=101).contains(&writes) && told > writes + 10, "{told} updates in {writes} periods");
}
