//! tickfan: a market data fan-out gateway.
//!
//! ```text
//!               ingest thread (one writer)                     shard threads (readers)
//! capture ─┐
//! publisher┴─► venue::decode ─► feed::line ─► Sequencer ─► RING ─► Shard::turn ─► Session ─► socket
//!              bytes to events  book, gaps    seq          last    matching       pending    one write
//!                                                          values  clients        messages   per turn
//! ```
//!
//! To read the code along the path of one tick: [`model::tick`] (the value), [`ring`] (one writer, many
//! readers, lapping), [`session`] (the pending messages of one client: pure), [`shard`] (the turn of a thread
//! that serves clients), `feed::line` (from a venue's messages to ticks). `docs/ARCHITECTURE.md` lists
//! which module may import which.

pub mod auth;
pub mod capture;
pub mod cli;
pub mod config;
pub mod feed;
pub mod gateway;
pub mod history;
pub mod http;
pub mod latency;
pub mod model;
mod net;
pub mod ops;
pub mod protocol;
pub mod replay_control;
pub mod ring;
pub mod session;
pub mod shard;
pub mod synth;
pub mod system;
pub mod text;
pub mod time;
pub mod venue;
