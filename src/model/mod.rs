//! Market data as values: symbols and their dense ids, exact decimals, and ticks.

pub mod decimal;
pub mod instrument;
pub mod tick;
