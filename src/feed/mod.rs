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
pub use line::{FrameKind, FrameKinds, Line, LineLimits, LineStats, RefusedCounts};
pub use recorder::{LineRecord, OpenSegment, RecordOptions, Recorder, RecorderThread, Tap};
pub use replay::{
    Join, LineView, Replay, ReplayError, ReplaySpec, ReplayStep, SILENCE_NS_MAX, SeekLimits, SeekMemory,
    Stamp,
};
pub use sequencer::{LineId, Origin, Rank, Sequencer};
