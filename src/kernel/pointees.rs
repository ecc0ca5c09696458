//! Whether the pointers that a launch passes point to what its kernel takes.
//!
//! A kernel that reads halves where floats lie computes something, and what it computes tells little of
//! the mistake. The compiler knows the types of a kernel's parameters, the manifest those of its arguments.

use super::args::{ArgSpec, ScratchType};
use super::manifest::Manifest;
use crate::device::signature::{Pointee, Signature, pointee};
use crate::problem::{DType, DTypes, Pointer};

/// What an argument's elements are by the manifest, and what says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Declared {
    is: Pointee,
    by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `dtype` under `[supports]`.
    Supports,
    /// `[scratch]`.
    Scratch,
    /// The format: it is so in every case.
    Format,
}

/// What a stage's tensor holds.
fn of_pointer(pointer: Pointer, dtypes: DTypes) -> Declared {
    use Pointer::*;
    let supports = |dtype| Declared { is: Pointee::Float(dtype), by: By::Supports };
    match pointer {
        Q | NewK | NewV | X | Residual => supports(dtypes.q),
        K | V | WO | Weight => supports(dtypes.kv),
        Out => supports(dtypes.out),
        Lse | Scores | Probs | Sinks | KScale | VScale | PartialOut | PartialLse => {
            Declared { is: Pointee::Float(DType::F32), by: By::Format }
        }
        PageTable | SeqLens | Pos => Declared { is: Pointee::Int(4), by: By::Format },
    }
}

fn of_scratch(scratch: ScratchType) -> Pointee {
    match scratch {
        ScratchType::F64 => Pointee::Float(DType::F64),
        ScratchType::F32 => Pointee::Float(DType::F32),
        ScratchType::F16 => Pointee::Float(DType::F16),
        ScratchType::BF16 => Pointee::Float(DType::BF16),
        integer => Pointee::Int(integer.size() as u8),
    }
}

/// Whether a parameter's pointee says that the elements are other numbers than they are. Bits of any kind
/// may be read as integers, and counters of a kernel's own as whatever it likes.
fn contradicts(param: Pointee, declared: Declared) -> bool {
    match (param, declared) {
        (Pointee::Float(param), Declared { is: Pointee::Float(is), .. }) => param != is,
        (Pointee::Float(_), Declared { by, .. }) => by != By::Scratch,
        (Pointee::Int(8), Declared { is: Pointee::Int(4), by: By::Format }) => true,
        (Pointee::Int(_), _) => false,
    }
}

fn in_words(pointee: Pointee) -> String {
    match pointee {
        Pointee::Float(dtype) => dtype.to_string(),
        Pointee::Int(bytes) => format!("i{}", 8 * u32::from(bytes)),
    }
}

impl Manifest {
    /// Why the arguments of a launch do not fit its kernel's parameters, with every argument that does not
    /// and the mend; `None` where they fit, as far as the compiler tells the types.
    pub(super) fn mistyped(
        &self,
        launch: usize,
        entry: &str,
        signature: &Signature,
        dtypes: DTypes,
    ) -> Option<String> {
        let args = &self.launches[launch].args;
        // Too many or too few are told as that.
        if signature.types.len() != args.len() {
            return None;
        }
        let (mut wrong, mut by) = (Vec::new(), Vec::new());
        for (index, (arg, param)) in args.iter().zip(&signature.types).enumerate() {
            let declared = match arg {
                ArgSpec::Pointer(pointer) => of_pointer(*pointer, dtypes),
                ArgSpec::Scratch(i) => {
                    Declared { is: of_scratch(self.scratch[*i].dtype), by: By::Scratch }
                }
                ArgSpec::Null | ArgSpec::Scalar { .. } => continue,
            };
            if !pointee(param).is_some_and(|pointee| contradicts(pointee, declared)) {
                continue;
            }
            let number = index + 1;
            let says = match declared.by {
                By::Supports => format!("by the manifest (dtype {dtypes})"),
                By::Scratch => "by the manifest's [scratch]".to_owned(),
                By::Format => "in every case".to_owned(),
            };
            let name = self.arg_name(arg);
            wrong.push(format!(
                "argument {number} `{name}` is {} {says}, but parameter {number} of `{entry}` is `{param}`",
                in_words(declared.is)
            ));
            by.push(declared.by);
        }
        let mends =
            [(By::Supports, "`dtype` under [supports]"), (By::Scratch, "the type under [scratch]")];
        let mends = mends.iter().filter(|(own, _)| by.contains(own)).map(|(_, mend)| *mend);
        let mends: Vec<&str> = mends.chain(["the entry", "the parameter's type"]).collect();
        let (last, first) = mends.split_last()?;
        let file = self.code.path().file_name()?.to_string_lossy();
        let lacks = signature.lacks.map_or(String::new(), |header| {
            format!(" ({file} does not include <{header}> either, whose type the entry names)")
        });
        (!wrong.is_empty())
            .then(|| format!("{}; mend {} or {last}{lacks}", wrong.join("; "), first.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const MANIFEST: &str = r#"
format = "kernel/1"
name = "t"
source = "t.hip"
stage = "decode"
[scratch]
part = "f16: batch"
count = "u8: batch"
[[launch]]
entry = "k"
args = ["q", "k", "out", "lse", "seq_lens", "part", "count", "i32:batch", "null"]
grid = [1, 1, 1]
block = [1, 1, 1]
[supports]
dtype = [{ q = "f32", kv = "f16", out = "bf16" }]
"#;

    fn say(types: &str) -> Option<String> {
        let manifest = Manifest::parse(MANIFEST, Path::new("dir/t.toml")).unwrap();
        let types = types.split(", ").map(str::to_owned).collect();
        let signature = Signature { types, ..Signature::default() };
        manifest.mistyped(0, "k", &signature, manifest.supports.dtypes[0])
    }

    #[test]
    fn types_that_agree_and_raw_bits_are_taken() {
        for types in [
            "const float*, const __half*, __hip_bfloat16*, float*, const int*, __half*, unsigned char*, int, float*",
            "const float4*, const __half2*, __hip_bfloat162*, float2*, const int4*, __half2*, float*, int, void*",
            "const void*, const short unsigned int*, uint4*, char*, const unsigned char*, double, int*, int, T*",
            "my::Row*, const unsigned int*, unsigned char*, int*, const unsigned int*, uint2*, long*, int, int*",
            // Another number of them is another message.
            "const __half*, const float*",
        ] {
            assert_eq!(say(types), None, "{types}");
        }
    }

    #[test]
    fn a_contradiction_names_argument_parameter_entry_and_mend() {
        let right = [
            "const float*",
            "const __half*",
            "__hip_bfloat16*",
            "float*",
            "const int*",
            "__half*",
            "char*",
            "int",
            "float*",
        ];
        for (at, param, words) in [
            (
                0,
                "const __half*",
                "argument 1 `q` is f32 by the manifest (dtype f32/f16/bf16), but parameter 1 of `k` is \
                 `const __half*`; mend `dtype` under [supports], the entry or the parameter's type",
            ),
            (1, "const float4*", "argument 2 `k` is f16 by the manifest (dtype f32/f16/bf16), but"),
            (1, "const __hip_bfloat162*", "`k` is f16 by the manifest"),
            (2, "__half*", "`out` is bf16 by the manifest"),
            (
                3,
                "double*",
                "argument 4 `lse` is f32 in every case, but parameter 4 of `k` is `double*`; mend the \
                 entry or the parameter's type",
            ),
            (4, "const long int*", "`seq_lens` is i32 in every case"),
            (4, "const float*", "`seq_lens` is i32 in every case"),
            (
                5,
                "float*",
                "`part` is f16 by the manifest's [scratch], but parameter 6 of `k` is `float*`; mend the \
                 type under [scratch], the entry or",
            ),
        ] {
            let mut types = right;
            types[at] = param;
            let message = say(&types.join(", ")).unwrap_or_default();
            assert!(message.contains(words), "{param}: {message}");
        }
        let both =
            "const __half*, const __half*, float*, float*, int*, __half*, char*, int, float*";
        let both = say(both).unwrap();
        assert!(
            both.contains("`q` is f32") && both.contains("; argument 3 `out` is bf16"),
            "{both}"
        );
    }
}
