//! Whether a case lies inside a kernel's `[supports]` and `[layout]`.

use super::manifest::Manifest;
use super::plan::RULED;
use crate::problem::{
    Axis, Case, DType, Layout, Placement, Pointer, Stage, Storage, clip, one_line,
};
use std::fmt;

/// Characters of a list that a message shows; a tunable may have thousands of values.
const SHOWN: usize = 300;

/// Why a kernel is not driven with a case. Not a failure: counted as skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kernel} does not support {what} = {got} (supports {supports})")]
pub struct Unsupported {
    /// The kernel.
    pub kernel: String,
    /// Which property of the case.
    pub what: String,
    /// What the case has.
    pub got: String,
    /// What the kernel takes.
    pub supports: String,
}

impl Manifest {
    /// Whether a case lies inside the kernel's bounds. Only tensors that the stage has count:
    /// `softmax` does not care how V is stored.
    ///
    /// # Errors
    /// [`Unsupported`]: the first bound that the case exceeds.
    pub fn supports(&self, case: &Case) -> Result<(), Unsupported> {
        let (s, stage) = (&self.supports, self.stage);
        if case.stage != stage {
            return Err(self.refuse("stage", case.stage, stage));
        }
        if !s.dtypes.contains(&case.dtypes) {
            return Err(self.refuse("dtype", case.dtypes, join(&s.dtypes)));
        }
        let group = case.num_heads.checked_div(case.num_kv_heads).unwrap_or(0);
        let has_heads = stage != Stage::Norm;
        for (what, has, range, value) in [
            ("head_dim", has_heads, &s.head_dim, case.head_dim),
            ("group", has_heads, &s.group, group),
            ("batch", true, &s.batch, case.batch()),
            ("hidden", stage.has_hidden(), &s.hidden, case.hidden),
        ]
        .into_iter()
        .chain(case.seq_lens.iter().map(|n| ("seq_len", stage.has_keys(), &s.seq_len, *n)))
        {
            if has && !range.contains(value) {
                return Err(self.refuse(what, value, range));
            }
        }
        match &s.head_dim_v {
            Some(range) if !range.contains(case.head_dim_v) => {
                return Err(self.refuse("head_dim_v", case.head_dim_v, range));
            }
            None if case.head_dim_v != case.head_dim => {
                let equal = "head_dim_v = head_dim only, for want of a head_dim_v range";
                return Err(self.refuse("head_dim_v", case.head_dim_v, equal));
            }
            _ => {}
        }
        if case.is_ragged() && !self.takes_lengths() {
            let equal = "equal lengths only, since no launch takes seq_lens";
            return Err(self.refuse("seq_lens", join(&case.seq_lens), equal));
        }
        for (what, has, takes) in [
            ("window_len", case.window_len != 0, s.window),
            ("softcap", case.softcap != 0.0, s.softcap),
            ("sinks", case.sinks, s.sinks),
        ] {
            if has && !takes {
                let got = match what {
                    "window_len" => case.window_len.to_string(),
                    "softcap" => case.softcap.to_string(),
                    _ => "true".to_owned(),
                };
                return Err(self.refuse(what, got, "none"));
            }
        }
        if let Some(rope) = case.rope.filter(|rope| !s.rope.contains(&rope.style)) {
            let styles = if s.rope.is_empty() { "none".to_owned() } else { join(&s.rope) };
            return Err(self.refuse("rope", rope, styles));
        }
        self.supports_params(case)?;
        self.supports_storage(case)
    }

    /// Whether the kernel learns each sequence's own length.
    pub fn takes_lengths(&self) -> bool {
        let from_pos = self.stage == Stage::Append && self.takes(Pointer::Pos);
        from_pos || self.takes(Pointer::SeqLens)
    }

    /// Whether a tunable's rule may say a value: a constant that one alone, any other what it comes to in
    /// some case.
    fn may_rule(&self, param: &str, value: i64) -> bool {
        let rule = self.rule.iter().find(|(name, _)| name == param);
        rule.is_some_and(|(_, expr)| match expr.names() {
            [] => expr.eval_int(param, &|_| None) == Ok(value),
            _ => RULED.contains(&value),
        })
    }

    fn supports_params(&self, case: &Case) -> Result<(), Unsupported> {
        for param in &self.params {
            let what = format!("parameter {}", clip(&param.name));
            match case.params.get(&param.name) {
                Some(value) if param.values.contains(value) => {}
                // A rule may say more values than a sweep draws.
                Some(value) if self.may_rule(&param.name, *value) => {}
                Some(value) => return Err(self.refuse(&what, value, join(&param.values))),
                None => return Err(self.refuse(&what, "nothing", join(&param.values))),
            }
        }
        match case.params.iter().find(|(name, _)| !self.params.iter().any(|p| p.name == **name)) {
            Some((name, value)) => {
                let what = format!("parameter {}", clip(name));
                Err(self.refuse(&what, value, "no such parameter"))
            }
            None => Ok(()),
        }
    }

    fn supports_storage(&self, case: &Case) -> Result<(), Unsupported> {
        for (pointer, storage, layouts) in
            [(Pointer::K, &case.k, &self.layouts.k), (Pointer::V, &case.v, &self.layouts.v)]
        {
            let used = self.stage.port(pointer).is_some();
            // The layer axis is not the kernel's: it is given the base of its layer.
            let layout = storage.layout.without(Axis::Layer).with_batch();
            if used && !layouts.iter().any(|l| l.without(Axis::Layer).with_batch() == layout) {
                let what = format!("{pointer} layout");
                return Err(self.refuse(&what, &storage.layout, join(layouts)));
            }
        }
        let places = case
            .placements()
            .map_err(|e| self.refuse("storage", e, "what the case says can be placed"))?;
        for (pointer, storage, place, dtype) in [
            (Pointer::Q, &case.q, &places.q, case.dtypes.q),
            (Pointer::X, &case.q, &places.q, case.dtypes.q),
            (Pointer::Scores, &case.scores, &places.scores, DType::F32),
            (Pointer::Probs, &case.probs, &places.probs, DType::F32),
            (Pointer::K, &case.k, &places.k, case.dtypes.kv),
            (Pointer::V, &case.v, &places.v, case.dtypes.kv),
            (Pointer::Out, &case.out, &places.out, case.dtypes.out),
        ] {
            if self.stage.port(pointer).is_none() {
                continue;
            }
            if !self.supports.padding && has_gaps(place) {
                let what = format!("{pointer} storage");
                return Err(self.refuse(&what, storage, "strides without padding"));
            }
            self.supports_alignment(pointer, storage, place, dtype)?;
        }
        Ok(())
    }

    /// Every base address and every stride that is moved along, but the unit one of the innermost
    /// axis, must be a multiple of `align` bytes.
    fn supports_alignment(
        &self,
        pointer: Pointer,
        storage: &Storage,
        place: &Placement,
        dtype: DType,
    ) -> Result<(), Unsupported> {
        let Some(align) = self.supports.align else { return Ok(()) };
        let aligned = |elements: usize| {
            elements.checked_mul(dtype.size()).is_some_and(|bytes| bytes.is_multiple_of(align))
        };
        let supports = format!("multiples of {align} bytes");
        if !aligned(place.offset()) {
            let what = format!("{pointer} offset");
            return Err(self.refuse(&what, format!("{} x {dtype}", place.offset()), supports));
        }
        let axes: Vec<Axis> =
            place.layout().as_str().chars().filter_map(Axis::from_letter).collect();
        for (i, axis) in axes.iter().enumerate() {
            let innermost = i + 1 == axes.len();
            let stride = place.stride(*axis);
            if (innermost && stride == 1) || place.extents().get(*axis) <= 1 || aligned(stride) {
                continue;
            }
            let what = format!("{pointer} stride along {}", axis.letter());
            let got = format!("{stride} x {dtype} ({storage})");
            return Err(self.refuse(&what, got, supports));
        }
        Ok(())
    }

    fn refuse(
        &self,
        what: &str,
        got: impl fmt::Display,
        supports: impl fmt::Display,
    ) -> Unsupported {
        Unsupported {
            kernel: self.name.clone(),
            what: what.to_owned(),
            got: one_line(&got.to_string(), SHOWN),
            supports: one_line(&supports.to_string(), SHOWN),
        }
    }
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a stride that is moved along differs from the contiguous one. A displaced base is not a
/// gap: it matters to `align` only.
fn has_gaps(place: &Placement) -> bool {
    let layout: &Layout = place.layout();
    match Placement::padded(layout, place.extents(), &[], 0) {
        Ok(tight) => Axis::ALL.into_iter().any(|a| {
            place.extents().get(a) > 1 && layout.has(a) && place.stride(a) != tight.stride(a)
        }),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn manifest(stage: &str, tail: &str) -> Manifest {
        let args = match stage {
            "softmax" => "\"scores\", \"probs\"",
            _ => "\"q\", \"k\", \"v\", \"out\"",
        };
        let text = format!(
            "format = \"kernel/1\"\nname = \"t\"\nsource = \"t.hip\"\nstage = \"{stage}\"\n\
             [[launch]]\nentry = \"t\"\nargs = [{args}]\ngrid = [1, 1, 1]\nblock = [1, 1, 1]\n{tail}"
        );
        Manifest::parse(&text, Path::new("t.toml")).unwrap()
    }

    fn case(id: &str) -> Case {
        id.parse().unwrap()
    }

    #[test]
    fn each_bound_refuses_with_its_reason() {
        let m = manifest(
            "decode",
            "[params]\nsplits = [1, 2]\n[layout]\nv = [\"HDN\"]\n[supports]\n\
             head_dim = { max = 64, multiple_of = 4 }\ngroup = { max = 4 }\nseq_len = { min = 2 }\n\
             batch = { max = 3 }\nalign = 16",
        );
        let good = "b=2,hq=4,hkv=2,d=32,n=[8,8],v=HDN,p.splits=2";
        assert_eq!(m.supports(&case(good)), Ok(()));
        for (change, phrase) in [
            ("dt=f16", "dtype = f16 (supports f32)"),
            ("d=68", "head_dim = 68 (supports 1 to 64, multiples of 4)"),
            ("d=30", "head_dim = 30"),
            ("hkv=1,hq=5", "group = 5 (supports 1 to 4)"),
            ("n=[8,1]", "seq_len = 1 (supports 2 or more)"),
            ("n=[8,7]", "seq_lens = 8, 7 (supports equal lengths only"),
            ("b=4,n=[8,8,8,8]", "batch = 4 (supports 1 to 3)"),
            ("dv=16", "head_dim_v = 16"),
            ("w=3", "window_len = 3 (supports none)"),
            ("softcap=30", "softcap = 30"),
            ("sinks=1", "sinks = true"),
            ("p.splits=3", "parameter splits = 3 (supports 1, 2)"),
            ("p.tile=3", "parameter tile = 3 (supports no such parameter)"),
            ("k=NHD", "k layout = NHD (supports HND)"),
            ("v=HND", "v layout = HND (supports HDN)"),
            ("k=HND+pad4", "k storage = HND+pad4 (supports strides without padding)"),
            ("q=HD+pad4", "q storage = HD+pad4"),
            ("out=HD+pad4", "out storage"),
            ("k=HND@2", "k offset = 2 x f32 (supports multiples of 16 bytes)"),
            ("cap=9", "v stride along D = 9 x f32 (HDN) (supports multiples of 16 bytes)"),
        ] {
            // Later fields replace earlier ones.
            let keys: Vec<&str> =
                change.split(',').filter_map(|f| f.split_once('=')).map(|(k, _)| k).collect();
            let kept = "b=2;hq=4;hkv=2;d=32;n=[8,8];v=HDN;p.splits=2"
                .split(';')
                .filter(|f| !keys.contains(&f.split_once('=').unwrap().0));
            let id = kept.chain([change]).collect::<Vec<_>>().join(",");
            let error = m.supports(&case(&id)).expect_err(&id).to_string();
            assert!(error.starts_with("t does not support "), "{error}");
            assert!(error.contains(phrase), "{change}: {error}");
        }
        let error = m.supports(&case("b=1,hq=1,hkv=1,d=4,n=2,cap=4,v=HDN")).unwrap_err();
        assert_eq!(error.got, "nothing");
    }

    #[test]
    fn only_the_innermost_axis_may_have_the_unit_stride() {
        let m = manifest("decode", "[supports]\nalign = 16");
        assert_eq!(m.supports(&case("b=1,hq=1,hkv=1,d=4,n=2")), Ok(()));
        // With one element a head, a token's stride is 1 too, and no row is aligned.
        let error = m.supports(&case("b=1,hq=1,hkv=1,d=1,n=4")).unwrap_err().to_string();
        assert!(error.contains("k stride along N = 1 x f32 (HND)"), "{error}");
    }

    #[test]
    fn storage_of_tensors_that_the_stage_has_not_is_free() {
        let m = manifest("softmax", "");
        assert_eq!(m.supports(&case("stage=softmax,hq=1,hkv=1,d=4,n=2,k=NHD+pad3,v=HDN")), Ok(()));
    }

    #[test]
    fn the_batch_axis_is_outermost_and_tight_strides_are_no_padding() {
        let m = manifest("decode", "[layout]\nk = [\"SHND\"]\n");
        assert_eq!(m.supports(&case("b=1,hq=1,hkv=1,d=4,n=2,k=HND")), Ok(()));
        // Explicit strides that are the contiguous ones, a displaced base, a stride of extent 1.
        assert_eq!(m.supports(&case("b=1,hq=2,hkv=2,d=4,n=2,k=HND[8,4,1]@7")), Ok(()));
        assert_eq!(m.supports(&case("b=1,hq=1,hkv=1,d=4,n=2,k=HND[99,4,1]")), Ok(()));
        assert!(m.supports(&case("b=1,hq=2,hkv=2,d=4,n=2,k=HND[9,4,1]")).is_err());
        assert!(m.supports(&case("b=1,hq=2,hkv=2,d=4,n=2,k=NHSD")).is_err());
        // A cache of many layers is as good as one.
        assert_eq!(m.supports(&case("hq=2,hkv=2,d=4,n=2,layers=3,layer=1,k=LHND,v=LHND")), Ok(()));
    }
}
