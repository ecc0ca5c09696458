//! Rows of marks along one axis.

use super::canvas::{
    Area, Drawing, Drawn, Entry, GRID, INK, LEFT, MIDDLE, RIGHT, SMALL, SOFT, TEXT, WIDTH, font,
    frame, height_of_legend, height_of_words, line, marker, shortened, width, write,
};
use super::scale::Axis;
use plotters::backend::DrawingBackend;
use plotters::style::Color;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is of.
    pub name: String,
    /// Number by series.
    pub values: Vec<(usize, f64)>,
    /// What is written at the right.
    pub note: String,
}

/// A figure of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// The finding.
    pub title: String,
    /// Sources, and what to know.
    pub caption: String,
    /// Names of series, by number.
    pub series: Vec<String>,
    /// The axis below.
    pub axis: Axis,
    /// A line down from the axis, with its words.
    pub rule: Option<(f64, String)>,
    /// The rows.
    pub rows: Vec<Row>,
}

const ROW: i32 = 26;

impl Rows {
    fn legend(&self) -> Vec<Entry> {
        let entry = |(i, name): (usize, &String)| Entry {
            name: name.clone(),
            series: i,
            marked: true,
            line: None,
        };
        self.series.iter().enumerate().map(entry).collect()
    }
}

impl Drawing for Rows {
    fn size(&self) -> (u32, u32) {
        let words = height_of_words(&self.title, &self.caption);
        let legend = if self.series.len() > 1 { height_of_legend(&self.legend()) } else { 0 };
        let rows = ROW * self.rows.len() as i32;
        (WIDTH, (100 + words + legend + rows) as u32)
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        let legend = self.legend();
        let shown = if legend.len() > 1 { &legend[..] } else { &[] };
        let (top, bottom) = frame(area, &self.title, shown, &self.caption)?;
        let (top, bottom) = (top + 6 + 14 * i32::from(self.rule.is_some()), bottom - 40);
        let w = area.dim_in_pixel().0 as i32;
        let name = font(TEXT, &INK, RIGHT);
        let note = font(SMALL, &INK, LEFT);
        let names =
            self.rows.iter().map(|r| width(area, &shortened(&r.name), &name)).max().unwrap_or(0);
        let notes = self.rows.iter().map(|r| width(area, &r.note, &note)).max().unwrap_or(0);
        let (left, right) = (names + 30, w - notes - 30);
        let x_of = |x: f64| left + (self.axis.place(x) * f64::from(right - left)).round() as i32;
        for (x, words) in self.axis.ticks(((right - left) / 60).max(2) as usize) {
            line(area, &[(x_of(x), top), (x_of(x), bottom)], false, GRID.stroke_width(1))?;
            write(area, &words, (x_of(x), bottom + 11), &font(SMALL, &INK, MIDDLE))?;
        }
        let middle = ((left + right) / 2, bottom + 29);
        write(area, &self.axis.title, middle, &font(SMALL, &SOFT, MIDDLE))?;
        if let Some((at, words)) = &self.rule {
            let x = x_of(*at);
            line(area, &[(x, top), (x, bottom)], true, INK.stroke_width(1))?;
            write(area, words, (x, top - 9), &font(SMALL, &INK, MIDDLE))?;
        }
        let mut y = top;
        for row in &self.rows {
            let at = y + ROW / 2;
            write(area, &shortened(&row.name), (left - 10, at), &name)?;
            write(area, &row.note, (right + 12, at), &note)?;
            let places: Vec<(usize, i32)> = row
                .values
                .iter()
                .filter(|(_, x)| self.axis.has(*x))
                .map(|(series, x)| (*series, x_of(*x)))
                .collect();
            let (least, most) =
                (places.iter().map(|p| p.1).min(), places.iter().map(|p| p.1).max());
            if let (Some(least), Some(most)) = (least, most) {
                line(area, &[(least, at), (most, at)], false, SOFT.stroke_width(1))?;
            }
            for (series, x) in places.iter().rev() {
                marker(area, *series, (*x, at))?;
            }
            y += ROW;
        }
        Ok(())
    }
}
