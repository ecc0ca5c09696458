//! The names of the data regimes. What each one generates is in [`crate::data`].
//!
//! Gaussian data hides indexing faults under averaging, so a sweep draws among regimes, each of
//! which makes one class of faults loud.

use super::text::{clip, sanitise};
use std::fmt;
use std::str::FromStr;

/// Which key a one-hot query is aligned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HotKey {
    /// The first attended key.
    First,
    /// The last attended key.
    Last,
    /// The key just before the first attended one (it must have no effect); where the window
    /// leaves none out, the first attended key.
    Outside,
    /// The last key of a tile of 16, 32, 64 or 128 keys, or the first of the next.
    Tile,
    /// Any attended key.
    Any,
}

/// How large scores are laid out over the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LargeScores {
    /// Scores of ±80: `exp` without a subtracted maximum overflows f32 or nearly so.
    E80,
    /// Scores of ±1e3.
    E1000,
    /// Scores of ±3e4: beyond a finite mask sentinel of -1e4, and near f16's largest number.
    E30000,
    /// Every score between -3e4 and -1e4: a sentinel or a zero-initialised maximum wins over all.
    Negative,
    /// A spread over 90 with the largest score in a chosen quarter of a tile.
    Spread,
}

/// A data regime: how q, k and v are filled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Regime {
    /// Gaussian, unit variance, scores with a standard deviation of 2 to 4.
    Gaussian,
    /// The query is aligned with one key: its weight is nearly 1.
    OneHot(HotKey),
    /// V holds an exact small code of (token, head, element): the output names what was read.
    IndexCoded,
    /// V is one constant per sequence and head: lost or doubled softmax mass shows.
    ConstantV,
    /// All scores are equal: dropped or repeated keys show.
    EqualScores,
    /// Large scores.
    Large(LargeScores),
    /// Magnitudes spread over many binades.
    Wide,
    /// V in the subnormal range of its type.
    Subnormal,
    /// A NaN or an infinity in an attended row: it must show, where it must and nowhere else.
    NonFinite,
    /// A captured slice, by name; sequences shorter than it are re-cut from it.
    Slice(String),
}

impl Regime {
    /// Every synthetic regime.
    pub fn synthetic() -> Vec<Regime> {
        use Regime::*;
        let mut all =
            vec![Gaussian, IndexCoded, ConstantV, EqualScores, Wide, Subnormal, NonFinite];
        all.extend(
            [HotKey::First, HotKey::Last, HotKey::Outside, HotKey::Tile, HotKey::Any].map(OneHot),
        );
        all.extend(
            [
                LargeScores::E80,
                LargeScores::E1000,
                LargeScores::E30000,
                LargeScores::Negative,
                LargeScores::Spread,
            ]
            .map(Large),
        );
        all
    }

    /// The family's name, as `--regime` takes it and as the histogram counts it.
    pub fn family(&self) -> &'static str {
        match self {
            Regime::Gaussian => "gauss",
            Regime::OneHot(_) => "onehot",
            Regime::IndexCoded => "coded",
            Regime::ConstantV => "constv",
            Regime::EqualScores => "equal",
            Regime::Large(_) => "large",
            Regime::Wide => "wide",
            Regime::Subnormal => "subnormal",
            Regime::NonFinite => "nonfinite",
            Regime::Slice(_) => "slice",
        }
    }

    /// The families' names, for messages.
    pub const FAMILIES: [&'static str; 10] = [
        "gauss",
        "onehot",
        "coded",
        "constv",
        "equal",
        "large",
        "wide",
        "subnormal",
        "nonfinite",
        "slice",
    ];
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = match self {
            Regime::OneHot(k) => match k {
                HotKey::First => "first",
                HotKey::Last => "last",
                HotKey::Outside => "outside",
                HotKey::Tile => "tile",
                HotKey::Any => "any",
            },
            Regime::Large(l) => match l {
                LargeScores::E80 => "80",
                LargeScores::E1000 => "1e3",
                LargeScores::E30000 => "3e4",
                LargeScores::Negative => "negative",
                LargeScores::Spread => "spread",
            },
            Regime::Slice(name) => name,
            _ => return f.write_str(self.family()),
        };
        write!(f, "{}:{detail}", self.family())
    }
}

/// A data regime that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown data regime `{0}`: use one of {list}, or slice:NAME (without , = [ ] and spaces)", list = synthetic_names())]
pub struct UnknownRegime(pub String);

fn synthetic_names() -> String {
    Regime::synthetic().iter().map(Regime::to_string).collect::<Vec<_>>().join(", ")
}

impl FromStr for Regime {
    type Err = UnknownRegime;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        // Any other name would end its field of an id too early, and the id be another case's.
        if let Some(name) = s.strip_prefix("slice:").filter(|n| sanitise(n) == **n) {
            return Ok(Regime::Slice(name.to_owned()));
        }
        Regime::synthetic()
            .into_iter()
            .find(|r| r.to_string() == s)
            .ok_or_else(|| UnknownRegime(clip(s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_families_are_complete() {
        for r in Regime::synthetic().into_iter().chain([Regime::Slice("p4".into())]) {
            assert_eq!(r.to_string().parse::<Regime>(), Ok(r.clone()));
            assert!(Regime::FAMILIES.contains(&r.family()));
        }
        for name in ["", "a,b", "a[", "a]", "a=b", "a b", "a\n"] {
            let text = format!("slice:{name}").parse::<Regime>().unwrap_err().to_string();
            assert!(text.contains("slice:NAME (without") && text.lines().count() == 1, "{text}");
        }
    }
}
