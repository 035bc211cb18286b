//! Latency budgets: limits on a run, or on an interval of it, such as `write.p99<2ms,total.p99.9<=10ms`.
//! Pure. `docs/LATENCY.md` has the grammar.

use std::fmt;

use crate::time::duration::{self, BadDuration, Flaw};

use hdrhistogram::Histogram;

use super::{Nanos, Stage, Tag};

/// The position and cause of an error in a budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {why}")]
pub struct BudgetError {
    /// The position, in characters from 1.
    pub column: usize,
    /// The cause.
    pub why: String,
}

/// The limited quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    Quantile(f64),
    Max,
    Mean,
}

/// One limit of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The rule as written, without surrounding spaces.
    text: String,
    selector: String,
    metric: Metric,
    limit_ns: u64,
    or_equal: bool,
}

/// The result of checking a [`Rule`] against measurements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetVerdict {
    /// The rule as written.
    pub rule: String,
    /// Its selector: a tag or a prefix of tags.
    pub selector: String,
    /// Whether it limits the tail: the 99th percentile, a higher one, or the maximum.
    pub limits_tail: bool,
    /// The measured value in nanoseconds; `None` if there are no measurements.
    pub measured_ns: Option<u64>,
    /// Whether the rule holds. Without measurements it does not, unless [`Rule::holds_without`] applies.
    pub held: bool,
}

impl BudgetVerdict {
    /// Returns the measured value as text.
    pub fn measured(&self) -> String {
        match self.measured_ns {
            Some(ns) => Nanos(ns).to_string(),
            None if self.held => "no delivery waited for a client".to_owned(),
            None => "nothing was measured".to_owned(),
        }
    }
}

impl fmt::Display for BudgetVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.measured())
    }
}

/// Returns true if a selector is this tag or a prefix of its parts, where a part `*` matches any: `write`,
/// `write/kraken`, `write/*/trade`.
pub fn selects(selector: &str, tag: &str) -> bool {
    let mut parts = tag.split(Tag::SEPARATOR);
    let mut wanted = selector.split(Tag::SEPARATOR);
    wanted.all(|wanted| parts.next().is_some_and(|part| wanted == Tag::ANY || wanted == part))
}

/// Parses a budget: comma-separated rules.
///
/// # Errors
/// The first [`BudgetError`].
pub fn parse(text: &str) -> Result<Vec<Rule>, BudgetError> {
    let mut at = 0;
    let rules = text.split(',').map(|rule| {
        let start = at;
        at += rule.len() + 1;
        Rule::parse(rule)
            .map_err(|(offset, why)| BudgetError { column: text[..start + offset].chars().count() + 1, why })
    });
    rules.collect()
}

/// The offset in a rule, and the cause.
type Fault = (usize, String);

impl Rule {
    fn parse(text: &str) -> Result<Self, Fault> {
        let start = text.len() - text.trim_start().len();
        if text.trim().is_empty() {
            return Err((start, "a rule is missing, such as write.p99<2ms".to_owned()));
        }
        let Some(sign) = text.find('<') else {
            return Err((start, format!("`{}` has no `<` or `<=` and limit", text.trim())));
        };
        let or_equal = text[sign + 1..].starts_with('=');
        let limit_at = sign + 1 + usize::from(or_equal);
        let (selector, metric) = subject(&text[..sign])?;
        Ok(Self {
            text: text.trim().to_owned(),
            selector: selector.to_owned(),
            metric,
            limit_ns: limit(&text[limit_at..]).map_err(|(offset, why)| (limit_at + offset, why))?,
            or_equal,
        })
    }

    /// Returns true if its selector [selects] this tag.
    pub fn selects(&self, tag: &str) -> bool {
        selects(&self.selector, tag)
    }

    /// Returns true if the rule holds without measurements of its own, given measurements under this tag: the
    /// rule is about `slow_client`, and the tag is another stage of the same venue and channel, so no
    /// delivery there waited for a client.
    pub fn holds_without(&self, tag: &str) -> bool {
        let name = Stage::SlowClient.name();
        let rest = self
            .selector
            .strip_prefix(name)
            .filter(|_| Stage::of_tag(&self.selector) == Some(Stage::SlowClient));
        rest.is_some_and(|rest| Stage::of_tag(tag).is_some() && selects(&format!("{}{rest}", Tag::ANY), tag))
    }

    /// Checks the rule against all measurements under the tags that it [selects](Self::selects).
    pub fn judge(&self, values: Option<&Histogram<u64>>) -> BudgetVerdict {
        let values = values.filter(|values| !values.is_empty());
        let measured_ns = values.map(|values| self.metric.of(values));
        let held = measured_ns.is_some_and(|ns| ns < self.limit_ns || (self.or_equal && ns == self.limit_ns));
        let limits_tail = self.metric.is_of_tail();
        BudgetVerdict {
            rule: self.text.clone(),
            selector: self.selector.clone(),
            limits_tail,
            measured_ns,
            held,
        }
    }
}

impl Metric {
    fn is_of_tail(self) -> bool {
        match self {
            Self::Quantile(quantile) => quantile >= 0.99,
            Self::Max => true,
            Self::Mean => false,
        }
    }

    fn of(self, histogram: &Histogram<u64>) -> u64 {
        match self {
            Self::Quantile(quantile) => histogram.value_at_quantile(quantile),
            Self::Max => histogram.max(),
            // Rounded up, so that no rule holds because of rounding.
            Self::Mean => histogram.mean().ceil() as u64,
        }
    }
}

const METRICS: &str = "a stage or tag, then .p50, .p99.9, .max or .mean";

/// Parses the part before the comparison sign: `write.p99.9`. The tag may contain points.
fn subject(text: &str) -> Result<(&str, Metric), Fault> {
    let start = text.len() - text.trim_start().len();
    let subject = text.trim();
    let named = [(".max", Metric::Max), (".mean", Metric::Mean)];
    let named = named.into_iter().find_map(|(end, metric)| Some((subject.strip_suffix(end)?, metric)));
    let (selector, metric) = match (named, subject.rfind(".p")) {
        (Some(found), _) => found,
        (None, Some(point)) => {
            let percentile = &subject[point + 2..];
            let quantile = quantile(percentile).ok_or_else(|| {
                (start + point + 1, format!("`p{percentile}` is no percentile, such as p99.9"))
            })?;
            (&subject[..point], Metric::Quantile(quantile))
        }
        (None, None) => return Err((start, format!("`{subject}` should be {METRICS}"))),
    };
    if selector.is_empty() {
        return Err((start, format!("`{subject}` should be {METRICS}")));
    }
    Ok((selector, metric))
}

/// Returns the quantile of a percentile up to 100, as exact as a float allows: 99.9 is 0.999.
fn quantile(percentile: &str) -> Option<f64> {
    let (whole, fraction) = percentile.split_once('.').unwrap_or((percentile, "0"));
    let digits = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10_u64.pow(fraction.len() as u32);
    let scaled = whole.parse::<u64>().ok()? * scale + fraction.parse::<u64>().ok()?;
    (scaled <= 100 * scale).then(|| scaled as f64 / (100 * scale) as f64)
}

/// Parses a time above 0 with its unit, `1.5ms`, to nanoseconds.
fn limit(text: &str) -> Result<u64, Fault> {
    let start = text.len() - text.trim_start().len();
    let text = text.trim();
    match duration::parse_ns(text) {
        Ok(0) => Err((start, "a limit has to be above 0".to_owned())),
        Ok(ns) => Ok(ns),
        Err(BadDuration { at, why: Flaw::Unit }) => {
            let unit = &text[at..];
            let end = unit.find(|c: char| !c.is_alphabetic()).unwrap_or(unit.len());
            Err((start + at, format!("`{}` is no unit: ns, us, ms, s, m or h", &unit[..end])))
        }
        Err(BadDuration { at, why: Flaw::TooFine }) => {
            Err((start + at, format!("`{text}` is finer than a nanosecond")))
        }
        Err(BadDuration { at, .. }) => {
            Err((start + at, format!("`{text}` is no time, such as 250us or 1.5ms")))
        }
    }
}

/// Parses a time with its unit, such as `10s`, to nanoseconds.
///
/// # Errors
/// The cause as text.
pub fn time(text: &str) -> Result<u64, String> {
    limit(text).map_err(|(_, why)| why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_read() {
        let rules =
            parse("write.p99<2ms, total/kraken.p99.9 <= 1.5 ms ,a.b.max<10us,recv.mean<1s").expect("good");
        let told: Vec<(&str, Metric, u64, bool)> = rules
            .iter()
            .map(|rule| (rule.selector.as_str(), rule.metric, rule.limit_ns, rule.or_equal))
            .collect();
        assert_eq!(
            told,
            [
                ("write", Metric::Quantile(0.99), 2_000_000, false),
                ("total/kraken", Metric::Quantile(0.999), 1_500_000, true),
                ("a.b", Metric::Max, 10_000, false),
                ("recv", Metric::Mean, 1_000_000_000, false),
            ]
        );
        assert_eq!(rules[1].text, "total/kraken.p99.9 <= 1.5 ms");
    }

    #[test]
    fn a_selector_names_tags_by_their_parts() {
        let tags = ["write/kraken/trade", "write/kraken/quote", "write/kraken-2/trade", "writes"];
        for (selector, count) in [
            ("write", 3),
            ("write/kraken", 2),
            ("write/*/trade", 2),
            ("write/kraken/quote", 1),
            ("writes", 1),
            ("writ", 0),
            ("write/kraken/trade/x", 0),
        ] {
            let rule = &parse(&format!("{selector}.max<1s")).expect("good")[0];
            assert_eq!(tags.iter().filter(|tag| rule.selects(tag)).count(), count, "{selector}");
        }
    }

    #[test]
    fn a_rule_about_slow_clients_holds_where_no_client_was_slow() {
        for (rule, tag, holds) in [
            ("slow_client.p99<1s", "total/kraken/trade", true),
            ("slow_client/kraken.p99<1s", "recv/kraken/trade", true),
            ("slow_client/*/trade.p99<1s", "recv/kraken/trade", true),
            ("slow_client/krakn.p99<1s", "recv/kraken/trade", false),
            ("slow_client.p99<1s", "gc", false),
            ("slow_clients.p99<1s", "total/kraken/trade", false),
            ("total.p99<1s", "recv/kraken/trade", false),
        ] {
            assert_eq!(parse(rule).expect("good")[0].holds_without(tag), holds, "{rule} {tag}");
        }
    }

    #[test]
    fn the_slow_end_begins_at_the_99th_percentile() {
        for (metric, expected) in
            [("p0", false), ("p98.9", false), ("p99", true), ("p99.99", true), ("max", true), ("mean", false)]
        {
            let rules = parse(&format!("total.{metric}<1s")).expect("good");
            assert_eq!(rules[0].judge(None).limits_tail, expected, "{metric}");
        }
    }

    #[test]
    fn percentiles_are_exact() {
        let exact = [
            ("50", 0.5),
            ("99.9", 0.999),
            ("99.99", 0.9999),
            ("99.99900", 0.99999),
            ("100", 1.0),
            ("0", 0.0),
        ];
        for (text, expected) in exact {
            assert_eq!(quantile(text), Some(expected), "{text}");
        }
        for text in ["", ".", "9o", "100.1", "99.", ".9", "-1", "99.9.9", "1e1", "9999999999", "+5"] {
            assert_eq!(quantile(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_exact() {
        for (text, ns) in [
            ("1ns", 1),
            ("250us", 250_000),
            ("1.5µs", 1_500),
            ("0.000000001s", 1),
            ("1.50000000000000ms", 1_500_000),
            ("18446744073.709551615s", u64::MAX),
        ] {
            assert_eq!(limit(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, column, why) in [
            ("", 1, "a rule is missing"),
            ("write.p99<2ms,", 15, "a rule is missing"),
            ("write.p99<2ms, ,a.max<1s", 16, "a rule is missing"),
            ("write.p99", 1, "has no `<`"),
            ("write.p99>2ms", 1, "has no `<`"),
            (" write<2ms", 2, "`write` should be a stage or tag, then .p50"),
            (".max<2ms", 1, "should be"),
            (".p50<2ms", 1, "should be"),
            ("write.p9o<2ms", 7, "`p9o` is no percentile"),
            ("µ.max<1s,write.p101<2ms", 16, "`p101` is no percentile"),
            ("a.max<", 7, "`` is no time"),
            ("a.max< <2ms", 8, "`<2ms` is no time"),
            ("a.max<=2", 9, "`` is no unit"),
            ("a.max<2 x", 9, "`x` is no unit"),
            ("a.max<1.2.3ms", 7, "no time"),
            ("a.max<0.5ns", 7, "finer than a nanosecond"),
            ("a.max<0ms", 7, "above 0"),
            ("a.max<99999999999s", 7, "is no time"),
            ("a.max<-1ms", 7, "`-1ms` is no time"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.why.contains(why) && error.column == column, "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn text_never_panics_and_faults_are_within_it(text in "(write|total|[.p09<=µ,ms ]){0,12}|\\PC{0,40}") {
            if let Err(error) = parse(&text) {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.column));
            }
        }

        #[test]
        fn a_rule_is_read_as_it_was_meant(ns in 1u64..10_000_000_000, nines in 1usize..5, or_equal: bool) {
            let sign = if or_equal { "<=" } else { "<" };
            let percentile = format!("99.{}", "9".repeat(nines));
            let text = format!("total/*/trade.p{percentile}{sign}{}.{:09}s", ns / 1_000_000_000, ns % 1_000_000_000);
            let rules = parse(&text).expect("a good rule");
            let close = 1.0 - 10f64.powi(-2 - nines as i32);
            prop_assert!(matches!(rules[0].metric, Metric::Quantile(q) if (q - close).abs() < 1e-12));
            prop_assert_eq!((rules[0].limit_ns, rules[0].or_equal, rules.len()), (ns, or_equal, 1));
        }
    }
}
