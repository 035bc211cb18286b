//! The client protocol `tickfan.v1` (`docs/PROTOCOL.md`): requests read, messages written, frames made.
//! It names no socket and no clock.

pub mod close;
mod fault;
pub mod frame;
pub mod json;
mod moment;
pub mod outcome;
mod query;
pub mod replay;
mod request;
mod room;
mod selector;

pub use fault::{Fault, Id};
pub use moment::{BadMoment, BadSince, Moment, Since};
pub use query::{each_given_once, parse_query};
pub use request::{Change, DeliveryPolicy, Echo, Mode, Op, Rate, Request, Resume, Subscribe, Target, parse};
pub use room::{RoomSpec, RoomTerms};
pub use selector::Selector;
