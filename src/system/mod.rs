//! The process and its machine: thread priorities, liveness of threads, the memory bound, counters,
//! atomically replaced files, and faults injected by tests.

pub mod atomic_file;
pub mod counters;
pub mod faults;
pub mod memory;
pub mod pulse;
pub mod threads;
