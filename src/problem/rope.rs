//! Rotary position embedding, as a case asks for it.

use super::names::named;
use std::fmt;
use std::str::FromStr;

named! {
    /// Which elements of a head vector are rotated together.
    RopeStyle, "RoPE style", {
        /// i and i + head_dim / 2 (GPT-NeoX, Hugging Face transformers).
        Half = "half",
        /// 2i and 2i + 1 (RoFormer, arXiv:2104.09864, equation 34; GPT-J, llama.cpp's NORM).
        Interleaved = "interleaved",
    }
}

/// Rotary position embedding: pair i is rotated by `pos * base^(-2i / head_dim)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Which elements are a pair.
    pub style: RopeStyle,
    /// The base of the frequencies, usually 10000; more than 1.
    pub base: f32,
}

impl Rope {
    /// The two elements of pair `i` of a head vector.
    pub fn pair(&self, i: usize, head_dim: usize) -> (usize, usize) {
        match self.style {
            RopeStyle::Half => (i, i + head_dim / 2),
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
        }
    }
}

impl fmt::Display for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.style, self.base)
    }
}

impl FromStr for Rope {
    type Err = String;

    /// Reads `STYLE:BASE`, such as `half:10000`.
    fn from_str(s: &str) -> Result<Self, String> {
        let (style, base) = s.split_once(':').unwrap_or((s, "10000"));
        let style = style.parse().map_err(|e: super::UnknownName| e.to_string())?;
        match base.parse::<f32>() {
            Ok(base) if base > 1.0 && base.is_finite() => Ok(Rope { style, base }),
            _ => Err(format!("the base `{base}` of RoPE must be a number above 1, such as 10000")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_in_one_pair() {
        for style in RopeStyle::ALL {
            let rope = Rope { style: *style, base: 10000.0 };
            let mut seen = vec![0; 12];
            for i in 0..6 {
                let (a, b) = rope.pair(i, 12);
                seen[a] += 1;
                seen[b] += 1;
            }
            assert_eq!(seen, vec![1; 12], "{style}");
        }
        let rope: Rope = "interleaved:500000".parse().unwrap();
        assert_eq!((rope.pair(2, 8), rope.to_string().as_str()), ((4, 5), "interleaved:500000"));
    }

    #[test]
    fn mistakes_say_what_and_how_to_mend_it() {
        for (text, says) in
            [("neox:1e4", "(known: half"), ("half:1", "above 1"), ("half:x", "above 1")]
        {
            let message = text.parse::<Rope>().unwrap_err();
            assert!(message.contains(says), "{message}");
        }
    }
}
