//! Cost of a message in the watcher: parsing, and accounting. `base` only iterates over the bytes, and shows
//! the cost of the harness.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tickfan::cli::watch::ledger::SequenceLedger;
use tickfan::cli::watch::message::Message;

const MESSAGES: u64 = 20_000;
const SYMBOLS: u64 = 500;

/// Quotes and trades alternately, over all symbols in turn, each stream from 1 on.
fn messages() -> Vec<String> {
    (0..MESSAGES)
        .map(|at| {
            let (symbol, seq) = (at / 2 % SYMBOLS, at / (2 * SYMBOLS) + 1);
            let times = r#""ts":1767225600000000,"rx":1767225600000100,"tx":1767225600000120"#;
            if at % 2 == 0 {
                format!(
                    r#"{{"type":"quote","symbol":"coinbase:SYM{symbol}-USD","seq":{seq},"bid":"64010.10","bid_size":"0.5","ask":"64010.20","ask_size":"1.1",{times}}}"#
                )
            } else {
                format!(
                    r#"{{"type":"trade","symbol":"coinbase:SYM{symbol}-USD","seq":{seq},"price":"64010.20","size":"0.0100","side":"buy","trade_id":"280232",{times}}}"#
                )
            }
        })
        .collect()
}

fn watch(c: &mut Criterion) {
    let texts = messages();
    let mut group = c.benchmark_group("watch");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("base", |b| {
        b.iter(|| texts.iter().map(|text| memchr::memchr_iter(b'"', text.as_bytes()).count()).sum::<usize>());
    });
    group.bench_function("parse", |b| {
        b.iter(|| texts.iter().filter(|text| black_box(Message::parse(text)).is_ok()).count());
    });
    group.bench_function("parse and account", |b| {
        b.iter_batched(
            || SequenceLedger::new(true),
            |mut ledger| {
                for text in &texts {
                    ledger.hear(&Message::parse(text).expect("a good message"));
                }
                assert!(ledger.held());
                ledger
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, watch);
criterion_main!(benches);
