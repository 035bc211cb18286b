//! The report as one self-contained page: no script, no further file, no network. It is well-formed XML as
//! well. Pure.

use std::fmt::{self, Write as _};

use plotters::style::RGBColor;

use super::chart::{self, Curve};
use super::escape::escaped;
use super::figures::{Grouped, Ratio};
use super::run::Series;
use super::verdict::{Conclusion, Gateway, conclude};
use super::{Report, Side, account, utc};
use crate::latency::{Figures, Nanos, Stage};

const STYLE: &str = include_str!("page.css");

/// The page.
///
/// # Errors
/// A chart that cannot be drawn.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n");
    let title = report.this.files.first().map_or("", String::as_str);
    writeln!(out, "<title>Latency: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>", escaped(title))?;
    head(&mut out, report)?;
    budget(&mut out, report)?;
    writeln!(out, "<section>\n<h2>Stages</h2>")?;
    table(&mut out, report, &report.this.stages.iter().collect::<Vec<_>>())?;
    all_stages(&mut out, report)?;
    out.push_str("</section>\n");
    for stage in &report.this.stages {
        one_stage(&mut out, report, stage)?;
    }
    foot(&mut out, report)?;
    out.push_str("</body>\n</html>\n");
    Ok(out)
}

fn head(out: &mut String, report: &Report) -> fmt::Result {
    let Conclusion { text, gateway, .. } = conclude(report);
    let class = if gateway == Gateway::Prompt { "kept" } else { "broke" };
    writeln!(out, "<header>\n<h1>Latency</h1>\n<p class=\"verdict {class}\">{}</p>", escaped(&text))?;
    side(out, &report.this, "")?;
    if let Some(base) = &report.base {
        side(out, base, "compared with ")?;
    }
    writeln!(out, "</header>")?;
    run(out, report)
}

/// The notes of the logs, and the flights.
fn run(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "<section class=\"run\">\n<h2>Run</h2>\n<ul>")?;
    for (at, side) in report.sides().enumerate() {
        let before = if at == 0 { "" } else { "compared: " };
        for (name, words) in side.run.notes().rows() {
            writeln!(out, "<li><b>{before}{name}</b> <span>{}</span></li>", escaped(&words))?;
        }
        for (flight, path) in side.run.notes().flights() {
            let (words, path) = (escaped(&account::flight(flight)), escaped(path));
            writeln!(out, "<li><b>{before}flight</b> <span>{words}</span> <code>{path}</code></li>")?;
        }
        match side.run.notes().whole().map_or(0, |whole| whole.flights_left_out) {
            0 => {}
            more => {
                let more = Grouped(more);
                writeln!(
                    out,
                    "<li><b>{before}flight</b> <span>{more} more, which are not shown</span></li>"
                )?;
            }
        }
    }
    writeln!(out, "</ul>\n</section>")
}

fn side(out: &mut String, side: &Side, before: &str) -> fmt::Result {
    let (begin_ns, end_ns) = side.run.span_ns().unwrap_or_default();
    let files: Vec<String> = side.files.iter().map(|file| format!("<b>{}</b>", escaped(file))).collect();
    writeln!(
        out,
        "<p>{before}{}: {} from <time>{}</time></p>",
        files.join(", "),
        Nanos(end_ns.saturating_sub(begin_ns)),
        utc(begin_ns)
    )
}

fn budget(out: &mut String, report: &Report) -> fmt::Result {
    if report.verdicts.is_empty() {
        return Ok(());
    }
    let broken = report.verdicts.iter().filter(|verdict| !verdict.held).count();
    let (class, words) = match broken {
        0 => ("kept", "Budget kept".to_owned()),
        broken => ("broke", format!("Budget broken: {broken} of {}", report.verdicts.len())),
    };
    writeln!(out, "<section class=\"budget {class}\">\n<h2>{words}</h2>\n<ul>")?;
    for verdict in &report.verdicts {
        let (class, mark) = if verdict.held { ("kept", "✓ kept") } else { ("broke", "✗ broke") };
        let measured = verdict.measured();
        let rule = escaped(&verdict.rule);
        writeln!(
            out,
            "<li class=\"{class}\"><b>{mark}</b> <code>{rule}</code> <span>{measured}</span></li>"
        )?;
    }
    writeln!(out, "</ul>\n</section>")
}

/// A table of these rows. With a base run, its values and the ratios follow below each row.
fn table(out: &mut String, report: &Report, rows: &[&Series]) -> fmt::Result {
    out.push_str("<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">stage</th>");
    let none = Figures { count: 0, mean_ns: 0, quantiles_ns: [0; 5], max_ns: 0 };
    for (name, _) in none.times() {
        write!(out, "<th scope=\"col\">{name}</th>")?;
    }
    out.push_str("<th scope=\"col\">count</th></tr></thead>\n<tbody>\n");
    for row in rows {
        let figures = row.figures();
        write!(out, "<tr><th scope=\"row\">{}</th>", escaped(row.label()))?;
        times(out, &figures)?;
        writeln!(out, "<td>{}</td></tr>", Grouped(figures.count))?;
        let Some(base) = report.base_of(&row.name).map(Series::figures) else { continue };
        out.push_str("<tr class=\"base\"><th scope=\"row\">compared</th>");
        times(out, &base)?;
        writeln!(out, "<td>{}</td></tr>", Grouped(base.count))?;
        out.push_str("<tr class=\"ratio\"><th scope=\"row\">ratio</th>");
        let pairs = figures.times().zip(base.times()).map(|((_, this), (_, base))| Ratio(this, base));
        for ratio in pairs {
            write!(out, "<td class=\"{}\">{ratio}</td>", notable(ratio))?;
        }
        writeln!(out, "<td>{}</td></tr>", Ratio(figures.count, base.count))?;
    }
    writeln!(out, "</tbody>\n</table></div>")
}

/// The class of a ratio: deviations of more than a tenth are marked.
fn notable(ratio: Ratio) -> &'static str {
    match ratio.value() {
        Some(ratio) if ratio > 1.1 => "worse",
        Some(ratio) if ratio < 0.9 => "better",
        _ => "same",
    }
}

/// The cells of the times. A percentile of too few values equals their maximum, and is grey.
fn times(out: &mut String, figures: &Figures) -> fmt::Result {
    let needed = [2, 10, 100, 1_000, 10_000, 1];
    for ((_, ns), needed) in figures.times().zip(needed) {
        match figures.count {
            0 => write!(out, "<td>–</td>")?,
            count if count < needed => {
                let why = format!("fewer than {} values: this is the maximum", Grouped(needed));
                write!(out, "<td class=\"few\" title=\"{why}\">{}</td>", Nanos(ns))?;
            }
            _ => write!(out, "<td>{}</td>", Nanos(ns))?,
        }
    }
    Ok(())
}

fn all_stages(out: &mut String, report: &Report) -> anyhow::Result<()> {
    let curves: Vec<Curve<'_>> = report
        .this
        .stages
        .iter()
        .enumerate()
        .map(|(at, stage)| Curve { name: stage.label(), colour: colour(stage, at), values: &stage.whole })
        .collect();
    let svg = chart::percentiles("Percentile curves of every stage", &curves)?;
    writeln!(
        out,
        "<figure class=\"all\">{svg}<figcaption>Time by percentile. Each step to the right is a tenth of the values \
         that were left; a curve ends at its maximum.</figcaption></figure>"
    )?;
    Ok(())
}

fn colour(stage: &Series, at: usize) -> RGBColor {
    chart::STAGES[Stage::of_tag(&stage.name).map_or(at, |stage| stage as usize) % chart::STAGES.len()]
}

fn one_stage(out: &mut String, report: &Report, stage: &Series) -> anyhow::Result<()> {
    let name = escaped(stage.label());
    let meaning = Stage::of_tag(&stage.name).map_or("", Stage::meaning);
    writeln!(out, "<section>\n<h2>{name} <small>{meaning}</small></h2>\n<div class=\"pair\">")?;
    let base = report.base.as_ref().zip(report.base_of(&stage.name));
    let mut curves = vec![Curve { name: "", colour: chart::P50, values: &stage.whole }];
    if let Some((_, base)) = base {
        curves.insert(0, Curve { name: "", colour: chart::BASE, values: &base.whole });
    }
    let svg = chart::percentiles(&format!("Percentile curve of {}", stage.label()), &curves)?;
    out.push_str(&format!("<figure>{svg}<figcaption>by percentile"));
    key(out, &[(chart::P50, "this run")][..if base.is_some() { 1 } else { 0 }])?;
    key(out, &[(chart::BASE, "compared")][..if base.is_some() { 1 } else { 0 }])?;
    out.push_str("</figcaption></figure>\n");
    let begin_ns = |side: &Side| side.run.span_ns().map_or(0, |(begin_ns, _)| begin_ns);
    let svg = chart::over_time(
        &format!("{} over time", stage.label()),
        (stage, begin_ns(&report.this)),
        base.map(|(side, series)| (series, begin_ns(side))),
    )?;
    out.push_str(&format!("<figure>{svg}<figcaption>over time"));
    key(out, &[(chart::P50, "p50"), (chart::P99, "p99"), (chart::MAX, "max")])?;
    key(out, &[(chart::BASE, "p99 compared")][..if base.is_some() { 1 } else { 0 }])?;
    out.push_str("</figcaption></figure>\n</div>\n");
    let tags = report.this.run.tags_of(&stage.name);
    if !tags.is_empty() {
        let words = if tags.len() == 1 { "tag" } else { "tags" };
        writeln!(out, "<details><summary>{} {words}</summary>", tags.len())?;
        table(out, report, &tags)?;
        out.push_str("</details>\n");
    }
    out.push_str("</section>\n");
    Ok(())
}

/// Legend of the line colours.
fn key(out: &mut String, lines: &[(RGBColor, &str)]) -> fmt::Result {
    for (RGBColor(red, green, blue), name) in lines {
        let colour = format!("#{red:02X}{green:02X}{blue:02X}");
        write!(
            out,
            " <span class=\"key\"><svg viewBox=\"0 0 20 10\" aria-hidden=\"true\"><line x1=\"0\" y1=\"5\" x2=\"20\" \
             y2=\"5\" stroke=\"{colour}\" stroke-width=\"4\" /></svg>{name}</span>"
        )?;
    }
    Ok(())
}

fn foot(out: &mut String, report: &Report) -> fmt::Result {
    out.push_str("<footer>\n");
    for note in report.notes() {
        writeln!(out, "<p>Note: {}</p>", escaped(&note))?;
    }
    writeln!(
        out,
        "<p>The figures include every recorded value; none is an average of percentiles. Percentiles are exact to \
         three digits, rounded up. Over time, each level is one interval of the log, or the worst of those that share a \
         column. Times begin at rx, when the gateway has received the frame; the time from the venue is not \
         included.</p>"
    )?;
    writeln!(out, "<p>tickfan {}</p>\n</footer>", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_knows_every_colour_of_the_charts() {
        let line_colours = [chart::INK, chart::GRID, chart::BASE, chart::P50, chart::P99, chart::MAX];
        for RGBColor(red, green, blue) in line_colours.into_iter().chain(chart::STAGES) {
            let colour = format!("\"#{red:02X}{green:02X}{blue:02X}\"");
            assert!(STYLE.contains(&colour), "page.css has no dark counterpart of {colour}");
        }
    }

    #[test]
    fn nothing_escapes() {
        assert_eq!(
            escaped("<a href='x'>&\"\u{1b}\u{202e}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}"
        );
    }
}
