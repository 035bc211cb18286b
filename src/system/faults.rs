//! Fault injection for tests. A release build does not contain it.

/// Panics, or blocks the thread, if text from a client or publisher contains `fault=panic` or `fault=hold`:
/// only in a debug build, and only if `FAULTS_ON_PURPOSE` is set in the environment. The variable names a
/// file: a thread is blocked until that exists.
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
