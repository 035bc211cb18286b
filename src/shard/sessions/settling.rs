//! What waits, and what rates hold back, after a request has changed subscriptions.

use super::{Connection, Sessions};
use crate::session::Hold;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// How a request takes what waits and what rates hold back into account, after it has changed subscriptions.
#[derive(Default)]
pub(super) struct Settling {
    /// Waiting subscriptions that are still to be asked whether they are there; `None` before that was counted.
    waiting: Option<usize>,
    /// The rate, and which of what it holds back is next.
    held: (usize, usize),
}

impl Settling {
    /// Where no subscription has ended.
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

    /// Has what was held back by a rate wait for room where its subscription has another now, and forgets what waits for
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
