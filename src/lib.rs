//! tickfan: a market data fan-out gateway.

pub mod capture;
pub mod clock;
pub mod instrument;
pub mod tick;
pub mod venue;
