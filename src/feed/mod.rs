//! Where ticks come from.

mod line;
mod market;
pub mod publish;

pub use line::{Kind, Kinds, Line, LineLimits, LineStats};
pub use market::{LineId, Market, Rank};
