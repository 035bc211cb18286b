//! Input from publishers: chunks of lines, taken in order and in parts. A publisher is read no faster than
//! the shards can take up the instruments that it lists.

use super::waiting::{Held, Rest};
use super::{Ingest, IngestParts, Next, publish};
use crate::feed::line::Line;
use crate::feed::publish::{Chunk, Faults, LineFault, PublishInput};
use crate::feed::sequencer::{LineId, Origin};
use crate::ring::ring_all;
use crate::system::faults;
use crate::time::clock::{MS, Now};
use crate::venue::WireFormat;

/// Chunks, or parts of chunks, taken from publishers in one turn.
const CHUNKS_PER_TURN: usize = 4;
/// Lines in a part. A chunk can hold thousands, and neither feeds nor shards should wait for all of them.
const LINES_PER_PART: usize = 32;
/// The largest listing backlog, in subscriptions (about 0.3 ms of a shard's work), at which a publisher that
/// lists an instrument may continue. Above it the publisher waits.
const LISTING_BACKLOG_MAX: usize = 128;
/// How often the backlog is checked while publishers wait.
const LOOK_EVERY_NS: u64 = MS / 4;

/// One publisher's line.
pub(super) struct Publisher {
    pub(super) line: Line,
    faults: Faults,
}

/// The input was an opened or closed publisher, not a chunk.
struct NoChunk;

impl Ingest {
    /// Takes a bounded share of what publishers have sent.
    pub(super) fn take_published(&mut self, now: Now) -> Next {
        let next = self.take_chunks(now);
        self.parts.view.publishers_held.set(self.waiting.len() as u64);
        next
    }

    fn take_chunks(&mut self, now: Now) -> Next {
        for _ in 0..CHUNKS_PER_TURN {
            let rest = match self.rest.take() {
                Some(rest) => rest,
                None => match self.next_input(now) {
                    Some(Ok(rest)) => rest,
                    Some(Err(NoChunk)) => continue,
                    None if self.waiting.is_empty() => return Next::At(u64::MAX),
                    None => return Next::At(now.mono_ns + LOOK_EVERY_NS),
                },
            };
            self.rest = self.part(rest);
            // Many lines may follow: the shards start on this part now.
            ring_all(self.parts.bells.iter().map(|bell| &**bell));
            self.stages.published();
        }
        Next::Now
    }

    /// Takes the next input of the publishers; returns its lines, or `None` if nothing can be taken now.
    fn next_input(&mut self, now: Now) -> Option<Result<Rest, NoChunk>> {
        // A waiting publisher continues only at a backlog of 0, so that each shard has turns without new
        // instruments, in which it serves requests.
        if !self.waiting.is_empty() && (self.parts.listing_backlog)() == 0 {
            let (publisher, next) = self.waiting.next()?;
            return match next {
                Some(Held::Lines(rest)) => Some(Ok(rest)),
                Some(Held::Closed) => {
                    self.closed(publisher, now);
                    Some(Err(NoChunk))
                }
                None => Some(Err(NoChunk)),
            };
        }
        match self.parts.publishing.input.as_mut()?.try_recv().ok()? {
            PublishInput::Opened { publisher, errors } => self.opened(publisher, errors),
            PublishInput::Closed { publisher } => {
                if self.waiting.take(publisher, Held::Closed).is_err() {
                    self.closed(publisher, now);
                }
            }
            PublishInput::Chunk(chunk) => {
                self.chunks += 1;
                let (publisher, line) = (chunk.publisher, chunk.first_line);
                let rest = Held::Lines(Rest { chunk, taken: 0, line });
                if let Err(Held::Lines(rest)) = self.waiting.take(publisher, rest) {
                    return Some(Ok(rest));
                }
            }
        }
        Some(Err(NoChunk))
    }

    fn opened(&mut self, publisher: u32, faults: Faults) {
        let limits = self.parts.publishing.limits.clone();
        let mut line = Line::new(LineId(self.next_line), Origin::Live, WireFormat::Native, limits);
        if let Some(tap) = &self.parts.publishing.tap {
            line.record(tap.clone());
        }
        self.next_line += 1;
        self.publishers.insert(publisher, Publisher { line, faults });
    }

    fn closed(&mut self, publisher: u32, now: Now) {
        let Some(mut gone) = self.publishers.remove(&publisher) else { return };
        let (IngestParts { sequencer, writer, view, .. }, stages) = (&mut self.parts, &mut self.stages);
        gone.line.disconnected(now.wall_ns, sequencer, publish(writer, view, stages));
        self.gone.add(gone.line.stats());
    }

    /// Publishes the next lines of a chunk, one tick per line, and returns the rest unless the publisher has
    /// to wait. A bad line is dropped alone and reported to the publisher.
    fn part(&mut self, mut rest: Rest) -> Option<Rest> {
        let publisher = self.publishers.get_mut(&rest.chunk.publisher)?;
        let (IngestParts { sequencer, writer, view, listing_backlog, .. }, stages) =
            (&mut self.parts, &mut self.stages);
        let Chunk { bytes, rx_ns, publisher: number, .. } = &rest.chunk;
        let (number, listed) = (*number, sequencer.table().len());
        for _ in 0..LINES_PER_PART {
            let left = &bytes[rest.taken..];
            if left.is_empty() {
                return None;
            }
            let end = memchr::memchr(b'\n', left).unwrap_or(left.len());
            let text = left[..end].trim_ascii();
            rest.taken = (rest.taken + end + 1).min(bytes.len());
            stages.begin();
            faults::inject(text);
            if !text.is_empty()
                && let Err(error) =
                    publisher.line.frame(*rx_ns, text, sequencer, publish(writer, view, stages))
            {
                publisher.faults.tell(LineFault { line: rest.line, msg: error.to_string() });
            }
            rest.line += 1;
            if sequencer.table().len() > listed && listing_backlog() > LISTING_BACKLOG_MAX {
                let rest = Some(rest).filter(|rest| rest.taken < rest.chunk.bytes.len());
                self.waiting.hold(number, rest);
                return None;
            }
        }
        Some(rest).filter(|rest| rest.taken < rest.chunk.bytes.len())
    }
}
