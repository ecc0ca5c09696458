//! Cases whose addresses pass 2^31 or 2^32 elements, with next to no memory behind them.
//!
//! Kernels that compute offsets in 32 bits are right until a cache is large. No large cache is needed
//! to see it: one stride of K or V is made so long that a row of 8 elements lies across the boundary,
//! and the memory between is never touched. The checked device's arena takes memory only where it is
//! written, and its access map forbids all else.

use super::space::Space;
use crate::problem::{Axis, Case, DTypes, Form, Pointer, Storage};

/// Rows on the stretched axis: the last one's offset is 3 strides.
const ROWS: usize = 4;
/// Elements of a row.
const DIM: usize = 8;
/// Strides of which three end just before 2^31 and 2^32: signed and unsigned offsets overflow within
/// the last row. Both fit in the signed 32 bits in which a kernel may take a stride.
const STRIDES: [usize; 2] = [715_827_882, 1_431_655_765];

/// Bytes of a tensor's address space from which a case is wide, and of which a dense one has more.
const WIDE: u128 = 1 << 30;

/// Whether a case has a tensor whose addresses reach far and whose elements are few.
pub fn is_wide(case: &Case) -> bool {
    let Ok(places) = case.placements() else { return false };
    let Ok(tensors) = case.tensors(&places) else { return false };
    tensors.iter().any(|t| {
        let (span, held) = (t.place.span() as u128, t.shape.len() as u128);
        span * t.dtype.size() as u128 > WIDE && held < span / 64
    })
}

/// The wide cases of a space: each axis of K and of V across each boundary, as far as the kernel takes
/// strides at all.
pub fn cases(space: &Space) -> Vec<Case> {
    let mut found = Vec::new();
    for pointer in [Pointer::K, Pointer::V] {
        for axis in [Axis::Seq, Axis::Head, Axis::Token] {
            for stride in STRIDES {
                found.extend(case(space, pointer, axis, stride));
            }
        }
    }
    found
}

/// One of them; `None` where the kernel does not support it.
fn case(space: &Space, pointer: Pointer, axis: Axis, stride: usize) -> Option<Case> {
    let manifest = &space.manifest;
    manifest.stage.port(pointer)?;
    if !manifest.supports.padding {
        return None;
    }
    let rows = |own: Axis| if own == axis { ROWS } else { 1 };
    let mut case = Case::plain(
        rows(Axis::Head),
        rows(Axis::Head),
        DIM,
        vec![rows(Axis::Token); rows(Axis::Seq)],
    );
    case = case.for_stage(manifest.stage);
    case.capacity = ROWS;
    // The smallest elements reach furthest.
    let size = |types: &&DTypes| types.kv.size();
    case.dtypes = *manifest.supports.dtypes.iter().min_by_key(size)?;
    case.wave = space.waves.iter().copied().min()?;
    case.order_seed = stride as u64;
    for (own, layouts, storage) in [
        (Pointer::K, &manifest.layouts.k, &mut case.k),
        (Pointer::V, &manifest.layouts.v, &mut case.v),
    ] {
        let layout = layouts.first()?.clone();
        *storage = Storage::contiguous(layout.clone());
        if own != pointer {
            continue;
        }
        let axes = layout.with_batch().axes().ok()?;
        let at = axes.iter().position(|a| *a == axis)?;
        if at + 1 == axes.len() {
            return None;
        }
        // Dense, but for that one stride: all axes outside of it have one element.
        let extent = |a: Axis| match a {
            Axis::Token => ROWS,
            Axis::Dim => DIM,
            other => rows(other),
        };
        let inner = |i: usize| axes[i + 1..].iter().map(|a| extent(*a)).product();
        let strides = (0..axes.len()).map(|i| if i == at { stride } else { inner(i) });
        *storage = Storage { layout, form: Form::Strides(strides.collect()), offset: 0 };
    }
    manifest.complete(&mut case);
    let is_possible = case.validate().is_ok() && space.excludes(&case).is_none();
    (is_possible && is_wide(&case)).then_some(case)
}

#[cfg(test)]
mod tests {
    use super::super::space::tests::space;
    use super::*;
    use crate::problem::Placement;

    #[test]
    fn the_last_row_lies_across_the_boundary() {
        let cases = cases(&space());
        assert_eq!(cases.len(), 12, "two tensors, three axes, two boundaries");
        for case in cases {
            let places = case.placements().unwrap();
            let heads = case.num_kv_heads - 1;
            let last =
                |place: &Placement| place.index(case.batch() - 1, 0, heads, case.seq_len() - 1, 0);
            let first = last(&places.k).max(last(&places.v));
            let boundary = if first < 3 << 30 { 1usize << 31 } else { 1 << 32 };
            assert!(first < boundary && boundary < first + DIM, "{case}: {first}");
        }
    }
}
