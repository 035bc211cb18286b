//! Faults on purpose, so that tests can see what comes of them. A release build has none of this.

/// Panics, or holds the thread, where text of a client or publisher asks for it by `fault=panic` or `fault=hold`:
/// in a debug build alone, and if `FAULTS_ON_PURPOSE` is set in the environment. That names a file: a thread is
/// held until it exists.
#[inline]
pub fn inject(text: &[u8]) {
    #[cfg(debug_assertions)]
    debug::inject(text);
    #[cfg(not(debug_assertions))]
    let _ = text;
}

#[cfg(debug_assertions)]
mod debug {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    use std::time::Duration;

    static UNTIL: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("FAULTS_ON_PURPOSE").map(PathBuf::from));

    pub(super) fn inject(text: &[u8]) {
        let Some(until) = &*UNTIL else { return };
        let asks = |what: &str| memchr::memmem::find(text, what.as_bytes()).is_some();
        assert!(!asks("fault=panic"), "a fault on purpose");
        while asks("fault=hold") && !until.exists() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}
