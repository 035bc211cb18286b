//! What it comes to, in a sentence: whether the gateway was prompt, where it was not, and how its clients did. Pure.

use serde::Serialize;

use super::account;
use super::figures::Grouped;
use super::run::{Series, stage_of};
use super::{Report, Side};
use crate::latency::budget::{self, Verdict};
use crate::latency::hlog::note::Account;
use crate::latency::{Figures, Nanos, Stage};

/// Where no budget limits `total`, a gateway is prompt whose p99 of it is at most this, nanoseconds.
const PROMPT_NS: u64 = 100_000_000;
/// Broken rules that the sentence names.
const RULES_TOLD: usize = 3;

/// The parts of the way that follow each other.
const PARTS: [Stage; 5] = [Stage::Recv, Stage::Normalise, Stage::Pickup, Stage::Encode, Stage::Write];

/// How the gateway itself did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gateway {
    /// It did its part in time.
    Prompt,
    /// It did not, though no rule says so.
    Slow,
    /// It broke a rule that is not about its clients.
    OverBudget,
    /// No delivery was measured.
    Unknown,
}

/// A rule that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Broken {
    /// As it was written.
    pub(super) rule: String,
    /// The stage that took it: of a rule about the whole way, that which took most, if one can be named.
    pub(super) stage: Option<String>,
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Conclusion {
    /// All of it, in a sentence.
    pub(super) text: String,
    /// How the gateway did.
    pub(super) gateway: Gateway,
    /// The stage that took most of a delivery's time, if one can be named.
    pub(super) stage: Option<String>,
    /// The rules that were broken.
    pub(super) broken: Vec<Broken>,
}

/// Comes to it.
pub(super) fn conclude(report: &Report) -> Conclusion {
    let Report { this, verdicts, .. } = report;
    let total = figures(this, Stage::Total);
    let most = most(this, "");
    let broken: Vec<(&Verdict, Option<Culprit>)> = verdicts
        .iter()
        .filter(|verdict| !verdict.held)
        .map(|verdict| (verdict, culprit(this, verdict)))
        .collect();
    let gateway = gateway(this, total.as_ref(), verdicts);
    let mut clauses = vec![first_clause(this, gateway, total.as_ref(), most)];
    if !broken.is_empty() {
        clauses.push(budget_clause(&broken));
    }
    clauses.extend(overrun_clause(this));
    clauses.push(clients_clause(this));
    let of = |(verdict, culprit): &(&Verdict, Option<Culprit>)| Broken {
        rule: verdict.rule.clone(),
        stage: culprit.as_ref().map(|culprit| culprit.stage.clone()),
    };
    Conclusion {
        text: format!("{}.", clauses.join("; ")),
        gateway,
        stage: most.map(|(stage, _)| stage.name().to_owned()),
        broken: broken.iter().map(of).collect(),
    }
}

/// The part that took the most of `total`, with its p99 in nanoseconds: of all deliveries, or of those whose tags have
/// this `rest` behind the stage. `None` where no part accounts for it: `recv` and `normalise` count every tick, also those
/// that nobody was sent, so what took longer than the whole was not on the way of a delivery.
fn most(side: &Side, rest: &str) -> Option<(Stage, u64)> {
    let total_ns = p99_of(side, Stage::Total, rest)?;
    // Histograms are exact to a thousandth.
    let longest_ns = total_ns.saturating_add(total_ns / 1_000);
    let parts = PARTS.into_iter().filter_map(|part| Some((part, p99_of(side, part, rest)?)));
    let parts: Vec<(Stage, u64)> = parts.filter(|(_, ns)| *ns <= longest_ns).collect();
    let sum_ns = parts.iter().fold(0_u64, |sum, (_, ns)| sum.saturating_add(*ns));
    let most = parts.into_iter().max_by_key(|(_, ns)| *ns);
    // What no part explains may have taken more.
    most.filter(|(_, ns)| *ns >= total_ns.saturating_sub(sum_ns))
}

/// The p99 of what was measured in a stage under tags with this rest, nanoseconds.
fn p99_of(side: &Side, stage: Stage, rest: &str) -> Option<u64> {
    let selector = format!("{}{rest}", stage.name());
    // Too many values to be counted are none to judge by.
    let values = side.run.select(|tag| budget::selects(&selector, tag)).ok()??;
    (!values.is_empty()).then(|| values.value_at_quantile(0.99))
}

fn figures(side: &Side, stage: Stage) -> Option<Figures> {
    let series = side.stages.iter().find(|series| series.name == stage.name());
    series.map(Series::figures).filter(|figures| figures.count > 0)
}

fn p99_ns(figures: &Figures) -> u64 {
    figures.times().find(|(name, _)| *name == "p99").map_or(0, |(_, ns)| ns)
}

/// Whether a rule is about what clients kept waiting, not about the gateway.
fn is_of_clients(verdict: &Verdict) -> bool {
    Stage::of_tag(&verdict.selector) == Some(Stage::SlowClient)
}

/// Whether a rule says how slow the gateway may be: it limits the slow end of all deliveries.
fn limits_total(verdict: &Verdict) -> bool {
    verdict.selector == Stage::Total.name() && verdict.limits_tail
}

fn overrun(side: &Side) -> u64 {
    let gaps = side.run.notes().whole().and_then(|whole| whole.gaps.get("overrun"));
    gaps.map_or(0, |gaps| gaps.ticks)
}

fn gateway(side: &Side, total: Option<&Figures>, verdicts: &[Verdict]) -> Gateway {
    if verdicts.iter().any(|verdict| !verdict.held && !is_of_clients(verdict)) {
        return Gateway::OverBudget;
    }
    if overrun(side) > 0 {
        return Gateway::Slow;
    }
    let Some(total) = total else { return Gateway::Unknown };
    let limited = verdicts.iter().any(|verdict| verdict.held && limits_total(verdict));
    if limited || p99_ns(total) <= PROMPT_NS { Gateway::Prompt } else { Gateway::Slow }
}

fn first_clause(
    side: &Side,
    gateway: Gateway,
    total: Option<&Figures>,
    most: Option<(Stage, u64)>,
) -> String {
    let (begin_ns, end_ns) = side.run.span_ns().unwrap_or_default();
    let lasted = Nanos(end_ns.saturating_sub(begin_ns));
    let total = match total {
        Some(total) => format!("total p99 {} over {lasted}", Nanos(p99_ns(total))),
        None => format!("no delivery was measured in {lasted}"),
    };
    let how = match gateway {
        Gateway::Prompt => "The gateway was prompt",
        Gateway::Slow => "The gateway was slow",
        Gateway::OverBudget => "The gateway was over budget",
        Gateway::Unknown => "Whether the gateway was prompt cannot be said",
    };
    match most.filter(|_| matches!(gateway, Gateway::Slow | Gateway::OverBudget)) {
        Some((stage, ns)) => format!("{how}: {total}, {} took the most (p99 {})", stage.name(), Nanos(ns)),
        None => format!("{how}: {total}"),
    }
}

/// The stage that a broken rule is about; of one about the whole way, that which took most of it.
struct Culprit {
    stage: String,
    /// Of the latter: its p99, nanoseconds.
    p99_ns: Option<u64>,
}

fn culprit(side: &Side, verdict: &Verdict) -> Option<Culprit> {
    let selector = verdict.selector.as_str();
    match Stage::of_tag(selector) {
        Some(Stage::Total) => {
            let (stage, ns) = most(side, selector.strip_prefix(Stage::Total.name())?)?;
            Some(Culprit { stage: stage.name().to_owned(), p99_ns: Some(ns) })
        }
        None if verdict.measured_ns.is_none() => None,
        _ => Some(Culprit { stage: stage_of(selector).to_owned(), p99_ns: None }),
    }
}

fn budget_clause(broken: &[(&Verdict, Option<Culprit>)]) -> String {
    let rule = |(verdict, culprit): &(&Verdict, Option<Culprit>)| {
        let where_ = match culprit {
            Some(Culprit { stage, .. }) if is_of_clients(verdict) => {
                format!(" (stage {stage}: what clients kept waiting, not the gateway)")
            }
            Some(Culprit { stage, p99_ns: Some(ns) }) => {
                format!(" (stage {stage} took the most, p99 {})", Nanos(*ns))
            }
            Some(Culprit { stage, p99_ns: None }) => format!(" (stage {stage})"),
            None => String::new(),
        };
        match verdict.measured_ns {
            Some(ns) => format!("{} was {}{where_}", verdict.rule, Nanos(ns)),
            None => format!("{}: {}", verdict.rule, verdict.measured()),
        }
    };
    let mut rules: Vec<String> = broken.iter().take(RULES_TOLD).map(rule).collect();
    if broken.len() > RULES_TOLD {
        rules.push(format!("and {} rules more", broken.len() - RULES_TOLD));
    }
    format!("broken: {}", rules.join(", "))
}

fn overrun_clause(side: &Side) -> Option<String> {
    let ticks = overrun(side);
    (ticks > 0)
        .then(|| format!("{} were dropped because a shard was too late (overrun)", counted(ticks, "tick")))
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", Grouped(count), if count == 1 { "" } else { "s" })
}

fn clients_clause(side: &Side) -> String {
    let Some(whole) = side.run.notes().whole() else {
        return format!("how its clients did is {}", account::NOT_HERE);
    };
    let (all, slow) = (account::clients(whole), account::slow(whole));
    let clients = if all.0 == 1 { "client" } else { "clients" };
    let cut = cut(whole);
    let cuts = match cut {
        0 => "none was cut".to_owned(),
        1 => "1 was cut".to_owned(),
        cut => format!("{} were cut", Grouped(cut)),
    };
    if slow == 0 {
        let cuts = if cut == 0 { String::new() } else { format!(", {cuts}") };
        return format!("none of {all} {clients} was slow{cuts}");
    }
    let (were, them) = if slow == 1 { ("was", "it") } else { ("were", "them") };
    let dropped = match whole.gaps.get("slow_consumer").map_or(0, |gaps| gaps.ticks) {
        0 => format!("no tick was dropped for {them}"),
        1 => format!("1 tick was dropped for {them} (told by a gap)"),
        ticks => format!("{} were dropped for {them} (all told by gaps)", counted(ticks, "tick")),
    };
    format!("{} of {all} {clients} {were} slow, {dropped}, {cuts}", Grouped(slow))
}

/// Clients that were cut for being slow or silent, or because memory was short.
fn cut(whole: &Account) -> u64 {
    let count = |cause: &str| whole.ended.get(cause).copied().unwrap_or(0);
    ["slow_consumer", "memory", "no_pong"].into_iter().map(count).fold(0, u64::saturating_add)
}
