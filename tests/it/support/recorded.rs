//! Recorded captures of venues. They do not ship with the project: `docs/CAPTURES.md` says where they come from. The tests that
//! need them are ignored, and `make test` runs them where the captures are.

use std::path::PathBuf;

/// The recorded captures of these names, in the folder that `TICKFAN_FEEDS` names, which `make test` sets.
///
/// # Panics
/// Where one is missing: a test without what it needs must not pass.
pub(crate) fn recorded<const N: usize>(names: [&str; N]) -> [PathBuf; N] {
    let folder = std::env::var_os("TICKFAN_FEEDS").map(PathBuf::from);
    let folder = folder.expect("TICKFAN_FEEDS names the folder of the recorded captures");
    names.map(|name| {
        let file = folder.join(name);
        assert!(file.exists(), "TICKFAN_FEEDS has no {}", file.display());
        file
    })
}
