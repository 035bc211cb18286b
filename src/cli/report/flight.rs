//! A flight as text for the terminal, or as one JSON object. Pure except for reading the file.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::BufRead;

use serde_json::{Value, json};

use super::figures::Grouped;
use super::utc;
use crate::latency::Nanos;
use crate::ops::flight::{Client, Flight, FlightBound, FlightError};
use crate::text::printable;

/// Most states, symbols and ticks in the text; the JSON contains all.
const ROWS_MAX: usize = 20;
/// Width of a column of numbers, characters.
const COLUMN_WIDTH: usize = 11;

/// A flight as JSON, or as text for the terminal.
///
/// # Errors
/// A file that is not a flight, or cannot be read.
pub(super) fn text(name: &str, file: impl BufRead, as_json: bool) -> Result<String, FlightError> {
    let flight = Flight::read(file)?;
    if as_json {
        return Ok(format!("{:#}\n", value(&flight)));
    }
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut out, name, &flight);
    Ok(out)
}

fn value(flight: &Flight) -> Value {
    let Flight { header, client, stages, ticks } = flight;
    json!({
        "flight": header,
        "what": header.reason.to_string(),
        "client": client,
        "states": client.as_ref().map_or(&[][..], |client| &client.states),
        "stages": stages,
        "ticks": ticks,
    })
}

fn write_text(out: &mut String, name: &str, flight: &Flight) -> fmt::Result {
    let header = &flight.header;
    let what = format!("{name}: {}", header.reason);
    writeln!(out, "{}, at {}", printable::line(&what), utc(header.at_us.saturating_mul(1_000)))?;
    if let Some(client) = &flight.client {
        write_client(out, client, header.at_us)?;
    }
    write_turns(out, flight)?;
    write_stages(out, flight)?;
    write_ticks(out, flight)
}

/// Writes the longest turns of the shards.
fn write_turns(out: &mut String, flight: &Flight) -> fmt::Result {
    let turns = &flight.header.longest_turns_us;
    if turns.is_empty() {
        return Ok(());
    }
    let shown = turns.iter().enumerate();
    let shown = shown.map(|(n, us)| format!("shard {n} {}", Nanos(us.saturating_mul(1_000))));
    writeln!(out, "\nlongest turns: {}", shown.collect::<Vec<_>>().join(", "))
}

/// Time relative to the incident, in seconds to the millisecond: `-1.250 s`.
fn before(at_us: u64, us: u64) -> String {
    let (sign, ms) = (if us <= at_us { "-" } else { "+" }, at_us.abs_diff(us) / 1_000);
    format!("{sign}{}.{:03} s", ms / 1_000, ms % 1_000)
}

fn write_row(out: &mut String, first: &str, cells: &[String]) -> fmt::Result {
    write!(out, "{first:<12}")?;
    cells.iter().try_for_each(|cell| write!(out, "{cell:>COLUMN_WIDTH$}"))?;
    writeln!(out)
}

fn write_client(out: &mut String, client: &Client, at_us: u64) -> fmt::Result {
    let Client { session, peer, since_us, subscriptions, states } = client;
    let peer = peer.as_deref().unwrap_or("unknown");
    let here = Nanos(at_us.saturating_sub(*since_us).saturating_mul(1_000));
    let who = format!("client {session} from {peer}");
    writeln!(out, "{}, here for {here}, {subscriptions} subscriptions\n", printable::line(&who))?;
    let names = ["level", "behind", "queued", "unacked", "waiting", "sent", "merged", "dropped"];
    write_row(out, "state", &names.map(str::to_owned))?;
    let left_out = states.len().saturating_sub(ROWS_MAX);
    if left_out > 0 {
        writeln!(out, "({left_out} older ones)")?;
    }
    for state in &states[left_out..] {
        let cells = [
            state.level.name().to_owned(),
            format!("{} ms", Grouped(state.behind_ms)),
            Grouped(state.queued_bytes).to_string(),
            Grouped(state.kernel_unsent_bytes).to_string(),
            Grouped(state.waiting).to_string(),
            Grouped(state.sent).to_string(),
            Grouped(state.merged).to_string(),
            Grouped(state.dropped).to_string(),
        ];
        write_row(out, &before(at_us, state.at_us), &cells)?;
    }
    Ok(())
}

/// Writes the latencies of the interval.
fn write_stages(out: &mut String, flight: &Flight) -> fmt::Result {
    if flight.stages.is_empty() {
        return Ok(());
    }
    let header = &flight.header;
    let [from, to] = [header.stages_from_us, header.stages_to_us].map(|us| before(header.at_us, us));
    writeln!(out, "\nstages from {from} to {to}")?;
    let times = ["p50_ns", "p90_ns", "p99_ns", "max_ns"];
    let width = flight.stages.iter().filter_map(|row| row["tag"].as_str()).map(str::len).max().unwrap_or(0);
    write!(out, "{:width$}", "tag")?;
    write_row(out, "", &["p50", "p90", "p99", "max", "count"].map(str::to_owned))?;
    for row in &flight.stages {
        let mut cells: Vec<String> =
            times.iter().map(|name| Nanos(row[name].as_u64().unwrap_or(0)).to_string()).collect();
        cells.push(Grouped(row["count"].as_u64().unwrap_or(0)).to_string());
        write!(out, "{:width$}", printable::line(word(row, "tag")))?;
        write_row(out, "", &cells)?;
    }
    Ok(())
}

/// Writes the number of ticks by symbol, and the last ticks.
fn write_ticks(out: &mut String, flight: &Flight) -> fmt::Result {
    let header = &flight.header;
    let bound = match header.ticks_bound {
        FlightBound::Seconds => "",
        FlightBound::Ring => "; the ring held no older ones",
        FlightBound::Bytes => "; the file holds no older ones",
    };
    let seconds = header.seconds;
    writeln!(out, "\n{} ticks of the last {seconds} s{bound}", Grouped(flight.ticks.len() as u64))?;
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for tick in &flight.ticks {
        *counts.entry((word(tick, "symbol"), word(tick, "type"))).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for ((symbol, kind), count) in counts.iter().take(ROWS_MAX) {
        let stream = format!("{symbol} {kind}");
        writeln!(out, "{:>12} {}", Grouped(*count), printable::line(&stream))?;
    }
    if counts.len() > ROWS_MAX {
        writeln!(out, "{:>12} streams more", counts.len() - ROWS_MAX)?;
    }
    if !flight.ticks.is_empty() {
        writeln!(out, "the last of them:")?;
    }
    for tick in &flight.ticks[flight.ticks.len().saturating_sub(ROWS_MAX)..] {
        let at = tick["rx"].as_u64().or(tick["since"].as_u64());
        let at = at.map_or(String::new(), |us| before(header.at_us, us));
        let mut told = format!("{} {}", word(tick, "symbol"), word(tick, "type"));
        let others = |(name, _): &(&String, &Value)| !["type", "symbol", "rx"].contains(&name.as_str());
        for (name, value) in tick.as_object().into_iter().flatten().filter(others) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            write!(told, " {name}={value}")?;
        }
        writeln!(out, "{at:<12} {}", printable::line(&told))?;
    }
    Ok(())
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHT: &str = r#"{"type":"flight","version":1,"at_us":1714564860000000,"cause":"cut","why":"slow_consumer","code":4000,"seconds":10,"ticks":3,"ticks_bound":"ring","stages_from_us":1714564858100000,"stages_to_us":1714564859100000}
{"type":"client","session":"c0ffee","peer":"127.0.0.1:5000","since_us":1714564800000000,"subscriptions":2}
{"type":"state","at_us":1714564858750000,"level":"warn","behind_ms":1250,"queued_bytes":1234,"kernel_unsent_bytes":5,"waiting":0,"sent":7,"merged":0,"dropped":0}
{"type":"state","at_us":1714564860000000,"level":"cut","behind_ms":2500,"queued_bytes":262144,"kernel_unsent_bytes":5,"waiting":2,"sent":7,"merged":3,"dropped":0}
{"type":"stage","tag":"write/kraken/trade","count":1200,"mean_ns":1,"p50_ns":48191,"p90_ns":2,"p99_ns":3,"max_ns":1500000}
{"type":"trade","symbol":"kraken:A","seq":8,"price":"1.50","size":"2","rx":1714564859990000}
{"type":"gap","symbol":"kraken:A","channel":"trade","from":9,"to":12,"why":"feed"}
{"type":"trade","symbol":"kraken:A","seq":13,"price":"1.75","size":"2","rx":1714564859999999}
"#;

    #[test]
    fn a_flight_is_told_in_lines() {
        let told = text("a.ndjson", FLIGHT.as_bytes(), false).expect("a flight");
        let expected = "\
a.ndjson: a client was cut: slow_consumer (4000), at 2024-05-01T12:01:00.000000Z
client c0ffee from 127.0.0.1:5000, here for 60.0 s, 2 subscriptions

state             level     behind     queued    unacked    waiting       sent     merged    dropped
-1.250 s           warn   1,250 ms      1,234          5          0          7          0          0
-0.000 s            cut   2,500 ms    262,144          5          2          7          3          0

stages from -1.900 s to -0.900 s
tag                                   p50        p90        p99        max      count
write/kraken/trade                48.2 µs       2 ns       3 ns    1.50 ms      1,200

3 ticks of the last 10 s; the ring held no older ones
           2 kraken:A trade
           1 kraken:A gap
the last of them:
-0.010 s     kraken:A trade seq=8 price=1.50 size=2
             kraken:A gap channel=trade from=9 to=12 why=feed
-0.000 s     kraken:A trade seq=13 price=1.75 size=2
";
        assert_eq!(told, expected, "{told}");
    }

    #[test]
    fn nothing_in_it_forges_a_row() {
        let forged = r"\u001b[2J\u0007\nx\u202e";
        let mut flight = FLIGHT.to_owned();
        for field in
            ["slow_consumer", "c0ffee", "127.0.0.1:5000", "write/kraken/trade", "kraken:A", "1.50", "feed"]
        {
            flight = flight.replace(field, &format!("{field}{forged}"));
        }
        let told = text("a\u{1b}.ndjson", flight.as_bytes(), false).expect("a flight");
        let plain = text("a?.ndjson", FLIGHT.as_bytes(), false).expect("a flight");
        assert!(!told.contains(|c| c != '\n' && printable::is_hidden(c)), "{told:?}");
        assert_eq!(told.lines().count(), plain.lines().count(), "{told}");
        assert!(told.contains("client c0ffee?[2J??x? from 127.0.0.1:5000?[2J??x?, here for"), "{told}");
    }

    #[test]
    fn a_flight_is_one_object() {
        let told = text("a.ndjson", FLIGHT.as_bytes(), true).expect("a flight");
        let value: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(
            (&value["flight"]["cause"], &value["flight"]["ticks_bound"]),
            (&"cut".into(), &"ring".into())
        );
        assert_eq!(value["what"], "a client was cut: slow_consumer (4000)");
        assert_eq!(
            (&value["client"]["session"], &value["states"][1]["level"]),
            (&"c0ffee".into(), &"cut".into())
        );
        assert_eq!(value["ticks"].as_array().map(Vec::len), Some(3));
        assert_eq!(value["stages"][0]["count"], 1_200);
    }
}
