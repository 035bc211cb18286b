//! Cost of a delivery in the gateway, without the kernel: 1,000 sessions of one shard, whose sockets accept
//! and discard everything. `base` copies a frame to 1,000 buffers, the minimum of any fan-out.
//!
//! Cost per delivery: divide the time by 1,000 (or read the throughput).

mod rig;

use std::hint::black_box;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tickfan::model::instrument::Symbol;
use tickfan::protocol::frame::TextFrame;
use tickfan::protocol::json::{self, EncodeFlags};
use tickfan::ring::{Seen, tick_ring};

use crate::rig::{Nowhere, Rig, Tcp, symbol, trade};

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
    let mark = EncodeFlags { tx_us: Some(1_714_564_800_100_530), ..EncodeFlags::default() };
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
    let mut rig = Rig::<Nowhere>::new(1);
    for _ in 0..SESSIONS {
        rig.open(Nowhere, &format!(r#"{{"op":"subscribe","channel":"trade","symbols":["{}"]}}"#, symbol(0)));
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

/// Many symbols: the memory that a tick touches in its hundred sessions is in no near cache.
fn many_symbols(c: &mut Criterion) {
    const SYMBOLS: u32 = 1_000;
    const EACH: u32 = 20;
    const TICKS: u32 = 64;
    let mut group = c.benchmark_group("many");
    let mut rig = Rig::<Nowhere>::new(SYMBOLS);
    for session in 0..5_000 {
        // The symbols of a session are far apart, so that consecutive ticks go to different sessions.
        let apart = (0..EACH).map(|n| (session + n * (SYMBOLS / EACH)) % SYMBOLS);
        let names: Vec<String> = apart.map(|n| format!(r#""{}""#, symbol(n))).collect();
        let request = format!(r#"{{"op":"subscribe","channel":"trade","symbols":[{}]}}"#, names.join(","));
        rig.open(Nowhere, &request);
    }
    let mut seq = vec![1; SYMBOLS as usize];
    assert_eq!(rig.reach(&trade(0, 1)), 100);
    let mut next = 0;
    group.throughput(Throughput::Elements(u64::from(TICKS) * 100));
    group.bench_function("64 ticks to 100 each of 5,000 sessions, written once", |b| {
        b.iter(|| {
            for _ in 0..TICKS {
                seq[next as usize] += 1;
                rig.publish(&trade(next, seq[next as usize]));
                next = (next + 1) % SYMBOLS;
            }
            rig.settle();
        });
    });
    group.finish();
}

/// Cost of measuring the stages, including the work of the kernel: 200 loopback sockets, read by one thread.
fn measure(c: &mut Criterion) {
    const SOCKETS: usize = 200;
    let mut group = c.benchmark_group("stages");
    group.throughput(Throughput::Elements(2 * SOCKETS as u64));
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = door.local_addr().expect("bound");
    let connect = || {
        let far = TcpStream::connect(address).expect("connected");
        let (near, _) = door.accept().expect("accepted");
        [&far, &near].iter().for_each(|s| s.set_nonblocking(true).expect("set"));
        near.set_nodelay(true).expect("set");
        (near, far)
    };
    let (mut off, mut on) = (Rig::<Tcp>::new(1), Rig::<Tcp>::new(1));
    on.measure();
    let mut readers = Vec::new();
    for rig in [&mut off, &mut on] {
        for _ in 0..SOCKETS {
            let (near, far) = connect();
            readers.push(far);
            let subscribe = format!(r#"{{"op":"subscribe","channel":"trade","symbols":["{}"]}}"#, symbol(0));
            rig.open(Tcp(near), &subscribe);
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let reading = std::thread::spawn(move || {
        let mut scratch = vec![0; 1 << 16];
        while !stopped.load(Ordering::Relaxed) {
            for reader in &mut readers {
                while reader.read(&mut scratch).is_ok_and(|n| n > 0) {}
            }
        }
    });
    // Both alternate tick by tick, and in who is first, because the speed of a machine varies. Medians,
    // because some ticks coincide with other work.
    let (mut seq, mut took) = (1, [Vec::new(), Vec::new()]);
    group.measurement_time(Duration::from_secs(10));
    group.bench_function(format!("a tick to {SOCKETS} sockets, without and with measuring (per two)"), |b| {
        b.iter(|| {
            seq += 1;
            for at in [seq as usize % 2, (seq as usize + 1) % 2] {
                let rig = if at == 0 { &mut off } else { &mut on };
                let begun = Instant::now();
                rig.publish(&trade(0, seq));
                rig.settle();
                took[at].push(begun.elapsed());
            }
        });
    });
    let [off_us, on_us] = took.map(|mut all| {
        all.sort_unstable();
        all.get(all.len() / 2).map_or(f64::NAN, |median| median.as_secs_f64() * 1e6)
    });
    #[expect(clippy::print_stdout, reason = "it is the result")]
    let () =
        println!("stages: {off_us:.1} µs without, {on_us:.1} µs with measuring: {:.3} ×", on_us / off_us);
    group.finish();
    stop.store(true, Ordering::Relaxed);
    reading.join().expect("the reader ends");
}

/// Two shards read one ring and share no other written memory: on two cores their throughput is twice that of
/// one. The sockets discard everything, to exclude the locks of the kernel.
fn two_shards(c: &mut Criterion) {
    const TICKS: u32 = 20_000;
    let mut group = c.benchmark_group("shards");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for shards in [1, 2] {
        group.throughput(Throughput::Elements(u64::from(TICKS) * 100 * shards as u64));
        group.bench_function(format!("20,000 ticks to 100 sessions on each of {shards}"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| drained_by(shards, TICKS)).sum());
        });
    }
    group.finish();
}

/// Time in which `shards` shards fan out `ticks` ticks that are already in the ring, each on its own thread.
fn drained_by(shards: usize, ticks: u32) -> Duration {
    let (mut writer, ring) = tick_ring(32_768, 1).expect("a power of two");
    let (ready, start) = (Barrier::new(shards + 1), Barrier::new(shards + 1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shards)
            .map(|_| {
                scope.spawn(|| {
                    let mut rig = Rig::<Nowhere>::reading(&ring, 1);
                    let subscribe =
                        format!(r#"{{"op":"subscribe","channel":"trade","symbols":["{}"]}}"#, symbol(0));
                    (0..100).for_each(|_| rig.open(Nowhere, &subscribe));
                    rig.settle();
                    ready.wait();
                    start.wait();
                    let begun = Instant::now();
                    rig.settle();
                    begun.elapsed()
                })
            })
            .collect();
        ready.wait();
        for seq in 1..=ticks {
            writer.publish(&trade(0, u64::from(seq)), Seen::UNMEASURED).expect("a place");
        }
        start.wait();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).max().expect("one")
    })
}

criterion_group!(
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = encode, fan_out, many_symbols, measure, two_shards
);
criterion_main!(benches);
