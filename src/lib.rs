//! tickfan: a market data fan-out gateway.

pub mod book;
pub mod capture;
pub mod clock;
pub mod counters;
pub mod feed;
pub mod instrument;
pub mod protocol;
pub mod ring;
pub mod session;
pub mod shard;
pub mod tick;
pub mod venue;
pub mod watch;
