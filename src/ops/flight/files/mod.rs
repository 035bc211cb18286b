//! The files of flights, with limits on their number, size and frequency. This is the only part of the
//! recorder that waits for the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::form::{self, FlightBound, Header, Reason, Stages};
use super::{FlightStats, Incident, IncidentReporter, Line, Shared};
use crate::model::instrument::InstrumentTable;
use crate::ring::TickRing;
use crate::text::printable;
use crate::time::rfc3339::{self, FractionDigits};

/// Location and limits of the flights.
#[derive(Clone, Debug)]
pub struct FlightOptions {
    /// Folder of the files; it is created if missing.
    pub dir: PathBuf,
    /// Time span that a flight covers, seconds.
    pub seconds: u64,
    /// Most files that are kept; the oldest are removed.
    pub files_max: usize,
    /// Size of a file, bytes. What precedes the ticks is always written.
    pub file_bytes_max: usize,
    /// Time after a flight in which no other is written, seconds.
    pub quiet_s: u64,
}

/// Result of recording an incident.
#[derive(Debug, Default)]
pub struct DumpOutcome {
    /// Message to the operator, if any.
    pub told: Option<String>,
    /// The written file, if any: its name in the folder, and a sentence about the incident.
    pub written: Option<(String, String)>,
}

/// Writes flights. It belongs to a thread that may wait for the disk.
pub struct Flights {
    options: FlightOptions,
    ring: TickRing,
    table: Arc<InstrumentTable>,
    shared: Arc<Shared>,
    /// The sender keeps the channel open.
    incidents: (Sender<Box<Incident>>, Receiver<Box<Incident>>),
}

impl Flights {
    /// Creates a recorder of the ticks in this ring.
    pub fn new(options: FlightOptions, ring: TickRing, table: Arc<InstrumentTable>) -> Self {
        Self { options, ring, table, shared: Arc::default(), incidents: bounded(1) }
    }

    /// The folder as configured.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Time span that a flight covers, seconds.
    pub fn seconds(&self) -> u64 {
        self.options.seconds
    }

    /// A reporter for a thread that may detect incidents.
    pub fn reporter(&self) -> IncidentReporter {
        let (incidents, shared) = (self.incidents.0.clone(), Arc::clone(&self.shared));
        IncidentReporter(Some(Line { incidents, shared, seconds: self.options.seconds }))
    }

    /// The counters.
    pub fn stats(&self) -> Arc<FlightStats> {
        Arc::clone(&self.shared.stats)
    }

    /// The receiver of reported incidents.
    pub fn incidents(&self) -> Receiver<Box<Incident>> {
        self.incidents.1.clone()
    }

    /// Number of ticks published so far.
    pub fn published(&self) -> u64 {
        self.ring.published()
    }

    /// Checks whether files can be written. Returns a message to the operator if not.
    pub fn probe(&self) -> Option<String> {
        let probe = self.options.dir.join(PART);
        let made = fs::create_dir_all(&self.options.dir).and_then(|()| fs::write(&probe, []));
        self.went(made.and_then(|()| fs::remove_file(&probe)))
    }

    /// Writes the flight of an incident, with the latencies of the stages. `now_ns` is a steady time, from
    /// which further incidents are suppressed even if the write failed.
    pub fn write(&mut self, incident: &Incident, stages: &Stages, now_ns: u64) -> DumpOutcome {
        let reason = Reason::new(&incident.cause, &self.table);
        let what = reason.to_string();
        let file = name(incident.at_ns);
        let path = self.options.dir.join(&file);
        let text = self.text(incident, reason, stages);
        let written = self.place(&path, &text);
        let well = written.is_ok();
        let told = self.went(written);
        let quiet_ns = self.options.quiet_s * 1_000_000_000;
        self.shared.open_at_ns.store(now_ns.saturating_add(quiet_ns), Ordering::Relaxed);
        if !well {
            return DumpOutcome { told, written: None };
        }
        self.shared.stats.written.add(1);
        let again = told.map_or(String::new(), |told| format!("{told}: "));
        let told = Some(format!("flight: {again}{}: {what}", printable::path(&path)));
        DumpOutcome { told, written: Some((file, what)) }
    }

    /// The content of the file.
    fn text(&self, incident: &Incident, reason: Reason, stages: &Stages) -> Vec<u8> {
        let mut header = Header::new(incident.at_ns / 1_000, reason, self.options.seconds, stages);
        let (mut first, mut middle, mut ticks) = (Vec::new(), Vec::new(), Vec::new());
        form::write_middle(incident.client.as_ref(), stages, &mut middle);
        // With the longest number of ticks, to measure the length of the header.
        header.write(&mut first);
        let room = self.options.file_bytes_max.saturating_sub(first.len() + middle.len());
        let from_ns = incident.at_ns.saturating_sub(self.options.seconds * 1_000_000_000);
        (header.ticks, header.ticks_bound) = self.read_back(incident.position, from_ns, room, &mut ticks);
        let mut text = Vec::with_capacity(first.len() + middle.len() + ticks.len());
        header.write(&mut text);
        text.extend_from_slice(&middle);
        text.extend_from_slice(&ticks);
        text
    }

    /// Reads the ring backwards from `position`, and appends the ticks received at `from_ns` or later, the
    /// oldest first, in at most `room` bytes. Returns their number, and what limited it.
    fn read_back(&self, position: u64, from_ns: u64, room: usize, out: &mut Vec<u8>) -> (u64, FlightBound) {
        let (mut lines, mut begins, mut bound) = (Vec::new(), Vec::new(), FlightBound::Seconds);
        for at in (0..position).rev() {
            // All older ticks are overwritten as well.
            let Some(tick) = self.ring.at(at) else {
                bound = FlightBound::Ring;
                break;
            };
            if tick.rx_ns < from_ns {
                break;
            }
            let Some(symbol) = self.table.get(tick.instrument) else { continue };
            begins.push(lines.len());
            form::write_tick(&tick, symbol, &mut lines);
            if lines.len() > room {
                lines.truncate(begins.pop().unwrap_or(0));
                bound = FlightBound::Bytes;
                break;
            }
        }
        let mut end = lines.len();
        for begin in begins.iter().rev() {
            out.extend_from_slice(&lines[*begin..end]);
            end = *begin;
        }
        (begins.len() as u64, bound)
    }

    /// Writes a file completely or not at all, and removes the oldest files beyond the limit.
    fn place(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let (dir, part) = (&self.options.dir, self.options.dir.join(PART));
        let written = fs::create_dir_all(dir).and_then(|()| fs::write(&part, text));
        if let Err(error) = written.and_then(|()| fs::rename(&part, path)) {
            // The file may not exist.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(is_name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        let over = names.len().saturating_sub(self.options.files_max);
        names[..over].iter().try_for_each(|name| fs::remove_file(dir.join(name)))
    }

    /// Counts a failed write. Returns a message to the operator when writing starts to fail, and when it
    /// succeeds again.
    fn went(&self, how: io::Result<()>) -> Option<String> {
        let stats = &self.shared.stats;
        match how {
            Err(error) => {
                stats.failed.add(1);
                let dir = printable::path(&self.options.dir);
                let begins = !stats.failing.swap(true, Ordering::Relaxed);
                begins.then(|| {
                    format!("flight.dir: {dir}: {error}: flights are missing until it can be written")
                })
            }
            Ok(()) => {
                stats.failing.swap(false, Ordering::Relaxed).then(|| "it can be written again".to_owned())
            }
        }
    }
}

/// Name of an unfinished file.
const PART: &str = "flight.part";
/// Prefix and suffix of a file name, around its time.
const NAME: (&str, &str) = ("flight-", ".ndjson");

/// The file name of a flight; names sort by time.
fn name(at_ns: u64) -> String {
    let mut time = Vec::new();
    rfc3339::write(at_ns, FractionDigits::Six, &mut time);
    // Some file systems reject colons.
    format!("{}{}{}", NAME.0, String::from_utf8_lossy(&time).replace(':', "-"), NAME.1)
}

fn is_name(name: &str) -> bool {
    let time = name.strip_prefix(NAME.0).and_then(|rest| rest.strip_suffix(NAME.1));
    time.is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit()) && time.ends_with('Z'))
}

#[cfg(test)]
mod tests;
