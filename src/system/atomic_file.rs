//! Files that are replaced atomically: the old contents stay until the new file is complete, and if it never
//! is.
//!
//! Output goes to a temporary file in the same folder, `.tickfan-<process>-<number>.part`, which is removed
//! if it is dropped. A leftover of a killed process is removed when the next one is created in the folder:
//! the file is locked as long as its process lives.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Prefix and suffix of the name of a temporary file.
const NAME: (&str, &str) = (".tickfan-", ".part");
/// Maximum number of symbolic links followed in a row.
const LINKS_MAX: usize = 16;
/// How often a file is created again after another process removed it as a leftover before it was locked.
const TRIES: usize = 3;

/// A file that is being written. Dropping it before [`commit`](Self::commit) discards it.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    /// The temporary path and the target. `None` for a target that is not a regular file, such as a pipe: it
    /// is written directly.
    place: Option<(PathBuf, PathBuf)>,
}

impl AtomicFile {
    /// Creates a file for `path`, or for the target of a link at `path`. It keeps the permissions of an
    /// existing file.
    ///
    /// # Errors
    /// The I/O error if it cannot be created, or the existing target may not be written: a folder, a file
    /// without that permission.
    pub fn create(path: &Path) -> io::Result<Self> {
        let (target, before) = match fs::metadata(path) {
            Ok(meta) if meta.is_file() => {
                // A file that may not be written may not be replaced either.
                File::options().write(true).open(path)?;
                (path.canonicalize()?, Some(meta))
            }
            // Fails for a folder.
            Ok(_) => return Ok(Self { file: File::create(path)?, place: None }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (behind_links(path), None),
            Err(error) => return Err(error),
        };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        remove_leftovers(folder);
        let (file, part) = begin(folder)?;
        let begun = Self { file, place: Some((part, target)) };
        if let Some(before) = before {
            begun.file.set_permissions(before.permissions())?;
        }
        Ok(begun)
    }

    /// Moves the file to its target.
    ///
    /// # Errors
    /// The I/O error if the file cannot be synced or moved. It is then removed, and the old contents stay.
    pub fn commit(self) -> io::Result<()> {
        Self::commit_all([self])
    }

    /// Moves several files to their targets, after all are on the disk.
    ///
    /// # Errors
    /// As [`commit`](Self::commit). If one cannot be moved, those before it have already been.
    pub fn commit_all<const N: usize>(files: [Self; N]) -> io::Result<()> {
        for file in files.iter().filter(|file| file.place.is_some()) {
            file.file.sync_all()?;
        }
        for mut file in files {
            if let Some((part, target)) = &file.place {
                fs::rename(part, target)?;
                file.place = None;
            }
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.place {
            // An error means that it is already gone.
            let _ = fs::remove_file(part);
        }
    }
}

/// Follows the links at a path whose final target does not exist.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(to) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    path
}

/// Creates a temporary file with a unique name.
fn begin(folder: &Path) -> io::Result<(File, PathBuf)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for _ in 0..TRIES {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}{}-{number}{}", NAME.0, std::process::id(), NAME.1));
        let file = match File::create_new(&path) {
            // A leftover of an earlier process with this id, in a folder that cannot be listed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        // On file systems without locks no process takes it for a leftover.
        let locked = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        // Another process may have checked it between its creation and the lock.
        if locked && path.exists() {
            return Ok((file, path));
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process keeps removing the new file"))
}

/// Removes the leftovers of killed processes from a folder. Files that cannot be opened stay.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| is_name(&entry.file_name())) {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Some(file) = is_file.then(|| File::open(entry.path()).ok()).flatten() else { continue };
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_name(name: &OsStr) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers =
        name.to_str().and_then(|name| name.strip_prefix(NAME.0)?.strip_suffix(NAME.1)?.split_once('-'));
    numbers.is_some_and(|(process, number)| digits(process) && digits(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.expect("one").file_name().into_string().expect("UTF-8");
        let mut names: Vec<String> = fs::read_dir(folder).expect("a folder").map(name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_there_when_it_is_whole_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        for text in ["first", "second"] {
            let mut file = AtomicFile::create(&path).expect("begun");
            file.write_all(text.as_bytes()).expect("written");
            assert_ne!(fs::read_to_string(&path).unwrap_or_default(), text);
            file.commit().expect("moved");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        let mut given_up = AtomicFile::create(&path).expect("begun");
        given_up.write_all(b"third").expect("written");
        assert_eq!(names(folder.path()).len(), 2);
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).expect("there"), "second");
        drop(AtomicFile::create(&folder.path().join("b")).expect("begun"));
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn files_take_their_places_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let begin = |name: &str| AtomicFile::create(&folder.path().join(name)).expect("begun");
        AtomicFile::commit_all([begin("a"), begin("b")]).expect("moved");
        assert_eq!(names(folder.path()), ["a", "b"]);
        // A folder appears at the second target.
        let files = [begin("c"), begin("d")];
        fs::create_dir_all(folder.path().join("d/e")).expect("made");
        AtomicFile::commit_all(files).expect_err("a folder is there");
        assert_eq!(names(folder.path()), ["a", "b", "c", "d"], "and nothing else is left");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        AtomicFile::create(folder.path()).expect_err("a folder");
        AtomicFile::create(&folder.path().join("none/a")).expect_err("no folder");
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_devices_written_and_permissions_kept() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        fs::create_dir(dir.join("real")).expect("made");
        fs::write(dir.join("real/a"), "before").expect("written");
        fs::set_permissions(dir.join("real/a"), fs::Permissions::from_mode(0o640)).expect("set");
        symlink("real/a", dir.join("one")).expect("linked");
        symlink("one", dir.join("two")).expect("linked");
        symlink("real/new", dir.join("dangling")).expect("linked");
        for (link, real) in [("two", "real/a"), ("dangling", "real/new")] {
            let mut file = AtomicFile::create(&dir.join(link)).expect("begun");
            file.write_all(b"after").expect("written");
            file.commit().expect("moved");
            assert!(dir.join(link).is_symlink(), "{link}");
            assert_eq!(fs::read_to_string(dir.join(real)).expect("there"), "after");
        }
        let mode = fs::metadata(dir.join("real/a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(names(&dir.join("real")), ["a", "new"]);
        let mut null = AtomicFile::create(Path::new("/dev/null")).expect("opened");
        null.write_all(b"gone").expect("written");
        null.commit().expect("nothing to move");
        assert!(fs::metadata("/dev/null").expect("there").file_type().is_char_device());
    }

    #[test]
    fn only_what_is_certainly_left_behind_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let others = [".tickfan-1-2.parts", ".tickfan-1.part", ".tickfan-a-1.part", "x.tickfan-1-1.part"];
        for name in [".tickfan-999-0.part", ".tickfan-1-22.part"].iter().chain(&others) {
            fs::write(dir.join(name), "half").expect("written");
        }
        fs::create_dir(dir.join(".tickfan-7-7.part")).expect("made");
        let lives = AtomicFile::create(&dir.join("a")).expect("begun");
        drop(AtomicFile::create(&dir.join("b")).expect("begun"));
        let mut expected: Vec<&str> = others.to_vec();
        let (part, _) = lives.place.clone().expect("a file");
        expected.extend([".tickfan-7-7.part", part.file_name().and_then(OsStr::to_str).expect("a name")]);
        expected.sort_unstable();
        assert_eq!(names(dir), expected);
        lives.commit().expect("nobody took it");
    }
}
