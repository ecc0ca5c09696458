//! What a compiled kernel says of itself besides the sizes of its parameters: their types as the
//! compiler writes them, and the largest block that it is made for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::problem::DType;

/// Types and limits of one entry, as far as its binary tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// The type of each parameter, such as `const __half*`; empty where the binary does not say.
    pub types: Vec<String>,
    /// The most threads of a block, by `__launch_bounds__`; `None` without it.
    pub most_threads: Option<u32>,
    /// A header of HIP that declares a type which the entry names, where the source does not include it.
    #[serde(skip)]
    pub lacks: Option<&'static str>,
}

/// What a pointer points to, where its type says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointee {
    /// Numbers of a floating-point type, alone or in HIP's vectors.
    Float(DType),
    /// Integers of so many bytes, alone or in HIP's vectors.
    Int(u8),
}

/// Types that an entry may name, and the header of HIP that declares each.
const HEADERS: [(&str, &str); 6] = [
    ("__half", "hip/hip_fp16.h"),
    ("half", "hip/hip_fp16.h"),
    ("__half2", "hip/hip_fp16.h"),
    ("__hip_bfloat16", "hip/hip_bf16.h"),
    ("__hip_bfloat162", "hip/hip_bf16.h"),
    ("hip_bfloat16", "hip/hip_bfloat16.h"),
];

/// The header of HIP that declares a type.
pub(crate) fn header_of(name: &str) -> Option<&'static str> {
    HEADERS.iter().find(|(own, _)| *own == name).map(|(_, header)| *header)
}

/// The headers of the types that entries name. The translation unit that makes an instance includes
/// them, as the host's code does that launches one: a template need not know the types that it is for.
pub(crate) fn headers_of(entries: &[String]) -> Vec<&'static str> {
    let mut headers: Vec<&str> = entries.iter().filter_map(|entry| header_in(entry)).collect();
    headers.sort_unstable();
    headers.dedup();
    headers
}

fn header_in(entry: &str) -> Option<&'static str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    entry.split(|c| !is_part(c)).find_map(header_of)
}

/// [`Signature::lacks`] of an entry, from the texts of the source and of what it includes.
pub(crate) fn lacks(entry: &str, files: &[(PathBuf, Vec<u8>)]) -> Option<&'static str> {
    let header = header_in(entry)?;
    let includes = |text: &[u8]| String::from_utf8_lossy(text).contains(header);
    (!files.iter().any(|(_, text)| includes(text))).then_some(header)
}

/// The types that a compiler lists in the name of a function template over them:
/// `f() [with P = {int, float*}]` (g++), `f() [P = <int, float *>]` (clang),
/// `f() [with P = int, P = float *]` (NVRTC). Empty where it is none of these.
pub(super) fn types_in(text: &str) -> Vec<String> {
    let list = text.split_once("P = ").and_then(|(_, list)| list.trim_end().strip_suffix(']'));
    let Some(list) = list else { return Vec::new() };
    let bare = [('{', '}'), ('<', '>')].into_iter().find_map(|(open, close)| {
        list.strip_prefix(open).and_then(|list| list.strip_suffix(close))
    });
    let (mut types, mut depth, mut start) = (Vec::new(), 0, 0);
    let list = bare.unwrap_or(list);
    for (at, c) in list.char_indices() {
        match c {
            '<' | '(' | '{' | '[' => depth += 1,
            '>' | ')' | '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                types.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    types.push(&list[start..]);
    types.retain(|text| !text.trim().is_empty());
    let plain = |text: &str| {
        let text = text.trim();
        text.strip_prefix("P = ").unwrap_or(text).replace(" *", "*").replace(" &", "&")
    };
    types.into_iter().map(plain).collect()
}

/// What a pointer of this type points to; `None` for what is no pointer, for `void`, for bytes, for
/// structs of the user's, and for whatever is not known.
pub fn pointee(type_name: &str) -> Option<Pointee> {
    let target = type_name.trim().strip_suffix('*')?.trim();
    let words: Vec<&str> = target
        .split(|c: char| c.is_whitespace())
        .filter(|word| !matches!(*word, "const" | "volatile" | "struct" | "__restrict" | ""))
        .collect();
    let name = words.join(" ");
    // `HIP_vector_type<float, 4>`, and the compilers' own vectors.
    let name = name
        .strip_prefix("HIP_vector_type<")
        .map_or(name.as_str(), |rest| rest.split(',').next().unwrap_or(rest).trim());
    let name = match name.split_once(") ") {
        Some((vector, element)) if vector.starts_with("__vector(") => element,
        Some((vector, element)) if vector.starts_with("__attribute__((__vector_size__(") => element,
        _ => name,
    };
    let float = |dtype| Some(Pointee::Float(dtype));
    match name {
        "__half" | "__half2" | "__half_raw" | "__half2_raw" | "_Float16" | "__fp16" => {
            return float(DType::F16);
        }
        "__hip_bfloat16"
        | "__hip_bfloat162"
        | "__hip_bfloat16_raw"
        | "__hip_bfloat162_raw"
        | "__nv_bfloat16"
        | "__nv_bfloat162"
        | "hip_bfloat16"
        | "__bf16" => {
            return float(DType::BF16);
        }
        _ => {}
    }
    // float, float1 … float4.
    let plain = match name.strip_suffix(['1', '2', '3', '4']) {
        Some(plain) if !plain.ends_with(|c: char| c.is_ascii_digit()) => plain,
        _ => name,
    };
    let integer = plain.replace("unsigned", "").replace("signed", "");
    match integer.split_whitespace().collect::<Vec<_>>().join(" ").as_str() {
        "float" => float(DType::F32),
        "double" => float(DType::F64),
        "short" | "short int" | "ushort" => Some(Pointee::Int(2)),
        "int" | "uint" => Some(Pointee::Int(4)),
        "" if plain.contains("signed") => Some(Pointee::Int(4)),
        "long" | "long int" | "long long" | "long long int" | "ulong" | "longlong"
        | "ulonglong" => Some(Pointee::Int(8)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_of_every_compiler_are_read_alike() {
        let want = ["const __half*", "HIP_vector_type<float, 4>*", "long long", "float* const*"];
        for text in [
            "constexpr const char* f() [with P = {const __half*, HIP_vector_type<float, 4>*, long long, \
             float* const*}]",
            "const char *f() [P = <const __half *, HIP_vector_type<float, 4> *, long long, float *const *>]",
            "const char *f() [with P = const __half *, P = HIP_vector_type<float, 4> *, P = long long, \
             P = float *const *]",
        ] {
            let found = types_in(text);
            assert_eq!(found[..3], want[..3], "{text}");
            assert_eq!(found[3].replace(' ', ""), want[3].replace(' ', ""), "{text}");
        }
        for nothing in ["f() [with P = {}]", "f() [P = <>]", "f()", ""] {
            assert!(types_in(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn what_a_pointer_points_to_is_told_by_its_type() {
        let float = |dtype| Some(Pointee::Float(dtype));
        for (name, want) in [
            ("const float*", float(DType::F32)),
            ("float4*", float(DType::F32)),
            ("const HIP_vector_type<float, 4u>*", float(DType::F32)),
            ("__vector(4) float*", float(DType::F32)),
            ("__attribute__((__vector_size__(8 * sizeof(_Float16)))) _Float16*", float(DType::F16)),
            ("double2*", float(DType::F64)),
            ("const volatile __half2*", float(DType::F16)),
            ("__hip_bfloat162*", float(DType::BF16)),
            ("__nv_bfloat16*", float(DType::BF16)),
            ("const short unsigned int*", Some(Pointee::Int(2))),
            ("unsigned int*", Some(Pointee::Int(4))),
            ("unsigned*", Some(Pointee::Int(4))),
            ("uint4*", Some(Pointee::Int(4))),
            ("const long long unsigned int*", Some(Pointee::Int(8))),
            ("longlong2*", Some(Pointee::Int(8))),
            ("const void*", None),
            ("char*", None),
            ("unsigned char*", None),
            ("uchar4*", None),
            ("ns::float4*", None),
            ("my_half*", None),
            ("const float**", None),
            ("float", None),
            ("", None),
        ] {
            assert_eq!(pointee(name), want, "{name}");
        }
    }

    #[test]
    fn the_headers_of_an_entry_are_those_of_the_types_that_it_names() {
        let entries =
            ["k<__half, 4>", "k<float>", "n::k<__hip_bfloat16, __half2>"].map(str::to_owned);
        assert_eq!(headers_of(&entries), ["hip/hip_bf16.h", "hip/hip_fp16.h"]);
        assert!(headers_of(&["half_decode<float>".to_owned()]).is_empty());
        let file = |text: &str| vec![(PathBuf::from("k.hip"), text.as_bytes().to_vec())];
        assert_eq!(lacks("k<__half>", &file("#include <hip/hip_fp16.h>")), None);
        assert_eq!(
            lacks("k<__half>", &file("#include <hip/hip_runtime.h>")),
            Some("hip/hip_fp16.h")
        );
        assert_eq!(lacks("k<float>", &file("")), None);
    }
}
