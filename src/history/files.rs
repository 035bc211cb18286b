//! The files of a history: `history-<when the run began>.<number>.ticks`. Each begins with a line that says what it is, and
//! is locked by its run as long as that lives: so what is left of one that was killed can be told from what is another's.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::printable;

/// What each file begins with.
pub(super) const HEAD: &[u8] = b"tickfan history of one run, removed at its end\n";

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
    /// Makes the folder, and removes from it what runs left behind that were killed.
    ///
    /// # Errors
    /// When it cannot be made or read. A file that cannot be removed stays.
    pub(super) fn prepare(dir: &Path, run_ns: u64) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", printable::path(dir)));
        fs::create_dir_all(dir).map_err(named)?;
        for entry in fs::read_dir(dir).map_err(named)? {
            let path = entry.map_err(named)?.path();
            if is_name(&path) && is_leftover(&path).unwrap_or(false) {
                // Whoever may read it but not remove it has it stay.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(Self { dir: dir.to_owned(), run_ns })
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
            let mut file = File::create_new(&path)?;
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

    #[test]
    fn only_what_is_certainly_left_behind_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("written");
        let whole = [HEAD, b"blocks"].concat();
        for name in ["history-1.1.ticks", "history-1.22.ticks"] {
            put(name, &whole);
        }
        put("history-2.1.ticks", &HEAD[..9]);
        put("history-3.1.ticks", b"");
        let others = [
            "history-4.1.ticks",
            "history-1.ticks",
            "history-a.1.ticks",
            "history-1.1.ticks.gz",
            "history-.1.ticks",
            "my-history-1.1.ticks",
        ];
        put(others[0], b"my own notes");
        others[1..].iter().for_each(|name| put(name, &whole));
        fs::create_dir(dir.join("history-5.1.ticks")).expect("a folder");
        // Another run that lives.
        let other = Folder::prepare(&dir.join("other"), 6).expect("a folder");
        let lives = other.create(1).expect("a file");
        let linked = dir.join("history-6.1.ticks");
        fs::hard_link(other.path(1), &linked).expect("linked");

        let own = Folder::prepare(dir, 7).expect("a folder");
        let mut left: Vec<String> = fs::read_dir(dir)
            .expect("readable")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        left.sort_unstable();
        let mut expected: Vec<&str> = others.to_vec();
        expected.extend(["history-5.1.ticks", "history-6.1.ticks", "other"]);
        expected.sort_unstable();
        assert_eq!(left, expected);
        // Once that run is gone, its file goes.
        drop(lives);
        Folder::prepare(dir, 7).expect("a folder");
        assert!(!linked.exists());
        let file = own.create(3).expect("a file");
        assert_eq!(fs::read(own.path(3)).expect("there"), HEAD);
        Folder::prepare(dir, 8).expect("a folder");
        assert!(own.path(3).exists(), "a run that lives keeps its files");
        assert!(own.create(3).is_err(), "nothing is written over");
        drop(file);
        own.remove(3);
        own.remove(3);
        assert!(!own.path(3).exists());
    }
}
