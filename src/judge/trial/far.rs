//! Cases of far addresses and few elements, under the checker.

use super::super::compare::compare;
use super::words::{fault_in_words, property_of, wrong_in_words};
use super::{Buffers, Failure, FoundOnce, Outcome, Passed, Planned, Seen, Trial, TrialError};
use crate::data::generate::generate;
use crate::data::image::Poisons;
use crate::device::Fault;
use crate::oracle::Expected;
use crate::problem::Case;

impl Trial {
    /// Judges a case of far addresses and few elements, on a device that checks its runs: one run on
    /// memory that is there only where it is used. The access map stands for poison and for what
    /// must not change.
    pub(super) fn judge_wide(&mut self, case: &Case) -> Result<Outcome, TrialError> {
        let inputs = generate(case, &self.captured)?;
        let expected = Expected::new(case, &inputs, &self.arithmetic(case));
        let Planned { image, launches } = self.plan(case)?;
        let judged = self.judged(case);
        let (run, poisons, order_seed) = (2, Poisons::RUNS[2], case.order_seed);
        let kernel = self.manifest.name.clone();
        let refused = |source| TrialError::Run { kernel, source };
        let memory = self.device.sparse_arena(image.size()).map_err(refused)?;
        self.seen = Seen::Alone;
        image.write_inputs(case, &inputs, poisons, memory);
        if let Some(map) = self.device.access_map() {
            image.allow(case, &inputs, map);
        }
        let fault = self.execute(case, &launches, order_seed)?;
        let mut found = FoundOnce::default();
        self.look(case, &image, &judged, fault.is_none(), &mut found);
        let found = found.list();
        let notes: Vec<_> = found.iter().filter(|found| found.is_note()).cloned().collect();
        let gravest = found
            .first()
            .filter(|found| !found.is_note())
            .map(|found| (found.property(), found.words.clone()));
        // The buffers are too large to be kept; the case's id makes them again.
        let buffers = Buffers::default();
        let failed = |property, detail, comparison| {
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            Ok(Outcome::Failed(Box::new(failure)))
        };
        match (&fault, gravest) {
            (None | Some(Fault::Found), Some((property, detail))) => {
                return failed(property, detail, None);
            }
            (Some(fault), _) => {
                let (property, detail) = fault_in_words(fault, &image);
                return failed(property, detail, None);
            }
            (None, None) => {}
        }
        let comparison = compare(case, &image, self.after(&image)?, &expected, &judged);
        if !comparison.is_right() {
            let property = property_of(&expected, comparison.output);
            let detail = wrong_in_words(case, &comparison, poisons);
            return failed(property, detail, Some(comparison));
        }
        let passed = Passed {
            ratio: comparison.ratio,
            largest: Some(comparison.largest()),
            runs: 1,
            law: None,
            notes,
        };
        Ok(expected.vacuous().map_or(Outcome::Passed(passed), Outcome::Vacuous))
    }
}
