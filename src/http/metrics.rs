//! The metrics, as OpenMetrics text.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::runtimes::RuntimeRow;
use super::{HttpStats, RoomError, Runtimes};
use crate::feed::{Flow, IngestView, LineRecord, LineReport, publish};
use crate::history::Access;
use crate::latency::Tag;
use crate::model::tick::GapCause;
use crate::ops::collector::{BOUNDS_NS, Label, Measured};
use crate::ring::Doorbell;
use crate::system::counters::{Counter, Ending, GapCounters, ShardCounters, TAKEN_BACK, TurnTimes};
use crate::system::memory::{Memory, MemoryDemand, heap_bytes};
use crate::system::pulse::Pulse;
use crate::time::clock::Steps;

/// The sources of the metrics.
pub struct Sources {
    /// The ingest thread.
    pub ingest: Arc<IngestView>,
    /// The shards, with their doorbells.
    pub shards: Vec<(Arc<ShardCounters>, Arc<Doorbell>)>,
    /// The listeners, by name.
    pub listeners: Vec<(&'static str, Arc<HttpStats>)>,
    /// The publishers, if publishing is enabled.
    pub publish: Option<Arc<publish::PublishStats>>,
    /// The recordings, one per feed line.
    pub records: Arc<[Arc<LineRecord>]>,
    /// The history, if one is kept.
    pub history: Option<Access>,
    /// The latency measurements, unless they are disabled.
    pub latency: Option<Arc<Measured>>,
    /// The runtimes.
    pub runtimes: Runtimes,
    /// The watched threads.
    pub pulses: Arc<[Arc<Pulse>]>,
    /// Steps of the machine's clocks.
    pub steps: Arc<Steps>,
    /// Most client connections.
    pub connections_max: u64,
    /// Most open files of the process; `None` if there is no limit or it is unknown.
    pub files_max: Option<u64>,
    /// Number of listed instruments.
    pub instruments: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Limit and use of memory.
    pub memory: Arc<Memory>,
    /// The rooms; `None` if they are disabled.
    pub rooms: Box<dyn Fn() -> Option<RoomFigures> + Send + Sync>,
}

/// Metrics of the rooms.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoomFigures {
    /// Current rooms, including those that are opening or ending.
    pub open: u64,
    /// Current clients in rooms.
    pub clients: u64,
    /// Rooms opened so far.
    pub opened: u64,
    /// Refused clients, by [`RoomError::REASONS`].
    pub refused: [u64; RoomError::REASONS.len()],
    /// Ended client connections in rooms, closed rooms included, by [`Ending::ALL`].
    pub clients_ended: [u64; Ending::ALL.len()],
    /// Losses of rooms, closed rooms included, by [`LOSSES`](Self::LOSSES).
    pub lost: [u64; Self::LOSSES.len()],
}

impl RoomFigures {
    /// Kinds of losses: ticks by which the shard was lapped; ticks merged, dropped for slowness and lost by the feed,
    /// as reported to clients; ticks of instruments over the limit; lines that could not be parsed.
    pub const LOSSES: [&'static str; 6] = ["lapped", "merged", "dropped", "lost", "unplaced", "bad_lines"];
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// All metrics, as OpenMetrics text. Labels are shards, runtimes, feed lines, kinds of messages, listeners,
/// reasons, stages, venues and channels; never symbols, clients or rooms, whose number is unbounded.
pub fn render(sources: Arc<Sources>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

type Row<'a> = (Vec<(&'a str, String)>, u64);

/// Splits the unit from a name that ends in one; the encoder appends it again.
fn unit_of(name: &str) -> (&str, Option<Unit>) {
    let unit = |suffix, unit| name.strip_suffix(suffix).map(|name| (name, Some(unit)));
    unit("_bytes", Unit::Bytes).or_else(|| unit("_seconds", Unit::Seconds)).unwrap_or((name, None))
}

/// Writes one metric with all its rows, and its unit if its name ends in one.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    rows: Vec<Row<'_>>,
) -> fmt::Result {
    let (name, unit) = unit_of(name);
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (labels, value) in rows {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        if labels.is_empty() {
            // A metric without labels has exactly one row.
            return one(kind, value, metric);
        }
        let labels = labels.as_slice();
        one(kind, value, metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn one(kind: MetricType, value: u64, row: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(row),
        _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(row),
    }
}

/// Writes a histogram of times, in seconds, from the number of values between successive bounds, and their
/// sum.
fn histogram(bounds_ns: &[u64], counts: &[u64], sum_ns: u64, mut row: MetricEncoder<'_>) -> fmt::Result {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let bounds = bounds_ns.iter().copied().map(seconds).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
    row.encode_histogram::<NoLabelSet>(seconds(sum_ns), counts.iter().sum(), &buckets, None)
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_memory(&mut encoder)?;
        self.encode_ingest(&mut encoder)?;
        self.encode_lines(&mut encoder)?;
        self.encode_shards(&mut encoder)?;
        self.encode_turns(&mut encoder)?;
        self.encode_listeners(&mut encoder)?;
        self.encode_records(&mut encoder)?;
        self.encode_history(&mut encoder)?;
        self.encode_publish(&mut encoder)?;
        self.encode_rooms(&mut encoder)?;
        self.encode_runtimes(&mut encoder)?;
        self.encode_clocks(&mut encoder)?;
        self.encode_latency(&mut encoder)
    }
}

/// A metric of each shard: name, help, kind, counter.
type ShardFigure = (&'static str, &'static str, MetricType, fn(&ShardCounters) -> &Counter);

const SHARD_FIGURES: [ShardFigure; 27] = [
    ("tickfan_sessions", "Clients connected", MetricType::Gauge, |c| &c.sessions),
    ("tickfan_sessions_subscribed", "Clients with a subscription", MetricType::Gauge, |c| &c.subscribed),
    ("tickfan_sessions_warned", "Clients at level warn", MetricType::Gauge, |c| &c.warned),
    ("tickfan_sessions_shedding", "Clients whose ticks are merged or dropped", MetricType::Gauge, |c| {
        &c.shedding
    }),
    ("tickfan_sessions_nearly_cut", "Clients that are about to be cut", MetricType::Gauge, |c| &c.nearly_cut),
    ("tickfan_sessions_opened", "Clients that have connected", MetricType::Counter, |c| &c.came),
    ("tickfan_sessions_slowed", "Clients whose level was ever above ok", MetricType::Counter, |c| &c.slowed),
    ("tickfan_sheds", "Times that a client began to shed", MetricType::Counter, |c| &c.sheds),
    ("tickfan_subscriptions", "Subscriptions, states included", MetricType::Gauge, |c| &c.subscriptions),
    ("tickfan_ring_behind", "Ticks that wait in the ring", MetricType::Gauge, |c| &c.behind),
    ("tickfan_shard_turns", "Turns of the shard", MetricType::Counter, |c| &c.turns),
    ("tickfan_shard_steps", "Steps that requests of clients took", MetricType::Counter, |c| &c.steps),
    ("tickfan_shard_ticks", "Ticks taken from the ring", MetricType::Counter, |c| &c.ticks),
    ("tickfan_shard_lapped", "Ticks lost because the ring lapped the shard", MetricType::Counter, |c| {
        &c.lapped
    }),
    (
        "tickfan_shard_reread",
        "Ring positions re-read for clients that resume or catch up",
        MetricType::Counter,
        |c| &c.reread,
    ),
    ("tickfan_encoded", "Ticks with at least one subscriber", MetricType::Counter, |c| &c.encoded),
    ("tickfan_sent", "Ticks queued for clients", MetricType::Counter, |c| &c.sent),
    ("tickfan_merged", "Ticks merged into a newer one", MetricType::Counter, |c| &c.merged),
    ("tickfan_dropped", "Ticks dropped for slowness and named by a gap", MetricType::Counter, |c| &c.dropped),
    ("tickfan_lost", "Numbers that a gap named for the feed's sake", MetricType::Counter, |c| &c.lost),
    ("tickfan_writes", "Writes to sockets", MetricType::Counter, |c| &c.writes),
    ("tickfan_written_bytes", "Bytes written to sockets", MetricType::Counter, |c| &c.bytes),
    ("tickfan_outbox_bytes", "Memory that outboxes hold", MetricType::Gauge, |c| &c.outbox_bytes),
    ("tickfan_unacked_bytes", "Bytes in the kernel for clients that may be slow", MetricType::Gauge, |c| {
        &c.unacked_bytes
    }),
    ("tickfan_memory_sheds", "Queues taken back because memory was short", MetricType::Counter, |c| {
        &c.memory_sheds
    }),
    ("tickfan_requests", "Requests of clients", MetricType::Counter, |c| &c.requests),
    ("tickfan_request_faults", "Requests answered by an error", MetricType::Counter, |c| &c.faults),
];

impl Sources {
    fn encode_memory(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = heap_bytes() {
            let (name, help) = ("tickfan_heap_bytes", "Bytes allocated on the heap");
            family(encoder, name, help, MetricType::Gauge, vec![(Vec::new(), bytes)])?;
        }
        let memory = &self.memory;
        let Some(bound_bytes) = memory.bound_bytes() else { return Ok(()) };
        for (name, help, value) in [
            ("tickfan_memory_bound_bytes", "Limit of the memory in use", bound_bytes),
            ("tickfan_memory_used_bytes", "Memory that is in use, sockets counted", memory.used_bytes()),
            ("tickfan_memory_level", "0: ample, 1: short, 2: critical, 3: full", memory.level() as u64),
        ] {
            family(encoder, name, help, MetricType::Gauge, vec![(Vec::new(), value)])?;
        }
        let row = |asked: MemoryDemand| (vec![("what", asked.name().to_owned())], memory.refused(asked));
        let (name, help) = ("tickfan_memory_refused", "Requests refused because memory was short");
        family(encoder, name, help, MetricType::Counter, MemoryDemand::ALL.into_iter().map(row).collect())?;
        let (name, help) =
            ("tickfan_memory_checkpoints_dropped", "Places of replays thrown away because memory was short");
        let dropped = memory.checkpoints_dropped.get();
        family(encoder, name, help, MetricType::Counter, vec![(Vec::new(), dropped)])
    }

    fn encode_ingest(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ingest = &self.ingest;
        let flowing = ingest.flows().filter(|flow| *flow == Flow::Flowing).count() as u64;
        let gauges = [
            ("tickfan_instruments", "Instruments listed", (self.instruments)()),
            ("tickfan_feeds_flowing", "Replays that bring ticks", flowing),
            ("tickfan_connections_max", "Most clients at the same time", self.connections_max),
        ];
        if let Some(files_max) = self.files_max {
            let help = "Most open files of the process, including connections";
            family(
                encoder,
                "tickfan_open_files_max",
                help,
                MetricType::Gauge,
                vec![(Vec::new(), files_max)],
            )?;
        }
        for (name, help, value) in gauges {
            family(encoder, name, help, MetricType::Gauge, vec![(Vec::new(), value)])?;
        }
        let held = vec![(Vec::new(), ingest.publishers_held.get())];
        let help = "Publishers whose lines wait until their new instruments are subscribed to";
        family(encoder, "tickfan_publishers_held", help, MetricType::Gauge, held)?;
        let counters = [
            ("tickfan_ingest_turns", "Turns of the ingest thread", &ingest.turns),
            ("tickfan_published", "Ticks published to the ring", &ingest.published),
            ("tickfan_unplaced", "Ticks of instruments over the limit", &ingest.unplaced),
            (
                "tickfan_notices_lost",
                "Notices dropped because the queue of the log was full",
                &ingest.notices_lost,
            ),
        ];
        for (name, help, counter) in counters {
            family(encoder, name, help, MetricType::Counter, vec![(Vec::new(), counter.get())])?;
        }
        Ok(())
    }

    fn encode_clocks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let late = |pulse: &Arc<Pulse>| {
            (vec![("thread", pulse.name().to_owned())], pulse.late_ms().unwrap_or(0) / 1_000)
        };
        let rows = self.pulses.iter().map(late).collect();
        let help = "Whole seconds for which a thread has not moved";
        family(encoder, "tickfan_thread_late_seconds", help, MetricType::Gauge, rows)?;
        let (forward, back) = self.steps.both();
        let rows = [("forward", forward), ("back", back)];
        let rows = rows.map(|(way, count)| (vec![("direction", way.to_owned())], count)).to_vec();
        let help = "Times that the wall clock was set, or the machine slept";
        family(encoder, "tickfan_clock_steps", help, MetricType::Counter, rows)?;
        let (stood, stood_ms) = self.steps.stood();
        let counters = [
            ("tickfan_process_stood", "Times that the process did not run for a second or more", stood),
            ("tickfan_process_stood_seconds", "Whole seconds that these times took", stood_ms / 1_000),
        ];
        for (name, help, value) in counters {
            family(encoder, name, help, MetricType::Counter, vec![(Vec::new(), value)])?;
        }
        Ok(())
    }

    fn encode_lines(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let lines = self.ingest.lines.lock().map(|lines| lines.clone()).unwrap_or_default();
        type Figure = (&'static str, &'static str, fn(&LineReport) -> u64);
        let figures: [Figure; 11] = [
            ("tickfan_feed_frames", "Frames received", |l| l.stats.frames),
            ("tickfan_feed_bad_frames", "Frames that could not be read", |l| l.stats.bad_frames),
            ("tickfan_feed_bad_lines", "Records that could not be read, frames included", |l| l.bad_lines),
            ("tickfan_feed_trades", "Trades made of frames", |l| l.stats.trades),
            ("tickfan_feed_quotes", "Quotes made of frames", |l| l.stats.quotes),
            ("tickfan_feed_repeated", "Ticks that another source had sent", |l| l.stats.repeated),
            ("tickfan_feed_gaps", "Gaps told", |l| l.stats.gaps),
            ("tickfan_feed_sequence_breaks", "Breaks of the venue's sequence", |l| l.stats.sequence_breaks),
            ("tickfan_feed_checksums_good", "Book checksums that were right", |l| l.stats.checksums_good),
            ("tickfan_feed_checksums_bad", "Book checksums that were wrong", |l| l.stats.checksums_bad),
            ("tickfan_feed_crossed", "Quotes discarded because they were crossed", |l| l.stats.crossed),
        ];
        let labels = |line: &LineReport| vec![("line", line.name.clone()), ("venue", line.wire.to_string())];
        for (name, help, figure) in figures {
            let rows = lines.iter().map(|line| (labels(line), figure(line))).collect();
            family(encoder, name, help, MetricType::Counter, rows)?;
        }
        let mut kinds = Vec::new();
        let mut refused = Vec::new();
        for line in &lines {
            for (what, count) in line.stats.refused.rows() {
                let mut labels = labels(line);
                labels.push(("what", what.to_owned()));
                refused.push((labels, count));
            }
            for kind in line.stats.kinds.iter() {
                let mut labels = labels(line);
                labels.push(("kind", kind.name.to_string()));
                labels.push(("known", kind.known.to_string()));
                kinds.push((labels, kind.frames));
            }
        }
        let help = "Items discarded because they are invalid or exceed a limit";
        family(encoder, "tickfan_feed_refused", help, MetricType::Counter, refused)?;
        family(encoder, "tickfan_feed_kinds", "Frames by the venue's word", MetricType::Counter, kinds)
    }

    fn encode_shards(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use MetricType::Counter as Sum;
        let label = |number: usize| vec![("shard", number.to_string())];
        for (name, help, kind, figure) in SHARD_FIGURES {
            let rows = self.shards.iter().enumerate();
            let rows = rows.map(|(n, (counters, _))| (label(n), figure(counters).get())).collect();
            family(encoder, name, help, kind, rows)?;
        }
        let ended = self.shards.iter().enumerate().flat_map(|(n, (counters, _))| {
            let row = move |ending: Ending| {
                let labels = vec![("shard", n.to_string()), ("cause", ending.name().to_owned())];
                (labels, counters.ended[ending.index()].get())
            };
            Ending::ALL.into_iter().map(row)
        });
        family(encoder, "tickfan_sessions_ended", "Client connections ended", Sum, ended.collect())?;
        self.encode_gaps(encoder)?;
        let taken_back = self.shards.iter().enumerate().flat_map(|(n, (counters, _))| {
            TAKEN_BACK.into_iter().zip(&counters.taken_back).map(move |(what, numbers)| {
                (vec![("shard", n.to_string()), ("what", what.to_owned())], numbers.get())
            })
        });
        let help = "Ticks of queues taken back, by what they had been counted as";
        family(encoder, "tickfan_taken_back", help, Sum, taken_back.collect())?;
        let wakes = self.shards.iter().enumerate().map(|(n, (_, bell))| (label(n), bell.wakes())).collect();
        family(encoder, "tickfan_wakes", "Times a sleeping shard was woken", Sum, wakes)
    }

    /// Durations of the turns of the threads on the tick path.
    fn encode_turns(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("tickfan_turn", "Durations of the turns of the threads on the tick path");
        let mut metric =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let shards = self.shards.iter().enumerate();
        let shards = shards.map(|(n, (counters, _))| (format!("shard-{n}"), &counters.turn_times));
        for (thread, turns) in std::iter::once(("ingest".to_owned(), &self.ingest.turn_times)).chain(shards) {
            let labels = [("thread", thread.as_str())];
            histogram(
                &TurnTimes::BOUNDS_NS,
                &turns.counts(),
                turns.sum_ns(),
                metric.encode_family(&labels)?,
            )?;
        }
        Ok(())
    }

    fn encode_gaps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Figure = (&'static str, &'static str, fn(&GapCounters) -> &Counter);
        let figures: [Figure; 2] = [
            ("tickfan_gaps", "Gaps sent to clients", |gaps| &gaps.told),
            ("tickfan_gap_ticks", "Numbers that these gaps named", |gaps| &gaps.ticks),
        ];
        for (name, help, figure) in figures {
            let rows = self.shards.iter().enumerate().flat_map(|(n, (counters, _))| {
                GapCause::ALL.into_iter().zip(&counters.gaps).map(move |(cause, gaps)| {
                    let labels = vec![("shard", n.to_string()), ("cause", cause.name().to_owned())];
                    (labels, figure(gaps).get())
                })
            });
            family(encoder, name, help, MetricType::Counter, rows.collect())?;
        }
        Ok(())
    }

    fn encode_records(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Figure = (&'static str, &'static str, MetricType, fn(&LineRecord) -> u64);
        use MetricType::{Counter as Sum, Gauge};
        let figures: [Figure; 7] = [
            ("tickfan_record_frames", "Frames written to recordings", Sum, |r| r.frames.get()),
            ("tickfan_record_bytes", "Bytes written to recordings, as packed", Sum, |r| r.bytes.get()),
            ("tickfan_record_segments", "Segments of recordings", Sum, |r| r.segments.get()),
            ("tickfan_record_altered", "Frames recorded with spaces for line breaks", Sum, |r| {
                r.altered.get()
            }),
            ("tickfan_record_dropped", "Frames that were not recorded", Sum, |r| r.dropped_frames.get()),
            ("tickfan_record_dropped_bytes", "Bytes that were not recorded", Sum, |r| r.dropped_bytes.get()),
            (
                "tickfan_record_failed",
                "Recordings that ended because they could not be written",
                Gauge,
                |r| u64::from(r.failure().is_some()),
            ),
        ];
        if self.records.is_empty() {
            return Ok(());
        }
        for (name, help, kind, figure) in figures {
            let rows = self.records.iter().map(|record| {
                (vec![("line", record.name.clone()), ("venue", record.wire.to_string())], figure(record))
            });
            family(encoder, name, help, kind, rows.collect())?;
        }
        Ok(())
    }

    fn encode_history(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(history) = &self.history else { return Ok(()) };
        use MetricType::{Counter as Sum, Gauge};
        let (stats, failed) = (history.stats(), u64::from(history.failure().is_some()));
        let figures = [
            ("tickfan_history_taken", "Ticks that the history took from the ring", Sum, stats.taken.get()),
            ("tickfan_history_missed", "Ticks missing in the history", Sum, stats.missed.get()),
            ("tickfan_history_ticks", "Ticks in the history", Gauge, stats.held.get()),
            ("tickfan_history_bytes", "Bytes of the history, including its index", Gauge, stats.bytes.get()),
            (
                "tickfan_history_reads",
                "Blocks of ticks read for clients that catch up",
                Sum,
                stats.read.get(),
            ),
            ("tickfan_history_failed", "It ended because it could not be written", Gauge, failed),
        ];
        for (name, help, kind, value) in figures {
            family(encoder, name, help, kind, vec![(Vec::new(), value)])?;
        }
        Ok(())
    }

    fn encode_publish(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(stats) = &self.publish else { return Ok(()) };
        use MetricType::{Counter as Sum, Gauge};
        let figures = [
            ("tickfan_publishers", "Publishers connected", Gauge, &stats.open),
            ("tickfan_publish_waiting", "Connections that have not sent the token", Gauge, &stats.waiting),
            ("tickfan_publish_opened", "Publishers that have sent the token", Sum, &stats.opened),
            ("tickfan_publish_auth_refused", "Connections without the token", Sum, &stats.auth_refused),
            ("tickfan_publish_wrong_tokens", "Wrong tokens that were shown", Sum, &stats.wrong_tokens),
            (
                "tickfan_publish_tokens_unread",
                "Tokens not compared, because their address had sent too many wrong ones",
                Sum,
                &stats.tokens_unread,
            ),
            (
                "tickfan_publish_evicted",
                "Connections without the token that were replaced by another",
                Sum,
                &stats.evicted,
            ),
            ("tickfan_publish_limit_refused", "Publishers refused when full", Sum, &stats.limit_refused),
            ("tickfan_publish_accept_errors", "Accepts that failed", Sum, &stats.accept_errors),
            ("tickfan_publish_resets", "Publisher connections that broke", Sum, &stats.resets),
            ("tickfan_publish_lines", "Lines received", Sum, &stats.lines),
            ("tickfan_publish_bytes", "Bytes of lines received", Sum, &stats.bytes),
            ("tickfan_publish_faults", "Faulty lines", Sum, &stats.faults),
            ("tickfan_publish_faults_untold", "Faulty lines not logged", Sum, &stats.faults_untold),
        ];
        for (name, help, kind, figure) in figures {
            family(encoder, name, help, kind, vec![(Vec::new(), figure.load(Ordering::Relaxed))])?;
        }
        Ok(())
    }

    fn encode_rooms(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(rooms) = (self.rooms)() else { return Ok(()) };
        use MetricType::{Counter as Sum, Gauge};
        for (name, help, kind, value) in [
            ("tickfan_rooms", "Rooms of replays", Gauge, rooms.open),
            ("tickfan_room_clients", "Clients in rooms of replays", Gauge, rooms.clients),
            ("tickfan_rooms_opened", "Rooms of replays that were opened", Sum, rooms.opened),
        ] {
            family(encoder, name, help, kind, vec![(Vec::new(), value)])?;
        }
        let losses = RoomFigures::LOSSES.into_iter().zip(rooms.lost);
        let rows = losses.map(|(what, lost)| (vec![("what", what.to_owned())], lost)).collect();
        family(encoder, "tickfan_rooms_lost", "Losses in rooms of replays, ended ones included", Sum, rows)?;
        let ended = Ending::ALL.into_iter().zip(rooms.clients_ended);
        let rows = ended.map(|(ending, count)| (vec![("cause", ending.name().to_owned())], count)).collect();
        let help = "Client connections in rooms of replays that have ended";
        family(encoder, "tickfan_room_clients_ended", help, Sum, rows)?;
        let reasons = RoomError::REASONS.into_iter().zip(rooms.refused);
        let rows = reasons.map(|(reason, refused)| (vec![("reason", reason.to_owned())], refused)).collect();
        family(encoder, "tickfan_rooms_refused", "Clients refused by rooms of replays", Sum, rows)
    }

    fn encode_runtimes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.runtimes.rows();
        let label = |row: &RuntimeRow| vec![("runtime", row.name.clone())];
        let (name, help) = ("tickfan_runtime_busy", "Time that the runtime did not wait for events");
        let mut busy = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for row in &rows {
            let seconds = ConstCounter::new(row.busy.as_secs_f64());
            seconds.encode(busy.encode_family(&[("runtime", row.name.as_str())])?)?;
        }
        type Figure = (&'static str, &'static str, MetricType, fn(&RuntimeRow) -> u64);
        let figures: [Figure; 3] = [
            ("tickfan_runtime_parks", "Times that it waited for events", MetricType::Counter, |r| r.parks),
            ("tickfan_runtime_tasks", "Tasks", MetricType::Gauge, |r| r.tasks),
            ("tickfan_runtime_queued", "Tasks woken from outside that wait", MetricType::Gauge, |r| r.queued),
        ];
        for (name, help, kind, figure) in figures {
            let rows = rows.iter().map(|row| (label(row), figure(row))).collect();
            family(encoder, name, help, kind, rows)?;
        }
        Ok(())
    }

    fn encode_latency(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(measured) = &self.latency else { return Ok(()) };
        let (name, help) = ("tickfan_latency", "What the stages of a tick's way took");
        let mut metric =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (Label { stage, venue, channel }, total) in measured.totals() {
            let venue = venue.as_deref().unwrap_or(Tag::ANY);
            let labels = [("stage", stage.name()), ("venue", venue), ("channel", channel.name())];
            histogram(&BOUNDS_NS, &total.buckets, total.sum_ns, metric.encode_family(&labels)?)?;
        }
        let (negative, clamped) = measured.odd();
        let mut counts = vec![
            (
                "tickfan_latency_negative",
                "Values below zero, in no histogram: a clock was set back",
                negative,
            ),
            ("tickfan_latency_clamped", "Values over a minute, which count as a minute", clamped),
        ];
        if let Some(log) = measured.log() {
            let help = "Intervals that the latency log lacks because it could not be written";
            counts.push(("tickfan_latency_log_missing", help, log.missing));
            let (name, help) = ("tickfan_latency_log_failing", "1 while the latency log cannot be written");
            family(encoder, name, help, MetricType::Gauge, vec![(Vec::new(), log.failing.into())])?;
        }
        if let Some(stats) = measured.flights() {
            let (name, help) = ("tickfan_flights_failing", "1 while flights cannot be written");
            family(encoder, name, help, MetricType::Gauge, vec![(Vec::new(), stats.is_failing().into())])?;
            let help = "Incidents without a flight, because there had just been one";
            counts.push(("tickfan_flights_dropped", help, stats.dropped.get()));
            let help = "Flights that could not be written, and whether they could be at the start";
            counts.push(("tickfan_flights_failed", help, stats.failed.get()));
            counts.push(("tickfan_flights_written", "Flights written", stats.written.get()));
        }
        for (name, help, value) in counts {
            family(encoder, name, help, MetricType::Counter, vec![(Vec::new(), value)])?;
        }
        Ok(())
    }

    fn encode_listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Figure = (&'static str, &'static str, fn(&HttpStats) -> &AtomicU64);
        let figures: [Figure; 9] = [
            ("tickfan_http_accepted", "Connections accepted", |s| &s.accepted),
            ("tickfan_http_accept_errors", "Accepts that failed", |s| &s.accept_errors),
            ("tickfan_http_refused_full", "Connections refused for lack of room", |s| &s.refused_full),
            ("tickfan_http_refused_address", "Connections refused for their address", |s| &s.refused_address),
            ("tickfan_http_requests", "Requests that reached a route", |s| &s.requests),
            ("tickfan_http_bad_heads", "Heads that were malformed", |s| &s.bad_heads),
            ("tickfan_http_timeouts", "Heads that took too long", |s| &s.timeouts),
            ("tickfan_http_upgraded", "Handshakes done", |s| &s.upgraded),
            ("tickfan_http_handover_refused", "Handshakes that found no place", |s| &s.handover_refused),
        ];
        for (name, help, figure) in figures {
            let rows = self.listeners.iter().map(|(listener, stats)| {
                (vec![("door", (*listener).to_owned())], figure(stats).load(Ordering::Relaxed))
            });
            family(encoder, name, help, MetricType::Counter, rows.collect())?;
        }
        Ok(())
    }
}
