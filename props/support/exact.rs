//! Attention from its definition in binary floating point of [`PRECISION`] bits, with an unlimited
//! exponent: nothing underflows, and its own error is far below a double's.

use super::cases::Head;
use dashu_float::FBig;
use dashu_float::round::mode::HalfEven;

/// A number of [`PRECISION`] bits.
pub type Big = FBig<HalfEven, 2>;

/// Bits of every number here. `tanh(x)` from exponentials loses `-log2 |x|` bits to cancellation
/// and a sum of terms of both signs as many as it cancels: 200 bits leave 147 of them below a
/// double's last.
const PRECISION: usize = 200;

/// A double, exactly.
pub fn big(x: f64) -> Big {
    Big::try_from(x).expect("a finite number").with_precision(PRECISION).value()
}

/// The difference of a double and an exact value, rounded to a double.
pub fn difference(x: f64, exact: &Big) -> f64 {
    (big(x) - exact).to_f64().value().abs()
}

/// The right answer for one head.
pub struct Exact {
    /// `[head_dim_v]`.
    pub out: Vec<Big>,
    /// Base e; `None` where nothing is attended and there is no sink: minus infinity.
    pub lse: Option<Big>,
}

fn tanh(x: &Big) -> Big {
    let square = (x * big(2.0)).exp();
    (&square - big(1.0)) / (square + big(1.0))
}

/// Evaluates one head: `lse = ln(sum exp(s_n) [+ exp(sink)])`, `o = sum exp(s_n - lse) v_n`. No
/// maximum is subtracted: the exponent has no limit.
pub fn attend(head: &Head<'_, f32>) -> Exact {
    let (d, dv) = (head.q.len(), head.head_dim_v);
    let scores: Vec<Big> = head
        .k
        .chunks_exact(d)
        .map(|row| {
            let dot = row.iter().zip(head.q).fold(big(0.0), |sum, (k, q)| {
                // The product of two f32 is exact in a double.
                sum + big(f64::from(*k) * f64::from(*q))
            });
            let s = dot * big(head.scale);
            if head.softcap > 0.0 {
                let cap = big(head.softcap);
                &cap * tanh(&(s / &cap))
            } else {
                s
            }
        })
        .collect();
    let weights: Vec<Big> = scores.iter().map(Big::exp).collect();
    let sink = head.sink.map(|sink| big(sink).exp());
    let mass = weights.iter().chain(&sink).fold(big(0.0), |sum, w| sum + w);
    if weights.is_empty() && sink.is_none() {
        return Exact { out: vec![big(0.0); dv], lse: None };
    }
    let out = (0..dv).map(|d| {
        let terms = weights.iter().zip(head.v.chunks_exact(dv));
        terms.fold(big(0.0), |sum, (w, row)| sum + w * big(f64::from(row[d]))) / &mass
    });
    Exact { out: out.collect(), lse: Some(mass.ln()) }
}
