//! The limit of open files, and the number of connections that it allows. Connections beyond that number are
//! refused with an answer, so that the process never runs out of file descriptors.

use crate::config::Config;
use crate::feed::publish::PARTINGS_MAX;

/// Connections in HTTP beside the configured number of clients: the page, the API, handshakes that are
/// refused.
pub(super) const HTTP_MAX: usize = 128;
/// Most connections to the admin listener.
pub(super) const ADMIN_MAX: usize = 64;
/// Connections that are being refused, on both listeners.
const REFUSED_MAX: usize = 2 * 64;
/// Files that the process always opens: standard streams, listeners and logs.
const OWN: usize = 32;
/// Files per runtime of a thread, and the number of runtimes besides those of `[shard]`: ingest and control.
const PER_RUNTIME: usize = 6;
const RUNTIMES: usize = 2;
/// Files per capture: for playback, for the pass over the file, and for a seek in progress.
const PER_CAPTURE: usize = 3;
/// Files per recorded feed line, and of the history.
const PER_LINE: usize = 2;
const HISTORY: usize = 16;

/// The number of clients that fit in the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// Most client connections.
    pub(super) connections_max: usize,
    /// Notice for the operator if that is less than configured.
    pub(super) notice: Option<String>,
}

/// Raises the limit of open files to the hard limit, and returns the resulting limit; `None` if there is no
/// limit or it is unknown.
pub(super) fn raise() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            // On failure the limit stays as it is.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        }
        getrlimit(Resource::Nofile).current
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// How many of the configured connections fit in `files_max` open files, on a machine with `cores` cores.
pub(super) fn fit(config: &Config, cores: usize, files_max: Option<u64>) -> Fit {
    let wanted = config.limits.connections_max.get();
    let others = others(config, cores);
    let needed = wanted.saturating_add(others);
    let files_max = files_max.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    if needed <= files_max {
        return Fit { connections_max: wanted, notice: None };
    }
    // The other files are not all open at the same time. A quarter of the limit is therefore always available
    // to clients.
    let connections_max = files_max.saturating_sub(others).max(files_max / 4).clamp(1, wanted);
    let notice = format!(
        "limits.connections_max: {wanted} connections need {needed} open files, and the system lets this process have \
         {files_max} (ulimit -Hn): {connections_max} are taken at most"
    );
    Fit { connections_max, notice: Some(notice) }
}

/// Most files that are open besides those of clients.
fn others(config: &Config, cores: usize) -> usize {
    let replay = &config.replay;
    let captures: usize = config.feed.iter().map(|feed| feed.files.len()).sum();
    // Strangers have places on each of two listeners, and some refused connections are still open.
    let publishers = match config.publishes() {
        true => config.limits.publishers_max.get() + 2 * (config.publish.strangers_max.get() + PARTINGS_MAX),
        false => 0,
    };
    let recorded = if config.record.enabled { PER_LINE * (captures + 1) + HISTORY } else { 0 };
    let per_room = PER_CAPTURE * replay.room_captures_max.get() + 2 * PER_RUNTIME;
    let rooms = if replay.dir.is_some() { per_room.saturating_mul(replay.rooms_max.get()) } else { 0 };
    let runtimes = PER_RUNTIME * (config.shard.threads_on(cores) + RUNTIMES);
    let own = OWN + runtimes + HTTP_MAX + ADMIN_MAX + REFUSED_MAX;
    [PER_CAPTURE * captures, publishers, recorded, rooms].into_iter().fold(own, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_told_with_both_numbers() {
        let config = Config::bare();
        let needed = config.limits.connections_max.get() + others(&config, 2);
        let fit = |files_max| fit(&config, 2, files_max);
        assert_eq!(fit(None), Fit { connections_max: 18_000, notice: None });
        assert_eq!(fit(Some(needed as u64)), Fit { connections_max: 18_000, notice: None });
        let Fit { connections_max, notice } = fit(Some(needed as u64 - 1));
        assert_eq!(connections_max, 17_999);
        let notice = notice.expect("it says so");
        assert!(
            notice.contains(&format!("{needed} open files")) && notice.contains("17999 are taken"),
            "{notice}"
        );
        assert_eq!([4_u64, 0].map(|files| fit(Some(files)).connections_max), [1, 1], "never none");
    }

    #[test]
    fn the_defaults_fit_in_twenty_thousand_files_with_everything_on() {
        let text =
            "[replay]\ndir = \"a\"\n[publish]\ntoken = \"a-token-of-sixteen\"\n[record]\nenabled = true\n";
        let shipped: Config = toml::from_str(text).expect("a configuration");
        assert_eq!(fit(&shipped, 8, Some(20_000)).notice, None, "{}", others(&shipped, 8));
    }
}
