//! The rate limit of a client: a bucket that refills by `limits.ops_per_s` and is charged for each request and its
//! work, and a bound on how many requests are refused before the connection is closed.

/// The longest wait after expensive requests, seconds.
const DEBT_MAX_S: i64 = 10;
/// Bytes of a message that cost as much as a request.
const BYTES_PER_REQUEST: i64 = 4_096;
/// Steps that cost as much as a request.
const STEPS_PER_REQUEST: i64 = 256;
/// Refused requests before the connection is closed. They are restored at the rate of the bucket.
const REFUSALS_MAX: i64 = 256;

/// What a client may still request, in thousandths of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Requests left: negative after expensive ones.
    requests_milli: i64,
    /// Refusals left.
    refusals_milli: i64,
    /// When both were last refilled, steady time.
    at_ns: u64,
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is carried out.
    Granted,
    /// It exceeds the allowance.
    Refused,
    /// It exceeds the allowance, as too many did before it: the connection is closed.
    Over,
}

impl Allowance {
    /// A full allowance, of a client that may send `ops_per_s` requests per second.
    pub(super) fn new(ops_per_s: u32, now_ns: u64) -> Self {
        Self {
            requests_milli: i64::from(ops_per_s) * 1_000,
            refusals_milli: REFUSALS_MAX * 1_000,
            at_ns: now_ns,
        }
    }

    fn refill(&mut self, ops_per_s: u32, now_ns: u64) {
        let gained = (now_ns - self.at_ns.min(now_ns)) / 1_000 * u64::from(ops_per_s) / 1_000;
        if gained > 0 {
            let most = i64::from(ops_per_s) * 1_000;
            let gained = i64::try_from(gained).unwrap_or(i64::MAX);
            self.requests_milli = self.requests_milli.saturating_add(gained).min(most);
            self.refusals_milli = self.refusals_milli.saturating_add(gained).min(REFUSALS_MAX * 1_000);
            self.at_ns = now_ns;
        }
    }

    /// Admits or refuses a message of this size, and charges for the message itself, not yet for its work.
    pub(super) fn admit(&mut self, bytes: usize, ops_per_s: u32, now_ns: u64) -> Admission {
        self.refill(ops_per_s, now_ns);
        let cost = 1_000 + (bytes as i64 / BYTES_PER_REQUEST) * 1_000;
        if self.requests_milli >= 1_000 {
            self.take(cost, ops_per_s);
            return Admission::Granted;
        }
        self.refusals_milli -= cost;
        if self.refusals_milli >= 0 { Admission::Refused } else { Admission::Over }
    }

    /// Charges for steps.
    pub(super) fn charge(&mut self, steps: u64, ops_per_s: u32) {
        self.take((steps.min(1 << 40) as i64) * 1_000 / STEPS_PER_REQUEST, ops_per_s);
    }

    fn take(&mut self, milli: i64, ops_per_s: u32) {
        let least = -DEBT_MAX_S * 1_000 * i64::from(ops_per_s);
        self.requests_milli = self.requests_milli.saturating_sub(milli).max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_a_message_and_its_work_cost_has_to_be_gained_again() {
        let mut allowance = Allowance::new(50, 0);
        for _ in 0..50 {
            assert_eq!(allowance.admit(0, 50, 0), Admission::Granted);
        }
        assert_eq!(allowance.admit(0, 50, 0), Admission::Refused);
        assert_eq!(allowance.admit(0, 50, SECOND / 50), Admission::Granted);
        // 64 KiB are 16 requests more.
        let mut allowance = Allowance::new(50, 0);
        assert_eq!(allowance.admit(65_536, 50, 0), Admission::Granted);
        for _ in 0..33 {
            assert_eq!(allowance.admit(0, 50, 0), Admission::Granted);
        }
        assert_eq!(allowance.admit(0, 50, 0), Admission::Refused);
        // Whatever it costs, it is over in some seconds.
        let mut allowance = Allowance::new(50, 0);
        allowance.charge(u64::MAX, 50);
        assert_eq!(allowance.admit(0, 50, 10 * SECOND), Admission::Refused);
        assert_eq!(allowance.admit(0, 50, 11 * SECOND), Admission::Granted);
    }

    #[test]
    fn some_hundred_are_refused_and_fewer_where_they_are_long() {
        for (bytes, most) in [(0, 256), (65_536, 15)] {
            let mut allowance = Allowance::new(2, 0);
            allowance.charge(u64::MAX, 2);
            let refused = (0..1_000).take_while(|_| allowance.admit(bytes, 2, 0) == Admission::Refused);
            assert_eq!(refused.count(), most);
            assert_eq!(allowance.admit(bytes, 2, 0), Admission::Over);
        }
    }
}
