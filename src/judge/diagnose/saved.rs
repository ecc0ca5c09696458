//! The diagnosis of what a sweep saved: of any stage, and whatever it was saved for.
//!
//! A file that a sweep saved is of a case that failed. Its output is explained where there is one and
//! it is wrong. Otherwise the fault is told that it was saved for: `clean` would be a false word.

use super::failing::of_failure;
use super::predict::Fit;
use super::{Diagnosis, Options, Verdict};
use crate::data::image::Image;
use crate::data::slice::{KvSlice, Promises, StageSlice};
use crate::judge::compare::compare;
use crate::judge::trial::{Buffers, element_in_words, fits_in_memory};
use crate::oracle::{Arithmetic, Expected};
use crate::problem::{Pointer, Stage};
use std::collections::BTreeMap;

/// Metadata key: what failed, in words.
pub const DETAIL: &str = "detail";
/// Metadata key: how far the failing run came, where it did not end.
pub const RUN: &str = "run";
/// The value of [`RUN`]: `out` is then as it was before the run.
pub const UNFINISHED: &str = "unfinished";

/// The diagnosis of a decode step; `judge` explains its output.
pub fn of_slice(slice: &KvSlice, judge: impl FnOnce() -> Diagnosis) -> Diagnosis {
    let Some(reason) = Reason::of(slice.property.as_deref(), &slice.extra) else { return judge() };
    if reason.left_no_output(&slice.extra) {
        return reason.alone("The run left no output to judge");
    }
    reason.beside(judge())
}

/// The diagnosis of a case of another stage.
pub fn of_stage(slice: &StageSlice, options: Options) -> Diagnosis {
    let Some(reason) = Reason::of(Some(&slice.property), &slice.extra) else {
        return Diagnosis::invalid("the file does not say what it was saved for".to_owned());
    };
    if slice.after.is_empty() || reason.left_no_output(&slice.extra) {
        return reason.alone("The run left no output to judge");
    }
    let arithmetic = arithmetic(slice);
    let buffers = Buffers { before: slice.before.clone(), after: slice.after.clone() };
    let explained = of_failure(&slice.case, &buffers, arithmetic, options);
    match explained.or_else(|| compared(slice, arithmetic)) {
        Some(diagnosis) => reason.beside(diagnosis),
        None => reason.alone("The right answer cannot be computed from the file"),
    }
}

/// What a file was saved for.
struct Reason<'a> {
    property: &'a str,
    detail: Option<&'a str>,
}

impl<'a> Reason<'a> {
    fn of(property: Option<&'a str>, extra: &'a BTreeMap<String, String>) -> Option<Reason<'a>> {
        let property = property.filter(|property| !property.is_empty())?;
        Some(Reason { property, detail: extra.get(DETAIL).map(String::as_str) })
    }

    /// Older files do not say how far the run came; these properties are of runs that did not end.
    fn left_no_output(&self, extra: &BTreeMap<String, String>) -> bool {
        let ended_it = ["crash", "timeout", "deadlock", "shared-overrun", "trap", "sanitize"];
        extra.get(RUN).is_some_and(|run| run == UNFINISHED) || ended_it.contains(&self.property)
    }

    fn words(&self) -> String {
        match self.detail {
            Some(detail) => format!("saved for `{}`: {detail}", self.property),
            None => format!("saved for `{}`", self.property),
        }
    }

    /// There is nothing to explain.
    fn alone(&self, why: &str) -> Diagnosis {
        let note = format!("{}. {why}; `replay` runs the case again", self.words());
        Diagnosis { verdict: Verdict::Unexplained, ..Diagnosis::invalid(note) }
    }

    /// Beside what was found of the output.
    fn beside(&self, found: Diagnosis) -> Diagnosis {
        let is_right = matches!(found.verdict, Verdict::Clean | Verdict::Reference);
        let verdict = if is_right { Verdict::Unexplained } else { found.verdict };
        let mut note = self.words();
        if is_right && !self.property.starts_with("oracle") {
            note += ". The values of its output are right: what failed is not in them";
        }
        if !found.note.is_empty() {
            note = format!("{note}. {}", found.note);
        }
        Diagnosis { verdict, note, ..found }
    }
}

/// What the kernel had promised when the case was saved.
fn arithmetic(slice: &StageSlice) -> Arithmetic {
    let Promises { accumulate, probs, exp_ulp } = slice.promises.unwrap_or_default();
    Arithmetic { accumulate, probs, exp_ulp, ..Arithmetic::single(slice.case.dtypes.out) }
}

/// The outputs beside the right answer, for a stage or a size that no hypothesis is tried on.
fn compared(slice: &StageSlice, arithmetic: Arithmetic) -> Option<Diagnosis> {
    let case = &slice.case;
    fits_in_memory(case).ok()?;
    let image = Image::new(case, &case.placements().ok()?, &[])?;
    let mut memory = vec![0u8; image.size()];
    for (name, bytes) in &slice.after {
        let range = image.buffer(name)?.range.clone();
        memory[range.clone()].copy_from_slice(bytes.get(..range.len())?);
    }
    let expected = Expected::new(case, &slice.inputs().ok()?, &arithmetic);
    let is_there = |pointer: Pointer| match case.stage {
        // What its parts come to when they are put together.
        Stage::Split => ["partial_out", "partial_lse"].iter().all(|n| slice.after.contains_key(*n)),
        _ => slice.after.contains_key(pointer.name()),
    };
    let judged: Vec<Pointer> =
        expected.outputs.iter().map(|(pointer, _)| *pointer).filter(|p| is_there(*p)).collect();
    if judged.is_empty() {
        return None;
    }
    let c = compare(case, &image, &memory, &expected, &judged);
    let elements = expected.outputs.iter().find(|(p, _)| *p == judged[0])?.1.want.len();
    let verdict = if c.is_right() { Verdict::Clean } else { Verdict::Unexplained };
    let note = format!(
        "the largest error over its bound is at {}: it is {:.9e} and must be {:.9e} within {:.2e} ({} \
         elements wrong)",
        element_in_words(case, c.output, c.at),
        c.got,
        c.want,
        c.bound,
        c.wrong
    );
    let note = if c.is_right() { String::new() } else { note };
    let fit = Fit { ratio: c.ratio, mae: c.mae, finite: elements };
    Some(Diagnosis { verdict, fit, ..Diagnosis::invalid(note) })
}
