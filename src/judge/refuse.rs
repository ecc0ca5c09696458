//! What is refused before anything runs: kernels that do not compile, and launches that their own kernels
//! are not made for.
//!
//! Such a mistake is the manifest's or the source's, whatever a case's values are. It is looked for in the
//! first cases of a sweep: once for each combination of types, and once with the largest block of each
//! launch.

use super::draw::{Draw, EDGE_CASES};
use super::space::Space;
use super::sweep::Options;
use super::trial::{Trial, TrialError};
use crate::device::{Arg, Module};
use crate::kernel::{Env, PlanError};
use crate::problem::{Case, DTypes};
use std::collections::BTreeMap;

/// The error of the first of these cases that has one.
///
/// # Errors
/// [`TrialError`]: a source that does not compile, a pointer to other numbers than the kernel takes, or a
/// block larger than its `__launch_bounds__`. Whatever else is wrong is told by the case that has it.
pub(super) fn before_any_run(
    space: &Space,
    options: &Options,
    trials: &mut [Trial],
) -> Result<(), TrialError> {
    let cases = telling(space, options);
    let share = cases.len().div_ceil(trials.len()).max(1);
    let mut found: Vec<(usize, TrialError)> = std::thread::scope(|scope| {
        let parts = trials.iter_mut().zip(cases.chunks(share)).enumerate();
        let workers: Vec<_> = parts
            .map(|(part, (trial, cases))| {
                scope.spawn(move || {
                    let mut numbered = cases.iter().enumerate();
                    numbered.find_map(|(i, case)| Some((part * share + i, refusal(trial, case)?)))
                })
            })
            .collect();
        let ended = workers.into_iter().map(|w| w.join().expect("a thread that compiles panicked"));
        ended.flatten().collect()
    });
    // The same error, however many threads there are.
    found.sort_by_key(|(case, _)| *case);
    found.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

fn refusal(trial: &mut Trial, case: &Case) -> Option<TrialError> {
    let error = trial.planned(case).err()?;
    let is_ours = match &error {
        TrialError::Compile(_) => true,
        TrialError::Plan(error) => {
            matches!(**error, PlanError::Pointee { .. } | PlanError::Bounds { .. })
        }
        _ => false,
    };
    is_ours.then_some(error)
}

/// The cases that tell, in the order in which they are drawn, each once.
fn telling(space: &Space, options: &Options) -> Vec<Case> {
    let (part, parts) = options.shard;
    let drawn: Vec<Case> = (0..options.share().min(EDGE_CASES))
        .filter_map(|turn| match space.draw(options.seed, turn * parts + part) {
            Draw::Case(case) => Some(*case),
            Draw::Outside(..) => None,
        })
        .collect();
    let mut by_types = BTreeMap::<DTypes, usize>::new();
    let mut largest = BTreeMap::<usize, (u64, usize)>::new();
    for (index, case) in drawn.iter().enumerate() {
        by_types.entry(case.dtypes).or_insert(index);
        for (entry, threads) in blocks(space, case) {
            let most = largest.entry(entry).or_insert((threads, index));
            if threads > most.0 {
                *most = (threads, index);
            }
        }
    }
    let mut wanted: Vec<usize> =
        by_types.into_values().chain(largest.into_values().map(|(_, index)| index)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.into_iter().map(|index| drawn[index].clone()).collect()
}

/// Entry and threads of each launch of a case.
fn blocks(space: &Space, case: &Case) -> Vec<(usize, u64)> {
    let manifest = &space.manifest;
    let Ok(places) = case.placements() else { return Vec::new() };
    let module = Module::uncompiled(manifest.launches.len(), case.wave);
    let launches = manifest.launches(&Env::new(case, &places), &module, &|_| Ok(Arg::Null));
    let threads = |block: [u32; 3]| block.iter().map(|n| u64::from(*n)).product();
    launches.unwrap_or_default().iter().map(|l| (l.entry, threads(l.block))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::space::tests::{filter, manifest};
    use super::*;
    use crate::kernel::Manifest;
    use std::path::Path;

    #[test]
    fn every_type_and_the_largest_block_are_looked_at_and_little_else() {
        let text = "format = \"kernel/1\"\nname = \"t\"\nsource = \"t.hip\"\nstage = \"decode\"\n\
                    [params]\nthreads = [32, 512, 64]\n[[launch]]\nentry = \"t\"\n\
                    args = [\"q\", \"k\", \"v\", \"out\", \"seq_lens\"]\ngrid = [1, 1, 1]\n\
                    block = [\"threads\", 2, 1]\n[supports]\n\
                    dtype = [{ q = \"f32\", kv = \"f32\", out = \"f32\" }, \
                    { q = \"f16\", kv = \"f16\", out = \"f32\" }]";
        let options = |cases| Options {
            seed: 3,
            cases,
            shard: (0, 1),
            deadline: None,
            fail_fast: false,
            wide: false,
        };
        let of = |manifest: &Manifest, cases| {
            telling(&Space::new(manifest, &filter(), &[]).unwrap(), &options(cases))
        };
        let found = of(&Manifest::parse(text, Path::new("t.toml")).unwrap(), 100);
        assert!((2..=3).contains(&found.len()), "{}", found.len());
        let mut types: Vec<String> = found.iter().map(|case| case.dtypes.to_string()).collect();
        types.sort();
        types.dedup();
        assert_eq!(types, ["f16/f16/f32", "f32"]);
        assert!(found.iter().any(|case| case.params["threads"] == 512));
        // No case is compiled for that is not judged.
        assert_eq!(of(&manifest(""), 1).len(), 1);
    }
}
