//! Interval logs on disk, limited in number and size. `latency.hlog` is the current one, `latency.1.hlog` the
//! one before it, `latency.2.hlog` the one before that.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::num::{NonZeroU8, NonZeroU64};
use std::path::{Path, PathBuf};

use crate::latency::hlog::HlogWriter;
use crate::latency::hlog::note::Note;

/// Disk space of a journal: `files_max` logs of `bytes_max` and one interval each.
#[derive(Clone, Copy, Debug)]
pub struct JournalLimits {
    /// Size at which a log is rotated, bytes.
    pub bytes_max: NonZeroU64,
    /// Most logs that are kept, including the current one.
    pub files_max: NonZeroU8,
}

/// The interval log of a running gateway. It belongs to one thread that may wait for the disk. The files
/// contain complete intervals after any failure: an interval that cannot be written is omitted, and a log
/// that cannot be rotated stays.
pub struct Journal {
    path: PathBuf,
    limits: JournalLimits,
    start_ns: u64,
    /// First note of each log.
    head: Option<Note>,
    file: File,
    /// Length of the valid part of the file; `u64::MAX` if the file cannot be continued.
    bytes: u64,
    /// The lines of the current interval.
    lines: HlogWriter<Vec<u8>>,
}

impl Journal {
    /// Creates a log at `path`; existing logs of an earlier run are rotated. Intervals count from `start_ns`,
    /// nanoseconds since the Unix epoch. `head` is the first note of each log.
    ///
    /// # Errors
    /// A file cannot be moved or written.
    pub fn create(path: &Path, start_ns: u64, head: Option<Note>, limits: JournalLimits) -> io::Result<Self> {
        let mut lines = HlogWriter::new(Vec::new(), start_ns)?;
        lines.get_mut().clear();
        let (file, bytes) = begin(path, start_ns, head.as_ref(), limits.files_max)?;
        Ok(Self { path: path.to_owned(), limits, start_ns, head, file, bytes, lines })
    }

    /// The writer for the current interval. Times count from the start of the journal.
    pub fn lines(&mut self) -> &mut HlogWriter<Vec<u8>> {
        &mut self.lines
    }

    /// Ends an interval: writes it, and rotates a log that has reached its size. An interval is therefore
    /// never split between two files.
    ///
    /// # Errors
    /// A file cannot be moved or written. The interval is lost if it was not written before; the next one may
    /// succeed.
    pub fn end_interval(&mut self) -> io::Result<()> {
        let lines = std::mem::take(self.lines.get_mut());
        self.follow_if_full()?;
        if let Err(error) = self.file.write_all(&lines) {
            // A partial line would be invalid.
            let cut =
                self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
            if cut.is_err() {
                self.bytes = u64::MAX;
            }
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        self.follow_if_full()
    }

    fn follow_if_full(&mut self) -> io::Result<()> {
        if self.bytes >= self.limits.bytes_max.get() {
            let Self { path, start_ns, head, limits, .. } = self;
            (self.file, self.bytes) = begin(path, *start_ns, head.as_ref(), limits.files_max)?;
        }
        Ok(())
    }
}

/// Creates a new log, and returns it with its length. The others are rotated only once the new file is
/// written.
fn begin(path: &Path, start_ns: u64, head: Option<&Note>, files_max: NonZeroU8) -> io::Result<(File, u64)> {
    let mut header = HlogWriter::new(Vec::new(), start_ns)?;
    head.map_or(Ok(()), |head| header.note(head))?;
    let header = header.into_inner();
    let mut fresh = path.to_owned().into_os_string();
    fresh.push(".new");
    let written = File::create(&fresh).and_then(|mut file| file.write_all(&header).map(|()| file));
    let moved = written.and_then(|file| move_back(path, files_max).map(|()| file));
    let placed = moved.and_then(|file| fs::rename(&fresh, path).map(|()| file));
    match placed {
        Ok(file) => Ok((file, header.len() as u64)),
        Err(error) => {
            // The file may not exist.
            let _ = fs::remove_file(&fresh);
            Err(error)
        }
    }
}

/// Rotates the logs by one; the oldest is removed.
fn move_back(path: &Path, files_max: NonZeroU8) -> io::Result<()> {
    // If one file is allowed, the new one replaces it.
    for at in (0..files_max.get() - 1).rev() {
        match fs::rename(numbered(path, at), numbered(path, at + 1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The path of a log that is `at` logs older than the current one, with the number before the extension.
fn numbered(path: &Path, at: u8) -> PathBuf {
    if at == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!(".{at}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::time::Duration;

    use super::*;
    use crate::latency;
    use crate::latency::hlog::HlogReader;

    const START_NS: u64 = 1_714_564_800_000_000_000;

    fn limits(bytes_max: u64, files_max: u8) -> JournalLimits {
        let bytes_max = NonZeroU64::new(bytes_max).expect("above 0");
        JournalLimits { bytes_max, files_max: NonZeroU8::new(files_max).expect("above 0") }
    }

    /// Writes an interval of two tags for each of these seconds.
    fn write(journal: &mut Journal, seconds: std::ops::Range<u64>) {
        let mut histogram = latency::histogram();
        histogram.record(1_000).expect("in its bounds");
        for second in seconds {
            for tag in ["write", "total"] {
                let start = Duration::from_secs(second);
                journal.lines().write(tag, start, Duration::from_secs(1), &histogram).expect("written");
            }
            journal.end_interval().expect("written");
        }
    }

    /// The seconds since the start that a log contains.
    fn seconds(path: &Path) -> Vec<u64> {
        let mut reader = HlogReader::new(BufReader::new(File::open(path).expect("a log")));
        let next = || reader.next_interval().expect("good lines").map(|interval| interval.start_ns);
        std::iter::from_fn(next).map(|start_ns| (start_ns - START_NS) / 1_000_000_000).collect()
    }

    #[test]
    fn logs_follow_each_other_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latency.hlog");
        // A log is rotated after its second interval.
        let mut journal = Journal::create(&path, START_NS, None, limits(500, 3)).expect("created");
        write(&mut journal, 0..9);
        assert_eq!(seconds(&path), [8, 8]);
        assert_eq!(seconds(&folder.path().join("latency.1.hlog")), [6, 6, 7, 7]);
        assert_eq!(seconds(&folder.path().join("latency.2.hlog")), [4, 4, 5, 5]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
    }

    #[test]
    fn what_cannot_be_written_is_left_out_and_moves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("logs");
        let path = inside.join("latency.hlog");
        assert!(Journal::create(&path, START_NS, None, limits(500, 3)).is_err(), "there is no such folder");
        fs::create_dir(&inside).expect("created");
        let mut journal = Journal::create(&path, START_NS, None, limits(500, 3)).expect("created");
        write(&mut journal, 0..1);
        // A new log is due, and its folder is gone.
        let away = folder.path().join("away");
        fs::rename(&inside, &away).expect("moved");
        for second in 1..5 {
            let histogram = latency::histogram();
            let start = Duration::from_secs(second);
            journal.lines().write("write", start, Duration::from_secs(1), &histogram).expect("noted");
            journal.lines().write("total", start, Duration::from_secs(1), &histogram).expect("noted");
            assert!(journal.end_interval().is_err(), "second {second}");
        }
        fs::rename(&away, &inside).expect("moved");
        write(&mut journal, 5..6);
        assert_eq!(seconds(&path), [5, 5]);
        // The first interval whose rotation failed was itself written.
        assert_eq!(seconds(&inside.join("latency.1.hlog")), [0, 0, 1, 1]);
        assert_eq!(fs::read_dir(&inside).expect("a folder").count(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_costs_the_interval_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latency.hlog");
        let mut journal = Journal::create(&path, START_NS, None, limits(1 << 20, 3)).expect("created");
        write(&mut journal, 0..1);
        // Every write fails with "no space left on device".
        let full = File::options().write(true).open("/dev/full").expect("a device");
        let good = std::mem::replace(&mut journal.file, full);
        journal.lines().write("write", Duration::ZERO, Duration::ZERO, &latency::histogram()).expect("noted");
        assert!(journal.end_interval().is_err());
        drop(good);
        write(&mut journal, 2..3);
        assert_eq!(seconds(&path), [2, 2], "a device cannot be cut, so there is a new one");
        assert_eq!(seconds(&folder.path().join("latency.1.hlog")), [0, 0]);
    }

    #[test]
    fn an_earlier_run_is_kept_where_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latency");
        for _ in 0..3 {
            write(&mut Journal::create(&path, START_NS, None, limits(1 << 20, 2)).expect("created"), 0..1);
        }
        assert_eq!(seconds(&folder.path().join("latency.1")), [0, 0]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
        write(&mut Journal::create(&path, START_NS, None, limits(1, 1)).expect("created"), 0..1);
        assert_eq!(seconds(&path), [0; 0], "a new one has begun in its place");
    }
}
