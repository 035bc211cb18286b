//! Where ticks come from.

mod line;
mod market;

pub use line::{Kind, Kinds, Line, LineLimits, LineStats};
pub use market::{LineId, Market, Rank};
