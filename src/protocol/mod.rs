//! The client protocol `tickfan.v1` (`docs/PROTOCOL.md`): requests read, messages written, frames made.
//! It names no socket and no clock.

pub mod close;
pub mod frame;
pub mod json;
pub mod replay;
mod request;
mod room;
mod since;

pub use request::{
    Change, Echo, Fault, Id, Mode, Op, Rate, Request, Resume, Subscribe, Target, Terms, parse, parse_query,
};
pub use room::{RoomTerms, RoomWish, parse_room};
pub use since::{BadSince, Since};
