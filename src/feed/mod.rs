//! Sources of ticks: replayed captures and publishers. All of them feed one thread, which numbers the ticks
//! and writes the ring. Their input can be recorded as received.

mod alarm;
mod book;
mod ingest;
mod line;
pub mod publish;
mod recorder;
mod replay;
mod sequencer;

pub use ingest::{Flow, Ingest, IngestParts, IngestView, LineReport, Next, PublishingParts};
pub use line::{Kind, Kinds, Line, LineLimits, LineStats, Refused};
pub use recorder::{LineRecord, OpenSegment, RecordOptions, Recorder, RecorderThread, Tap};
pub use replay::{
    Join, LineView, Replay, ReplayError, ReplaySpec, SILENCE_NS_MAX, SeekLimits, SeekMemory, Stamp, Step,
};
pub use sequencer::{LineId, Origin, Rank, Sequencer};
