//! tickfan: a market data fan-out gateway.

pub mod clock;
pub mod instrument;
pub mod ring;
pub mod tick;
pub mod venue;
