//! The external limit on the memory of this process, and its use: `/proc` and cgroups, versions 2 and 1.

use std::fs;
use std::path::{Path, PathBuf};

/// The bound as a percentage of a cgroup's limit: the rest is for short peaks of the kernel, and for dirty
/// file pages.
const CGROUP_PERCENT: u64 = 90;
/// The bound as a percentage of the machine's memory: other processes need memory too.
const MACHINE_PERCENT: u64 = 75;

/// The origin of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundOrigin {
    /// `limits.memory_bytes_max`.
    Configured,
    /// The limit of the cgroup.
    Cgroup,
    /// The memory of the machine.
    Machine,
    /// The system reports no amount: there is no bound.
    Unknown,
}

/// The bound on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBound {
    /// Bytes; [`u64::MAX`] means no bound.
    pub bytes: u64,
    /// Its origin.
    pub origin: BoundOrigin,
    /// What it was derived from, in bytes: the limit of the cgroup, the memory of the machine, or the
    /// configured value.
    pub of_bytes: u64,
}

/// The memory in use, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Memory of the process that is not file-backed.
    pub process: u64,
    /// Memory charged to the cgroup, without droppable file pages; 0 if the cgroup does not set the bound.
    pub cgroup: u64,
}

impl MemoryUse {
    /// Returns the greater of two figures: the memory of the process plus the kernel's for it
    /// (`kernel_bytes`), and the charge of the cgroup.
    pub fn bytes(self, kernel_bytes: u64) -> u64 {
        self.process.saturating_add(kernel_bytes).max(self.cgroup)
    }
}

/// The file names of a cgroup's memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// The fields of `memory.stat` with droppable file pages.
    droppable: [&'static str; 2],
}

const VERSION_2: Files =
    Files { limit: "memory.max", usage: "memory.current", droppable: ["inactive_file", "active_file"] };
const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    droppable: ["total_inactive_file", "total_active_file"],
};

/// The cgroup with the lowest limit among that of the process and its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cgroup {
    dir: PathBuf,
    files: Files,
    limit_bytes: u64,
}

/// Reads the limit and the use of memory. If the system reports none, there is no bound.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    cgroup: Option<Cgroup>,
    machine_bytes: Option<u64>,
    /// The bound comes from the cgroup, so the charge of the cgroup counts.
    by_cgroup: bool,
}

impl Gauge {
    /// Finds the cgroup and the memory of the machine.
    pub fn find() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let machine_bytes = kib_of(&read("/proc/meminfo"), "MemTotal");
        let dirs = dirs_of(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let limits = dirs.into_iter().filter_map(|(dir, files)| {
            let limit_bytes: u64 = fs::read_to_string(dir.join(files.limit)).ok()?.trim().parse().ok()?;
            // Version 1 reports a number above all memory if there is no limit.
            let is_one = machine_bytes.is_none_or(|machine| limit_bytes < machine);
            is_one.then_some(Cgroup { dir, files, limit_bytes })
        });
        let cgroup = limits.min_by_key(|cgroup| cgroup.limit_bytes);
        Self { cgroup, machine_bytes, by_cgroup: false }
    }

    /// Returns the bound: as configured, or derived if that is 0.
    pub fn bound(&mut self, configured_bytes: u64) -> MemoryBound {
        let derived = |of_bytes: u64, percent, origin| MemoryBound {
            bytes: of_bytes / 100 * percent,
            origin,
            of_bytes,
        };
        let bound = match (configured_bytes, &self.cgroup, self.machine_bytes) {
            (1.., ..) => MemoryBound {
                bytes: configured_bytes,
                origin: BoundOrigin::Configured,
                of_bytes: configured_bytes,
            },
            (0, Some(cgroup), _) => derived(cgroup.limit_bytes, CGROUP_PERCENT, BoundOrigin::Cgroup),
            (0, None, Some(machine_bytes)) => derived(machine_bytes, MACHINE_PERCENT, BoundOrigin::Machine),
            (0, None, None) => {
                MemoryBound { bytes: u64::MAX, origin: BoundOrigin::Unknown, of_bytes: u64::MAX }
            }
        };
        self.by_cgroup = bound.origin == BoundOrigin::Cgroup;
        bound
    }

    /// Returns the limit of the cgroup, or else the memory of the machine, in bytes: beyond it the kernel
    /// kills the process.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.cgroup.as_ref().map(|cgroup| cgroup.limit_bytes).or(self.machine_bytes)
    }

    /// Returns the memory in use now.
    pub fn read(&self) -> MemoryUse {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let held: u64 = ["RssAnon", "RssShmem"].iter().filter_map(|field| kib_of(&status, field)).sum();
        let charged = self.cgroup.as_ref().filter(|_| self.by_cgroup).and_then(Cgroup::charged_bytes);
        MemoryUse { process: held, cgroup: charged.unwrap_or(0) }
    }
}

impl Cgroup {
    /// Returns the charge of the cgroup in bytes, without droppable file pages.
    fn charged_bytes(&self) -> Option<u64> {
        let usage: u64 = fs::read_to_string(self.dir.join(self.files.usage)).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(self.dir.join("memory.stat")).ok()?;
        Some(usage.saturating_sub(droppable_bytes(&stat, self.files)))
    }
}

/// Returns a field of `/proc/meminfo` or `/proc/self/status`, which are in kB, in bytes.
fn kib_of(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

fn droppable_bytes(stat: &str, files: Files) -> u64 {
    let field = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<u64>().ok()
    };
    files.droppable.iter().filter_map(|name| field(name)).sum()
}

/// Returns the directories of this process's cgroups: its own, and the ancestors that are mounted.
fn dirs_of(mountinfo: &str, cgroups: &str) -> Vec<(PathBuf, Files)> {
    let mut dirs = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, files)) = mount_of(line) else { continue };
        let of_it = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let named = controllers.split(',').any(|controller| controller == "memory");
            (if files == VERSION_2 { controllers.is_empty() } else { named }).then(|| path.to_owned())
        };
        let Some(path) = cgroups.lines().find_map(of_it) else { continue };
        // In a container the path may be one of the host: then the mounted directory is the process's own.
        let below = Path::new(&path).strip_prefix(&mount.root).unwrap_or(Path::new(""));
        let own = if below == Path::new("") { mount.at.clone() } else { mount.at.join(below) };
        for dir in own.ancestors() {
            dirs.push((dir.to_owned(), files));
            if dir == mount.at {
                break;
            }
        }
    }
    dirs
}

struct Mount {
    /// The mounted part of the hierarchy.
    root: PathBuf,
    at: PathBuf,
}

/// Parses a line of `/proc/self/mountinfo` (proc(5)) that mounts a hierarchy which may limit memory.
fn mount_of(line: &str) -> Option<(Mount, Files)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let files = match (kind.next()?, kind.nth(1)) {
        ("cgroup2", _) => VERSION_2,
        ("cgroup", Some(options)) if options.split(',').any(|option| option == "memory") => VERSION_1,
        _ => return None,
    };
    let mut fields = mount.split(' ').skip(3);
    Some((Mount { root: fields.next()?.into(), at: fields.next()?.into() }, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_kernel_writes_them() {
        let status = "Name:\ttickfan\nVmRSS:\t   25044 kB\nRssAnon:\t   18000 kB\nRssFile:\t    7044 kB\n";
        assert_eq!(kib_of(status, "RssAnon"), Some(18_000 * 1_024));
        assert_eq!((kib_of(status, "Rss"), kib_of(status, "RssShmem"), kib_of("", "x")), (None, None, None));
        let stat = "anon 100\nfile 70\ninactive_file 40\nactive_file 20\ntotal_inactive_file 7\n";
        assert_eq!((droppable_bytes(stat, VERSION_2), droppable_bytes(stat, VERSION_1)), (60, 7));
    }

    #[test]
    fn cgroups_are_found_where_they_are_mounted() {
        let dirs = |mountinfo: &str, cgroups: &str| -> Vec<String> {
            let named = |(dir, files): (PathBuf, Files)| format!("{}/{}", dir.display(), files.limit);
            dirs_of(mountinfo, cgroups).into_iter().map(named).collect()
        };
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            dirs(v2, "0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(dirs(v2, "0::/\n"), ["/sys/fs/cgroup/memory.max"], "in a namespace of its own");
        let v1 = "36 32 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  37 32 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let cgroups = "9:name=systemd:/\n4:memory:/x\n3:cpuset:/\n0::/y\n";
        let own = "/sys/fs/cgroup/memory/x/memory.limit_in_bytes";
        assert_eq!(dirs(v1, cgroups), [own, "/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
        // A container without a cgroup namespace: the path is the host's, the mounted directory its own.
        let inside = "36 32 0:31 /docker/c0 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(dirs(inside, "4:memory:/docker/c0\n"), [limit]);
        assert_eq!(dirs(inside, "4:memory:/elsewhere\n"), [limit]);
        assert!(dirs("", "").is_empty() && dirs("x - y", "0::/").is_empty());
    }

    #[test]
    fn the_bound_is_configured_or_derived() {
        let cgroup = Cgroup { dir: PathBuf::new(), files: VERSION_2, limit_bytes: 1_000 };
        let mut gauge = Gauge { cgroup: Some(cgroup), machine_bytes: Some(4_000), by_cgroup: false };
        let of = |bound: MemoryBound| (bound.bytes, bound.origin, bound.of_bytes);
        assert_eq!(of(gauge.bound(0)), (900, BoundOrigin::Cgroup, 1_000));
        assert!(gauge.by_cgroup);
        assert_eq!(of(gauge.bound(5_000)), (5_000, BoundOrigin::Configured, 5_000));
        assert!(!gauge.by_cgroup, "what others take in a cgroup is no business of a bound that was chosen");
        assert_eq!(gauge.limit_bytes(), Some(1_000));
        gauge.cgroup = None;
        assert_eq!(of(gauge.bound(0)), (3_000, BoundOrigin::Machine, 4_000));
        gauge.machine_bytes = None;
        assert_eq!(gauge.bound(0).origin, BoundOrigin::Unknown);
    }

    #[test]
    fn the_greater_of_two_measures_counts() {
        let held = MemoryUse { process: 100, cgroup: 130 };
        assert_eq!((held.bytes(20), held.bytes(40)), (130, 140));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_some() {
        let gauge = Gauge::find();
        assert!(gauge.read().process > 100_000, "{gauge:?}");
        assert!(gauge.limit_bytes().is_some_and(|bytes| bytes > 1 << 20), "{gauge:?}");
    }
}
