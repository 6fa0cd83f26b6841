//! The plot: the speed-up over one worker, against the number of workers. Both axes are logarithmic, to base 2.

use std::error::Error;
use std::fs;
use std::path::Path;

use concurrent_futures::cpu_workers;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Row, median};

const WAITING: RGBColor = RGBColor(0x1b, 0x7f, 0x79);
const COMPUTING: RGBColor = RGBColor(0xc4, 0x4e, 0x2b);
const INK: RGBColor = RGBColor(0x33, 0x38, 0x40);
const FAINT: RGBColor = RGBColor(0xe3, 0xe6, 0xea);

pub(crate) fn draw(rows: &[Row], path: &Path) -> Result<(), Box<dyn Error>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(path, (860, 540)).into_drawing_area();
    area.fill(&WHITE)?;
    chart(&area, rows)?;
    area.present()?;
    Ok(())
}

fn chart(area: &DrawingArea<SVGBackend<'_>, Shift>, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let speedup = |rates: fn(&Row) -> &[f64]| -> Vec<(f64, f64)> {
        rows.iter()
            .map(|row| ((row.workers as f64).log2(), (median(rates(row)) / median(rates(&rows[0]))).log2()))
            .collect()
    };
    let (waiting, computing) = (speedup(|row| &row.wait), speedup(|row| &row.compute));
    let heights = || waiting.iter().chain(&computing).map(|point| point.1);
    let (low, high) = (heights().fold(0.0, f64::min).floor(), heights().fold(1.0, f64::max).ceil());
    let right = waiting.last().map_or(1.0, |point| point.0).max(1.0);
    let low = low.min(-0.5);

    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .caption("How much faster with more workers?", text(24))
        .margin(18)
        .margin_right(150)
        .x_label_area_size(52)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.2..right + 0.2, low..high + 0.2)?;
    chart
        .configure_mesh()
        .x_desc("workers")
        .y_desc("throughput, 1 worker = 1")
        .x_labels(right as usize + 2)
        .y_labels((high - low) as usize + 2)
        .x_label_formatter(&doubled)
        .y_label_formatter(&doubled)
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(text(15))
        .axis_desc_style(text(16))
        .draw()?;

    let cores = (cpu_workers() as f64).log2();
    chart.draw_series(DashedLineSeries::new([(cores, low), (cores, high + 0.2)], 5, 5, INK.into()))?;
    chart.draw_series([EmptyElement::at((cores, high)) + Text::new("one worker per core", (8, -8), text(15))])?;
    for (name, color, points) in [("tasks that wait", WAITING, waiting), ("tasks that compute", COMPUTING, computing)] {
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(3)))?;
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 5, color.filled())))?;
        let label = ("sans-serif", 16).into_font().color(&color).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series(points.last().map(|&end| EmptyElement::at(end) + Text::new(name, (14, 0), label)))?;
    }
    Ok(())
}

/// Two to the power of its argument: 8 for 3.
fn doubled(exponent: &f64) -> String {
    exponent.exp2().to_string()
}
