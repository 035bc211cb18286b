//! What a client was told, and the rules that it keeps.

use super::*;

/// The books of one client.
pub(super) fn balanced(row: &ClientRow) -> u64 {
    let told = row.sent + row.merged + row.dropped + row.lost;
    assert_eq!(row.offered, told + row.pending, "{row:?}");
    told
}

/// What a client can tell from its messages alone.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) last: Told,
    /// Numbers it was told of, snapshots at the start of a subscription not counted.
    pub(super) told: u64,
    /// Snapshots that nothing came before: at the start of a subscription, or, where it asked for none, of a replay.
    pub(super) openings: u64,
    /// The level it was told last.
    pub(super) level: String,
    /// Numbers that the feed is said to have lost.
    pub(super) lost: Vec<((String, Channel), u64)>,
    /// What it is told may be of the past: it was not told yet that this is over.
    pub(super) catches_up: bool,
    /// What it makes of each symbol's state; nothing, where it cannot tell any more what it is subscribed to.
    pub(super) states: BTreeMap<String, Option<String>>,
}

impl Heard {
    /// What was said of a state, if anything.
    pub(super) fn state(&mut self, row: &Value) {
        if let (Some(symbol), Some(state)) = (row["symbol"].as_str(), row["state"].as_str()) {
            self.states.insert(symbol.to_owned(), Some(state.to_owned()));
        }
    }

    /// What is live unless something else was said.
    pub(super) fn live(&mut self, symbol: &str) {
        self.states.entry(symbol.to_owned()).or_insert_with(|| Some("live".to_owned()));
    }
}

/// Since when the past may be asked for.
pub(super) const FROM: [&str; 4] =
    [r#","from":"-20ms""#, r#","from":"-150ms""#, r#","from":"2030-01-01T00:00:00Z""#, r#","from":1000000"#];

/// What a client is subscribed to: names and wildcards, as the answers have it.
pub(super) type Held = BTreeSet<(String, Channel)>;

pub(super) fn is_wide(symbol: &str) -> bool {
    symbol == "*" || symbol.ends_with(":*")
}

/// The channels that an `ack` is about.
pub(super) fn channels(ack: &Value) -> Vec<Channel> {
    let one = std::slice::from_ref(&ack["channel"]);
    let named = ack["channel"].as_array().map_or(one, Vec::as_slice);
    let of =
        |word: &Value| Channel::ALL.into_iter().find(|channel| *word == channel.name()).expect("a channel");
    named.iter().map(of).collect()
}

/// What an `ack` of `unsubscribe` ends may begin anywhere when it comes again. A wildcard leaves what is subscribed to by
/// something narrower.
pub(super) fn forget(ack: &Value, held: &mut Held, last: &mut Told) {
    let of = channels(ack);
    if ack["all"] == true {
        held.retain(|(_, channel)| !of.contains(channel));
        last.retain(|(_, channel), _| !of.contains(channel));
        return;
    }
    for row in ack["ok"].as_array().expect("a list") {
        let named = row["symbol"].as_str().expect("a symbol");
        for channel in of.iter().copied() {
            held.remove(&(named.to_owned(), channel));
            let stays = |symbol: &str| {
                let venue = format!("{}:*", symbol.split(':').next().expect("a venue"));
                let narrower: &[&str] = match named {
                    "*" => &[symbol, &venue],
                    _ if is_wide(named) => &[symbol],
                    _ => &[],
                };
                narrower.iter().any(|narrow| held.contains(&((*narrow).to_owned(), channel)))
            };
            let picked = |symbol: &str| match named.strip_suffix('*') {
                Some(prefix) => symbol.starts_with(prefix),
                None => symbol == named,
            };
            last.retain(|(symbol, of), _| *of != channel || !picked(symbol) || stays(symbol));
        }
    }
}

/// What an `ack` of `subscribe` with `resume` goes on from.
pub(super) fn resume(ack: &Value, resumes: &Told, last: &mut Told) {
    for row in ack["ok"].as_array().expect("a list") {
        if row["resumed"] != "ok" && row["resumed"] != "gap" {
            continue;
        }
        let channel = if row["channel"] == "trade" { Channel::Trade } else { Channel::Quote };
        let of_row = |(symbol, of): &(String, Channel)| {
            *of == channel && (row["symbol"] == "*" || row["symbol"] == symbol.as_str())
        };
        let told: Told =
            resumes.iter().filter(|(key, _)| of_row(key)).map(|(key, seq)| (key.clone(), *seq)).collect();
        assert!(!told.is_empty(), "{row}: it was not asked for");
        last.extend(told);
    }
}

/// Whether a row of an `ack` says that the past comes first. Nothing is called live then.
pub(super) fn catches_up(row: &Value) -> bool {
    assert!(row["past"].is_null() || row["state"] != "live", "{row}");
    !row["past"].is_null()
}

/// A level is told once, and none is left out on the way down the ladder.
pub(super) fn climb(from: &str, to: &str) {
    let rung = |level: &str| ["ok", "warn", "shed", "cut"].iter().position(|l| *l == level).expect("a level");
    assert!(rung(to) < rung(from) || rung(to) == rung(from) + 1, "from {from} to {to}");
}

/// Checks a client's messages with the program's own checker and with one that shares nothing with it.
pub(super) fn check(bytes: &[u8], resumes: &Told, seeks: bool) -> Heard {
    let (texts, _) = texts(bytes);
    let mut ledger = SequenceLedger::new(false);
    let mut heard = Heard { level: "ok".to_owned(), ..Heard::default() };
    let mut held = Held::new();
    for (at, text) in texts.iter().enumerate() {
        ledger.hear(&Message::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")));
        let message: Value = serde_json::from_str(text).expect("JSON");
        let kind = message["type"].as_str().expect("a type");
        assert_eq!(kind == "hello", at == 0, "hello comes first and once");
        let stream = match kind {
            "trade" => Channel::Trade,
            "quote" => Channel::Quote,
            "gap" if message["channel"] == "trade" => Channel::Trade,
            "gap" => Channel::Quote,
            "ack" if message["op"] == "unsubscribe" => {
                forget(&message, &mut held, &mut heard.last);
                heard.states.values_mut().for_each(|state| *state = None);
                continue;
            }
            "ack" if message["op"] == "subscribe" => {
                let rows = message["ok"].as_array().expect("a list").iter();
                let row = |row: &Value| {
                    let channel = if row["channel"] == "trade" { Channel::Trade } else { Channel::Quote };
                    (row["symbol"].as_str().expect("a symbol").to_owned(), channel)
                };
                held.extend(rows.map(row));
                resume(&message, resumes, &mut heard.last);
                let rows = message["ok"].as_array().expect("a list");
                rows.iter().filter(|row| row["past"].is_null()).for_each(|row| heard.state(row));
                heard.catches_up |= message["ok"].as_array().is_some_and(|rows| rows.iter().any(catches_up));
                continue;
            }
            "joined" => {
                assert!(heard.catches_up, "nothing was asked for: {text}");
                heard.catches_up = false;
                let symbols: BTreeSet<String> = heard.last.keys().map(|(symbol, _)| symbol.clone()).collect();
                symbols.iter().for_each(|symbol| heard.live(symbol));
                continue;
            }
            "status" => {
                heard.state(&message);
                continue;
            }
            "lag" => {
                let level = message["level"].as_str().expect("a level");
                climb(&heard.level, level);
                heard.level = level.to_owned();
                continue;
            }
            _ => continue,
        };
        let key = (message["symbol"].as_str().expect("a symbol").to_owned(), stream);
        assert!(message["past"] != true || heard.catches_up, "it was said that this is over: {text}");
        let snap = message["snap"] == true;
        let (first, last) = if kind == "gap" {
            (message["from"].as_u64().expect("from"), message["to"].as_u64().expect("to"))
        } else {
            let seq = message["seq"].as_u64().expect("seq");
            (seq + 1 - message["n"].as_u64().unwrap_or(1), seq)
        };
        assert!(first <= last, "{text}");
        if kind != "gap" && message["past"] != true {
            heard.live(&key.0);
        }
        if message["why"] == "feed" {
            heard.lost.extend((first..=last).map(|n| (key.clone(), n)));
        }
        let before = heard.last.get(&key);
        if let Some(before) = before {
            assert!(!snap || seeks, "one snapshot a subscription: {text}");
            assert_eq!(first, before + 1, "{text}");
        }
        if snap && before.is_none() {
            heard.openings += 1;
        } else {
            heard.told += last - first + 1;
        }
        heard.last.insert(key, last);
    }
    assert!(ledger.held(), "{:?}", ledger.breaks());
    heard
}
