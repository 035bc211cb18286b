//! Rooms: the replays that WebSocket URLs request.

use std::fmt::Display;
use std::str::FromStr;

use super::fault::shown;
use super::moment::Moment;
use super::replay::Speed;
use crate::time::duration;

/// What a room replays, and how. Clients share a room only if their terms are equal.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomTerms {
    /// Names of the captures.
    pub captures: Vec<String>,
    /// Initial speed.
    pub speed: Speed,
    /// Start; `None`: the first record.
    pub from: Option<Moment>,
    /// Exclusive end; `None`: the last record.
    pub to: Option<Moment>,
    /// Whether the replay restarts at its end.
    pub looped: bool,
    /// Longest pause between records that is kept, milliseconds; 0 keeps all of them.
    pub max_idle_ms: u64,
}

/// The room that a client requests: private or shared. Omitted parameters are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomSpec {
    /// Name under which the room is shared; `None`: a private room.
    pub room: Option<Box<str>>,
    /// Names of captures; at least one unless a room is named.
    pub captures: Vec<String>,
    /// Initial speed.
    pub speed: Option<Speed>,
    /// Start.
    pub from: Option<Moment>,
    /// Exclusive end.
    pub to: Option<Moment>,
    /// Whether the replay restarts at its end.
    pub looped: Option<bool>,
    /// Longest pause between records that is kept, milliseconds.
    pub max_idle_ms: Option<u64>,
}

impl RoomSpec {
    /// The terms of a new room for this request.
    pub fn terms(&self) -> RoomTerms {
        RoomTerms {
            captures: self.captures.clone(),
            speed: self.speed.unwrap_or(Speed::RECORDED),
            from: self.from,
            to: self.to,
            looped: self.looped.unwrap_or(false),
            max_idle_ms: self.max_idle_ms.unwrap_or(0),
        }
    }

    /// The first parameter that conflicts with the terms of an existing room. An omitted parameter never
    /// conflicts.
    pub fn differs(&self, terms: &RoomTerms) -> Option<&'static str> {
        let same = |wished: bool, name| (!wished).then_some(name);
        let captures = self.captures.is_empty() || self.captures == terms.captures;
        same(captures, "replay")
            .or_else(|| same(self.speed.is_none_or(|speed| speed == terms.speed), "speed"))
            .or_else(|| same(self.from.is_none() || self.from == terms.from, "from"))
            .or_else(|| same(self.to.is_none() || self.to == terms.to, "to"))
            .or_else(|| same(self.looped.is_none_or(|looped| looped == terms.looped), "loop"))
            .or_else(|| same(self.max_idle_ms.is_none_or(|ms| ms == terms.max_idle_ms), "max_idle"))
    }
}

/// Longest room name, bytes.
const ROOM_BYTES_MAX: usize = 64;

/// Parses a query such as `replay=a.zst,b.zst&room=desk&from=+30s&speed=10`. `None` if it names neither
/// captures nor a room, regardless of other parameters.
///
/// # Errors
/// The message names the parameter.
pub(super) fn room_wish(parameters: &[(String, String)]) -> Result<Option<RoomSpec>, String> {
    if !parameters.iter().any(|(key, _)| matches!(key.as_str(), "replay" | "room")) {
        return Ok(None);
    }
    let mut wish = RoomSpec::default();
    for (key, value) in parameters {
        match key.as_str() {
            "replay" => captures(value, &mut wish.captures)?,
            "room" => wish.room = Some(room(value)?),
            "speed" => wish.speed = Some(value.parse().map_err(|what| format!("`speed` {what}"))?),
            "from" => wish.from = Some(time("from", value)?),
            "to" => wish.to = Some(time("to", value)?),
            "loop" => {
                wish.looped = Some(match value.as_str() {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err("`loop` must be true or false".to_owned()),
                });
            }
            "max_idle" => wish.max_idle_ms = Some(max_idle_ms(value)?),
            _ => {}
        }
    }
    Ok(Some(wish))
}

fn captures(value: &str, named: &mut Vec<String>) -> Result<(), String> {
    for name in value.split(',') {
        if name.is_empty() {
            return Err("`replay` has an empty name in it".to_owned());
        }
        if named.iter().any(|other| other == name) {
            return Err(format!("`replay` names {} twice", shown(&name.into())));
        }
        named.push(name.to_owned());
    }
    Ok(())
}

fn room(value: &str) -> Result<Box<str>, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=ROOM_BYTES_MAX).contains(&value.len()) && value.bytes().all(plain) {
        return Ok(value.into());
    }
    Err(format!("`room` must be 1 to {ROOM_BYTES_MAX} of A-Z, a-z, 0-9, '-', '_' and '.'"))
}

/// Parses a time in a query, where a `+` arrives as a space. The `+` is restored in front of a duration, and in front
/// of an offset from UTC at the end; a space between a number and its unit stays.
///
/// # Errors
/// The message names the parameter.
pub(super) fn time<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    let mut text = value.to_owned();
    let is_offset = |rest: &str| matches!(rest.as_bytes(), [b' ', h, _, b':', _, _] if h.is_ascii_digit());
    let offset_at = text.len().checked_sub(6).filter(|at| text.get(*at..).is_some_and(is_offset));
    for at in [text.starts_with(' ').then_some(0), offset_at].into_iter().flatten() {
        text.replace_range(at..=at, "+");
    }
    text.parse().map_err(|error| format!("`{name}`: {}: {error}", shown(&value.into())))
}

fn max_idle_ms(value: &str) -> Result<u64, String> {
    let ms = duration::parse_ns(value).ok().map(|ns| ns / 1_000_000).filter(|ms| *ms > 0);
    ms.ok_or_else(|| "`max_idle` must be a duration of at least 1ms, such as 5s or 250ms".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)]) -> Result<Option<RoomSpec>, String> {
        let pairs: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        room_wish(&pairs)
    }

    #[test]
    fn what_names_neither_captures_nor_a_room_is_no_wish() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[("symbols", "*"), ("speed", "fast"), ("from", "x")]), Ok(None));
    }

    #[test]
    fn a_wish_is_read_with_its_defaults() {
        let wish = parse(&[("replay", "a.zst,b"), ("symbols", "*")]).expect("good").expect("a wish");
        assert_eq!(wish, RoomSpec { captures: vec!["a.zst".into(), "b".into()], ..RoomSpec::default() });
        let terms = wish.terms();
        assert_eq!((terms.speed, terms.from, terms.looped), (Speed::RECORDED, None, false));
        let wish = parse(&[
            ("room", "desk.1-a_B"),
            ("replay", "a"),
            ("speed", "10"),
            ("from", " 30s"),
            ("to", "2021-04-17T16:43:37Z"),
            ("loop", "1"),
            ("max_idle", "1s500ms"),
        ]);
        let wish = wish.expect("good").expect("a wish");
        let expected = RoomSpec {
            room: Some("desk.1-a_B".into()),
            captures: vec!["a".into()],
            speed: Speed::new(10.0),
            from: Some(Moment::FromStart(30_000_000_000)),
            to: Some(Moment::At(1_618_677_817_000_000_000)),
            looped: Some(true),
            max_idle_ms: Some(1_500),
        };
        assert_eq!(wish, expected);
        // F12: the `+` of an offset from UTC may arrive as a space, as that of a duration may.
        for from in ["2021-04-17T18:43:37 02:00", "2021-04-17T18:43:37+02:00", "2021-04-17T16:43:37-00:00"] {
            let wish = parse(&[("room", "x"), ("from", from)]).expect(from).expect("a wish");
            assert_eq!(wish.from, Some(Moment::At(1_618_677_817_000_000_000)), "{from}");
        }
        assert!(parse(&[("room", "x")]).is_ok_and(|wish| wish.is_some_and(|wish| wish.captures.is_empty())));
    }

    #[test]
    fn faults_name_the_parameter() {
        let long = "x".repeat(65);
        for (key, value, word) in [
            ("replay", "", "`replay`"),
            ("replay", "a,,b", "`replay`"),
            ("replay", "a,a", "`replay` names \"a\" twice"),
            ("room", "", "`room`"),
            ("room", "a b", "`room`"),
            ("room", "../x", "`room`"),
            ("room", "ü", "`room`"),
            ("room", &long, "`room`"),
            ("speed", "-1", "`speed`"),
            ("speed", "fast", "`speed`"),
            ("speed", "1001", "`speed`"),
            ("speed", "NaN", "`speed`"),
            ("from", "noon", "`from`: \"noon\""),
            ("from", "", "`from`"),
            ("from", "2021-04-17 16:43:37Z", "`from`: \"2021-04-17 16:43:37Z\""),
            ("to", "5m\n", "`to`: \"5m\\n\""),
            ("loop", "yes", "`loop`"),
            ("max_idle", "5", "`max_idle`"),
            ("max_idle", "0s", "`max_idle`"),
            ("max_idle", "999us", "`max_idle`"),
        ] {
            let fault = parse(&[("room", "r"), ("replay", "b"), (key, value)]).expect_err(value);
            assert!(fault.contains(word) && fault.len() < 300, "{key}={value}: {fault}");
        }
    }

    #[test]
    fn what_is_left_out_is_taken_as_it_is() {
        let terms = RoomSpec {
            captures: vec!["a".into(), "b".into()],
            speed: Speed::new(10.0),
            from: Some(Moment::FromStart(5)),
            ..RoomSpec::default()
        }
        .terms();
        let wish = |change: fn(&mut RoomSpec)| {
            let mut wish = RoomSpec { room: Some("r".into()), ..RoomSpec::default() };
            change(&mut wish);
            wish.differs(&terms)
        };
        assert_eq!(wish(|_| {}), None);
        assert_eq!(wish(|w| w.captures = vec!["a".into(), "b".into()]), None);
        assert_eq!(wish(|w| w.captures = vec!["b".into(), "a".into()]), Some("replay"));
        assert_eq!(wish(|w| w.speed = Some(Speed::RECORDED)), Some("speed"));
        assert_eq!(wish(|w| w.from = Some(Moment::FromStart(5))), None);
        assert_eq!(wish(|w| w.from = Some(Moment::FromStart(6))), Some("from"));
        assert_eq!(wish(|w| w.to = Some(Moment::FromStart(6))), Some("to"));
        assert_eq!(wish(|w| w.looped = Some(false)), None);
        assert_eq!(wish(|w| w.looped = Some(true)), Some("loop"));
        assert_eq!(wish(|w| w.max_idle_ms = Some(1)), Some("max_idle"));
    }

    #[test]
    fn a_plus_that_came_as_a_space_is_restored_and_other_spaces_stay() {
        let moment = |text: &str| time::<Moment>("from", text);
        assert_eq!(moment(" 5m"), Ok(Moment::FromStart(300_000_000_000)));
        assert_eq!(moment(" 250 ms"), Ok(Moment::FromStart(250_000_000)));
        assert_eq!(moment("-30 s"), Ok(Moment::FromStart(-30_000_000_000)));
        let at = Ok(Moment::At(1_618_677_817_000_000_000));
        assert_eq!(moment("2021-04-17T18:43:37 02:00"), at);
        assert_eq!(moment("2021-04-17T16:43:37Z"), at);
        assert!(moment("2021-04-17 16:43:37").is_err());
        assert!(moment("  5m").is_err());
        assert!(moment("").is_err());
    }
}
