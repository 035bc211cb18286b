//! Metrics of the tokio runtimes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_metrics::{RuntimeIntervals, RuntimeMonitor};

/// The runtimes of a gateway. Their counters start when this value is created.
pub struct Runtimes(Mutex<Vec<Watched>>);

struct Watched {
    intervals: RuntimeIntervals,
    now: RuntimeRow,
}

/// Metrics of one runtime.
#[derive(Clone, Debug)]
pub(super) struct RuntimeRow {
    pub(super) name: String,
    /// Time not spent waiting for events, over all threads. It is updated when the runtime polls for events,
    /// at the latest after 61 polls of tasks.
    pub(super) busy: Duration,
    /// Number of times that a thread waited for events.
    pub(super) parks: u64,
    /// Current tasks.
    pub(super) tasks: u64,
    /// Current tasks in the injection queue, which were woken from outside the runtime.
    pub(super) queued: u64,
}

impl Runtimes {
    /// Starts to watch these runtimes, each with its name.
    pub fn new(runtimes: impl IntoIterator<Item = (String, Handle)>) -> Self {
        let watched = runtimes.into_iter().map(|(name, handle)| Watched {
            intervals: RuntimeMonitor::new(&handle).intervals(),
            now: RuntimeRow { name, busy: Duration::ZERO, parks: 0, tasks: 0, queued: 0 },
        });
        Self(Mutex::new(watched.collect()))
    }

    /// The metrics so far.
    pub(super) fn rows(&self) -> Vec<RuntimeRow> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |Watched { intervals, now }: &mut Watched| {
            // The iterator has no end.
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
