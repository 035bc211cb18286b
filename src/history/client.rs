//! A shard's requests to the history, and the answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::Shared;
use super::block::Block;

/// Maximum number of requests waiting for an answer, from all shards; a request beyond that has to be
/// repeated later.
pub(super) const REQUESTS_MAX: usize = 4_096;

/// How long the reader waits for a shard to take its answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// Identifies the session of a request: its number, and a serial that distinguishes it from earlier sessions
/// with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The number of the session in its shard.
    pub session: u32,
    /// The serial of the session.
    pub serial: u64,
}

/// The subject of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The block that contains a position.
    At(u64),
    /// The position to start from for ticks received at this moment or later, in nanoseconds since the Unix
    /// epoch.
    Since(u64),
}

/// Why a request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// Too many requests are waiting: try again later.
    Busy,
    /// The history has ended.
    Ended,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The block that contains the position.
    Block(Arc<Block>),
    /// All ticks before this position were received before the moment; with the block that contains it, if
    /// that was written already.
    Start(u64, Option<Arc<Block>>),
    /// The position is missing or no longer kept, and so are all before this one.
    Hole(u64),
    /// The history keeps nothing any more.
    Gone,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The session that made the request.
    pub ticket: Ticket,
    /// The subject of the request.
    pub want: Want,
    /// The result.
    pub found: Found,
}

/// The channel for the answers to one shard.
pub(super) struct Home {
    answers: Sender<Answer>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Home {
    /// Sends an answer and wakes the shard, which takes its answers in each turn. An answer to a shard that
    /// has ended or is stuck is dropped, the latter after `PATIENCE`.
    pub(super) fn tell(&self, answer: Answer) {
        let _ = self.answers.send_timeout(answer, PATIENCE);
        (self.wake)();
    }
}

/// A request.
pub(super) struct Request {
    pub(super) ticket: Ticket,
    pub(super) want: Want,
    pub(super) home: Arc<Home>,
}

/// A shard's interface to the history. Nothing in it blocks.
pub struct HistoryClient {
    shared: Arc<Shared>,
    requests: Sender<Request>,
    home: Arc<Home>,
    answers: Receiver<Answer>,
}

impl fmt::Debug for HistoryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryClient").finish_non_exhaustive()
    }
}

impl HistoryClient {
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: Sender<Request>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (sender, answers) = bounded(REQUESTS_MAX);
        let home = Arc::new(Home { answers: sender, wake: Box::new(wake) });
        Self { shared, requests, home, answers }
    }

    /// Returns the time since which all received ticks are kept, except in holes, in nanoseconds since the
    /// Unix epoch; `None` if nothing is kept any more.
    pub fn begins_ns(&self) -> Option<u64> {
        let begins_ns = self.shared.begins_ns.load(Ordering::Acquire);
        (begins_ns < u64::MAX).then_some(begins_ns)
    }

    /// Queues a request; the answer follows later.
    ///
    /// # Errors
    /// [`Unasked`] if the request was not queued.
    pub fn ask(&self, ticket: Ticket, want: Want) -> Result<(), Unasked> {
        let request = Request { ticket, want, home: Arc::clone(&self.home) };
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Unasked::Busy,
            TrySendError::Disconnected(_) => Unasked::Ended,
        })
    }

    /// Takes the next answer, if there is one.
    pub fn take(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}
