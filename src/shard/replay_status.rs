//! Where the replay is, as the clients of a shard are shown it.

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
    /// The number of this status.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The message.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the replay shows a newer one.
    pub(super) fn is_old(&self, control: Option<&ReplayControl>) -> bool {
        control.is_some_and(|control| control.version() != self.version)
    }

    /// Takes up what the replay shows. False while the shard, which has read the ring up to `cursor`, has ticks to send
    /// that come first.
    pub(super) fn update(&mut self, control: Option<&ReplayControl>, cursor: u64) -> bool {
        let Some(control) = control else { return false };
        // Before what it counts, so that nothing is missed.
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
