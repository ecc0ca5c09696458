//! What is right, and how far from it a right kernel can be: the f64 oracle and the error bound.
//!
//! | subject | file |
//! | --- | --- |
//! | scores, softmax and P·V | `attention` |
//! | their error bounds | `bound` |
//! | the appended key's rotation | `rope` |
//! | combining heads, residual and norm | `linear` |
//! | what each output of a case must be; the vacuity gate | `expected` |

mod attention;
mod bound;
mod expected;
mod linear;
mod rope;

pub use attention::{Answer, Head, Scores, attend, mix, scores, softmax};
pub use bound::{
    Arithmetic, Bound, LAMBDA, Term, bound, bound_pv, bound_scores, bound_softmax, explain,
    explain_pv, explain_scores, explain_softmax, growth, is_leaning,
};
pub(crate) use bound::{repeats, rows_repeat};
pub use expected::{Expected, Probe, Right, explain_element, explained, head_of};
pub use linear::{NormAnswer, norm, project};
pub use rope::rotate;
