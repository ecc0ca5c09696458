//! Which part of what a manifest claims this program drives.

use super::manifest::Manifest;
use crate::problem::{DType, DTypes, Layout};

/// The part of a manifest that this program drives, and what it leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Driven {
    /// The manifest without what is not driven.
    pub manifest: Manifest,
    /// What it claims besides: each claim once.
    pub not_driven: Vec<Claim>,
}

/// Something that a manifest claims and this program does not drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A type of `q`, `kv` or `out`.
    Type(&'static str, DType),
    /// A layout of `k` or `v`.
    Layout(&'static str, Layout),
}

impl Claim {
    /// The axis that it is on, as a sweep counts it.
    pub fn axis(&self) -> &'static str {
        match self {
            Claim::Type(..) => "dtype",
            Claim::Layout(..) => "layout",
        }
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Claim::Type(tensor, dtype) => write!(f, "{tensor} = {dtype}"),
            Claim::Layout(tensor, layout) => write!(f, "layout {tensor} {layout}"),
        }
    }
}

/// A manifest of which nothing is driven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file}: nothing of what it supports is driven yet (dtypes {dtypes}; layouts k {k}, v {v}): f32, f16 and \
     bf16 are, and plain layouts over S L H N D"
)]
pub struct NothingDriven {
    file: String,
    dtypes: String,
    k: String,
    v: String,
}

impl Manifest {
    /// The part of it that this program drives, and the claims that are left: a sweep that passes says nothing
    /// of those.
    ///
    /// # Errors
    /// [`NothingDriven`].
    pub fn driven(&self) -> Result<Driven, NothingDriven> {
        let mut manifest = self.clone();
        let mut not_driven = Vec::new();
        let mut leave = |claim: Claim| {
            if !not_driven.contains(&claim) {
                not_driven.push(claim);
            }
        };
        manifest.supports.dtypes.retain(|d| {
            let types = [("q", d.q), ("kv", d.kv), ("out", d.out)];
            let others = types.into_iter().filter(|(_, dtype)| !dtype.is_driven());
            others.clone().for_each(|(tensor, dtype)| leave(Claim::Type(tensor, dtype)));
            others.count() == 0
        });
        for (tensor, layouts) in [("k", &mut manifest.layouts.k), ("v", &mut manifest.layouts.v)] {
            layouts.retain(|layout| {
                let is_driven = layout.axes().is_ok();
                if !is_driven {
                    leave(Claim::Layout(tensor, layout.clone()));
                }
                is_driven
            });
        }
        let layouts = &manifest.layouts;
        if manifest.supports.dtypes.is_empty() || layouts.k.is_empty() || layouts.v.is_empty() {
            let words = |layouts: &[Layout]| {
                layouts.iter().map(Layout::to_string).collect::<Vec<_>>().join(", ")
            };
            let dtypes: Vec<String> = self.supports.dtypes.iter().map(DTypes::to_string).collect();
            return Err(NothingDriven {
                file: self.file.display().to_string(),
                dtypes: dtypes.join(", "),
                k: words(&self.layouts.k),
                v: words(&self.layouts.v),
            });
        }
        Ok(Driven { manifest, not_driven })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn manifest(tail: &str) -> Manifest {
        let text = format!(
            "format = \"kernel/1\"\nname = \"t\"\nsource = \"t.hip\"\nstage = \"decode\"\n\
             [[launch]]\nentry = \"t\"\nargs = [\"q\", \"k\", \"v\", \"out\"]\ngrid = [1, 1, 1]\n\
             block = [1, 1, 1]\n{tail}"
        );
        Manifest::parse(&text, Path::new("t.toml")).unwrap()
    }

    #[test]
    fn what_is_left_is_named_once_and_the_rest_stays() {
        let m = manifest(
            "[layout]\nk = [\"HND\", \"PHTD\"]\nv = [\"HND\", \"PHTDt\"]\n[supports]\ndtype = [\
             { q = \"f16\", kv = \"f8_e4m3\", out = \"f16\" }, { q = \"f16\", kv = \"f16\", out = \"f16\" }, \
             { q = \"bf16\", kv = \"f8_e4m3\", out = \"bf16\" }]",
        );
        let driven = m.driven().unwrap();
        let words: Vec<String> = driven.not_driven.iter().map(Claim::to_string).collect();
        assert_eq!(words, ["kv = f8_e4m3", "layout k PHTD", "layout v PHTDt"]);
        let manifest = driven.manifest;
        assert_eq!(manifest.supports.dtypes, [DTypes::uniform(DType::F16)]);
        assert_eq!((manifest.layouts.k.len(), manifest.layouts.v.len()), (1, 1));
        // What is driven whole is left as it is.
        let driven = manifest.driven().unwrap();
        assert_eq!((driven.manifest, driven.not_driven), (manifest, Vec::new()));
    }

    #[test]
    fn a_manifest_without_anything_driven_is_refused() {
        let error = manifest("[layout]\nv = [\"PHTD\"]").driven().unwrap_err().to_string();
        assert!(error.contains("nothing of what it supports is driven yet"), "{error}");
        assert!(error.contains("layouts k HND, v PHTD"), "{error}");
    }
}
