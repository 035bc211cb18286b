//! How busy the runtimes are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_metrics::{RuntimeIntervals, RuntimeMonitor};

/// The runtimes of a gateway. What is told of them counts from when this was made.
pub struct Runtimes(Mutex<Vec<Watched>>);

struct Watched {
    intervals: RuntimeIntervals,
    now: RuntimeRow,
}

/// What one runtime did.
#[derive(Clone, Debug)]
pub(super) struct RuntimeRow {
    pub(super) name: String,
    /// Time that it did not wait for events, over all its threads. It is counted when the runtime looks for events: after
    /// at most 61 polls of tasks.
    pub(super) busy: Duration,
    /// Times that a thread of it went to wait for events.
    pub(super) parks: u64,
    /// Tasks now.
    pub(super) tasks: u64,
    /// Tasks that were woken from outside of it and have not had their turn.
    pub(super) queued: u64,
}

impl Runtimes {
    /// Watches these from now on, by name.
    pub fn new(runtimes: impl IntoIterator<Item = (String, Handle)>) -> Self {
        let watched = runtimes.into_iter().map(|(name, handle)| Watched {
            intervals: RuntimeMonitor::new(&handle).intervals(),
            now: RuntimeRow { name, busy: Duration::ZERO, parks: 0, tasks: 0, queued: 0 },
        });
        Self(Mutex::new(watched.collect()))
    }

    /// What they have done so far.
    pub(super) fn rows(&self) -> Vec<RuntimeRow> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |Watched { intervals, now }: &mut Watched| {
            // It has no end.
            if let Some(since) = intervals.next() {
                now.busy += since.total_busy_duration;
                now.parks += since.total_park_count;
                now.tasks = since.live_tasks_count as u64;
                now.queued = since.global_queue_depth as u64;
            }
            now.clone()
        };
        watched.iter_mut().map(look).collect()
    }
}
