//! A shard's way to ask the history, and the answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::Shared;
use super::block::Block;

/// Requests that wait to be answered, of all shards: one more is asked again later.
pub(super) const REQUESTS_MAX: usize = 4_096;

/// How long a shard may leave its answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose request it is: a session's number and what tells it from others that had the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The session's number in its shard.
    pub session: u32,
    /// The session's serial.
    pub serial: u64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The block that a position is in.
    At(u64),
    /// Where to begin for what was received at this moment or later, nanoseconds since the Unix epoch.
    Since(u64),
}

/// Why nothing was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// Too many requests wait already: later there is room.
    Busy,
    /// Whoever would answer has ended.
    Ended,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The block with the position.
    Block(Arc<Block>),
    /// Everything before this position was received earlier; and the block that it is in, if it was written already.
    Start(u64, Option<Arc<Block>>),
    /// The position is missing, or no longer kept, and so is everything up to this one.
    Hole(u64),
    /// Nothing is kept any more.
    Gone,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose request it was.
    pub ticket: Ticket,
    /// What was asked for.
    pub want: Want,
    /// What was found.
    pub found: Found,
}

/// Where the answers of a shard go.
pub(super) struct Home {
    answers: Sender<Answer>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Home {
    /// Hands over an answer and wakes the shard, which takes its answers each turn. One that has ended wants none, and one
    /// that stands still is not waited for any longer.
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

/// A shard's way to ask. Nothing in here waits.
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

    /// From when on everything that was received is kept, but for holes, nanoseconds since the Unix epoch; `None` where
    /// nothing is kept any more.
    pub fn begins_ns(&self) -> Option<u64> {
        let begins_ns = self.shared.begins_ns.load(Ordering::Acquire);
        (begins_ns < u64::MAX).then_some(begins_ns)
    }

    /// Asks for something; the answer comes later.
    ///
    /// # Errors
    /// [`Unasked`] says why there will be none.
    pub fn ask(&self, ticket: Ticket, want: Want) -> Result<(), Unasked> {
        let request = Request { ticket, want, home: Arc::clone(&self.home) };
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Unasked::Busy,
            TrySendError::Disconnected(_) => Unasked::Ended,
        })
    }

    /// The next answer.
    pub fn take(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}
