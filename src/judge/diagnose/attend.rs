//! The right answer of a slice, to be written beside its inputs.

use super::predict::Prediction;
use super::problem::Problem;
use super::recipe::Recipe;
use crate::data::slice::{KvSlice, SliceError, Tensor};
use crate::problem::DType;

/// The slice with the right `out` `[.., num_heads, head_dim_v]`, `lse` `[.., num_heads]`, `probs` and
/// `scores` `[.., num_heads, seq_len]`, all f32, in place of its own; keys that are not attended hold
/// zeros.
///
/// # Errors
/// [`SliceError`]: a layout or type that is not driven yet.
pub fn attended(slice: &KvSlice) -> Result<KvSlice, SliceError> {
    let problem = Problem::of_slice(slice)?;
    let recipe = Recipe::right(&problem);
    let width = problem.seq_len;
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    let (mut probs, mut scores) = (Vec::new(), Vec::new());
    let mut p = Prediction::default();
    for (unit, of) in problem.units.iter().enumerate() {
        if p.make(&problem, &recipe, unit, problem.head_dim_v).is_err() {
            unreachable!("a slice that was read holds all that it attends");
        }
        out.extend_from_slice(&p.answer.out);
        lse.push(p.answer.lse);
        let before = width - of.keys + problem.attended(unit).start;
        let after = width - before - p.answer.probs.len();
        for (to, from) in [(&mut probs, &p.answer.probs), (&mut scores, &p.answer.scores)] {
            to.extend(std::iter::repeat_n(0.0, before));
            to.extend_from_slice(from);
            to.extend(std::iter::repeat_n(0.0, after));
        }
    }
    let lead: Vec<usize> =
        slice.is_batched().then(|| slice.batch()).into_iter().chain([slice.num_heads]).collect();
    let tensor = |values: &[f64], last: Option<usize>| {
        let mut bytes = vec![0u8; values.len() * DType::F32.size()];
        values.iter().enumerate().for_each(|(i, x)| DType::F32.store(&mut bytes, i, *x));
        let shape = lead.iter().copied().chain(last).collect();
        Tensor { dtype: DType::F32, shape, bytes }
    };
    // An empty sequence has nothing to weigh, and a tensor of no columns says nothing.
    let beside = |values: &[f64]| (width > 0).then(|| tensor(values, Some(width)));
    let (probs, scores) = (beside(&probs), beside(&scores));
    let right = KvSlice {
        out: tensor(&out, Some(problem.head_dim_v)),
        lse: Some(tensor(&lse, None)),
        out_raw: None,
        probs,
        scores,
        ..slice.clone()
    };
    right.validate()?;
    Ok(right)
}
