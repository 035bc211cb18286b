//! The notes of a run's logs, i.e. its clients, incidents and machine, as rows of text. Pure.

use super::figures::Grouped;
use super::utc;
use crate::latency::hlog::note::{Account, FlightNote, Head, Note};

/// Most runs whose machine and program are named; further ones are counted.
const HEADS_MAX: usize = 16;
/// Most flights that are named; further ones are counted.
const FLIGHTS_MAX: usize = 1_000;
/// Most causes that are distinguished.
const CAUSES_MAX: usize = 64;
/// Text if a log has no notes.
pub(super) const NOT_HERE: &str = "not in this log";

/// The notes of a run.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The distinct heads of its logs.
    heads: Vec<Head>,
    /// Number of logs, or parts of one, whose head is omitted.
    heads_left_out: u64,
    /// Folder of the flights of the current log.
    folder: Option<String>,
    /// All flights, the oldest first, each with its path.
    flights: Vec<(FlightNote, String)>,
    /// The sum of all accounts, without their flights.
    whole: Option<Account>,
    /// Most concurrent clients, at the start or end of an interval.
    most: u64,
}

impl Notes {
    /// Starts a new log.
    pub(super) fn begin_log(&mut self) {
        self.folder = None;
    }

    /// Adds a note. Logs may come in any order; the head of a log precedes its accounts.
    ///
    /// # Errors
    /// More than [`CAUSES_MAX`] causes.
    pub(super) fn take(&mut self, note: Note) -> Result<(), String> {
        match note {
            Note::Log(head) => {
                self.folder.clone_from(&head.flights);
                // A head with another start time belongs to another run.
                match self.heads.contains(&head) {
                    true => {}
                    false if self.heads.len() < HEADS_MAX => self.heads.push(head),
                    false => self.heads_left_out += 1,
                }
                Ok(())
            }
            Note::Interval(mut account) => {
                self.most = self.most.max(account.clients.at_start).max(account.clients.at_end);
                let left_out = self.take_flights(std::mem::take(&mut account.flights));
                account.flights_left_out = account.flights_left_out.saturating_add(left_out);
                match &mut self.whole {
                    None => self.whole = Some(account),
                    Some(whole) => add(whole, account)?,
                }
                Ok(())
            }
        }
    }

    /// Adds flights up to the limit, and returns how many are omitted.
    fn take_flights(&mut self, flights: Vec<FlightNote>) -> u64 {
        let room = FLIGHTS_MAX.saturating_sub(self.flights.len());
        let left_out = flights.len().saturating_sub(room) as u64;
        for flight in flights.into_iter().take(room) {
            let path = match &self.folder {
                Some(folder) => format!("{}/{}", folder.trim_end_matches('/'), flight.file),
                None => flight.file.clone(),
            };
            self.flights.push((flight, path));
        }
        self.flights.sort_by_key(|(flight, _)| flight.at);
        left_out
    }

    /// The heads of its logs.
    pub(super) fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// A sentence about omitted heads, if any.
    pub(super) fn remark(&self) -> Option<String> {
        let logs = match self.heads_left_out {
            0 => return None,
            1 => "1 log".to_owned(),
            count => format!("{} logs", Grouped(count)),
        };
        Some(format!("the machine and program of {logs} more are left out: {HEADS_MAX} runs are named"))
    }

    /// The sum of the accounts of all intervals, without their flights; `None` if there are none.
    pub(super) fn whole(&self) -> Option<&Account> {
        self.whole.as_ref()
    }

    /// Most concurrent clients.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// The flights, the oldest first, each with its path.
    pub(super) fn flights(&self) -> &[(FlightNote, String)] {
        &self.flights
    }

    /// The notes as rows of name and text, without the flights.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        match &self.whole {
            None => rows.push(("clients", NOT_HERE.to_owned())),
            Some(whole) => {
                let most = Grouped(self.most);
                let words =
                    format!("{}, at most {most} at once, {} slow", clients(whole), Grouped(slow(whole)));
                rows.push(("clients", words));
                rows.push(("ticks", ticks(whole)));
                rows.push(("gaps", gaps(whole)));
                rows.push(("ended", ended(whole)));
            }
        }
        if self.heads.is_empty() {
            rows.push(("machine", NOT_HERE.to_owned()));
        }
        for head in &self.heads {
            rows.push(("machine", machine(head)));
            let profile = &head.build.profile;
            rows.push(("program", format!("tickfan {} ({profile})", head.build.version)));
        }
        rows
    }
}

/// Number of clients.
pub(super) fn clients(whole: &Account) -> Grouped {
    Grouped(whole.clients.at_start.saturating_add(whole.clients.new))
}

/// Number of slow clients.
pub(super) fn slow(whole: &Account) -> u64 {
    whole.slow.at_start.saturating_add(whole.slow.new)
}

fn ticks(whole: &Account) -> String {
    let Account { sent, merged, dropped, lost, .. } = whole;
    let [sent, merged, dropped, lost] = [sent, merged, dropped, lost].map(|count| Grouped(*count));
    format!("{sent} sent, {merged} merged, {dropped} dropped, {lost} lost by the feed")
}

fn gaps(whole: &Account) -> String {
    let row = |(cause, gaps): (&String, &crate::latency::hlog::note::NotedGaps)| {
        format!("{cause} {} ({} ticks)", Grouped(gaps.told), Grouped(gaps.ticks))
    };
    listed(whole.gaps.iter().map(row))
}

fn ended(whole: &Account) -> String {
    listed(whole.ended.iter().map(|(cause, count)| format!("{cause} {}", Grouped(*count))))
}

fn listed(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn machine(head: &Head) -> String {
    let machine = &head.machine;
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    let kernel = machine.kernel.as_deref().map_or(String::new(), |kernel| format!(" {kernel}"));
    let cores = if machine.cores == 1 { "core" } else { "cores" };
    format!("{cpu}, {} {cores}, {}{kernel}, {}", machine.cores, machine.os, machine.arch)
}

/// A flight as text, without its path.
pub(super) fn flight(flight: &FlightNote) -> String {
    let session = flight.session.as_deref().map_or(String::new(), |session| format!(", client {session}"));
    let peer = flight.peer.as_deref().map_or(String::new(), |peer| format!(" from {peer}"));
    format!("{} {}{session}{peer}", utc(flight.at.0), flight.what)
}

/// Adds an account to the sum.
fn add(whole: &mut Account, more: Account) -> Result<(), String> {
    if more.from < whole.from {
        whole.from = more.from;
        whole.clients.at_start = more.clients.at_start;
        whole.slow.at_start = more.slow.at_start;
    }
    if more.to >= whole.to {
        whole.to = more.to;
        whole.clients.at_end = more.clients.at_end;
        whole.slow.at_end = more.slow.at_end;
    }
    let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
    sum(&mut whole.clients.new, more.clients.new);
    sum(&mut whole.slow.new, more.slow.new);
    sum(&mut whole.sent, more.sent);
    sum(&mut whole.merged, more.merged);
    sum(&mut whole.dropped, more.dropped);
    sum(&mut whole.lost, more.lost);
    sum(&mut whole.flights_left_out, more.flights_left_out);
    for (cause, gaps) in more.gaps {
        let known = whole.gaps.entry(cause).or_default();
        sum(&mut known.told, gaps.told);
        sum(&mut known.ticks, gaps.ticks);
    }
    for (cause, count) in more.ended {
        sum(whole.ended.entry(cause).or_default(), count);
    }
    if whole.gaps.len() > CAUSES_MAX || whole.ended.len() > CAUSES_MAX {
        return Err(format!("more than {CAUSES_MAX} causes"));
    }
    Ok(())
}
