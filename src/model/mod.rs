//! Market data as values: symbols and their dense ids, exact decimals, and the ticks that are made of them.

pub mod decimal;
pub mod instrument;
pub mod tick;
