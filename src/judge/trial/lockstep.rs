//! A failing case once more, with the lanes of each wave in lockstep.
//!
//! A kernel may pass values between the lanes of a wave through shared memory with nothing to order
//! them, because its lanes advance together on AMD hardware. On independent lanes it is wrong; that it is
//! right in lockstep says what it relies on.

use super::{Outcome, Trial};
use crate::data::generate::generate;
use crate::data::inputs::Inputs;
use crate::problem::Case;
use std::sync::Arc;

/// What is said of a failing case that passes in lockstep.
pub const PASSES_IN_LOCKSTEP: &str = "passes when the lanes of a wave advance in lockstep: if the kernel is only for hardware \
     whose lanes do, say `[device] lanes = \"lockstep\"` in its manifest, and otherwise order them \
     (`__syncwarp`, `__syncthreads`)";

impl Trial {
    /// Judges the kernel on given inputs with the lanes of each wave in lockstep. `None` where the device
    /// cannot do that, its lanes are in lockstep already, or the case cannot be judged so.
    pub fn judge_in_lockstep(&mut self, case: &Case, inputs: &Inputs) -> Option<Outcome> {
        if self.lockstep.is_none() {
            let device = self.device.in_lockstep()?;
            let (manifest, captured) = (Arc::clone(&self.manifest), Arc::clone(&self.captured));
            let mut trial = Trial::new(manifest, captured, device, self.time_limit.base);
            trial.time_limit = self.time_limit;
            self.lockstep = Some(Box::new(trial));
        }
        let trial = self.lockstep.as_mut()?;
        // Its builds take time, and its runs are slow: a limit for the fast build is not meant for them.
        trial.time_limit.grows = true;
        trial.judge_inputs(case, inputs).ok()
    }

    /// Whether a case passes with the lanes of each wave in lockstep: [`PASSES_IN_LOCKSTEP`].
    pub fn passes_in_lockstep(&mut self, case: &Case, inputs: &Inputs) -> bool {
        matches!(self.judge_in_lockstep(case, inputs), Some(Outcome::Passed(_)))
    }

    /// As [`Trial::passes_in_lockstep`], on the case's own data.
    pub fn case_passes_in_lockstep(&mut self, case: &Case) -> bool {
        let inputs = generate(case, &self.captured);
        inputs.is_ok_and(|inputs| self.passes_in_lockstep(case, &inputs))
    }
}
