//! The files of a history: `history-<start of the run>.<number>.ticks`. They are in a hidden folder among the
//! recordings, which shell patterns do not match, since they are not captures. Each begins with a line that
//! identifies its type, and is locked by its run while that is alive: this distinguishes the leftovers of
//! killed runs from the files of others.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::text::printable;

/// The first line of each file.
pub(super) const HEAD: &[u8] = b"tickfan history of one run, removed at its end\n";

/// The folder of the files, in that of the recordings. Catalogs of captures skip hidden folders.
pub(super) const HIDDEN: &str = ".history";
/// Prefix and suffix of a file name.
const NAME: (&str, &str) = ("history-", ".ticks");
/// How often a file is created again after another run removed it as a leftover before it was locked.
const TRIES: u64 = 3;

/// The folder of a run's files.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    run_ns: u64,
}

impl Folder {
    /// Creates the folder among these recordings, and removes the leftovers of killed runs from it, and from
    /// the recordings' own folder, where earlier versions put them.
    ///
    /// # Errors
    /// The I/O error if it cannot be created or read. A file that cannot be removed stays.
    pub(super) fn prepare(recordings: &Path, run_ns: u64) -> io::Result<Self> {
        let dir = recordings.join(HIDDEN);
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", printable::path(&dir)));
        fs::create_dir_all(&dir).map_err(named)?;
        sweep(&dir).map_err(named)?;
        sweep(recordings).map_err(named)?;
        Ok(Self { dir, run_ns })
    }

    /// Returns the path of the file with this number.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}{}.{number}{}", NAME.0, self.run_ns, NAME.1))
    }

    /// Creates the file with this number, which must not exist.
    ///
    /// # Errors
    /// The I/O error if it cannot be created or locked.
    pub(super) fn create(&self, number: u64) -> io::Result<File> {
        let path = self.path(number);
        for _ in 0..TRIES {
            // Another run that ends removes the folder if it is empty.
            fs::create_dir_all(&self.dir)?;
            let mut file = match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            // On file systems without locks no run takes it for a leftover.
            let locked = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            file.write_all(HEAD).inspect_err(|_| self.remove(number))?;
            // Another run may have checked it between its creation and the lock.
            if locked && path.exists() {
                return Ok(file);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "another run keeps removing the new file"))
    }

    /// Removes the file with this number.
    pub(super) fn remove(&self, number: u64) {
        // An error means that it is already gone.
        let _ = fs::remove_file(self.path(number));
    }

    /// Removes the folder, if no other run has files in it.
    pub(super) fn leave(&self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Removes the leftovers of killed runs from a folder.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_name(&path) && is_leftover(&path).unwrap_or(false) {
            // A file that can be read but not removed stays.
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn is_name(path: &Path) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = path.file_name().and_then(|name| name.to_str());
    let numbers = name.and_then(|name| name.strip_prefix(NAME.0)?.strip_suffix(NAME.1)?.split_once('.'));
    numbers.is_some_and(|(run, number)| digits(run) && digits(number))
}

/// Returns true if a file with such a name belongs to a history whose run has ended.
fn is_leftover(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    (&mut file).take(HEAD.len() as u64).read_to_end(&mut head)?;
    // A run killed right at the start has written less.
    if !HEAD.starts_with(&head) {
        return Ok(false);
    }
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of the entries of a folder.
    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn only_what_is_certainly_left_behind_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let recordings = folder.path();
        let hidden = recordings.join(HIDDEN);
        fs::create_dir(&hidden).expect("a folder");
        let whole = [HEAD, b"blocks"].concat();
        let others = [
            "history-4.1.ticks",
            "history-1.ticks",
            "history-a.1.ticks",
            "history-1.1.ticks.gz",
            "history-.1.ticks",
            "my-history-1.1.ticks",
        ];
        // A run that is still alive.
        let other = Folder::prepare(&recordings.join("other"), 6).expect("a folder");
        let lives = other.create(1).expect("a file");
        // In their folder, and beside the recordings, where earlier versions put them.
        for dir in [&hidden, recordings] {
            let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("written");
            for name in ["history-1.1.ticks", "history-1.22.ticks"] {
                put(name, &whole);
            }
            put("history-2.1.ticks", &HEAD[..9]);
            put("history-3.1.ticks", b"");
            put(others[0], b"my own notes");
            others[1..].iter().for_each(|name| put(name, &whole));
            fs::create_dir(dir.join("history-5.1.ticks")).expect("a folder");
            fs::hard_link(other.path(1), dir.join("history-6.1.ticks")).expect("linked");
        }

        let own = Folder::prepare(recordings, 7).expect("a folder");
        let mut expected: Vec<&str> = others.to_vec();
        expected.extend(["history-5.1.ticks", "history-6.1.ticks"]);
        expected.sort_unstable();
        assert_eq!(names(&hidden), expected);
        expected.extend(["other", HIDDEN]);
        expected.sort_unstable();
        assert_eq!(names(recordings), expected);
        // After the end of that run its file is removed.
        drop(lives);
        Folder::prepare(recordings, 7).expect("a folder");
        for dir in [&hidden, recordings] {
            assert!(!dir.join("history-6.1.ticks").exists());
        }
        let file = own.create(3).expect("a file");
        assert_eq!(fs::read(own.path(3)).expect("there"), HEAD);
        Folder::prepare(recordings, 8).expect("a folder");
        assert!(own.path(3).exists(), "a run that lives keeps its files");
        assert!(own.create(3).is_err(), "nothing is written over");
        drop(file);
        own.remove(3);
        own.remove(3);
        assert!(!own.path(3).exists());
    }

    #[test]
    fn the_folder_goes_with_the_last_run_and_comes_back_with_the_next_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let runs = [1, 2].map(|run| Folder::prepare(folder.path(), run).expect("a folder"));
        let file = runs[0].create(1).expect("a file");
        runs[1].leave();
        assert_eq!(names(folder.path()), [HIDDEN], "the other has a file in it");
        drop(file);
        runs[0].remove(1);
        runs[0].leave();
        assert!(names(folder.path()).is_empty());
        runs[1].create(1).expect("a file");
        assert!(runs[1].path(1).starts_with(folder.path().join(HIDDEN)));
    }
}
