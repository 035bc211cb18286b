//! Requests of clients, parsed and validated. Errors name the field.

use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;

use rustc_hash::FxHashSet;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::fault::{Fault, Id, TEXT_BYTES_MAX, quoted, shown};
use super::moment::{Since, since};
use super::replay::{self, Control};
use super::selector::Selector;
use crate::model::tick::Channel;

/// The `t` of a ping: a number or a short string that the pong returns unchanged.
#[derive(Clone, Debug)]
pub struct Echo(Box<RawValue>);

impl Echo {
    /// The value as the client sent it.
    pub fn value(&self) -> &RawValue {
        &self.0
    }

    fn of(t: &RawValue) -> Result<Self, Fault> {
        let text = t.get();
        let is_good = match text.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => text.len() <= TEXT_BYTES_MAX,
            // The limit applies to the decoded text, not to its escapes.
            Some(b'"') => serde_json::from_str::<String>(text).is_ok_and(|t| t.len() <= TEXT_BYTES_MAX),
            _ => text == "null",
        };
        let wrong = || format!("`t` must be a number or a string of up to {TEXT_BYTES_MAX} bytes");
        if is_good { Ok(Self(t.to_owned())) } else { Err(Fault::bad(wrong())) }
    }
}

impl PartialEq for Echo {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// How a subscription handles ticks that arrive faster than the client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every tick is delivered; a `gap` names those that are dropped.
    Every,
    /// The newest value is delivered; `n` is the number of ticks it stands for.
    Latest,
}

impl Mode {
    /// The word used on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Every => "every",
            Self::Latest => "latest",
        }
    }

    /// The default mode of a channel: quotes are state, trades are events.
    pub const fn default_of(channel: Channel) -> Self {
        match channel {
            Channel::Trade => Self::Every,
            Channel::Quote => Self::Latest,
        }
    }
}

/// Most updates per second of one symbol, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u32);

impl Rate {
    /// Accepted range, in thousandths of an update per second.
    const RANGE: std::ops::RangeInclusive<u64> = 10..=1_000_000;

    /// The rate for a number of updates per second.
    pub(super) fn from_hz(hz: f64) -> Option<Self> {
        let milli = (hz * 1_000.0).round();
        // A value that does not fit becomes 0, which is out of range.
        let milli = if milli.is_finite() && milli >= 0.0 { milli as u64 } else { 0 };
        Self::RANGE.contains(&milli).then_some(Self(milli as u32))
    }

    /// Shortest time between two updates, nanoseconds.
    pub fn period_ns(self) -> u64 {
        1_000_000_000_000 / u64::from(self.0)
    }

    /// The rate in updates per second as JSON: an integer if it is whole.
    pub fn shown(self) -> serde_json::Number {
        match self.0 % 1_000 {
            0 => (self.0 / 1_000).into(),
            _ => serde_json::Number::from_f64(f64::from(self.0) / 1_000.0).unwrap_or_else(|| 0.into()),
        }
    }
}

/// How a subscription handles its ticks. The rate is the one requested, or one of the numbered rates of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy<R = Rate> {
    /// Conflate or deliver every tick.
    pub mode: Mode,
    /// Maximum number of updates per second.
    pub rate: Option<R>,
    /// Whether the first lost tick ends the connection.
    pub disconnect_on_loss: bool,
}

impl DeliveryPolicy {
    /// This policy with a change applied. `every` has no rate, and `latest` loses no ticks to slowness.
    #[must_use]
    pub fn changed(self, change: Change) -> Self {
        let mode = change.mode.unwrap_or(self.mode);
        let rate = change.rate.unwrap_or(self.rate).filter(|_| mode == Mode::Latest);
        Self { mode, rate, disconnect_on_loss: self.disconnect_on_loss && mode == Mode::Every }
    }
}

impl<R> From<Mode> for DeliveryPolicy<R> {
    fn from(mode: Mode) -> Self {
        Self { mode, rate: None, disconnect_on_loss: false }
    }
}

/// Where an earlier connection ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Resume {
    /// The epoch of the sequence numbers.
    pub epoch: String,
    /// The last sequence number received of each symbol.
    pub seq: Vec<(String, u64)>,
}

/// A checked `subscribe`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// At least one channel; no duplicates.
    pub channels: Vec<Channel>,
    /// Symbols: full, without a venue, or wildcards.
    pub symbols: Vec<Selector>,
    /// `None`: the default of each channel.
    pub mode: Option<Mode>,
    /// Most updates per second. If set, every channel is `latest`.
    pub rate: Option<Rate>,
    /// Whether the first tick lost to slowness ends the connection. If set, every channel is `every`.
    pub disconnect_on_loss: bool,
    /// Whether the last value is sent first.
    pub snapshot: bool,
    /// Continue where an earlier connection ended. If set, there is exactly one channel.
    pub resume: Option<Resume>,
    /// Begin with the ticks recorded since this time. If set, every channel is `every`.
    pub from: Option<Since>,
}

impl Subscribe {
    /// A request with default options.
    pub(super) fn new(channels: Vec<Channel>, symbols: Vec<Selector>) -> Self {
        let (mode, rate, resume, from) = (None, None, None, None);
        Self { channels, symbols, mode, rate, disconnect_on_loss: false, snapshot: true, resume, from }
    }

    /// The policy on a channel.
    pub fn policy_on(&self, channel: Channel) -> DeliveryPolicy {
        DeliveryPolicy {
            mode: self.mode_on(channel),
            rate: self.rate,
            disconnect_on_loss: self.disconnect_on_loss,
        }
    }

    fn mode_on(&self, channel: Channel) -> Mode {
        self.mode.unwrap_or(Mode::default_of(channel))
    }

    /// Checks constraints between fields.
    pub(super) fn check(self) -> Result<Self, String> {
        let on = |mode| self.channels.iter().find(|channel| self.mode_on(**channel) == mode);
        if let (Some(_), Some(channel)) = (self.rate, on(Mode::Every)) {
            return Err(format!("`max_hz` needs `mode` \"latest\", and {} is \"every\"", channel.name()));
        }
        if let (true, Some(channel)) = (self.disconnect_on_loss, on(Mode::Latest)) {
            return Err(format!(
                "`on_slow` \"cut\" needs `mode` \"every\", and {} is \"latest\"",
                channel.name()
            ));
        }
        if self.resume.is_some() && self.channels.len() != 1 {
            return Err("`resume` takes one `channel`: each has its own sequence numbers".to_owned());
        }
        if let (Some(_), Some(channel)) = (self.from, on(Mode::Latest)) {
            let what = "the past is not merged";
            return Err(format!(
                "`from` needs `mode` \"every\", and {} is \"latest\": {what}",
                channel.name()
            ));
        }
        if self.from.is_some() && self.resume.is_some() {
            return Err("`from` and `resume` both set the start: send one of them".to_owned());
        }
        Ok(self)
    }
}

/// The changes of a `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// `None`: unchanged.
    pub mode: Option<Mode>,
    /// `None`: unchanged; `Some(None)`: no rate.
    pub rate: Option<Option<Rate>>,
}

/// The subscriptions that a request addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// All channels if the request names none.
    pub channels: Vec<Channel>,
    /// `None`: all symbols.
    pub symbols: Option<Vec<Selector>>,
}

/// An operation with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Adds subscriptions.
    Subscribe(Subscribe),
    /// Removes subscriptions.
    Unsubscribe(Target),
    /// Changes the mode or rate of subscriptions.
    Set(Target, Change),
    /// Lists the subscriptions, or those after this symbol.
    List(Option<String>),
    /// Lists the instruments that match a wildcard or a full symbol, or those after the second symbol.
    Symbols(String, Option<String>),
    /// A round trip; the pong returns the value.
    Ping(Option<Echo>),
    /// A replay command.
    Replay(Control),
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The `id` that the client gave the request.
    pub id: Option<Id>,
    /// The operation.
    pub op: Op,
}

/// Parses one request. It may name at most `symbols_max` distinct symbols.
///
/// # Errors
/// [`Fault`] with `bad_request` or `unknown_op`.
pub fn parse(text: &str, symbols_max: usize) -> Result<Request, Fault> {
    let (message, raw) = fields(text)?;
    let id = Id::of(&message)?;
    match op(&message, &raw, symbols_max) {
        Ok(op) => Ok(Request { id, op }),
        Err(fault) => Err(Fault { id, ..fault }),
    }
}

/// Fields that are first kept as text: `t` may be a number that fits no numeric type, and the lists may be
/// long.
struct Raw<'a> {
    t: Option<&'a RawValue>,
    symbols: Option<&'a RawValue>,
    resume: Option<&'a RawValue>,
}

/// The known fields of a message. Unknown fields are skipped without being stored.
fn fields(text: &str) -> Result<(Map<String, Value>, Raw<'_>), Fault> {
    let not_json = |error| Fault::bad(format!("not JSON: {error}"));
    if !text.trim_ascii_start().starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
        return Err(Fault::bad("a request is a JSON object"));
    }
    let Known(known) = serde_json::from_str(text).map_err(not_json)?;
    let [of_t, of_symbols, of_resume] = ["t", "symbols", "resume"].map(|name| {
        let at = FIELDS.iter().position(|field| *field == name)?;
        known[at]
    });
    let mut fields = Map::new();
    for (name, raw) in FIELDS.iter().zip(known).filter(|(name, _)| !LONG.contains(name)) {
        let Some(raw) = raw else { continue };
        if raw.get().len() > FIELD_BYTES_MAX {
            return Err(Fault::bad(format!("`{name}` is longer than {FIELD_BYTES_MAX} bytes")));
        }
        let value =
            serde_json::from_str(raw.get()).map_err(|error| Fault::bad(format!("`{name}`: {error}")))?;
        fields.insert((*name).to_owned(), value);
    }
    Ok((fields, Raw { t: of_t, symbols: of_symbols, resume: of_resume }))
}

/// All fields of all requests.
const FIELDS: [&str; 19] = [
    "op", "id", "channel", "symbols", "mode", "snapshot", "max_hz", "on_slow", "resume", "from", "match",
    "after", "t", "do", "to", "token", "speed", "ticks", "on",
];
/// The fields that may be long.
const LONG: [&str; 3] = ["t", "symbols", "resume"];
/// Longest value of any other field, bytes, escapes included.
const FIELD_BYTES_MAX: usize = 4_096;

/// The values of the [`FIELDS`] of an object, as text; the last value of a repeated field.
struct Known<'a>([Option<&'a RawValue>; FIELDS.len()]);

impl<'de: 'a, 'a> Deserialize<'de> for Known<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Known<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Known<'de>, A::Error> {
                let mut known = [None; FIELDS.len()];
                while let Some(Field(at)) = map.next_key()? {
                    match at {
                        Some(at) => known[at] = Some(map.next_value()?),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Known(known))
            }
        }
        from.deserialize_map(Object)
    }
}

/// Index of a field in [`FIELDS`]; `None` for an unknown field.
struct Field(Option<usize>);

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(Field(FIELDS.iter().position(|field| *field == name)))
            }
        }
        from.deserialize_str(Name)
    }
}

/// Passes the elements of a list to `take` until it breaks. Returns false if the value is not a list.
fn each_of<'a>(list: &'a RawValue, take: impl FnMut(usize, &'a RawValue) -> ControlFlow<()>) -> bool {
    struct List<F>(F);
    impl<'de, F: FnMut(usize, &'de RawValue) -> ControlFlow<()>> Visitor<'de> for List<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            let mut at = 0;
            while let Some(element) = list.next_element()? {
                if (self.0)(at, element).is_break() {
                    return Err(A::Error::custom("enough"));
                }
                at += 1;
            }
            Ok(())
        }
    }
    let is_list = list.get().starts_with('[');
    if is_list {
        // The list is valid JSON, so an error only means that `take` broke off.
        let _ = serde_json::Deserializer::from_str(list.get()).deserialize_seq(List(take));
    }
    is_list
}

fn op(message: &Map<String, Value>, raw: &Raw<'_>, symbols_max: usize) -> Result<Op, Fault> {
    let word = match message.get("op") {
        Some(Value::String(word)) => word.as_str(),
        Some(_) => return Err(Fault::bad("`op` must be a string")),
        None => return Err(Fault::bad("`op` is missing")),
    };
    match word {
        "subscribe" => subscribe(message, raw, symbols_max),
        "unsubscribe" => Ok(Op::Unsubscribe(target(message, raw, symbols_max)?)),
        "set" => Ok(Op::Set(target(message, raw, symbols_max)?, change(message)?)),
        "list" => Ok(Op::List(short_text(message, "after", AFTER)?)),
        "symbols" => {
            let pattern = short_text(message, "match", "a string like \"*\" or \"coinbase:*\"")?;
            Ok(Op::Symbols(pattern.unwrap_or_else(|| "*".to_owned()), short_text(message, "after", AFTER)?))
        }
        "ping" => raw.t.map(Echo::of).transpose().map(Op::Ping),
        "replay" => replay::control(message).map(Op::Replay),
        other => Err(Fault {
            id: None,
            code: "unknown_op",
            msg: format!(
                "unknown `op` {}: subscribe, unsubscribe, set, list, symbols, ping or replay",
                quoted(other)
            ),
        }),
    }
}

const AFTER: &str = "the symbol of the last row of an answer";

/// An optional field with a short text; `what` describes it in the error.
fn short_text(message: &Map<String, Value>, field: &str, what: &str) -> Result<Option<String>, Fault> {
    match message.get(field) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text.clone())),
        Some(_) => Err(Fault::bad(format!("`{field}` must be {what}"))),
    }
}

fn subscribe(message: &Map<String, Value>, raw: &Raw<'_>, symbols_max: usize) -> Result<Op, Fault> {
    let channels = channels(message)?
        .ok_or_else(|| Fault::bad("`channel` is missing: \"trade\", \"quote\" or a list of them"))?;
    let symbols = symbols(raw.symbols, symbols_max)?.ok_or_else(|| Fault::bad("`symbols` is missing"))?;
    if symbols.is_empty() {
        return Err(Fault::bad("`symbols` must name at least one symbol"));
    }
    let snapshot = match message.get("snapshot") {
        None => true,
        Some(Value::Bool(wanted)) => *wanted,
        Some(_) => return Err(Fault::bad("`snapshot` must be true or false")),
    };
    let disconnect_on_loss = match message.get("on_slow") {
        None | Some(Value::Null) => false,
        Some(Value::String(word)) => on_slow(word).map_err(Fault::bad)?,
        Some(_) => return Err(Fault::bad(ON_SLOW)),
    };
    let wanted = Subscribe {
        mode: mode(message)?,
        rate: rate(message)?.flatten(),
        disconnect_on_loss,
        snapshot,
        resume: resume(raw.resume)?,
        from: since(message)?,
        ..Subscribe::new(channels, symbols)
    };
    wanted.check().map(Op::Subscribe).map_err(Fault::bad)
}

const ON_SLOW: &str = "`on_slow` must be \"gap\" or \"cut\"";

pub(super) fn on_slow(word: &str) -> Result<bool, &'static str> {
    match word {
        "gap" => Ok(false),
        "cut" => Ok(true),
        _ => Err(ON_SLOW),
    }
}

fn change(message: &Map<String, Value>) -> Result<Change, Fault> {
    let change = Change { mode: mode(message)?, rate: rate(message)? };
    match change {
        Change { mode: None, rate: None } => Err(Fault::bad("`mode` or `max_hz` is missing")),
        Change { mode: Some(Mode::Every), rate: Some(Some(_)) } => {
            Err(Fault::bad("`max_hz` needs `mode` \"latest\""))
        }
        change => Ok(change),
    }
}

/// Parses an epoch and sequence numbers by symbol. Repeated symbols are kept in their order.
fn resume(raw: Option<&RawValue>) -> Result<Option<Resume>, Fault> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let not_one = || Fault::bad("`resume` must be an object of `epoch` and `seq`");
    if !raw.get().starts_with('{') {
        return Err(not_one());
    }
    #[derive(Deserialize)]
    struct Parts<'a> {
        #[serde(borrow)]
        epoch: Option<&'a RawValue>,
        #[serde(borrow)]
        seq: Option<&'a RawValue>,
    }
    let Parts { epoch, seq } = serde_json::from_str(raw.get()).map_err(|_| not_one())?;
    let epoch = epoch.and_then(|epoch| serde_json::from_str::<String>(epoch.get()).ok());
    let Some(epoch) = epoch else { return Err(Fault::bad("`resume.epoch` must be a string")) };
    let Some(seq) = seq.filter(|seq| seq.get().starts_with('{')) else {
        return Err(Fault::bad("`resume.seq` must be an object of symbols and numbers"));
    };
    struct Numbers;
    impl<'de> Visitor<'de> for Numbers {
        type Value = Result<Vec<(String, u64)>, Fault>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut numbers, mut wrong) = (Vec::new(), None);
            while let Some(symbol) = map.next_key::<String>()? {
                let number: &RawValue = map.next_value()?;
                match number.get().parse() {
                    Ok(number) => numbers.push((symbol, number)),
                    Err(_) if wrong.is_none() => {
                        let number = shown_raw(number);
                        let what = format!("{number} of {} is no whole number", quoted(&symbol));
                        wrong = Some(Fault::bad(format!("`resume.seq`: {what}")));
                    }
                    Err(_) => {}
                }
            }
            Ok(wrong.map_or(Ok(numbers), Err))
        }
    }
    let read = serde_json::Deserializer::from_str(seq.get()).deserialize_map(Numbers);
    let seq = read.map_err(|error| Fault::bad(format!("`resume.seq`: {error}")))??;
    Ok(Some(Resume { epoch, seq }))
}

fn target(message: &Map<String, Value>, raw: &Raw<'_>, symbols_max: usize) -> Result<Target, Fault> {
    let channels = channels(message)?.unwrap_or_else(|| Channel::ALL.to_vec());
    Ok(Target { channels, symbols: symbols(raw.symbols, symbols_max)? })
}

pub(super) const MAX_HZ: &str = "`max_hz` must be a number above 0: from 0.01 to 1000";

/// `Some(None)` if the client sent `null`.
fn rate(message: &Map<String, Value>) -> Result<Option<Option<Rate>>, Fault> {
    match message.get("max_hz") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::Number(hz)) => match hz.as_f64().and_then(Rate::from_hz) {
            Some(rate) => Ok(Some(Some(rate))),
            None => Err(Fault::bad(MAX_HZ)),
        },
        Some(_) => Err(Fault::bad(MAX_HZ)),
    }
}

fn mode(message: &Map<String, Value>) -> Result<Option<Mode>, Fault> {
    match message.get("mode") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word == "every" => Ok(Some(Mode::Every)),
        Some(Value::String(word)) if word == "latest" => Ok(Some(Mode::Latest)),
        Some(_) => Err(Fault::bad("`mode` must be \"every\" or \"latest\"")),
    }
}

fn channels(message: &Map<String, Value>) -> Result<Option<Vec<Channel>>, Fault> {
    let words = match message.get("channel") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(words)) if !words.is_empty() && words.len() <= 16 => words.as_slice(),
        Some(word @ Value::String(_)) => std::slice::from_ref(word),
        Some(_) => return Err(Fault::bad("`channel` must be \"trade\", \"quote\" or a list of them")),
    };
    words
        .iter()
        .map(|word| {
            word.as_str().and_then(channel).ok_or_else(|| {
                Fault::bad(format!("`channel`: {} is neither \"trade\" nor \"quote\"", shown(word)))
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(|channels| Some(each_once(channels)))
}

pub(super) fn channel(word: &str) -> Option<Channel> {
    Channel::ALL.into_iter().find(|channel| channel.name() == word)
}

pub(super) fn each_once(mut channels: Vec<Channel>) -> Vec<Channel> {
    channels.sort_unstable();
    channels.dedup();
    channels
}

fn symbols(raw: Option<&RawValue>, symbols_max: usize) -> Result<Option<Vec<Selector>>, Fault> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let (mut named, mut seen, mut fault) = (Vec::new(), FxHashSet::default(), None);
    let mut take = |at: usize, symbol: &RawValue| {
        let text =
            serde_json::from_str::<String>(symbol.get()).ok().filter(|text| text.len() <= TEXT_BYTES_MAX);
        let Some(text) = text else {
            fault = Some(format!(
                "`symbols[{at}]`: {} is not a string of up to {TEXT_BYTES_MAX} bytes",
                shown_raw(symbol)
            ));
            return ControlFlow::Break(());
        };
        if !seen.contains(&text) {
            named.push(Selector::parse(&text));
            seen.insert(text);
        }
        if named.len() > symbols_max || at >= MENTIONS * symbols_max {
            fault = Some(format!("`symbols` names more than {symbols_max} symbols"));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    if raw.get().starts_with('"') {
        let _ = take(0, raw);
    } else if !each_of(raw, take) {
        return Err(Fault::bad("`symbols` must be a list of strings"));
    }
    fault.map_or(Ok(Some(named)), |fault| Err(Fault::bad(fault)))
}

/// Most mentions of each symbol, on average, in one request; bounds the length of the list.
const MENTIONS: usize = 4;

/// A received value, shortened for an error message.
fn shown_raw(raw: &RawValue) -> String {
    match raw.get().as_bytes().first() {
        Some(b'[') => "a list".to_owned(),
        Some(b'{') => "an object".to_owned(),
        _ => raw.get().chars().take(40).collect(),
    }
}

/// Returns each symbol once, in the order of first mention, or an error if there are too many.
pub(super) fn within(mut named: Vec<String>, symbols_max: usize) -> Result<Vec<Selector>, String> {
    let mut seen = HashSet::new();
    named.retain(|symbol| seen.insert(symbol.clone()));
    if named.len() > symbols_max {
        return Err(format!("`symbols` names {} symbols, which is more than {symbols_max}", named.len()));
    }
    Ok(named.iter().map(|text| Selector::parse(text)).collect())
}

#[cfg(test)]
mod tests;
