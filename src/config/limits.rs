//! What everybody may have, send and take.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use serde::Deserialize;

use super::{non_zero, non_zero_u32, non_zero_u64};

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of memory of the whole process, what the kernel holds for its sockets counted; 0: derived.
    pub memory_bytes_max: u64,
    /// Connections at once.
    pub connections_max: NonZeroUsize,
    /// Connections at once from one address.
    pub connections_per_address: NonZeroUsize,
    /// Connections that are accepted a second.
    pub admissions_per_s: NonZeroU32,
    /// Instruments at once.
    pub instruments_max: NonZeroUsize,
    /// Symbols one connection may name.
    pub symbols_per_connection: NonZeroUsize,
    /// Requests a second.
    pub ops_per_s: NonZeroU32,
    /// Different rates one connection may have.
    pub rates_per_connection: NonZeroUsize,
    /// Longest message of a client, bytes; 0: see [`frame_bytes`](Self::frame_bytes).
    pub frame_bytes_max: usize,
    /// Parts of one message of a client.
    pub fragments_per_message: NonZeroU32,
    /// Control frames of a client, a second.
    pub control_frames_per_s: NonZeroU32,
    /// Milliseconds for the head of a request.
    pub head_timeout_ms: NonZeroU64,
    /// Milliseconds without a request.
    pub idle_timeout_ms: NonZeroU64,
    /// Publishers at once.
    pub publishers_max: NonZeroUsize,
    /// Levels a side of a book.
    pub book_levels_max: NonZeroUsize,
    /// Changes of a book that are kept for an older snapshot, of each symbol.
    pub splice_messages_max: usize,
    /// Bytes of these, of each feed line.
    pub splice_bytes_max: usize,
    /// Milliseconds until a silent line is stale.
    pub stale_after_ms: NonZeroU64,
}

/// What a symbol may take in a message: its longest name with every letter escaped, or as it is and once more with a number to
/// resume from.
const SYMBOL_BYTES: usize = 256;
/// What stands around them.
const AROUND_SYMBOLS_BYTES: usize = 1_024;
/// The least and the most that the longest message is reckoned to be.
const FRAME_BYTES: std::ops::RangeInclusive<usize> = 65_536..=16_777_216;

impl Limits {
    /// The longest message of a client, bytes: as configured, or with room for all the symbols that it may name.
    pub fn frame_bytes(&self) -> usize {
        if self.frame_bytes_max > 0 {
            return self.frame_bytes_max;
        }
        let symbols_bytes = self.symbols_per_connection.get().saturating_mul(SYMBOL_BYTES);
        symbols_bytes.saturating_add(AROUND_SYMBOLS_BYTES).clamp(*FRAME_BYTES.start(), *FRAME_BYTES.end())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 0,
            connections_max: non_zero::<18_000>(),
            connections_per_address: non_zero::<16_000>(),
            admissions_per_s: non_zero_u32::<2_000>(),
            instruments_max: non_zero::<65_536>(),
            symbols_per_connection: non_zero::<1_000>(),
            ops_per_s: non_zero_u32::<50>(),
            rates_per_connection: non_zero::<16>(),
            frame_bytes_max: 0,
            fragments_per_message: non_zero_u32::<64>(),
            control_frames_per_s: non_zero_u32::<50>(),
            head_timeout_ms: non_zero_u64::<5_000>(),
            idle_timeout_ms: non_zero_u64::<30_000>(),
            publishers_max: non_zero::<64>(),
            book_levels_max: non_zero::<100_000>(),
            splice_messages_max: 256,
            splice_bytes_max: 4 << 20,
            stale_after_ms: non_zero_u64::<10_000>(),
        }
    }
}
