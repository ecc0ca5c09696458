//! Layout strings, strides, and the address of every element.
//!
//! A layout string names a buffer's axes from the outermost to the innermost (`HND`, `SNHD`,
//! `PHTDt`). A [`Placement`] is a layout with extents, strides and a base offset: it answers where
//! element (s, l, h, n, d) lies. All arithmetic is checked once, when a placement is made: the
//! largest address fits, and no two elements share one. After that [`Placement::index`] is cheap.

use super::text::clip;
use std::fmt;
use std::str::FromStr;

/// A plain axis of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Axis {
    /// `S`: sequence of the batch.
    Seq = 0,
    /// `L`: layer.
    Layer = 1,
    /// `H`: head (a KV head in K and V, a query head in q and out).
    Head = 2,
    /// `N`: token, `capacity` rows.
    Token = 3,
    /// `D`: element of the head vector.
    Dim = 4,
}

impl Axis {
    /// Every plain axis, in the order of the coordinates that [`Placement::index`] takes.
    pub const ALL: [Axis; 5] = [Axis::Seq, Axis::Layer, Axis::Head, Axis::Token, Axis::Dim];

    /// The letter in layout strings.
    pub fn letter(self) -> char {
        ['S', 'L', 'H', 'N', 'D'][self as usize]
    }

    /// The axis in words, as messages name a place.
    pub fn word(self) -> &'static str {
        ["sequence", "layer", "head", "token", "element"][self as usize]
    }

    /// The axis of a letter, if it is a plain one.
    pub fn from_letter(c: char) -> Option<Axis> {
        Axis::ALL.into_iter().find(|a| a.letter() == c)
    }
}

/// Why a layout, a set of strides or a placement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A letter that is no axis.
    #[error(
        "layout `{layout}`: `{}` is no axis; use S L H N D, P T for pages, or a lower-case inner part",
        letter.escape_debug()
    )]
    Letter {
        /// The layout as written.
        layout: String,
        /// The letter.
        letter: char,
    },
    /// An axis twice, or one missing.
    #[error("layout `{layout}`: {what}")]
    Axes {
        /// The layout as written.
        layout: String,
        /// What is wrong with its axes.
        what: String,
    },
    /// A layout that is parsed, but not driven yet.
    #[error("layout `{layout}` is {kind}: parsed, but not driven yet (use one over S L H N D)")]
    NotYet {
        /// The layout as written.
        layout: String,
        /// `paged` or `split by an inner axis`.
        kind: &'static str,
    },
    /// A wrong number of strides or pads.
    #[error("layout `{layout}` has {want} axes, but {got} {what} were given")]
    Count {
        /// The layout.
        layout: String,
        /// `strides` or `pads`.
        what: &'static str,
        /// How many the layout takes.
        want: usize,
        /// How many there were.
        got: usize,
    },
    /// Two elements at one address.
    #[error(
        "layout `{layout}` with strides {strides:?}: axis {axis} has stride {stride}, but the axes inside it span {span} elements, so elements overlap; use a stride of at least {span}"
    )]
    Overlap {
        /// The layout.
        layout: String,
        /// Its strides, outermost first.
        strides: Vec<usize>,
        /// The axis at fault.
        axis: char,
        /// Its stride.
        stride: usize,
        /// What it must at least be.
        span: usize,
    },
    /// An address that does not fit in 63 bits.
    #[error(
        "layout `{layout}`: the largest element offset does not fit in 63 bits; use smaller extents or strides"
    )]
    Overflow {
        /// The layout.
        layout: String,
    },
}

/// A validated layout string.
///
/// Plain layouts permute `H N D` (`H D` for q and out, `H N` for scores), with `S` and `L` anywhere. Paged and
/// inner-`x` ones are recognised so that files which name them get a clear answer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layout {
    text: String,
}

impl Layout {
    /// The letters, outermost axis first.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether pages (`P`, `T`) are among the axes.
    pub fn is_paged(&self) -> bool {
        self.text.contains('P')
    }

    /// Whether an axis is split by an inner part (a lower-case letter).
    pub fn has_inner(&self) -> bool {
        self.text.chars().any(|c| c.is_ascii_lowercase())
    }

    /// The plain axes, outermost first.
    ///
    /// # Errors
    /// [`LayoutError::NotYet`] for paged and inner-`x` layouts.
    pub fn axes(&self) -> Result<Vec<Axis>, LayoutError> {
        let not_yet = |kind| LayoutError::NotYet { layout: self.text.clone(), kind };
        if self.is_paged() {
            return Err(not_yet("paged"));
        }
        if self.has_inner() {
            return Err(not_yet("split by an inner axis"));
        }
        Ok(self.text.chars().filter_map(Axis::from_letter).collect())
    }

    /// Whether the layout names this axis.
    pub fn has(&self, axis: Axis) -> bool {
        self.text.contains(axis.letter())
    }

    /// The same layout with the batch axis: outermost, unless it is written already.
    pub fn with_batch(&self) -> Layout {
        if self.has(Axis::Seq) { self.clone() } else { Layout { text: format!("S{}", self.text) } }
    }

    /// The same layout with the layer axis: outermost, unless it is written already.
    pub fn with_layers(&self) -> Layout {
        if self.has(Axis::Layer) {
            self.clone()
        } else {
            Layout { text: format!("L{}", self.text) }
        }
    }

    /// The layout without an axis.
    pub fn without(&self, axis: Axis) -> Layout {
        Layout { text: self.text.chars().filter(|c| *c != axis.letter()).collect() }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Layout {
    type Err = LayoutError;

    /// Parses a layout string; `row` and `col`, the words of the GRETA traces, mean `HND`, `HDN`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let text = match s {
            "row" => "HND",
            "col" => "HDN",
            other => other,
        };
        let axes = |what: String| LayoutError::Axes { layout: clip(s), what };
        let mut seen = String::new();
        for c in text.chars() {
            let upper = c.to_ascii_uppercase();
            let known = "SLHNDPT".contains(upper) && (c == upper || "dt".contains(c));
            if !known {
                return Err(LayoutError::Letter { layout: clip(s), letter: c });
            }
            if seen.contains(c) {
                return Err(axes(format!("axis {c} occurs twice; name each axis once")));
            }
            if c != upper && !seen.contains(upper) {
                return Err(axes(format!(
                    "the inner part {c} comes before its outer part {upper}; write {upper} first"
                )));
            }
            seen.push(c);
        }
        let has = |c| seen.contains(c);
        if has('P') != has('T') {
            return Err(axes("pages need both P (page) and T (token inside the page)".into()));
        }
        if has('P') && has('N') {
            return Err(axes("N and P exclude each other: pages hold the tokens".into()));
        }
        if !has('H') || !(has('D') || has('N')) {
            return Err(axes("the axes H (head) and D (element) are required".into()));
        }
        Ok(Layout { text: text.to_owned() })
    }
}

/// Extents of the plain axes. An axis that a layout does not name has extent 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extents {
    /// Sequences.
    pub batch: usize,
    /// Layers in the buffer.
    pub layers: usize,
    /// Heads (of the tensor in question).
    pub heads: usize,
    /// Token rows (`capacity`).
    pub tokens: usize,
    /// Elements of a head vector.
    pub dim: usize,
}

impl Extents {
    /// The extent of an axis.
    pub fn get(&self, axis: Axis) -> usize {
        match axis {
            Axis::Seq => self.batch,
            Axis::Layer => self.layers,
            Axis::Head => self.heads,
            Axis::Token => self.tokens,
            Axis::Dim => self.dim,
        }
    }
}

/// Where each element of a tensor lies in its buffer, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    layout: Layout,
    extents: Extents,
    /// By [`Axis`]; 0 for an axis that the layout does not name.
    strides: [usize; 5],
    offset: usize,
    span: usize,
}

impl Placement {
    /// A placement with padding. `pads[0]` widens the second innermost axis' stride, `pads[1]` the
    /// next one's outwards, and so on; missing pads are 0. `offset` elements come before the first.
    ///
    /// # Errors
    /// [`LayoutError`], as its variants say.
    pub fn padded(
        layout: &Layout,
        extents: Extents,
        pads: &[usize],
        offset: usize,
    ) -> Result<Self, LayoutError> {
        let axes = layout.axes()?;
        if pads.len() >= axes.len() && !pads.is_empty() {
            return Err(LayoutError::Count {
                layout: layout.to_string(),
                what: "pads",
                want: axes.len() - 1,
                got: pads.len(),
            });
        }
        let overflow = || LayoutError::Overflow { layout: layout.to_string() };
        let mut strides = vec![1usize; axes.len()];
        for i in (0..axes.len().saturating_sub(1)).rev() {
            let inner = extents.get(axes[i + 1]).max(1).checked_mul(strides[i + 1]);
            let pad = pads.get(axes.len() - 2 - i).copied().unwrap_or(0);
            strides[i] = inner.and_then(|s| s.checked_add(pad)).ok_or_else(overflow)?;
        }
        Self::strided(layout, extents, &strides, offset)
    }

    /// A placement with explicit strides, outermost axis first.
    ///
    /// # Errors
    /// [`LayoutError`]: a wrong count, overlapping elements, or an address beyond 63 bits.
    pub fn strided(
        layout: &Layout,
        extents: Extents,
        strides: &[usize],
        offset: usize,
    ) -> Result<Self, LayoutError> {
        let axes = layout.axes()?;
        if strides.len() != axes.len() {
            return Err(LayoutError::Count {
                layout: layout.to_string(),
                what: "strides",
                want: axes.len(),
                got: strides.len(),
            });
        }
        let overflow = || LayoutError::Overflow { layout: layout.to_string() };
        // Elements cannot share an address if, from the smallest stride up, each stride is at
        // least the span of all axes below it. Axes of extent 1 never move, so theirs is free.
        let mut moving: Vec<(usize, Axis)> = axes
            .iter()
            .zip(strides)
            .filter(|(a, _)| extents.get(**a) > 1)
            .map(|(a, s)| (*s, *a))
            .collect();
        moving.sort();
        let mut inner_span = 1usize;
        for (stride, axis) in moving {
            if stride < inner_span {
                return Err(LayoutError::Overlap {
                    layout: layout.to_string(),
                    strides: strides.to_vec(),
                    axis: axis.letter(),
                    stride,
                    span: inner_span,
                });
            }
            inner_span = (extents.get(axis) - 1)
                .checked_mul(stride)
                .and_then(|x| x.checked_add(inner_span))
                .ok_or_else(overflow)?;
        }
        let empty = axes.iter().any(|a| extents.get(*a) == 0);
        let span = offset
            .checked_add(if empty { 0 } else { inner_span })
            .filter(|s| *s <= i64::MAX as usize / 16)
            .ok_or_else(overflow)?;
        let mut by_axis = [0usize; 5];
        for (axis, stride) in axes.iter().zip(strides) {
            by_axis[*axis as usize] = *stride;
        }
        Ok(Placement { layout: layout.clone(), extents, strides: by_axis, offset, span })
    }

    /// Offset, in elements, of element (`s`, `l`, `h`, `n`, `d`) from the start of the buffer.
    /// A coordinate on an axis that the layout does not name is ignored.
    #[inline]
    pub fn index(&self, s: usize, l: usize, h: usize, n: usize, d: usize) -> usize {
        debug_assert!(
            [s, l, h, n, d]
                .iter()
                .zip(Axis::ALL)
                .all(|(c, a)| { *c < self.extents.get(a) || self.strides[a as usize] == 0 }),
            "({s}, {l}, {h}, {n}, {d}) lies outside {:?}",
            self.extents
        );
        let [ss, ls, hs, ns, ds] = self.strides;
        self.offset + s * ss + l * ls + h * hs + n * ns + d * ds
    }

    /// The coordinates (s, l, h, n, d) of the element at an offset, the inverse of
    /// [`Placement::index`]; `None` in a gap.
    pub fn coordinates(&self, element: usize) -> Option<[usize; 5]> {
        // What lies beyond an axis' end is left over: elements do not overlap.
        let (at, beyond) = self.nearest_below(element)?;
        (beyond == 0).then_some(at)
    }

    /// The coordinates of the element that lies last before an offset in a gap, along the axes from
    /// the largest stride, and how many elements the offset lies beyond it; `None` before the first.
    pub fn nearest_below(&self, element: usize) -> Option<([usize; 5], usize)> {
        let mut rest = element.checked_sub(self.offset)?;
        let mut axes: Vec<Axis> = Axis::ALL
            .into_iter()
            .filter(|a| self.layout.has(*a) && self.extents.get(*a) > 1)
            .collect();
        axes.sort_by_key(|a| std::cmp::Reverse(self.stride(*a)));
        let mut at = [0; 5];
        for axis in axes {
            let c = (rest / self.stride(axis)).min(self.extents.get(axis) - 1);
            at[axis as usize] = c;
            rest -= c * self.stride(axis);
        }
        Some((at, rest))
    }

    /// The layout string.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The extents.
    pub fn extents(&self) -> Extents {
        self.extents
    }

    /// Stride of an axis in elements; 0 where the layout does not name it.
    pub fn stride(&self, axis: Axis) -> usize {
        self.strides[axis as usize]
    }

    /// Strides in the layout's own order, outermost first.
    pub fn strides(&self) -> Vec<usize> {
        let axes = self.layout.axes().expect("a placement has a plain layout");
        axes.into_iter().map(|a| self.stride(a)).collect()
    }

    /// Elements before element (0, 0, 0, 0, 0).
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Elements that the buffer must at least hold, the offset included.
    pub fn span(&self) -> usize {
        self.span
    }

    /// Elements that the tensor has, gaps not counted.
    pub fn len(&self) -> usize {
        let axes = self.layout.axes().expect("a placement has a plain layout");
        axes.into_iter().map(|a| self.extents.get(a)).product()
    }

    /// Whether some extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ext(batch: usize, heads: usize, tokens: usize, dim: usize) -> Extents {
        Extents { batch, layers: 1, heads, tokens, dim }
    }

    #[test]
    fn flashinfer_layouts_by_hand() {
        let e = ext(2, 3, 5, 7);
        let hnd = Placement::padded(&"SHND".parse().unwrap(), e, &[], 0).unwrap();
        assert_eq!(hnd.index(1, 0, 2, 4, 6), 2 * 3 * 5 * 7 - 1);
        assert_eq!(hnd.index(0, 0, 1, 2, 3), 5 * 7 + 2 * 7 + 3);
        let nhd = Placement::padded(&"SNHD".parse().unwrap(), e, &[], 0).unwrap();
        assert_eq!(nhd.index(0, 0, 1, 2, 3), 2 * 21 + 7 + 3);
        let hdn = Placement::padded(&"SHDN".parse().unwrap(), e, &[], 0).unwrap();
        assert_eq!(hdn.index(0, 0, 1, 2, 3), 35 + 3 * 5 + 2);
    }

    #[test]
    fn pads_widen_from_the_inside() {
        let p =
            Placement::padded(&"SHND".parse().unwrap(), ext(2, 3, 5, 7), &[1, 4, 9], 2).unwrap();
        assert_eq!(p.stride(Axis::Token), 8);
        assert_eq!(p.stride(Axis::Head), 44);
        assert_eq!(p.stride(Axis::Seq), 44 * 3 + 9);
        assert_eq!(p.span(), 2 + 141 + 88 + 32 + 7);
    }

    #[test]
    fn coordinates_are_the_inverse_of_the_index() {
        let p = Placement::padded(&"NSHD".parse().unwrap(), ext(2, 3, 4, 5), &[1, 2], 3).unwrap();
        let mut found = 0;
        for element in 0..p.span() {
            if let Some([s, l, h, n, d]) = p.coordinates(element) {
                assert_eq!(p.index(s, l, h, n, d), element);
                found += 1;
            }
        }
        assert_eq!(found, 2 * 3 * 4 * 5);
    }

    #[test]
    fn overlaps_overflows_and_nonsense_are_refused() {
        let l: Layout = "SHND".parse().unwrap();
        let e = ext(1, 2, 4, 8);
        let err = Placement::strided(&l, e, &[64, 31, 8, 1], 0).unwrap_err();
        assert!(err.to_string().contains("axis H has stride 31"), "{err}");
        assert!(Placement::strided(&l, e, &[64, 32, 8, 1], 0).is_ok());
        assert!(
            Placement::strided(&l, e, &[0, 32, 8, 1], 0).is_ok(),
            "batch 1: its stride is free"
        );
        let err = Placement::strided(&l, e, &[64, usize::MAX / 2, 8, 1], 0).unwrap_err();
        assert!(matches!(err, LayoutError::Overflow { .. }));
        for bad in ["N", "HNDD", "XND", "HdND", "PHD", "HNDPT", "", "hnd"] {
            assert!(bad.parse::<Layout>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paged_and_inner_layouts_parse_and_answer_not_yet() {
        for s in ["PHTD", "PTHD", "PHDT", "PHDTd", "PHTDt"] {
            let l: Layout = s.parse().unwrap();
            let err = Placement::padded(&l, ext(1, 1, 1, 1), &[], 0).unwrap_err();
            assert!(err.to_string().contains("not driven yet"), "{err}");
        }
    }

    #[test]
    fn greta_words_are_synonyms() {
        assert_eq!("row".parse::<Layout>().unwrap().as_str(), "HND");
        assert_eq!("col".parse::<Layout>().unwrap().as_str(), "HDN");
    }
}
