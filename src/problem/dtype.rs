//! Number formats of tensors: sizes, rounding and the constants that the error bound needs.
//!
//! Every format is described by its radix-2 parameters, so that one piece of integer arithmetic
//! rounds to any of them. Conversions through an intermediate type (f64 to f32 to f16) round twice
//! and are off by one unit at midpoints; [`DType::round`] rounds once.

use super::text::clip;
use std::fmt;
use std::str::FromStr;

/// A tensor's element type, named as in a kernel manifest (`f16`) and as in safetensors (`F16`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary64; only captured files hold it.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// OCP 8-bit float, 4 exponent bits, largest 448, no infinity.
    F8E4M3,
    /// OCP 8-bit float, 5 exponent bits, IEEE-like.
    F8E5M2,
    /// AMD gfx942's E4M3: largest 240, one NaN, no negative zero.
    F8E4M3Fnuz,
    /// AMD gfx942's E5M2: one NaN, no negative zero.
    F8E5M2Fnuz,
}

/// What was wrong with the name of a number format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown dtype `{0}`: use one of f32, f16, bf16 (f64 and f8_* occur in captured files)")]
pub struct UnknownDType(pub String);

impl DType {
    /// Every format, widest first.
    pub const ALL: [DType; 8] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8E4M3,
        DType::F8E5M2,
        DType::F8E4M3Fnuz,
        DType::F8E5M2Fnuz,
    ];

    /// The name used in manifests, case ids and tables.
    pub fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F8E4M3 => "f8_e4m3",
            DType::F8E5M2 => "f8_e5m2",
            DType::F8E4M3Fnuz => "f8_e4m3fnuz",
            DType::F8E5M2Fnuz => "f8_e5m2fnuz",
        }
    }

    /// The C++ type name that `{q}`, `{kv}` and `{out}` stand for in a manifest (HIP's names).
    pub fn cpp_name(self) -> &'static str {
        match self {
            DType::F64 => "double",
            DType::F32 => "float",
            DType::F16 => "__half",
            DType::BF16 => "__hip_bfloat16",
            DType::F8E4M3 => "__hip_fp8_e4m3",
            DType::F8E5M2 => "__hip_fp8_e5m2",
            DType::F8E4M3Fnuz => "__hip_fp8_e4m3_fnuz",
            DType::F8E5M2Fnuz => "__hip_fp8_e5m2_fnuz",
        }
    }

    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            _ => 1,
        }
    }

    /// Whether kernels can be driven with it; the 8-bit formats are parsed but not driven yet.
    pub fn is_driven(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// (significand bits with the hidden one, exponent of the least normal, largest finite value).
    fn format(self) -> (i32, i32, f64) {
        match self {
            DType::F64 => (53, -1022, f64::MAX),
            DType::F32 => (24, -126, f32::MAX as f64),
            DType::F16 => (11, -14, 65504.0),
            DType::BF16 => (8, -126, 3.389_531_389_251_535_5e38),
            DType::F8E4M3 => (4, -6, 448.0),
            DType::F8E5M2 => (3, -14, 57344.0),
            DType::F8E4M3Fnuz => (4, -7, 240.0),
            DType::F8E5M2Fnuz => (3, -15, 57344.0),
        }
    }

    /// Unit roundoff `u`: half the distance from 1 to the next larger number.
    pub fn unit_roundoff(self) -> f64 {
        pow2(-self.format().0)
    }

    /// The least positive number, a subnormal.
    pub fn min_subnormal(self) -> f64 {
        let (bits, emin, _) = self.format();
        pow2(emin - (bits - 1))
    }

    /// The least positive normal number.
    pub fn min_normal(self) -> f64 {
        pow2(self.format().1)
    }

    /// The largest finite number.
    pub fn max_finite(self) -> f64 {
        self.format().2
    }

    /// Rounds to the nearest representable number, ties to even, once.
    ///
    /// A value that rounds beyond [`DType::max_finite`] becomes an infinity of its sign (also for
    /// the formats that have none: the caller decides what to store). NaN stays NaN.
    pub fn round(self, x: f64) -> f64 {
        if self == DType::F64 || x == 0.0 || !x.is_finite() {
            return x;
        }
        let (bits, emin, max) = self.format();
        let exponent = ilogb(x).max(emin);
        // One unit in the last place at x; a power of two, so the division below is exact.
        let ulp = pow2(exponent - (bits - 1));
        let rounded = (x / ulp).round_ties_even() * ulp;
        if rounded.abs() > max { f64::INFINITY.copysign(x) } else { rounded }
    }

    /// Reads element `index` of a little-endian buffer, exactly.
    ///
    /// # Panics
    /// If the buffer is shorter than `index + 1` elements, or for 8-bit formats, which are not
    /// driven yet.
    pub fn load(self, bytes: &[u8], index: usize) -> f64 {
        let at = index * self.size();
        match self {
            DType::F64 => f64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")),
            DType::F32 => f32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as f64,
            DType::F16 => half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f64(),
            DType::BF16 => half::bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f64(),
            other => panic!("{} is parsed but not converted yet", other.name()),
        }
    }

    /// Rounds `x` and writes it as element `index` of a little-endian buffer.
    ///
    /// # Panics
    /// As [`DType::load`].
    pub fn store(self, bytes: &mut [u8], index: usize, x: f64) {
        let at = index * self.size();
        // The casts below are exact: the value was rounded to the format already.
        let x = self.round(x);
        match self {
            DType::F64 => bytes[at..at + 8].copy_from_slice(&x.to_le_bytes()),
            DType::F32 => bytes[at..at + 4].copy_from_slice(&(x as f32).to_le_bytes()),
            DType::F16 => bytes[at..at + 2].copy_from_slice(&half::f16::from_f64(x).to_le_bytes()),
            DType::BF16 => {
                bytes[at..at + 2].copy_from_slice(&half::bf16::from_f64(x).to_le_bytes())
            }
            other => panic!("{} is parsed but not converted yet", other.name()),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        DType::ALL.into_iter().find(|d| d.name() == s).ok_or_else(|| UnknownDType(clip(s)))
    }
}

/// `2^n`, exact for every `n` that a double can hold, subnormals included.
pub fn pow2(n: i32) -> f64 {
    libm::ldexp(1.0, n)
}

/// Exponent of a finite non-zero double: `2^e <= |x| < 2^(e+1)`.
fn ilogb(x: f64) -> i32 {
    libm::ilogb(x)
}

/// The three element types of a decode case: query, cache, output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DTypes {
    /// Type of `q`.
    pub q: DType,
    /// Type of `k` and `v`.
    pub kv: DType,
    /// Type of `out`.
    pub out: DType,
}

impl DTypes {
    /// The same type for all three.
    pub fn uniform(dtype: DType) -> Self {
        DTypes { q: dtype, kv: dtype, out: dtype }
    }
}

impl fmt::Display for DTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.q == self.kv && self.kv == self.out {
            write!(f, "{}", self.q)
        } else {
            write!(f, "{}/{}/{}", self.q, self.kv, self.out)
        }
    }
}

impl FromStr for DTypes {
    type Err = UnknownDType;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = s.split('/').collect();
        match parts[..] {
            [all] => Ok(DTypes::uniform(all.parse()?)),
            [q, kv, out] => Ok(DTypes { q: q.parse()?, kv: kv.parse()?, out: out.parse()? }),
            _ => Err(UnknownDType(clip(s))),
        }
    }
}

/// Which types of a kernel a user wants: `f16` is every triple whose cache has that type, `f16/f16/f16` is
/// that triple of q, cache and out and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedTypes {
    /// The cache has this type; q and out may have any.
    Cache(DType),
    /// These three.
    Exactly(DTypes),
}

impl WantedTypes {
    /// Whether a triple is among those wanted.
    pub fn includes(self, dtypes: &DTypes) -> bool {
        match self {
            WantedTypes::Cache(kv) => dtypes.kv == kv,
            WantedTypes::Exactly(wanted) => *dtypes == wanted,
        }
    }
}

impl fmt::Display for WantedTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WantedTypes::Cache(kv) => kv.fmt(f),
            WantedTypes::Exactly(DTypes { q, kv, out }) => write!(f, "{q}/{kv}/{out}"),
        }
    }
}

impl FromStr for WantedTypes {
    type Err = UnknownDType;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(match s.contains('/') {
            true => WantedTypes::Exactly(s.parse()?),
            false => WantedTypes::Cache(s.parse()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_alone_is_the_caches_and_a_triple_is_exact() {
        let mixed: DTypes = "f16/f16/f32".parse().unwrap();
        let same: DTypes = "f16".parse().unwrap();
        for (wanted, takes) in [
            ("f16", [true, true]),
            ("f16/f16/f16", [true, false]),
            ("f16/f16/f32", [false, true]),
            ("f32", [false, false]),
        ] {
            let parsed: WantedTypes = wanted.parse().unwrap();
            assert_eq!([same, mixed].map(|d| parsed.includes(&d)), takes, "{wanted}");
            assert_eq!(parsed.to_string(), wanted);
        }
        assert!("f16/f16".parse::<WantedTypes>().is_err());
        assert!("f17".parse::<WantedTypes>().is_err());
    }

    #[test]
    fn constants_agree_with_the_half_crate_and_std() {
        assert_eq!(DType::F32.unit_roundoff(), f32::EPSILON as f64 / 2.0);
        assert_eq!(DType::F16.unit_roundoff(), half::f16::EPSILON.to_f64() / 2.0);
        assert_eq!(DType::BF16.unit_roundoff(), half::bf16::EPSILON.to_f64() / 2.0);
        assert_eq!(DType::F16.max_finite(), half::f16::MAX.to_f64());
        assert_eq!(DType::BF16.max_finite(), half::bf16::MAX.to_f64());
        assert_eq!(DType::F16.min_normal(), half::f16::MIN_POSITIVE.to_f64());
        assert_eq!(DType::F16.min_subnormal(), half::f16::MIN_POSITIVE_SUBNORMAL.to_f64());
        assert_eq!(DType::BF16.min_subnormal(), half::bf16::MIN_POSITIVE_SUBNORMAL.to_f64());
        assert_eq!(DType::F32.min_subnormal(), f32::from_bits(1) as f64);
    }

    /// Every 16-bit pattern survives a load and a store (NaN payloads aside), and a value a hair
    /// above a midpoint rounds up: the double rounding through f32 would send it to even.
    #[test]
    fn sixteen_bit_formats_round_once_and_trip_exactly() {
        for dtype in [DType::F16, DType::BF16] {
            for bits in 0..=u16::MAX {
                let x = dtype.load(&bits.to_le_bytes(), 0);
                let mut back = [0u8; 2];
                dtype.store(&mut back, 0, x);
                assert!(x.is_nan() || u16::from_le_bytes(back) == bits, "{dtype} {bits:#06x}");
                let next = dtype.load(&(bits.wrapping_add(1)).to_le_bytes(), 0);
                if x.is_finite() && next.is_finite() && bits & 0x7fff != 0x7fff {
                    let mid = x / 2.0 + next / 2.0;
                    let even = if bits & 1 == 0 { x } else { next };
                    assert_eq!(dtype.round(mid), even, "midpoint after {bits:#06x}");
                    let hair = mid + (next - mid) * pow2(-40);
                    assert_eq!(dtype.round(hair), next, "above the midpoint after {bits:#06x}");
                }
            }
        }
    }

    #[test]
    fn f32_rounding_is_the_cast() {
        for bits in (0..=u64::MAX).step_by(0x0003_1415_9265_3589) {
            let x = f64::from_bits(bits);
            let (ours, cast) = (DType::F32.round(x), x as f32 as f64);
            assert!(ours == cast || (ours.is_nan() && cast.is_nan()), "{x:e}: {ours:e} {cast:e}");
        }
    }

    #[test]
    fn overflow_starts_half_a_unit_above_the_largest() {
        assert_eq!(DType::F16.round(65519.99), 65504.0);
        assert_eq!(DType::F16.round(65520.0), f64::INFINITY);
        assert_eq!(DType::F16.round(-65520.0), f64::NEG_INFINITY);
    }

    #[test]
    fn names_parse_back() {
        for d in DType::ALL {
            assert_eq!(d.name().parse::<DType>(), Ok(d));
        }
        let mixed = DTypes { q: DType::F16, kv: DType::F16, out: DType::F32 };
        assert_eq!(mixed.to_string().parse::<DTypes>(), Ok(mixed));
        assert!("f12".parse::<DType>().unwrap_err().to_string().contains("f12"));
    }
}
