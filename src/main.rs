//! The `tickfan` program.

use std::process::ExitCode;

#[cfg(all(feature = "mimalloc", not(feature = "heap-count")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts, without a limit.
#[cfg(feature = "heap-count")]
#[global_allocator]
static ALLOCATOR: cap::Cap<mimalloc::MiMalloc> = cap::Cap::new(mimalloc::MiMalloc, usize::MAX);

fn main() -> ExitCode {
    // Transparent huge pages would increase the memory of many clients and do not make a write cheaper. On
    // failure only more memory is used.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    #[cfg(feature = "heap-count")]
    tickfan::system::memory::count_heap_by(|| ALLOCATOR.allocated() as u64);
    tickfan::cli::main()
}
