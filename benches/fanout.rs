//! What a delivery costs us, the kernel left out: 1,000 sessions of one shard, their sockets taking everything at
//! once into nothing. `base` copies a frame to 1,000 buffers, which is the least that any fan-out does.
//!
//! Rows per delivery: divide the time by 1,000 (or read the throughput).

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tickfan::clock::Clock;
use tickfan::counters::ShardCounters;
use tickfan::instrument::{InstrumentId, InstrumentTable, Symbol};
use tickfan::protocol::frame::TextFrame;
use tickfan::protocol::json::{self, Mark};
use tickfan::ring::{TickWriter, tick_ring};
use tickfan::session::Policy;
use tickfan::shard::{SessionOptions, Sessions, Shard, Socket, Tuning, Who};
use tickfan::tick::{Body, Decimal, Side, Tick, Trade, TradeId};

const SESSIONS: usize = 1_000;

/// A socket that takes everything and keeps nothing.
struct Nowhere;

impl Socket for Nowhere {
    fn force(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn keep_last_words(&mut self) {}

    fn unacked(&self) -> u64 {
        0
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(slices).iter().map(|slice| slice.len()).sum())
    }

    fn kick(&self) {}
}

fn trade(seq: u64) -> Tick {
    let trade = Trade {
        price: Decimal::new(6_401_020, 2),
        size: Decimal::new(100, 4),
        side: Some(Side::Buy),
        id: TradeId::from_number(280_232),
    };
    Tick {
        instrument: InstrumentId(0),
        seq,
        rx_ns: 1_714_564_800_100_512_000,
        ts_us: Some(1_714_564_800_100_000),
        body: Body::Trade(trade),
    }
}

/// A shard with sessions that all want one instrument.
fn shard() -> (TickWriter, Shard<Nowhere>, Clock) {
    let table = Arc::new(InstrumentTable::new(16));
    let symbol = Symbol::parse("coinbase:BTC-USD").expect("a good symbol");
    table.intern(&symbol).expect("room");
    let (writer, ring) = tick_ring(1_024, 16).expect("a power of two");
    let clock = Clock::real();
    let counters = Arc::new(ShardCounters::default());
    let options = SessionOptions {
        epoch: "e".into(),
        replay: false,
        policy: Policy {
            outbox_bytes_max: 262_144,
            control_bytes_max: 65_536,
            warn_behind_ns: 1_000_000_000,
            shed_behind_ns: 3_000_000_000,
            cut_after_ns: 20_000_000_000,
            pong_timeout_ns: u64::MAX,
            rates_max: 16,
        },
        tuning: Tuning { unsent_bytes_max: 16_384, dead_peer_ms: 25_000 },
        fragments_max: 64,
        controls_per_s: 50,
        drain_spread_ms: 0,
        heartbeat_ms: 3_600_000,
        symbols_max: 10,
        frame_bytes_max: 65_536,
        ops_per_s: 50,
        close_grace_ms: 1_000,
        venues: Arc::new([]),
    };
    let sessions = Sessions::new(options, table, ring.clone(), clock.clone(), Arc::clone(&counters));
    let sessions = Rc::new(RefCell::new(sessions));
    for n in 0..SESSIONS {
        let now = clock.now();
        let id = sessions.borrow_mut().open(Nowhere, Who { name: format!("s{n}").into(), peer: None }, now);
        let text = r#"{"op":"subscribe","channel":"trade","symbols":["coinbase:BTC-USD"]}"#;
        sessions.borrow_mut().request(id, text, now);
    }
    (writer, Shard::new(ring.reader(), sessions, counters), clock)
}

fn encode(c: &mut Criterion) {
    let symbol = Symbol::parse("coinbase:BTC-USD").expect("a good symbol");
    let tick = trade(551);
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let mut frame = TextFrame::default();
    let ready = [b'x'; 200];
    group.bench_function("base: copy 200 bytes", |b| {
        b.iter(|| frame.make(|out| out.extend_from_slice(black_box(&ready))).len());
    });
    let mark = Mark { tx_us: Some(1_714_564_800_100_530), ..Mark::default() };
    group.bench_function("trade", |b| {
        b.iter(|| frame.make(|out| json::tick(black_box(&tick), &symbol, mark, out)).len());
    });
    group.bench_function("serde_json, the same fields", |b| {
        b.iter(|| {
            let value = serde_json::json!({
                "type": "trade", "symbol": symbol.as_str(), "seq": black_box(551), "price": "64010.20",
                "size": "0.0100", "side": "buy", "trade_id": "280232", "ts": 1_714_564_800_100_000u64,
                "rx": 1_714_564_800_100_512u64, "tx": 1_714_564_800_100_530u64,
            });
            frame.make(|out| serde_json::to_writer(out, &value).expect("a Vec takes it")).len()
        });
    });
    group.finish();
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout");
    group.throughput(Throughput::Elements(SESSIONS as u64));
    let frame = [b'x'; 220];
    let mut outboxes: Vec<_> = (0..SESSIONS).map(|_| Vec::<u8>::with_capacity(4_096)).collect();
    group.bench_function("base: copy a frame to 1,000 buffers", |b| {
        b.iter(|| {
            for outbox in &mut outboxes {
                outbox.clear();
                outbox.extend_from_slice(black_box(&frame));
            }
        });
    });
    let (mut writer, mut shard, clock) = shard();
    while shard.turn(clock.now()) {}
    let mut seq = 0;
    group.bench_function("a tick to 1,000 sessions, written", |b| {
        b.iter(|| {
            seq += 1;
            writer.publish(&trade(seq)).expect("a place");
            while shard.turn(clock.now()) {}
        });
    });
    group.bench_function("16 ticks to 1,000 sessions, written once (per 16)", |b| {
        b.iter(|| {
            for _ in 0..16 {
                seq += 1;
                writer.publish(&trade(seq)).expect("a place");
            }
            while shard.turn(clock.now()) {}
        });
    });
    group.finish();
}

criterion_group!(
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = encode, fan_out
);
criterion_main!(benches);
