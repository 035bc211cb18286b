//! The format of a flight: one JSON object per line, the first of which describes the incident. Writer and
//! reader are both here. Pure.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Cause, Client, ClientSnapshot};
use crate::latency::{Figures, Nanos};
use crate::model::instrument::{InstrumentTable, Symbol};
use crate::model::tick::{Channel, GapCause, Tick};
use crate::protocol::json::{self, EncodeFlags};
use crate::text;

/// Version of the written format, and the newest that can be read.
const VERSION: u32 = 1;
/// Start of every flight, and of no other file that a report reads.
const BEGIN: &[u8] = br#"{"type":"flight","#;
/// Longest line that is read, bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Most lines that are read.
const LINES_MAX: u64 = 10_000_000;

/// The first line: the incident, and the extent of the data before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    version: u32,
    /// Time of the incident, microseconds since the Unix epoch.
    pub at_us: u64,
    /// Description of the incident.
    #[serde(flatten)]
    pub reason: Reason,
    /// Time span that the flight covers if nothing else limits it, seconds.
    pub seconds: u64,
    /// Number of ticks in the flight: the last ones before the incident.
    pub ticks: u64,
    /// What limited the number of ticks.
    pub ticks_bound: FlightBound,
    /// Start and end of the interval with the latencies, microseconds since the Unix epoch.
    pub stages_from_us: u64,
    /// See [`stages_from_us`](Self::stages_from_us).
    pub stages_to_us: u64,
    /// The longest turn of each shard in the time span, or in its last 63 s, microseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub longest_turns_us: Vec<u64>,
}

/// What limits the ticks of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlightBound {
    /// The time span; it is complete.
    Seconds,
    /// The ring: older ticks are overwritten.
    Ring,
    /// The size of the file.
    Bytes,
}

/// Description of an incident, with all names resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Reason {
    /// A client was cut.
    Cut {
        /// The reason sent to the client, or `dead_peer`.
        why: Cow<'static, str>,
        /// Code of the close frame; 1006 if none could be sent.
        code: u16,
    },
    /// Sequence numbers of a stream are lost.
    Gap {
        /// The symbol.
        symbol: String,
        /// The channel.
        channel: Cow<'static, str>,
        /// First lost sequence number.
        from: u64,
        /// Last lost sequence number.
        to: u64,
        /// `feed`, or the cause in the `gap` sent to a client.
        why: Cow<'static, str>,
    },
    /// An interval was over budget.
    Budget {
        /// The violated rules.
        broken: Vec<Broken>,
    },
}

/// A violated rule of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The rule as configured.
    rule: String,
    /// The measured value.
    measured_ns: u64,
}

impl Reason {
    pub(super) fn new(cause: &Cause, table: &InstrumentTable) -> Self {
        match cause {
            Cause::Cut { why, code } => Self::Cut { why: why.name().into(), code: *code },
            Cause::Gap { key, from, to, why } => Self::Gap {
                symbol: table.get(key.instrument()).map_or("", Symbol::as_str).to_owned(),
                channel: key.channel().map_or("", Channel::name).into(),
                from: *from,
                to: *to,
                why: why.name().into(),
            },
            Cause::Budget(verdicts) => Self::Budget {
                broken: verdicts
                    .iter()
                    .map(|verdict| Broken {
                        rule: verdict.rule.clone(),
                        measured_ns: verdict.measured_ns.unwrap_or(0),
                    })
                    .collect(),
            },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { why, code } => write!(f, "a client was cut: {why} ({code})"),
            Self::Gap { symbol, channel, from, to, why } if why == GapCause::Feed.name() => {
                write!(f, "the feed lost {symbol} {channel} {from} to {to}")
            }
            Self::Gap { symbol, channel, from, to, why } => {
                write!(f, "a client was told that {symbol} {channel} {from} to {to} are not coming: {why}")
            }
            Self::Budget { broken } => {
                f.write_str("over budget")?;
                broken.iter().enumerate().try_for_each(|(at, Broken { rule, measured_ns })| {
                    write!(f, "{}{rule}: {}", if at == 0 { ": " } else { ", " }, Nanos(*measured_ns))
                })
            }
        }
    }
}

// ---- writing --------------------------------------------------------------------------------------------

/// A line to write.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Flight(&'a Header),
    Client(&'a Client),
    State(&'a ClientSnapshot),
}

impl Line<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        text::json::write(self, out);
        out.push(b'\n');
    }
}

/// Latencies of the stages in one interval.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Start of the interval, microseconds since the Unix epoch.
    pub from_us: u64,
    /// End of the interval, microseconds since the Unix epoch.
    pub to_us: u64,
    /// Figures by tag.
    pub rows: Vec<(String, Figures)>,
    /// The longest turn of each shard, microseconds.
    pub longest_turns_us: Vec<u64>,
}

impl Header {
    /// The header of a flight whose number of ticks is not known yet.
    pub(super) fn new(at_us: u64, reason: Reason, seconds: u64, stages: &Stages) -> Self {
        let Stages { from_us, to_us, .. } = *stages;
        let (ticks, ticks_bound) = (u64::MAX, FlightBound::Seconds);
        Self {
            version: VERSION,
            at_us,
            reason,
            seconds,
            ticks,
            ticks_bound,
            stages_from_us: from_us,
            stages_to_us: to_us,
            longest_turns_us: stages.longest_turns_us.clone(),
        }
    }

    /// Appends the header as a line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        Line::Flight(self).write(out);
    }
}

/// Appends the lines between the header and the ticks.
pub(super) fn write_middle(client: Option<&Client>, stages: &Stages, out: &mut Vec<u8>) {
    if let Some(client) = client {
        Line::Client(client).write(out);
        client.states.iter().for_each(|state| Line::State(state).write(out));
    }
    for (tag, figures) in &stages.rows {
        let mut row = Map::new();
        row.insert("type".to_owned(), "stage".into());
        row.insert("tag".to_owned(), tag.as_str().into());
        row.extend(figures.fields().map(|(name, value)| (name, value.into())));
        // Encoding a map with text keys cannot fail.
        text::json::write(&row, out);
        out.push(b'\n');
    }
}

/// Appends a tick, in the format for clients.
pub(super) fn write_tick(tick: &Tick, symbol: &Symbol, out: &mut Vec<u8>) {
    json::tick(tick, symbol, EncodeFlags::default(), out);
    out.push(b'\n');
}

// ---- reading --------------------------------------------------------------------------------------------

/// A parsed flight.
#[derive(Clone, Debug, PartialEq)]
pub struct Flight {
    /// The incident.
    pub header: Header,
    /// The client concerned, with its states.
    pub client: Option<Client>,
    /// Latencies per tag in the last complete interval, or in the one over budget: `tag`, `count`, `mean_ns`
    /// and so on.
    pub stages: Vec<Value>,
    /// The ticks before the incident, the newest last, in the format for clients.
    pub ticks: Vec<Value>,
}

/// Why a flight cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FlightError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is invalid.
    #[error("line {line}: {why}")]
    Line {
        /// Line number, from 1.
        line: u64,
        /// Error message.
        why: String,
    },
}

impl Flight {
    /// Whether a file that begins with these bytes is a flight.
    pub fn begins(file: &[u8]) -> bool {
        file.starts_with(BEGIN)
    }

    /// Reads a flight to its end.
    ///
    /// # Errors
    /// Input that cannot be read, or an invalid line.
    pub fn read(mut from: impl BufRead) -> Result<Self, FlightError> {
        let (mut flight, mut text) = (None, Vec::new());
        for line in 1..=LINES_MAX {
            text.clear();
            (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
            if text.is_empty() {
                return flight
                    .ok_or_else(|| FlightError::Line { line, why: "there is nothing in it".to_owned() });
            }
            take(&mut flight, &text).map_err(|why| FlightError::Line { line, why })?;
        }
        Err(FlightError::Line { line: LINES_MAX, why: "more lines than a flight has".to_owned() })
    }
}

/// Adds a line.
fn take(flight: &mut Option<Flight>, text: &[u8]) -> Result<(), String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let kind = value["type"].as_str().ok_or("it has no `type`")?.to_owned();
    let wrong = |error: serde_json::Error| format!("`{kind}`: {error}");
    let Some(flight) = flight else {
        if kind != "flight" {
            return Err("the first line has to be a `flight`".to_owned());
        }
        let header = Header::deserialize(&value).map_err(wrong)?;
        if header.version > VERSION {
            return Err(format!(
                "version {} is newer than this program, which reads up to {VERSION}",
                header.version
            ));
        }
        *flight = Some(Flight { header, client: None, stages: Vec::new(), ticks: Vec::new() });
        return Ok(());
    };
    match (kind.as_str(), &mut flight.client) {
        ("client", client @ None) => *client = Some(Client::deserialize(&value).map_err(wrong)?),
        ("state", Some(client)) => client.states.push(ClientSnapshot::deserialize(&value).map_err(wrong)?),
        ("stage", _) => flight.stages.push(value),
        ("trade" | "quote" | "gap" | "status", _) => flight.ticks.push(value),
        _ => return Err(format!("a `{kind}` has no place here")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"type":"flight","version":1,"at_us":9,"cause":"cut","why":"slow_consumer","code":4000,"seconds":3,"ticks":0,"ticks_bound":"ring","stages_from_us":1,"stages_to_us":2}"#;
    const CLIENT: &str = r#"{"type":"client","session":"a","peer":null,"since_us":1,"subscriptions":2}"#;

    fn read(lines: &[&str]) -> Result<Flight, String> {
        Flight::read(lines.join("\n").as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let gap = |why: &'static str| Reason::Gap {
            symbol: "kraken:A".to_owned(),
            channel: "trade".into(),
            from: 3,
            to: 5,
            why: why.into(),
        };
        let broken = [("write.p50<1ns", 48_000), ("total.max<=2ms", 3_000_000)];
        let broken = broken.map(|(rule, measured_ns)| Broken { rule: rule.to_owned(), measured_ns }).to_vec();
        for (reason, text) in [
            (Reason::Cut { why: "no_pong".into(), code: 4002 }, "a client was cut: no_pong (4002)"),
            (gap("feed"), "the feed lost kraken:A trade 3 to 5"),
            (gap("overrun"), "a client was told that kraken:A trade 3 to 5 are not coming: overrun"),
            (Reason::Budget { broken }, "over budget: write.p50<1ns: 48.0 µs, total.max<=2ms: 3.00 ms"),
        ] {
            assert_eq!(reason.to_string(), text);
            let header = Header::new(9, reason, 3, &Stages::default());
            let mut line = Vec::new();
            header.write(&mut line);
            assert!(Flight::begins(&line));
            assert_eq!(Flight::read(line.as_slice()).expect("it is one").header, header);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert!(
            read(&[HEADER, CLIENT]).is_ok_and(|flight| flight.client.is_some_and(|c| c.subscriptions == 2))
        );
        let newer = HEADER.replace("\"version\":1", "\"version\":2");
        for (lines, error) in [
            (&[][..], "line 1: there is nothing in it"),
            (&[CLIENT], "line 1: the first line has to be a `flight`"),
            (&[&newer], "line 1: version 2 is newer than this program, which reads up to 1"),
            (&[&HEADER.replace("cut", "fire")], "line 1: `flight`: unknown variant `fire`"),
            (&[HEADER, "{}"], "line 2: it has no `type`"),
            (&[HEADER, "nonsense"], "line 2: expected ident"),
            (&[HEADER, HEADER], "line 2: a `flight` has no place here"),
            (&[HEADER, r#"{"type":"state"}"#], "line 2: a `state` has no place here"),
            (&[HEADER, CLIENT, CLIENT], "line 3: a `client` has no place here"),
            (&[HEADER, CLIENT, r#"{"type":"state","at_us":-1}"#], "line 3: `state`: "),
            (&[HEADER, r#"{"type":"tra"#], "line 2: EOF"),
        ] {
            let told = read(lines).expect_err(error);
            assert!(told.starts_with(error), "{told}");
        }
    }
}
