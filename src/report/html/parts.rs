//! What all pages are made of: tables, facts, verdicts, blocks of code.

use maud::{Markup, html};

/// How a verdict is coloured. Colour never stands alone: each has a symbol, and the word stands beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// It cannot be told, or not all was done.
    Warn,
    /// Neither.
    Plain,
}

impl Tone {
    /// The class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Warn => "warn",
            Tone::Plain => "plain",
        }
    }

    /// A symbol that differs in shape.
    pub fn symbol(self) -> &'static str {
        match self {
            Tone::Good => "✓",
            Tone::Bad => "✗",
            Tone::Warn => "!",
            Tone::Plain => "–",
        }
    }
}

/// A verdict in a line or a cell.
pub fn chip(tone: Tone, word: &str) -> Markup {
    html! {
        span class={ "chip " (tone.class()) } {
            span aria-hidden="true" { (tone.symbol()) " " }
            (word)
        }
    }
}

/// What stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name or a word.
    Text,
    /// A sentence, which needs room.
    Words,
    /// A number, which stands to the right.
    Number,
}

impl Kind {
    fn class(self) -> Option<&'static str> {
        match self {
            Kind::Text => None,
            Kind::Words => Some("words"),
            Kind::Number => Some("number"),
        }
    }
}

/// A table that scrolls in a box of its own where the screen is narrow. Each row's first cell is its
/// heading. An empty table is nothing.
pub fn table<H: AsRef<str>>(name: &str, columns: &[(H, Kind)], rows: &[Vec<Markup>]) -> Markup {
    html! {
        @if !rows.is_empty() {
            div class="scroll" role="region" aria-label=(name) tabindex="0" {
                table {
                    caption { (name) }
                    thead {
                        tr {
                            @for (heading, kind) in columns {
                                th scope="col" class=[kind.class()] { (heading.as_ref()) }
                            }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                @for (i, (cell, (_, kind))) in row.iter().zip(columns).enumerate() {
                                    @if i == 0 {
                                        th scope="row" class=[kind.class()] { (cell) }
                                    } @else {
                                        td class=[kind.class()] { (cell) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Text as a cell.
pub fn cell(text: impl AsRef<str>) -> Markup {
    html! { (text.as_ref()) }
}

/// Names with what they are.
pub fn facts(rows: &[(&'static str, Markup)]) -> Markup {
    html! {
        @if !rows.is_empty() {
            dl {
                @for (name, value) in rows {
                    dt { (name) }
                    dd { (value) }
                }
            }
        }
    }
}

/// A line to be copied, however long: it scrolls, and is not broken.
pub fn code_block(name: &str, text: &str) -> Markup {
    html! { pre tabindex="0" aria-label=(name) { code { (text) } } }
}

/// What is long, folded.
pub fn folded(summary: &str, content: &Markup) -> Markup {
    html! {
        details {
            summary { (summary) }
            div { (content) }
        }
    }
}

/// Sentences as a list; one alone as a paragraph.
pub fn sentences<'a>(all: impl IntoIterator<Item = &'a str>) -> Markup {
    let all: Vec<&str> = all.into_iter().map(str::trim).filter(|s| !s.is_empty()).collect();
    html! {
        @match &all[..] {
            [] => {}
            [only] => { p { (only) } }
            several => { ul { @for sentence in several { li { (sentence) } } } }
        }
    }
}
