//! Operations data: measurements collected from the threads, interval logs on disk, and the flight recorder.

pub mod collector;
pub mod flight;
pub mod journal;
