//! The conclusion of a report, in a sentence: whether the gateway was prompt, the slow stage if not, and the
//! state of its clients. Pure.

use serde::Serialize;

use super::account;
use super::figures::Grouped;
use super::run::{Series, stage_of};
use super::{Report, Side};
use crate::latency::budget::{self, BudgetVerdict};
use crate::latency::hlog::note::Account;
use crate::latency::{Figures, Nanos, Stage};

/// Without a budget for `total`, a gateway is prompt if its p99 is at most this, nanoseconds.
const PROMPT_NS: u64 = 100_000_000;
/// Most violated rules that the sentence names.
const RULES_TOLD: usize = 3;

/// The consecutive stages of the tick path.
const PARTS: [Stage; 5] = [Stage::Recv, Stage::Normalise, Stage::Pickup, Stage::Encode, Stage::Write];

/// Verdict on the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gateway {
    /// Its latency is acceptable.
    Prompt,
    /// Its latency is high although no rule limits it, or a shard dropped ticks because it was too late.
    Slow,
    /// It violates a rule that is not about its clients.
    OverBudget,
    /// No delivery was measured.
    Unknown,
}

/// A violated rule, and its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Broken {
    /// The rule as given.
    pub(super) rule: String,
    /// The responsible stage; of a rule about the total, the stage with the largest share, if it can be
    /// determined.
    pub(super) stage: Option<String>,
}

/// The conclusion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Conclusion {
    /// The conclusion as a sentence.
    pub(super) text: String,
    /// Verdict on the gateway.
    pub(super) gateway: Gateway,
    /// The stage with the largest share of the delivery time, if it can be determined.
    pub(super) stage: Option<String>,
    /// The violated rules.
    pub(super) broken: Vec<Broken>,
}

/// Draws the conclusion.
pub(super) fn conclude(report: &Report) -> Conclusion {
    let Report { this, verdicts, .. } = report;
    let total = figures(this, Stage::Total);
    let most = most(this, "");
    let broken: Vec<(&BudgetVerdict, Option<Culprit>)> = verdicts
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
    let of = |(verdict, culprit): &(&BudgetVerdict, Option<Culprit>)| Broken {
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

/// The stage with the largest share of `total`, with its p99 in nanoseconds: of all deliveries, or of tags
/// with this `rest` behind the stage. `None` if no stage accounts for it: `recv` and `normalise` count every
/// tick, including those sent to no client, so that a stage slower than the total is not part of a delivery.
fn most(side: &Side, rest: &str) -> Option<(Stage, u64)> {
    let total_ns = p99_of(side, Stage::Total, rest)?;
    // Histograms are exact to 0.1 %.
    let longest_ns = total_ns.saturating_add(total_ns / 1_000);
    let parts = PARTS.into_iter().filter_map(|part| Some((part, p99_of(side, part, rest)?)));
    let parts: Vec<(Stage, u64)> = parts.filter(|(_, ns)| *ns <= longest_ns).collect();
    let sum_ns = parts.iter().fold(0_u64, |sum, (_, ns)| sum.saturating_add(*ns));
    let most = parts.into_iter().max_by_key(|(_, ns)| *ns);
    // The time not covered by any stage may be larger.
    most.filter(|(_, ns)| *ns >= total_ns.saturating_sub(sum_ns))
}

/// The p99 of the tags of a stage with this rest, nanoseconds.
fn p99_of(side: &Side, stage: Stage, rest: &str) -> Option<u64> {
    let selector = format!("{}{rest}", stage.name());
    // A sum with too many values is treated as missing.
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

/// Whether a rule is about waiting for slow clients instead of about the gateway.
fn is_of_clients(verdict: &BudgetVerdict) -> bool {
    Stage::of_tag(&verdict.selector) == Some(Stage::SlowClient)
}

/// Whether a rule limits the latency of the gateway, i.e. the tail of all deliveries.
fn limits_total(verdict: &BudgetVerdict) -> bool {
    verdict.selector == Stage::Total.name() && verdict.limits_tail
}

fn overrun(side: &Side) -> u64 {
    let gaps = side.run.notes().whole().and_then(|whole| whole.gaps.get("overrun"));
    gaps.map_or(0, |gaps| gaps.ticks)
}

fn gateway(side: &Side, total: Option<&Figures>, verdicts: &[BudgetVerdict]) -> Gateway {
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
        Gateway::Unknown => "It is unknown whether the gateway was prompt",
    };
    match most.filter(|_| matches!(gateway, Gateway::Slow | Gateway::OverBudget)) {
        Some((stage, ns)) => format!("{how}: {total}, {} took the most (p99 {})", stage.name(), Nanos(ns)),
        None => format!("{how}: {total}"),
    }
}

/// The stage responsible for a violated rule; of a rule about the total, the stage with the largest share.
struct Culprit {
    stage: String,
    /// In the latter case: its p99, nanoseconds.
    p99_ns: Option<u64>,
}

fn culprit(side: &Side, verdict: &BudgetVerdict) -> Option<Culprit> {
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

fn budget_clause(broken: &[(&BudgetVerdict, Option<Culprit>)]) -> String {
    let rule = |(verdict, culprit): &(&BudgetVerdict, Option<Culprit>)| {
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
        rules.push(format!("and {} more rules", broken.len() - RULES_TOLD));
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

/// Number of clients that were cut because they were slow or silent, or because memory was short.
fn cut(whole: &Account) -> u64 {
    let count = |cause: &str| whole.ended.get(cause).copied().unwrap_or(0);
    ["slow_consumer", "memory", "no_pong"].into_iter().map(count).fold(0, u64::saturating_add)
}
