//! Reads of what holds nothing, of which nothing comes.
//!
//! A kernel may load a whole tile and mask what lies past the sequence's end afterwards. The checker sees
//! the read; whether an output depends on it is seen by other bytes there.

use super::super::compare::compare;
use super::{FoundOnce, Trial, TrialError, output_bytes};
use crate::data::image::{Image, Poisons};
use crate::data::inputs::Inputs;
use crate::device::Launch;
use crate::oracle::Expected;
use crate::problem::Case;

/// What shared memory is filled with in the three runs: NaN, and a large number of each sign, in f32 and
/// in bf16.
const SHARED: [u8; 3] = [0xff, 0x7b, 0xfb];

impl Trial {
    /// Makes notes of those findings of a case that are reads of filler which no output depends on: where
    /// three runs in one order of threads, each under other filler, give the same right bits.
    pub(super) fn note_masked(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        (image, launches): (&Image, &[Launch]),
        expected: &Expected,
        found: &mut FoundOnce,
    ) -> Result<(), TrialError> {
        if !found.0.iter().any(|found| !found.is_note() && found.may_be_masked(image)) {
            return Ok(());
        }
        let judged = self.judged(case);
        let mut first: Option<Vec<u8>> = None;
        for (poisons, fill) in Poisons::RUNS.into_iter().zip(SHARED) {
            self.device.fill_shared(fill);
            let fault = self.run(case, inputs, image, launches, poisons, case.order_seed);
            self.device.fill_shared(SHARED[0]);
            // What these runs find is what the others have found.
            self.device.findings();
            if fault?.is_some() {
                return Ok(());
            }
            let after = self.after(image)?;
            let bits = output_bytes(case, image, &judged, after);
            let is_right = compare(case, image, after, expected, &judged).is_right();
            if !is_right || first.as_ref().is_some_and(|first| *first != bits) {
                return Ok(());
            }
            first = Some(bits);
        }
        for found in found.0.iter_mut().filter(|found| found.may_be_masked(image)) {
            *found = found.clone().masked();
        }
        Ok(())
    }
}
