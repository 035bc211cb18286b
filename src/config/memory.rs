//! Memory that a configuration needs regardless of the number of clients, and whether it fits.

use super::{Config, ConfigError};
use crate::session::Buffers;

/// The program itself: threads, runtimes, measurements, and the books of a few symbols.
const PROGRAM_BYTES: u64 = 16 << 20;
/// One tick in the ring.
const SLOT_BYTES: u64 = 128;
/// One instrument: its last values, and its subscription rows in each shard.
const INSTRUMENT_BYTES: u64 = 384;
const INSTRUMENT_SHARD_BYTES: u64 = 24;
/// One place in the queue of a recording.
const QUEUED_FRAME_BYTES: u64 = 64;

impl Config {
    /// The keys whose values reserve memory at start or eventually, each with its bytes on `cores` cores.
    fn fixed_parts(&self, cores: usize) -> [(&'static str, u64); 4] {
        let threads = self.shard.threads_on(cores) as u64;
        let instrument_bytes = INSTRUMENT_BYTES + INSTRUMENT_SHARD_BYTES * threads;
        let queued = if self.record.enabled { self.record.queue_frames_max.get() as u64 } else { 0 };
        // The initial size; the frame ring only grows while memory is available.
        let frame_ring_bytes = Buffers::first_frame_ring_bytes(self.shard.frame_ring_bytes) as u64;
        [
            ("ring.capacity", SLOT_BYTES * self.ring.capacity as u64),
            ("shard.frame_ring_bytes", frame_ring_bytes * threads),
            ("limits.instruments_max", instrument_bytes * self.limits.instruments_max.get() as u64),
            ("record.queue_frames_max", QUEUED_FRAME_BYTES * queued),
        ]
    }

    /// Checks that the parts of fixed size fit in `bytes` on `cores` cores.
    ///
    /// # Errors
    /// [`ConfigError::Together`] names each part by its key.
    pub fn check_memory(&self, bytes: u64, cores: usize) -> Result<(), ConfigError> {
        let parts = self.fixed_parts(cores);
        let needed = PROGRAM_BYTES + parts.iter().map(|(_, bytes)| bytes).sum::<u64>();
        if needed <= bytes {
            return Ok(());
        }
        let listed =
            parts.iter().filter(|(_, bytes)| *bytes > 0).map(|(key, bytes)| format!("{key} takes {bytes}"));
        Err(ConfigError::Together(format!(
            "limits.memory_bytes_max: memory would be short from the start: of the bound, {bytes} bytes may be in use \
             before it is, and {needed} are needed: the program takes {PROGRAM_BYTES}, {}",
            listed.collect::<Vec<_>>().join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let mut config = Config::bare();
        config.shard.threads = 2;
        let needed = (16 << 20) + 65_536 * 128 + 2 * (1 << 20) + 65_536 * (384 + 48);
        assert!(config.check_memory(needed, 1).is_ok());
        let error = config.check_memory(needed - 1, 1).expect_err("a byte is missing").to_string();
        for named in [
            "limits.memory_bytes_max",
            &needed.to_string(),
            "ring.capacity takes 8388608",
            "shard.frame_ring_bytes takes 2097152",
            "limits.instruments_max takes 28311552",
        ] {
            assert!(error.contains(named), "{error}");
        }
        assert!(!error.contains("record."), "nothing is recorded: {error}");
        config.record.enabled = true;
        let error = config.check_memory(needed, 1).expect_err("the queue takes some").to_string();
        assert!(error.contains("record.queue_frames_max takes 4194304"), "{error}");
    }
}
