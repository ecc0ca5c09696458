//! What is right, and how far from it a right kernel can be: the f64 oracle and the error bound.

mod attention;
mod bound;
mod expected;

pub use attention::{Answer, Head, attend};
pub use bound::{Arithmetic, Bound, LAMBDA, Term, bound, explain, growth};
pub use expected::{Expected, PROBES, Probe, explain_element, head_of};
