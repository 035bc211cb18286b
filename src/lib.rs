//! tickfan: a market data fan-out gateway.

pub mod book;
pub mod clock;
pub mod feed;
pub mod front;
pub mod instrument;
pub mod protocol;
mod socket;
pub mod tick;
pub mod venue;
