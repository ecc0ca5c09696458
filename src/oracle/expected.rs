//! What a case's outputs must be: the oracle and the bound over every sequence and head, and the
//! vacuity gate that checks the check.

use super::attention::{Answer, Head, attend};
use super::bound::{Arithmetic, Bound, Term, bound, explain};
use crate::data::inputs::Inputs;
use crate::problem::Case;

/// Right values and their bounds for a whole case.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// `[batch, num_heads, head_dim_v]`.
    pub out: Vec<f64>,
    /// `do`, the same shape.
    pub out_bound: Vec<f64>,
    /// `[batch, num_heads]`, base e.
    pub lse: Vec<f64>,
    /// `dlse`, the same shape.
    pub lse_bound: Vec<f64>,
    /// The gate's probes.
    pub probes: [Probe; 4],
}

/// A wrong output that the check must be able to see on this case.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Probe {
    /// Whether it differs from the right output at all.
    pub differs: bool,
    /// Its largest error over the bound.
    pub ratio: f64,
}

/// The probes in the order of [`Expected::probes`].
pub const PROBES: [&str; 4] =
    ["an all-zero output", "the mean of V", "one key dropped", "the neighbouring head's output"];

impl Probe {
    /// Relative differences below this are the oracle's own f64 rounding (a few thousand sums).
    const SAME: f64 = 1e-12;

    /// Takes a wrong output into account.
    fn see(&mut self, wrong: impl Iterator<Item = f64>, right: &[f64], bounds: &[f64]) {
        for ((wrong, right), bound) in wrong.zip(right).zip(bounds) {
            let error = (wrong - right).abs();
            if error > Self::SAME * right.abs().max(wrong.abs()) {
                self.differs = true;
                self.ratio = self.ratio.max(error / bound);
            }
        }
    }

    /// Whether the check would miss it.
    fn is_missed(&self) -> bool {
        self.differs && self.ratio <= 1.0
    }

    fn is_seen(&self) -> bool {
        self.ratio > 1.0
    }
}

/// The oracle's view of one head of a case.
pub fn head_of<'a>(case: &Case, inputs: &'a Inputs, s: usize, h: usize) -> Head<'a, f32> {
    let (g, keys) = (h / case.group(), case.attended(s));
    Head {
        q: inputs.query(case, s, h),
        k: inputs.k.rows(s, g, keys.clone()),
        v: inputs.v.rows(s, g, keys),
        head_dim_v: case.head_dim_v,
        scale: case.scale as f64,
        softcap: case.softcap as f64,
        sink: inputs.sinks.as_ref().map(|sinks| sinks[h] as f64),
    }
}

impl Expected {
    /// Evaluates the oracle, the bound and the gate.
    pub fn new(case: &Case, inputs: &Inputs, arithmetic: &Arithmetic) -> Expected {
        let mut expected = Expected::default();
        let (mut answer, mut limits) = (Answer::default(), Bound::default());
        for s in 0..case.batch() {
            for h in 0..case.num_heads {
                let head = head_of(case, inputs, s, h);
                attend(&head, &mut answer);
                bound(&head, &answer, arithmetic, &mut limits);
                expected.out.extend_from_slice(&answer.out);
                expected.out_bound.extend_from_slice(&limits.out);
                expected.lse.push(answer.lse);
                expected.lse_bound.push(limits.lse);
                expected.probe_head(&head, &answer, &limits);
            }
        }
        expected.probe_neighbours(case);
        expected
    }

    /// Zeros, the mean of V, and one key dropped; each only until it has been seen once.
    fn probe_head(&mut self, head: &Head<'_, f32>, answer: &Answer, limits: &Bound) {
        let [zeros, mean, dropped, _] = &mut self.probes;
        let dv = head.head_dim_v;
        let rows = || head.v.chunks_exact(dv);
        let keys = answer.probs.len();
        if !zeros.is_seen() {
            zeros.see(std::iter::repeat(0.0), &answer.out, &limits.out);
        }
        if !mean.is_seen() && keys > 0 {
            let column = |d: usize| rows().map(|row| row[d] as f64).sum::<f64>() / keys as f64;
            mean.see((0..dv).map(column), &answer.out, &limits.out);
        }
        if !dropped.is_seen() && keys > 0 {
            // The key whose absence moves the output most.
            let effect = |n: usize| {
                let row = &head.v[n * dv..][..dv];
                let far = row.iter().zip(&answer.out).map(|(v, o)| (*v as f64 - o).abs());
                answer.probs[n] * far.fold(0.0, f64::max)
            };
            let n = (0..keys).max_by(|a, b| effect(*a).total_cmp(&effect(*b))).expect("keys");
            let others = || (0..keys).filter(|j| *j != n);
            let mass: f64 = others().map(|j| answer.probs[j]).sum();
            let without = |d: usize| {
                let sum: f64 = others().map(|j| answer.probs[j] * head.v[j * dv + d] as f64).sum();
                if mass > 0.0 { sum / mass } else { 0.0 }
            };
            dropped.see((0..dv).map(without), &answer.out, &limits.out);
        }
    }

    fn probe_neighbours(&mut self, case: &Case) {
        let (heads, dv) = (case.num_heads, case.head_dim_v);
        let row = |i: usize| i * dv..(i + 1) * dv;
        for i in 0..case.batch() * heads {
            let next = i / heads * heads + (i % heads + 1) % heads;
            if self.probes[3].is_seen() {
                return;
            }
            let wrong = self.out[row(next)].iter().copied();
            self.probes[3].see(wrong, &self.out[row(i)], &self.out_bound[row(i)]);
        }
    }

    /// The probe that the check would miss on this case, if there is one.
    pub fn vacuous(&self) -> Option<&'static str> {
        let missed = self.probes.iter().position(Probe::is_missed)?;
        Some(PROBES[missed])
    }
}

/// The terms of the bound at element (s, h, d) of a case; with the answer's value and the bound.
pub fn explain_element(
    case: &Case,
    inputs: &Inputs,
    arithmetic: &Arithmetic,
    (s, h, d): (usize, usize, usize),
) -> (f64, f64, Vec<Term>) {
    let head = head_of(case, inputs, s, h);
    let (mut answer, mut limits) = (Answer::default(), Bound::default());
    attend(&head, &mut answer);
    bound(&head, &answer, arithmetic, &mut limits);
    (answer.out[d], limits.out[d], explain(&head, &answer, arithmetic, d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::regimes::generate;
    use crate::problem::DType;

    fn expected(id: &str) -> Expected {
        let case: Case = id.parse().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        Expected::new(&case, &inputs, &Arithmetic::single(case.dtypes.out))
    }

    #[test]
    fn ordinary_cases_are_not_vacuous() {
        for data in ["gauss", "coded", "onehot:first", "large:3e4", "equal", "constv", "wide"] {
            for dt in ["f32", "f16", "bf16"] {
                let id = format!("b=2,hq=4,hkv=2,d=16,n=[40,0],w=33,dt={dt},data={data},seed=9");
                let e = expected(&id);
                assert_eq!(e.vacuous(), None, "{id}: {:?}", e.probes);
            }
        }
    }

    /// Q·K that cannot be told from uniform weights: scores of 1e-6 in a bf16 output.
    #[test]
    fn a_case_whose_check_sees_nothing_is_vacuous() {
        let case: Case = "hq=1,hkv=1,d=16,n=40,dt=bf16".parse().unwrap();
        let mut inputs = generate(&case, &[]).unwrap();
        inputs.q.values.iter_mut().for_each(|q| *q *= 1e-6);
        let e = Expected::new(&case, &inputs, &Arithmetic::single(DType::BF16));
        assert_eq!(e.vacuous(), Some("the mean of V"));
    }

    #[test]
    fn the_gate_skips_what_cannot_differ() {
        // One head, one key, V constant: only zeros differ (and the dropped key, which is zeros).
        let e = expected("hq=1,hkv=1,d=4,n=1,data=constv");
        assert_eq!(e.vacuous(), None);
        assert!(!e.probes[1].differs && !e.probes[3].differs, "{:?}", e.probes);
        let empty = expected("hq=1,hkv=1,d=4,n=0");
        assert!(empty.probes.iter().all(|p| !p.differs));
        assert_eq!(empty.out_bound.len(), 4);
    }
}
