//! The report for people: one page of a command's document, which needs nothing else to be read.
//!
//! There is no script in it and nothing is loaded: the page may be sent by mail, put beside a CI run or
//! opened from a disk. Whatever comes from files (names of kernels, prompts, paths, notes) is text, never
//! markup; only figures are taken as they are, since this program draws them.

mod bench;
mod diagnose;
mod diagnosis;
mod numbers;
mod parts;
mod sweep;
#[cfg(test)]
mod tests;
mod trace;

use self::parts::{Tone, code_block, facts};
use super::figures::Figure;
use crate::bench::document::FORMAT as BENCH_FORMAT;
use crate::report::diagnose::DIAGNOSE_FORMAT;
use crate::report::json::{SWEEP_FORMAT, list, text};
use crate::report::trace::TRACE_FORMAT;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

/// The name of the document beside the page, which the page links to.
pub const RESULT: &str = "result.json";

const STYLE: &str = include_str!("style.css");

/// Nothing may be loaded or run, even if some text were taken for markup.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                      form-action 'none'";

/// What a page says of a document, whatever its kind.
struct Body {
    /// What was done, in a few words.
    title: String,
    /// The verdict, in a word or two.
    verdict: String,
    tone: Tone,
    /// The verdict in a sentence.
    sentence: String,
    /// What is read first: tables, and what is wrong.
    main: Markup,
    /// What is looked up, after the figures.
    more: Markup,
    /// What it was made on: names and values.
    device: Vec<(&'static str, Markup)>,
}

/// The page of a document that `--json` writes, with its figures.
pub fn page(document: &Value, figures: &[Figure]) -> String {
    let body = match document["format"].as_str().unwrap_or_default() {
        SWEEP_FORMAT => sweep::body(document),
        DIAGNOSE_FORMAT => diagnose::body(document),
        TRACE_FORMAT => trace::body(document),
        BENCH_FORMAT => bench::body(document),
        other => unknown(other),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (body.verdict) ": " (body.title) }
                // Without one, a browser asks the server for it.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (body.title) }
                    div class={ "verdict " (body.tone.class()) } {
                        p class="word" {
                            span aria-hidden="true" { (body.tone.symbol()) " " }
                            (body.verdict)
                        }
                        p class="sentence" { (body.sentence) }
                    }
                    (body.main)
                    (drawn(figures))
                    (body.more)
                    (about(document, body.device))
                }
                footer {
                    "Made by attnbench " (text(&document["version"])) ". The whole result is in "
                    a href=(RESULT) { (RESULT) } ", beside this page."
                }
            }
        }
    };
    page.into_string()
}

/// A document that no page is known for: said, rather than an empty page.
fn unknown(format: &str) -> Body {
    Body {
        title: "attnbench".to_owned(),
        verdict: "UNKNOWN".to_owned(),
        tone: Tone::Warn,
        sentence: format!(
            "No report is known for a document of format `{format}`; there are reports of {SWEEP_FORMAT}, \
             {DIAGNOSE_FORMAT}, {TRACE_FORMAT} and {BENCH_FORMAT}."
        ),
        main: html! {},
        more: html! {},
        device: Vec::new(),
    }
}

fn drawn(figures: &[Figure]) -> Markup {
    html! {
        @if !figures.is_empty() {
            h2 { "Figures" }
            @for figure in figures {
                // The picture has its title and its caption, which a small screen cuts.
                figure {
                    div class="scroll" role="region" aria-label=(figure.title) tabindex="0" {
                        div class="drawing" { (PreEscaped(without_prolog(&figure.svg))) }
                    }
                    figcaption { b { (figure.title) } ". " (figure.caption) }
                }
            }
        }
    }
}

/// An SVG from its root on: an XML declaration and a document type belong to a file, not into HTML.
fn without_prolog(svg: &str) -> &str {
    &svg[svg.find("<svg").unwrap_or(0)..]
}

/// How to make the result again.
fn about(document: &Value, device: Vec<(&'static str, Markup)>) -> Markup {
    let mut rows: Vec<(&'static str, Markup)> = Vec::new();
    if let Some(command) = document["command"].as_str() {
        rows.push(("Command", code_block("the command", command)));
    }
    if !document["seed"].is_null() {
        rows.push(("Seed", html! { (text(&document["seed"])) }));
    }
    rows.extend(device);
    rows.push(("Version", html! { "attnbench " (text(&document["version"])) }));
    rows.push(("Format", html! { code { (text(&document["format"])) } }));
    html! {
        h2 { "This run" }
        (facts(&rows))
    }
}
