//! States of a client over time.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::session::Level;

/// Most states that are kept per client, 72 bytes each.
const STATES_MAX: usize = 64;

/// State of a client at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSnapshot {
    /// Time, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The level that was last sent to the client.
    #[serde(serialize_with = "write_level", deserialize_with = "read_level")]
    pub level: Level,
    /// Age of the oldest queued message, milliseconds.
    pub behind_ms: u64,
    /// Bytes queued in the gateway.
    pub queued_bytes: u64,
    /// Bytes in the kernel that the peer has not acknowledged.
    pub kernel_unsent_bytes: u64,
    /// Subscriptions waiting for room.
    pub waiting: u64,
    /// Ticks sent as a message of their own in this session.
    pub sent: u64,
    /// Ticks merged into a newer one.
    pub merged: u64,
    /// Ticks named by a gap.
    pub dropped: u64,
}

fn write_level<S: Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(level.name())
}

fn read_level<'de, D: Deserializer<'de>>(from: D) -> Result<Level, D::Error> {
    let word = String::deserialize(from)?;
    let found = Level::ALL.into_iter().find(|level| level.name() == word);
    found.ok_or_else(|| serde::de::Error::custom(format!("{word:?} is no level")))
}

/// The states of a client over a time span, at most 64: each change of its level, and others at intervals.
#[derive(Clone, Debug, Default)]
pub struct ClientHistory(VecDeque<ClientSnapshot>);

impl ClientHistory {
    /// Keeps the current state, unless a recent one has the same level, and removes states older than
    /// `span_us` microseconds.
    pub fn note(&mut self, state: ClientSnapshot, span_us: u64) {
        let due_us = |last: &ClientSnapshot| last.at_us.saturating_add(span_us / STATES_MAX as u64);
        if self.0.back().is_some_and(|last| last.level == state.level && state.at_us < due_us(last)) {
            return;
        }
        while self.0.len() >= STATES_MAX {
            self.0.pop_front();
        }
        while self.0.pop_front_if(|old| old.at_us.saturating_add(span_us) < state.at_us).is_some() {}
        self.0.push_back(state);
    }

    /// The states before `now`, followed by `now`.
    pub fn until(&self, now: ClientSnapshot) -> Vec<ClientSnapshot> {
        let before = self.0.iter().filter(|state| state.at_us < now.at_us);
        before.copied().chain([now]).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(at_us: u64, level: Level) -> ClientSnapshot {
        ClientSnapshot {
            at_us,
            level,
            behind_ms: 1,
            queued_bytes: 2,
            kernel_unsent_bytes: 3,
            waiting: 4,
            sent: 5,
            merged: 6,
            dropped: 7,
        }
    }

    #[test]
    fn a_state_is_small_and_comes_back_as_it_was_written() {
        assert!(size_of::<ClientSnapshot>() <= 72);
        for level in Level::ALL {
            let text = serde_json::to_string(&state(9, level)).expect("it can be written");
            assert_eq!(serde_json::from_str::<ClientSnapshot>(&text).expect(&text), state(9, level));
        }
        let odd = r#"{"at_us":1,"level":"good"}"#;
        assert!(
            serde_json::from_str::<ClientSnapshot>(odd)
                .is_err_and(|e| e.to_string().contains("\"good\" is no level"))
        );
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_reaches_back(
            steps in proptest::collection::vec((0_u64..500_000, 0_usize..4), 1..600),
            seconds in 1_u64..60,
        ) {
            let span_us = seconds * 1_000_000;
            let (mut history, mut now_us, mut told) = (ClientHistory::default(), 1_000_000, Vec::new());
            for (step, level) in steps {
                now_us += step;
                let now = state(now_us, Level::ALL[level]);
                history.note(now, span_us);
                told.push(now);
                let kept = history.until(now);
                prop_assert!(kept.len() <= STATES_MAX + 1 && kept.last() == Some(&now));
                prop_assert!(kept.is_sorted_by_key(|state| state.at_us));
                let least_us = now_us.saturating_sub(span_us + span_us / STATES_MAX as u64);
                prop_assert!(kept.iter().all(|state| state.at_us >= least_us));
                prop_assert!(kept.iter().all(|state| told.contains(state)));
            }
        }
    }
}
