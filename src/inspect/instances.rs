//! The distinct instances of a manifest: what it is compiled to over the cases that a sweep draws.
//!
//! An instance is a distinct [`Source`]: other types, tunables or sizes in an entry or a define make
//! another. All combinations of types and tunables are tried. Sizes that an entry names (`head_dim`)
//! can be any in their range: those that the sweep draws are taken, its edges first.

use crate::device::{Arg, Module, Source};
use crate::judge::draw::Draw;
use crate::judge::space::Space;
use crate::kernel::{Env, Manifest, PlanError};
use crate::problem::Case;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Cases drawn: the edges of every axis, and as many again several times over.
const DRAWN: usize = 256;

/// Combinations of types and tunables that are tried beyond what is drawn.
const MOST_COMBINATIONS: usize = 4096;

/// The sizes of a launch that matter to occupancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Threads a block.
    pub threads: u32,
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
}

/// A distinct compilation.
#[derive(Debug, Clone)]
pub struct Instance {
    /// What is compiled.
    pub source: Source,
    /// The types of q, cache and out of a case that has it: `f16`, `f16/f16/f32`.
    pub dtype: String,
    /// The tunables of that case.
    pub params: BTreeMap<String, i64>,
    /// Of each entry, the launches that were drawn.
    pub shapes: Vec<BTreeSet<Shape>>,
    /// A case that has it.
    pub case: Case,
}

/// The instances of a kernel's space, which holds one wave size, in the order in which they are met.
///
/// # Errors
/// [`PlanError`] for a manifest whose expressions have no value.
pub fn instances(space: &Space) -> Result<Vec<Instance>, PlanError> {
    let mut cases: Vec<Case> = (0..DRAWN)
        .filter_map(|index| match space.draw(1, index) {
            Draw::Case(case) => Some(*case),
            Draw::Outside(..) => None,
        })
        .collect();
    // Those with most shared memory first: each combination's worst occupancy is met.
    cases.sort_by_cached_key(|case| {
        let env = case.placements().ok().map(|places| Env::new(case, &places));
        std::cmp::Reverse(env.and_then(|env| space.manifest.shared_bytes(&env).ok()))
    });
    let mut found = Found::default();
    // By types and tunables first, in the manifest's order.
    for (dtypes, params) in combinations(&space.manifest) {
        let fits = cases.iter().find_map(|case| {
            let case = Case { dtypes, params: params.clone(), ..case.clone() };
            (space.excludes(&case).is_none() && case.validate().is_ok()).then_some(case)
        });
        if let Some(case) = fits {
            found.add(&space.manifest, &case)?;
        }
    }
    for case in &cases {
        found.add(&space.manifest, case)?;
    }
    // Where there are few sizes, each with all types: not only as they were drawn together.
    if space.manifest.supports.head_dim.one_of.is_some() {
        for (case, dtypes) in cases.iter().flat_map(|case| {
            space.manifest.supports.dtypes.iter().map(move |dtypes| (case, *dtypes))
        }) {
            let case = Case { dtypes, ..case.clone() };
            if space.excludes(&case).is_none() && case.validate().is_ok() {
                found.add(&space.manifest, &case)?;
            }
        }
    }
    Ok(found.instances)
}

type Combination = (crate::problem::DTypes, BTreeMap<String, i64>);

fn combinations(manifest: &Manifest) -> Vec<Combination> {
    let mut all: Vec<Combination> =
        manifest.supports.dtypes.iter().map(|d| (*d, BTreeMap::new())).collect();
    for param in &manifest.params {
        if all.len().saturating_mul(param.values.len()) > MOST_COMBINATIONS {
            // The draws have every value at least once.
            return Vec::new();
        }
        all = all
            .iter()
            .flat_map(|(dtypes, params)| {
                param.values.iter().map(|value| {
                    let mut params = params.clone();
                    params.insert(param.name.clone(), *value);
                    (*dtypes, params)
                })
            })
            .collect();
    }
    all
}

#[derive(Default)]
struct Found {
    instances: Vec<Instance>,
    by_source: HashMap<Source, usize>,
}

impl Found {
    fn add(&mut self, manifest: &Manifest, case: &Case) -> Result<(), PlanError> {
        let Ok(placements) = case.placements() else { return Ok(()) };
        let env = Env::new(case, &placements);
        let source = manifest.source(&env)?;
        let entries = source.entries.len();
        let launches = manifest.launches(
            &env,
            &Module::uncompiled(source.entries.len(), source.wave),
            &|_| Ok(Arg::Null),
        )?;
        let at = *self.by_source.entry(source.clone()).or_insert_with(|| {
            self.instances.push(Instance {
                source,
                dtype: case.dtypes.to_string(),
                params: case.params.clone(),
                shapes: vec![BTreeSet::new(); entries],
                case: case.clone(),
            });
            self.instances.len() - 1
        });
        for launch in launches {
            let threads = launch.block.iter().fold(1u32, |n, d| n.saturating_mul(*d));
            let shape = Shape { threads, shared_bytes: launch.shared_bytes };
            self.instances[at].shapes[launch.entry].insert(shape);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::space::Filter;
    use std::path::Path;

    fn of(entry: &str, rest: &str) -> Vec<Instance> {
        let text = format!(
            "format = \"kernel/1\"\nname = \"t\"\nsource = \"t.hip\"\nstage = \"decode\"\n\
             [params]\ntile = [1, 2, 3]\nthreads = [64, 96]\n[[launch]]\nentry = \"{entry}\"\n\
             args = [\"q\", \"k\", \"v\", \"out\", \"seq_lens\"]\ngrid = [1, 1, 1]\n\
             block = [\"threads\", 2, 1]\nshared_bytes = \"4 * head_dim\"\n\
             [supports]\nhead_dim = {{ max = 64 }}\n\
             dtype = [{{ q = \"f32\", kv = \"f32\", out = \"f32\" }}, {{ q = \"f16\", kv = \"f16\", out = \"f32\" }}]\n{rest}"
        );
        let manifest = Manifest::parse(&text, Path::new("t.toml")).unwrap();
        let filter = Filter { waves: vec![64], ..Filter::default() };
        instances(&Space::new(&manifest, &filter, &[]).unwrap()).unwrap()
    }

    #[test]
    fn types_and_tunables_that_the_code_does_not_see_make_no_instance() {
        let one = of("k", "");
        let [one] = &one[..] else { panic!("{}", one.len()) };
        // Every block and every size of shared memory that was drawn belongs to it.
        let threads: BTreeSet<u32> = one.shapes[0].iter().map(|s| s.threads).collect();
        assert_eq!(threads, BTreeSet::from([128, 192]));
        for threads in [128, 192] {
            let of = one.shapes[0].iter().filter(|s| s.threads == threads);
            assert_eq!(of.map(|s| s.shared_bytes).max(), Some(256));
        }
        assert_eq!(one.source.wave, 64);
    }

    #[test]
    fn each_combination_that_the_code_sees_is_an_instance() {
        let names = |found: &[Instance]| -> Vec<String> {
            found.iter().map(|i| i.source.entries[0].clone()).collect()
        };
        assert_eq!(names(&of("k<{kv}>", "")), ["k<float>", "k<__half>"]);
        assert_eq!(
            names(&of("k<{kv}, {tile}>", "")),
            [
                "k<float, 1>",
                "k<float, 2>",
                "k<float, 3>",
                "k<__half, 1>",
                "k<__half, 2>",
                "k<__half, 3>"
            ]
        );
        // Sizes in a range: the edges at least.
        let sizes = names(&of("k<{head_dim}>", ""));
        assert!(["k<1>", "k<64>"].iter().all(|s| sizes.contains(&(*s).to_owned())), "{sizes:?}");
    }
}
