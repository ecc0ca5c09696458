//! Whether a case fits in memory: said before its data would exhaust the machine.

use super::TrialError;
use crate::device::available_memory;
use crate::problem::{Case, CaseError, Tensor};

/// MiB that a case may take without asking the system what is free, as almost all do.
const ALWAYS_THERE: u128 = 256;

/// Refuses a case before its data would exhaust the machine.
///
/// # Errors
/// [`TrialError::TooLarge`] or [`TrialError::Case`].
pub fn fits_in_memory(case: &Case) -> Result<(), TrialError> {
    let places = case.placements()?;
    // The image twice (before and after), the dense values with their bytes, the oracle's view.
    let bytes = |t: &Tensor| {
        let (span, held, size) =
            (t.place.span() as u128, t.shape.len() as u128, t.dtype.size() as u128);
        let written = case.stage.port(t.pointer).is_some_and(|p| p.write);
        2 * span * size + held * if written { 24 } else { 4 + size }
    };
    let tensors = case
        .tensors(&places)
        .map_err(|source| CaseError::Layout { tensor: "a tensor of the stage", source })?;
    let need = tensors.iter().map(bytes).sum::<u128>() >> 20;
    room_for(need).map_err(|limit| TrialError::TooLarge { need, limit })
}

/// Whether so many MiB are free; where they are not, how many are.
pub(super) fn room_for(need: u128) -> Result<(), u128> {
    if need <= ALWAYS_THERE {
        return Ok(());
    }
    let limit = free_memory() >> 20;
    if need > limit { Err(limit) } else { Ok(()) }
}

/// Bytes of memory that are free, as the system says; 4 GiB where it does not.
pub(super) fn free_memory() -> u128 {
    available_memory().map_or(4 << 30, |bytes| bytes as u128)
}
