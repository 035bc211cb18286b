//! `tickfan watch`.

pub mod ledger;
pub mod message;
