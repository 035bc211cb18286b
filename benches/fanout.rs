//! What a delivery costs us, the kernel left out: 1,000 sessions of one shard, their sockets taking everything at
//! once into nothing. `base` copies a frame to 1,000 buffers, which is the least that any fan-out does.
//!
//! Rows per delivery: divide the time by 1,000 (or read the throughput).

mod rig;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tickfan::instrument::Symbol;
use tickfan::protocol::frame::TextFrame;
use tickfan::protocol::json::{self, Mark};

use crate::rig::{Rig, symbol, trade};

const SESSIONS: usize = 1_000;

fn encode(c: &mut Criterion) {
    let symbol = Symbol::parse("coinbase:BTC-USD").expect("a good symbol");
    let tick = trade(0, 551);
    let quote = rig::quote(0, 551);
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
    group.bench_function("quote", |b| {
        b.iter(|| frame.make(|out| json::tick(black_box(&quote), &symbol, mark, out)).len());
    });
    group.bench_function("serde_json, the fields of the trade", |b| {
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
    let mut rig = Rig::new(1);
    for _ in 0..SESSIONS {
        rig.open(&format!(r#"{{"op":"subscribe","channel":"trade","symbols":["{}"]}}"#, symbol(0)));
    }
    let mut seq = 1;
    assert_eq!(rig.reach(&trade(0, seq)), SESSIONS as u64);
    group.bench_function("a tick to 1,000 sessions, written", |b| {
        b.iter(|| {
            seq += 1;
            rig.publish(&trade(0, seq));
            rig.settle();
        });
    });
    group.bench_function("16 ticks to 1,000 sessions, written once (per 16)", |b| {
        b.iter(|| {
            for _ in 0..16 {
                seq += 1;
                rig.publish(&trade(0, seq));
            }
            rig.settle();
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
