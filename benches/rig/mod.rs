//! A shard whose sockets accept and discard everything, for benches of the gateway's own work.
#![allow(dead_code, reason = "each bench uses its part of it")]

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{self, IoSlice, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

use tickfan::latency::meter::Meter;
use tickfan::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use tickfan::model::tick::{Body, Decimal, Quote, Side, Tick, Trade, TradeId};
use tickfan::protocol::json::Provenance;
use tickfan::ring::{Seen, TickRing, TickWriter, tick_ring};
use tickfan::session::Policy;
use tickfan::shard::{
    CatchUps, ClientInfo, ClientLimits, Peer, SessionOptions, SessionTimes, Sessions, Shard, Socket, Tuning,
};
use tickfan::system::counters::ShardCounters;
use tickfan::time::clock::Clock;

/// A socket that accepts and discards everything.
pub(crate) struct Nowhere;

/// A real socket, whose other end is read.
pub(crate) struct Tcp(pub(crate) TcpStream);

impl Socket for Tcp {
    fn force(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn peer(&self) -> Option<Peer> {
        None
    }

    fn unacked(&self) -> u64 {
        0
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn kick(&self) {}
}

impl Socket for Nowhere {
    fn force(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn peer(&self) -> Option<Peer> {
        None
    }

    fn unacked(&self) -> u64 {
        0
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(slices).iter().map(|slice| slice.len()).sum())
    }

    fn kick(&self) {}
}

fn tick(instrument: u32, seq: u64, body: Body) -> Tick {
    Tick {
        instrument: InstrumentId(instrument),
        seq,
        rx_ns: 1_714_564_800_100_512_000,
        ts_us: Some(1_714_564_800_100_000),
        snap: false,
        body,
    }
}

pub(crate) fn trade(instrument: u32, seq: u64) -> Tick {
    let trade = Trade {
        price: Decimal::new(6_401_020, 2),
        size: Decimal::new(100, 4),
        side: Some(Side::Buy),
        id: TradeId::from_number(280_232),
    };
    tick(instrument, seq, Body::Trade(trade))
}

pub(crate) fn quote(instrument: u32, seq: u64) -> Tick {
    let size = Some(Decimal::new(5, 1));
    let (bid, ask) = (Some(Decimal::new(6_401_010, 2)), Some(Decimal::new(6_401_020, 2)));
    tick(instrument, seq, Body::Quote(Quote { bid, bid_size: size, ask, ask_size: size }))
}

pub(crate) fn policy() -> Policy {
    Policy {
        outbox_bytes_max: 262_144,
        control_bytes_max: 65_536,
        warn_behind_ns: 1_000_000_000,
        shed_behind_ns: 3_000_000_000,
        cut_after_ns: 20_000_000_000,
        pong_timeout_ns: u64::MAX,
        ahead_ns: 500_000_000,
        rates_max: 16,
    }
}

/// The symbol of an instrument.
pub(crate) fn symbol(instrument: u32) -> String {
    format!("coinbase:S{instrument}-USD")
}

pub(crate) struct Rig<S = Nowhere> {
    /// Writer of its own ring, if it has one.
    writer: Option<TickWriter>,
    shard: Shard<S>,
    sessions: Rc<RefCell<Sessions<S>>>,
    counters: Arc<ShardCounters>,
    clock: Clock,
}

impl<S: Socket> Rig<S> {
    /// A shard without sessions, with this number of instruments.
    pub(crate) fn new(instruments: u32) -> Self {
        let (writer, ring) = tick_ring(1_024, instruments as usize).expect("a power of two");
        Self { writer: Some(writer), ..Self::reading(&ring, instruments) }
    }

    /// The same, on a ring of another writer.
    pub(crate) fn reading(ring: &TickRing, instruments: u32) -> Self {
        let table = Arc::new(InstrumentTable::new(instruments as usize));
        for instrument in 0..instruments {
            table.intern(&Symbol::parse(&symbol(instrument)).expect("a good symbol")).expect("room");
        }
        let clock = Clock::real();
        let counters = Arc::new(ShardCounters::default());
        let options = SessionOptions {
            limits: ClientLimits {
                symbols_max: 1_000,
                frame_bytes_max: 65_536,
                fragments_max: 64,
                controls_per_s: 50,
                ops_per_s: 50,
                steps_per_turn_max: 1 << 20,
            },
            times: SessionTimes {
                heartbeat_ms: 3_600_000,
                close_grace_ms: 1_000,
                drain_spread_ms: 0,
                dead_peer_ms: 25_000,
            },

            epoch: "e".into(),
            feed: Provenance::Live,
            policy: policy(),
            tuning: Tuning { unsent_bytes_max: 16_384 },
            frame_ring_bytes: tickfan::session::FRAME_RING_BYTES,
            venues: Arc::new([]),
            replay_control: None,
            catch_ups: CatchUps::new(0, 0, 1),
            reread_per_turn: 4_096,
        };
        let sessions = Sessions::new(options, table, ring.clone(), clock.clone(), Arc::clone(&counters));
        let sessions = Rc::new(RefCell::new(sessions));
        let shard = Shard::new(ring.reader(), Rc::clone(&sessions), Arc::clone(&counters));
        Self { writer: None, shard, sessions, counters, clock }
    }

    /// Enables the measurement of stages, as in a gateway.
    pub(crate) fn measure(&mut self) {
        let meter = Meter::new(Arc::default(), 1_000_000_000, self.clock.now().mono_ns).with_symbols(64);
        self.sessions.borrow_mut().measure_with(meter);
    }

    /// Adds a session with a request.
    pub(crate) fn open(&mut self, socket: S, request: &str) {
        let now = self.clock.now();
        let mut sessions = self.sessions.borrow_mut();
        let id = sessions.open(socket, ClientInfo { name: "s".into(), peer: None }, now);
        sessions.request(id, request, now);
    }

    pub(crate) fn publish(&mut self, tick: &Tick) {
        let now_ns = self.clock.wall_ns();
        let tick = Tick { rx_ns: now_ns, ..*tick };
        let writer = self.writer.as_mut().expect("a ring of its own");
        writer.publish(&tick, Seen::new(0, 1)).expect("a place");
    }

    /// Number of sessions that a tick reaches: guards against rows that measure nothing.
    pub(crate) fn reach(&mut self, tick: &Tick) -> u64 {
        self.settle();
        let before = self.counters.sent.get();
        self.publish(tick);
        self.settle();
        self.counters.sent.get() - before
    }

    /// Runs turns until there is nothing to do.
    pub(crate) fn settle(&mut self) {
        while self.shard.turn(self.clock.now()) {}
    }
}
