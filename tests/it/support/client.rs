//! A client that keeps account of everything it hears.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use tickfan::cli::watch::ledger::SequenceLedger;
use tickfan::cli::watch::message::Message;
use tickfan::model::tick::Channel;

use super::{CLOSE, FIN, Gateway, PATIENCE, PING, PONG, RawSocket, TEXT};

/// One step of the lag ladder, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) level: String,
    pub(crate) cut_in_ms: Option<u64>,
    pub(crate) queued_bytes: u64,
}

/// The last words before a close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastWords {
    pub(crate) code: u16,
    pub(crate) why: String,
    pub(crate) reconnect: bool,
    pub(crate) after_ms: Option<u64>,
}

/// A subscriber. It answers pings.
pub(crate) struct Client {
    pub(crate) socket: RawSocket,
    pub(crate) ledger: SequenceLedger,
    pub(crate) steps: Vec<Step>,
    /// The newest number that was told of each symbol and channel.
    pub(crate) told: BTreeMap<(String, &'static str), u64>,
    /// How old the trade or quote was that it heard last, since the gateway received it.
    pub(crate) age_us: Option<u64>,
    /// Pings that it answered.
    pub(crate) pongs: u64,
    pub(crate) bye: Option<LastWords>,
    /// The code of the close frame: there is nothing after it.
    pub(crate) close: Option<u16>,
}

impl Client {
    /// Subscribes by its URL, and takes the answer.
    pub(crate) fn open(gateway: &Gateway, query: &str) -> Self {
        Self::over(RawSocket::open(gateway, query))
    }

    /// The same with a small receive buffer.
    pub(crate) fn open_small(gateway: &Gateway, query: &str) -> Self {
        Self::over(RawSocket::open_small(gateway, query))
    }

    /// The same over a WebSocket that is there.
    pub(crate) fn over(socket: RawSocket) -> Self {
        let (ledger, steps, told) = (SequenceLedger::new(true), Vec::new(), BTreeMap::new());
        let mut client = Self { socket, ledger, steps, told, age_us: None, pongs: 0, bye: None, close: None };
        let answer = client.socket.message();
        assert_eq!(answer["type"], "ack", "{answer}");
        client.hear(&answer.to_string());
        client
    }

    /// Takes the next frame in; false after the last.
    pub(crate) fn step(&mut self) -> bool {
        let (opcode, payload) = self.socket.frame();
        match opcode {
            TEXT => self.hear(&String::from_utf8(payload).expect("UTF-8")),
            PING => {
                self.pongs += 1;
                self.socket.send(FIN | PONG, &payload);
            }
            CLOSE => {
                self.close = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return false;
            }
            _ => {}
        }
        true
    }

    /// Reads to the end, and has nothing to complain of. A gateway that goes on and on is a broken one.
    pub(crate) fn read_to_end(mut self) -> Self {
        let deadline = Instant::now() + 4 * PATIENCE;
        while self.step() {
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.steps);
        }
        assert!(self.ledger.held(), "{:?}", self.ledger.breaks());
        self
    }

    /// The levels since it was last well.
    pub(crate) fn levels(&self) -> Vec<&str> {
        let well = self.steps.iter().rposition(|step| step.level == "ok").map_or(0, |at| at + 1);
        self.steps[well..].iter().map(|step| step.level.as_str()).collect()
    }

    /// The codes of the last words and of the close frame.
    pub(crate) fn codes(&self) -> (Option<u16>, Option<u16>) {
        (self.bye.as_ref().map(|bye| bye.code), self.close)
    }

    /// Ticks that gaps with this reason named.
    pub(crate) fn missing(&self, why: &str) -> u64 {
        self.ledger.gaps().filter(|(known, _)| *known == why).map(|(_, gaps)| gaps.ticks).sum()
    }

    fn hear(&mut self, text: &str) {
        assert_eq!(self.bye, None, "after the bye: {text}");
        let message = Message::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        self.ledger.hear(&message);
        match message {
            Message::Update(channel, update) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
                self.age_us = update.rx_us.map(|rx_us| (now.as_micros() as u64).saturating_sub(rx_us));
                self.tell(&update.symbol, channel, update.seq);
            }
            Message::Gap(gap) => self.tell(&gap.symbol, gap.channel, gap.to),
            Message::Lag(lag) => self.steps.push(Step {
                level: lag.level.to_string(),
                cut_in_ms: lag.cut_in_ms,
                queued_bytes: lag.queued_bytes,
            }),
            Message::Bye(bye) => {
                let (code, why) = (bye.code, bye.why.to_string());
                self.bye = Some(LastWords { code, why, reconnect: bye.reconnect, after_ms: bye.after_ms });
            }
            _ => {}
        }
    }

    fn tell(&mut self, symbol: &str, channel: Channel, seq: u64) {
        self.told.insert((symbol.to_owned(), channel.name()), seq);
    }
}
