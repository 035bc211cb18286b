//! Keeps memory within its bound: measures it ten times a second, and orders shards and replays to give it back where it
//! is short.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::engine::{EngineBase, Shards};
use super::rooms::Rooms;
use crate::config::Config;
use crate::feed::SeekMemory;
use crate::shard::{Relief, ShardHandle};
use crate::system::memory::{Gauge, Level, Memory, Origin};

/// How often memory is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
/// Measurements between two orders to give memory back: what was freed is measured only when the allocator has returned
/// it to the kernel.
const ORDER_EVERY: u32 = 3;
/// The least that is asked for, bytes.
const ORDER_BYTES_MIN: u64 = 1 << 20;

/// Finds the bound, and logs it.
///
/// # Errors
/// What of the configuration does not fit, naming its keys.
pub(super) fn bound(config: &Config, notices: &mpsc::Sender<String>) -> anyhow::Result<(Gauge, Arc<Memory>)> {
    let mut gauge = Gauge::find();
    let bound = gauge.bound(config.limits.memory_bytes_max);
    let memory = Arc::new(Memory::new(bound.bytes));
    let of = bound.of_bytes;
    let said = match bound.origin {
        Origin::Configured => format!("memory: at most {} bytes: limits.memory_bytes_max", bound.bytes),
        Origin::Cgroup => format!("memory: at most {} bytes: of the cgroup's {of}", bound.bytes),
        Origin::Machine => format!("memory: at most {} bytes: of the machine's {of}", bound.bytes),
        Origin::Unknown => "memory: no bound: nothing tells how much there is".to_owned(),
    };
    // There is room: few were sent yet.
    let _ = notices.try_send(said);
    if let Some(limit) =
        gauge.limit_bytes().filter(|limit| bound.origin == Origin::Configured && *limit < bound.bytes)
    {
        let said = format!("limits.memory_bytes_max is more than there is: {limit} bytes");
        let _ = notices.try_send(said);
    }
    if let Some(bytes) = memory.ample_bytes() {
        config.check_memory(bytes, super::cores())?;
    }
    Ok((gauge, memory))
}

/// The watch over memory. Its thread ends with the gateway.
pub(super) struct MemoryWatch {
    gauge: Gauge,
    memory: Arc<Memory>,
    shards: Arc<[ShardHandle]>,
    seek_memory: Vec<SeekMemory>,
    rooms: Option<Arc<Rooms>>,
    notices: mpsc::Sender<String>,
}

/// All that may have to give memory back: the gateway's own, and the rooms'.
struct Owners {
    shards: Vec<ShardHandle>,
    seek_memory: Vec<SeekMemory>,
}

impl MemoryWatch {
    /// A watch over what these take.
    pub(super) fn new(
        gauge: Gauge,
        memory: &Arc<Memory>,
        base: &EngineBase,
        shards: &Shards,
        rooms: Option<&Arc<Rooms>>,
        notices: &mpsc::Sender<String>,
    ) -> Self {
        Self {
            gauge,
            memory: Arc::clone(memory),
            shards: Arc::clone(&shards.handles),
            seek_memory: base.seek_memory(),
            rooms: rooms.cloned(),
            notices: notices.clone(),
        }
    }

    /// Starts the watch on a thread of its own, until the gateway stops: on the control thread a measurement would wait for
    /// all handshakes before it. Where there is no bound there is nothing to watch.
    ///
    /// # Errors
    /// The operating system's error when it gives no thread.
    pub(super) fn start(self, stopped: watch::Receiver<bool>) -> std::io::Result<()> {
        if self.memory.bound_bytes().is_none() {
            return Ok(());
        }
        std::thread::Builder::new().name("memory".to_owned()).spawn(move || self.run(&stopped)).map(drop)
    }

    fn run(&self, stopped: &watch::Receiver<bool>) {
        let (mut level, mut measurements) = (Level::Ample, 0_u32);
        // An error means that the gateway itself is gone.
        while !*stopped.borrow() && stopped.has_changed().is_ok() {
            std::thread::park_timeout(MEASURE_EVERY);
            let owners = self.owners();
            let unacked: u64 = owners.shards.iter().map(|shard| shard.counters.unacked_bytes.get()).sum();
            // The kernel keeps more than the bytes themselves.
            let kernel_bytes = unacked + unacked / 4;
            self.memory.measured(self.gauge.read().bytes(kernel_bytes));
            let before = std::mem::replace(&mut level, self.memory.level());
            if level != before {
                self.tell(level);
            }
            if level > Level::Ample || before > Level::Ample {
                self.give_up_checkpoints(&owners, level > Level::Ample);
            }
            measurements = measurements.wrapping_add(1);
            if level > Level::Ample && measurements.is_multiple_of(ORDER_EVERY) {
                self.relieve(&owners);
            }
        }
    }

    fn tell(&self, level: Level) {
        let (used, bound) = (self.memory.used_bytes(), self.memory.bound_bytes().unwrap_or(0));
        let said = match level {
            Level::Ample => format!("memory is ample again: {used} of {bound} bytes are in use"),
            _ => format!("memory is short ({}): {used} of {bound} bytes are in use", level.name()),
        };
        // A slowly read log loses notices.
        let _ = self.notices.try_send(said);
    }

    fn owners(&self) -> Owners {
        let mut owners = Owners { shards: self.shards.to_vec(), seek_memory: self.seek_memory.clone() };
        for room in self.rooms.iter().flat_map(|rooms| rooms.all()) {
            owners.shards.extend(room.shards().iter().cloned());
            owners.seek_memory.extend(room.seek_memory().iter().cloned());
        }
        owners
    }

    fn give_up_checkpoints(&self, owners: &Owners, short: bool) {
        let dropped: usize = owners.seek_memory.iter().map(|memory| memory.give_up(short)).sum();
        self.memory.checkpoints_dropped.add(dropped as u64);
    }

    /// Orders the shards to give back the excess, each its part of it.
    fn relieve(&self, owners: &Owners) {
        let held = |shard: &ShardHandle| {
            shard.counters.outbox_bytes.get()
                + shard.counters.unacked_bytes.get()
                + shard.counters.sessions.get()
        };
        let all: u64 = owners.shards.iter().map(held).sum::<u64>().max(1);
        // A cut cannot be undone: half of the excess first, and then half of what is left of it.
        let cut = |level| match self.memory.excess_bytes(level) {
            0 => 0,
            excess => (excess / 2).max(ORDER_BYTES_MIN),
        };
        let shed = self.memory.excess_bytes(Level::Short).max(ORDER_BYTES_MIN);
        for shard in &owners.shards {
            let part = |bytes: u64| (u128::from(bytes) * u128::from(held(shard))).div_ceil(all.into()) as u64;
            shard.relieve(Relief {
                shed_bytes: part(shed),
                cut_bytes: part(cut(Level::Critical)),
                large_bytes: part(cut(Level::Full)),
            });
        }
    }
}
