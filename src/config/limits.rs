//! `[limits]`: limits of the process and of each client.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use serde::Deserialize;

use super::{non_zero, non_zero_u32, non_zero_u64};

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Memory of the whole process, including what the kernel holds for its sockets, bytes; 0: derived.
    pub memory_bytes_max: u64,
    /// Most client connections.
    pub connections_max: NonZeroUsize,
    /// Most connections from one address.
    pub connections_per_address: NonZeroUsize,
    /// Connections accepted per second.
    pub admissions_per_s: NonZeroU32,
    /// Most instruments.
    pub instruments_max: NonZeroUsize,
    /// Most symbols that one connection may name.
    pub symbols_per_connection: NonZeroUsize,
    /// Requests per second and connection.
    pub ops_per_s: NonZeroU32,
    /// Most different rates of one connection.
    pub rates_per_connection: NonZeroUsize,
    /// Longest message of a client, bytes; 0: see [`frame_bytes`](Self::frame_bytes).
    pub frame_bytes_max: usize,
    /// Most fragments of one message of a client.
    pub fragments_per_message: NonZeroU32,
    /// Control frames per second and connection.
    pub control_frames_per_s: NonZeroU32,
    /// Time for the head of a request, milliseconds.
    pub head_timeout_ms: NonZeroU64,
    /// Time without a request after which a connection is closed, milliseconds.
    pub idle_timeout_ms: NonZeroU64,
    /// Most publishers.
    pub publishers_max: NonZeroUsize,
    /// Most levels per side of a book.
    pub book_levels_max: NonZeroUsize,
    /// Most book changes per symbol that are kept for an older snapshot.
    pub splice_messages_max: usize,
    /// Most bytes of these changes per feed line.
    pub splice_bytes_max: usize,
    /// Silence after which a feed line is stale, milliseconds.
    pub stale_after_ms: NonZeroU64,
}

/// Bytes per symbol in a message: its longest name with every character escaped, or the name and a second
/// mention with a sequence number to resume from.
const SYMBOL_BYTES: usize = 256;
/// Bytes of a message beside its symbols.
const AROUND_SYMBOLS_BYTES: usize = 1_024;
/// Range of the derived limit for the longest message, bytes.
const FRAME_BYTES: std::ops::RangeInclusive<usize> = 65_536..=16_777_216;

impl LimitsConfig {
    /// Longest message of a client, bytes: the configured limit, or one derived from the number of symbols
    /// that a message may name.
    pub fn frame_bytes(&self) -> usize {
        if self.frame_bytes_max > 0 {
            return self.frame_bytes_max;
        }
        let symbols_bytes = self.symbols_per_connection.get().saturating_mul(SYMBOL_BYTES);
        symbols_bytes.saturating_add(AROUND_SYMBOLS_BYTES).clamp(*FRAME_BYTES.start(), *FRAME_BYTES.end())
    }
}

impl Default for LimitsConfig {
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
