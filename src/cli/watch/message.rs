//! Messages of the server, as far as a watcher needs them: typed, and borrowed from their text.
//!
//! Unknown types and fields are ignored, as the protocol requires of both sides.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use crate::model::tick::Channel;

/// A JSON string, borrowed from the message unless it contains escapes.
///
/// (A bare `Option<Cow<str>>` would always copy, because serde borrows a `Cow` only outside other types.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// One channel or a list of channels; unknown names are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels(pub Vec<Channel>);

/// The channel with this name.
pub(super) fn channel_named(name: &str) -> Option<Channel> {
    Channel::ALL.into_iter().find(|channel| channel.name() == name)
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChannelsVisitor;
        impl<'de> Visitor<'de> for ChannelsVisitor {
            type Value = Channels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a channel or a list of channels")
            }

            fn visit_str<E>(self, name: &str) -> Result<Channels, E> {
                Ok(Channels(channel_named(name).into_iter().collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Channels, A::Error> {
                let mut channels = Vec::new();
                while let Some(name) = names.next_element::<Text<'de>>()? {
                    channels.extend(channel_named(&name));
                }
                Ok(Channels(channels))
            }
        }
        deserializer.deserialize_any(ChannelsVisitor)
    }
}

/// A trade or a quote. Prices and sizes have the digits of the venue; omitted fields are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Update<'a> {
    /// `venue:SYMBOL`.
    #[serde(borrow)]
    pub symbol: Text<'a>,
    /// Sequence number of the newest tick it stands for, per symbol and channel within an epoch.
    pub seq: u64,
    /// Number of ticks it stands for.
    #[serde(default = "one")]
    pub n: u64,
    /// Whether it is a snapshot, i.e. the last value at the start of a subscription.
    #[serde(default)]
    pub snap: bool,
    /// Whether it is a recorded tick of a subscription that is catching up.
    #[serde(default)]
    pub past: bool,
    /// Receive time at the gateway, microseconds since the Unix epoch.
    #[serde(rename = "rx")]
    pub rx_us: Option<u64>,
    /// Quote: best bid price.
    pub bid: Option<Text<'a>>,
    /// Quote: size at the bid.
    pub bid_size: Option<Text<'a>>,
    /// Quote: best ask price.
    pub ask: Option<Text<'a>>,
    /// Quote: size at the ask.
    pub ask_size: Option<Text<'a>>,
    /// Trade: price.
    pub price: Option<Text<'a>>,
    /// Trade: size.
    pub size: Option<Text<'a>>,
    /// Trade: side of the aggressor.
    pub side: Option<Text<'a>>,
}

fn one() -> u64 {
    1
}

/// Ticks that the client does not receive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Gap<'a> {
    /// `venue:SYMBOL`.
    #[serde(borrow)]
    pub symbol: Text<'a>,
    /// The channel.
    #[serde(deserialize_with = "one_channel")]
    pub channel: Channel,
    /// First missing sequence number.
    pub from: u64,
    /// Last missing sequence number.
    pub to: u64,
    /// The reason.
    #[serde(default)]
    pub why: Text<'a>,
}

fn one_channel<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Channel, D::Error> {
    let name = Text::deserialize(deserializer)?;
    channel_named(&name).ok_or_else(|| D::Error::custom("unknown channel"))
}

/// A new state of an instrument.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status<'a> {
    /// `venue:SYMBOL`.
    #[serde(borrow)]
    pub symbol: Text<'a>,
    /// `live`, `replay`, `paused`, `ended`, `stale`, `down` or `waiting`.
    pub state: Text<'a>,
}

/// The first message of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Hello<'a> {
    /// Identifier of this run of the gateway; sequence numbers count within it.
    #[serde(borrow, default)]
    pub epoch: Text<'a>,
}

/// The answer to an accepted request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Ack<'a> {
    /// The `id` of the request.
    #[serde(default)]
    pub id: serde_json::Value,
    /// The `op` of the request.
    #[serde(borrow, default)]
    pub op: Text<'a>,
    /// The requested channels.
    pub channel: Option<Channels>,
    /// Whether it answers an `unsubscribe` without symbols.
    #[serde(default)]
    pub all: bool,
    /// Accepted symbols; absent if the request named no symbols.
    pub ok: Option<Vec<Accepted<'a>>>,
    /// Rejected symbols.
    #[serde(default)]
    pub rejected: Vec<Rejected<'a>>,
}

/// An accepted symbol in an [`Ack`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Accepted<'a> {
    /// `venue:SYMBOL` in full, or the wildcard as requested.
    #[serde(borrow)]
    pub symbol: Text<'a>,
    /// The channels of this entry, if not all of the ack's.
    pub channel: Option<Channels>,
    /// Last sequence number before the stream, if given.
    pub seq: Option<u64>,
    /// State of the instrument.
    pub state: Option<Text<'a>>,
    /// Most updates per second; absent without a limit.
    pub max_hz: Option<serde_json::Number>,
    /// Result of a resume: `ok`, `gap` or `new_epoch`.
    pub resumed: Option<Text<'a>>,
}

/// A rejected symbol in an [`Ack`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Rejected<'a> {
    /// The symbol as requested.
    #[serde(borrow)]
    pub symbol: Text<'a>,
    /// Error code.
    #[serde(default)]
    pub code: Text<'a>,
}

/// A change in how far this client is behind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Lag<'a> {
    /// `ok`, `warn`, `shed` or `cut`.
    #[serde(borrow)]
    pub level: Text<'a>,
    /// Delay of the client, milliseconds.
    #[serde(default)]
    pub behind_ms: u64,
    /// Bytes queued for it.
    #[serde(default)]
    pub queued_bytes: u64,
    /// Time until it is cut if it reads nothing, milliseconds.
    pub cut_in_ms: Option<u64>,
    /// Ticks merged in this connection so far.
    #[serde(default)]
    pub merged: u64,
    /// Ticks dropped in this connection so far, because it is slow.
    #[serde(default)]
    pub dropped: u64,
}

/// A rejected request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Failure<'a> {
    /// The `id` of the request; null if it had none.
    #[serde(default)]
    pub id: serde_json::Value,
    /// Error code.
    #[serde(borrow, default)]
    pub code: Text<'a>,
    /// Error message.
    #[serde(default)]
    pub msg: Text<'a>,
}

/// Announces that the server closes the connection.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Bye<'a> {
    /// The close code that follows.
    #[serde(default)]
    pub code: u16,
    /// The reason.
    #[serde(borrow, default)]
    pub why: Text<'a>,
    /// Whether the client may reconnect.
    #[serde(default)]
    pub reconnect: bool,
    /// Delay before reconnecting, milliseconds.
    pub after_ms: Option<u64>,
}

/// The end of a catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Joined {
    /// Ticks, over all symbols, that were no longer kept.
    #[serde(default)]
    pub missed: u64,
}

/// A message of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// A trade or a quote.
    Update(Channel, Update<'a>),
    /// Ticks that the client does not receive.
    Gap(Gap<'a>),
    /// A new state.
    Status(Status<'a>),
    /// The end of a catch-up; what follows is live.
    Joined(Joined),
    /// The first message.
    Hello(Hello<'a>),
    /// The answer to a request.
    Ack(Ack<'a>),
    /// The rejection of a request.
    Failure(Failure<'a>),
    /// How far this client is behind.
    Lag(Lag<'a>),
    /// The server closes the connection.
    Bye(Bye<'a>),
    /// Anything else, such as a heartbeat, which needs no accounting.
    Other,
}

impl<'a> Message<'a> {
    /// Parses one text frame.
    ///
    /// # Errors
    /// The text is not a JSON object with a `type`, or a message of a known type lacks a required field.
    pub fn parse(text: &'a str) -> serde_json::Result<Self> {
        let kind = kind(text)?;
        Ok(match &*kind {
            "quote" => Self::Update(Channel::Quote, serde_json::from_str(text)?),
            "trade" => Self::Update(Channel::Trade, serde_json::from_str(text)?),
            "gap" => Self::Gap(serde_json::from_str(text)?),
            "status" => Self::Status(serde_json::from_str(text)?),
            "joined" => Self::Joined(serde_json::from_str(text)?),
            "hello" => Self::Hello(serde_json::from_str(text)?),
            "ack" => Self::Ack(serde_json::from_str(text)?),
            "error" => Self::Failure(serde_json::from_str(text)?),
            "lag" => Self::Lag(serde_json::from_str(text)?),
            "bye" => Self::Bye(serde_json::from_str(text)?),
            _ => Self::Other,
        })
    }
}

/// The `type` of a message. It is usually the first field, which avoids a full parse.
fn kind(text: &str) -> serde_json::Result<Text<'_>> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, rename = "type")]
        kind: Text<'a>,
    }
    let first = text.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split_once('"'));
    match first {
        // Only words without escapes: an escaped quote would end the word too early.
        Some((word, _)) if matches!(word, "quote" | "trade" | "gap" | "status") => Ok(word.into()),
        _ => serde_json::from_str::<Head<'_>>(text).map(|head| head.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_come_in_any_order_and_unknown_ones_are_ignored() {
        let text = r#"{"seq":7, "x":[{"type":"gap"}], "bid":"1.50", "type":"quote", "symbol":"k:XBT\/USD"}"#;
        let Ok(Message::Update(Channel::Quote, update)) = Message::parse(text) else { panic!("{text}") };
        assert_eq!((update.seq, update.n, update.snap, update.rx_us), (7, 1, false, None));
        assert_eq!((&*update.symbol, update.bid.as_deref()), ("k:XBT/USD", Some("1.50")));
        assert_eq!(Message::parse(r#"{"type":"hb","time":1}"#).expect("reads"), Message::Other);
    }

    #[test]
    fn a_plain_string_is_borrowed() {
        let text = r#"{"type":"trade","symbol":"a:B","seq":1,"price":"1.0","size":"2","side":"buy"}"#;
        let Ok(Message::Update(Channel::Trade, update)) = Message::parse(text) else { panic!("{text}") };
        assert!(matches!(update.symbol.0, Cow::Borrowed("a:B")));
        assert!(matches!(update.price.map(|price| price.0), Some(Cow::Borrowed("1.0"))));
    }

    #[test]
    fn channel_is_a_word_or_a_list() {
        for (channel, count) in [(r#""trade""#, 1), (r#"["trade","quote","new"]"#, 2), (r#""new""#, 0)] {
            let text = format!(r#"{{"type":"ack","id":"x","op":"subscribe","channel":{channel},"ok":[]}}"#);
            let Ok(Message::Ack(ack)) = Message::parse(&text) else { panic!("{text}") };
            assert_eq!(ack.channel.map(|channels| channels.0.len()), Some(count));
        }
    }

    #[test]
    fn a_slow_client_reads_where_it_stands() {
        let text = r#"{"type":"lag","level":"cut","behind_ms":13020,"queued_bytes":9,"cut_in_ms":80,"merged":2,"dropped":4}"#;
        let Ok(Message::Lag(lag)) = Message::parse(text) else { panic!("{text}") };
        assert_eq!(
            (&*lag.level, lag.behind_ms, lag.queued_bytes, lag.cut_in_ms),
            ("cut", 13_020, 9, Some(80))
        );
        assert_eq!((lag.merged, lag.dropped), (2, 4));
        let text = r#"{"type":"lag","level":"ok"}"#;
        let Ok(Message::Lag(lag)) = Message::parse(text) else { panic!("{text}") };
        assert_eq!((lag.behind_ms, lag.cut_in_ms, lag.merged), (0, None, 0));
        let text = r#"{"type":"bye","code":4000,"why":"slow_consumer","reconnect":true,"after_ms":1000}"#;
        let Ok(Message::Bye(bye)) = Message::parse(text) else { panic!("{text}") };
        assert_eq!(
            (bye.code, &*bye.why, bye.reconnect, bye.after_ms),
            (4_000, "slow_consumer", true, Some(1_000))
        );
    }

    #[test]
    fn a_row_of_an_answer_may_name_a_rate_and_what_became_of_a_resume() {
        let text = r#"{"type":"ack","op":"subscribe","ok":[{"symbol":"a:B","max_hz":0.5,"resumed":"gap"},{"symbol":"a:C","max_hz":null}]}"#;
        let Ok(Message::Ack(ack)) = Message::parse(text) else { panic!("{text}") };
        let ok = ack.ok.expect("rows");
        assert_eq!(ok[0].max_hz.as_ref().map(ToString::to_string).as_deref(), Some("0.5"));
        assert_eq!((ok[0].resumed.as_deref(), &ok[1].max_hz), (Some("gap"), &None));
    }

    #[test]
    fn what_lacks_its_number_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"type":"quote","symbol":"a:B"}"#,
            r#"{"type":"quote","symbol":"a:B","seq":-1}"#,
            r#"{"type":"gap","symbol":"a:B","channel":"new","from":1,"to":2}"#,
            r#"{"type":"trade","symbol":"a:B","seq":1"#,
        ] {
            assert!(Message::parse(text).is_err(), "{text}");
        }
    }
}
