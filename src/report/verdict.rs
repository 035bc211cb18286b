//! What it comes to, in a sentence: whether the gateway was prompt, where it was not, and how its clients did. Pure.

use serde::Serialize;

use super::account;
use super::figures::Grouped;
use super::run::{Series, stage_of};
use super::{Report, Side};
use crate::latency::budget::Verdict;
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
    /// It broke a rule about its own part.
    OverBudget,
    /// No delivery was measured.
    Unknown,
}

/// A rule that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Broken {
    /// As it was written.
    pub(super) rule: String,
    /// The stage that took it: of a rule about the whole way, that which took most.
    pub(super) stage: Option<String>,
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Conclusion {
    /// All of it, in a sentence.
    pub(super) text: String,
    /// How the gateway did.
    pub(super) gateway: Gateway,
    /// The stage that took most of a delivery's time.
    pub(super) stage: Option<String>,
    /// The rules that were broken.
    pub(super) broken: Vec<Broken>,
}

/// Comes to it.
pub(super) fn conclude(report: &Report) -> Conclusion {
    let Report { this, verdicts, .. } = report;
    let total = figures(this, Stage::Total);
    let most = PARTS.into_iter().filter_map(|part| Some((part, p99_ns(&figures(this, part)?))));
    let most = most.max_by_key(|(_, ns)| *ns);
    let broken: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.held).collect();
    let gateway = gateway(this, total.as_ref(), verdicts);
    let mut clauses = vec![first_clause(this, gateway, total.as_ref(), most)];
    if !broken.is_empty() {
        clauses.push(budget_clause(&broken, most));
    }
    clauses.extend(overrun_clause(this));
    clauses.push(clients_clause(this));
    let of = |verdict: &&Verdict| Broken {
        rule: verdict.rule.clone(),
        stage: culprit(verdict, most).map(|(stage, _)| stage.to_owned()),
    };
    Conclusion {
        text: format!("{}.", clauses.join("; ")),
        gateway,
        stage: most.map(|(stage, _)| stage.name().to_owned()),
        broken: broken.iter().map(of).collect(),
    }
}

fn figures(side: &Side, stage: Stage) -> Option<Figures> {
    let series = side.stages.iter().find(|series| series.name == stage.name());
    series.map(Series::figures).filter(|figures| figures.count > 0)
}

fn p99_ns(figures: &Figures) -> u64 {
    figures.times().find(|(name, _)| *name == "p99").map_or(0, |(_, ns)| ns)
}

/// The stage that a rule is about, if it is one of the gateway's own.
fn own_stage(verdict: &Verdict) -> Option<Stage> {
    Stage::of_tag(&verdict.selector).filter(|stage| *stage != Stage::SlowClient)
}

fn overrun(side: &Side) -> u64 {
    let gaps = side.run.notes().whole().and_then(|whole| whole.gaps.get("overrun"));
    gaps.map_or(0, |gaps| gaps.ticks)
}

fn gateway(side: &Side, total: Option<&Figures>, verdicts: &[Verdict]) -> Gateway {
    let own = || verdicts.iter().filter(|verdict| own_stage(verdict).is_some());
    if own().any(|verdict| !verdict.held && verdict.measured_ns.is_some()) {
        return Gateway::OverBudget;
    }
    if overrun(side) > 0 {
        return Gateway::Slow;
    }
    let Some(total) = total else { return Gateway::Unknown };
    let limited = own().any(|verdict| own_stage(verdict) == Some(Stage::Total) && verdict.held);
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

/// The stage that a broken rule is about; of one about the whole way, that which took most of it, with its p99.
fn culprit(verdict: &Verdict, most: Option<(Stage, u64)>) -> Option<(&str, Option<u64>)> {
    match (Stage::of_tag(&verdict.selector), most) {
        (Some(Stage::Total), Some((stage, ns))) => Some((stage.name(), Some(ns))),
        (Some(stage), _) => Some((stage.name(), None)),
        (None, _) => verdict.measured_ns.map(|_| (stage_of(&verdict.selector), None)),
    }
}

fn budget_clause(broken: &[&Verdict], most: Option<(Stage, u64)>) -> String {
    let rule = |verdict: &&Verdict| {
        let where_ = match culprit(verdict, most).filter(|_| verdict.measured_ns.is_some()) {
            Some((stage, _)) if stage == Stage::SlowClient.name() => {
                format!(" (stage {stage}: what clients kept waiting, not the gateway)")
            }
            Some((stage, Some(ns))) => format!(" (stage {stage} took the most, p99 {})", Nanos(ns)),
            Some((stage, None)) => format!(" (stage {stage})"),
            None => String::new(),
        };
        match verdict.measured_ns {
            Some(ns) => format!("{} was {}{where_}", verdict.rule, Nanos(ns)),
            None => format!("{}: nothing was measured", verdict.rule),
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

/// Clients that were cut for being slow or silent.
fn cut(whole: &Account) -> u64 {
    let count = |cause: &str| whole.ended.get(cause).copied().unwrap_or(0);
    count("slow_consumer").saturating_add(count("no_pong"))
}
