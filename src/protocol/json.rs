//! Messages to clients, as JSON text. Messages on the tick path are written by hand, for speed; others use
//! serde.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::close::Close;
use super::fault::Id;
use super::request::{DeliveryPolicy, Echo, Rate};
use crate::model::instrument::Symbol;
use crate::model::tick::{Body, Channel, Decimal, GapCause, State, Tick};

/// Fields of a tick message that are not part of the tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncodeFlags {
    /// The tick is sent as a snapshot: the last value, not an update. A tick with its own `snap` is one as
    /// well.
    pub snap: bool,
    /// The tick is sent to a client that is still catching up.
    pub past: bool,
    /// Time of encoding, microseconds since the Unix epoch; `None` leaves the field out.
    pub tx_us: Option<u64>,
}

fn number(key: &str, value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn decimal(key: &str, value: Option<Decimal>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        out.extend_from_slice(key.as_bytes());
        value.write(out);
        out.push(b'"');
    }
}

fn head(kind: &str, symbol: &Symbol, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"symbol\":\"");
    out.extend_from_slice(symbol.as_str().as_bytes());
    out.push(b'"');
}

/// Appends the message of a tick: `trade`, `quote`, `gap` or `status`.
pub fn tick(tick: &Tick, symbol: &Symbol, flags: EncodeFlags, out: &mut Vec<u8>) {
    if EncodedTemplate::write(tick, symbol, flags, out).is_some() {
        end(flags.tx_us, out);
    }
}

/// A trade or quote that is encoded except for the fields that differ between clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedTemplate {
    /// Offset at which `n` is inserted, in bytes.
    n_at: usize,
}

impl EncodedTemplate {
    /// Appends the message of a trade or quote without its end. A `gap` or `status` is written completely,
    /// and the result is `None`.
    pub fn write(tick: &Tick, symbol: &Symbol, flags: EncodeFlags, out: &mut Vec<u8>) -> Option<Self> {
        let flags = EncodeFlags { snap: flags.snap || tick.snap, ..flags };
        let n_at;
        match &tick.body {
            Body::Trade(trade) => {
                n_at = begin("trade", symbol, tick.seq, flags, out);
                decimal(",\"price\":\"", Some(trade.price), out);
                decimal(",\"size\":\"", Some(trade.size), out);
                if let Some(side) = trade.side {
                    out.extend_from_slice(b",\"side\":\"");
                    out.extend_from_slice(side.name().as_bytes());
                    out.push(b'"');
                }
                if !trade.id.as_bytes().is_empty() {
                    out.extend_from_slice(b",\"trade_id\":\"");
                    out.extend_from_slice(trade.id.as_bytes());
                    out.push(b'"');
                }
            }
            Body::Quote(quote) => {
                n_at = begin("quote", symbol, tick.seq, flags, out);
                decimal(",\"bid\":\"", quote.bid, out);
                decimal(",\"bid_size\":\"", quote.bid_size, out);
                decimal(",\"ask\":\"", quote.ask, out);
                decimal(",\"ask_size\":\"", quote.ask_size, out);
            }
            Body::Gap { channel, from, void } => {
                gap(symbol, *channel, *from, tick.seq, void.why(), out);
                return None;
            }
            Body::Status(state) => {
                status(symbol, *state, tick.rx_ns / 1_000, out);
                return None;
            }
        }
        if let Some(ts_us) = tick.ts_us {
            number(",\"ts\":", ts_us, out);
        }
        number(",\"rx\":", tick.rx_ns / 1_000, out);
        Some(Self { n_at })
    }

    /// Appends the message that [`write`](Self::write) wrote into `plain`, which must contain nothing else.
    /// The copy stands for `n` ticks and was encoded at `tx_us`, microseconds since the Unix epoch.
    pub fn copy(self, plain: &[u8], n: u64, tx_us: Option<u64>, out: &mut Vec<u8>) {
        out.extend_from_slice(&plain[..self.n_at]);
        if n > 1 {
            number(",\"n\":", n, out);
        }
        out.extend_from_slice(&plain[self.n_at..]);
        end(tx_us, out);
    }
}

/// Appends the start of a trade or quote, and returns the offset at which `n` is inserted.
fn begin(kind: &str, symbol: &Symbol, seq: u64, flags: EncodeFlags, out: &mut Vec<u8>) -> usize {
    head(kind, symbol, out);
    number(",\"seq\":", seq, out);
    if flags.snap {
        out.extend_from_slice(b",\"snap\":true");
    }
    if flags.past {
        out.extend_from_slice(b",\"past\":true");
    }
    out.len()
}

fn end(tx_us: Option<u64>, out: &mut Vec<u8>) {
    if let Some(tx_us) = tx_us {
        number(",\"tx\":", tx_us, out);
    }
    out.push(b'}');
}

/// Appends a `gap`: the client does not receive the sequence numbers `from` to `to`, both inclusive.
pub fn gap(symbol: &Symbol, channel: Channel, from: u64, to: u64, why: GapCause, out: &mut Vec<u8>) {
    head("gap", symbol, out);
    out.extend_from_slice(b",\"channel\":\"");
    out.extend_from_slice(channel.name().as_bytes());
    number("\",\"from\":", from, out);
    number(",\"to\":", to, out);
    out.extend_from_slice(b",\"why\":\"");
    out.extend_from_slice(why.name().as_bytes());
    out.extend_from_slice(b"\"}");
}

/// Appends a `status`; `since_us` is in microseconds since the Unix epoch.
pub fn status(symbol: &Symbol, state: State, since_us: u64, out: &mut Vec<u8>) {
    head("status", symbol, out);
    out.extend_from_slice(b",\"state\":\"");
    out.extend_from_slice(state.name().as_bytes());
    number("\",\"since\":", since_us, out);
    out.push(b'}');
}

/// Fields of a tick message that belongs to an update stream: a trade, quote, gap or status that is neither a
/// snapshot nor marked `past`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// The symbol, as text.
    pub symbol: &'a str,
    /// The channel; `None` for a status, which has no sequence numbers.
    pub channel: Option<Channel>,
    /// The first sequence number that the message covers.
    pub from: u64,
    /// The last sequence number that the message covers.
    pub to: u64,
    /// Why the ticks are missing; `None` if the message is not a gap.
    pub why: Option<GapCause>,
}

/// Parses a message that [`tick`], [`EncodedTemplate`] or [`gap`] has written; `None` if it is not part of an update
/// stream.
pub fn said(message: &[u8]) -> Option<Said<'_>> {
    #[derive(serde::Deserialize)]
    struct Fields<'a> {
        r#type: &'a str,
        symbol: &'a str,
        #[serde(borrow)]
        channel: Option<&'a str>,
        seq: Option<u64>,
        n: Option<u64>,
        from: Option<u64>,
        to: Option<u64>,
        #[serde(borrow)]
        why: Option<&'a str>,
        snap: Option<bool>,
        past: Option<bool>,
    }
    let fields: Fields<'_> = serde_json::from_slice(message).ok()?;
    if fields.snap.is_some() || fields.past.is_some() {
        return None;
    }
    let channel_of = |name: &str| Channel::ALL.into_iter().find(|channel| channel.name() == name);
    let symbol = fields.symbol;
    let status = Said { symbol, channel: None, from: 0, to: 0, why: None };
    match fields.r#type {
        "status" => Some(status),
        "gap" => {
            let why = GapCause::ALL.into_iter().find(|cause| Some(cause.name()) == fields.why)?;
            let channel = Some(channel_of(fields.channel?)?);
            Some(Said { channel, from: fields.from?, to: fields.to?, why: Some(why), ..status })
        }
        name => {
            let (channel, seq) = (Some(channel_of(name)?), fields.seq?);
            let from = (seq + 1).checked_sub(fields.n.unwrap_or(1))?;
            Some(Said { channel, from, to: seq, ..status })
        }
    }
}

/// Appends a heartbeat. `time_us` is in microseconds since the Unix epoch.
pub fn heartbeat(time_us: u64, sent: u64, behind_ms: u64, out: &mut Vec<u8>) {
    number("{\"type\":\"hb\",\"time\":", time_us, out);
    number(",\"sent\":", sent, out);
    number(",\"behind_ms\":", behind_ms, out);
    out.push(b'}');
}

/// Appends a `clock_step`: the wall clock of the gateway was set by `by_us` microseconds, to `time_us`.
pub fn clock_step(time_us: u64, by_us: i64, out: &mut Vec<u8>) {
    number("{\"type\":\"clock_step\",\"time\":", time_us, out);
    let before = if by_us < 0 { ",\"by\":-" } else { ",\"by\":" };
    number(before, by_us.unsigned_abs(), out);
    out.push(b'}');
}

/// How far a client is behind.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// The word of the back-pressure level.
    pub level: &'static str,
    /// Age of the oldest queued message, milliseconds.
    pub behind_ms: u64,
    /// Bytes queued in the gateway and in its kernel.
    pub queued_bytes: u64,
    /// Milliseconds until the client is cut if it reads nothing.
    pub cut_in_ms: Option<u64>,
    /// Ticks merged in this session.
    pub merged: u64,
    /// Ticks dropped in this session.
    pub dropped: u64,
}

/// Appends a `lag`.
pub fn lag(lag: &Lag, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"lag\",\"level\":\"");
    out.extend_from_slice(lag.level.as_bytes());
    number("\",\"behind_ms\":", lag.behind_ms, out);
    number(",\"queued_bytes\":", lag.queued_bytes, out);
    if let Some(ms) = lag.cut_in_ms {
        number(",\"cut_in_ms\":", ms, out);
    }
    number(",\"merged\":", lag.merged, out);
    number(",\"dropped\":", lag.dropped, out);
    out.push(b'}');
}

/// A `bye`, with a reconnect delay if the client should reconnect. `msg` gives details, if any.
pub fn bye(why: Close, after_ms: u64, msg: Option<&str>) -> Value {
    let mut message =
        json!({"type": "bye", "code": why.code(), "why": why.why(), "reconnect": why.reconnect()});
    if why.reconnect() {
        message["after_ms"] = after_ms.into();
    }
    if let Some(msg) = msg {
        message["msg"] = msg.into();
    }
    message
}

/// Whether the served data is live, over all symbols. A single symbol is described by its [`State`] alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provenance {
    /// No data comes from a recording.
    #[default]
    Live,
    /// All data comes from recordings.
    Replay,
    /// Recordings are replayed, and publishers may send live data.
    Mixed,
}

impl Provenance {
    /// The word used on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Replay => "replay",
            Self::Mixed => "mixed",
        }
    }
}

/// The first message of a session.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// Random identifier of the session.
    pub session: &'a str,
    /// Identifier of this run; `seq` counts within it.
    pub epoch: &'a str,
    /// Whether the served data is live.
    pub feed: Provenance,
    /// Time of the gateway, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Interval between heartbeats, milliseconds.
    pub heartbeat_ms: u64,
    /// Most symbols that one connection may name.
    pub symbols: usize,
    /// Longest message that a client may send, bytes.
    pub frame_bytes: usize,
    /// Most requests per second.
    pub ops_per_s: u32,
}

impl Hello<'_> {
    /// The message.
    pub fn message(&self) -> Value {
        json!({
            "type": "hello", "v": 1, "session": self.session, "epoch": self.epoch,
            "feed": self.feed.name(),
            "time": self.time_us, "heartbeat_ms": self.heartbeat_ms,
            "limits": {"symbols": self.symbols, "frame_bytes": self.frame_bytes, "ops_per_s": self.ops_per_s},
        })
    }
}

/// One subscription in an `ack`. `state` is omitted for wildcards.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriptionRow<'a> {
    symbol: Cow<'a, str>,
    channel: &'static str,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_hz: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_slow: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    past: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begins: Option<u64>,
}

impl<'a> SubscriptionRow<'a> {
    /// A row.
    pub fn new(
        symbol: impl Into<Cow<'a, str>>,
        channel: Channel,
        policy: DeliveryPolicy,
        state: Option<State>,
    ) -> Self {
        Self {
            symbol: symbol.into(),
            channel: channel.name(),
            mode: policy.mode.name(),
            max_hz: policy.rate.map(Rate::shown),
            on_slow: policy.disconnect_on_loss.then_some("cut"),
            state: state.map(State::name),
            resumed: None,
            past: None,
            begins: None,
        }
    }

    /// The row with the result of a `resume`.
    #[must_use]
    pub fn resumed(self, word: Option<&'static str>) -> Self {
        Self { resumed: word, ..self }
    }

    /// The row with what is available of the requested past: everything, or, if `begins_us` is given, what
    /// was received since then, microseconds since the Unix epoch. No state but `waiting` is shown, because
    /// the past is not live.
    #[must_use]
    pub fn past(self, begins_us: Option<u64>) -> Self {
        let word = if begins_us.is_none() { "ok" } else { "gap" };
        let state = self.state.filter(|state| *state == State::Waiting.name());
        Self { past: Some(word), begins: begins_us, state, ..self }
    }

    /// Whether recorded ticks precede the stream.
    pub fn has_past(&self) -> bool {
        self.past.is_some()
    }
}

/// One instrument in the answer to `symbols`.
#[derive(Clone, Debug, Serialize)]
pub struct SymbolRow<'a> {
    /// Its name.
    pub symbol: &'a str,
    /// The word for its state.
    pub state: &'static str,
}

/// An `ack` of `op`, with the fields of `body`.
#[derive(Debug, Serialize)]
pub struct Ack<'a, B> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    op: &'static str,
    #[serde(flatten)]
    body: B,
}

impl<'a, B: Serialize> Ack<'a, B> {
    /// The message.
    pub fn new(id: Option<&'a Id>, op: &'static str, body: B) -> Self {
        Self { r#type: "ack", id: id.map(Id::value), op, body }
    }
}

/// A `pong`.
#[derive(Debug, Serialize)]
pub struct Pong<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<&'a RawValue>,
    r#in: u64,
    out: u64,
}

impl<'a> Pong<'a> {
    /// The message. `t` is returned as received; `in_us` and `out_us` are the times at which the ping arrived
    /// and the pong was written, microseconds since the Unix epoch.
    pub fn new(id: Option<&'a Id>, t: Option<&'a Echo>, in_us: u64, out_us: u64) -> Self {
        Self { r#type: "pong", id: id.map(Id::value), t: t.map(Echo::value), r#in: in_us, out: out_us }
    }
}

/// A `joined`: all requested recorded ticks are sent, and the live stream follows. `time_us` is in
/// microseconds since the Unix epoch; `missed` ticks, over all symbols, were no longer kept.
pub fn joined(time_us: u64, missed: u64) -> Value {
    let mut message = json!({"type": "joined", "time": time_us});
    if missed > 0 {
        message["missed"] = missed.into();
    }
    message
}

/// An `error` that answers a request.
pub fn error(id: Option<&Id>, code: &str, msg: &str, retry: bool) -> Value {
    let mut message = json!({"type": "error"});
    if let Some(id) = id {
        message["id"] = id.value().clone();
    }
    message["code"] = code.into();
    message["msg"] = msg.into();
    message["retry"] = retry.into();
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instrument::InstrumentId;
    use crate::model::tick::{FeedGap, Quote, Side, Trade, TradeId};

    fn value(body: Body) -> (Symbol, Tick) {
        let value = Tick {
            instrument: InstrumentId(0),
            seq: 551,
            rx_ns: 1_618_677_817_431_936_789,
            ts_us: Some(1_618_677_817_400_000),
            snap: false,
            body,
        };
        (Symbol::parse("coinbase:BTC-USD").expect("good"), value)
    }

    fn line(body: Body, flags: EncodeFlags) -> String {
        let (symbol, value) = value(body);
        let mut out = Vec::new();
        tick(&value, &symbol, flags, &mut out);
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn what_a_message_says_is_read_back() {
        let d = |t: &str| Decimal::parse(t.as_bytes()).expect(t);
        let quote = Body::Quote(Quote { bid: Some(d("1.5")), ..Quote::default() });
        let trade =
            Body::Trade(Trade { price: d("1"), size: d("2"), side: None, id: TradeId::from_number(1) });
        let symbol = "coinbase:BTC-USD";
        let plain = |channel| Said { symbol, channel: Some(channel), from: 551, to: 551, why: None };
        assert_eq!(said(line(quote, EncodeFlags::default()).as_bytes()), Some(plain(Channel::Quote)));
        let trade_line = line(trade, EncodeFlags { tx_us: Some(7), ..EncodeFlags::default() });
        assert_eq!(said(trade_line.as_bytes()), Some(plain(Channel::Trade)));
        let merged = trade_line.replace("\"seq\":551", "\"seq\":551,\"n\":4");
        assert_eq!(said(merged.as_bytes()), Some(Said { from: 548, ..plain(Channel::Trade) }));
        for (void, why) in [(FeedGap::Lost, GapCause::Feed), (FeedGap::NoValue, GapCause::Seek)] {
            let gap = line(Body::Gap { channel: Channel::Trade, from: 540, void }, EncodeFlags::default());
            let told = Said { from: 540, why: Some(why), ..plain(Channel::Trade) };
            assert_eq!(said(gap.as_bytes()), Some(told));
        }
        let status = line(Body::Status(State::Stale), EncodeFlags::default());
        assert_eq!(said(status.as_bytes()), Some(Said { symbol, channel: None, from: 0, to: 0, why: None }));
        for not_one in [
            line(quote, EncodeFlags { snap: true, ..EncodeFlags::default() }),
            line(quote, EncodeFlags { past: true, ..EncodeFlags::default() }),
            r#"{"type":"pong","id":9}"#.to_owned(),
            r#"{"type":"ack","op":"list","symbol":"x"}"#.to_owned(),
            "{}".to_owned(),
        ] {
            assert_eq!(said(not_one.as_bytes()), None, "{not_one}");
        }
    }

    #[test]
    fn ticks_are_written_as_documented() {
        let d = |t: &str| Decimal::parse(t.as_bytes()).expect(t);
        let trade = Trade {
            price: d("64010.20"),
            size: d("0.0100"),
            side: Some(Side::Buy),
            id: TradeId::from_number(280_232),
        };
        assert_eq!(
            line(Body::Trade(trade), EncodeFlags { tx_us: Some(7), ..EncodeFlags::default() }),
            r#"{"type":"trade","symbol":"coinbase:BTC-USD","seq":551,"price":"64010.20","size":"0.0100","side":"buy","trade_id":"280232","ts":1618677817400000,"rx":1618677817431936,"tx":7}"#
        );
        let quote = Quote {
            bid: Some(d("64010.10")),
            ask: Some(d("64010.20")),
            ask_size: Some(d("1.1")),
            ..Quote::default()
        };
        assert_eq!(
            line(Body::Quote(quote), EncodeFlags { snap: true, ..EncodeFlags::default() }),
            r#"{"type":"quote","symbol":"coinbase:BTC-USD","seq":551,"snap":true,"bid":"64010.10","ask":"64010.20","ask_size":"1.1","ts":1618677817400000,"rx":1618677817431936}"#
        );
        let (symbol, value) = value(Body::Quote(quote));
        let (mut plain, mut copies) = (Vec::new(), Vec::new());
        let written =
            EncodedTemplate::write(&value, &symbol, EncodeFlags::default(), &mut plain).expect("a quote");
        for n in [1, 4] {
            written.copy(&plain, n, Some(7), &mut copies);
        }
        assert_eq!(
            String::from_utf8(copies).expect("utf-8"),
            concat!(
                r#"{"type":"quote","symbol":"coinbase:BTC-USD","seq":551,"bid":"64010.10","ask":"64010.20","ask_size":"1.1","ts":1618677817400000,"rx":1618677817431936,"tx":7}"#,
                r#"{"type":"quote","symbol":"coinbase:BTC-USD","seq":551,"n":4,"bid":"64010.10","ask":"64010.20","ask_size":"1.1","ts":1618677817400000,"rx":1618677817431936,"tx":7}"#
            )
        );
        assert!(
            line(Body::Trade(trade), EncodeFlags { past: true, ..EncodeFlags::default() })
                .starts_with(r#"{"type":"trade","symbol":"coinbase:BTC-USD","seq":551,"past":true,"price":"#)
        );
        assert_eq!(
            line(
                Body::Gap { channel: Channel::Trade, from: 540, void: FeedGap::Lost },
                EncodeFlags::default()
            ),
            r#"{"type":"gap","symbol":"coinbase:BTC-USD","channel":"trade","from":540,"to":551,"why":"feed"}"#
        );
        assert_eq!(
            line(Body::Status(State::Stale), EncodeFlags::default()),
            r#"{"type":"status","symbol":"coinbase:BTC-USD","state":"stale","since":1618677817431936}"#
        );
    }
}
