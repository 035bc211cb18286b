//! Cost of the parts of a delivery: a frame into a session's outbox and out again, and the path of a tick
//! through a shard to the matching sessions, by their number. Sockets accept and discard everything.
//!
//! Every row is per frame or per tick. The `base` rows are the harness and the minimum work: a copy, and a
//! tick through the ring to a shard without sessions.

mod rig;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tickfan::latency::meter::Class;
use tickfan::model::instrument::InstrumentId;
use tickfan::session::{Buffers, FrameRange, Session, Times};

use crate::rig::{Nowhere, Rig, policy, quote, symbol, trade};

const FRAME: [u8; 220] = [b'x'; 220];
/// Frames per write.
const FRAMES: usize = 16;
const SYMBOLS: u32 = 1_000;

/// Writes everything that is queued, as a shard does.
fn write(session: &mut Session) {
    let len = session.show(|slices| black_box(slices).iter().map(|slice| slice.len()).sum());
    session.wrote(len, 0);
}

fn outbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    let mut buffer = Vec::with_capacity(8_192);
    group.bench_function("base: copy a frame", |b| {
        b.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(&FRAME));
            black_box(buffer.len())
        });
    });
    let buffers = Buffers::default();
    let times = Times { rx_ns: 0, tx_ns: 0, class: Class::NONE, instrument: InstrumentId(0) };
    let mut append = || {
        if !buffers.has_room() {
            buffers.reclaim(buffers.head());
        }
        buffers.append(black_box(&FRAME), times).expect("there is room")
    };
    let new = || Session::new(std::rc::Rc::new(policy()), buffers.clone(), 0, 0);
    let ranges: Vec<FrameRange> = (0..64).map(|_| append()).collect();
    let (apart, together) = (|n: usize| black_box(ranges[n * 3 % 64]), |n: usize| black_box(ranges[n]));
    let mut session = new();
    group.bench_function("base: print a frame", |b| b.iter(&mut append));
    group.bench_function("offer, write", |b| {
        b.iter(|| {
            assert!(session.offer(together(0), 0));
            write(&mut session);
        });
    });
    let mut full = new();
    while full.offer(ranges[0], 0) {}
    group.bench_function("offer, refused by a full outbox", |b| {
        b.iter(|| full.offer(together(0), 0));
    });
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("base: copy 16 frames (per 16)", |b| {
        b.iter(|| {
            buffer.clear();
            (0..FRAMES).for_each(|_| buffer.extend_from_slice(black_box(&FRAME)));
            black_box(buffer.len())
        });
    });
    group.bench_function("16 offers of frames side by side, one write (per 16)", |b| {
        b.iter(|| {
            (0..FRAMES).for_each(|n| assert!(session.offer(together(n), 0)));
            write(&mut session);
        });
    });
    group.bench_function("16 offers of frames apart, one write (per 16)", |b| {
        b.iter(|| {
            (0..FRAMES).for_each(|n| assert!(session.offer(apart(n), 0)));
            write(&mut session);
        });
    });
    // The frames are copied before the frame ring would overwrite them, into several chunks that are lent and
    // returned.
    let framed = [[0x82, 126, 0, 216].as_slice(), &FRAME[4..]].concat();
    let framed: Vec<FrameRange> = (0..64).filter_map(|_| buffers.append(&framed, times)).collect();
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 offers, copied, one write (per 64)", |b| {
        b.iter(|| {
            framed.iter().for_each(|range| assert!(session.offer(*range, 0)));
            session.own();
            write(&mut session);
        });
    });
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    group.throughput(Throughput::Elements(1));
    // One symbol more than any session subscribes to.
    let request = |terms: &str, n: u32| {
        format!(r#"{{"op":"subscribe",{terms},"symbols":["{}"]}}"#, symbol(n % SYMBOLS))
    };
    let mut seq = 1;
    let mut bare = Rig::<Nowhere>::new(SYMBOLS + 1);
    group.bench_function("base: a tick to a shard without sessions", |b| {
        b.iter(|| {
            seq += 1;
            bare.publish(&trade(seq as u32 % SYMBOLS, seq));
            bare.settle();
        });
    });
    let mut rig = Rig::new(SYMBOLS + 1);
    for n in 0..SYMBOLS {
        rig.open(Nowhere, &request(r#""channel":"trade""#, n));
    }
    assert_eq!((rig.reach(&trade(SYMBOLS, seq)), rig.reach(&trade(0, seq))), (0, 1));
    group.bench_function("nobody of 1,000 sessions wants it", |b| {
        b.iter(|| {
            seq += 1;
            rig.publish(&trade(SYMBOLS, seq));
            rig.settle();
        });
    });
    group.bench_function("1 of 1,000 sessions wants it, written", |b| {
        b.iter(|| {
            seq += 1;
            rig.publish(&trade(seq as u32 % SYMBOLS, seq));
            rig.settle();
        });
    });
    for n in 0..9 * SYMBOLS {
        rig.open(Nowhere, &request(r#""channel":"trade""#, n));
    }
    seq += 1;
    assert_eq!(rig.reach(&trade(0, seq)), 10);
    group.bench_function("10 of 10,000 sessions want it, written (per 10)", |b| {
        b.iter(|| {
            seq += 1;
            rig.publish(&trade(seq as u32 % SYMBOLS, seq));
            rig.settle();
        });
    });
    let mut slow = Rig::<Nowhere>::new(SYMBOLS + 1);
    for n in 0..SYMBOLS {
        slow.open(Nowhere, &request(r#""channel":"quote","mode":"latest","max_hz":0.01"#, n));
    }
    // The first tick of each symbol is held back for most of 100 s, and all others behind it.
    assert_eq!(slow.reach(&quote(0, seq)), 0);
    group.bench_function("1 of 1,000 sessions wants it, held back already", |b| {
        b.iter(|| {
            seq += 1;
            slow.publish(&quote(seq as u32 % SYMBOLS, seq));
            slow.settle();
        });
    });
    group.finish();
}

criterion_group!(
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = outbox, lookup
);
criterion_main!(benches);
