//! Curves and points, in panels beside each other.

use super::canvas::{
    Area, Drawing, Drawn, Entry, GRID, INK, LEFT, MIDDLE, RIGHT, SMALL, SOFT, TEXT, WIDTH, bold,
    colour, font, frame, height_of_legend, height_of_words, line, marker, width, write,
    write_upright,
};
use super::scale::Axis;
use plotters::backend::DrawingBackend;
use plotters::element::Rectangle;
use plotters::style::Color;
use std::collections::BTreeSet;

/// How a series looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A line with a mark at each point.
    Marked,
    /// A line alone.
    Line,
    /// A dashed line alone.
    Dashed,
    /// Marks alone.
    Points,
    /// Bars from the bottom, each as wide as to the next point.
    Steps,
}

/// A series of a panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its colour and mark.
    pub colour: usize,
    /// How it looks.
    pub look: Look,
    /// Its points, by their place on the axis.
    pub points: Vec<(f64, f64)>,
}

/// A line across a panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where, on the upright axis.
    pub at: f64,
    /// What it says.
    pub text: String,
}

/// One panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What it is of.
    pub title: String,
    /// The axis below.
    pub x: Axis,
    /// The axis at the left.
    pub y: Axis,
    /// What is in it.
    pub series: Vec<Series>,
    /// Lines across.
    pub rules: Vec<Rule>,
}

/// A figure of panels.
#[derive(Debug, Clone, PartialEq)]
pub struct Panels {
    /// The finding.
    pub title: String,
    /// Sources, and what to know.
    pub caption: String,
    /// Panels beside each other.
    pub columns: usize,
    /// Height of a panel in pixels.
    pub height: u32,
    /// The panels, by rows.
    pub panels: Vec<Panel>,
}

/// Room at the left of a panel, above and below what is drawn, at the right.
const ROOM: (i32, i32, i32, i32) = (76, 26, 44, 16);

impl Panels {
    fn legend(&self) -> Vec<Entry> {
        let mut legend: Vec<Entry> = Vec::new();
        for series in self.panels.iter().flat_map(|p| &p.series) {
            let line = match series.look {
                Look::Marked | Look::Line => Some(false),
                Look::Dashed => Some(true),
                Look::Points | Look::Steps => None,
            };
            let marked = matches!(series.look, Look::Marked | Look::Points | Look::Steps);
            let entry = Entry { name: series.name.clone(), series: series.colour, marked, line };
            if !legend.iter().any(|e| e.name == entry.name) {
                legend.push(entry);
            }
        }
        legend.sort_by_key(|entry| (entry.line == Some(true), entry.series));
        legend
    }

    fn rows(&self) -> usize {
        self.panels.len().div_ceil(self.columns)
    }
}

impl Drawing for Panels {
    fn size(&self) -> (u32, u32) {
        let words = height_of_words(&self.title, &self.caption);
        let legend = height_of_legend(&self.legend()).min(88);
        (WIDTH, (52 + words + legend) as u32 + self.height * self.rows() as u32)
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        let legend = self.legend();
        let shown = if legend.len() > 1 { &legend[..] } else { &[] };
        let (top, bottom) = frame(area, &self.title, shown, &self.caption)?;
        let (w, rows) = (area.dim_in_pixel().0 as i32, self.rows() as i32);
        let (columns, height) = (self.columns as i32, (bottom - top) / rows);
        for (i, panel) in self.panels.iter().enumerate() {
            let (row, column) = (i as i32 / columns, i as i32 % columns);
            let left = 8 + column * (w - 16) / columns;
            let right = 8 + (column + 1) * (w - 16) / columns;
            panel.draw(area, (left, top + row * height, right, top + (row + 1) * height))?;
        }
        Ok(())
    }
}

impl Panel {
    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>, of: (i32, i32, i32, i32)) -> Drawn<DB> {
        let (left, top) = (of.0 + ROOM.0, of.1 + ROOM.1);
        let (right, bottom) = (of.2 - ROOM.3, of.3 - ROOM.2);
        write(area, &self.title, (left, of.1 + 12), &bold(TEXT, &INK, LEFT))?;
        let x_of = |x: f64| left + (self.x.place(x) * f64::from(right - left)).round() as i32;
        let y_of = |y: f64| bottom - (self.y.place(y) * f64::from(bottom - top)).round() as i32;
        for (y, words) in self.y.ticks(((bottom - top) / 34).max(2) as usize) {
            line(area, &[(left, y_of(y)), (right, y_of(y))], false, GRID.stroke_width(1))?;
            write(area, &words, (left - 7, y_of(y)), &font(SMALL, &INK, RIGHT))?;
        }
        for (x, words) in self.x.ticks(((right - left) / 58).max(2) as usize) {
            line(area, &[(x_of(x), bottom), (x_of(x), bottom + 4)], false, SOFT.stroke_width(1))?;
            write(area, &words, (x_of(x), bottom + 13), &font(SMALL, &INK, MIDDLE))?;
        }
        line(area, &[(left, bottom), (right, bottom)], false, SOFT.stroke_width(1))?;
        write(area, &self.x.title, ((left + right) / 2, bottom + 31), &font(SMALL, &SOFT, MIDDLE))?;
        write_upright(area, &self.y.title, (of.0 + 12, (top + bottom) / 2), SMALL)?;
        for series in &self.series {
            let inside = |(x, y): &&(f64, f64)| self.x.has(*x) && self.y.has(*y);
            let points = series.points.iter().filter(inside);
            let places: Vec<(i32, i32)> = points.map(|(x, y)| (x_of(*x), y_of(*y))).collect();
            let stroke = colour(series.colour).stroke_width(2);
            match series.look {
                Look::Marked => {
                    line(area, &thinned(&places), false, stroke)?;
                    marks(area, series.colour, &places)?;
                }
                Look::Line => line(area, &thinned(&places), false, stroke)?,
                Look::Dashed => line(area, &thinned(&places), true, stroke)?,
                Look::Points => marks(area, series.colour, &places)?,
                Look::Steps => {
                    for pair in places.windows(2).filter(|pair| pair[0].1 < bottom) {
                        let to = (pair[1].0.max(pair[0].0 + 1), bottom);
                        area.draw(&Rectangle::new([pair[0], to], colour(series.colour).filled()))?;
                    }
                }
            }
        }
        for rule in &self.rules {
            let y = y_of(rule.at);
            line(area, &[(left, y), (right, y)], true, INK.stroke_width(1))?;
            let style = font(SMALL, &INK, LEFT);
            let x = right - width(area, &rule.text, &style) - 2;
            // Below the line where it would leave the panel.
            write(area, &rule.text, (x, if y - top < 16 { y + 10 } else { y - 9 }), &style)?;
        }
        Ok(())
    }
}

/// Marks, each place once.
fn marks<DB: DrawingBackend>(area: &Area<DB>, series: usize, places: &[(i32, i32)]) -> Drawn<DB> {
    let once: BTreeSet<(i32, i32)> = places.iter().copied().collect();
    once.into_iter().try_for_each(|at| marker(area, series, at))
}

/// The same line with at most four points a column of pixels: the first, the lowest, the highest, the last.
fn thinned(places: &[(i32, i32)]) -> Vec<(i32, i32)> {
    let mut kept: Vec<(i32, i32)> = Vec::new();
    for column in places.chunk_by(|a, b| a.0 == b.0) {
        let ends = [column.first(), column.iter().min_by_key(|p| p.1)];
        let rest = [column.iter().max_by_key(|p| p.1), column.last()];
        kept.extend(ends.into_iter().chain(rest).flatten());
    }
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{png, svg};
    use super::super::scale::Scale;
    use super::*;

    fn panels(points: Vec<(f64, f64)>, look: Look) -> Panels {
        let axis =
            |of: fn(&(f64, f64)) -> f64| Axis::over("x", Scale::Linear, points.iter().map(of));
        let panel = Panel {
            title: "of <a> & b".into(),
            x: axis(|p| p.0),
            y: axis(|p| p.1),
            series: vec![Series { name: "one".into(), colour: 0, look, points: points.clone() }],
            rules: vec![Rule { at: 0.5, text: "half".into() }],
        };
        let (title, caption) = ("A finding".into(), "A source".into());
        Panels { title, caption, columns: 1, height: 240, panels: vec![panel] }
    }

    #[test]
    fn a_hundred_thousand_points_take_less_than_two_seconds() {
        let noise =
            |i: u64| (i.wrapping_mul(6364136223846793005) >> 40) as f64 / f64::from(1 << 24);
        let points: Vec<_> = (0..100_000).map(|i| (i as f64, noise(i))).collect();
        let quick = |what: &str, look: Look, work: &dyn Fn()| {
            let start = std::time::Instant::now();
            work();
            let took = start.elapsed().as_secs_f64();
            assert!(took < 2.0, "{look:?} as {what}: {took} s");
        };
        for look in [Look::Points, Look::Marked, Look::Line, Look::Dashed, Look::Steps] {
            let panels = panels(points.clone(), look);
            quick("SVG", look, &|| assert!(svg(&panels, "many").contains("</svg>")));
            quick("PNG", look, &|| assert!(png(&panels).expect("drawn").len() > 1000));
        }
    }

    #[test]
    fn text_is_escaped_and_what_is_off_the_axes_is_not_drawn() {
        let text =
            svg(&panels(vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 0.25)], Look::Points), "a < b");
        assert!(text.contains("of &lt;a&gt; &amp; b") && text.contains("<title>a &lt; b</title>"));
        assert_eq!(text.matches("<circle").count(), 2);
    }

    #[test]
    fn a_thinned_line_keeps_the_ends_of_each_column() {
        let line = [(0, 5), (0, 1), (0, 9), (0, 4), (0, 6), (1, 6), (2, 6)];
        assert_eq!(thinned(&line), [(0, 5), (0, 1), (0, 9), (0, 6), (1, 6), (2, 6)]);
    }
}
