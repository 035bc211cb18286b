//! The query parameters of a WebSocket URL: the subscription and the room that the client requests.

use super::fault::{TEXT_BYTES_MAX, quoted};
use super::request::{MAX_HZ, Mode, Rate, Subscribe, channel, each_once, on_slow, within};
use super::room::{RoomSpec, room_wish, time};
use crate::model::tick::Channel;

/// All parameters. Those of a room have no effect if no room is requested.
const KNOWN: [&str; 13] = [
    "symbols", "channel", "mode", "max_hz", "on_slow", "snapshot", "from", "replay", "room", "to", "speed",
    "loop", "max_idle",
];
/// Parameters that may occur more than once; their values are combined.
const ADDING: [&str; 2] = ["symbols", "channel"];

/// Parses a query such as `symbols=coinbase:BTC-USD,kraken:*&channel=trade` into the requested subscription
/// and the requested room.
///
/// # Errors
/// The message names the parameter.
pub fn parse_query(
    mut parameters: Vec<(String, String)>,
) -> Result<(Option<Subscribe>, Option<RoomSpec>), String> {
    each_given_once(&parameters, &ADDING)?;
    if let Some((unknown, _)) = parameters.iter().find(|(key, _)| !KNOWN.contains(&key.as_str())) {
        return Err(format!("{} is no parameter here: {}", quoted(unknown), KNOWN.join(", ")));
    }
    let wish = room_wish(&parameters)?;
    // With a room, `from` is the start of the replay, not of a catch-up.
    parameters.retain(|(key, _)| wish.is_none() || key != "from");
    Ok((subscribe(&parameters)?, wish))
}

/// Checks that no parameter occurs twice, except those in `adding`.
///
/// # Errors
/// The message names the parameter.
pub fn each_given_once(parameters: &[(String, String)], adding: &[&str]) -> Result<(), String> {
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in parameters.iter().filter(|(key, _)| !adding.contains(&key.as_str())) {
        if seen.contains(&key.as_str()) {
            return Err(format!("`{}` is given twice", key.chars().take(40).collect::<String>()));
        }
        seen.push(key);
    }
    Ok(())
}

/// The subscription of a query; `None` if it has no symbols. Without `channel`, all channels are subscribed.
fn subscribe(parameters: &[(String, String)]) -> Result<Option<Subscribe>, String> {
    let (mut wanted, mut symbols) = (Subscribe::new(Vec::new(), Vec::new()), Vec::new());
    for (key, value) in parameters {
        match key.as_str() {
            "symbols" => {
                symbols.extend(value.split(',').filter(|s| !s.is_empty()).map(str::to_owned));
            }
            "channel" => {
                let words = value.split(',').map(|word| {
                    channel(word)
                        .ok_or_else(|| format!("`channel`: {} is neither trade nor quote", quoted(word)))
                });
                wanted.channels.extend(words.collect::<Result<Vec<_>, _>>()?);
            }
            "mode" => {
                wanted.mode = Some(match value.as_str() {
                    "every" => Mode::Every,
                    "latest" => Mode::Latest,
                    _ => return Err("`mode` must be every or latest".to_owned()),
                });
            }
            "snapshot" => {
                wanted.snapshot = match value.as_str() {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err("`snapshot` must be true or false".to_owned()),
                };
            }
            "max_hz" => {
                let rate = value.parse().ok().and_then(Rate::from_hz);
                wanted.rate = Some(rate.ok_or_else(|| MAX_HZ.to_owned())?);
            }
            "on_slow" => wanted.disconnect_on_loss = on_slow(value)?,
            "from" => {
                wanted.from = Some(time("from", value)?);
            }
            _ => {}
        }
    }
    wanted.channels = match wanted.channels.is_empty() {
        true => Channel::ALL.to_vec(),
        false => each_once(wanted.channels),
    };
    if let Some(long) = symbols.iter().find(|s: &&String| s.len() > TEXT_BYTES_MAX) {
        return Err(format!("`symbols`: {}… is longer than {TEXT_BYTES_MAX} bytes", quoted(long)));
    }
    // The length of the request head bounds the number of symbols.
    wanted.symbols = within(symbols, usize::MAX)?;
    let wanted = wanted.check()?;
    Ok((!wanted.symbols.is_empty()).then_some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Moment;
    use crate::protocol::{Selector, Since};

    fn parse(list: &[(&str, &str)]) -> Result<(Option<Subscribe>, Option<RoomSpec>), String> {
        parse_query(list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    fn subscribes(list: &[(&str, &str)]) -> Result<Subscribe, String> {
        parse(list).map(|(subscribe, _)| subscribe.expect("symbols"))
    }

    #[test]
    fn it_means_the_same_as_a_message() {
        let wanted = subscribes(&[("symbols", "a:B,kraken:*"), ("channel", "trade")]).expect("good");
        assert_eq!(wanted.symbols, ["a:B", "kraken:*"].map(Selector::parse));
        assert_eq!(wanted.channels, [Channel::Trade]);
        assert_eq!(subscribes(&[("symbols", "*")]).expect("good").channels, Channel::ALL);
        assert_eq!(parse(&[]), Ok((None, None)));
        assert_eq!(parse(&[("mode", "every"), ("speed", "fast"), ("to", "noon")]), Ok((None, None)));
        assert!(parse(&[("channel", "book")]).is_err_and(|e| e.contains("`channel`")));
        // F12: the `+` of an offset may arrive as a space.
        for from in ["2021-04-17T16:43:37+00:00", "2021-04-17T16:43:37 00:00", "2021-04-17T09:43:37-07:00"] {
            let wanted = subscribes(&[("symbols", "*"), ("mode", "every"), ("from", from)]).expect(from);
            assert_eq!(wanted.from, Some(Since::At(1_618_677_817_000_000_000)), "{from}");
        }
        let wrong = parse(&[("symbols", "*"), ("mode", "every"), ("from", "2021-04-17 16:43:37Z")]);
        assert!(wrong.is_err_and(|error| error.starts_with("`from`: \"2021-04-17 16:43:37Z\"")));
    }

    #[test]
    fn symbols_and_channels_add_up_and_nothing_else_does() {
        let list = [
            ("channel", "quote"),
            ("symbols", "a:B,c:D"),
            ("channel", "trade,quote"),
            ("symbols", "e:F,a:B"),
        ];
        let wanted = subscribes(&list).expect("good");
        assert_eq!(
            (wanted.symbols, wanted.channels),
            (["a:B", "c:D", "e:F"].map(Selector::parse).to_vec(), Channel::ALL.to_vec())
        );
        let one =
            subscribes(&[("symbols", "a:B"), ("channel", "trade"), ("channel", "trade")]).expect("good");
        assert_eq!(one.channels, [Channel::Trade]);
        for (key, value, other) in [
            ("mode", "every", "latest"),
            ("mode", "every", "every"),
            ("max_hz", "1", "2"),
            ("on_slow", "cut", "gap"),
            ("snapshot", "true", "false"),
            ("from", "-1s", "-2s"),
            ("replay", "a", "b"),
            ("room", "a", "b"),
            ("to", "+1s", "+2s"),
            ("speed", "1", "2"),
            ("loop", "1", "0"),
            ("max_idle", "1s", "2s"),
        ] {
            for room in [("room", "r"), ("symbols", "*")].into_iter().filter(|(name, _)| *name != key) {
                let error = parse(&[room, (key, value), ("channel", "trade"), (key, other)]).expect_err(key);
                assert_eq!(error, format!("`{key}` is given twice"));
            }
        }
    }

    #[test]
    fn what_there_is_not_is_named() {
        for unknown in ["symbol", "Symbols", "depth", "", " ", "token", "\u{1b}[31m", &"x".repeat(1_000)] {
            let error = parse(&[("symbols", "*"), (unknown, "x")]).expect_err(unknown);
            let start = format!("{} is no parameter here: symbols, channel, mode,", quoted(unknown));
            assert!(error.starts_with(&start) && error.len() < 300, "{error}");
        }
        let long = "x".repeat(10_000);
        for (key, word) in [("symbols", "`symbols`"), ("channel", "`channel`"), ("from", "`from`")] {
            let error = parse(&[(key, &long)]).expect_err(key);
            assert!(error.contains(word) && error.len() < 300, "{error}");
        }
    }

    #[test]
    fn in_a_room_from_says_where_it_begins() {
        let (subscribe, wish) =
            parse(&[("symbols", "*"), ("room", "r"), ("from", "2021-04-17T18:43:37 02:00")]).expect("good");
        assert_eq!(subscribe.map(|subscribe| subscribe.from), Some(None));
        assert_eq!(wish.and_then(|wish| wish.from), Some(Moment::At(1_618_677_817_000_000_000)));
    }
}
