//! The files of flights, bounded in number, size and how often: the one place of the recorder that waits for the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::form::{self, Bound, Header, Reason, Stages};
use super::{Incident, IncidentReporter, Line, Shared, Stats};
use crate::model::instrument::InstrumentTable;
use crate::ring::TickRing;
use crate::text::printable;
use crate::time::rfc3339::{self, FractionDigits};

/// Where flights go, and their bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder; it is made where there is none.
    pub dir: PathBuf,
    /// How far a flight goes back, seconds.
    pub seconds: u64,
    /// Files that are kept, the newest.
    pub files_max: usize,
    /// Bytes of a file. What comes before the ticks always finds room.
    pub file_bytes_max: usize,
    /// After one was written, none is for so many seconds.
    pub quiet_s: u64,
}

/// What came of an incident.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the operator is to be told of it.
    pub told: Option<String>,
    /// The file that was written, if one was: its name in the folder, and what happened, in a sentence.
    pub written: Option<(String, String)>,
}

/// Writes flights. It belongs to a thread that may wait for the disk.
pub struct Flights {
    options: Options,
    ring: TickRing,
    table: Arc<InstrumentTable>,
    shared: Arc<Shared>,
    /// A sender is kept, so that there always is one.
    incidents: (Sender<Box<Incident>>, Receiver<Box<Incident>>),
}

impl Flights {
    /// Nothing has happened yet. The ticks are those of this ring.
    pub fn new(options: Options, ring: TickRing, table: Arc<InstrumentTable>) -> Self {
        Self { options, ring, table, shared: Arc::default(), incidents: bounded(1) }
    }

    /// The folder, as it was configured.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// How far a flight goes back, seconds.
    pub fn seconds(&self) -> u64 {
        self.options.seconds
    }

    /// For a thread that may see incidents.
    pub fn reporter(&self) -> IncidentReporter {
        let (incidents, shared) = (self.incidents.0.clone(), Arc::clone(&self.shared));
        IncidentReporter(Some(Line { incidents, shared, seconds: self.options.seconds }))
    }

    /// What is counted.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Where incidents come in.
    pub fn incidents(&self) -> Receiver<Box<Incident>> {
        self.incidents.1.clone()
    }

    /// How many ticks were published by now.
    pub fn published(&self) -> u64 {
        self.ring.published()
    }

    /// Finds out whether files can be written. If not, what the operator is to be told.
    pub fn probe(&self) -> Option<String> {
        let probe = self.options.dir.join(PART);
        let made = fs::create_dir_all(&self.options.dir).and_then(|()| fs::write(&probe, []));
        self.went(made.and_then(|()| fs::remove_file(&probe)))
    }

    /// Writes what came before an incident, and what the stages took. `now_ns` is a steady time: from then on it is quiet,
    /// also where the disk fails.
    pub fn write(&mut self, incident: &Incident, stages: &Stages, now_ns: u64) -> Outcome {
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
            return Outcome { told, written: None };
        }
        self.shared.stats.written.add(1);
        let again = told.map_or(String::new(), |told| format!("{told}: "));
        let told = Some(format!("flight: {again}{}: {what}", printable::path(&path)));
        Outcome { told, written: Some((file, what)) }
    }

    /// Everything that the file is to hold.
    fn text(&self, incident: &Incident, reason: Reason, stages: &Stages) -> Vec<u8> {
        let mut header = Header::new(incident.at_ns / 1_000, reason, self.options.seconds, stages);
        let (mut first, mut middle, mut ticks) = (Vec::new(), Vec::new(), Vec::new());
        form::write_middle(incident.client.as_ref(), stages, &mut middle);
        // With the longest number of ticks.
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

    /// Reads the ring backwards from a position and appends the lines of ticks that were received at `from_ns` or later, the
    /// oldest first, in so many bytes at most. How many there are, and why not more.
    fn read_back(&self, position: u64, from_ns: u64, room: usize, out: &mut Vec<u8>) -> (u64, Bound) {
        let (mut lines, mut begins, mut bound) = (Vec::new(), Vec::new(), Bound::Seconds);
        for at in (0..position).rev() {
            // Everything older was written over too.
            let Some(tick) = self.ring.at(at) else {
                bound = Bound::Ring;
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
                bound = Bound::Bytes;
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

    /// Writes a file whole or not at all, and takes away the oldest beyond the bound.
    fn place(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let (dir, part) = (&self.options.dir, self.options.dir.join(PART));
        let written = fs::create_dir_all(dir).and_then(|()| fs::write(&part, text));
        if let Err(error) = written.and_then(|()| fs::rename(&part, path)) {
            // It may not have come to be.
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

    /// Counts what could not be written. What the operator is to be told: when it begins to fail, and when it no longer does.
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

/// A file that is not finished.
const PART: &str = "flight.part";
/// What stands around the time in the name of a file.
const NAME: (&str, &str) = ("flight-", ".ndjson");

/// The name of a flight: in the order of names they are in the order of time.
fn name(at_ns: u64) -> String {
    let mut time = Vec::new();
    rfc3339::write(at_ns, FractionDigits::Six, &mut time);
    // Not every file system takes a colon.
    format!("{}{}{}", NAME.0, String::from_utf8_lossy(&time).replace(':', "-"), NAME.1)
}

fn is_name(name: &str) -> bool {
    let time = name.strip_prefix(NAME.0).and_then(|rest| rest.strip_suffix(NAME.1));
    time.is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit()) && time.ends_with('Z'))
}

#[cfg(test)]
mod tests;
