//! Content negotiation: selects the form of an answer by the `q` of `Accept` (RFC 9110, 12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// A form of an answer. Lists of forms begin with the default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Media type, such as `text/plain`.
    pub(super) kind: &'static str,
    /// Version, if the type has versions. A range without a version matches any.
    pub(super) version: Option<&'static str>,
}

/// Preference for a form, and how specific the matching range is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    /// The quality value, in thousandths.
    q: u16,
    exactness: u8,
}

/// Index of the preferred form. Ties go to the most specific range, then to the first form. The first form is
/// also the result if the request accepts none of them, because a client that cannot read it has no better
/// alternative.
pub(super) fn choose(headers: &HeaderMap, forms: &[Form]) -> usize {
    let asked: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut best = (0, Wish::default());
    for (at, form) in forms.iter().enumerate() {
        let wish = wish(&asked, *form);
        if wish.q > 0 && wish > best.1 {
            best = (at, wish);
        }
    }
    best.0
}

/// The preference for a form; the most specific range counts.
fn wish(asked: &[&str], form: Form) -> Wish {
    let ranges = asked.iter().flat_map(|value| value.split(','));
    let wishes = ranges.filter_map(|range| said_of(range, form));
    wishes.reduce(|best, wish| if wish.exactness > best.exactness { wish } else { best }).unwrap_or_default()
}

/// The preference that one range, such as `text/*;q=0.5`, states for a form; `None` if it does not match.
fn said_of(range: &str, form: Form) -> Option<Wish> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut q, mut exactness) = (1_000, exactness(&kind, form.kind)?);
    // A parameter may be empty (RFC 9110, 5.6.6): `text/plain;` is `text/plain`.
    for parameter in parts.filter(|part| !part.is_empty()) {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => q = thousandths(value)?,
            "version" if form.version != Some(value) => return None,
            "version" => exactness += 1,
            // `charset` and `escaping`: the output satisfies every value.
            _ => {}
        }
    }
    Some(Wish { q, exactness })
}

/// Parses a number from 0 to 1 with up to three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = matches!(whole, "0" | "1") && fraction.len() <= 3;
    if !is_number || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{whole}{fraction:0<3}").parse().ok().filter(|q| *q <= 1_000)
}

/// How specifically a range matches a type; `None` if it does not.
fn exactness(range: &str, kind: &str) -> Option<u8> {
    let main = kind.split('/').next()?;
    match range {
        "*/*" => Some(1),
        _ if range.strip_suffix("/*") == Some(main) => Some(2),
        _ if range == kind => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [Form; 2] = [
        Form { kind: "text/plain", version: Some("0.0.4") },
        Form { kind: "application/openmetrics-text", version: Some("1.0.0") },
    ];

    fn chosen(values: &[&'static str]) -> usize {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, value.parse().expect("a value"));
        }
        choose(&headers, &FORMS)
    }

    #[test]
    fn the_first_form_is_the_default() {
        for accept in [
            "*/*",
            "",
            "text/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json",
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain,application/openmetrics-text",
            "application/*;q=0.4,text/plain;q=0.5",
            "*/*;q=0",
        ] {
            assert_eq!(chosen(&[accept]), 0, "{accept}");
        }
        assert_eq!(chosen(&[]), 0);
    }

    #[test]
    fn what_is_asked_for_more_is_given() {
        for accept in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "application/openmetrics-text, */*",
            "text/plain;q=0.5,application/openmetrics-text;version=1.0.0;q=0.75",
            "text/plain;q=0, */*",
            "application/*",
            "application/openmetrics-text;",
            "application/openmetrics-text; ;version=1.0.0 ; ;",
            "text/plain;q=0.5;,application/openmetrics-text;;q=0.75",
            // Prometheus 2.49 and 3.
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(chosen(&[accept]), 1, "{accept}");
        }
        assert_eq!(chosen(&["text/plain;q=0.1", "application/openmetrics-text;q=0.2"]), 1, "several lines");
    }

    #[test]
    fn a_version_that_there_is_not_is_not_given() {
        for accept in [
            "application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=2.0.0;q=1,text/plain;q=0.1",
        ] {
            assert_eq!(chosen(&[accept]), 0, "{accept}");
        }
    }

    #[test]
    fn what_is_no_range_says_nothing() {
        for accept in [
            ",;=,q=1;;",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=1.001",
            "application/openmetrics-text;q=0.5000",
            "application/openmetrics-text;q=.5",
            "application/openmetrics-text;q=nan",
            "application/openmetrics-text;q=-1",
            "application/openmetrics-text;q",
            "application/openmetrics-text;q=0",
            "application",
            "*",
        ] {
            assert_eq!(chosen(&[accept]), 0, "{accept}");
        }
    }
}
