//! Every message of every venue, as the feed line turns it into ticks, and what it does when a venue's own
//! numbers or checksums do not add up. The frames lie in `tests/venues/<venue>/`, named for the message, in
//! the form that the venue documents.

mod binance;
mod coinbase;
mod kraken;
mod lines;
mod native;
mod spoilt;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tickfan::feed::{Line, LineId, LineLimits, LineStats, Origin, Sequencer};
use tickfan::model::instrument::{InstrumentId, InstrumentTable};
use tickfan::model::tick::{Body, Decimal, DecimalError, Side, Stream, Tick};
use tickfan::venue::{DecodeError, WireFormat};

fn folder(wire: WireFormat) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/venues").join(wire.name())
}

/// The frame in `tests/venues/<venue>/<name>.json`.
fn frame(wire: WireFormat, name: &str) -> String {
    let path = folder(wire).join(format!("{name}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All frames of a venue.
pub(crate) fn frames(wire: WireFormat) -> Vec<String> {
    // Spot and futures share a decoder, and each must stand the other's messages.
    let wires = match wire {
        WireFormat::Binance | WireFormat::BinanceFutures => {
            vec![WireFormat::Binance, WireFormat::BinanceFutures]
        }
        other => vec![other],
    };
    let mut paths: Vec<_> = wires
        .into_iter()
        .flat_map(|wire| fs::read_dir(folder(wire)).expect("a folder of frames"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("a frame")).collect()
}

/// The frames of all cases that were told wrongly once.
pub(crate) fn cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = fs::read_dir(folder).expect("a folder of cases").map(|entry| entry.expect("an entry").path());
    let text = files.map(|file| fs::read_to_string(file).expect("a case")).collect::<String>();
    text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
}

/// Binance's combined form of a raw message.
fn combined(stream: &str, raw: &str) -> String {
    format!(r#"{{"stream":"{stream}","data":{}}}"#, raw.trim())
}

fn limits() -> LineLimits {
    LineLimits { book_levels_max: 1_000, ..LineLimits::default() }
}

/// A market with one line or more, that holds what every tick must keep to.
pub(crate) struct Feed {
    lines: Vec<Line>,
    sequencer: Sequencer,
    rx_ns: u64,
    seqs: HashMap<(InstrumentId, Stream), u64>,
}

impl Feed {
    fn new(wire: WireFormat) -> Self {
        Self::of_lines(&[wire])
    }

    fn of_lines(wires: &[WireFormat]) -> Self {
        Self::with_room(wires, 64)
    }

    /// One with room for so many instruments.
    pub(crate) fn with_room(wires: &[WireFormat], instruments: usize) -> Self {
        let lines =
            (0..).zip(wires).map(|(n, wire)| Line::new(LineId(n), Origin::Live, *wire, limits())).collect();
        let sequencer = Sequencer::new(Arc::new(InstrumentTable::new(instruments)));
        Self { lines, sequencer, rx_ns: 1_714_564_800_000_000_000, seqs: HashMap::new() }
    }

    /// Looks for what is to come, as a replay does.
    pub(crate) fn prime(&mut self, frame: &[u8]) {
        self.lines[0].prime(frame, &mut self.sequencer);
    }

    /// What a frame becomes, one text a tick.
    pub(crate) fn try_take(&mut self, line: usize, frame: &[u8]) -> (Vec<String>, Result<(), DecodeError>) {
        self.rx_ns += 1_000_000;
        let mut ticks = Vec::new();
        let result = self.lines[line].frame(self.rx_ns, frame, &mut self.sequencer, |tick| ticks.push(*tick));
        (ticks.iter().map(|tick| self.text(tick)).collect(), result)
    }

    fn take(&mut self, frame: &str) -> Vec<String> {
        self.take_on(0, frame)
    }

    fn take_on(&mut self, line: usize, frame: &str) -> Vec<String> {
        let (ticks, result) = self.try_take(line, frame.as_bytes());
        result.unwrap_or_else(|error| panic!("{error}: {frame}"));
        ticks
    }

    fn fault(&mut self, frame: &str) -> DecodeError {
        let before = self.stats().bad_frames;
        let (_, result) = self.try_take(0, frame.as_bytes());
        assert_eq!(self.stats().bad_frames, before + 1, "a bad frame is counted: {frame}");
        result.expect_err(frame)
    }

    fn stats(&self) -> &LineStats {
        self.lines[0].stats()
    }

    /// `word known frames` for each kind.
    fn kinds(&self) -> Vec<String> {
        self.stats().kinds.iter().map(|k| format!("{} {} {}", k.name, k.known, k.frames)).collect()
    }

    /// The tick as text. Holds that it was stamped with the frame's time and that no number is left out.
    fn text(&mut self, tick: &Tick) -> String {
        assert_eq!(tick.rx_ns, self.rx_ns);
        let seq = self.seqs.entry((tick.instrument, tick.body.stream())).or_default();
        let first = if let Body::Gap { from, .. } = tick.body { from } else { tick.seq };
        assert_eq!(first, *seq + 1, "numbers follow each other: {tick:?}");
        assert!(tick.seq >= first);
        *seq = tick.seq;
        let symbol = self.sequencer.table().get(tick.instrument).expect("listed").as_str();
        let mut text = format!("{symbol} ");
        let digits = |d: Option<Decimal>| d.map_or_else(|| "-".to_owned(), |d| d.to_string());
        match &tick.body {
            Body::Trade(trade) => {
                let side = trade.side.map_or("-", Side::name);
                write!(text, "trade {} {side} {} @ {}", tick.seq, trade.size, trade.price).expect("a string");
                if !trade.id.as_bytes().is_empty() {
                    write!(text, " id {}", String::from_utf8_lossy(trade.id.as_bytes())).expect("a string");
                }
            }
            Body::Quote(q) => {
                let (bid, bid_size) = (digits(q.bid), digits(q.bid_size));
                let (ask, ask_size) = (digits(q.ask), digits(q.ask_size));
                write!(text, "quote {} {bid_size} @ {bid} / {ask_size} @ {ask}", tick.seq).expect("a string");
            }
            Body::Gap { channel, from, .. } => {
                write!(text, "gap {} {from}..{}", channel.name(), tick.seq).expect("a string");
            }
            Body::Status(state) => write!(text, "status {}", state.name()).expect("a string"),
        }
        if let Some(ts_us) = tick.ts_us {
            write!(text, " ts {ts_us}").expect("a string");
        }
        text
    }
}

const NOTHING: [&str; 0] = [];
