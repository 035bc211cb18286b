//! Threads that are in no hurry.

/// Lets all other threads go first, where the system can; whatever the calling thread starts does as it does.
pub fn lower_priority() {
    // Who is not let step back goes as fast as the others: it ends all the sooner.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}
