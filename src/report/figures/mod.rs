//! Figures, drawn from the documents that the commands write, and from nothing else.
//!
//! | subject | file |
//! | --- | --- |
//! | colours, text, title, legend, caption; SVG and PNG | `canvas` |
//! | where numbers lie on an axis | `scale` |
//! | curves and points in panels | `panels` |
//! | tables of colours | `heat` |
//! | rows of marks | `rows` |
//! | what is drawn of `diagnose`, `trace`, `sweep`, `bench` and the table of planted faults | `of_…` |
//!
//! A title says what the figure shows, in numbers of the documents; the caption says how it was made.

mod canvas;
mod heat;
mod of_bench;
mod of_diagnose;
mod of_faults;
mod of_sweep;
mod of_trace;
mod panels;
mod rows;
mod scale;
#[cfg(test)]
mod tests;

pub use canvas::register_font;

use canvas::Drawing;
use serde_json::Value;

/// How a figure is drawn.
#[derive(Debug, Clone, PartialEq)]
enum Drawn {
    Panels(panels::Panels),
    Heat(heat::Heat),
    Rows(rows::Rows),
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Name of its file, without an ending.
    pub name: String,
    /// The finding.
    pub title: String,
    /// How it was made, and what to know.
    pub caption: String,
    /// The picture.
    pub svg: String,
    drawn: Drawn,
}

impl Figure {
    /// `name` becomes one of a file: what is not plain in it, `_`.
    fn new(name: impl Into<String>, drawn: Drawn) -> Figure {
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let name: String = name.into().chars().map(plain).take(80).collect();
        let (title, caption, svg) = match &drawn {
            Drawn::Panels(p) => (&p.title, &p.caption, canvas::svg(p, &p.title)),
            Drawn::Heat(h) => (&h.title, &h.caption, canvas::svg(h, &h.title)),
            Drawn::Rows(b) => (&b.title, &b.caption, canvas::svg(b, &b.title)),
        };
        // A name that somebody gave may be of any length.
        let short = |word: &str| canvas::if_long_shortened(word);
        let title = title.split(' ').map(short).collect::<Vec<_>>().join(" ");
        let caption = caption.clone();
        Figure { name, title, caption, svg, drawn }
    }

    /// It as the bytes of a PNG file.
    ///
    /// # Errors
    /// In words, what stands in the way of drawing it.
    pub fn png(&self) -> Result<Vec<u8>, String> {
        match &self.drawn {
            Drawn::Panels(p) => canvas::png(p),
            Drawn::Heat(h) => canvas::png(h),
            Drawn::Rows(b) => canvas::png(b),
        }
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        match &self.drawn {
            Drawn::Panels(p) => p.size(),
            Drawn::Heat(h) => h.size(),
            Drawn::Rows(b) => b.size(),
        }
    }
}

/// All figures that documents have numbers for. Those of one kind are drawn together: kernels of several
/// sweeps beside each other.
pub fn of(documents: &[Value]) -> Vec<Figure> {
    let of_kind = |kind: &str| -> Vec<&Value> {
        let is = |d: &&Value| text(d, "format").starts_with(&format!("attnbench-{kind}/"));
        documents.iter().filter(is).collect()
    };
    let mut figures = of_diagnose::figures(&of_kind("diagnose"));
    figures.extend(of_trace::figures(&of_kind("trace")));
    figures.extend(of_sweep::figures(&of_kind("sweep")));
    figures.extend(of_bench::figures(&of_kind("bench")));
    figures.extend(of_faults::figures(&of_kind("faults")));
    // Of two with one name the later gets a number.
    for i in 1..figures.len() {
        let before = figures[..i].iter().filter(|f| f.name == figures[i].name).count();
        if before > 0 {
            figures[i].name = format!("{}-{}", figures[i].name, before + 1);
        }
    }
    figures
}

/// `1 capture`, `3 captures`.
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The formats that figures are drawn from, without their versions.
pub const KINDS: [&str; 5] = ["sweep", "diagnose", "trace", "bench", "faults"];

/// Each text once, in the order in which they first stand.
fn distinct<'v>(texts: impl Iterator<Item = &'v str>) -> Vec<&'v str> {
    let mut all = Vec::new();
    for text in texts {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// The text under a key, or none.
fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("")
}

/// The number under a key; NaN where it is none.
fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(f64::NAN)
}

/// The list under a key, or an empty one.
fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}
