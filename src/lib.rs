//! tickfan: a market data fan-out gateway. `docs/ARCHITECTURE.md` is the map.

pub mod book;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod complaint;
pub mod config;
pub mod counters;
pub mod decimal;
pub mod feed;
pub mod front;
pub mod gateway;
pub mod instrument;
pub mod journal;
pub mod latency;
pub mod offline;
pub mod protocol;
pub mod remote;
pub mod report;
pub mod rfc3339;
pub mod ring;
pub mod session;
pub mod shard;
mod socket;
pub mod tick;
pub mod venue;
pub mod watch;
