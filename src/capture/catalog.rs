//! A folder of captures, requested by name. A requested name is compared with the names of the folder's
//! entries and never made into a path; entries that lead outside the folder are left out.

use std::collections::HashMap;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::reader::CaptureReader;
use super::segment::segments;

/// The longest listed name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A capture in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The name to request it by: that of its file or folder.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Its size on disk, in bytes.
    pub bytes: u64,
}

/// The contents of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The captures, sorted by name.
    pub titles: Vec<CatalogEntry>,
    /// The folder has more entries than `entries_max`.
    pub more: bool,
}

impl Listing {
    /// Returns the capture of exactly this name.
    pub fn find(&self, name: &str) -> Option<&CatalogEntry> {
        self.titles.iter().find(|title| title.name == name)
    }
}

/// The result of inspecting an entry, with the size and time that identify its version.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    bytes: u64,
    modified: Option<SystemTime>,
    is_capture: bool,
}

/// A folder of captures.
pub struct Catalog {
    dir: PathBuf,
    entries_max: usize,
    /// Entries inspected before, by name: decompressing the beginning of each file on each listing would be
    /// slow.
    known: HashMap<String, Look>,
}

impl Catalog {
    /// Returns a catalog of `dir`, of which at most `entries_max` entries are inspected.
    ///
    /// # Errors
    /// The I/O error if the folder does not exist or cannot be read.
    pub fn open(dir: &Path, entries_max: usize) -> io::Result<Self> {
        let dir = dir.canonicalize()?;
        fs::read_dir(&dir)?;
        Ok(Self { dir, entries_max, known: HashMap::new() })
    }

    /// Returns the current contents: files and folders of recordings that can be replayed. Only new and
    /// changed entries are opened.
    ///
    /// # Errors
    /// The I/O error if the folder cannot be read. An entry that cannot be read is left out.
    pub fn list(&mut self) -> io::Result<Listing> {
        let mut entries = fs::read_dir(&self.dir)?;
        let mut listing = Listing::default();
        let mut known = HashMap::new();
        for entry in entries.by_ref().take(self.entries_max) {
            let Some((title, look)) = self.look_at(&entry?) else { continue };
            known.insert(title.name.clone(), look);
            if look.is_capture {
                listing.titles.push(title);
            }
        }
        listing.more = entries.next().is_some();
        listing.titles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.known = known;
        Ok(listing)
    }

    fn look_at(&self, entry: &DirEntry) -> Option<(CatalogEntry, Look)> {
        let name = entry.file_name().into_string().ok().filter(|name| is_name(name))?;
        let (path, meta) = self.inside(entry)?;
        let (bytes, modified) = if meta.is_dir() {
            self.recording(&path)?
        } else if meta.is_file() {
            (meta.len(), meta.modified().ok())
        } else {
            // Opening a named pipe would block until it has a writer.
            return None;
        };
        let known = self.known.get(&name).filter(|known| (known.bytes, known.modified) == (bytes, modified));
        let is_capture = || CaptureReader::open(&path).is_ok_and(|reader| reader.venue().is_some());
        let is_capture = known.map_or_else(is_capture, |known| known.is_capture);
        Some((CatalogEntry { name, path, bytes }, Look { bytes, modified, is_capture }))
    }

    /// Returns the target of an entry, if it is within the folder.
    fn inside(&self, entry: &DirEntry) -> Option<(PathBuf, Metadata)> {
        let mut path = entry.path();
        if entry.file_type().ok()?.is_symlink() {
            path = path.canonicalize().ok()?;
            if !path.starts_with(&self.dir) || path == self.dir {
                return None;
            }
        }
        let meta = fs::metadata(&path).ok()?;
        Some((path, meta))
    }

    /// Returns the size of a recording in bytes and the time of its last change, if it is one and all of it
    /// is within the folder.
    fn recording(&self, folder: &Path) -> Option<(u64, Option<SystemTime>)> {
        let segments = segments(folder).ok()?;
        let (mut bytes, mut newest) = (0, None);
        // A recording with more files than the limit on entries is not scanned for each request.
        if segments.len() > self.entries_max {
            return None;
        }
        for segment in &segments {
            let mut meta = fs::symlink_metadata(segment).ok()?;
            if meta.is_symlink() {
                let path = segment.canonicalize().ok().filter(|path| path.starts_with(&self.dir))?;
                meta = fs::metadata(path).ok()?;
            }
            let meta = Some(meta).filter(Metadata::is_file)?;
            bytes += meta.len();
            newest = newest.max(meta.modified().ok());
        }
        (!segments.is_empty()).then_some((bytes, newest))
    }
}

/// Returns true if a name can be requested: in a list, and in a URL. Hidden entries cannot.
fn is_name(name: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, ',' | '/' | '\\' | char::REPLACEMENT_CHARACTER);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && !name.chars().any(odd)
}

#[cfg(test)]
mod tests {
    use super::super::SegmentWriter;
    use super::*;

    const FRAME: &str = r#"{"type":"match","trade_id":9,"side":"buy","size":"1","price":"10.10","product_id":"A-USD","sequence":1}"#;

    fn capture() -> String {
        format!("2024-05-01T12:00:00.0000010Z {FRAME}\n")
    }

    fn segment() -> Vec<u8> {
        let mut segment = SegmentWriter::new(Vec::new(), 1).expect("a writer");
        segment.frame(1_714_564_800_000_001_000, FRAME.as_bytes());
        segment.finish().expect("written")
    }

    fn names(catalog: &mut Catalog) -> Vec<String> {
        catalog.list().expect("listed").titles.into_iter().map(|title| title.name).collect()
    }

    #[test]
    fn what_can_be_replayed_is_listed_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
        let capture = capture();
        write("b.txt", &capture);
        write("a", &capture);
        write("README.md", "# no capture\n");
        write("empty", "");
        write(".hidden", &capture);
        write("a,b", &capture);
        write(&"x".repeat(NAME_BYTES_MAX + 1), &capture);
        fs::create_dir(dir.join("folder")).expect("made");
        fs::create_dir(dir.join("recording")).expect("made");
        fs::write(dir.join("recording/2024-00001.zst"), segment()).expect("written");
        let mut catalog = Catalog::open(dir, 100).expect("opened");
        assert_eq!(names(&mut catalog), ["a", "b.txt", "recording"]);
        let listing = catalog.list().expect("listed");
        let title = listing.find("recording").expect("there");
        assert_eq!(title.bytes, segment().len() as u64);
        assert_eq!(title.path, dir.canonicalize().expect("there").join("recording"));
        assert!(!listing.more);
        for hostile in ["", ".", "..", "../a", "./a", "/a", "a\0", "A", "recording/2024-00001.zst"] {
            assert_eq!(listing.find(hostile), None, "{hostile}");
        }
        // Changed entries are inspected again.
        write("README.md", &capture);
        fs::remove_file(dir.join("a")).expect("removed");
        assert_eq!(names(&mut catalog), ["README.md", "b.txt", "recording"]);
        let few = Catalog::open(dir, 2).expect("opened").list().expect("listed");
        assert!(few.more && few.titles.len() <= 2);
        assert!(Catalog::open(&dir.join("nowhere"), 2).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn what_leads_out_of_the_folder_is_not_there() {
        use std::os::unix::fs::symlink;
        let (outside, folder) =
            (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let dir = folder.path();
        fs::write(outside.path().join("secret.zst"), capture()).expect("written");
        fs::write(dir.join("own.zst"), capture()).expect("written");
        let link = |to: &Path, name: &str| symlink(to, dir.join(name)).expect("linked");
        link(&outside.path().join("secret.zst"), "file");
        link(outside.path(), "folder");
        link(Path::new("../../../../../../../../etc/passwd"), "up");
        link(Path::new("nowhere"), "broken");
        link(Path::new("loop"), "loop");
        link(Path::new("."), "itself");
        link(Path::new("own.zst"), "inside");
        fs::create_dir(dir.join("recording")).expect("made");
        fs::write(dir.join("recording/00001.zst"), segment()).expect("written");
        link(&outside.path().join("secret.zst"), "recording/00002.zst");
        assert_eq!(names(&mut Catalog::open(dir, 100).expect("opened")), ["inside", "own.zst"]);
    }
}
