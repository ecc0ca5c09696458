//! Whether the fields of a slice agree with each other and with its tensors.

use super::error::{SliceError, SliceProblem};
use super::{KvSlice, Raw, header, to_safetensors};
use crate::problem::{DType, Layout, clip};

impl KvSlice {
    /// Checks every field, as [`KvSlice::read`] and [`KvSlice::write`] do.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), SliceError> {
        self.check().map_err(|p| SliceError::new(&self.name, p))
    }

    pub(super) fn check(&self) -> Result<(), SliceProblem> {
        self.check_numbers()?;
        self.check_batch()?;
        for (tensor, t) in self.floats() {
            let need = header::byte_len(to_safetensors(t.dtype), &t.shape);
            if need != Some(t.bytes.len()) {
                let need = need.map_or("more than 2^64".into(), |n| n.to_string());
                let have = t.bytes.len();
                return Err(SliceProblem::Bytes { tensor: tensor.to_owned(), need, have });
            }
        }
        for (name, t) in &self.extra_tensors {
            if header::byte_len(t.dtype, &t.shape) != Some(t.bytes.len()) {
                let need = clip(&format!("{:?} {}", t.shape, t.dtype));
                let have = t.bytes.len();
                return Err(SliceProblem::Bytes { tensor: clip(name), need, have });
            }
        }
        self.check_heads("q", &self.q_raw, self.head_dim, "head_dim")?;
        self.check_heads("out", &self.out_raw, self.dim_v(), "head_dim_v")?;
        self.check_cache("k", &self.k_layout, &self.k_raw, self.head_dim)?;
        self.check_cache("v", &self.v_layout, &self.v_raw, self.dim_v())?;
        self.check_layers()?;
        for tensor in ["q", "k", "v", "out"] {
            self.check_span(tensor)?;
        }
        self.check_optional()
    }

    fn check_numbers(&self) -> Result<(), SliceProblem> {
        for (key, value) in [
            ("num_heads", Some(self.num_heads)),
            ("num_kv_heads", Some(self.num_kv_heads)),
            ("head_dim", Some(self.head_dim)),
            ("head_dim_v", self.head_dim_v),
            ("capacity", Some(self.capacity)),
            ("page_size", self.page_size),
            ("x", self.x),
            ("layers", self.layers),
        ] {
            if value == Some(0) {
                return Err(SliceProblem::Zero { key });
            }
        }
        for (key, value) in [
            ("scale", Some(self.scale)),
            ("softcap", self.softcap),
            ("k_scale", self.k_scale),
            ("v_scale", self.v_scale),
            ("exp_ulp", self.exp_ulp),
        ] {
            let Some(value) = value else { continue };
            if !DType::F32.round(value).is_finite() {
                return Err(SliceProblem::NotFinite { key, value: value.to_string() });
            }
            if value < 0.0 && matches!(key, "softcap" | "exp_ulp") {
                return Err(SliceProblem::Negative { key, value });
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            let (num_heads, num_kv_heads) = (self.num_heads, self.num_kv_heads);
            return Err(SliceProblem::Heads { num_heads, num_kv_heads });
        }
        if let Some(wave) = self.wave.filter(|w| *w != 32 && *w != 64) {
            let (key, value) = ("wave".to_owned(), wave.to_string());
            return Err(SliceProblem::Value { key, value, want: "32 or 64" });
        }
        let beyond = |what: String, value| SliceProblem::BeyondCapacity {
            what,
            value,
            capacity: self.capacity,
        };
        if self.seq_len > self.capacity {
            return Err(beyond("seq_len".into(), self.seq_len));
        }
        for (index, value) in self.lens.iter().flatten().copied().enumerate() {
            let Ok(len) = usize::try_from(value) else {
                return Err(SliceProblem::NegativeLength { index, value });
            };
            if len > self.capacity {
                return Err(beyond(format!("seq_lens[{index}]"), len));
            }
        }
        Ok(())
    }

    fn check_batch(&self) -> Result<(), SliceProblem> {
        let shape = |want: &str| SliceProblem::Shape {
            tensor: "seq_lens",
            stored: vec![self.batch()],
            want: want.to_owned(),
        };
        match &self.lens {
            None if self.is_batched() => Err(SliceProblem::MissingTensor {
                tensor: "seq_lens",
                why: ": the layouts have an S axis, so it must hold each sequence's length",
            }),
            Some(lens) if lens.is_empty() => Err(shape("[batch] with at least one sequence")),
            Some(lens) if lens.len() > 1 => {
                if !self.is_batched() {
                    return Err(shape("[1], since the layouts have no S axis"));
                }
                for (key, layout) in [("k_layout", &self.k_layout), ("v_layout", &self.v_layout)] {
                    if !layout.as_str().contains('S') {
                        let (layout, batch) = (layout.to_string(), lens.len());
                        return Err(SliceProblem::BatchAxis { key, layout, batch });
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn shape_of(&self, tensor: &str) -> &[usize] {
        let found = self.floats().into_iter().find(|(name, _)| *name == tensor);
        found.map_or(&[], |(_, t)| &t.shape)
    }

    fn expect(
        &self,
        tensor: &'static str,
        want: &[usize],
        names: &str,
    ) -> Result<(), SliceProblem> {
        let stored = self.shape_of(tensor);
        if stored == want {
            return Ok(());
        }
        let want = format!("{want:?} ({names})");
        Err(SliceProblem::Shape { tensor, stored: stored.to_vec(), want })
    }

    /// `[batch, …]` or `[…]`.
    fn batched(&self, shape: &[usize]) -> Vec<usize> {
        let batch = self.is_batched().then(|| self.batch());
        batch.into_iter().chain(shape.iter().copied()).collect()
    }

    fn batched_names(&self, names: &str) -> String {
        if self.is_batched() { format!("batch, {names}") } else { names.to_owned() }
    }

    fn check_raw(
        &self,
        tensor: &'static str,
        strides_key: &'static str,
        raw: &Raw,
        letters: &str,
    ) -> Result<(), SliceProblem> {
        let stored = self.shape_of(tensor);
        if stored.len() != 1 {
            let want = "a 1-D raw buffer, since they give its strides or offset".to_owned();
            return Err(SliceProblem::Shape { tensor, stored: stored.to_vec(), want });
        }
        let Some(strides) = &raw.strides else { return Ok(()) };
        let (got, want) = (strides.len(), letters.len());
        // q and out of a single sequence may come with the batch's stride all the same.
        if got != want && (letters, got) != ("HD", 3) {
            let layout = letters.to_owned();
            return Err(SliceProblem::StrideCount { key: strides_key, layout, want, got });
        }
        Ok(())
    }

    fn check_heads(
        &self,
        tensor: &'static str,
        raw: &Option<Raw>,
        dim: usize,
        dim_name: &str,
    ) -> Result<(), SliceProblem> {
        if let Some(raw) = raw {
            let key = if tensor == "q" { "q_strides" } else { "out_strides" };
            return self.check_raw(tensor, key, raw, if self.is_batched() { "SHD" } else { "HD" });
        }
        let names = self.batched_names(&format!("num_heads, {dim_name}"));
        self.expect(tensor, &self.batched(&[self.num_heads, dim]), &names)
    }

    fn check_cache(
        &self,
        tensor: &'static str,
        layout: &Layout,
        raw: &Option<Raw>,
        dim: usize,
    ) -> Result<(), SliceProblem> {
        let letters = layout.as_str();
        if let Some(raw) = raw {
            let key = if tensor == "k" { "k_strides" } else { "v_strides" };
            return self.check_raw(tensor, key, raw, letters);
        }
        let stored = self.shape_of(tensor);
        let wrong = |want: String| SliceProblem::Shape { tensor, stored: stored.to_vec(), want };
        if stored.len() != letters.len() {
            return Err(wrong(format!("{} axes ({letters})", letters.len())));
        }
        // What the metadata say about each axis; `_` where the file is free.
        let inner = |c: char| letters.find(c).map(|at| self.x.unwrap_or(stored[at]));
        let outer = |whole: usize, width: Option<usize>| match width {
            Some(0) => Some(0),
            Some(x) => whole.is_multiple_of(x).then_some(whole / x),
            None => Some(whole),
        };
        let mut want = Vec::new();
        for letter in letters.chars() {
            want.push(match letter {
                'S' => Some(self.batch()),
                'H' => Some(self.num_kv_heads),
                'N' => Some(self.capacity),
                'D' => Some(outer(dim, inner('d')).unwrap_or(0)),
                'T' => self.page_size.map(|size| outer(size, inner('t')).unwrap_or(0)),
                'd' | 't' => self.x,
                _ => None,
            });
        }
        let agree = want.iter().zip(stored).all(|(w, s)| w.is_none_or(|w| w == *s) && *s > 0);
        if !agree {
            let text: Vec<String> =
                want.iter().map(|w| w.map_or("_".to_owned(), |w| w.to_string())).collect();
            return Err(wrong(format!("[{}] ({letters})", text.join(", "))));
        }
        Ok(())
    }

    fn check_layers(&self) -> Result<(), SliceProblem> {
        let layers = self.layers();
        let mut counts: Vec<(&'static str, usize)> = Vec::new();
        for (tensor, layout, raw) in
            [("k", &self.k_layout, &self.k_raw), ("v", &self.v_layout, &self.v_raw)]
        {
            if let (Some(at), None) = (layout.as_str().find('L'), raw) {
                counts.push((tensor, self.shape_of(tensor).get(at).copied().unwrap_or(0)));
            }
        }
        counts.extend(self.layers.map(|n| ("`layers`", n)));
        if let [(one, one_layers), rest @ ..] = &counts[..]
            && let Some((other, other_layers)) = rest.iter().find(|(_, n)| n != one_layers)
        {
            let (one_layers, other_layers) = (*one_layers, *other_layers);
            return Err(SliceProblem::Layers { one, one_layers, other, other_layers });
        }
        if self.layer_index() >= layers {
            return Err(SliceProblem::Layer { layer: self.layer, layers });
        }
        Ok(())
    }

    fn check_span(&self, tensor: &'static str) -> Result<(), SliceProblem> {
        let placement = match self.place(tensor) {
            Err(SliceProblem::NotYet { .. }) => return Ok(()),
            other => other?,
        };
        let have = self.floats().iter().find(|(n, _)| *n == tensor).map_or(0, |(_, t)| t.len());
        if placement.span() > have {
            return Err(SliceProblem::Span { tensor, need: placement.span(), have });
        }
        Ok(())
    }

    fn check_optional(&self) -> Result<(), SliceProblem> {
        let longest = self.seq_lens().into_iter().max().unwrap_or(0);
        for (tensor, t) in [("probs", &self.probs), ("scores", &self.scores)] {
            let Some(t) = t else { continue };
            let window = t.shape.last().copied().unwrap_or(0);
            let fits = window <= longest && (window > 0 || longest == 0);
            if !fits || t.shape != self.batched(&[self.num_heads, window]) {
                let lead = self.batched(&[self.num_heads]);
                let want = format!(
                    "{lead:?} and W ({}, the last W of at most {longest} keys)",
                    self.batched_names("num_heads, W")
                );
                return Err(SliceProblem::Shape { tensor, stored: t.shape.clone(), want });
            }
        }
        if self.lse.is_some() {
            let names = self.batched_names("num_heads");
            self.expect("lse", &self.batched(&[self.num_heads]), &names)?;
        }
        if self.sinks.is_some() {
            self.expect("sinks", &[self.num_heads], "num_heads")?;
        }
        for (tensor, there, dim) in [
            ("new_k", self.new_k.is_some(), self.head_dim),
            ("new_v", self.new_v.is_some(), self.dim_v()),
        ] {
            if there {
                let names = self.batched_names(match tensor {
                    "new_k" => "num_kv_heads, head_dim",
                    _ => "num_kv_heads, head_dim_v",
                });
                self.expect(tensor, &self.batched(&[self.num_kv_heads, dim]), &names)?;
            }
        }
        let Some(table) = &self.page_table else { return Ok(()) };
        let rank = if self.is_batched() { 2 } else { 1 };
        let elements = table.shape.iter().try_fold(1usize, |n, e| n.checked_mul(*e));
        if table.shape.len() != rank || elements != Some(table.values.len()) {
            let want = format!("[{}]", self.batched_names("pages of the sequence"));
            let stored = table.shape.clone();
            return Err(SliceProblem::Shape { tensor: "page_table", stored, want });
        }
        Ok(())
    }
}
