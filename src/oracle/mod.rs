//! What is right, and how far from it a right kernel can be: the f64 oracle and the error bound.

mod attention;
mod bound;

pub use attention::{Answer, Head, attend};
pub use bound::{Arithmetic, Bound, LAMBDA, Term, bound, explain, growth};
