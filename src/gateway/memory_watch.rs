//! Keeps memory within its limit: measures it ten times per second, and requests shards and replays to free
//! memory when it is short.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::engine::{EngineBase, Shards};
use super::rooms::Rooms;
use crate::config::Config;
use crate::feed::SeekMemory;
use crate::shard::{Relief, ShardHandle};
use crate::system::memory::{BoundOrigin, Gauge, Memory, MemoryLevel};

/// Interval between measurements.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
/// Measurements between two requests to free memory: freed memory is only measured once the allocator has
/// returned it to the kernel.
const ORDER_EVERY: u32 = 3;
/// Smallest amount that is requested, bytes.
const ORDER_BYTES_MIN: u64 = 1 << 20;

/// Determines the limit, and logs it.
///
/// # Errors
/// The keys of the configuration whose memory does not fit.
pub(super) fn bound(config: &Config, notices: &mpsc::Sender<String>) -> anyhow::Result<(Gauge, Arc<Memory>)> {
    let mut gauge = Gauge::find();
    let bound = gauge.bound(config.limits.memory_bytes_max);
    let memory = Arc::new(Memory::new(bound.bytes));
    let of = bound.of_bytes;
    let said = match bound.origin {
        BoundOrigin::Configured => format!("memory: at most {} bytes: limits.memory_bytes_max", bound.bytes),
        BoundOrigin::Cgroup => format!("memory: at most {} bytes: of the cgroup's {of}", bound.bytes),
        BoundOrigin::Machine => format!("memory: at most {} bytes: of the machine's {of}", bound.bytes),
        BoundOrigin::Unknown => "memory: no limit: the size of the memory is unknown".to_owned(),
    };
    // The queue has room: few notices were sent so far.
    let _ = notices.try_send(said);
    if let Some(limit) =
        gauge.limit_bytes().filter(|limit| bound.origin == BoundOrigin::Configured && *limit < bound.bytes)
    {
        let said = format!("limits.memory_bytes_max is more than the available memory: {limit} bytes");
        let _ = notices.try_send(said);
    }
    if let Some(bytes) = memory.ample_bytes() {
        config.check_memory(bytes, super::cores())?;
    }
    Ok((gauge, memory))
}

/// The memory watch. Its thread ends with the gateway.
pub(super) struct MemoryWatch {
    gauge: Gauge,
    memory: Arc<Memory>,
    shards: Arc<[ShardHandle]>,
    seek_memory: Vec<SeekMemory>,
    rooms: Option<Arc<Rooms>>,
    notices: mpsc::Sender<String>,
}

/// The owners of memory that can be freed: of the gateway and of the rooms.
struct Owners {
    shards: Vec<ShardHandle>,
    seek_memory: Vec<SeekMemory>,
}

impl MemoryWatch {
    /// Creates a watch over the memory of these owners.
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

    /// Starts the watch on its own thread, until the gateway stops. On the control thread, a measurement
    /// would wait for pending handshakes. Without a limit no thread is started.
    ///
    /// # Errors
    /// The error of the operating system if it cannot create the thread.
    pub(super) fn start(self, stopped: watch::Receiver<bool>) -> std::io::Result<()> {
        if self.memory.bound_bytes().is_none() {
            return Ok(());
        }
        std::thread::Builder::new().name("memory".to_owned()).spawn(move || self.run(&stopped)).map(drop)
    }

    fn run(&self, stopped: &watch::Receiver<bool>) {
        let (mut level, mut measurements) = (MemoryLevel::Ample, 0_u32);
        // An error means that the gateway itself is gone.
        while !*stopped.borrow() && stopped.has_changed().is_ok() {
            std::thread::park_timeout(MEASURE_EVERY);
            let owners = self.owners();
            let unacked: u64 = owners.shards.iter().map(|shard| shard.counters.unacked_bytes.get()).sum();
            // The kernel needs more memory than the bytes themselves.
            let kernel_bytes = unacked + unacked / 4;
            self.memory.measured(self.gauge.read().bytes(kernel_bytes));
            let before = std::mem::replace(&mut level, self.memory.level());
            if level != before {
                self.tell(level);
            }
            if level > MemoryLevel::Ample || before > MemoryLevel::Ample {
                self.give_up_checkpoints(&owners, level > MemoryLevel::Ample);
            }
            measurements = measurements.wrapping_add(1);
            if level > MemoryLevel::Ample && measurements.is_multiple_of(ORDER_EVERY) {
                self.relieve(&owners);
            }
        }
    }

    fn tell(&self, level: MemoryLevel) {
        let (used, bound) = (self.memory.used_bytes(), self.memory.bound_bytes().unwrap_or(0));
        let said = match level {
            MemoryLevel::Ample => format!("memory is ample again: {used} of {bound} bytes are in use"),
            _ => format!("memory is short ({}): {used} of {bound} bytes are in use", level.name()),
        };
        // If the log is read slowly, notices are dropped.
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

    /// Requests the shards to free the excess, in proportion to the memory they hold.
    fn relieve(&self, owners: &Owners) {
        let held = |shard: &ShardHandle| {
            shard.counters.outbox_bytes.get()
                + shard.counters.unacked_bytes.get()
                + shard.counters.sessions.get()
        };
        let all: u64 = owners.shards.iter().map(held).sum::<u64>().max(1);
        // Cutting is irreversible: half of the excess is requested first, then half of the rest.
        let cut = |level| match self.memory.excess_bytes(level) {
            0 => 0,
            excess => (excess / 2).max(ORDER_BYTES_MIN),
        };
        let shed = self.memory.excess_bytes(MemoryLevel::Short).max(ORDER_BYTES_MIN);
        for shard in &owners.shards {
            let part = |bytes: u64| (u128::from(bytes) * u128::from(held(shard))).div_ceil(all.into()) as u64;
            shard.relieve(Relief {
                shed_bytes: part(shed),
                cut_bytes: part(cut(MemoryLevel::Critical)),
                large_bytes: part(cut(MemoryLevel::Full)),
            });
        }
    }
}
