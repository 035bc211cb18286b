//! `tickfan watch`: a client that shows what a gateway sends, and checks from the outside that every tick is
//! accounted for.
//!
//! [`ledger`] checks the accounting rule, [`message`] parses messages, [`board`] lays out the table and
//! [`tally`] the summary: all pure. `link` is the connection, with an optional read rate. This module
//! contains the arguments and the main loop.

pub mod board;
mod ending;
pub mod ledger;
mod link;
pub mod message;
mod screen;
pub mod states;
pub mod tally;

use std::io;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame};

use self::board::Board;
pub use self::ending::WatchVerdict;
use self::ending::{Closed, End};
use self::ledger::SequenceLedger;
use self::link::Socket;
use self::message::{Ack, Failure, Message};
use self::screen::{Look, Screen};
use self::states::States;
use self::tally::{Delays, Ladder};
use crate::model::tick::Channel;
use crate::text::error_text;
use crate::time::clock::{Clock, Now};
use crate::time::duration;

/// Time limit for connecting, and then for the answers to the subscriptions.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for the closing handshake.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Interval between repaints of the table.
const PAINT_PERIOD: Duration = Duration::from_millis(200);
/// Interval between lines of counts.
const COUNTS_PERIOD: Duration = Duration::from_secs(1);
/// Most messages processed before the timers are checked again.
const BATCH_MESSAGES: usize = 512;
/// Longest excerpt of a bad message or an HTTP answer, characters.
const EXCERPT_CHARS: usize = 200;

/// How a subscription handles updates that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchMode {
    /// Each tick; ticks that do not fit are dropped and named in a gap.
    Every,
    /// The newest value; ticks that do not fit are merged into it.
    Latest,
}

/// What the gateway does with a slow client that wants every tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnSlow {
    /// The first lost tick ends the connection with code 4000.
    Cut,
    /// Lost ticks are named in a gap.
    Gap,
}

/// Arguments of `watch`. `--help` shows the comments of the fields.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// WebSocket URL of the gateway.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    pub url: String,

    /// Channel: trade or quote; several separated by commas or by repeating.
    #[arg(
        long = "channel",
        value_name = "CHANNEL",
        value_delimiter = ',',
        default_value = "trade,quote",
        value_parser = parse_channel
    )]
    pub channels: Vec<Channel>,

    /// How updates that do not fit are handled; by default every for trades and latest for quotes.
    #[arg(long, value_enum)]
    pub mode: Option<WatchMode>,

    /// Most updates per second and symbol (Hz, above 0); not limited by default.
    #[arg(long, value_name = "HZ", value_parser = parse_max_hz)]
    pub max_hz: Option<serde_json::Number>,

    /// What the gateway does when this client is too slow for every tick; requires mode every.
    #[arg(long, value_enum)]
    pub on_slow: Option<OnSlow>,

    /// Begin with the ticks recorded since this time, and continue live: 2021-04-17T16:43:37Z, a time since
    /// 1970 in s, ms or µs, or -30s before now. The mode is every then. The gateway must record.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,

    /// Simulate a slow client: once subscribed, read at most this number of bytes per second, with a small
    /// receive buffer (ws:// only). Reports the reaction of the gateway: `lag: shed, 3,120 ms behind`.
    #[arg(long, value_name = "BYTES_PER_S", value_parser = clap::value_parser!(u64).range(1..))]
    pub slow: Option<u64>,

    /// Print trades, quotes, gaps and states as received, one JSON object per line.
    #[arg(long)]
    pub json: bool,

    /// Duration of the watch, once subscribed: a number above 0 with ms, s, m or h, such as 500ms, 10s or 2m;
    /// by default until Ctrl-C or until the server closes.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Symbols or wildcards: 'coinbase:BTC-USD', 'coinbase:*', '*'.
    #[arg(value_name = "SYMBOL", required = true)]
    pub symbols: Vec<String>,
}

fn parse_channel(name: &str) -> Result<Channel, String> {
    message::channel_named(name).ok_or_else(|| "not a channel: use trade or quote".to_owned())
}

fn parse_max_hz(text: &str) -> Result<serde_json::Number, String> {
    let number: Option<serde_json::Number> = serde_json::from_str(text).ok();
    let positive = number.filter(|hz| hz.as_f64().is_some_and(|hz| hz > 0.0 && hz.is_finite()));
    positive.ok_or_else(|| "not a number above 0 (updates per second)".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse_ns(text).ok().filter(|ns| *ns > 0).map(Duration::from_nanos).ok_or_else(|| {
        "needs numbers with units, above 0 in all: h, m, s, ms, us or ns, such as 500ms, 10s or 1h30m"
            .to_owned()
    })
}

/// Watches until Ctrl-C, until the time is up or until the server closes. Reports everything, including a
/// failure, on standard output and standard error.
pub async fn run(args: &WatchArgs, clock: &Clock) -> WatchVerdict {
    run_on(args, clock, Screen::of_process(args.json)).await
}

async fn run_on(args: &WatchArgs, clock: &Clock, screen: Screen) -> WatchVerdict {
    let mut watcher = Watcher::new(args, clock, screen);
    let end = watcher.run().await;
    watcher.finish(end)
}

/// The next item read from a socket.
enum Given {
    Text(tokio_tungstenite::tungstenite::Utf8Bytes),
    Nothing,
    Closed(Closed),
}

/// One connection with its accounting.
struct Watcher<'a> {
    args: &'a WatchArgs,
    clock: &'a Clock,
    screen: Screen,
    ledger: SequenceLedger,
    delays: Delays,
    board: Board,
    states: States,
    /// Ids of subscriptions without an answer.
    unanswered: Vec<u64>,
    accepted: usize,
    /// Code of the `bye`, if one was received.
    bye: Option<u16>,
    ladder: Ladder,
    start: Now,
    /// Deadline, steady nanoseconds: first for the answers, then for the end of the watch.
    deadline_ns: Option<u64>,
    /// Time and updates at the last paint or line of counts, for the rate.
    shown: (u64, u64),
}

impl<'a> Watcher<'a> {
    fn new(args: &'a WatchArgs, clock: &'a Clock, screen: Screen) -> Self {
        Self {
            args,
            clock,
            screen,
            // A catch-up begins with any number.
            ledger: SequenceLedger::new(args.from.is_none()),
            delays: Delays::new(),
            board: Board::default(),
            states: States::default(),
            unanswered: Vec::new(),
            accepted: 0,
            bye: None,
            ladder: Ladder::default(),
            start: clock.now(),
            deadline_ns: None,
            shown: (0, 0),
        }
    }

    async fn run(&mut self) -> anyhow::Result<End> {
        let mut socket = link::connect(&self.args.url, self.args.slow.is_some()).await?;
        self.start = self.clock.now();
        self.shown.0 = self.start.mono_ns;
        self.deadline_ns = Some(self.after(ANSWER_LIMIT));
        self.subscribe(&mut socket).await?;
        let end = self.watch(&mut socket).await;
        // If the server does not answer in time, the connection is dropped.
        let _ = timeout(CLOSE_LIMIT, socket.close(None)).await;
        end
    }

    /// Subscribes to each channel separately, so that each answer is about one.
    async fn subscribe(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        let mut channels = self.args.channels.clone();
        channels.sort_unstable();
        channels.dedup();
        for (id, channel) in (1..).zip(channels) {
            let mut request = json!({
                "op": "subscribe", "id": id, "channel": channel.name(), "symbols": self.args.symbols,
            });
            if let Some(mode) = self.args.mode {
                request["mode"] = json!(if mode == WatchMode::Every { "every" } else { "latest" });
            }
            if let Some(max_hz) = &self.args.max_hz {
                request["max_hz"] = json!(max_hz);
            }
            if let Some(from) = &self.args.from {
                request["from"] = json!(from);
                request["mode"] = json!(request["mode"].as_str().unwrap_or("every"));
            }
            // Quotes are latest unless a mode is given; in that mode none is lost.
            let named = self.args.mode.is_some() || self.args.from.is_some();
            let every = named || channel == Channel::Trade;
            if let Some(on_slow) = self.args.on_slow.filter(|_| every) {
                request["on_slow"] = json!(if on_slow == OnSlow::Cut { "cut" } else { "gap" });
            }
            self.unanswered.push(id);
            let sent = socket.feed(Frame::text(request.to_string())).await;
            sent.with_context(|| format!("cannot subscribe at {}", self.args.url))?;
        }
        socket.flush().await.with_context(|| format!("cannot subscribe at {}", self.args.url))
    }

    async fn watch(&mut self, socket: &mut Socket) -> anyhow::Result<End> {
        let mut interrupted = pin!(interrupted());
        let mut show = interval(if self.screen.look() == Look::Table { PAINT_PERIOD } else { COUNTS_PERIOD });
        show.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate, and there is nothing to show yet.
        show.tick().await;
        loop {
            let taken = tokio::select! {
                biased;
                () = &mut interrupted => return Ok(End::Interrupted),
                () = sleep_to(self.clock, self.deadline_ns) => return self.time_is_up(),
                _ = show.tick() => self.show(),
                given = socket.next() => match self.take(given, socket) {
                    Ok(Some(end)) => return Ok(end),
                    taken => taken.map(|_| ()),
                },
            };
            match taken {
                Err(error) if is_broken_pipe(&error) => return Ok(End::OutputClosed),
                taken => taken?,
            }
        }
    }

    /// Processes an item and everything that is available after it, up to a limit.
    fn take(
        &mut self,
        mut given: Option<Result<Frame, SocketError>>,
        socket: &mut Socket,
    ) -> anyhow::Result<Option<End>> {
        for left in (0..BATCH_MESSAGES).rev() {
            match open(given) {
                Given::Text(text) => {
                    let waited = !self.unanswered.is_empty();
                    self.hear(&text)?;
                    // The read rate is limited from the last answer on, because before it there is no data.
                    if let Some(bytes_per_s) = self.args.slow.filter(|_| waited && self.unanswered.is_empty())
                    {
                        socket.get_mut().slow_down(bytes_per_s, self.clock);
                    }
                }
                Given::Nothing => {}
                Given::Closed(why) => return self.closed(why).map(Some),
            }
            if left == 0 {
                break;
            }
            match socket.next().now_or_never() {
                Some(next) => given = next,
                None => {
                    // Flush before waiting, so that the reader receives the output; under load, one buffer at
                    // a time.
                    self.screen.flush().context("cannot write")?;
                    break;
                }
            }
        }
        Ok(None)
    }

    fn hear(&mut self, text: &str) -> anyhow::Result<()> {
        let message = match Message::parse(text) {
            Ok(message) => message,
            Err(error) => {
                self.ledger.unreadable(&format!("{error}: {}", excerpt(text)));
                return Ok(());
            }
        };
        self.ledger.hear(&message);
        self.states.hear(&message);
        match self.screen.look() {
            Look::Json if is_data(&message) => self.screen.message(text).context("cannot write")?,
            Look::Table => self.board.hear(&message),
            Look::Json | Look::Counts => {}
        }
        match &message {
            Message::Update(_, update) => {
                // The `rx` of a snapshot or of a recorded tick is as old as its value.
                if let Some(rx_us) = update.rx_us.filter(|_| !update.snap && !update.past) {
                    self.delays.record(rx_us, self.clock.wall_ns() / 1_000);
                }
                Ok(())
            }
            Message::Ack(ack) => self.acked(ack),
            Message::Failure(failure) => self.refused(failure),
            other => {
                self.told(other);
                Ok(())
            }
        }
    }

    fn acked(&mut self, ack: &Ack<'_>) -> anyhow::Result<()> {
        for rejected in &ack.rejected {
            let channels = ack.channel.iter().flat_map(|channels| &channels.0);
            let channels: Vec<&str> = channels.map(|channel| channel.name()).collect();
            let (symbol, code) = (&*rejected.symbol, &*rejected.code);
            self.screen.notice(&format!("rejected: {symbol} ({}): {code}", channels.join(", ")));
        }
        self.accepted += ack.ok.as_ref().map_or(0, Vec::len);
        for symbol in self.states.newly_awaited() {
            self.screen.notice(&format!("waiting for {symbol}: the gateway has seen nothing of it yet"));
        }
        self.answered(&ack.id)
    }

    fn refused(&mut self, failure: &Failure<'_>) -> anyhow::Result<()> {
        self.screen.notice(&format!("the server refused: {} ({})", &*failure.msg, &*failure.code));
        self.answered(&failure.id)
    }

    /// Starts the duration of the watch once every subscription is answered.
    fn answered(&mut self, id: &serde_json::Value) -> anyhow::Result<()> {
        let before = self.unanswered.len();
        self.unanswered.retain(|asked| id.as_u64() != Some(*asked));
        if before == 0 || !self.unanswered.is_empty() {
            return Ok(());
        }
        if self.accepted == 0 {
            return Err(anyhow!("{} refused every subscription", self.args.url));
        }
        self.deadline_ns = self.args.duration.map(|duration| self.after(duration));
        Ok(())
    }

    /// Shows messages that are neither data nor answers.
    fn told(&mut self, message: &Message<'_>) {
        match message {
            Message::Joined(joined) if joined.missed > 0 => {
                self.screen
                    .notice(&format!("joined: {} ticks of the past were no longer kept", joined.missed));
            }
            Message::Joined(_) => self.screen.notice("joined: the live stream follows"),
            Message::Bye(bye) => {
                self.bye = Some(bye.code);
                self.screen.notice(&format!("bye from the server: {} ({})", &*bye.why, bye.code));
            }
            // All are counted; only changes of the level are shown.
            Message::Lag(lag) if self.ladder.hear(lag) => self.screen.notice(&tally::lag(lag)),
            _ => {}
        }
    }

    fn closed(&mut self, mut closed: Closed) -> anyhow::Result<End> {
        closed.code = closed.code.or(self.bye);
        if self.accepted == 0 {
            return Err(anyhow!("{} accepted no subscription: {closed}", self.args.url));
        }
        Ok(End::Closed(closed))
    }

    fn time_is_up(&self) -> anyhow::Result<End> {
        if self.unanswered.is_empty() {
            return Ok(End::TimeUp);
        }
        let limit_s = ANSWER_LIMIT.as_secs();
        Err(anyhow!("{} left a subscription unanswered for {limit_s} s", self.args.url))
    }

    /// Paints the table, or writes the line of counts.
    fn show(&mut self) -> anyhow::Result<()> {
        let now = self.clock.now();
        let updates = self.ledger.heard_all().updates;
        let rate = tally::per_second(updates - self.shown.1, now.mono_ns.saturating_sub(self.shown.0));
        self.shown = (now.mono_ns, updates);
        let counts = tally::counts(&self.ledger, self.elapsed_ns(now), rate);
        let shown = match self.screen.look() {
            Look::Json => Ok(()),
            Look::Counts => self.screen.line(&counts).and_then(|()| self.screen.flush()),
            Look::Table => {
                let (width, height) = self.screen.size();
                let lines = self.board.lines(&counts, width, height, now.wall_ns / 1_000);
                self.screen.paint(&lines)
            }
        };
        shown.context("cannot write")
    }

    /// Restores the terminal, writes the summary, and returns the verdict.
    fn finish(mut self, end: anyhow::Result<End>) -> WatchVerdict {
        let now = self.clock.now();
        let painted = match (self.screen.look(), &end) {
            (Look::Table, Ok(_)) => self.show(),
            _ => Ok(()),
        };
        let written = painted.and_then(|()| self.screen.finish().context("cannot write"));
        let end = match (end, written) {
            (Ok(_), Err(error)) if !is_broken_pipe(&error) => Err(error),
            (end, _) => end,
        };
        if let Ok(End::Closed(closed)) = &end {
            self.screen.notice(&format!("the stream ended: {closed}"));
        }
        if end.is_ok() || self.accepted > 0 {
            let elapsed_ns = self.elapsed_ns(now);
            self.screen.notice(&tally::summary(
                &self.ledger,
                &self.delays,
                &self.ladder,
                elapsed_ns,
                &self.states,
            ));
        }
        self.judge(&end, now)
    }

    /// Determines the verdict. Problems besides the accounting rule are printed last, where they are not
    /// overlooked.
    fn judge(&mut self, end: &anyhow::Result<End>, now: Now) -> WatchVerdict {
        let wrong = match end {
            Err(error) => {
                self.screen.notice(&format!("tickfan watch: {}", error_text::whole(error)));
                return WatchVerdict::Failed;
            }
            Ok(End::Closed(closed)) => self.ended_early(closed, now).or_else(|| self.never_came()),
            Ok(End::TimeUp) => self.never_came(),
            // The user has stopped the watch, so that nothing is missing.
            Ok(End::Interrupted | End::OutputClosed) => None,
        };
        if let Some(wrong) = &wrong {
            self.screen.notice(&format!("tickfan watch: {wrong}"));
        }
        match (self.ledger.held(), wrong) {
            (false, _) => WatchVerdict::Broke,
            (true, Some(_)) => WatchVerdict::Short,
            (true, None) => WatchVerdict::Held,
        }
    }

    /// The problem with a connection that the server ended: its duration was not over, or the end was not
    /// ordinary.
    fn ended_early(&self, closed: &Closed, now: Now) -> Option<String> {
        let after_s = tally::seconds(self.elapsed_ns(now));
        match self.args.duration {
            Some(asked) => {
                let asked_s = asked.as_secs_f64();
                Some(format!("the connection ended after {after_s:.1} of {asked_s:.1} s: {closed}"))
            }
            None if closed.is_ordinary() => None,
            None => Some(format!("the connection ended after {after_s:.1} s: {closed}")),
        }
    }

    /// The requested symbols for which nothing was received.
    fn never_came(&self) -> Option<String> {
        let missing = self.states.never_came();
        (!missing.is_empty()).then(|| format!("never came: {}", missing.join(", ")))
    }

    fn elapsed_ns(&self, now: Now) -> u64 {
        now.mono_ns.saturating_sub(self.start.mono_ns)
    }

    /// The steady time after this duration, nanoseconds.
    fn after(&self, duration: Duration) -> u64 {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.clock.now().mono_ns.saturating_add(ns)
    }
}

/// Classifies an item read from a socket.
fn open(given: Option<Result<Frame, SocketError>>) -> Given {
    match given {
        Some(Ok(Frame::Text(text))) => Given::Text(text),
        Some(Ok(Frame::Close(Some(close)))) => Given::Closed(Closed::with(close.code.into(), &close.reason)),
        Some(Ok(Frame::Close(None))) => Given::Closed(Closed::without("closed without a code")),
        // The protocol has no binary messages, and tungstenite answers pings.
        Some(Ok(_)) => Given::Nothing,
        None | Some(Err(SocketError::ConnectionClosed | SocketError::AlreadyClosed)) => {
            Given::Closed(Closed::without("the connection is closed"))
        }
        Some(Err(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
            Given::Closed(Closed::without("the connection went away without a close"))
        }
        Some(Err(error)) => Given::Closed(Closed::without(error.to_string())),
    }
}

/// True for messages that `--json` prints: those of the stream itself.
fn is_data(message: &Message<'_>) -> bool {
    matches!(message, Message::Update(..) | Message::Gap(_) | Message::Status(_))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS).collect()
}

/// Completes at this steady time; never without one, or on a manual clock.
async fn sleep_to(clock: &Clock, deadline_ns: Option<u64>) {
    match deadline_ns.and_then(|deadline_ns| clock.instant(deadline_ns)) {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Completes on a signal to stop.
async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            () = ctrl_c() => {}
        }
        return;
    }
    ctrl_c().await;
}

async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler, the system ends the process itself.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
