//! Enums whose variants have a name in files and ids, and words that are none of the known ones.

use super::clip;

/// Defines an enum with the name of each variant, in the manifest's spelling.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The name in manifests.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::problem::UnknownName;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                $name::ALL.iter().copied().find(|x| x.name() == s).ok_or_else(|| {
                    $crate::problem::UnknownName::new($what, s, $name::ALL.iter().map(|x| x.name()))
                })
            }
        }
    };
}
pub(crate) use named;

/// A word that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{name}`; did you mean `{nearest}`? (known: {known})")]
pub struct UnknownName {
    /// What it should be.
    pub what: &'static str,
    /// What was written.
    pub name: String,
    /// The nearest known one.
    pub nearest: String,
    /// All of them.
    pub known: String,
}

impl UnknownName {
    pub(crate) fn new<'a>(
        what: &'static str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> UnknownName {
        let known: Vec<&str> = known.collect();
        UnknownName {
            what,
            name: clip(name),
            nearest: nearest(name, known.iter().copied()).to_owned(),
            known: known.join(", "),
        }
    }
}

/// The nearest of `known` to `name`, for messages.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> &'a str {
    // why: a distance takes time and memory by both lengths, and no known name is this long.
    let name = &clip(name);
    known
        .into_iter()
        .min_by_key(|k| (strsim::damerau_levenshtein(name, k), k.len()))
        .unwrap_or_default()
}
