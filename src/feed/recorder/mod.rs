//! Writes down what the feed lines take in, frame by frame, before it is decoded.
//!
//! A [`Tap`] sits in a line. What it is given is copied into a queue that is bounded in messages and bytes, and that is
//! all: no lock, no system call, no waiting. Where the queue is full the frame is not recorded, and the tap remembers the
//! hole. The recorder is a thread of its own ([`Recorder::spawn`]), which looks at the queue every [`LOOK_EVERY_NS`], makes
//! blocks of the lines and writes them ([`SegmentWriter`]). If it falls behind, or the disk does, the recording has
//! a hole that is named in it; if it cannot write, the line's recording ends with an alarm; the feed goes on.

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
use crate::venue::Wire;

/// How often the queue is looked at: the taps wake nobody.
const LOOK_EVERY_NS: u64 = 10 * MS;
/// Messages taken from the queue before the blocks that are due are written.
const MESSAGES_PER_TURN: usize = 4_096;
/// What a line may have in front of its frame, bytes: more, and the reader would skip it.
const FRAME_BYTES_MAX: usize = LINE_BYTES_MAX - 64;
/// Buffers of frames that are kept to be used again, and the largest of them, bytes: what comes in between two looks needs no
/// allocation, and what is kept takes 4 MiB at most.
const SPARES_MAX: usize = 1_024;
const SPARE_BYTES_MAX: usize = 4_096;

/// How to record.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// Where the folders of the lines are.
    pub dir: PathBuf,
    /// Bytes of frames that may wait for the recorder.
    pub queue_bytes_max: usize,
    /// Frames and remarks that may wait for it. Each takes 64 bytes, waiting or not.
    pub queue_frames_max: usize,
    /// Seconds of receive time that a file holds; a new one begins when a multiple of it has passed.
    pub segment_s: u64,
    /// Milliseconds that a frame may stay unwritten.
    pub flush_ms: u64,
    /// zstd's level.
    pub level: i32,
}

/// What is counted of one line's recording.
#[derive(Debug)]
pub struct LineRecord {
    /// The name of its folder.
    pub name: String,
    /// Whose frames they are.
    pub wire: Wire,
    /// Frames that are written: a kill does not lose them.
    pub frames: Counter,
    /// Bytes written.
    pub bytes: Counter,
    /// Files begun.
    pub segments: Counter,
    /// Frames that had line breaks, which are spaces in the recording.
    pub altered: Counter,
    /// Frames that were not recorded, for whatever reason.
    pub dropped_frames: Counter,
    /// Their bytes.
    pub dropped_bytes: Counter,
    /// Why it ended, if it did: nothing more is written.
    failed: Mutex<Option<String>>,
}

impl LineRecord {
    fn new(name: &str, wire: Wire) -> Self {
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

    /// Why its recording ended, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failed.lock().map_or(None, |failed| failed.clone())
    }

    /// One sentence for the operator, if something is missing in the recording.
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

/// What taps and recorder share.
#[derive(Debug)]
struct Queue {
    messages: ArrayQueue<Message>,
    /// Buffers that were written down, on their way back to the taps.
    spares: ArrayQueue<Vec<u8>>,
    /// Bytes of the frames in it.
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
    /// One of the many connections that share the line.
    Left,
    /// The venue lost messages that stand for so many of our numbers.
    Gap {
        gaps: u64,
    },
    Dropped(Hole),
}

/// What a tap could not give to the recorder.
#[derive(Clone, Copy, Debug)]
struct Hole {
    frames: u64,
    bytes: u64,
    from_ns: u64,
    to_ns: u64,
}

/// Where a feed line says what it takes in.
#[derive(Clone, Debug)]
pub struct Tap {
    queue: Arc<Queue>,
    record: Arc<LineRecord>,
    line: u32,
    /// Many connections come through it: that one of them goes is not the end of the others.
    shared: bool,
    hole: Option<Hole>,
}

impl Tap {
    /// A frame, received at `rx_ns`.
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

    /// A connection was made.
    pub fn connected(&mut self, rx_ns: u64, to: &str) {
        self.remark(rx_ns, What::Connected(to.into()));
    }

    /// What comes from here on is of another capture, and something may be missing before it.
    pub(super) fn joined(&mut self, rx_ns: u64) {
        self.remark(rx_ns, What::Joined);
    }

    /// The connection was lost.
    pub fn disconnected(&mut self, rx_ns: u64) {
        self.remark(rx_ns, if self.shared { What::Left } else { What::Disconnected });
    }

    /// The frame before this showed that the venue's sequence or checksum broke.
    pub fn gap(&mut self, rx_ns: u64, gaps: u64) {
        self.remark(rx_ns, What::Gap { gaps });
    }

    fn remark(&mut self, rx_ns: u64, what: What) {
        if !self.tell_hole() || !self.push(rx_ns, what) {
            // A hole says more than what is missing in it.
            self.lose(rx_ns, 0, 0);
        }
    }

    /// Says that something is missing before whatever comes next; false if there is no room even for that.
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

/// Opens the file of a segment, which must be new. Its `flush` brings to the disk what was written.
pub type OpenSegment = Box<dyn FnMut(&Path) -> io::Result<Box<dyn Write + Send>> + Send>;

/// Writes what the taps give. Make the taps, then let it run on a thread of its own ([`spawn`](Self::spawn)), or call
/// [`turn`](Self::turn) by hand.
pub struct Recorder {
    options: RecordOptions,
    queue: Arc<Queue>,
    lines: Vec<RecordedLine>,
    run_ns: u64,
    open: OpenSegment,
    notices: mpsc::Sender<String>,
}

/// A recorder at work.
#[derive(Debug)]
pub struct RecorderThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl RecorderThread {
    /// Lets it write what the taps gave so far, and waits until that is done: as long as the disk takes.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A thread that has panicked has written what it could.
        let _ = self.thread.join();
    }
}

/// What the recorder keeps of one line.
struct RecordedLine {
    record: Arc<LineRecord>,
    folder: PathBuf,
    segment: Option<OpenedSegment>,
    /// Segments begun.
    number: u32,
    /// A frame has come since the last disconnect.
    connected: bool,
    /// It could not be written: nothing more is.
    ended: bool,
    /// Dropped frames that a note names.
    told: u64,
    last_ns: u64,
}

struct OpenedSegment {
    writer: SegmentWriter<Box<dyn Write + Send>>,
    /// Which multiple of the segments' length its lines are of.
    period: u64,
    /// Frames that are not written yet, their bytes, and when the first of them was taken, steady time.
    frames: u64,
    frame_bytes: u64,
    began_ns: u64,
    /// Those of them that had line breaks.
    altered: u64,
}

/// A file that is not done before the disk has it.
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
    /// A recorder without lines, whose run begins at `now`. Troubles are told to `notices`.
    pub fn new(options: RecordOptions, now: Now, notices: mpsc::Sender<String>) -> Self {
        Self::opening(options, now, notices, Box::new(create))
    }

    /// The same with another way to open files.
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

    /// Makes the folder of a line, and its tap. `shared` is for a line that many connections come through.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn tap(&mut self, name: &str, wire: Wire, shared: bool) -> io::Result<Tap> {
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

    /// What is counted, a row a line.
    pub fn records(&self) -> Arc<[Arc<LineRecord>]> {
        self.lines.iter().map(|line| Arc::clone(&line.record)).collect()
    }

    /// Takes in what waits, at most a fair share, and writes the blocks that are due. False if nothing waited.
    pub fn turn(&mut self, now: Now) -> bool {
        let mut took = 0;
        while took < MESSAGES_PER_TURN {
            let Some(message) = self.queue.messages.pop() else { break };
            took += 1;
            self.take(message, now);
        }
        // What was taken a moment ago has waited in the queue for up to one look.
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
            // More than enough are there already.
            let _ = self.queue.spares.push(frame);
        }
    }

    /// Writes everything that still waits, and ends the files.
    pub fn finish(mut self, now: Now) {
        while self.turn(now) {}
        for line in &mut self.lines {
            let finished = line.finish();
            line.settle(finished, &self.notices);
        }
    }

    /// Starts its thread.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn spawn(self, clock: &Clock) -> io::Result<RecorderThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, clock) = (Arc::clone(&stop), clock.clone());
        let thread = std::thread::Builder::new().name("record".to_owned());
        Ok(RecorderThread { stop, thread: thread.spawn(move || self.run(&clock, &told))? })
    }

    /// Records until `stop` is set, then writes what is left. Unparking the thread makes it look at once.
    fn run(mut self, clock: &Clock, stop: &AtomicBool) {
        loop {
            // Looked at before the queue: what was put in before the stop is taken out.
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

    /// Lets lines be added, and remembers since when there are some that are not written.
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

    /// Makes sure that the file that is open is the one for this time.
    fn segment_for(
        &mut self,
        rx_ns: u64,
        (options, run_ns): (&RecordOptions, u64),
        open: &mut OpenSegment,
    ) -> io::Result<()> {
        let period = rx_ns / options.segment_s.saturating_mul(SECOND).max(1);
        // A clock that steps back over the hour does not end a file; one that was far ahead and is put right does.
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
        // Told once a block: a note of its own for each frame would take more than the frame.
        let altered = std::mem::take(&mut segment.altered);
        if altered > 0 {
            bytes += segment.writer.note(self.last_ns, &format!("altered frames={altered}"))?;
        }
        self.record.bytes.add(bytes);
        Ok(())
    }

    /// Ends the file that is open; what was written is on the disk then.
    fn close(&mut self) -> io::Result<()> {
        self.flush()?;
        match self.segment.take() {
            Some(segment) => segment.writer.finish()?.flush(),
            None => Ok(()),
        }
    }

    /// Ends the recording of this line: what no note has named yet, that the connection is gone, and the file.
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

    /// A line that cannot be written is recorded no more; the others are.
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
        // The counter and the alarm tell it too.
        let _ = notices
            .try_send(format!("{}: {why}: nothing more is recorded of it", printable::path(&self.folder)));
    }
}

#[cfg(test)]
mod tests;
