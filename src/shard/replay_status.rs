//! The status of the replay, as a shard sends it to its clients.

use crate::replay_control::ReplayControl;
use crate::text::json;

/// The newest status of the replay.
#[derive(Default)]
pub(super) struct ReplayStatus {
    /// Counts the changes; 0 before the first.
    version: u64,
    /// The message.
    text: Vec<u8>,
}

impl ReplayStatus {
    /// The version of this status; 0 before the first.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The message.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the replay has published a newer status.
    pub(super) fn is_old(&self, control: Option<&ReplayControl>) -> bool {
        control.is_some_and(|control| control.version() != self.version)
    }

    /// Takes the status that the replay has published. False while the shard, which has read the ring up to `cursor`,
    /// has ticks to send that precede it.
    pub(super) fn update(&mut self, control: Option<&ReplayControl>, cursor: u64) -> bool {
        let Some(control) = control else { return false };
        // Read before the status, so that no change is missed.
        let version = control.version();
        let Some(shown) = control.shown().filter(|shown| shown.published <= cursor) else {
            return false;
        };
        self.version = version;
        self.text.clear();
        json::write(&shown.playback.message(), &mut self.text);
        true
    }
}
