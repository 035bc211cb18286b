//! Requests of clients, checked. What is wrong is said by naming the field.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::tick::Channel;

/// The longest `id`, `t` or symbol text that is taken in, in bytes.
const TEXT_BYTES_MAX: usize = 128;

/// What a client called its request; it comes back in the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Id(Value);

impl Id {
    /// As it was sent: a string or an integer.
    pub fn value(&self) -> &Value {
        &self.0
    }
}

/// How a subscription treats ticks that come faster than the client takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every tick; those that are dropped are named by a `gap`.
    Every,
    /// The newest value; `n` tells how many it stands for.
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

    /// What a channel has unless the client says otherwise: quotes are state, trades are events.
    pub const fn default_of(channel: Channel) -> Self {
        match channel {
            Channel::Trade => Self::Every,
            Channel::Quote => Self::Latest,
        }
    }
}

/// A checked `subscribe`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// At least one channel, each once.
    pub channels: Vec<Channel>,
    /// Symbols as the client wrote them: full, bare or wildcards.
    pub symbols: Vec<String>,
    /// `None`: the channel's default.
    pub mode: Option<Mode>,
    /// Whether the last value comes first.
    pub snapshot: bool,
}

/// Which of its subscriptions a client means.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Every channel where it named none.
    pub channels: Vec<Channel>,
    /// `None`: all symbols.
    pub symbols: Option<Vec<String>>,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// More symbols.
    Subscribe(Subscribe),
    /// Fewer symbols.
    Unsubscribe(Target),
    /// Another mode for what it has.
    Set(Target, Mode),
    /// What it has.
    List,
    /// What there is: a wildcard or a full symbol.
    Symbols(String),
    /// A round trip; the value comes back.
    Ping(Option<Value>),
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The client's name for it.
    pub id: Option<Id>,
    /// What it wants.
    pub op: Op,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The id, where it could be read.
    pub id: Option<Id>,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people, naming the field.
    pub msg: String,
}

impl Fault {
    fn bad(msg: impl Into<String>) -> Self {
        Self { id: None, code: "bad_request", msg: msg.into() }
    }
}

/// Reads one request, which may name at most `symbols_max` symbols; those it names twice count once.
///
/// # Errors
/// [`Fault`] with `bad_request`, `unknown_op` or `unsupported`.
pub fn parse(text: &str, symbols_max: usize) -> Result<Request, Fault> {
    let message: Value =
        serde_json::from_str(text).map_err(|error| Fault::bad(format!("not JSON: {error}")))?;
    let Value::Object(message) = message else {
        return Err(Fault::bad("a request is a JSON object"));
    };
    let id = match message.get("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Some(Id(text.clone().into())),
        Some(Value::Number(number)) if !number.is_f64() => Some(Id(number.clone().into())),
        Some(_) => {
            return Err(Fault::bad(format!(
                "`id` must be an integer or a string of up to {TEXT_BYTES_MAX} bytes"
            )));
        }
    };
    match op(&message, symbols_max) {
        Ok(op) => Ok(Request { id, op }),
        Err(fault) => Err(Fault { id, ..fault }),
    }
}

fn op(message: &Map<String, Value>, symbols_max: usize) -> Result<Op, Fault> {
    let word = match message.get("op") {
        Some(Value::String(word)) => word.as_str(),
        Some(_) => return Err(Fault::bad("`op` must be a string")),
        None => return Err(Fault::bad("`op` is missing")),
    };
    match word {
        "subscribe" => subscribe(message, symbols_max),
        "unsubscribe" => Ok(Op::Unsubscribe(target(message, symbols_max)?)),
        "set" => {
            refuse_max_hz(message)?;
            let mode = mode(message)?.ok_or_else(|| Fault::bad("`mode` is missing"))?;
            Ok(Op::Set(target(message, symbols_max)?, mode))
        }
        "list" => Ok(Op::List),
        "symbols" => match message.get("match") {
            None => Ok(Op::Symbols("*".to_owned())),
            Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Op::Symbols(text.clone())),
            Some(_) => Err(Fault::bad("`match` must be a string like \"*\" or \"coinbase:*\"")),
        },
        "ping" => match message.get("t") {
            None => Ok(Op::Ping(None)),
            Some(t @ (Value::Number(_) | Value::Null)) => Ok(Op::Ping(Some(t.clone()))),
            Some(Value::String(t)) if t.len() <= TEXT_BYTES_MAX => Ok(Op::Ping(Some(t.clone().into()))),
            Some(_) => Err(Fault::bad("`t` must be a number or a short string")),
        },
        other => Err(Fault {
            id: None,
            code: "unknown_op",
            msg: format!(
                "unknown `op` {:?}: subscribe, unsubscribe, set, list, symbols or ping",
                other.chars().take(40).collect::<String>()
            ),
        }),
    }
}

fn subscribe(message: &Map<String, Value>, symbols_max: usize) -> Result<Op, Fault> {
    refuse_max_hz(message)?;
    let channels = channels(message)?
        .ok_or_else(|| Fault::bad("`channel` is missing: \"trade\", \"quote\" or a list of them"))?;
    let symbols = symbols(message, symbols_max)?.ok_or_else(|| Fault::bad("`symbols` is missing"))?;
    if symbols.is_empty() {
        return Err(Fault::bad("`symbols` must name at least one symbol"));
    }
    let snapshot = match message.get("snapshot") {
        None => true,
        Some(Value::Bool(wanted)) => *wanted,
        Some(_) => return Err(Fault::bad("`snapshot` must be true or false")),
    };
    Ok(Op::Subscribe(Subscribe { channels, symbols, mode: mode(message)?, snapshot }))
}

fn target(message: &Map<String, Value>, symbols_max: usize) -> Result<Target, Fault> {
    let channels = channels(message)?.unwrap_or_else(|| Channel::ALL.to_vec());
    Ok(Target { channels, symbols: symbols(message, symbols_max)? })
}

/// A rate that would be ignored in silence is worse than an error.
fn refuse_max_hz(message: &Map<String, Value>) -> Result<(), Fault> {
    match message.get("max_hz") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Number(hz)) if hz.as_f64().is_some_and(|hz| hz > 0.0) => Err(Fault {
            id: None,
            code: "unsupported",
            msg: "`max_hz` is not available yet: leave it out".to_owned(),
        }),
        Some(_) => Err(Fault::bad("`max_hz` must be a number above 0")),
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

fn channel(word: &str) -> Option<Channel> {
    Channel::ALL.into_iter().find(|channel| channel.name() == word)
}

fn each_once(mut channels: Vec<Channel>) -> Vec<Channel> {
    channels.sort_unstable();
    channels.dedup();
    channels
}

fn symbols(message: &Map<String, Value>, symbols_max: usize) -> Result<Option<Vec<String>>, Fault> {
    let list = match message.get("symbols") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(_) => return Err(Fault::bad("`symbols` must be a list of strings")),
    };
    list.iter()
        .enumerate()
        .map(|(at, symbol)| match symbol {
            Value::String(text) if text.len() <= TEXT_BYTES_MAX => Ok(text.clone()),
            other => Err(Fault::bad(format!(
                "`symbols[{at}]`: {} is not a string of up to {TEXT_BYTES_MAX} bytes",
                shown(other)
            ))),
        })
        .collect::<Result<Vec<_>, _>>()
        .and_then(|named| within(named, symbols_max).map_err(Fault::bad))
        .map(Some)
}

/// Each symbol once, in the order of first mention, if they are not too many.
fn within(mut named: Vec<String>, symbols_max: usize) -> Result<Vec<String>, String> {
    let mut seen = HashSet::new();
    named.retain(|symbol| seen.insert(symbol.clone()));
    if named.len() > symbols_max {
        return Err(format!("`symbols` names {} symbols, which is more than {symbols_max}", named.len()));
    }
    Ok(named)
}

/// A value from outside, short enough for an error message.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string().chars().take(40).collect(),
    }
}

/// Reads the URL form, `symbols=coinbase:BTC-USD,kraken:*&channel=trade`: `None` where it names no symbols.
/// Without `channel` it means every channel.
///
/// # Errors
/// A sentence that names the parameter.
pub fn parse_query(parameters: &[(String, String)]) -> Result<Option<Subscribe>, String> {
    let mut wanted =
        Subscribe { channels: Channel::ALL.to_vec(), symbols: Vec::new(), mode: None, snapshot: true };
    for (key, value) in parameters {
        match key.as_str() {
            "symbols" => {
                wanted.symbols.extend(value.split(',').filter(|s| !s.is_empty()).map(str::to_owned));
            }
            "channel" => {
                let words = value.split(',').map(|word| {
                    channel(word).ok_or_else(|| format!("`channel`: {word:.40?} is neither trade nor quote"))
                });
                wanted.channels = each_once(words.collect::<Result<Vec<_>, _>>()?);
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
            "max_hz" => return Err("`max_hz` is not available yet: leave it out".to_owned()),
            _ => {}
        }
    }
    if let Some(long) = wanted.symbols.iter().find(|s| s.len() > TEXT_BYTES_MAX) {
        return Err(format!("`symbols`: {long:.40?}… is longer than {TEXT_BYTES_MAX} bytes"));
    }
    // The head of a request is short: what fits in it is not too much.
    wanted.symbols = within(wanted.symbols, usize::MAX)?;
    Ok((!wanted.symbols.is_empty()).then_some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (&'static str, String) {
        let fault = parse(text, 10).expect_err(text);
        (fault.code, fault.msg)
    }

    #[test]
    fn a_subscribe_is_read_with_its_defaults() {
        let request = parse(
            r#"{"op":"subscribe","id":2,"channel":"quote","symbols":["coinbase:BTC-USD"],"extra":1}"#,
            10,
        );
        let request = request.expect("good");
        assert_eq!(request.id, Some(Id(2.into())));
        let expected = Subscribe {
            channels: vec![Channel::Quote],
            symbols: vec!["coinbase:BTC-USD".into()],
            mode: None,
            snapshot: true,
        };
        assert_eq!(request.op, Op::Subscribe(expected));
    }

    #[test]
    fn faults_name_the_field() {
        for (text, code, word) in [
            ("{", "bad_request", "not JSON"),
            ("[]", "bad_request", "object"),
            ("{}", "bad_request", "`op`"),
            (r#"{"op":7}"#, "bad_request", "`op`"),
            (r#"{"op":"fly"}"#, "unknown_op", "\"fly\""),
            (r#"{"op":"list","id":1.5}"#, "bad_request", "`id`"),
            (r#"{"op":"subscribe","symbols":["*"]}"#, "bad_request", "`channel`"),
            (r#"{"op":"subscribe","channel":["trade","x"],"symbols":["*"]}"#, "bad_request", "\"x\""),
            (r#"{"op":"subscribe","channel":"trade"}"#, "bad_request", "`symbols`"),
            (r#"{"op":"subscribe","channel":"trade","symbols":["a:b",{}]}"#, "bad_request", "`symbols[1]`"),
            (r#"{"op":"subscribe","channel":"trade","symbols":["*"],"mode":"all"}"#, "bad_request", "`mode`"),
            (r#"{"op":"subscribe","channel":"trade","symbols":["*"],"max_hz":0}"#, "bad_request", "`max_hz`"),
            (r#"{"op":"subscribe","channel":"trade","symbols":["*"],"max_hz":5}"#, "unsupported", "`max_hz`"),
            (r#"{"op":"set","symbols":["*"]}"#, "bad_request", "`mode`"),
            (r#"{"op":"ping","t":{}}"#, "bad_request", "`t`"),
        ] {
            let (found, msg) = fault(text);
            assert_eq!(found, code, "{text}");
            assert!(msg.contains(word), "{text}: {msg}");
        }
        assert_eq!(parse(r#"{"op":"fly","id":"x"}"#, 10).expect_err("no such op").id, Some(Id("x".into())));
    }

    #[test]
    fn symbols_count_once_and_not_too_many() {
        let text = |count: usize| {
            let list: Vec<String> = (0..2 * count).map(|n| format!("\"a:S{}\"", n % count)).collect();
            format!(r#"{{"op":"subscribe","channel":"trade","symbols":[{}]}}"#, list.join(","))
        };
        assert!(
            matches!(parse(&text(10), 10), Ok(Request { op: Op::Subscribe(s), .. }) if s.symbols.len() == 10)
        );
        assert!(fault(&text(11)).1.contains("`symbols` names 11"));
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = format!("{{\"op\":{}", "[".repeat(60_000));
        assert_eq!(fault(&deep).0, "bad_request");
    }

    #[test]
    fn the_url_form_means_the_same() {
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let wanted = parse_query(&pairs(&[("symbols", "a:B,kraken:*"), ("channel", "trade")]));
        let wanted = wanted.expect("good").expect("symbols");
        assert_eq!(wanted.symbols, ["a:B", "kraken:*"]);
        assert_eq!(wanted.channels, [Channel::Trade]);
        assert_eq!(parse_query(&pairs(&[("other", "x")])), Ok(None));
        assert!(parse_query(&pairs(&[("channel", "book")])).is_err_and(|e| e.contains("`channel`")));
    }
}
