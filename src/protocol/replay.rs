//! Replay control: the commands of a replay, and its reported position.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Number, Value, json};

use super::fault::{Fault, Id, TEXT_BYTES_MAX, shown};
use super::moment::Moment;
use crate::time::rfc3339;

/// The time span of a replay, by receive time. Both ends are part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Time of the first record of the captures, nanoseconds since the Unix epoch; the origin of offsets such
    /// as `+5m`.
    pub start_ns: u64,
    /// Start of the replay, microseconds since the Unix epoch.
    pub from_us: u64,
    /// End of the replay, microseconds since the Unix epoch; `None` until it is known.
    pub to_us: Option<u64>,
}

impl Span {
    /// Checks that a time is within the span. Until the end is known, any time from the start on is accepted.
    ///
    /// # Errors
    /// [`OutOfSpan`] names the time and both ends.
    pub fn check(self, moment: Moment) -> Result<(), OutOfSpan> {
        let at_us = moment.ns(self.start_ns) / 1_000;
        if at_us >= self.from_us && self.to_us.is_none_or(|to_us| at_us <= to_us) {
            return Ok(());
        }
        Err(OutOfSpan { at_us, span: self })
    }
}

/// Error of a time outside the span of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct OutOfSpan {
    /// The time, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The span of the replay.
    pub span: Span,
}

impl fmt::Display for OutOfSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { from_us, to_us, .. } = self.span;
        write!(f, "{} is not in the replay, which begins at {}", Utc(self.at_us), Utc(from_us))?;
        to_us.map_or(Ok(()), |to_us| write!(f, " and ends at {}", Utc(to_us)))
    }
}

/// Microseconds since the Unix epoch, displayed as RFC 3339.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        rfc3339::write(self.0.saturating_mul(1_000), rfc3339::FractionDigits::Six, &mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Speed of a replay: 1 is as recorded, 0 is as fast as possible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// The recorded speed.
    pub const RECORDED: Self = Self(1.0);
    /// As fast as possible.
    pub const FLAT_OUT: Self = Self(0.0);
    /// Error message for any other number.
    pub const WRONG: &'static str = "must be 0 (flat out), or from 0.01 to 1000";

    /// The speed of a factor; `None` unless it is 0 or from 0.01 to 1000.
    pub fn new(factor: f64) -> Option<Self> {
        // `==` instead of `abs`: -0 is accepted as 0, and no other value below 0.01 is.
        (factor == 0.0 || (0.01..=1_000.0).contains(&factor)).then_some(Self(factor))
    }

    /// The factor.
    pub fn factor(self) -> f64 {
        self.0
    }

    /// True if ticks are published without waiting for their time.
    pub fn is_flat_out(self) -> bool {
        self.0 == 0.0
    }

    /// The factor as JSON: an integer if it is whole.
    fn shown(self) -> Number {
        if self.0.fract() == 0.0 {
            return (self.0 as u64).into();
        }
        Number::from_f64(self.0).unwrap_or_else(|| 1.into())
    }
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| Self::WRONG.to_owned())
    }
}

/// A replay command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReplayCommand {
    /// Pause.
    Pause,
    /// Resume; an ended replay restarts from its beginning.
    Resume,
    /// Go to this time.
    Seek(Moment),
    /// Change the speed.
    Speed(Speed),
    /// Publish this number of trades and quotes, then pause.
    Step(u32),
    /// Whether to restart from the beginning at the end.
    Loop(bool),
    /// End the replay.
    Stop,
}

/// Most ticks of one step.
pub const STEP_MAX: u32 = 1_000_000;

/// A request to control a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// The replay command.
    pub command: ReplayCommand,
    /// The control token that the client sent.
    pub token: Option<String>,
}

/// Parses the fields of a replay command: `do` and its arguments.
///
/// # Errors
/// [`Fault`] names the field.
pub fn control(message: &Map<String, Value>) -> Result<Control, Fault> {
    let token = match message.get("token") {
        None | Some(Value::Null) => None,
        Some(Value::String(token)) => Some(token.clone()),
        Some(_) => return Err(Fault::bad("`token` must be a string")),
    };
    let word = match message.get("do") {
        Some(Value::String(word)) => word.as_str(),
        Some(_) => return Err(Fault::bad("`do` must be a string")),
        None => return Err(Fault::bad(format!("`do` is missing: {WORDS}"))),
    };
    let command = match word {
        "pause" => ReplayCommand::Pause,
        "resume" => ReplayCommand::Resume,
        "seek" => ReplayCommand::Seek(moment(message)?),
        "speed" => ReplayCommand::Speed(speed(message)?),
        "step" => ReplayCommand::Step(ticks(message)?),
        "loop" => match message.get("on") {
            Some(Value::Bool(on)) => ReplayCommand::Loop(*on),
            _ => return Err(Fault::bad("`on` must be true or false")),
        },
        "stop" => ReplayCommand::Stop,
        other => return Err(Fault::bad(format!("unknown `do` {}: {WORDS}", shown(&other.into())))),
    };
    Ok(Control { command, token })
}

const WORDS: &str = "pause, resume, seek, speed, step, loop or stop";

/// Parses a replay command without `op`, as in the body of an HTTP request, with its `id`.
///
/// # Errors
/// As [`control`].
pub fn parse_control(body: &[u8]) -> Result<(Option<Id>, Control), Fault> {
    let message: Value =
        serde_json::from_slice(body).map_err(|error| Fault::bad(format!("not JSON: {error}")))?;
    let Value::Object(message) = message else { return Err(Fault::bad("the body is not a JSON object")) };
    let id = Id::of(&message)?;
    match control(&message) {
        Ok(control) => Ok((id, control)),
        Err(fault) => Err(Fault { id, ..fault }),
    }
}

fn moment(message: &Map<String, Value>) -> Result<Moment, Fault> {
    match message.get("to") {
        Some(Value::Number(us)) => {
            let ns = us.as_u64().and_then(|us| us.checked_mul(1_000));
            ns.map(Moment::At).ok_or_else(|| {
                Fault::bad(format!("`to`: {us} is no whole number of microseconds since the Unix epoch"))
            })
        }
        Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => {
            text.parse().map_err(|error| Fault::bad(format!("`to`: {text:?}: {error}")))
        }
        Some(other) => {
            Err(Fault::bad(format!("`to`: {} is neither a number nor a short string", shown(other))))
        }
        None => Err(Fault::bad("`to` is missing: microseconds since the Unix epoch, or text")),
    }
}

fn speed(message: &Map<String, Value>) -> Result<Speed, Fault> {
    let speed = message.get("speed").and_then(Value::as_f64).and_then(Speed::new);
    speed.ok_or_else(|| Fault::bad(format!("`speed` {}", Speed::WRONG)))
}

fn ticks(message: &Map<String, Value>) -> Result<u32, Fault> {
    let ticks = match message.get("ticks") {
        None => Some(1),
        Some(value) => value.as_u64().filter(|n| (1..=u64::from(STEP_MAX)).contains(n)),
    };
    ticks
        .map(|n| n as u32)
        .ok_or_else(|| Fault::bad(format!("`ticks` must be a whole number from 1 to {STEP_MAX}")))
}

/// State of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlayState {
    /// Publishing at its speed.
    Playing,
    /// Paused.
    #[default]
    Paused,
    /// Moving to another position.
    Seeking,
    /// Nothing more is published.
    Ended,
}

impl PlayState {
    /// The word used on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Playing => "playing",
            Self::Paused => "paused",
            Self::Seeking => "seeking",
            Self::Ended => "ended",
        }
    }
}

/// Position of a replay. Times are those of the capture, microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Playback {
    /// State of the replay.
    pub state: PlayState,
    /// All records received before this time are published.
    pub position_us: u64,
    /// Time of the first record, or the configured start.
    pub from_us: u64,
    /// Time of the last record as far as known, or the configured end.
    pub to_us: u64,
    /// Speed of the replay.
    pub speed: Speed,
    /// Whether the replay restarts at its end.
    pub looped: bool,
}

impl Playback {
    /// The `replay` message.
    pub fn message(&self) -> Value {
        json!({
            "type": "replay", "state": self.state.name(), "position": self.position_us, "from": self.from_us,
            "to": self.to_us, "speed": self.speed.shown(), "loop": self.looped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Result<ReplayCommand, String> {
        match parse_control(text.as_bytes()) {
            Ok((_, control)) => Ok(control.command),
            Err(fault) => {
                assert_eq!(fault.code, "bad_request", "{text}");
                Err(fault.msg)
            }
        }
    }

    #[test]
    fn commands_are_read() {
        let start = Moment::At(1_714_564_830_000_000_000);
        for (text, wanted) in [
            (r#"{"do":"pause"}"#, ReplayCommand::Pause),
            (r#"{"do":"resume","extra":[]}"#, ReplayCommand::Resume),
            (r#"{"do":"seek","to":1714564830000000}"#, ReplayCommand::Seek(start)),
            (r#"{"do":"seek","to":"2024-05-01T12:00:30Z"}"#, ReplayCommand::Seek(start)),
            (r#"{"do":"seek","to":"2024-05-01T14:00:30+02:00"}"#, ReplayCommand::Seek(start)),
            (r#"{"do":"seek","to":"+5m"}"#, ReplayCommand::Seek(Moment::FromStart(300_000_000_000))),
            (r#"{"do":"seek","to":"-10s"}"#, ReplayCommand::Seek(Moment::FromStart(-10_000_000_000))),
            (r#"{"do":"speed","speed":0}"#, ReplayCommand::Speed(Speed::FLAT_OUT)),
            (r#"{"do":"speed","speed":0.01}"#, ReplayCommand::Speed(Speed(0.01))),
            (r#"{"do":"step"}"#, ReplayCommand::Step(1)),
            (r#"{"do":"step","ticks":1000000}"#, ReplayCommand::Step(1_000_000)),
            (r#"{"do":"loop","on":false}"#, ReplayCommand::Loop(false)),
            (r#"{"do":"stop"}"#, ReplayCommand::Stop),
        ] {
            assert_eq!(command(text), Ok(wanted), "{text}");
        }
        let (id, control) = parse_control(br#"{"id":7,"do":"stop","token":"x"}"#).expect("good");
        assert_eq!((id.map(|id| id.value().clone()), control.token.as_deref()), (Some(7.into()), Some("x")));
    }

    #[test]
    fn faults_name_the_field() {
        for (text, word) in [
            ("", "not JSON"),
            ("[]", "object"),
            ("{}", "`do` is missing"),
            (r#"{"do":1}"#, "`do`"),
            (r#"{"do":"fly"}"#, "\"fly\""),
            (r#"{"do":"pause","token":1}"#, "`token`"),
            (r#"{"do":"pause","id":[]}"#, "`id`"),
            (r#"{"do":"seek"}"#, "`to`"),
            (r#"{"do":"seek","to":-1}"#, "`to`"),
            (r#"{"do":"seek","to":1.5}"#, "`to`"),
            (r#"{"do":"seek","to":18446744073709551615}"#, "`to`"),
            (r#"{"do":"seek","to":"noon"}"#, "`to`"),
            (r#"{"do":"seek","to":"+5"}"#, "`to`"),
            (r#"{"do":"seek","to":{}}"#, "`to`"),
            (r#"{"do":"speed"}"#, "`speed`"),
            (r#"{"do":"speed","speed":"2"}"#, "`speed`"),
            (r#"{"do":"speed","speed":-1}"#, "`speed`"),
            (r#"{"do":"speed","speed":0.001}"#, "`speed`"),
            (r#"{"do":"speed","speed":1001}"#, "`speed`"),
            (r#"{"do":"step","ticks":0}"#, "`ticks`"),
            (r#"{"do":"step","ticks":1000001}"#, "`ticks`"),
            (r#"{"do":"step","ticks":1.5}"#, "`ticks`"),
            (r#"{"do":"loop"}"#, "`on`"),
            (r#"{"do":"loop","on":1}"#, "`on`"),
        ] {
            assert!(command(text).is_err_and(|msg| msg.contains(word)), "{text}: {:?}", command(text));
        }
    }

    #[test]
    fn what_is_outside_of_a_span_is_told_with_its_ends() {
        const START_NS: u64 = 1_714_564_800_000_000_999;
        let mut span =
            Span { start_ns: START_NS, from_us: START_NS / 1_000 + 10, to_us: Some(START_NS / 1_000 + 20) };
        let at = |us: u64| Moment::At((START_NS / 1_000 + us) * 1_000);
        // Both ends are part of the span, at the microsecond resolution in which they are shown.
        for us in [10, 15, 20] {
            assert_eq!(span.check(at(us)), Ok(()), "{us}");
        }
        assert_eq!(span.check(Moment::FromStart(20_000)), Ok(()));
        let error = span.check(at(21)).expect_err("behind the end");
        assert_eq!(
            error.to_string(),
            "2024-05-01T12:00:00.000021Z is not in the replay, which begins at 2024-05-01T12:00:00.000010Z and ends at \
             2024-05-01T12:00:00.000020Z"
        );
        for outside in [at(9), Moment::FromStart(0), Moment::FromStart(-5_000_000_000), Moment::At(0)] {
            assert!(span.check(outside).is_err(), "{outside:?}");
        }
        span.to_us = None;
        assert_eq!(span.check(Moment::At(u64::MAX)), Ok(()), "the end is looked for");
        let error = span.check(at(9)).expect_err("before it");
        assert!(error.to_string().ends_with("which begins at 2024-05-01T12:00:00.000010Z"), "{error}");
    }

    #[test]
    fn a_playback_is_shown_as_documented() {
        let mut playback = Playback {
            state: PlayState::Playing,
            position_us: 3,
            from_us: 1,
            to_us: 9,
            speed: Speed::RECORDED,
            looped: false,
        };
        assert_eq!(
            playback.message().to_string(),
            r#"{"type":"replay","state":"playing","position":3,"from":1,"to":9,"speed":1,"loop":false}"#
        );
        playback.speed = Speed(2.5);
        assert_eq!(playback.message()["speed"], 2.5);
    }
}
