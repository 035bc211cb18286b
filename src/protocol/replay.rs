//! The remote control of a replay: what it can be told, and what it shows of itself.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Number, Value, json};

use super::fault::{Fault, Id, TEXT_BYTES_MAX, shown};
use super::moment::Moment;
use crate::time::rfc3339;

/// The moments of a replay, by receive time: both ends are moments of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first record of the captures, nanoseconds since the Unix epoch: what `+5m` counts from.
    pub start_ns: u64,
    /// Where the replay begins, microseconds since the Unix epoch.
    pub from_us: u64,
    /// Where it ends, in the same way; `None` while that is being looked for.
    pub to_us: Option<u64>,
}

impl Span {
    /// Whether this is a moment of it. While the end is looked for, any that is late enough may be one.
    ///
    /// # Errors
    /// [`OutOfSpan`] names the moment and the ends.
    pub fn check(self, moment: Moment) -> Result<(), OutOfSpan> {
        let at_us = moment.ns(self.start_ns) / 1_000;
        if at_us >= self.from_us && self.to_us.is_none_or(|to_us| at_us <= to_us) {
            return Ok(());
        }
        Err(OutOfSpan { at_us, span: self })
    }
}

/// A moment that is none of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct OutOfSpan {
    /// The moment, microseconds since the Unix epoch.
    pub at_us: u64,
    /// What the replay has.
    pub span: Span,
}

impl fmt::Display for OutOfSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { from_us, to_us, .. } = self.span;
        write!(f, "{} is not in the replay, which begins at {}", Utc(self.at_us), Utc(from_us))?;
        to_us.map_or(Ok(()), |to_us| write!(f, " and ends at {}", Utc(to_us)))
    }
}

/// Microseconds since the Unix epoch, as people read them.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        rfc3339::write(self.0.saturating_mul(1_000), rfc3339::FractionDigits::Six, &mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// How fast a replay goes: 1 is as recorded, 0 flat out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// As recorded.
    pub const RECORDED: Self = Self(1.0);
    /// As fast as it goes.
    pub const FLAT_OUT: Self = Self(0.0);
    /// What is wrong with every other number.
    pub const WRONG: &'static str = "must be 0 (flat out), or from 0.01 to 1000";

    /// From a number; `None` for one that is neither 0 nor from 0.01 to 1000.
    pub fn new(factor: f64) -> Option<Self> {
        // Not `abs`: -0 is 0, and nothing else below 0.01 is taken.
        (factor == 0.0 || (0.01..=1_000.0).contains(&factor)).then_some(Self(factor))
    }

    /// The number.
    pub fn factor(self) -> f64 {
        self.0
    }

    /// True where nothing waits for its time.
    pub fn is_flat_out(self) -> bool {
        self.0 == 0.0
    }

    /// As it is shown: a whole number where it is one.
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

/// What a replay can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReplayCommand {
    /// Stand still.
    Pause,
    /// Go on; from the beginning where it has ended.
    Resume,
    /// Go to this moment.
    Seek(Moment),
    /// Go so fast from here on.
    Speed(Speed),
    /// Publish so many trades and quotes, then stand still.
    Step(u32),
    /// From the end to the beginning again, or not.
    Loop(bool),
    /// End.
    Stop,
}

/// The most ticks of one step.
pub const STEP_MAX: u32 = 1_000_000;

/// What a client asks of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// What it is to do.
    pub command: ReplayCommand,
    /// What the client shows for it.
    pub token: Option<String>,
}

/// Reads the fields of a control: `do` and what goes with it.
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

/// Reads a control that came without an `op`, as the body of a request in HTTP, with its `id`.
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

/// What a replay is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlayState {
    /// Its ticks come at their pace.
    Playing,
    /// It stands still.
    #[default]
    Paused,
    /// It is on its way to another place.
    Seeking,
    /// Nothing more comes.
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

/// Where a replay is. Times are those of the capture, microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Playback {
    /// What it is doing.
    pub state: PlayState,
    /// Everything received before this has been published.
    pub position_us: u64,
    /// Its first record, or where it was told to begin.
    pub from_us: u64,
    /// Its last record as far as it is known, or where it was told to end.
    pub to_us: u64,
    /// How fast it goes.
    pub speed: Speed,
    /// Whether it begins again at its end.
    pub looped: bool,
}

impl Playback {
    /// The message that shows it.
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
    fn orders_are_read() {
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
        // Both ends are moments of it, as they are shown: in whole microseconds.
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
