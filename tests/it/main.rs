//! The integration tests: the binary as its users run it, and the parts of the library over real sockets. One module per subject;
//! all of them share `support`.

mod support;

mod attacks;
mod captures;
mod cases;
mod cases_captures;
mod catch_up;
mod clients;
mod end_to_end;
#[cfg(target_os = "linux")]
mod faults;
mod flight;
mod fuzz;
mod http;
mod latency;
mod measuring;
mod memory;
mod metrics;
mod operator;
mod protocol;
mod publish;
mod record;
mod replay;
mod report;
mod requests;
mod resume;
mod rooms;
mod simulation;
mod slow_consumer;
mod slow_model;
mod slow_readers;
mod snippets;
mod soak;
mod states;
mod supply;
mod tables;
mod venues;
