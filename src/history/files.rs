//! The files of a history: `history-<when the run began>.<number>.ticks`, in a folder of their own among the recordings, whose
//! name no pattern of a shell takes: they are no captures. Each begins with a line that names its kind, and is locked by its
//! run as long as that lives: this separates what a killed run left from what is another's.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::text::printable;

/// What each file begins with.
pub(super) const HEAD: &[u8] = b"tickfan history of one run, removed at its end\n";

/// The folder of the files, in that of the recordings. No catalog of captures takes a hidden one.
pub(super) const HIDDEN: &str = ".history";
/// What stands around the numbers in the name of a file.
const NAME: (&str, &str) = ("history-", ".ticks");
/// How often a file is begun anew that another run took for a leftover before it was locked.
const TRIES: u64 = 3;

/// Where the files of a run are.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    run_ns: u64,
}

impl Folder {
    /// Makes the folder among these recordings, and removes from it what runs left behind that were killed; and from beside
    /// them, where files of a history lay before they had a folder.
    ///
    /// # Errors
    /// When it cannot be made or read. A file that cannot be removed stays.
    pub(super) fn prepare(recordings: &Path, run_ns: u64) -> io::Result<Self> {
        let dir = recordings.join(HIDDEN);
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", printable::path(&dir)));
        fs::create_dir_all(&dir).map_err(named)?;
        sweep(&dir).map_err(named)?;
        sweep(recordings).map_err(named)?;
        Ok(Self { dir, run_ns })
    }

    /// The file of a number.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}{}.{number}{}", NAME.0, self.run_ns, NAME.1))
    }

    /// Begins the file of a number, which must be new.
    ///
    /// # Errors
    /// When it cannot be made or locked.
    pub(super) fn create(&self, number: u64) -> io::Result<File> {
        let path = self.path(number);
        for _ in 0..TRIES {
            // Another run that ends takes the folder along if nothing is in it.
            fs::create_dir_all(&self.dir)?;
            let mut file = match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            // Where there are no locks, nobody takes it for a leftover.
            let locked = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            file.write_all(HEAD).inspect_err(|_| self.remove(number))?;
            // Another run may have looked between the making and the lock.
            if locked && path.exists() {
                return Ok(file);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "another run removes what this one begins"))
    }

    /// Removes the file of a number.
    pub(super) fn remove(&self, number: u64) {
        // What is gone already is as well.
        let _ = fs::remove_file(self.path(number));
    }

    /// Removes the folder, if no other run has files in it.
    pub(super) fn leave(&self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Removes from a folder what runs left behind that were killed.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_name(&path) && is_leftover(&path).unwrap_or(false) {
            // It stays where it may be read but not removed.
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

/// Whether a file of such a name is a history's, and of a run that is no more.
fn is_leftover(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    (&mut file).take(HEAD.len() as u64).read_to_end(&mut head)?;
    // One that was killed at its very begin has less.
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

    /// The names of what is in a folder.
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
        // Another run that lives.
        let other = Folder::prepare(&recordings.join("other"), 6).expect("a folder");
        let lives = other.create(1).expect("a file");
        // Where they are, and beside the recordings, where they were.
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
        // Once that run is gone, its file goes.
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
