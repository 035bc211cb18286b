//! Interval logs on disk: a newest one, and older ones behind it, bounded in number and size. `latency.hlog` is written;
//! `latency.1.hlog` is the one before it, `latency.2.hlog` the one before that.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::num::{NonZeroU8, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::latency::hlog::Writer;

/// What a journal may take of the disk: `files_max` logs of `bytes_max` and one interval each.
#[derive(Clone, Copy, Debug)]
pub struct JournalLimits {
    /// Bytes from which on a log is followed by a new one.
    pub bytes_max: NonZeroU64,
    /// Logs that are kept, the newest counted.
    pub files_max: NonZeroU8,
}

/// The interval log of a running gateway. It belongs to one thread that may wait for the disk.
pub struct Journal {
    path: PathBuf,
    limits: JournalLimits,
    start_ns: u64,
    writer: Writer<BufWriter<File>>,
}

impl Journal {
    /// Begins a log at `path`. What is there, of an earlier run, moves back by one. Intervals count from `start_ns`,
    /// nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// A file that cannot be moved or written.
    pub fn create(path: &Path, start_ns: u64, limits: JournalLimits) -> io::Result<Self> {
        let writer = begin(path, start_ns, limits.files_max)?;
        Ok(Self { path: path.to_owned(), limits, start_ns, writer })
    }

    /// Notes what was measured under a tag in the `duration` that began `since_start` after the start, values in
    /// nanoseconds.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write(
        &mut self,
        tag: &str,
        since_start: Duration,
        duration: Duration,
        histogram: &Histogram<u64>,
    ) -> io::Result<()> {
        self.writer.write(tag, since_start, duration, histogram)
    }

    /// Ends an interval: what was noted can be read from now on, and a log that has become too long is followed by a new
    /// one. So an interval is never torn between two files.
    ///
    /// # Errors
    /// A file that cannot be moved or written.
    pub fn end_interval(&mut self) -> io::Result<()> {
        let out = self.writer.get_mut();
        out.flush()?;
        if out.get_ref().metadata()?.len() >= self.limits.bytes_max.get() {
            self.writer = begin(&self.path, self.start_ns, self.limits.files_max)?;
        }
        Ok(())
    }
}

/// Moves the logs back by one, the oldest out, and begins a new one.
fn begin(path: &Path, start_ns: u64, files_max: NonZeroU8) -> io::Result<Writer<BufWriter<File>>> {
    let last = files_max.get() - 1;
    // With one file allowed, the new one takes its place.
    for at in (0..last).rev() {
        match fs::rename(numbered(path, at), numbered(path, at + 1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), start_ns)?;
    writer.get_mut().flush()?;
    Ok(writer)
}

/// The path of a log that is so many behind the newest: the number stands before the extension.
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

    use super::*;
    use crate::latency;
    use crate::latency::hlog::Reader;

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
                journal.write(tag, start, Duration::from_secs(1), &histogram).expect("written");
            }
            journal.end_interval().expect("written");
        }
    }

    /// The seconds since the start that a log holds.
    fn seconds(path: &Path) -> Vec<u64> {
        let mut reader = Reader::new(BufReader::new(File::open(path).expect("a log")));
        let next = || reader.next_interval().expect("good lines").map(|interval| interval.start_ns);
        std::iter::from_fn(next).map(|start_ns| (start_ns - START_NS) / 1_000_000_000).collect()
    }

    #[test]
    fn logs_follow_each_other_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latency.hlog");
        // A log is too long after its second interval.
        let mut journal = Journal::create(&path, START_NS, limits(500, 3)).expect("created");
        write(&mut journal, 0..9);
        assert_eq!(seconds(&path), [8, 8]);
        assert_eq!(seconds(&folder.path().join("latency.1.hlog")), [6, 6, 7, 7]);
        assert_eq!(seconds(&folder.path().join("latency.2.hlog")), [4, 4, 5, 5]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
    }

    #[test]
    fn an_earlier_run_is_kept_where_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latency");
        for _ in 0..3 {
            write(&mut Journal::create(&path, START_NS, limits(1 << 20, 2)).expect("created"), 0..1);
        }
        assert_eq!(seconds(&folder.path().join("latency.1")), [0, 0]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
        write(&mut Journal::create(&path, START_NS, limits(1, 1)).expect("created"), 0..1);
        assert_eq!(seconds(&path), [0; 0], "a new one has begun in its place");
    }
}
