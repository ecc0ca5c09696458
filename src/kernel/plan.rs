//! From a manifest and the variables of a case to the source to compile, the scratch buffers to
//! allocate, and the launches to make.

use super::args::{ArgSpec, ScalarType, ScratchType};
use super::env::Env;
use super::expr::{Expr, ExprError, SHOWN_TEXT, Value};
use super::manifest::{DEVICE_VARIABLES, Manifest};
use crate::device::signature::Signature;
use crate::device::{Arg, Launch, Module, Source};
use crate::problem::{Case, Placements, clip, one_line};
use std::ops::RangeInclusive;

/// Why a case cannot be planned. The manifest is at fault, or what it is used with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// An expression without a value.
    #[error("{kernel}: {place}: {source}")]
    Expr {
        /// The kernel.
        kernel: String,
        /// Where in the manifest: `launch[0].grid[1]`.
        place: String,
        /// What is wrong.
        source: Box<ExprError>,
    },
    /// A value outside of what its place can hold.
    #[error("{kernel}: {place} = `{expr}` is {value}, but it must be {limit}")]
    Range {
        /// The kernel.
        kernel: String,
        /// Where in the manifest: `launch[0].args[3] (u32:pos)`.
        place: String,
        /// The expression.
        expr: String,
        /// Its value, and the variables that led there: `-1 (with pos = 0)`.
        value: String,
        /// What it must be.
        limit: &'static str,
    },
    /// A pointer that the caller has no buffer for.
    #[error(
        "{kernel}: argument `{arg}` has no buffer in this case; pass \"null\" where it is not needed"
    )]
    NoBuffer {
        /// The kernel.
        kernel: String,
        /// The argument.
        arg: String,
    },
    /// A pointer to other numbers than its kernel takes.
    #[error("{kernel}: launch[{launch}]: {why}")]
    Pointee {
        /// The kernel.
        kernel: String,
        /// Which launch of the manifest.
        launch: usize,
        /// Which arguments, what they are, what the kernel takes, and the mend.
        why: String,
    },
    /// A block larger than its kernel is made for.
    #[error(
        "{kernel}: launch[{launch}].block is {threads} threads{values}, but `{entry}` is made for at most \
         {bound} (its __launch_bounds__): launch blocks of at most {bound} threads, or raise the bound"
    )]
    Bounds {
        /// The kernel.
        kernel: String,
        /// Which launch of the manifest.
        launch: usize,
        /// Threads of a block.
        threads: u64,
        /// The variables that led there: ` (with threads = 512)`.
        values: String,
        /// The name expression.
        entry: String,
        /// The most threads.
        bound: u32,
    },
    /// A module that was compiled from another source.
    #[error("{kernel}: the compiled module lacks `{entry}`; compile the source of this very case")]
    Entry {
        /// The kernel.
        kernel: String,
        /// The name expression.
        entry: String,
    },
}

/// A scratch buffer to allocate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchSize {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: ScratchType,
    /// Elements.
    pub elements: usize,
    /// Whether the kernel finds zeros there, and leaves zeros.
    pub zeroed: bool,
}

impl ScratchSize {
    /// Bytes; known to fit in an `isize`.
    pub fn bytes(&self) -> usize {
        self.elements * self.dtype.size()
    }
}

/// What a rule may make of a tunable.
pub(super) const RULED: RangeInclusive<i64> = 1..=65_535;

type Result<T, E = PlanError> = std::result::Result<T, E>;

impl Manifest {
    /// The source to compile for a case: definitions and entries with their places filled. Equal
    /// sources are one compilation. For a code object it names that file, and has no definitions.
    ///
    /// # Errors
    /// [`PlanError::Expr`].
    pub fn source(&self, env: &Env) -> Result<Source> {
        let defines = self.defines.iter().map(|define| {
            let text = define.text.render(env.dtypes, &|n| env.get(n));
            let place = || format!("defines.{}", clip(&define.name));
            Ok((define.name.clone(), text.map_err(|e| self.expr_error(place(), e))?))
        });
        Ok(Source {
            file: self.code.path().to_owned(),
            include_dirs: self.include_dirs.clone(),
            defines: defines.collect::<Result<_>>()?,
            entries: self.entries(env)?.0,
            wave: env.wave,
        })
    }

    /// The launches of a case, in order; those with a zero extent are left out. `module` is the
    /// compiled [`Manifest::source`] of the same variables. `address` is asked for every pointer
    /// and scratch argument.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn launches(
        &self,
        env: &Env,
        module: &Module,
        address: &dyn Fn(&ArgSpec) -> Result<Arg>,
    ) -> Result<Vec<Launch>> {
        let (entries, of_launch) = self.entries(env)?;
        let mut launches = Vec::new();
        for (i, spec) in self.launches.iter().enumerate() {
            let entry = of_launch[i];
            if entry >= module.params.len() {
                let entry = one_line(&entries[entry], SHOWN_TEXT);
                return Err(PlanError::Entry { kernel: self.name.clone(), entry });
            }
            let extents = |name: &str, exprs: &[Expr; 3]| -> Result<[u32; 3]> {
                let mut extents = [0; 3];
                for (axis, expr) in exprs.iter().enumerate() {
                    extents[axis] =
                        self.extent(format!("launch[{i}].{name}[{axis}]"), expr, env)?;
                }
                Ok(extents)
            };
            let grid = extents("grid", &spec.grid)?;
            let block = extents("block", &spec.block)?;
            if grid.contains(&0) || block.contains(&0) {
                continue;
            }
            let place = format!("launch[{i}].shared_bytes");
            let shared_bytes = self.extent(place, &spec.shared_bytes, env)?;
            if let Some(signature) = module.signatures.get(entry) {
                self.fits(i, &entries[entry], signature, block, env)?;
            }
            let mut args = Vec::with_capacity(spec.args.len());
            for (j, arg) in spec.args.iter().enumerate() {
                args.push(match arg {
                    ArgSpec::Null => Arg::Null,
                    ArgSpec::Pointer(_) | ArgSpec::Scratch(_) => address(arg)?,
                    ArgSpec::Scalar { ty, expr } => {
                        let place = format!("launch[{i}].args[{j}] ({})", self.arg_name(arg));
                        self.scalar(place, *ty, expr, env)?
                    }
                });
            }
            launches.push(Launch {
                module: module.clone(),
                entry,
                grid,
                block,
                shared_bytes,
                args,
            });
        }
        Ok(launches)
    }

    /// Whether a launch is one that its compiled kernel is made for.
    fn fits(
        &self,
        launch: usize,
        entry: &str,
        signature: &Signature,
        block: [u32; 3],
        env: &Env,
    ) -> Result<()> {
        let kernel = self.name.clone();
        let entry = one_line(entry, SHOWN_TEXT);
        if let Some(why) = self.mistyped(launch, &entry, signature, env.dtypes) {
            return Err(PlanError::Pointee { kernel, launch, why });
        }
        let threads = block.iter().fold(1, |n: u64, extent| n.saturating_mul((*extent).into()));
        match signature.most_threads {
            Some(bound) if threads > bound.into() => {
                let block = &self.launches[launch].block;
                let values: Vec<String> =
                    block.iter().map(|expr| expr.describe_values(&|n| env.get(n))).collect();
                let values = values.concat();
                Err(PlanError::Bounds { kernel, launch, threads, values, entry, bound })
            }
            _ => Ok(()),
        }
    }

    /// Gives a case the tunables that it does not set, for a device with so many multiprocessors (compute
    /// units) and bytes of shared memory a block: by the manifest's rule where it has one, else the first
    /// value.
    ///
    /// # Errors
    /// [`PlanError`]: a rule without a value, or one that no tunable can have.
    pub fn tune(
        &self,
        case: &mut Case,
        placements: &Placements,
        units: u32,
        shared_bytes: u32,
    ) -> Result<()> {
        let mut env = Env::new(case, placements);
        for (name, value) in DEVICE_VARIABLES.into_iter().zip([units, shared_bytes / 1024]) {
            env.set(name, Value::Int(value.into()));
        }
        for (name, expr) in &self.rule {
            let place = format!("rule.{}", clip(name));
            let is_param = self.params.iter().any(|param| param.name == *name);
            let value = match case.params.get(name) {
                Some(value) => *value,
                None => self.integer(&place, expr, &env)?,
            };
            env.set(name, Value::Int(value));
            if is_param && !case.params.contains_key(name) {
                if !RULED.contains(&value) {
                    let limit = "between 1 and 65535";
                    return Err(self.range_error(place, expr, value, limit, &env));
                }
                case.params.insert(name.clone(), value);
            }
        }
        self.complete(case);
        Ok(())
    }

    /// The most dynamic shared memory that a launch of a case asks for, bytes.
    ///
    /// # Errors
    /// [`PlanError`]: a size without a value, or one that no launch can ask for.
    pub fn shared_bytes(&self, env: &Env) -> Result<u32> {
        self.launches.iter().enumerate().try_fold(0, |most: u32, (i, launch)| {
            let place = format!("launch[{i}].shared_bytes");
            Ok(most.max(self.extent(place, &launch.shared_bytes, env)?))
        })
    }

    /// The scratch buffers of a case, in the manifest's order.
    ///
    /// # Errors
    /// [`PlanError`]: a negative size, or one that no memory could hold.
    pub fn scratch_sizes(&self, env: &Env) -> Result<Vec<ScratchSize>> {
        let size = |s: &super::Scratch| {
            let place = format!("scratch.{}", clip(&s.name));
            let value = self.integer(&place, &s.elements, env)?;
            let elements = usize::try_from(value).ok().filter(|n| {
                n.checked_mul(s.dtype.size()).is_some_and(|bytes| isize::try_from(bytes).is_ok())
            });
            let limit = "at least 0, and below 2^63 bytes";
            let elements =
                elements.ok_or_else(|| self.range_error(place, &s.elements, value, limit, env))?;
            Ok(ScratchSize { name: s.name.clone(), dtype: s.dtype, elements, zeroed: s.zeroed })
        };
        self.scratch.iter().map(size).collect()
    }

    /// The distinct entries in order of appearance, and which one each launch has.
    fn entries(&self, env: &Env) -> Result<(Vec<String>, Vec<usize>)> {
        let (mut entries, mut of_launch) = (Vec::new(), Vec::new());
        for (i, launch) in self.launches.iter().enumerate() {
            let text = launch
                .entry
                .render(env.dtypes, &|n| env.get(n))
                .map_err(|e| self.expr_error(format!("launch[{i}].entry"), e))?;
            of_launch.push(entries.iter().position(|e| *e == text).unwrap_or(entries.len()));
            if of_launch[i] == entries.len() {
                entries.push(text);
            }
        }
        Ok((entries, of_launch))
    }

    fn integer(&self, place: &str, expr: &Expr, env: &Env) -> Result<i64> {
        expr.eval_int(place, &|n| env.get(n)).map_err(|e| self.expr_error(place.to_owned(), e))
    }

    fn extent(&self, place: String, expr: &Expr, env: &Env) -> Result<u32> {
        let value = self.integer(&place, expr, env)?;
        u32::try_from(value)
            .map_err(|_| self.range_error(place, expr, value, "between 0 and 4294967295", env))
    }

    fn scalar(&self, place: String, ty: ScalarType, expr: &Expr, env: &Env) -> Result<Arg> {
        if matches!(ty, ScalarType::F32 | ScalarType::F64) {
            let value =
                expr.eval(&|n| env.get(n)).map_err(|e| self.expr_error(place.clone(), e))?;
            let single = match value {
                Value::Int(i) => i as f32,
                Value::Float(x) => x as f32,
            };
            return match ty {
                ScalarType::F64 => Ok(Arg::F64(value.as_f64())),
                _ if single.is_finite() => Ok(Arg::F32(single)),
                _ => Err(self.range_error(place, expr, value, "within f32's range", env)),
            };
        }
        let value = self.integer(&place, expr, env)?;
        let (arg, limit) = match ty {
            ScalarType::I32 => (
                i32::try_from(value).ok().map(|v| Arg::Bits32(v.cast_unsigned())),
                "between -2147483648 and 2147483647 for an i32",
            ),
            ScalarType::U32 => {
                (u32::try_from(value).ok().map(Arg::Bits32), "between 0 and 4294967295 for a u32")
            }
            ScalarType::U64 => (u64::try_from(value).ok().map(Arg::Bits64), "at least 0 for a u64"),
            _ => (Some(Arg::Bits64(value.cast_unsigned())), "an i64"),
        };
        arg.ok_or_else(|| self.range_error(place, expr, value, limit, env))
    }

    fn expr_error(&self, place: String, source: ExprError) -> PlanError {
        PlanError::Expr { kernel: self.name.clone(), place, source: Box::new(source) }
    }

    fn range_error(
        &self,
        place: String,
        expr: &Expr,
        value: impl std::fmt::Display,
        limit: &'static str,
        env: &Env,
    ) -> PlanError {
        PlanError::Range {
            kernel: self.name.clone(),
            place,
            expr: one_line(expr.text(), SHOWN_TEXT),
            value: format!("{value}{}", expr.describe_values(&|n| env.get(n))),
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Case, Pointer};
    use std::path::{Path, PathBuf};

    const HEAD: &str = r#"
format = "kernel/1"
name = "two-step"
source = "two.hip"
stage = "decode"
include_dirs = ["include", "../common"]
defines = { TILE = 32, T = "{kv}", WIDE = "={splits * 2}", ALSO = "{head_dim}u" }
[params]
splits = [1, 2]
[scratch]
partial = "f32: batch * num_heads * splits * (head_dim + 2)"
flags = "u8: num_heads - num_kv_heads"
"#;

    const LAUNCHES: &str = r#"
[[launch]]
entry = "ns::part<{kv}, {head_dim}>"
args = ["q", "k", "v", "partial", "null", "u32:seq_len", "i32:-1", "i64:-seq_len", "u64:k_stride_h", "f32:scale", "f64:scale", "f32:head_dim"]
grid = ["num_heads", "splits", "batch"]
block = ["max(64, head_dim)", 1, "1"]
shared_bytes = "4 * head_dim"
[[launch]]
entry = "join"
args = ["partial", "out"]
grid = ["num_heads * (splits - 1)", 1, 1]
block = [64, 1, 1]
[[launch]]
entry = "ns::part<{kv}, 8>"
args = ["flags", "lse"]
grid = [1, 1, 1]
block = [1, 2, 3]
[supports]
dtype = [{ q = "f32", kv = "f16", out = "f32" }]
"#;

    fn manifest(launches: &str) -> Manifest {
        Manifest::parse(&format!("{HEAD}{launches}"), Path::new("dir/two.toml")).unwrap()
    }

    fn env(id: &str) -> Env {
        let case: Case = id.parse().unwrap();
        Env::new(&case, &case.placements().unwrap())
    }

    fn module(entries: usize) -> Module {
        Module::uncompiled(entries, 64)
    }

    const CASE: &str =
        "b=2,hq=4,hkv=2,d=8,n=[3,5],cap=6,dt=f32/f16/f32,scale=0.1,p.splits=2,wave=64";

    #[test]
    fn source_of_a_case_by_hand() {
        let source = manifest(LAUNCHES).source(&env(CASE)).unwrap();
        let text = |s: &str| s.to_owned();
        assert_eq!(
            source,
            Source {
                file: PathBuf::from("dir/two.hip"),
                include_dirs: vec!["dir/include".into(), "dir/../common".into()],
                defines: vec![
                    (text("TILE"), text("32")),
                    (text("T"), text("__half")),
                    (text("WIDE"), text("4")),
                    (text("ALSO"), text("8u")),
                ],
                // The third launch has the first one's entry.
                entries: vec![text("ns::part<__half, 8>"), text("join")],
                wave: 64,
            }
        );
    }

    #[test]
    fn launches_of_a_case_by_hand() {
        let m = manifest(LAUNCHES);
        let address = |arg: &ArgSpec| {
            Ok(Arg::Address(match arg {
                ArgSpec::Pointer(Pointer::Q) => 16,
                ArgSpec::Pointer(Pointer::K) => 32,
                ArgSpec::Pointer(Pointer::V) => 48,
                ArgSpec::Pointer(Pointer::Out) => 64,
                ArgSpec::Scratch(i) => 1000 + i,
                other => {
                    let arg = m.arg_name(other);
                    return Err(PlanError::NoBuffer { kernel: m.name.clone(), arg });
                }
            }))
        };
        let error = m.launches(&env(CASE), &module(2), &address).unwrap_err().to_string();
        assert!(error.contains("argument `lse` has no buffer"), "{error}");

        let address = |arg: &ArgSpec| match arg {
            ArgSpec::Pointer(Pointer::Lse) => Ok(Arg::Address(80)),
            other => address(other),
        };
        let launches = m.launches(&env(CASE), &module(2), &address).unwrap();
        let [first, join, last] = &launches[..] else { panic!("{launches:?}") };
        assert_eq!((first.entry, join.entry, last.entry), (0, 1, 0));
        assert_eq!((first.grid, first.block, first.shared_bytes), ([4, 2, 2], [64, 1, 1], 32));
        assert_eq!(
            first.args,
            [
                Arg::Address(16),
                Arg::Address(32),
                Arg::Address(48),
                Arg::Address(1000),
                Arg::Null,
                Arg::Bits32(5),
                Arg::Bits32(u32::MAX),
                Arg::Bits64(-5i64 as u64),
                Arg::Bits64(48),
                Arg::F32(0.1),
                Arg::F64(0.1f32 as f64),
                Arg::F32(8.0),
            ]
        );
        assert_eq!(join.args, [Arg::Address(1000), Arg::Address(64)]);
        assert_eq!((last.grid, last.block, last.shared_bytes), ([1, 1, 1], [1, 2, 3], 0));
        assert_eq!(last.args, [Arg::Address(1001), Arg::Address(80)]);

        // One split: the join has a zero extent and is not made.
        let one = env(&CASE.replace("splits=2", "splits=1"));
        let launches = m.launches(&one, &module(2), &address).unwrap();
        assert_eq!(launches.iter().map(|l| l.entry).collect::<Vec<_>>(), [0, 0]);

        let error = m.launches(&env(CASE), &module(1), &address).unwrap_err().to_string();
        assert!(error.contains("lacks `join`"), "{error}");
    }

    #[test]
    fn scratch_sizes_are_counted_in_elements() {
        let m = manifest(LAUNCHES);
        let sizes = m.scratch_sizes(&env(CASE)).unwrap();
        let seen: Vec<_> = sizes.iter().map(|s| (s.name.as_str(), s.elements, s.bytes())).collect();
        assert_eq!(seen, [("partial", 2 * 4 * 2 * 10, 640), ("flags", 2, 2)]);
        let mut e = env(CASE);
        e.set("num_kv_heads", Value::Int(9));
        let error = m.scratch_sizes(&e).unwrap_err().to_string();
        assert!(error.contains("scratch.flags"), "{error}");
        assert!(error.contains("is -5 (with num_heads = 4, num_kv_heads = 9)"), "{error}");
        e.set("num_heads", Value::Int(i64::MAX / 90));
        assert!(m.scratch_sizes(&e).is_err());
        e.set("num_heads", Value::Int(i64::MAX / 3));
        let error = m.scratch_sizes(&e).unwrap_err().to_string();
        assert!(error.contains("overflows"), "{error}");
    }

    #[test]
    fn values_out_of_range_name_the_argument_and_the_variables() {
        for (arg, grid, phrase) in [
            (
                "u32:pos - 9",
                "1",
                "launch[0].args[1] (u32:pos - 9) = `pos - 9` is -5 (with pos = 4)",
            ),
            ("u32:seq_len * 1000000000", "1", "between 0 and 4294967295 for a u32"),
            ("i32:seq_len * 1000000000", "1", "for an i32"),
            ("u64:-seq_len", "1", "at least 0 for a u64"),
            ("u32:scale", "1", "takes integers, got the float 0.1"),
            ("f32:1e300", "1", "within f32's range"),
            ("f32:seq_len / (pos - 4)", "1", "divides by zero"),
            ("f32:seq_len / (pos - 4)", "1", "(with seq_len = 5, pos = 4)"),
            ("u32:1", "head_dim / (splits - 2)", "launch[0].grid[1]: expression `head_dim /"),
            ("u32:1", "-batch", "launch[0].grid[1] = `-batch` is -2 (with batch = 2)"),
            ("u32:1", "scale * 2", "`launch[0].grid[1]` takes integers"),
        ] {
            let m = manifest(&format!(
                "[[launch]]\nentry = \"k\"\nargs = [\"out\", \"{arg}\"]\n\
                 grid = [1, \"{grid}\", 1]\nblock = [1, 1, 1]\n"
            ));
            let address = |_: &ArgSpec| Ok(Arg::Address(0));
            let error = m.launches(&env(CASE), &module(1), &address).unwrap_err().to_string();
            assert!(error.starts_with("two-step: launch[0]."), "{error}");
            assert!(error.contains(phrase), "{arg} {grid}: {error}");
        }
    }
}
