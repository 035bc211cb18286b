//! Settling: a request that has changed subscriptions updates the queue of dirty ones, and what rates hold back.

use super::{Connection, Sessions};
use crate::session::Hold;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// The progress of a request that settles.
#[derive(Default)]
pub(super) struct Settling {
    /// Entries of the queue of dirty subscriptions that are still to be examined; `None` before they are counted.
    waiting: Option<usize>,
    /// The entry that is examined next: its rate, and its index among what that rate holds back.
    held: (usize, usize),
}

impl Settling {
    /// For a request that has ended no subscription.
    pub(super) fn of_rates() -> Self {
        Self { waiting: Some(0), ..Self::default() }
    }
}

impl<S: Socket> Sessions<S> {
    /// [Settles](Self::settle), if a subscription has another rate now.
    pub(super) fn settle_rates(&mut self, id: u32, settling: &mut Settling, now: Now) -> bool {
        if self.connections.get(id).is_none_or(|connection| !connection.holdings.is_unsettled()) {
            return true;
        }
        let is_done = self.settle(id, settling, now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.holdings.set_unsettled(!is_done);
        }
        is_done
    }

    /// Releases what a rate holds back of subscriptions that have another rate now, and drops the entries of
    /// subscriptions that have ended. True when that is done.
    pub(super) fn settle(&mut self, id: u32, settling: &mut Settling, now: Now) -> bool {
        let (directory, steps) = (&self.directory, &mut self.steps);
        let Some(Connection { session, holdings, .. }) = self.connections.get_mut(id) else { return true };
        let waiting = settling.waiting.get_or_insert(session.waiting());
        while *waiting > 0 {
            if !steps.take(1) {
                return false;
            }
            *waiting -= 1;
            session.sift_waiting(|key| holdings.place(key).is_some());
        }
        loop {
            let judge = |key, rate| {
                let place = holdings.place(key);
                let subscription = place.and_then(|place| directory.get(key, place));
                match subscription.filter(|subscription| subscription.is_held()) {
                    None => Hold::Over,
                    Some(subscription) if subscription.rate() == Some(rate) => Hold::Stays,
                    Some(_) => Hold::LetGo,
                }
            };
            if !session.is_held_at(settling.held) {
                return true;
            }
            if !steps.take(1) {
                return false;
            }
            session.sift_held(&mut settling.held, judge, now.mono_ns);
        }
    }
}
