//! A table of colours: rows of hypotheses, layers or faults, columns of slices, heads or regimes.

use super::canvas::{
    Area, Drawing, Drawn, GRID, INK, LEFT, MIDDLE, RIGHT, SMALL, SOFT, TEXT, WIDTH, bold, cut,
    font, frame, height_of_words, width, write,
};
use plotters::backend::DrawingBackend;
use plotters::element::Rectangle;
use plotters::style::{Color, RGBColor};

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing is known.
    Empty,
    /// A number, and what is written into the cell.
    Of(f64, String),
    /// What is right, marked, and what is written beside the mark.
    Good(String),
}

/// A figure of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// The finding.
    pub title: String,
    /// Sources, and what to know.
    pub caption: String,
    /// What the rows and the columns are.
    pub axes: (String, String),
    /// Names of columns.
    pub columns: Vec<String>,
    /// Names of rows, with their cells.
    pub rows: Vec<(String, Vec<Cell>)>,
    /// The numbers of the palest and of the darkest colour, in words: what they are.
    pub range: (f64, f64),
    /// What the colours say; nothing where the cells say it.
    pub key: String,
    /// What the mark says.
    pub good: String,
    /// Rows after which a gap is left.
    pub gaps: Vec<usize>,
}

const ROW: i32 = 21;
const GAP: i32 = 10;
/// From pale to dark, as much darker in grey at each step (of ColorBrewer's YlGnBu and Blues).
const SHADES: [RGBColor; 7] = [
    RGBColor(0xEE, 0xF3, 0xFA),
    RGBColor(0xD2, 0xE1, 0xF1),
    RGBColor(0xA8, 0xC9, 0xE4),
    RGBColor(0x74, 0xA9, 0xD3),
    RGBColor(0x45, 0x86, 0xBF),
    RGBColor(0x22, 0x61, 0x9F),
    RGBColor(0x0A, 0x3B, 0x70),
];
const GOOD: RGBColor = RGBColor(0xF5, 0xA3, 0x00);
const DARK_TEXT: RGBColor = RGBColor(0x1F, 0x23, 0x29);
const LIGHT_TEXT: RGBColor = RGBColor(0xFD, 0xFD, 0xFD);

impl Heat {
    fn shade(&self, x: f64) -> usize {
        let (low, high) = self.range;
        let share = ((x - low) / (high - low)).clamp(0.0, 0.999_999);
        (share * SHADES.len() as f64) as usize
    }

    /// Room above the columns' names: for the key, where there is one.
    fn room_of_key(&self) -> i32 {
        if self.key.is_empty() && self.good.is_empty() { 14 } else { 40 }
    }

    /// A row's name: longer where few columns leave room for it.
    fn name_of(&self, row: &str) -> String {
        cut(row, if self.columns.len() <= 12 { 50 } else { 34 })
    }

    fn lines_of_heads(&self) -> i32 {
        self.columns.iter().map(|c| c.lines().count()).max().unwrap_or(1) as i32
    }

    fn gaps_before(&self, row: usize) -> i32 {
        self.gaps.iter().filter(|g| **g < row).count() as i32
    }
}

impl Drawing for Heat {
    fn size(&self) -> (u32, u32) {
        let words = height_of_words(&self.title, &self.caption);
        let heads = self.lines_of_heads();
        let rows = ROW * self.rows.len() as i32 + GAP * self.gaps.len() as i32;
        (WIDTH, (50 + self.room_of_key() + words + 15 * heads + rows) as u32)
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        let (top, _) = frame(area, &self.title, &[], &self.caption)?;
        let w = area.dim_in_pixel().0 as i32;
        let name = font(TEXT, &INK, RIGHT);
        let names =
            self.rows.iter().map(|(n, _)| width(area, &self.name_of(n), &name)).max().unwrap_or(0);
        let left = (names + 28).max(width(area, &self.axes.0, &bold(SMALL, &SOFT, LEFT)) + 28);
        // The key: shades from end to end, then the mark.
        let small = font(SMALL, &INK, LEFT);
        let mut x = 16;
        let y = top + 8;
        if !self.key.is_empty() {
            write(area, &self.key, (x, y), &small)?;
            x += width(area, &self.key, &small) + 10;
            for (i, shade) in SHADES.iter().enumerate() {
                let at = x + 22 * i as i32;
                area.draw(&Rectangle::new([(at, y - 8), (at + 22, y + 8)], shade.filled()))?;
                let (low, high) = self.range;
                let from = low + (high - low) * i as f64 / SHADES.len() as f64;
                let colour = if i > 3 { &LIGHT_TEXT } else { &DARK_TEXT };
                let words = super::scale::number((from * 10.0).round() / 10.0);
                write(area, &words, (at + 11, y), &font(10, colour, MIDDLE))?;
            }
            x += 22 * SHADES.len() as i32 + 20;
        }
        if !self.good.is_empty() {
            area.draw(&Rectangle::new([(x, y - 8), (x + 22, y + 8)], GOOD.filled()))?;
            write(area, "✓", (x + 11, y), &bold(SMALL, &DARK_TEXT, MIDDLE))?;
            write(area, &self.good, (x + 30, y), &small)?;
        }
        let heads = self.lines_of_heads();
        let top = top + self.room_of_key() + 15 * heads;
        let columns = self.columns.len().max(1) as i32;
        let cell = ((w - 16 - left) / columns).min(120);
        write(area, &self.axes.0, (left - 10, top - 8), &bold(SMALL, &SOFT, RIGHT))?;
        for (i, column) in self.columns.iter().enumerate() {
            let lines = column.lines().count() as i32;
            for (j, text) in column.lines().enumerate() {
                let y = top - 8 - 15 * (lines - 1 - j as i32);
                let x = left + cell * i as i32 + cell / 2;
                write(area, text, (x, y), &font(SMALL, &INK, MIDDLE))?;
            }
        }
        write(area, &self.axes.1, (left, top - 8 - 15 * heads), &bold(SMALL, &SOFT, LEFT))?;
        for (i, (words, cells)) in self.rows.iter().enumerate() {
            let y = top + ROW * i as i32 + GAP * self.gaps_before(i);
            write(area, &self.name_of(words), (left - 10, y + ROW / 2), &name)?;
            for (j, this) in cells.iter().enumerate() {
                let x = left + cell * j as i32;
                let spot = [(x, y), (x + cell - 2, y + ROW - 2)];
                let middle = (x + cell / 2 - 1, y + ROW / 2 - 1);
                match this {
                    Cell::Empty => area.draw(&Rectangle::new(spot, GRID.stroke_width(1)))?,
                    Cell::Of(x, words) => {
                        let shade = self.shade(*x);
                        area.draw(&Rectangle::new(spot, SHADES[shade].filled()))?;
                        let colour = if shade > 3 { &LIGHT_TEXT } else { &DARK_TEXT };
                        write(area, words, middle, &font(11, colour, MIDDLE))?;
                    }
                    Cell::Good(words) => {
                        area.draw(&Rectangle::new(spot, GOOD.filled()))?;
                        let words = format!("✓ {words}");
                        write(area, words.trim_end(), middle, &bold(11, &DARK_TEXT, MIDDLE))?;
                    }
                }
            }
        }
        Ok(())
    }
}
