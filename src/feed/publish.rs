//! Stub.
use tokio::sync::mpsc;
/// Input.
pub enum Input {
    /// New.
    Opened {
        /// Who.
        publisher: u32,
        /// Back.
        errors: mpsc::Sender<LineFault>,
    },
    /// Lines.
    Chunk(Chunk),
    /// Gone.
    Closed {
        /// Who.
        publisher: u32,
    },
}
/// Lines.
pub struct Chunk {
    /// Who.
    pub publisher: u32,
    /// Number.
    pub first_line: u64,
    /// When.
    pub rx_ns: u64,
    /// What.
    pub bytes: Vec<u8>,
}
/// Fault.
pub struct LineFault {
    /// Where.
    pub line: u64,
    /// What.
    pub msg: String,
}
