//! The tensors of a case: for every stage, what each one is and where its elements lie.

use super::{
    Axis, Case, DType, Extents, Layout, LayoutError, Placement, Placements, Pointer, Stage,
};

/// What a tensor holds, free of strides: for each sequence `[heads, tokens, dim]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Heads, or whatever stands in their place.
    pub heads: usize,
    /// Rows of each head, sequence by sequence; its length is the batch.
    pub tokens: Vec<usize>,
    /// Elements of a row.
    pub dim: usize,
}

impl Shape {
    /// Elements in all.
    pub fn len(&self) -> usize {
        self.tokens.iter().sum::<usize>() * self.heads * self.dim
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Which one.
    pub pointer: Pointer,
    /// The element type. Integers (`seq_lens`, `pos`) are given as f32, which has their size.
    pub dtype: DType,
    /// Where each element lies.
    pub place: Placement,
    /// What it holds.
    pub shape: Shape,
}

/// Elements of an output that lie on a line in memory and are judged one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Sequence, head and token of the first element.
    pub at: [usize; 3],
    /// The first element's place in the buffer, in elements.
    pub first: usize,
    /// Elements.
    pub count: usize,
    /// From one to the next, in elements.
    pub step: usize,
    /// Whether the elements follow each other along the tokens, and not along the head vector.
    pub along_tokens: bool,
}

impl Case {
    /// The tensors that the case's stage has, of which a kernel takes all or some. Sinks are there
    /// where the case has any; paged and quantised caches are not driven yet.
    ///
    /// # Errors
    /// [`LayoutError`] where a tensor is too large to be addressed.
    pub fn tensors(&self, places: &Placements) -> Result<Vec<Tensor>, LayoutError> {
        let mut tensors = Vec::new();
        for port in self.stage.ports() {
            if let Some((dtype, shape)) = self.shape(port.pointer) {
                let place = match port.pointer {
                    Pointer::Q => places.q.clone(),
                    Pointer::X => places.q.clone(),
                    Pointer::K => places.k.clone(),
                    Pointer::V => places.v.clone(),
                    Pointer::Out => places.out.clone(),
                    Pointer::Scores => places.scores.clone(),
                    Pointer::Probs => places.probs.clone(),
                    _ => contiguous(&shape)?,
                };
                tensors.push(Tensor { pointer: port.pointer, dtype, place, shape });
            }
        }
        Ok(tensors)
    }

    /// The element type and the shape of a tensor; `None` where the case has none of the name.
    pub fn shape(&self, pointer: Pointer) -> Option<(DType, Shape)> {
        let (batch, types) = (self.batch(), self.dtypes);
        let (heads, kv_heads) = (self.num_heads, self.num_kv_heads);
        let shape = |heads, tokens, dim| Shape { heads, tokens, dim };
        let one = |heads, dim| shape(heads, vec![1; batch], dim);
        let shared = |tokens, dim| shape(1, vec![tokens], dim);
        let queries = || (0..batch).map(|s| self.queries(s)).collect();
        let f32 = DType::F32;
        Some(match (pointer, self.stage) {
            (Pointer::Q, _) => (types.q, shape(heads, queries(), self.head_dim)),
            (Pointer::K, _) => (types.kv, shape(kv_heads, self.seq_lens.clone(), self.head_dim)),
            (Pointer::V, _) => (types.kv, shape(kv_heads, self.seq_lens.clone(), self.head_dim_v)),
            (Pointer::NewK, _) => (types.q, one(kv_heads, self.head_dim)),
            (Pointer::NewV, _) => (types.q, one(kv_heads, self.head_dim_v)),
            (Pointer::Out, Stage::HeadCombine | Stage::Norm) => (types.out, one(1, self.hidden)),
            (Pointer::Out, _) => (types.out, shape(heads, queries(), self.head_dim_v)),
            (Pointer::Lse, _) => (f32, one(heads, 1)),
            (Pointer::Scores | Pointer::Probs, _) => (f32, shape(heads, self.seq_lens.clone(), 1)),
            (Pointer::PartialOut, _) => {
                (f32, shape(heads, vec![self.splits(); batch], self.head_dim_v))
            }
            (Pointer::PartialLse, _) => (f32, shape(heads, vec![self.splits(); batch], 1)),
            (Pointer::X, Stage::Norm) => (types.q, one(1, self.hidden)),
            (Pointer::X, _) => (types.q, one(heads, self.head_dim)),
            (Pointer::WO, _) => (types.kv, shared(self.hidden, heads * self.head_dim)),
            (Pointer::Residual, _) => (types.q, one(1, self.hidden)),
            (Pointer::Weight, _) => (types.kv, shared(1, self.hidden)),
            (Pointer::Sinks, _) if self.sinks => (f32, shared(1, heads)),
            (Pointer::SeqLens | Pointer::Pos, _) => (f32, shared(1, batch)),
            (Pointer::Sinks | Pointer::PageTable | Pointer::KScale | Pointer::VScale, _) => {
                return None;
            }
        })
    }

    /// The judged elements of an output, in an order that is the same everywhere: sequence, head,
    /// token, element.
    pub fn runs(&self, tensor: &Tensor) -> Vec<Run> {
        let (place, shape) = (&tensor.place, &tensor.shape);
        let mut runs = Vec::new();
        for (s, tokens) in shape.tokens.iter().enumerate() {
            for h in 0..shape.heads {
                let run = |t: usize, layer: usize, count, step, along_tokens| {
                    let first = place.index(s, layer, h, t, 0);
                    Run { at: [s, h, t], first, count, step, along_tokens }
                };
                match tensor.pointer {
                    Pointer::Scores | Pointer::Probs => {
                        let keys = self.attended(s);
                        if !keys.is_empty() {
                            runs.push(run(keys.start, 0, keys.len(), 1, true));
                        }
                    }
                    // Stage `append` writes one row of the attended layer.
                    Pointer::K | Pointer::V => {
                        let step = place.stride(Axis::Dim);
                        runs.push(run(self.pos(s), self.layer, shape.dim, step, false));
                    }
                    _ => runs.extend((0..*tokens).map(|t| run(t, 0, shape.dim, 1, false))),
                }
            }
        }
        runs
    }
}

/// A contiguous placement of a shape, all sequences as long as the longest.
fn contiguous(shape: &Shape) -> Result<Placement, LayoutError> {
    let layout: Layout = "SHND".parse()?;
    let extents = Extents {
        batch: shape.tokens.len(),
        layers: 1,
        heads: shape.heads,
        tokens: shape.tokens.iter().copied().max().unwrap_or(0),
        dim: shape.dim,
    };
    Placement::padded(&layout, extents, &[], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(id: &str) -> (Case, Vec<Tensor>) {
        let case: Case = id.parse().unwrap();
        let tensors = case.tensors(&case.placements().unwrap()).unwrap();
        (case, tensors)
    }

    /// Name, shape of the first sequence, element type, outermost stride.
    fn list(id: &str) -> Vec<String> {
        let (_, tensors) = tensors(id);
        let floats = tensors.iter().filter(|t| !matches!(t.pointer.name(), "seq_lens" | "pos"));
        floats
            .map(|t| {
                let s = &t.shape;
                let stride = t.place.stride(Axis::Seq);
                let dims = format!("[{}, {}, {}]", s.heads, s.tokens[0], s.dim);
                format!("{} {dims} {} {stride}", t.pointer, t.dtype)
            })
            .collect()
    }

    #[test]
    fn the_tensors_of_every_stage_by_hand() {
        let id = |stage: &str, more: &str| {
            format!("stage={stage},b=2,hq=4,hkv=2,d=8,n=[3,1],cap=5,dt=f16/bf16/f32{more}")
        };
        let (k, v) = ("k [2, 3, 8] bf16 80", "v [2, 3, 8] bf16 80");
        assert_eq!(
            list(&id("scores", ",scores=HN+pad2")),
            ["q [4, 1, 8] f16 32", k, "scores [4, 3, 1] f32 28"]
        );
        assert_eq!(
            list(&id("softmax", ",sinks=1")),
            [
                "scores [4, 3, 1] f32 20",
                "sinks [1, 1, 4] f32 4",
                "probs [4, 3, 1] f32 20",
                "lse [4, 1, 1] f32 4"
            ]
        );
        assert_eq!(list(&id("pv", "")), ["probs [4, 3, 1] f32 20", v, "out [4, 1, 8] f32 32"]);
        assert_eq!(list(&id("prefill", "")), ["q [4, 3, 8] f16 96", k, v, "out [4, 3, 8] f32 96"]);
        assert_eq!(
            list(&id("append", "")),
            ["new_k [2, 1, 8] f16 16", "new_v [2, 1, 8] f16 16", k, v]
        );
        assert_eq!(
            list(&id("append", ",dv=6")),
            ["new_k [2, 1, 8] f16 16", "new_v [2, 1, 6] f16 12", k, "v [2, 3, 6] bf16 60"]
        );
        assert_eq!(
            list(&id("split", ",p.splits=6")),
            [
                "q [4, 1, 8] f16 32",
                k,
                v,
                "partial_out [4, 6, 8] f32 192",
                "partial_lse [4, 6, 1] f32 24"
            ]
        );
        let id = |stage: &str, more: &str| {
            format!("stage={stage},b=2,hq=4,hkv=2,d=8,n=1,dt=f16/bf16/f32{more}")
        };
        assert_eq!(
            list(&id("merge", ",p.splits=6")),
            [
                "partial_out [4, 6, 8] f32 192",
                "partial_lse [4, 6, 1] f32 24",
                "out [4, 1, 8] f32 32",
                "lse [4, 1, 1] f32 4"
            ]
        );
        assert_eq!(
            list(&id("head_combine", ",hidden=10")),
            ["x [4, 1, 8] f16 32", "w_o [1, 10, 32] bf16 320", "out [1, 1, 10] f32 10"]
        );
        assert_eq!(
            list(&id("norm", ",hidden=10,q=HD+pad0.3")),
            [
                "x [1, 1, 10] f16 13",
                "weight [1, 1, 10] bf16 10",
                "residual [1, 1, 10] f16 10",
                "out [1, 1, 10] f32 10"
            ]
        );
    }

    #[test]
    fn runs_are_what_is_judged_and_nothing_else() {
        let runs = |id: &str, pointer| {
            let (case, tensors) = tensors(id);
            let tensor = tensors.into_iter().find(|t| t.pointer == pointer).unwrap();
            case.runs(&tensor)
        };
        // Two of three keys are attended; the second sequence has one.
        let found = runs("stage=scores,b=2,hq=1,hkv=1,d=4,n=[3,1],w=2", Pointer::Scores);
        let run =
            |at, first, count, step, along_tokens| Run { at, first, count, step, along_tokens };
        assert_eq!(found, [run([0, 0, 1], 1, 2, 1, true), run([1, 0, 0], 3, 1, 1, true)]);
        // The appended row of a column-wise cache, in the second of two layers.
        let id = "stage=append,hq=1,hkv=1,d=2,n=3,cap=4,k=LHND,v=LHDN,layers=2,layer=1";
        assert_eq!(runs(id, Pointer::V), [run([0, 0, 2], 8 + 2, 2, 4, false)]);
        assert_eq!(runs(id, Pointer::K), [run([0, 0, 2], 8 + 4, 2, 1, false)]);
        // Every position of a prefill, none of an empty sequence.
        let found = runs("stage=prefill,b=2,hq=1,hkv=1,d=4,n=[0,2]", Pointer::Out);
        assert_eq!(
            found.iter().map(|r| (r.at, r.first)).collect::<Vec<_>>(),
            [([1, 0, 0], 8), ([1, 0, 1], 12)]
        );
    }
}
