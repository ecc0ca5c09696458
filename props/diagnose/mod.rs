//! Laws about diagnosis: whatever fault made an output is named, and a right output is clean.

mod capture;
mod faults;
mod inject;
mod merge;
mod outside;
mod program;
mod right;
mod search;
mod story;

use attnbench::data::slice::KvSlice;
use attnbench::judge::diagnose::problem::Problem;
use attnbench::judge::diagnose::{Diagnosis, Options, diagnose};

/// The diagnosis of a slice.
fn diagnosis(slice: &KvSlice) -> Diagnosis {
    let problem = Problem::of_slice(slice).expect("a slice that is driven");
    diagnose(&problem, Options::default())
}
