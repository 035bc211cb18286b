//! The charts of the page, as SVG. Pure. The colours are those of the light theme; the style sheet of the
//! page replaces them in the dark theme.

use std::ops::Range;

use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::run::{Point, Series};
use crate::latency::Nanos;
use crate::text::printable;

/// Axes and labels.
pub(super) const INK: RGBColor = RGBColor(0x4a, 0x4f, 0x57);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xe2, 0xe5, 0xea);
/// The base run.
pub(super) const BASE: RGBColor = RGBColor(0x9a, 0xa0, 0xa9);
/// The median over time.
pub(super) const P50: RGBColor = RGBColor(0x00, 0x72, 0xb2);
/// The 99th percentile over time.
pub(super) const P99: RGBColor = RGBColor(0xc2, 0x57, 0x00);
/// The maximum over time.
pub(super) const MAX: RGBColor = RGBColor(0x8e, 0x3b, 0x80);
/// The stages in the order of the tick path, then other tags in rotation: distinguishable by colour-blind
/// readers (after Okabe and Ito), and dark enough on white.
pub(super) const STAGES: [RGBColor; 8] = [
    RGBColor(0x3a, 0x96, 0xd2),
    RGBColor(0xb8, 0x7a, 0x00),
    RGBColor(0x00, 0x8f, 0x68),
    RGBColor(0xc0, 0x5f, 0x96),
    RGBColor(0x00, 0x51, 0x8f),
    RGBColor(0xd0, 0x4a, 0x00),
    RGBColor(0x1c, 0x1f, 0x24),
    RGBColor(0x8a, 0x72, 0x00),
];

/// Size of a chart in its own units. It is large, because coordinates are integers; the page scales it.
const SIZE: (u32, u32) = (1760, 1080);
const FONT_SIZE: u32 = 50;
const LINE_WIDTH: u32 = 6;
/// Space for the names of the curves.
const NAMES_WIDTH: u32 = 300;
/// Number of columns of a curve.
const COLUMNS: u32 = 400;

/// A distribution to draw.
pub(super) struct Curve<'a> {
    /// Label at its end; "" for none.
    pub(super) name: &'a str,
    pub(super) colour: RGBColor,
    pub(super) values: &'a Histogram<u64>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// An axis with given steps. Heights are logarithms.
struct Axis {
    range: Range<f64>,
    steps: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        from + (f64::from(to - from) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.steps.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Draws on an area of [`SIZE`]; `words` is the description for screen readers.
fn drawn(words: &str, draw: impl FnOnce(&Area<'_>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area)?;
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    // SVG within HTML needs no namespace, and the page determines its size.
    let (width, height) = SIZE;
    let head = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
        super::escape::escaped(words)
    );
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    Ok(head + body)
}

/// Values by percentile, on an axis of nines: each step to the right covers nine tenths of the rest.
pub(super) fn percentiles(words: &str, curves: &[Curve<'_>]) -> anyhow::Result<String> {
    drawn(words, |area| {
        let values = curves.iter().map(|curve| curve.values).filter(|values| !values.is_empty());
        let ranges = values.clone().map(|values| (values.min(), values.max()));
        let nines_max = values.map(|values| nines_of(values.len())).fold(1.0, f64::max);
        let named = curves.iter().any(|curve| !curve.name.is_empty());
        let x = Axis { range: 0.0..nines_max, steps: nine_steps(nines_max) };
        let mut chart = framed(area, named, x, ranges, &percentile_name)?;
        for curve in curves {
            let line = percentile_line(curve.values);
            stroke(&mut chart, line.iter().copied(), curve.colour, LINE_WIDTH)?;
        }
        name_ends(area, &chart, curves)
    })
}

/// Position of the maximum of `count` values, in nines.
fn nines_of(count: u64) -> f64 {
    (count.max(1) as f64).log10().max(0.3)
}

/// The value at each column, then the maximum.
fn percentile_line(values: &Histogram<u64>) -> Vec<(f64, f64)> {
    if values.is_empty() {
        return Vec::new();
    }
    let end = nines_of(values.len());
    let nines = (0..COLUMNS).map(|column| end * f64::from(column) / f64::from(COLUMNS));
    let at = values.value_at_quantiles(nines.clone().map(|nines| 1.0 - 10_f64.powf(-nines)));
    let mut line: Vec<(f64, f64)> = nines.zip(at.map(height)).collect();
    line.push((end, height(values.max())));
    line
}

/// Height of a value: its logarithm, which requires a value above 0.
fn height(ns: u64) -> f64 {
    (ns.max(1) as f64).log10()
}

/// 0, the median, and as many nines as fit.
fn nine_steps(nines_max: f64) -> Vec<f64> {
    let every = if nines_max > 7.0 { 2 } else { 1 };
    let nines = (1..=nines_max.floor() as u32).step_by(every).map(f64::from);
    let median = if nines_max < 8.0 { Some(std::f64::consts::LOG10_2) } else { None };
    median.into_iter().chain(nines).collect()
}

/// The percentile at a number of nines: 99.9 at 3.
fn percentile_name(nines: &f64) -> String {
    match nines.round() as usize {
        0 => "50".to_owned(),
        1 => "90".to_owned(),
        2 => "99".to_owned(),
        many => format!("99.{}", "9".repeat(many - 2)),
    }
}

/// Median, 99th percentile and maximum of each interval, and the 99th percentile of the base run. Both begin
/// at 0.
pub(super) fn over_time(
    words: &str,
    this: (&Series, u64),
    base: Option<(&Series, u64)>,
) -> anyhow::Result<String> {
    drawn(words, |area| {
        let runs = || [this].into_iter().chain(base);
        let ends = runs().flat_map(|(series, begin_ns)| {
            series.points.iter().map(move |point| since(begin_ns, point.end_ns))
        });
        let end = ends.fold(0.001, f64::max);
        let ranges = this.0.points.iter().map(|point| (point.p50_ns, point.max_ns));
        let base_ranges =
            base.iter().flat_map(|(series, _)| &series.points).map(|point| (point.p99_ns, point.p99_ns));
        let steps = time_steps(end);
        let x = Axis { range: 0.0..end, steps: steps.clone() };
        let mut chart =
            framed(area, false, x, ranges.chain(base_ranges), &|seconds| time_name(*seconds, &steps))?;
        if let Some((series, begin_ns)) = base {
            time_line(&mut chart, series, (begin_ns, end), |point| point.p99_ns, (BASE, 5))?;
        }
        for (colour, width, of) in LINES {
            time_line(&mut chart, this.0, (this.1, end), of, (colour, width))?;
        }
        Ok(())
    })
}

/// A value of an interval.
type Value = fn(&Point) -> u64;
/// The maximum is thin, because it varies most and is least significant.
const LINES: [(RGBColor, u32, Value); 3] =
    [(MAX, 3, |point| point.max_ns), (P99, 5, |point| point.p99_ns), (P50, 5, |point| point.p50_ns)];

fn since(begin_ns: u64, ns: u64) -> f64 {
    ns.saturating_sub(begin_ns) as f64 / 1e9
}

/// A step per interval. Intervals that share a column are drawn as the worst of them; missing measurements
/// leave a hole.
fn time_line(
    chart: &mut Chart<'_>,
    series: &Series,
    (begin_ns, end): (u64, f64),
    value: Value,
    (colour, width): (RGBColor, u32),
) -> anyhow::Result<()> {
    let column = end / f64::from(COLUMNS);
    let mut levels: Vec<(Range<f64>, u64)> = Vec::new();
    for point in &series.points {
        let (from, to) = (since(begin_ns, point.start_ns), since(begin_ns, point.end_ns));
        match levels.last_mut() {
            Some((range, worst)) if to - range.start <= column => {
                range.end = range.end.max(to);
                *worst = (*worst).max(value(point));
            }
            _ => levels.push((from..to, value(point))),
        }
    }
    // Intervals do not adjoin to the millisecond.
    let near = |left: &(Range<f64>, u64), right: &(Range<f64>, u64)| {
        right.0.start - left.0.end <= column.max((left.0.end - left.0.start) / 2.0)
    };
    for line in levels.chunk_by(near) {
        let ends = line.iter().flat_map(|(range, ns)| [(range.start, height(*ns)), (range.end, height(*ns))]);
        stroke(chart, ends, colour, width)?;
    }
    Ok(())
}

/// Round steps of time, at most six, seconds.
fn time_steps(end: f64) -> Vec<f64> {
    const STEPS: [f64; 20] = [
        0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0,
        7_200.0, 21_600.0, 86_400.0, 604_800.0,
    ];
    let fits = |step: f64| end / step <= 6.0;
    let step = STEPS.into_iter().find(|step| fits(*step)).unwrap_or(end / 6.0);
    (0..=6).map(|at| f64::from(at) * step).filter(|at| *at <= end).collect()
}

/// Label of a time on an axis with these steps: in the largest unit in which all of them are whole.
fn time_name(seconds: f64, steps: &[f64]) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    let whole = |unit: f64| steps.len() > 1 && steps.iter().all(|step| (step / unit).fract() < 1e-9);
    match units.into_iter().find(|(unit, _)| whole(*unit)) {
        _ if seconds == 0.0 => "0".to_owned(),
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{} s", (seconds * 1_000.0).round() / 1_000.0),
    }
}

/// A chart with axes and without lines; its height is logarithmic and fits the ranges.
fn framed<'a>(
    area: &Area<'a>,
    named: bool,
    x: Axis,
    ranges: impl Iterator<Item = (u64, u64)>,
    x_name: &dyn Fn(&f64) -> String,
) -> anyhow::Result<Chart<'a>> {
    let (least, most) =
        ranges.fold((u64::MAX, 0), |(least, most), range| (least.min(range.0), most.max(range.1)));
    let (least, most) = if least > most { (0.0, 3.0) } else { (height(least) - 0.1, height(most) + 0.1) };
    let y = Axis { range: least..most.max(least + 0.5), steps: decades(least, most) };
    let mut chart = ChartBuilder::on(area)
        .margin_top(30)
        .margin_right(if named { NAMES_WIDTH } else { 60 })
        .x_label_area_size(90)
        .y_label_area_size(220)
        .build_cartesian_2d(x, y)
        .map_err(|error| anyhow!("{error}"))?;
    let words = ("sans-serif", FONT_SIZE).into_font().color(&INK);
    chart
        .configure_mesh()
        .bold_line_style(GRID.stroke_width(2))
        .light_line_style(TRANSPARENT)
        .axis_style(INK.stroke_width(3))
        .label_style(words)
        .x_label_formatter(x_name)
        .y_label_formatter(&|height| {
            Nanos(10_f64.powf(*height).round() as u64).to_string().replace(".00", "").replace(".0", "")
        })
        .draw()
        .map_err(|error| anyhow!("{error}"))?;
    Ok(chart)
}

/// 1, 10, 100 …; with values in between if there are few.
fn decades(least: f64, most: f64) -> Vec<f64> {
    let between: &[f64] = match most - least {
        few if few < 1.5 => &[1.0, 2.0, 5.0],
        some if some < 3.0 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let powers = (least.floor() as i32..=most.ceil() as i32).map(f64::from);
    let steps = powers.flat_map(|power| between.iter().map(move |digit| power + digit.log10()));
    steps.filter(|step| (least..=most).contains(step)).collect()
}

fn stroke(
    chart: &mut Chart<'_>,
    line: impl IntoIterator<Item = (f64, f64)>,
    colour: RGBColor,
    width: u32,
) -> anyhow::Result<()> {
    chart
        .draw_series(LineSeries::new(line, colour.stroke_width(width)))
        .map_err(|error| anyhow!("{error}"))?;
    Ok(())
}

/// Writes each name at the end of its curve, or as close as the others allow.
fn name_ends(area: &Area<'_>, chart: &Chart<'_>, curves: &[Curve<'_>]) -> anyhow::Result<()> {
    const LINE_HEIGHT: i32 = FONT_SIZE as i32 + 4;
    let mut ends: Vec<(i32, &Curve<'_>)> = curves
        .iter()
        .filter(|curve| !curve.name.is_empty())
        .filter_map(|curve| Some((chart.backend_coord(percentile_line(curve.values).last()?).1, curve)))
        .collect();
    ends.sort_by_key(|(y, _)| *y);
    // First from below, then from above, so that names moved out of the chart return.
    let mut lowest = SIZE.1 as i32 - 100;
    for (y, _) in ends.iter_mut().rev() {
        *y = (*y).min(lowest);
        lowest = *y - LINE_HEIGHT;
    }
    let mut highest = LINE_HEIGHT / 2;
    for (y, _) in &mut ends {
        *y = (*y).max(highest);
        highest = *y + LINE_HEIGHT;
    }
    let left = (SIZE.0 - NAMES_WIDTH) as i32 + 16;
    for (y, curve) in ends {
        let style = ("sans-serif", FONT_SIZE)
            .into_font()
            .color(&curve.colour)
            .pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(&printable::line(curve.name), &style, (left, y))
            .map_err(|error| anyhow!("{error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency;

    #[test]
    fn axes_have_round_steps() {
        assert_eq!(decades(1.9, 6.2), [2.0, 3.0, 4.0, 5.0, 6.0]);
        let steps: Vec<f64> = decades(1.9, 2.8).iter().map(|step| 10_f64.powf(*step).round()).collect();
        assert_eq!(steps, [100.0, 200.0, 500.0]);
        let names = |end| {
            let steps = time_steps(end);
            steps.iter().map(|at| time_name(*at, &steps)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(61.0), "0 20 s 40 s 60 s");
        assert_eq!(names(700.0), "0 2 min 4 min 6 min 8 min 10 min");
        assert_eq!(names(0.0005), "0");
        assert_eq!(time_steps(0.0).len(), 1);
        assert_eq!(time_steps(1e9).len(), 7);
        let named: Vec<String> = nine_steps(4.2).iter().map(percentile_name).collect();
        assert_eq!(named, ["50", "90", "99", "99.9", "99.99"]);
    }

    #[test]
    fn a_curve_ends_at_the_maximum() {
        let mut values = latency::histogram();
        assert!(percentile_line(&values).is_empty());
        (1..=1_000).for_each(|ns| values.record(ns * 1_000).expect("in its bounds"));
        let line = percentile_line(&values);
        assert_eq!(line.last().copied(), Some((3.0, height(values.max()))));
        assert!(line.is_sorted_by(|left, right| left.0 < right.0 && left.1 <= right.1));
        let median = line.iter().find(|(nines, _)| *nines >= std::f64::consts::LOG10_2).expect("a column");
        assert!((median.1 - 500_000_f64.log10()).abs() < 0.01, "{median:?}");
    }

    #[test]
    fn one_value_and_none_can_be_drawn() {
        let mut one = latency::histogram();
        one.record(5).expect("in its bounds");
        let none = latency::histogram();
        let curve = |values| Curve { name: "x", colour: INK, values };
        let svg = percentiles("<words>", &[curve(&one), curve(&none)]).expect("drawn");
        assert!(
            svg.starts_with("<svg viewBox=") && svg.ends_with("</svg>\n") && svg.contains("&lt;words&gt;")
        );
        let series = Series { name: "x".to_owned(), whole: none, points: Vec::new() };
        assert!(over_time("x", (&series, 0), None).expect("drawn").contains("</svg>"));
    }
}
