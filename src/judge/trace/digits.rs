//! What printing with six significant digits does to a number.

/// Significant digits of a trace's numbers.
const DIGITS: i32 = 6;

/// Half a unit in the last printed digit of `x`: how far the number can be from what was printed of
/// it. Zero was printed of zero only, since the digits are significant ones.
pub fn half_unit(x: f64) -> f64 {
    let x = x.abs();
    if x == 0.0 || !x.is_finite() {
        return 0.0;
    }
    let mut exponent = libm::floor(libm::log10(x));
    // why: a logarithm may fall a hair short of a power of ten; the larger unit is the safe one.
    if libm::pow(10.0, exponent + 1.0) <= x * (1.0 + 1e-12) {
        exponent += 1.0;
    }
    0.5 * libm::pow(10.0, exponent - f64::from(DIGITS - 1))
}

/// The mean of absolute differences.
pub fn mean_abs(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).sum::<f64>() / a.len().max(1) as f64
}

/// A number for a note: three digits.
pub fn short(x: f64) -> String {
    let a = x.abs();
    if x == 0.0 {
        "0".to_owned()
    } else if (1e-3..1e4).contains(&a) {
        let decimals = (2.0 - libm::floor(libm::log10(a))).clamp(0.0, 5.0) as usize;
        format!("{x:.decimals$}")
    } else {
        format!("{x:.1e}")
    }
}

/// A share in percent for a note.
pub fn percent(x: f64) -> String {
    let p = 100.0 * x;
    if p != 0.0 && p.abs() < 0.1 { format!("{p:.1e} %") } else { format!("{p:.1} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_unit_is_that_of_the_sixth_digit() {
        for (x, want) in [
            (1.17157, 5e-6),
            (-9.99999, 5e-6),
            (1.0, 5e-6),
            (10.0, 5e-5),
            (1000.0, 5e-3),
            (0.001, 5e-9),
            (123456.0, 0.5),
            (4.06021e-6, 5e-12),
            (1.4013e-45, 5e-51),
        ] {
            let got = half_unit(x);
            assert!((got / want - 1.0).abs() < 1e-9, "{x}: {got:e}, not {want:e}");
        }
        assert_eq!((half_unit(0.0), half_unit(f64::NAN)), (0.0, 0.0));
    }

    /// Whatever is printed lies within half a unit of what it was printed from.
    #[test]
    fn printed_numbers_are_within_half_a_unit() {
        let mut x = 1.234_567_890_123e-40;
        for _ in 0..20_000 {
            x *= 1.009_7;
            let printed: f64 = format!("{x:.5e}").parse().unwrap();
            assert!((printed - x).abs() <= half_unit(printed) * (1.0 + 1e-9), "{x:e}");
        }
    }

    #[test]
    fn numbers_in_notes_have_three_digits() {
        let shown: Vec<String> =
            [0.0, 1.32949, 0.2699, -825.6, 8256.0, 6.7e-5, 53210.0].map(short).into();
        assert_eq!(shown, ["0", "1.33", "0.270", "-826", "8256", "6.7e-5", "5.3e4"]);
        assert_eq!([0.2227, 3e-7].map(percent), ["22.3 %", "3.0e-5 %"]);
    }
}
