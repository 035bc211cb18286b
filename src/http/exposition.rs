//! The two formats of the metrics: OpenMetrics, and the older Prometheus text, which is derived from it.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Response};
use axum::response::IntoResponse;

use super::accept::{Form, choose};

/// The formats with their `Content-Type`. The first is the default, as in Prometheus itself: most tools read
/// it.
const FORMS: [(Form, &str); 2] = [
    (Form { kind: "text/plain", version: Some("0.0.4") }, "text/plain; version=0.0.4; charset=utf-8"),
    (
        Form { kind: "application/openmetrics-text", version: Some("1.0.0") },
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ),
];

/// Responds with the OpenMetrics text, in the format that the request prefers.
pub(super) fn response(headers: &HeaderMap, openmetrics: String) -> Response<Body> {
    let chosen = choose(headers, &FORMS.map(|(form, _)| form));
    let text = if chosen == 0 { classic(&openmetrics) } else { openmetrics };
    ([(CONTENT_TYPE, FORMS[chosen].1), (CACHE_CONTROL, "no-store"), (VARY, "accept")], text).into_response()
}

/// Converts OpenMetrics 1.0 to Prometheus' text format 0.0.4, in which a counter family has the name of its
/// rows, units and the end marker do not exist, and some types are unknown.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // Held back until the type is known, which determines the name of the family.
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
