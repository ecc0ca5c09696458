//! What `__launch_bounds__` says of each entry, evaluated by the compiler.
//!
//! A host's compiler has no such attribute. The source is preprocessed with the word left as it is, its
//! kernels are found by their declarations, and each one's bound becomes the value of a constant beside
//! it: in the same namespace and under the same template, so that every name in it means the same.

use std::fmt::Write as _;

use super::super::declared::{self, Declared};

/// The word that a source must have for any of this.
pub(super) const WORD: &[u8] = b"__launch_bounds__";

/// What the file names of the constants' lines start with.
pub(super) const FILE: &str = "attnbench-bounds-";

/// The constants of the entries that have bounds, for the end of the translation unit. `text` is the
/// preprocessed source.
pub(super) fn constants(text: &str, entries: &[String]) -> String {
    let kernels = declared::kernels(text);
    let mut constants = String::new();
    for (index, entry) in entries.iter().enumerate() {
        let _ = constant(&mut constants, &kernels, index, entry);
    }
    constants
}

/// Writes the constant of one entry; `None` where it has no bounds.
fn constant(out: &mut String, kernels: &[Declared], index: usize, entry: &str) -> Option<()> {
    let entry = entry.trim().trim_start_matches("::");
    let (name, arguments) = entry.split_at(entry.find('<').unwrap_or(entry.len()));
    let name = name.trim();
    let is_template = !arguments.is_empty();
    let named = |kernel: &&Declared| {
        let path = kernel.path();
        path == name || path.ends_with(&format!("::{name}"))
    };
    let fits = |kernel: &&Declared| named(kernel) && kernel.template.is_empty() != is_template;
    // The path as it is written comes before one that ends so.
    let mut found: Vec<&Declared> = kernels.iter().filter(fits).collect();
    if found.iter().any(|kernel| kernel.path() == name) {
        found.retain(|kernel| kernel.path() == name);
    }
    let namespaces = &found.first()?.namespaces;
    found.retain(|kernel| kernel.namespaces == *namespaces);
    found.iter().find(|kernel| kernel.bounds.is_some())?;

    let _ = writeln!(out, "#line 1 \"{FILE}{index}\"");
    namespaces.iter().for_each(|name| *out += &format!("namespace {name} {{ "));
    let mut write = |kernel: &Declared| {
        let Declared { template, arguments, bounds, .. } = kernel;
        let value = bounds.as_deref().unwrap_or("0");
        let _ = write!(
            out,
            "{template} struct attnbench_bounds_of_{index}{arguments} {{ static constexpr unsigned value = \
             (unsigned)({value}); }}; "
        );
    };
    if let Some(primary) = last(found.iter().copied().filter(|kernel| kernel.arguments.is_empty()))
    {
        write(primary);
    }
    let mut seen: Vec<&str> = Vec::new();
    for special in found.iter().filter(|kernel| !kernel.arguments.is_empty()) {
        if !seen.contains(&special.arguments.as_str()) {
            seen.push(&special.arguments);
            let same = |kernel: &&Declared| kernel.arguments == special.arguments;
            write(last(found.iter().copied().filter(same)).unwrap_or(special));
        }
    }
    namespaces.iter().for_each(|_| *out += "} ");
    let path: String =
        namespaces.iter().filter(|name| !name.is_empty()).map(|name| format!("{name}::")).collect();
    let _ = writeln!(
        out,
        "\nATTNBENCH_BOUNDS({index}, ::{path}attnbench_bounds_of_{index}{arguments}::value)"
    );
    Some(())
}

/// The last declaration of one kernel that has bounds: one before the definition may say nothing of them.
fn last<'a>(kernels: impl Iterator<Item = &'a Declared>) -> Option<&'a Declared> {
    kernels.reduce(|before, kernel| match (&before.bounds, &kernel.bounds) {
        (Some(_), None) => before,
        _ => kernel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stands_where_its_kernel_does() {
        let text = "namespace a { namespace { template <int N> __global__ void k(int *);\n\
                    template <int N> __global__ void __launch_bounds__(N * 2, 1) k(int *p) { }\n\
                    template <> __global__ void __launch_bounds__(64) k<3>(int *p) { }\n\
                    __global__ void __launch_bounds__(W) plain() {} } }\n__global__ void none() {}";
        let entries = ["a::k<4>", "plain", "none", "a::other"].map(str::to_owned);
        let value = "static constexpr unsigned value = (unsigned)";
        assert_eq!(
            constants(text, &entries),
            format!(
                "#line 1 \"attnbench-bounds-0\"\nnamespace a {{ namespace  {{ template <int N> struct \
                 attnbench_bounds_of_0 {{ {value}(N * 2); }}; template <> struct \
                 attnbench_bounds_of_0<3> {{ {value}(64); }}; }} }} \n\
                 ATTNBENCH_BOUNDS(0, ::a::attnbench_bounds_of_0<4>::value)\n\
                 #line 1 \"attnbench-bounds-1\"\nnamespace a {{ namespace  {{  struct \
                 attnbench_bounds_of_1 {{ {value}(W); }}; }} }} \n\
                 ATTNBENCH_BOUNDS(1, ::a::attnbench_bounds_of_1::value)\n"
            )
        );
    }
}
