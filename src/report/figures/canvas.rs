//! What all figures share: colours, text, title, legend and caption, and the two ways to draw.

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, Cross, PathElement, Polygon, Rectangle, Text, TriangleMarker};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle};
use std::sync::OnceLock;

/// An area of a figure.
pub type Area<DB> = DrawingArea<DB, Shift>;
/// What drawing comes to.
pub type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Width of every figure, in pixels: that of a README.
pub const WIDTH: u32 = 840;
const MARGIN: i32 = 16;
/// Sizes of text, in pixels.
pub const TITLE: i32 = 18;
/// See [`TITLE`].
pub const TEXT: i32 = 13;
/// See [`TITLE`].
pub const SMALL: i32 = 12;

/// Colours of a figure. Those of series are of Okabe and Ito (2008), told apart by the colour-blind; each
/// has a marker of its own besides.
pub const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFE);
/// Text and axes.
pub const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
/// What says less.
pub const SOFT: RGBColor = RGBColor(0x5B, 0x64, 0x6E);
/// Lines behind all.
pub const GRID: RGBColor = RGBColor(0xE3, 0xE6, 0xEA);
/// Of series, in their order.
pub const SERIES: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x01),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x7A, 0x5C, 0x3E),
];

/// On a dark page: what each of the colours above is there.
const DARK: [(RGBColor, &str); 11] = [
    (PAPER, "#0D1117"),
    (INK, "#E6EDF3"),
    (SOFT, "#9AA4AF"),
    (GRID, "#2B323B"),
    (SERIES[0], "#4DA3DE"),
    (SERIES[1], "#F08040"),
    (SERIES[2], "#2CC29A"),
    (SERIES[3], "#DE97BD"),
    (SERIES[4], "#EDB13C"),
    (SERIES[5], "#84CBF2"),
    (SERIES[6], "#B99A7A"),
];

/// The font, which comes with the program: figures are the same on a machine that has none.
pub fn register_font() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let normal = include_bytes!("font/DejaVuSans.subset.ttf");
        let bold = include_bytes!("font/DejaVuSans-Bold.subset.ttf");
        for (style, bytes) in [(FontStyle::Normal, &normal[..]), (FontStyle::Bold, &bold[..])] {
            // An error here means a file that is no font: the tests draw with both.
            let _ = plotters::style::register_font("sans-serif", style, bytes);
        }
    });
}

/// A way to place text against a point.
pub const LEFT: Pos = Pos { h_pos: HPos::Left, v_pos: VPos::Center };
/// See [`LEFT`].
pub const RIGHT: Pos = Pos { h_pos: HPos::Right, v_pos: VPos::Center };
/// See [`LEFT`].
pub const MIDDLE: Pos = Pos { h_pos: HPos::Center, v_pos: VPos::Center };

/// Text of a size and colour.
pub fn font(size: i32, colour: &RGBColor, at: Pos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(colour).pos(at)
}

/// The same, bold.
pub fn bold(size: i32, colour: &RGBColor, at: Pos) -> TextStyle<'static> {
    ("sans-serif", size, FontStyle::Bold).into_font().color(colour).pos(at)
}

/// How wide text is, in pixels.
pub fn width<DB: DrawingBackend>(area: &Area<DB>, text: &str, style: &TextStyle<'_>) -> i32 {
    area.estimate_text_size(text, style).map_or(0, |(width, _)| width as i32)
}

/// Text at a place of the area.
pub fn write<DB: DrawingBackend>(
    area: &Area<DB>,
    text: &str,
    at: (i32, i32),
    style: &TextStyle<'_>,
) -> Drawn<DB> {
    area.draw(&Text::new(plain(text), at, style.clone()))
}

/// Text without what XML cannot hold, and that nobody could read.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c > '\u{fffd}' { ' ' } else { c }).collect()
}

/// A name that leaves room for what is drawn.
pub fn shortened(name: &str) -> String {
    cut(name, 34)
}

/// A name of `most` characters at most.
pub fn cut(name: &str, most: usize) -> String {
    match name.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}

/// A word of a text, shortened where it is longer than any word.
pub fn if_long_shortened(word: &str) -> String {
    if word.chars().count() > 90 { shortened(word) } else { word.to_owned() }
}

/// Text along the left edge, from below.
pub fn write_upright<DB: DrawingBackend>(
    area: &Area<DB>,
    text: &str,
    at: (i32, i32),
    size: i32,
) -> Drawn<DB> {
    let style = ("sans-serif", size)
        .into_font()
        .transform(FontTransform::Rotate270)
        .color(&SOFT)
        .pos(MIDDLE);
    write(area, text, at, &style)
}

/// Text in lines no wider than `limit`.
pub fn wrapped<DB: DrawingBackend>(
    area: &Area<DB>,
    text: &str,
    style: &TextStyle<'_>,
    limit: i32,
) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        // A word that no line can hold is cut.
        let word = &*if_long_shortened(word);
        let joined = lines.last().map(|line| format!("{line} {word}"));
        match joined.filter(|line| width(area, line, style) <= limit) {
            Some(line) => *lines.last_mut().expect("a line was joined to") = line,
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The mark of a series.
pub fn marker<DB: DrawingBackend>(area: &Area<DB>, series: usize, at: (i32, i32)) -> Drawn<DB> {
    let style = colour(series).filled();
    let (x, y) = at;
    match series % SERIES.len() {
        0 => area.draw(&Circle::new(at, 4, style)),
        1 => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], style)),
        2 => area.draw(&TriangleMarker::new(at, 6, style)),
        3 => area.draw(&Polygon::new([(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)], style)),
        4 => area.draw(&Cross::new(at, 4, colour(series).stroke_width(2))),
        5 => area.draw(&Polygon::new([(x - 5, y - 4), (x + 5, y - 4), (x, y + 5)], style)),
        _ => {
            let stroke = colour(series).stroke_width(2);
            area.draw(&PathElement::new([(x - 5, y), (x + 5, y)], stroke))?;
            area.draw(&PathElement::new([(x, y - 5), (x, y + 5)], stroke))
        }
    }
}

/// The colour of a series.
pub fn colour(series: usize) -> RGBColor {
    SERIES[series % SERIES.len()]
}

/// A line in pixels; dashed ones in dashes.
pub fn line<DB: DrawingBackend>(
    area: &Area<DB>,
    points: &[(i32, i32)],
    dashed: bool,
    style: ShapeStyle,
) -> Drawn<DB> {
    if !dashed {
        return area.draw(&PathElement::new(points.to_vec(), style));
    }
    const DASH: f64 = 5.0;
    let (mut on, mut left) = (true, DASH);
    for pair in points.windows(2) {
        let ((x, y), (to_x, to_y)) = (pair[0], pair[1]);
        let length = libm::hypot(f64::from(to_x - x), f64::from(to_y - y));
        let mut done = 0.0;
        while done < length {
            let part = left.min(length - done);
            let at = |share: f64| {
                let along = |a: i32, b: i32| a + (f64::from(b - a) * share / length).round() as i32;
                (along(x, to_x), along(y, to_y))
            };
            if on {
                area.draw(&PathElement::new(vec![at(done), at(done + part)], style))?;
            }
            (done, left) = (done + part, left - part);
            if left <= 0.0 {
                (on, left) = (!on, DASH);
            }
        }
    }
    Ok(())
}

/// What a legend has of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its words.
    pub name: String,
    /// Which series.
    pub series: usize,
    /// Whether it has a marker.
    pub marked: bool,
    /// Whether it has a line, and a dashed one.
    pub line: Option<bool>,
}

/// About how high the title and the caption are, by their letters at their sizes' widest.
pub fn height_of_words(title: &str, caption: &str) -> i32 {
    let lines = |text: &str, letters: usize| text.chars().count().div_ceil(letters) as i32;
    24 * lines(title, 66) + 16 * lines(caption, 108)
}

/// The same of a legend, in pixels.
pub fn height_of_legend(legend: &[Entry]) -> i32 {
    let letters: usize = legend.iter().map(|e| e.name.chars().count() + 7).sum();
    22 * letters.div_ceil(92) as i32
}

/// Draws the title, the legend and the caption, and gives what lies between: top, bottom.
pub fn frame<DB: DrawingBackend>(
    area: &Area<DB>,
    title: &str,
    legend: &[Entry],
    caption: &str,
) -> Result<(i32, i32), DrawingAreaErrorKind<DB::ErrorType>> {
    area.fill(&PAPER)?;
    let (w, h) = area.dim_in_pixel();
    let (w, h) = (w as i32, h as i32);
    let mut top = MARGIN;
    let style = bold(TITLE, &INK, LEFT);
    for text in wrapped(area, title, &style, w - 2 * MARGIN) {
        write(area, &text, (MARGIN, top + 9), &style)?;
        top += 24;
    }
    let style = font(TEXT, &INK, LEFT);
    let mut x = MARGIN;
    if !legend.is_empty() {
        top += 6;
    }
    for entry in legend {
        let wide = 34 + width(area, &entry.name, &style) + 18;
        if x > MARGIN && x + wide > w - MARGIN {
            (x, top) = (MARGIN, top + 20);
        }
        let y = top + 8;
        if let Some(dashed) = entry.line {
            let stroke = colour(entry.series).stroke_width(2);
            line(area, &[(x, y), (x + 26, y)], dashed, stroke)?;
        }
        if entry.marked {
            marker(area, entry.series, (x + 13, y))?;
        }
        write(area, &entry.name, (x + 34, y), &style)?;
        x += wide;
    }
    if !legend.is_empty() {
        top += 20;
    }
    let style = font(SMALL, &SOFT, LEFT);
    let lines = wrapped(area, caption, &style, w - 2 * MARGIN);
    let bottom = h - MARGIN + 4 - 16 * lines.len() as i32;
    for (i, text) in lines.iter().enumerate() {
        write(area, text, (MARGIN, bottom + 8 + 16 * i as i32), &style)?;
    }
    Ok((top + 6, bottom - 8))
}

/// What can be drawn, on paper of a size.
pub trait Drawing {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);
    /// Draws it.
    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB>;
}

/// A drawing as SVG that follows the page to dark.
pub fn svg(drawing: &impl Drawing, title: &str) -> String {
    register_font();
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, drawing.size()).into_drawing_area();
        // A string takes all that is written to it.
        let drawn = drawing.draw(&area).and_then(|()| area.present());
        debug_assert!(drawn.is_ok(), "{drawn:?}");
    }
    let (w, h) = drawing.size();
    let hex = |c: RGBColor| format!("#{:02X}{:02X}{:02X}", c.0, c.1, c.2);
    let rules: String = DARK
        .iter()
        .map(|(light, dark)| {
            let light = hex(*light);
            format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
        })
        .collect();
    let head = format!(
        "<svg width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n<title>{}</title>\n<style>text{{font-family:\
         \"DejaVu Sans\",Verdana,sans-serif}}@media(prefers-color-scheme:dark){{{rules}}}</style>\n",
        escaped(title)
    );
    let body = text.find('>').map_or("", |end| &text[end + 1..]);
    format!("{head}{}", body.trim_start())
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    plain(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A drawing as PNG, on paper.
///
/// # Errors
/// What stands in the way of the file.
pub fn png(drawing: &impl Drawing) -> Result<Vec<u8>, String> {
    register_font();
    // The library encodes into files only.
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("figure.png");
    let (w, h) = drawing.size();
    {
        let area = BitMapBackend::new(&path, (w, h)).into_drawing_area();
        drawing.draw(&area).and_then(|()| area.present()).map_err(|e| e.to_string())?;
    }
    std::fs::read(&path).map_err(|e| e.to_string())
}
