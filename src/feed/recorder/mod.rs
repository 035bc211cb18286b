//! The recorder: writes what the feed lines receive, frame by frame, before it is decoded.
//!
//! A [`Tap`] belongs to a line. It copies frames into a queue that is bounded in messages and bytes, without
//! lock, system call or waiting. While the queue is full, frames are not recorded, and the tap remembers the
//! hole. The recorder is a thread of its own ([`Recorder::spawn`]), which polls the queue every
//! [`LOOK_EVERY_NS`], packs the frames into blocks and writes them ([`SegmentWriter`]). If the recorder or
//! the disk is too slow, the recording has a hole, with a note in it; if it cannot write, the recording of
//! the line ends with an alarm, and the feed continues.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tokio::sync::mpsc;

use crate::capture::{BLOCK_BYTES_MAX, LINE_BYTES_MAX, SegmentWriter, segment_name};
use crate::system::counters::Counter;
use crate::text::printable;
use crate::time::clock::{Clock, MS, Now, SECOND};
use crate::venue::WireFormat;

/// The interval at which the queue is polled, in nanoseconds: taps send no wake-ups.
const LOOK_EVERY_NS: u64 = 10 * MS;
/// Messages taken from the queue before the blocks that are due are written.
const MESSAGES_PER_TURN: usize = 4_096;
/// The longest frame in bytes, with room for the prefix of its line: the reader skips longer lines.
const FRAME_BYTES_MAX: usize = LINE_BYTES_MAX - 64;
/// Frame buffers kept for reuse, and the capacity of the largest one in bytes. Frames between two polls need
/// no allocation, and the buffers take at most 4 MiB.
const SPARES_MAX: usize = 1_024;
const SPARE_BYTES_MAX: usize = 4_096;

/// Options of recording.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The directory with one folder per line.
    pub dir: PathBuf,
    /// Maximum number of bytes of frames in the queue.
    pub queue_bytes_max: usize,
    /// Maximum number of frames and notes in the queue. Each slot takes 64 bytes, used or not.
    pub queue_frames_max: usize,
    /// Seconds of receive time in one file; a new file starts at each multiple.
    pub segment_s: u64,
    /// Milliseconds that a frame may stay unwritten.
    pub flush_ms: u64,
    /// The zstd compression level.
    pub level: i32,
}

/// The counters of one line's recording.
#[derive(Debug)]
pub struct LineRecord {
    /// The name of its folder.
    pub name: String,
    /// The venue format of its frames.
    pub wire: WireFormat,
    /// Frames written: they survive a kill of the process.
    pub frames: Counter,
    /// Bytes written.
    pub bytes: Counter,
    /// Files started.
    pub segments: Counter,
    /// Frames whose line breaks were recorded as spaces.
    pub altered: Counter,
    /// Frames not recorded, for whatever reason.
    pub dropped_frames: Counter,
    /// Bytes of those frames.
    pub dropped_bytes: Counter,
    /// Why the recording ended, if it did: nothing more is written.
    failed: Mutex<Option<String>>,
}

impl LineRecord {
    fn new(name: &str, wire: WireFormat) -> Self {
        Self {
            name: name.to_owned(),
            wire,
            frames: Counter::default(),
            bytes: Counter::default(),
            segments: Counter::default(),
            altered: Counter::default(),
            dropped_frames: Counter::default(),
            dropped_bytes: Counter::default(),
            failed: Mutex::default(),
        }
    }

    /// Returns why its recording ended, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failed.lock().map_or(None, |failed| failed.clone())
    }

    /// Returns a sentence for the operator if anything is missing in the recording.
    pub fn alarm(&self) -> Option<String> {
        if let Some(why) = self.failure() {
            return Some(format!("recording of {} has stopped: {why}", self.name));
        }
        match self.dropped_frames.get() {
            0 => None,
            frames => Some(format!("{frames} frames of {} were not recorded", self.name)),
        }
    }

    fn drop_frames(&self, frames: u64, bytes: u64) {
        self.dropped_frames.add(frames);
        self.dropped_bytes.add(bytes);
    }
}

/// The state that taps and recorder share.
#[derive(Debug)]
struct Queue {
    messages: ArrayQueue<Message>,
    /// Buffers of written frames, for reuse by the taps.
    spares: ArrayQueue<Vec<u8>>,
    /// Bytes of the frames in the queue.
    bytes: AtomicUsize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Message {
    line: u32,
    rx_ns: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Frame(Vec<u8>),
    Connected(Box<str>),
    Disconnected,
    Joined,
    /// One of the connections that share the line has closed.
    Left,
    /// The venue lost messages; `gaps` gaps were published for them.
    Gap {
        gaps: u64,
    },
    Dropped(Hole),
}

/// Input that a tap could not queue.
#[derive(Clone, Copy, Debug)]
struct Hole {
    frames: u64,
    bytes: u64,
    from_ns: u64,
    to_ns: u64,
}

/// The handle through which a feed line records its input.
#[derive(Clone, Debug)]
pub struct Tap {
    queue: Arc<Queue>,
    record: Arc<LineRecord>,
    line: u32,
    /// Many connections share the line, so the end of one does not end the others.
    shared: bool,
    hole: Option<Hole>,
}

impl Tap {
    /// Records a frame received at `rx_ns`, in nanoseconds since the Unix epoch.
    #[inline]
    pub fn frame(&mut self, rx_ns: u64, frame: &[u8]) {
        let room =
            self.queue.bytes.load(Ordering::Acquire).saturating_add(frame.len()) <= self.queue.bytes_max;
        if !room || !self.tell_hole() {
            return self.lose(rx_ns, 1, frame.len() as u64);
        }
        self.queue.bytes.fetch_add(frame.len(), Ordering::AcqRel);
        let mut copy = self.queue.spares.pop().unwrap_or_default();
        copy.extend_from_slice(frame);
        if !self.push(rx_ns, What::Frame(copy)) {
            self.queue.bytes.fetch_sub(frame.len(), Ordering::AcqRel);
            self.lose(rx_ns, 1, frame.len() as u64);
        }
    }

    /// Records a new connection.
    pub fn connected(&mut self, rx_ns: u64, to: &str) {
        self.remark(rx_ns, What::Connected(to.into()));
    }

    /// Records that the following frames are of another capture, and that some may be missing before them.
    pub(super) fn joined(&mut self, rx_ns: u64) {
        self.remark(rx_ns, What::Joined);
    }

    /// Records the loss of the connection.
    pub fn disconnected(&mut self, rx_ns: u64) {
        self.remark(rx_ns, if self.shared { What::Left } else { What::Disconnected });
    }

    /// Records that the previous frame revealed a break in the venue's sequence or checksum.
    pub fn gap(&mut self, rx_ns: u64, gaps: u64) {
        self.remark(rx_ns, What::Gap { gaps });
    }

    fn remark(&mut self, rx_ns: u64, what: What) {
        if !self.tell_hole() || !self.push(rx_ns, what) {
            // The note about the hole also covers the notes that are lost in it.
            self.lose(rx_ns, 0, 0);
        }
    }

    /// Queues the note about a hole before the next message; returns false if there is no room for it.
    #[inline]
    fn tell_hole(&mut self) -> bool {
        let Some(hole) = self.hole else { return true };
        let told = self.push(hole.from_ns, What::Dropped(hole));
        if told {
            self.hole = None;
        }
        told
    }

    #[inline]
    fn push(&self, rx_ns: u64, what: What) -> bool {
        self.queue.messages.push(Message { line: self.line, rx_ns, what }).is_ok()
    }

    #[cold]
    fn lose(&mut self, rx_ns: u64, frames: u64, bytes: u64) {
        self.record.drop_frames(frames, bytes);
        let hole = self.hole.get_or_insert(Hole { frames: 0, bytes: 0, from_ns: rx_ns, to_ns: rx_ns });
        hole.frames += frames;
        hole.bytes += bytes;
        hole.to_ns = hole.to_ns.max(rx_ns);
    }
}

/// Opens the file of a segment, which must not exist. Its `flush` must sync the written bytes to the disk.
pub type OpenSegment = Box<dyn FnMut(&Path) -> io::Result<Box<dyn Write + Send>> + Send>;

/// Writes what the taps queue. Create the taps, then run it on a thread of its own ([`spawn`](Self::spawn)),
/// or call [`turn`](Self::turn) by hand.
pub struct Recorder {
    options: RecordOptions,
    queue: Arc<Queue>,
    lines: Vec<RecordedLine>,
    run_ns: u64,
    open: OpenSegment,
    notices: mpsc::Sender<String>,
}

/// A running recorder.
#[derive(Debug)]
pub struct RecorderThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl RecorderThread {
    /// Stops the thread, and waits until everything queued is on the disk, however long that takes.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A panic of the thread leaves nothing to do here.
        let _ = self.thread.join();
    }
}

/// The recorder's state of one line.
struct RecordedLine {
    record: Arc<LineRecord>,
    folder: PathBuf,
    segment: Option<OpenedSegment>,
    /// Segments started.
    number: u32,
    /// True if a frame has arrived since the last disconnect.
    connected: bool,
    /// True after a write error: nothing more is written.
    ended: bool,
    /// Dropped frames that a note covers.
    told: u64,
    last_ns: u64,
}

struct OpenedSegment {
    writer: SegmentWriter<Box<dyn Write + Send>>,
    /// The index of its period: receive time divided by the segment length.
    period: u64,
    /// Frames not yet written, their bytes, and the steady time at which the first of them was taken.
    frames: u64,
    frame_bytes: u64,
    began_ns: u64,
    /// How many of those had line breaks.
    altered: u64,
}

/// A file whose flush syncs it to the disk.
struct OnDisk(File);

impl Write for OnDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn create(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(OnDisk(File::create_new(path)?)))
}

impl Recorder {
    /// Returns a recorder without lines, whose run starts at `now`. Failures are reported to `notices`.
    pub fn new(options: RecordOptions, now: Now, notices: mpsc::Sender<String>) -> Self {
        Self::opening(options, now, notices, Box::new(create))
    }

    /// As [`new`](Self::new), with another way to open files.
    pub fn opening(
        options: RecordOptions,
        now: Now,
        notices: mpsc::Sender<String>,
        open: OpenSegment,
    ) -> Self {
        let queue = Queue {
            messages: ArrayQueue::new(options.queue_frames_max.max(1)),
            spares: ArrayQueue::new(SPARES_MAX),
            bytes: AtomicUsize::new(0),
            bytes_max: options.queue_bytes_max,
        };
        Self { options, queue: Arc::new(queue), lines: Vec::new(), run_ns: now.wall_ns, open, notices }
    }

    /// Creates the folder of a line, and its tap. `shared` is for a line with many connections.
    ///
    /// # Errors
    /// The I/O error if the folder cannot be created.
    pub fn tap(&mut self, name: &str, wire: WireFormat, shared: bool) -> io::Result<Tap> {
        let folder = self.options.dir.join(name);
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", printable::path(&folder)));
        fs::create_dir_all(&folder).map_err(named)?;
        let record = Arc::new(LineRecord::new(name, wire));
        let line = self.lines.len() as u32;
        self.lines.push(RecordedLine {
            record: Arc::clone(&record),
            folder,
            segment: None,
            number: 0,
            connected: false,
            ended: false,
            told: 0,
            last_ns: self.run_ns,
        });
        Ok(Tap { queue: Arc::clone(&self.queue), record, line, shared, hole: None })
    }

    /// Returns the counters, one row per line.
    pub fn records(&self) -> Arc<[Arc<LineRecord>]> {
        self.lines.iter().map(|line| Arc::clone(&line.record)).collect()
    }

    /// Takes a bounded share of the queue, and writes the blocks that are due. Returns false if the queue was
    /// empty.
    pub fn turn(&mut self, now: Now) -> bool {
        let mut took = 0;
        while took < MESSAGES_PER_TURN {
            let Some(message) = self.queue.messages.pop() else { break };
            took += 1;
            self.take(message, now);
        }
        // A frame may already have waited one poll interval in the queue.
        let wait_ns = (self.options.flush_ms * MS).saturating_sub(2 * LOOK_EVERY_NS);
        for line in &mut self.lines {
            let due = |segment: &OpenedSegment| {
                segment.writer.pending_bytes() > 0 && segment.began_ns.saturating_add(wait_ns) <= now.mono_ns
            };
            if line.segment.as_ref().is_some_and(due) {
                let flushed = line.flush();
                line.settle(flushed, &self.notices);
            }
        }
        took > 0
    }

    fn take(&mut self, message: Message, now: Now) {
        if let What::Frame(frame) = &message.what {
            self.queue.bytes.fetch_sub(frame.len(), Ordering::AcqRel);
        }
        match (self.lines.get_mut(message.line as usize), &message.what) {
            (Some(line), What::Frame(frame)) if line.ended => line.record.drop_frames(1, frame.len() as u64),
            (Some(line), _) if !line.ended => {
                let taken = line.take(&message, now, (&self.options, self.run_ns), &mut self.open);
                line.settle(taken, &self.notices);
            }
            _ => {}
        }
        if let What::Frame(mut frame) = message.what
            && frame.capacity() <= SPARE_BYTES_MAX
        {
            frame.clear();
            // A full queue has more spares than needed.
            let _ = self.queue.spares.push(frame);
        }
    }

    /// Writes everything queued, and finishes the files.
    pub fn finish(mut self, now: Now) {
        while self.turn(now) {}
        for line in &mut self.lines {
            let finished = line.finish();
            line.settle(finished, &self.notices);
        }
    }

    /// Starts the recorder's thread.
    ///
    /// # Errors
    /// The I/O error if the thread cannot be started.
    pub fn spawn(self, clock: &Clock) -> io::Result<RecorderThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, clock) = (Arc::clone(&stop), clock.clone());
        let thread = std::thread::Builder::new().name("record".to_owned());
        Ok(RecorderThread { stop, thread: thread.spawn(move || self.run(&clock, &told))? })
    }

    /// Records until `stop` is set, then writes the rest. Unparking the thread ends its pause.
    fn run(mut self, clock: &Clock, stop: &AtomicBool) {
        loop {
            // Read before the queue, so that everything queued before the stop is written.
            let stopping = stop.load(Ordering::Acquire);
            if self.turn(clock.now()) {
                continue;
            }
            if stopping {
                break;
            }
            std::thread::park_timeout(Duration::from_nanos(LOOK_EVERY_NS));
        }
        self.finish(clock.now());
    }
}

impl RecordedLine {
    fn take(
        &mut self,
        message: &Message,
        now: Now,
        (options, run_ns): (&RecordOptions, u64),
        open: &mut OpenSegment,
    ) -> io::Result<()> {
        let rx_ns = message.rx_ns;
        self.last_ns = self.last_ns.max(rx_ns);
        self.segment_for(rx_ns, (options, run_ns), open)?;
        match &message.what {
            What::Frame(frame) if frame.len() > FRAME_BYTES_MAX => {
                self.record.drop_frames(1, frame.len() as u64);
                let hole = Hole { frames: 1, bytes: frame.len() as u64, from_ns: rx_ns, to_ns: rx_ns };
                self.dropped(hole, "too_long")
            }
            What::Frame(frame) => self.frame(rx_ns, frame, now),
            What::Connected(to) => self.note(rx_ns, &format!("connect {to}")),
            What::Joined => self.note(rx_ns, "joined"),
            What::Disconnected => {
                self.connected = false;
                self.lines(now, |writer| writer.disconnected(rx_ns));
                Ok(())
            }
            What::Left => self.note(rx_ns, "left"),
            What::Gap { gaps } => self.note(rx_ns, &format!("gap gaps={gaps}")),
            What::Dropped(hole) => self.dropped(*hole, "queue_full"),
        }
    }

    fn frame(&mut self, rx_ns: u64, frame: &[u8], now: Now) -> io::Result<()> {
        self.connected = true;
        let mut altered = false;
        self.lines(now, |writer| altered = writer.frame(rx_ns, frame));
        let Some(segment) = &mut self.segment else { return Ok(()) };
        segment.frames += 1;
        segment.frame_bytes += frame.len() as u64;
        if altered {
            segment.altered += 1;
            self.record.altered.add(1);
        }
        if segment.writer.pending_bytes() >= BLOCK_BYTES_MAX {
            return self.flush();
        }
        Ok(())
    }

    /// Adds lines, and notes when the first unwritten one was added.
    fn lines(&mut self, now: Now, add: impl FnOnce(&mut SegmentWriter<Box<dyn Write + Send>>)) {
        let Some(segment) = &mut self.segment else { return };
        if segment.writer.pending_bytes() == 0 {
            segment.began_ns = now.mono_ns;
        }
        add(&mut segment.writer);
    }

    fn dropped(&mut self, hole: Hole, why: &str) -> io::Result<()> {
        let Hole { frames, bytes, from_ns, to_ns } = hole;
        self.told += frames;
        self.note(
            to_ns,
            &format!("dropped frames={frames} bytes={bytes} from_ns={from_ns} to_ns={to_ns} why={why}"),
        )
    }

    /// Ensures that the open segment is the one for this receive time.
    fn segment_for(
        &mut self,
        rx_ns: u64,
        (options, run_ns): (&RecordOptions, u64),
        open: &mut OpenSegment,
    ) -> io::Result<()> {
        let period = rx_ns / options.segment_s.saturating_mul(SECOND).max(1);
        // A clock that steps back across a boundary does not end a file; one that was far ahead and is
        // corrected does.
        let stays = |segment: &OpenedSegment| period == segment.period || period + 1 == segment.period;
        if self.segment.as_ref().is_some_and(stays) {
            return Ok(());
        }
        self.close()?;
        let number = self.number + 1;
        let out = open(&self.folder.join(segment_name(run_ns, number)))?;
        let writer = SegmentWriter::new(out, options.level)?;
        self.number = number;
        self.segment =
            Some(OpenedSegment { writer, period, frames: 0, frame_bytes: 0, began_ns: 0, altered: 0 });
        self.record.segments.add(1);
        let (venue, version) = (self.record.wire, env!("CARGO_PKG_VERSION"));
        self.note(rx_ns, &format!("segment run={run_ns} number={number} venue={venue} by=tickfan-{version}"))
    }

    fn note(&mut self, rx_ns: u64, what: &str) -> io::Result<()> {
        self.flush()?;
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let bytes = segment.writer.note(rx_ns, what)?;
        self.record.bytes.add(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let mut bytes = segment.writer.flush()?;
        self.record.frames.add(segment.frames);
        (segment.frames, segment.frame_bytes) = (0, 0);
        // One note per block: a note per frame would be larger than the frame.
        let altered = std::mem::take(&mut segment.altered);
        if altered > 0 {
            bytes += segment.writer.note(self.last_ns, &format!("altered frames={altered}"))?;
        }
        self.record.bytes.add(bytes);
        Ok(())
    }

    /// Ends the open segment and syncs it to the disk.
    fn close(&mut self) -> io::Result<()> {
        self.flush()?;
        match self.segment.take() {
            Some(segment) => segment.writer.finish()?.flush(),
            None => Ok(()),
        }
    }

    /// Ends the recording of this line: writes the notes still missing and the disconnect, and closes the
    /// segment.
    fn finish(&mut self) -> io::Result<()> {
        let last_ns = self.last_ns;
        let untold = self.record.dropped_frames.get().saturating_sub(self.told);
        if self.segment.is_some() && untold > 0 {
            self.note(last_ns, &format!("dropped frames={untold} why=queue_full"))?;
        }
        if let Some(segment) = self.segment.as_mut().filter(|_| self.connected) {
            segment.writer.disconnected(last_ns);
        }
        self.close()
    }

    /// Ends the recording of a line after a write error; other lines continue.
    fn settle(&mut self, result: io::Result<()>, notices: &mpsc::Sender<String>) {
        let Err(error) = result else { return };
        let why = error.to_string();
        self.ended = true;
        if let Some(segment) = self.segment.take() {
            self.record.drop_frames(segment.frames, segment.frame_bytes);
        }
        if let Ok(mut failed) = self.record.failed.lock() {
            *failed = Some(why.clone());
        }
        // If the channel is full, the counter and the alarm still report it.
        let _ = notices
            .try_send(format!("{}: {why}: nothing more is recorded of it", printable::path(&self.folder)));
    }
}

#[cfg(test)]
mod tests;
