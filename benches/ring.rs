//! Cost of publishing a tick and of reading one, compared with a bounded channel, a broadcast channel and a
//! disruptor.
//!
//! The channel and the disruptor wait for their reader, and thus publish as fast as it reads; the broadcast
//! channel and the ring do not, and lap it.
//!
//! The `base` row is the harness alone: creating the words, and the loop. Every row is per tick of [`WORDS`]
//! words. Rows with a busy reader need a core for it; on a machine with one core they measure the scheduler.
//! Their results also vary between runs: a reader right behind the writer takes the cache line from it each
//! time, one that lags or was lapped rarely does, so that one figure is not the cost. Rows that read use a
//! cache that the same thread has just filled.

use std::hint::{self, black_box};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::channel;
use disruptor::{
    BusySpin, EventPoller, Producer, SingleConsumerBarrier, SingleProducer, SingleProducerBarrier,
};
use tickfan::model::tick::WORDS;
use tickfan::ring::{Reader, Writer, ring};
use tokio::sync::broadcast;

const CAPACITY: usize = 4096;
const BATCH: usize = 64;

type Words = [u64; WORDS];

fn words_of(n: u64) -> Words {
    black_box([n; WORDS])
}

fn new_ring() -> (Writer<WORDS>, Reader<WORDS>) {
    let (writer, ring) = ring(CAPACITY, 1024).expect("a power of two");
    let reader = ring.reader();
    (writer, reader)
}

type Poller = EventPoller<Words, SingleProducerBarrier>;

fn new_disruptor() -> (SingleProducer<Words, SingleConsumerBarrier>, Poller) {
    let builder = disruptor::build_single_producer(CAPACITY, || [0; WORDS], BusySpin);
    let (poller, builder) = builder.new_event_poller();
    (builder.build(), poller)
}

/// Reads at most [`BATCH`] ticks, and returns their number.
fn poll(poller: &mut Poller) -> usize {
    let Ok(mut batch) = poller.take(BATCH as u64) else { return 0 };
    let mut taken = 0;
    for words in &mut batch {
        black_box(sum(words));
        taken += 1;
    }
    taken
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    group
}

/// Times `publish` while `read` runs repeatedly on another thread. It begins when that thread is known to
/// run, and lasts long enough that its start and end do not matter.
fn beside_a_reader(iters: u64, mut publish: impl FnMut(u64), mut read: impl FnMut() + Send) -> Duration {
    let (running, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                read();
                running.store(true, Ordering::Relaxed);
            }
        });
        while !running.load(Ordering::Relaxed) {
            hint::spin_loop();
        }
        let start = Instant::now();
        (0..iters).for_each(&mut publish);
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        took
    })
}

/// Fills with `publish`, untimed, and times `drain`, which reads everything.
fn after_filling(iters: u64, mut publish: impl FnMut(u64), mut drain: impl FnMut(usize)) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = iters as usize;
    while left > 0 {
        let count = left.min(CAPACITY);
        (0..count as u64).for_each(&mut publish);
        let start = Instant::now();
        drain(count);
        took += start.elapsed();
        left -= count;
    }
    took
}

fn sum(words: &Words) -> u64 {
    words.iter().fold(0, |sum, word| sum ^ word)
}

fn publish_alone(criterion: &mut Criterion) {
    let mut group = group(criterion, "publish, nobody reads");
    let mut n = 0;
    group.bench_function("base", |b| {
        b.iter(|| {
            n += 1;
            // By reference, as in the other rows: returning the words would add a copy.
            black_box(&words_of(n));
        });
    });
    let (mut writer, _) = new_ring();
    group.bench_function("ring", |b| {
        b.iter(|| {
            n += 1;
            writer.publish(&words_of(n));
        });
    });
    group.bench_function("ring with last value", |b| {
        b.iter(|| {
            n += 1;
            writer.publish_value(n as usize % 1024, &words_of(n)).expect("a key below 1024");
        });
    });
    let (sender, receiver) = channel::bounded(CAPACITY);
    group.bench_function("crossbeam channel, sent and received", |b| {
        b.iter(|| {
            n += 1;
            sender.try_send(words_of(n)).expect("room for one");
            receiver.try_recv()
        });
    });
    let (mut producer, mut poller) = new_disruptor();
    group.bench_function("disruptor, published and polled", |b| {
        b.iter(|| {
            n += 1;
            producer.publish(|words| *words = words_of(n));
            poll(&mut poller)
        });
    });
    // It refuses to send without a subscriber.
    let (sender, _idle) = broadcast::channel(CAPACITY);
    group.bench_function("tokio broadcast, an idle receiver", |b| {
        b.iter(|| {
            n += 1;
            sender.send(words_of(n)).expect("a receiver is there")
        });
    });
    group.finish();
}

fn publish_beside_a_reader(criterion: &mut Criterion) {
    let mut group = group(criterion, "publish, one busy reader");
    group.bench_function("base", |b| {
        let publish = |n| {
            black_box(&words_of(n));
        };
        b.iter_custom(|iters| beside_a_reader(iters, publish, || {}));
    });
    let (mut writer, mut reader) = new_ring();
    group.bench_function("ring", |b| {
        b.iter_custom(|iters| {
            let read = || {
                let batch = reader.poll(BATCH, |words| {
                    black_box(sum(words));
                });
                black_box(batch.lapped);
            };
            beside_a_reader(iters, |n| writer.publish(&words_of(n)), read)
        });
    });
    let (sender, receiver) = channel::bounded(CAPACITY);
    group.bench_function("crossbeam channel, which waits when full", |b| {
        b.iter_custom(|iters| {
            let read = || {
                black_box(receiver.try_recv().map(|words| sum(&words)).ok());
            };
            beside_a_reader(iters, |n| sender.send(words_of(n)).expect("it is received"), read)
        });
    });
    let (mut producer, mut poller) = new_disruptor();
    group.bench_function("disruptor, which waits when full", |b| {
        b.iter_custom(|iters| {
            let read = || {
                black_box(poll(&mut poller));
            };
            beside_a_reader(iters, |n| producer.publish(|words| *words = words_of(n)), read)
        });
    });
    let (sender, mut receiver) = broadcast::channel(CAPACITY);
    group.bench_function("tokio broadcast", |b| {
        b.iter_custom(|iters| {
            let read = || {
                black_box(receiver.try_recv().map(|words: Words| sum(&words)).ok());
            };
            let publish = |n| {
                sender.send(words_of(n)).expect("a receiver is there");
            };
            beside_a_reader(iters, publish, read)
        });
    });
    group.finish();
}

fn read_in_batches(criterion: &mut Criterion) {
    let mut group = group(criterion, "read");
    let words: Vec<Words> = (0..CAPACITY as u64).map(words_of).collect();
    group.bench_function("base", |b| {
        b.iter_custom(|iters| {
            let drain = |count| {
                words[..count].iter().for_each(|words| {
                    black_box(sum(words));
                });
            };
            after_filling(iters, |_| {}, drain)
        });
    });
    let (mut writer, mut reader) = new_ring();
    group.bench_function("ring, batches of 64", |b| {
        b.iter_custom(|iters| {
            let drain = |mut count| {
                while count > 0 {
                    let batch = reader.poll(BATCH, |words| {
                        black_box(sum(words));
                    });
                    assert!(batch.taken > 0 && batch.lapped == 0);
                    count -= batch.taken;
                }
            };
            after_filling(iters, |n| writer.publish(&words_of(n)), drain)
        });
    });
    let (sender, receiver) = channel::bounded(CAPACITY);
    group.bench_function("crossbeam channel", |b| {
        b.iter_custom(|iters| {
            let drain = |count| {
                (0..count).for_each(|_| {
                    black_box(sum(&receiver.try_recv().expect("filled")));
                });
            };
            after_filling(iters, |n| sender.try_send(words_of(n)).expect("room"), drain)
        });
    });
    let (mut producer, mut poller) = new_disruptor();
    group.bench_function("disruptor, batches of 64", |b| {
        b.iter_custom(|iters| {
            let drain = |mut count: usize| {
                while count > 0 {
                    count -= poll(&mut poller);
                }
            };
            after_filling(iters, |n| producer.publish(|words| *words = words_of(n)), drain)
        });
    });
    let (sender, mut receiver) = broadcast::channel(CAPACITY);
    group.bench_function("tokio broadcast", |b| {
        b.iter_custom(|iters| {
            let drain = |count| {
                (0..count).for_each(|_| {
                    black_box(sum(&receiver.try_recv().expect("filled")));
                });
            };
            let publish = |n| {
                sender.send(words_of(n)).expect("a receiver is there");
            };
            after_filling(iters, publish, drain)
        });
    });
    group.finish();
}

criterion_group!(benches, publish_alone, publish_beside_a_reader, read_in_batches);
criterion_main!(benches);
