//! The places of one listener for connections without the token. Occupying them locks nobody out: a new
//! connection takes the place of the one that has waited longest. A publisher shows its token at once, so it
//! needs a place only briefly.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Refused connections that may read the reason at the same time. Further ones are closed at once.
pub const PARTINGS_MAX: usize = 64;

/// The connections without the token on one listener.
pub(super) struct Strangers {
    most: usize,
    per_address: usize,
    waiting: Mutex<Waiting>,
    partings: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// The connection that has waited longest comes first.
    queue: Vec<Stranger>,
}

struct Stranger {
    number: u64,
    address: IpAddr,
    evicted: Arc<Notify>,
}

/// A place, released on drop.
pub(super) struct Place {
    number: u64,
    strangers: Arc<Strangers>,
    evicted: Arc<Notify>,
}

impl Strangers {
    /// Returns places for `most` connections, `per_address` of them from one address; at least one of each.
    pub(super) fn new(most: usize, per_address: usize) -> Arc<Self> {
        let (most, per_address) = (most.max(1), per_address.max(1));
        let partings = Arc::new(Semaphore::new(PARTINGS_MAX));
        Arc::new(Self { most, per_address, waiting: Mutex::default(), partings })
    }

    /// Takes a place for a connection from this address. If none is left, the connection that has waited
    /// longest is evicted: from this address if it has `per_address`, otherwise from the addresses with the
    /// most. The flag is true if one was evicted.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> (Place, bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.to_evict(&waiting.queue, address);
        if let Some(at) = full {
            waiting.queue.remove(at).evicted.notify_one();
        }
        let (number, evicted) = (waiting.next, Arc::<Notify>::default());
        waiting.next += 1;
        waiting.queue.push(Stranger { number, address, evicted: Arc::clone(&evicted) });
        (Place { number, strangers: Arc::clone(self), evicted }, full.is_some())
    }

    /// Returns the index of the connection to evict for another one from this address.
    fn to_evict(&self, queue: &[Stranger], address: IpAddr) -> Option<usize> {
        let first_of = |address: IpAddr| queue.iter().position(|stranger| stranger.address == address);
        let mut counts = HashMap::<IpAddr, usize>::new();
        for stranger in queue {
            *counts.entry(stranger.address).or_default() += 1;
        }
        if counts.get(&address).is_some_and(|count| *count >= self.per_address) {
            return first_of(address);
        }
        if queue.len() < self.most {
            return None;
        }
        let most = counts.values().max()?;
        queue.iter().position(|stranger| counts[&stranger.address] == *most)
    }

    /// Returns a permit to wait until a refused connection has read the reason, unless too many wait.
    pub(super) fn parting(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.partings).try_acquire_owned().ok()
    }
}

impl Place {
    /// Completes once another connection has taken this place.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.strangers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // An evicted connection is no longer in the queue. The numbers ascend.
        if let Ok(at) = waiting.queue.binary_search_by_key(&self.number, |stranger| stranger.number) {
            waiting.queue.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_evicted(place: &Place) -> bool {
        use futures_util::FutureExt;
        place.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_longest_waiting_of_an_address_is_evicted_by_its_next() {
        let strangers = Strangers::new(10, 2);
        let (first, _) = strangers.take(from(1));
        let (other, _) = strangers.take(from(2));
        let (second, evicted) = strangers.take(from(1));
        assert!(!evicted);
        let (third, evicted) = strangers.take(from(1));
        assert!(evicted && is_evicted(&first));
        assert!(!is_evicted(&second) && !is_evicted(&other) && !is_evicted(&third));
        // Its place was released at the eviction and is not released again on drop.
        drop(first);
        let (_fourth, evicted) = strangers.take(from(1));
        assert!(evicted && is_evicted(&second));
        drop((second, third));
        assert!(!strangers.take(from(1)).1, "closed connections leave room");
    }

    #[test]
    fn the_address_with_the_most_makes_room_for_others() {
        let strangers = Strangers::new(4, 3);
        let (alone, _) = strangers.take(from(9));
        let many: Vec<Place> = (0..3).map(|_| strangers.take(from(1)).0).collect();
        let (_one, evicted) = strangers.take(from(2));
        assert!(evicted && !is_evicted(&alone));
        assert_eq!(many.iter().map(is_evicted).collect::<Vec<_>>(), [true, false, false]);
        let kept: Vec<Place> = (3..200).map(|n| strangers.take(from(n)).0).collect();
        assert!(strangers.waiting.lock().expect("not poisoned").queue.len() == 4);
        assert!(kept[..190].iter().all(is_evicted) && !is_evicted(&kept[196]));
    }
}
