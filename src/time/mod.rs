//! Time: the clocks, the pace of a replay, and times as text.

pub mod clock;
pub mod duration;
pub mod rfc3339;
