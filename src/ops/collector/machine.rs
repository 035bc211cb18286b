//! Description of the program and the machine, for the head of the log.

use std::path::Path;

use crate::latency::hlog::note::{Build, Head, Machine, NotedMoment, VERSION, bounded};
use crate::time::clock::MS;

/// The head of a log of a run that started at `start_ns`, nanoseconds since the Unix epoch. It reads files of
/// the system.
pub(super) fn head(start_ns: u64, interval_ns: u64, flights: Option<&Path>) -> Head {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Head {
        version: VERSION,
        at: NotedMoment(start_ns),
        interval_ms: interval_ns / MS,
        build: Build { version: env!("CARGO_PKG_VERSION").to_owned(), profile: profile.to_owned() },
        machine: Machine {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            kernel: told("/proc/sys/kernel/osrelease").map(|text| bounded(text.trim())),
            cpu: told("/proc/cpuinfo").as_deref().and_then(model),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        },
        flights: flights.map(|dir| bounded(&dir.to_string_lossy())),
    }
}

/// The content of a file of the system, if it exists.
fn told(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The processor model, under the keys that different architectures use.
fn model(cpuinfo: &str) -> Option<String> {
    let named = |name: &str| {
        let row = |line: &'_ str| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name && !value.trim().is_empty()).then(|| bounded(value.trim()))
        };
        cpuinfo.lines().find_map(row)
    };
    ["model name", "Hardware", "cpu model", "Model"].into_iter().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_under_its_names() {
        let intel = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: B\n";
        assert_eq!(model(intel).as_deref(), Some("A CPU @ 2.00GHz"));
        assert_eq!(model("processor : 0\nHardware : BCM2835\nModel : Pi\n").as_deref(), Some("BCM2835"));
        assert_eq!(model("CPU part\t: 0xd0c\nmodel name :  \n"), None);
    }
}
