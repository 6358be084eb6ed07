//! Charts: drawn by plotters as SVG, coloured by the style sheet.
//!
//! A drawing names its colours by place holders, which the style sheet knows by their value and gives the
//! colours of the day or of the night. Whoever does not see it is told the same in a sentence.

use maud::{Markup, PreEscaped, html};
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

use super::words;

/// Sizes in units of the drawing, which grows and shrinks with the page.
const WIDTH: u32 = 580;
const HEIGHT: u32 = 240;
const TEXT_SIZE: i32 = 14;

/// Place holders of the style sheet.
const TEXT: RGBColor = RGBColor(0, 0, 1);
const GRID: RGBColor = RGBColor(0, 0, 2);

/// One line or area.
#[derive(Debug)]
pub(super) struct Own<'a> {
    /// What it shows.
    pub(super) name: &'a str,
    /// Which of the style sheet's colours it has, from 1.
    pub(super) colour: u8,
    /// Its values, the oldest first; none where there is nothing to show.
    pub(super) values: Vec<Option<f64>>,
}

impl Own<'_> {
    fn colour(&self) -> RGBColor {
        RGBColor(self.colour, 0, 0)
    }

    fn last(&self) -> Option<f64> {
        self.values.iter().rev().find_map(|value| *value)
    }
}

/// What a chart is of.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What stands behind a value, as in `ms`.
    pub(super) unit: &'a str,
    pub(super) step_s: u64,
    pub(super) all: Vec<Own<'a>>,
}

impl Chart<'_> {
    /// All values one upon the other.
    pub(super) fn stacked(&self) -> Markup {
        self.figure(self.draw_stacked())
    }

    /// Each value by itself, with tenfold steps of equal height.
    pub(super) fn by_tens(&self) -> Markup {
        self.figure(self.draw_by_tens())
    }

    fn figure(&self, drawn: Option<String>) -> Markup {
        let of_each = self.all.iter().map(|own| match own.last() {
            Some(last) => format!("{} {} {}", own.name, words::decimal(last), self.unit),
            None => format!("{} none", own.name),
        });
        let told: Vec<_> = of_each.collect();
        let label = format!("{}. At last: {}.", self.title, told.join(", "));
        html! {
            figure {
                figcaption { (self.title) }
                @match drawn {
                    Some(svg) => div role="img" aria-label=(label) { (PreEscaped(svg)) },
                    None => p.hint { "Nothing yet: come back in ten seconds." },
                }
                ul.legend aria-hidden="true" {
                    @for own in &self.all {
                        li { span class={ "swatch c" (own.colour) } {} (own.name) }
                    }
                }
            }
        }
    }

    /// How many steps there are, if there is anything to draw.
    fn steps(&self) -> Option<usize> {
        let steps = self.all.iter().map(|own| own.values.len()).max()?;
        (steps > 1).then_some(steps)
    }

    /// How long ago a step was, in seconds, below zero.
    fn second(&self, nth: usize, steps: usize) -> f64 {
        let ago = u32::try_from((steps - 1).saturating_sub(nth)).unwrap_or(u32::MAX);
        let step_s = u32::try_from(self.step_s).unwrap_or(1);
        -f64::from(ago) * f64::from(step_s)
    }

    fn draw_stacked(&self) -> Option<String> {
        let steps = self.steps()?;
        let mut sums = vec![0.0; steps];
        let mut layers = Vec::new();
        for own in &self.all {
            for (sum, value) in sums.iter_mut().zip(&own.values) {
                *sum += value.unwrap_or(0.0);
            }
            layers.push((own.colour(), sums.clone()));
        }
        let most = sums.iter().copied().fold(1.0, f64::max) * 1.05;
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            let from = self.second(0, steps);
            let mut chart = axes(&area, from, 0.0..most)?;
            mesh(&mut chart)?;
            // The highest first: what is below covers it.
            for (colour, sums) in layers.iter().rev() {
                let points = sums.iter().enumerate();
                let points = points.map(|(nth, &sum)| (self.second(nth, steps), sum));
                chart
                    .draw_series(AreaSeries::new(points, 0.0, *colour))
                    .ok()?;
            }
            area.present().ok()?;
        }
        Some(svg)
    }

    fn draw_by_tens(&self) -> Option<String> {
        let steps = self.steps()?;
        let values = || self.all.iter().flat_map(|own| own.values.iter().flatten());
        let most = values().copied().fold(1.0, f64::max) * 1.5;
        let least = values()
            .copied()
            .fold(most, f64::min)
            .clamp(0.01, most / 10.0)
            / 1.5;
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            let from = self.second(0, steps);
            let mut chart = axes(&area, from, (least..most).log_scale())?;
            mesh(&mut chart)?;
            for own in &self.all {
                let points = own.values.iter().enumerate();
                let points = points.map(|(nth, value)| Some((self.second(nth, steps), (*value)?)));
                let points: Vec<_> = points.collect();
                // A line ends where there is nothing to show, and begins anew behind it.
                for run in points.split(Option::is_none) {
                    let run = run.iter().flatten().copied();
                    let line = LineSeries::new(run, own.colour().stroke_width(2));
                    chart.draw_series(line).ok()?;
                }
            }
            area.present().ok()?;
        }
        Some(svg)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Axes<'a, Y> =
    ChartContext<'a, SVGBackend<'a>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>;

/// The plane: seconds from `from` to now, and `y`.
fn axes<'a, Y: AsRangedCoord>(
    area: &Area<'a>,
    from: f64,
    y: Y,
) -> Option<Axes<'a, Y::CoordDescType>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(6)
        .margin_right(16)
        .x_label_area_size(24)
        .y_label_area_size(46);
    builder.build_cartesian_2d(from..0.0, y).ok()
}

fn mesh<Y>(chart: &mut Axes<'_, Y>) -> Option<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(6)
        .y_labels(5)
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", TEXT_SIZE, &TEXT))
        .x_label_formatter(&|second| ago(*second))
        .y_label_formatter(&|value| words::decimal(*value))
        .draw()
        .ok()
}

/// A second below zero, as people say it.
fn ago(second: f64) -> String {
    let seconds = second.abs().round();
    if seconds < 1.0 {
        "now".to_owned()
    } else if seconds < 120.0 {
        format!("−{seconds:.0} s")
    } else {
        format!("−{} min", words::decimal(seconds / 60.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: Vec<Option<f64>>) -> Chart<'static> {
        Chart {
            title: "Requests",
            unit: "a second",
            step_s: 5,
            all: vec![Own {
                name: "passed",
                colour: 1,
                values,
            }],
        }
    }

    #[test]
    fn a_chart_is_drawn_by_colours_of_the_style_sheet_and_told_in_words() {
        let values: Vec<_> = (0..180_u32).map(|nth| Some(f64::from(nth))).collect();
        let chart = chart(values);
        for drawn in [chart.stacked(), chart.by_tens()] {
            let drawn = drawn.into_string();
            assert!(drawn.contains("At last: passed 179 a second."), "{drawn}");
            assert!(drawn.contains("\"#010000\""), "{drawn}");
            assert!(!drawn.contains("style="), "the policy forbids it: {drawn}");
            assert!(drawn.len() < 12_000, "{}", drawn.len());
        }
    }

    #[test]
    fn every_colour_of_a_drawing_is_known_to_the_style_sheet() {
        let sheet = include_str!("assets/wardent.css");
        for place_holder in [
            "#000001", "#000002", "#010000", "#020000", "#030000", "#040000",
        ] {
            assert!(
                sheet.contains(&format!("\"{place_holder}\"")),
                "{place_holder}"
            );
        }
    }

    #[test]
    fn where_there_is_nothing_to_draw_it_is_said() {
        for values in [vec![], vec![None], vec![None, None]] {
            let drawn = chart(values).by_tens().into_string();
            assert!(drawn.contains("passed"), "{drawn}");
        }
        assert!(
            chart(vec![])
                .stacked()
                .into_string()
                .contains("Nothing yet")
        );
    }
}
