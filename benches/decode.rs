//! Cost of a venue's message: parsed, decoded into events, and turned into ticks by a feed line. `base` only
//! iterates over the bytes, and shows the cost of the harness; `serde_json` parses the same bytes into values
//! that are not used.
//!
//! Runs over recorded captures if available (`TICKFAN_FEEDS` names their folder), otherwise over the shipped
//! ones. Elements are messages: the throughput is messages per second on one core.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use tickfan::capture::{CaptureReader, RecordKind};
use tickfan::feed::{Line, LineId, LineLimits, Origin, Sequencer};
use tickfan::model::instrument::InstrumentTable;
use tickfan::venue::{self, Scratch, WireFormat};

/// The messages of a capture, decompressed, with their receive times.
struct Messages {
    name: String,
    wire: WireFormat,
    bytes: Vec<u8>,
    /// Receive time and end offset of each message.
    ends: Vec<(u64, usize)>,
}

impl Messages {
    fn read(path: &Path) -> Self {
        let mut reader = CaptureReader::open(path).expect("a capture");
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        while let Some(record) = reader.next_record() {
            let record = record.expect("a good line");
            if let RecordKind::Frame(frame) = record.kind {
                bytes.extend_from_slice(frame);
                ends.push((record.rx_ns, bytes.len()));
            }
        }
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        Self { name, wire: reader.venue().expect("a venue"), bytes, ends }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut from = 0;
        self.ends
            .iter()
            .map(move |(rx_ns, end)| (*rx_ns, &self.bytes[std::mem::replace(&mut from, *end)..*end]))
    }
}

fn captures() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder =
        std::env::var_os("TICKFAN_FEEDS").map_or_else(|| here.join("../shared/feeds"), PathBuf::from);
    let recorded = ["btcusdt_20240808.gz", "COINBASE.ws.28.0"].map(|name| folder.join(name));
    if recorded.iter().all(|path| path.exists()) {
        return recorded.into();
    }
    ["binance-futures.zst", "coinbase.zst"].map(|name| here.join("feeds").join(name)).into()
}

/// A new feed line with its sequencer.
fn line(wire: WireFormat) -> (Line, Sequencer) {
    let limits = LineLimits { book_levels_max: 100_000, ..LineLimits::default() };
    (Line::new(LineId(0), Origin::Live, wire, limits), Sequencer::new(Arc::new(InstrumentTable::new(1_024))))
}

fn decode(c: &mut Criterion) {
    for path in captures() {
        let messages = Messages::read(&path);
        let mut group = c.benchmark_group(format!("decode {}", messages.name));
        group.throughput(Throughput::Elements(messages.ends.len() as u64));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        group.bench_function("base", |b| {
            b.iter(|| messages.iter().map(|(_, m)| memchr::memchr_iter(b'"', m).count()).sum::<usize>());
        });
        group.bench_function("serde_json", |b| {
            b.iter(|| {
                for (_, message) in messages.iter() {
                    black_box(serde_json::from_slice::<serde_json::Value>(message).expect("JSON"));
                }
            });
        });
        group.bench_function("decode", |b| {
            let mut scratch = Scratch::default();
            b.iter(|| {
                let mut events = 0u64;
                for (_, message) in messages.iter() {
                    venue::decode(messages.wire, &mut scratch, message, &mut |event| {
                        black_box(&event);
                        events += 1;
                        Ok(())
                    })
                    .expect("a good message");
                }
                events
            });
        });
        group.bench_function("decode and normalise", |b| {
            b.iter_batched_ref(
                || line(messages.wire),
                |(line, sequencer)| {
                    let mut ticks = 0u64;
                    for (rx_ns, message) in messages.iter() {
                        let taken = line.frame(rx_ns, message, sequencer, |tick| {
                            black_box(tick);
                            ticks += 1;
                        });
                        taken.expect("a good message");
                    }
                    assert!(ticks > 0);
                    ticks
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
