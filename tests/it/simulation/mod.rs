//! A shard turned by hand, with sockets that take as many bytes as they are told to and a clock that moves when it
//! is told to. Random schedules of ticks, requests, slow and fast readers; after each the accounting rule has held
//! for every client and everybody was told everything. A failure prints its seed; the same seed gives the same
//! bytes.

mod checks;
mod model;
mod scenarios;
mod schedules;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tickfan::cli::watch::ledger::SequenceLedger;
use tickfan::cli::watch::message::Message;
use tickfan::history::{self, History, HistoryReader, HistoryWriter};
use tickfan::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use tickfan::model::tick::{
    Body, Channel, Decimal, FeedGap, Key, Quote, State, Stream, Tick, Trade, TradeId,
};
use tickfan::protocol::close::Close;
use tickfan::protocol::json::Provenance;
use tickfan::protocol::parse_query;
use tickfan::ring::{Seen, TickWriter, tick_ring};
use tickfan::session::{FRAME_RING_BYTES_MIN, Policy};
use tickfan::shard::{
    CatchUps, ClientInfo, ClientLimits, ClientRow, Peer, Relief, STEPS_MIN, SessionOptions, SessionTimes,
    Sessions, Shard, Socket, SortBy, Tuning,
};
use tickfan::system::counters::{Counter, ShardCounters};
use tickfan::system::memory::Memory;
use tickfan::time::clock::Clock;
use tokio::sync::mpsc;

use crate::support::undisturbed;
use checks::*;
use schedules::*;

const INSTRUMENTS: u64 = 4;
const OUTBOX_BYTES_MAX: usize = 4_096;
const MEMORY_BYTES_MAX: u64 = 1 << 40;
/// Positions of the ring that a shard looks at again in one turn, where they are few.
const REREAD_FEW: usize = 12;

/// Reproducible numbers: splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

const MS: u64 = 1_000_000;

/// A socket that takes what it has room for, and a kernel behind it.
#[derive(Default)]
struct Wire {
    room: usize,
    taken: Vec<u8>,
    /// How much of that the other side has acknowledged.
    acked: usize,
}

struct Fake(Rc<RefCell<Wire>>);

impl Socket for Fake {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let mut wire = self.0.borrow_mut();
        if wire.room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(wire.room);
        wire.room -= n;
        wire.taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn force(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn peer(&self) -> Option<Peer> {
        None
    }

    fn unacked(&self) -> u64 {
        let wire = self.0.borrow();
        (wire.taken.len() - wire.acked) as u64
    }

    fn kick(&self) {}
}

/// The texts of the frames in `bytes`, read as RFC 6455 §5.2 has it; the code of a close frame at the end.
fn texts(bytes: &[u8]) -> (Vec<String>, Option<u16>) {
    let (mut texts, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (len, at) = match rest[1] {
            126 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
            127 => (u64::from_be_bytes(rest[2..10].try_into().expect("8 bytes")) as usize, 10),
            len => (usize::from(len), 2),
        };
        let payload = &rest[at..at + len];
        match rest[0] {
            0x89 => {}
            0x81 => texts.push(String::from_utf8(payload.to_vec()).expect("UTF-8")),
            0x88 => {
                assert_eq!(rest.len(), at + len, "nothing comes behind a close frame");
                return (texts, Some(u16::from_be_bytes([payload[0], payload[1]])));
            }
            other => panic!("a frame that begins with {other:#x}"),
        }
        rest = &rest[at + len..];
    }
    (texts, None)
}

/// What stands in the pings of some whole frames.
fn pings(mut frames: &[u8]) -> Vec<&[u8]> {
    let mut pings = Vec::new();
    while let [first, len, ..] = *frames {
        let (frame, rest) = frames.split_at(frame_len(frames).expect("it is whole"));
        if first == 0x89 {
            pings.push(&frame[2..2 + usize::from(len)]);
        }
        frames = rest;
    }
    pings
}

struct Client {
    id: u32,
    name: String,
    wire: Rc<RefCell<Wire>>,
    /// It answers pings, as a client has to; some never do.
    answers: bool,
    /// How much it has read.
    came_to: usize,
    /// What it says that it has, of an earlier connection.
    resumes: Told,
    /// What it has sent that was not read yet.
    sent: VecDeque<String>,
}

/// The newest number of each subscription that a client was told.
type Told = BTreeMap<(String, Channel), u64>;

/// A client that has gone.
struct Gone {
    bytes: Vec<u8>,
    resumes: Told,
    row: ClientRow,
}

/// A market, a shard and its clients.
struct Rig {
    /// A replay goes elsewhere now and then.
    seeks: bool,
    random: Random,
    /// Ticks that come at once now and then.
    burst: u32,
    /// Steps that a turn may take, and how many there were when the last one began.
    steps_max: u64,
    steps: u64,
    clock: Clock,
    table: Arc<InstrumentTable>,
    writer: TickWriter,
    seqs: HashMap<Key, u64>,
    /// By the number of the instrument.
    states: HashMap<u32, State>,
    sessions: Rc<RefCell<Sessions<Fake>>>,
    shard: Shard<Fake>,
    counters: Arc<ShardCounters>,
    clients: Vec<Client>,
    gone: Vec<Gone>,
    named: usize,
    /// Numbers that the feed lost.
    lost: BTreeSet<(Key, u64)>,
    /// What is no longer in the ring, in some schedules.
    past: Option<Past>,
    /// Short now and then.
    memory: Arc<Memory>,
}

/// A history, turned by hand.
struct Past {
    writer: HistoryWriter,
    reader: HistoryReader,
    _folder: tempfile::TempDir,
}

fn symbol(n: u64) -> Symbol {
    Symbol::new("demo", &format!("S{n}")).expect("a good symbol")
}

/// What a client was sent, and how it was closed.
fn told(rig: &Rig, client: usize) -> (Vec<Value>, Option<u16>) {
    let (texts, code) = texts(&rig.clients[client].wire.borrow().taken);
    (texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect(), code)
}
