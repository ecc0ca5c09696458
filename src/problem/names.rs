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
#[error("unknown {what} `{name}`{} (known: {known})", did_you_mean(nearest))]
pub struct UnknownName {
    /// What it should be.
    pub what: &'static str,
    /// What was written.
    pub name: String,
    /// A known one that is close to it.
    pub nearest: Option<String>,
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
            nearest: nearest(name, known.iter().copied()),
            known: known.join(", "),
        }
    }
}

/// The known name that `name` is a slip of: the one at the smallest edit distance (a transposition counts
/// as one edit), if that is at most a third of the letters of `name`, or one. `None` where no known name
/// is that close: a suggestion that has nothing to do with what was meant costs more than none.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // why: a distance takes time and memory by both lengths, and no known name is this long.
    let name = &clip(name);
    let letters = name.chars().count();
    let edits = |known: &str| strsim::damerau_levenshtein(name, known);
    let close = |edits: usize, known: &str| {
        // All letters replaced is another name, however short both are.
        edits <= (letters / 3).max(1) && edits < letters.max(known.chars().count())
    };
    known
        .into_iter()
        .map(|known| (edits(known), known))
        .filter(|(edits, known)| close(*edits, known))
        .min_by_key(|(edits, known)| (*edits, known.len()))
        .map(|(_, known)| known.to_owned())
}

/// `; did you mean \`norm\`?` for a name that [`nearest`] found, nothing otherwise.
pub(crate) fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_close_name_is_suggested() {
        let known = ["head_dim", "head_dim_v", "x", "min", "batch", "num_heads"];
        for (written, meant) in [
            ("headdim", "head_dim"),
            ("head_dmi", "head_dim"),
            ("haed_dim", "head_dim"),
            ("mim", "min"),
            ("xx", "x"),
            ("bacth", "batch"),
            ("numm_headz", "num_heads"),
        ] {
            assert_eq!(nearest(written, known).as_deref(), Some(meant), "{written}");
        }
        for written in ["hd", "y", "", "kv_len", "softmax_scale", "n", "max_seqlen", "mat"] {
            assert_eq!(nearest(written, known), None, "{written}");
        }
        assert_eq!(did_you_mean(&None), "");
    }
}
