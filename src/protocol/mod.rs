//! The client protocol `tickfan.v1` (`docs/PROTOCOL.md`): requests read, messages written, frames made.
//! It names no socket and no clock.

pub mod close;
pub mod frame;
pub mod json;
pub mod outcome;
mod query;
pub mod replay;
mod request;
mod room;
mod since;

pub use query::{each_given_once, parse_query};
pub use request::{
    Change, Echo, Fault, Id, Mode, Op, Rate, Request, Resume, Subscribe, Target, Terms, parse,
};
pub use room::{RoomSpec, RoomTerms};
pub use since::{BadSince, Since};
