//! Thread priorities.

/// Lowers the priority of the calling thread, and of threads it starts, where the system can.
pub fn lower_priority() {
    // If this fails, the thread runs at normal priority and only ends sooner.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}
