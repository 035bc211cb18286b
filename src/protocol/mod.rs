//! The client protocol `tickfan.v1` (`docs/PROTOCOL.md`): parses requests, writes messages and builds
//! WebSocket frames. The module performs no I/O and reads no clock.

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
