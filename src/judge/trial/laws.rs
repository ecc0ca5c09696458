//! A case by one law: what its runs in another way must come to.

use super::super::compare::{Comparison, Where, place, values};
use super::super::law::{self, Law, Posed};
use super::words::{element_in_words, fault_in_words};
use super::{Failure, Observed, Outcome, Passed, Planned, Trial, TrialError, output_bytes};
use crate::data::image::{Image, Poisons};
use crate::data::inputs::Inputs;
use crate::oracle::Expected;
use crate::problem::{Case, Pointer};

impl Trial {
    /// Judges the kernel by one law on given inputs; `None` where the law does not apply.
    ///
    /// # Errors
    /// [`TrialError`]: the case, or the law's, could not be run.
    pub fn judge_law(
        &mut self,
        law: Law,
        case: &Case,
        inputs: &Inputs,
    ) -> Result<Option<Outcome>, TrialError> {
        let Some(posed) = law::pose(law, &self.manifest, case, inputs) else { return Ok(None) };
        let expected = Expected::new(case, inputs, &self.arithmetic(case));
        let Planned { image, launches } = self.plan(case)?;
        let (poisons, order_seed) = (Poisons::RUNS[2], case.order_seed);
        if let Some(fault) = self.run(case, inputs, &image, &launches, poisons, order_seed)? {
            let (property, detail) = fault_in_words(&fault, &image);
            let buffers = self.buffers(&image, false)?;
            let (comparison, run, found) = (None, 2, Vec::new());
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            return Ok(Some(Outcome::Failed(Box::new(failure))));
        }
        let failure = self.try_law(law, &posed, None, case, &image, &expected)?;
        let runs = 1 + posed.runs.len();
        let passed = Passed { runs, law: Some(law), ..Passed::default() };
        Ok(Some(failure.map_or(Outcome::Passed(passed), |f| Outcome::Failed(Box::new(f)))))
    }

    /// Tries a law on a case that has just been run; how it fails, if it does. `observed`: what its runs
    /// came to, where they were made already.
    pub(super) fn try_law(
        &mut self,
        law: Law,
        posed: &Posed,
        observed: Option<Vec<Vec<Observed>>>,
        case: &Case,
        image: &Image,
        expected: &Expected,
    ) -> Result<Option<Failure>, TrialError> {
        let judged = self.judged(case);
        // What the case itself came to, before its memory is used again, if it will be.
        let kept = if observed.is_some() { None } else { Some(self.buffers(image, true)?) };
        let after = self.after(image)?;
        let own: Vec<Vec<f64>> = judged.iter().map(|o| values(case, image, after, *o)).collect();
        let poisons = Poisons::RUNS[2];
        let failed = |trial: &mut Trial, detail: String, comparison: Option<Comparison>| {
            let (property, run, order_seed) = (law.property(), 2, case.order_seed);
            let buffers = kept.map_or_else(|| trial.buffers(image, true), Ok)?;
            let found = Vec::new();
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            Ok(Some(failure))
        };
        let mut runs = observed.unwrap_or_default();
        for (other, inputs) in posed.runs.iter().skip(runs.len()) {
            match self.observe(other, inputs, poisons)? {
                Ok(observed) => runs.push(observed),
                Err(fault) => return failed(self, format!("{fault} (posed as {other})"), None),
            }
        }
        let first = &posed.runs[0].0;
        let exact = law.is_exact(&self.manifest);
        // The bounds are dear, and needed only where bits differ.
        let mut limits: Option<Vec<Expected>> = None;
        for (i, output) in judged.iter().enumerate() {
            let others: Vec<Vec<f64>> = match runs.len() {
                1 => vec![own[i].clone()],
                _ => runs[1..].iter().map(|run| run[i].values.clone()).collect(),
            };
            let Some(wanted) = posed.predict(case, *output, &others) else { continue };
            let got = &runs[0][i].values;
            let differs = |(got, want): (&f64, &f64)| {
                got.to_bits() != want.to_bits() && (got.is_finite() || want.is_finite())
            };
            if !got.iter().zip(&wanted).any(differs) {
                continue;
            }
            let arithmetic = self.arithmetic(case);
            let limits = limits.get_or_insert_with(|| {
                let of = |(c, inputs): &(Case, Inputs)| Expected::new(c, inputs, &arithmetic);
                let mut all: Vec<Expected> = posed.runs.iter().map(of).collect();
                if all.len() == 1 {
                    all.push(expected.clone());
                }
                all
            });
            let bounds: Option<Vec<Vec<f64>>> =
                limits.iter().map(|e| e.of(*output).map(|right| right.bound.clone())).collect();
            let Some(slack) = bounds.and_then(|bounds| posed.slack(case, *output, &bounds)) else {
                continue;
            };
            for (j, (got, want)) in got.iter().zip(&wanted).enumerate() {
                let limit = if exact { 0.0 } else { slack[j] };
                let error = (got - want).abs();
                let apart = match (got.is_finite(), want.is_finite()) {
                    // The very bits, but for those of a NaN.
                    _ if exact => {
                        got.to_bits() != want.to_bits() && !(got.is_nan() && want.is_nan())
                    }
                    (true, true) => error > limit,
                    // -inf of an empty lse is a value; what overflows in one may not in the other.
                    (false, false) => false,
                    _ => limit.is_finite(),
                };
                if !apart {
                    continue;
                }
                let image = Image::new(first, &first.placements()?, &[]);
                let at = image.map_or(Where::default(), |image| place(first, &image, *output, j));
                let (ratio, what) = if exact {
                    (f64::INFINITY, "the very bits, as the manifest promises".to_owned())
                } else {
                    (error / limit, format!("within {limit:.2e}"))
                };
                let detail = format!(
                    "{} is {got:.9e} where the law `{}` has {want:.9e}, {what} (posed as {first})",
                    element_in_words(first, *output, at),
                    law.name(),
                );
                let comparison = Comparison {
                    ratio,
                    measures: Vec::new(),
                    at,
                    output: *output,
                    got: *got,
                    want: *want,
                    bound: limit,
                    max_abs: error,
                    max_abs_bound: limit,
                    mae: error,
                    wrong: 1,
                };
                return failed(self, detail, Some(comparison));
            }
        }
        Ok(None)
    }

    /// Runs the kernel once and gives its judged outputs; or the fault, in words.
    ///
    /// # Errors
    /// [`TrialError`]: the case could not be run.
    pub fn observe(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        poisons: Poisons,
    ) -> Result<Result<Vec<Observed>, String>, TrialError> {
        let Planned { image, launches } = self.plan(case)?;
        let judged = self.judged(case);
        if let Some(fault) = self.run(case, inputs, &image, &launches, poisons, case.order_seed)? {
            return Ok(Err(fault_in_words(&fault, &image).1));
        }
        Ok(Ok(self.observed(case, &image, &judged)?))
    }

    /// What the last run left of its outputs.
    pub(super) fn observed(
        &mut self,
        case: &Case,
        image: &Image,
        judged: &[Pointer],
    ) -> Result<Vec<Observed>, TrialError> {
        let after = self.after(image)?;
        let observe = |output: &Pointer| Observed {
            output: *output,
            values: values(case, image, after, *output),
            bytes: output_bytes(case, image, &[*output], after),
        };
        Ok(judged.iter().map(observe).collect())
    }
}
