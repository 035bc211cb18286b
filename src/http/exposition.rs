//! The two forms in which scrapers read the counters. They are written as OpenMetrics; the older text is made of that.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Response};
use axum::response::IntoResponse;

use super::accept::{Form, choose};

/// The forms with what `Content-Type` says of them. The first is what most tools read, and what who names none gets, as from
/// Prometheus itself.
const FORMS: [(Form, &str); 2] = [
    (Form { kind: "text/plain", version: Some("0.0.4") }, "text/plain; version=0.0.4; charset=utf-8"),
    (
        Form { kind: "application/openmetrics-text", version: Some("1.0.0") },
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ),
];

/// Answers with OpenMetrics text, or what becomes of it, in the form that is asked for.
pub(super) fn response(headers: &HeaderMap, openmetrics: String) -> Response<Body> {
    let chosen = choose(headers, &FORMS.map(|(form, _)| form));
    let text = if chosen == 0 { classic(&openmetrics) } else { openmetrics };
    ([(CONTENT_TYPE, FORMS[chosen].1), (CACHE_CONTROL, "no-store"), (VARY, "accept")], text).into_response()
}

/// OpenMetrics 1.0 as Prometheus' text format 0.0.4: there a family of counters is named as its rows are, units and an end are
/// not told, and some types are not known.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // It stands in front of the type, which tells how the family is named.
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            text += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_text_names_counters_as_their_rows_and_has_no_units() {
        let openmetrics = "\
# HELP a_bytes Bytes that went.
# TYPE a_bytes counter
# UNIT a_bytes bytes
a_bytes_total{x=\"# TYPE\"} 7
# HELP b Now
# TYPE b gauge
b 1
# HELP c_seconds Took
# TYPE c_seconds histogram
# UNIT c_seconds seconds
c_seconds_sum 0.5
c_seconds_count 1
c_seconds_bucket{le=\"+Inf\"} 1
# HELP d Which
# TYPE d info
d_info{version=\"1\"} 1
# HELP e Word
# TYPE e stateset
e{e=\"on\"} 1
# HELP f What
# TYPE f unknown
f 3
# EOF
";
        let expected = "\
# HELP a_bytes_total Bytes that went.
# TYPE a_bytes_total counter
a_bytes_total{x=\"# TYPE\"} 7
# HELP b Now
# TYPE b gauge
b 1
# HELP c_seconds Took
# TYPE c_seconds histogram
c_seconds_sum 0.5
c_seconds_count 1
c_seconds_bucket{le=\"+Inf\"} 1
# HELP d_info Which
# TYPE d_info gauge
d_info{version=\"1\"} 1
# HELP e Word
# TYPE e gauge
e{e=\"on\"} 1
# HELP f What
# TYPE f untyped
f 3
";
        assert_eq!(classic(openmetrics), expected);
    }
}
