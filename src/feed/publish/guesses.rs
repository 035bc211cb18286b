//! Rate limit for wrong tokens: they are counted per address, and once an address has used up its share, its
//! tokens are not compared for a while. The time is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Addresses with counted wrong tokens. Beyond that, the address with the fewest is removed.
const ADDRESSES_MAX: usize = 4_096;
const MINUTE_NS: u64 = 60_000_000_000;

/// The result of comparing a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenVerdict {
    /// The token is right.
    Right,
    /// The token is wrong.
    Wrong,
    /// The token was not compared: too many wrong ones came from its address.
    NotNow {
        /// Seconds until the next comparison, at least 1.
        retry_s: u64,
    },
}

/// Wrong tokens by address.
pub(super) struct Guesses {
    /// The time after which one wrong token no longer counts, in nanoseconds.
    each_ns: u64,
    /// Wrong tokens that are compared without a pause.
    burst: u64,
    /// When the last wrong token of an address stops counting, in nanoseconds of steady time.
    forgotten_at_ns: Mutex<HashMap<IpAddr, u64>>,
}

impl Guesses {
    /// Allows `per_minute` wrong tokens a minute from one address, and as many at once.
    pub(super) fn new(per_minute: u32) -> Self {
        let burst = u64::from(per_minute.max(1));
        Self { each_ns: MINUTE_NS / burst, burst, forgotten_at_ns: Mutex::default() }
    }

    /// Compares a token from this address with `is_right`, unless too many wrong ones came from it.
    pub(super) fn judge(
        &self,
        address: IpAddr,
        now_ns: u64,
        is_right: impl FnOnce() -> bool,
    ) -> TokenVerdict {
        let mut addresses = self.forgotten_at_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten_at_ns = addresses.get(&address).copied().unwrap_or_default().max(now_ns);
        let compares_at_ns = forgotten_at_ns.saturating_sub((self.burst - 1) * self.each_ns);
        if compares_at_ns > now_ns {
            return TokenVerdict::NotNow { retry_s: (compares_at_ns - now_ns).div_ceil(1_000_000_000) };
        }
        if is_right() {
            return TokenVerdict::Right;
        }
        if !addresses.contains_key(&address) {
            make_room(&mut addresses, now_ns);
        }
        addresses.insert(address, forgotten_at_ns.saturating_add(self.each_ns));
        TokenVerdict::Wrong
    }
}

/// Removes expired addresses, or else the one with the fewest wrong tokens.
fn make_room(addresses: &mut HashMap<IpAddr, u64>, now_ns: u64) {
    if addresses.len() < ADDRESSES_MAX {
        return;
    }
    addresses.retain(|_, forgotten_at_ns| *forgotten_at_ns > now_ns);
    if addresses.len() >= ADDRESSES_MAX
        && let Some(least) = addresses.iter().min_by_key(|(_, at_ns)| **at_ns).map(|(address, _)| *address)
    {
        addresses.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const SECOND_NS: u64 = 1_000_000_000;

    fn guess(guesses: &Guesses, address: IpAddr, now_s: u64, is_right: bool) -> TokenVerdict {
        guesses.judge(address, now_s * SECOND_NS, || is_right)
    }

    #[test]
    fn wrong_tokens_use_up_the_share_of_their_address_and_come_back_one_by_one() {
        let guesses = Guesses::new(3);
        for _ in 0..3 {
            assert_eq!(guess(&guesses, ONE, 5, false), TokenVerdict::Wrong);
        }
        // The right token is not compared either, or tokens could be guessed at any rate.
        let asked = |now_s| guesses.judge(ONE, now_s * SECOND_NS, || panic!("it is not compared"));
        assert_eq!(asked(5), TokenVerdict::NotNow { retry_s: 20 });
        assert_eq!(asked(24), TokenVerdict::NotNow { retry_s: 1 });
        assert_eq!(guess(&guesses, ONE, 25, false), TokenVerdict::Wrong);
        assert_eq!(asked(25), TokenVerdict::NotNow { retry_s: 20 });
        assert_eq!(guess(&guesses, ONE, 45, true), TokenVerdict::Right);
        assert_eq!(guess(&guesses, ONE, 45, true), TokenVerdict::Right, "right ones cost nothing");
        // Other addresses are not affected.
        assert_eq!(guess(&guesses, [10, 0, 0, 2].into(), 25, true), TokenVerdict::Right);
        // In the end all wrong tokens have expired.
        for _ in 0..3 {
            assert_eq!(guess(&guesses, ONE, 1_000, false), TokenVerdict::Wrong);
        }
    }

    #[test]
    fn many_addresses_take_a_bounded_memory_and_the_worst_stays_in_it() {
        let guesses = Guesses::new(2);
        for _ in 0..2 {
            assert_eq!(guess(&guesses, ONE, 0, false), TokenVerdict::Wrong);
        }
        for n in 0..2 * ADDRESSES_MAX as u32 {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + n).into();
            assert_eq!(guess(&guesses, address, 0, false), TokenVerdict::Wrong);
        }
        let known = || guesses.forgotten_at_ns.lock().expect("not poisoned").len();
        assert_eq!(known(), ADDRESSES_MAX);
        assert_eq!(guess(&guesses, ONE, 0, true), TokenVerdict::NotNow { retry_s: 30 });
        assert_eq!(guess(&guesses, [10, 0, 0, 9].into(), 3_600, false), TokenVerdict::Wrong);
        assert_eq!(known(), 1, "what is long ago is forgotten");
    }
}
