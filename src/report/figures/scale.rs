//! Axes: where a number lies, and which numbers are written at them.

/// How numbers lie on an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By powers of ten.
    Log10,
    /// By powers of two.
    Log2,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it says, with the unit.
    pub title: String,
    /// How its numbers lie.
    pub scale: Scale,
    /// Its ends.
    pub range: (f64, f64),
}

impl Axis {
    /// An axis that has all of `values`, and a little more; on a linear one zero as well.
    pub fn over(title: &str, scale: Scale, values: impl Iterator<Item = f64>) -> Axis {
        let fits = |x: &f64| x.is_finite() && (scale == Scale::Linear || *x > 0.0);
        let (mut low, mut high) = values
            .filter(fits)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        let range = match scale {
            Scale::Linear => {
                (low.min(0.0), high.max(0.0) * 1.06 + f64::from(u8::from(high <= 0.0)))
            }
            Scale::Log10 => (low / 1.5, high * 1.5),
            Scale::Log2 => (low / 1.25, high * 1.25),
        };
        Axis { title: title.to_owned(), scale, range }
    }

    /// The same between other ends.
    pub fn between(self, low: f64, high: f64) -> Axis {
        Axis { range: (low, high), ..self }
    }

    /// Where a number lies: 0 at the low end, 1 at the high one.
    pub fn place(&self, x: f64) -> f64 {
        let (low, high) = self.range;
        match self.scale {
            Scale::Linear => (x - low) / (high - low),
            _ => libm::log2(x / low) / libm::log2(high / low),
        }
    }

    /// Whether a number is on it.
    pub fn has(&self, x: f64) -> bool {
        x.is_finite() && (-1e-9..=1.0 + 1e-9).contains(&self.place(x))
    }

    /// The numbers written at it, at most `most`, with their words.
    pub fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let (low, high) = self.range;
        let most = most.max(2);
        match self.scale {
            Scale::Linear => {
                let rough = (high - low) / most as f64;
                let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
                let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * power);
                let step = steps.into_iter().find(|s| *s >= rough * 0.999).unwrap_or(steps[4]);
                // Ends too near, or too far, for a step that a number holds.
                let counts = (low / step).abs().max((high / step).abs());
                if !(step > 0.0 && counts < 1e6) {
                    return vec![(low, number(low)), (high, number(high))];
                }
                let first = libm::ceil(low / step - 1e-9) as i64;
                let last = libm::floor(high / step + 1e-9) as i64;
                (first..=last).map(|i| i as f64 * step).map(|x| (x, number(x))).collect()
            }
            Scale::Log10 => powers(10.0, low, high, most, power_of_ten),
            Scale::Log2 => powers(2.0, low, high, most, |e| short(libm::exp2(f64::from(e)))),
        }
    }
}

fn powers(
    base: f64,
    low: f64,
    high: f64,
    most: usize,
    words: impl Fn(i32) -> String,
) -> Vec<(f64, String)> {
    let log = |x: f64| libm::log2(x) / libm::log2(base);
    let (first, last) = (libm::ceil(log(low) - 1e-9) as i32, libm::floor(log(high) + 1e-9) as i32);
    let step = usize::max(1, ((last - first).max(0) as usize + 1).div_ceil(most)) as i32;
    let exponents = (first..=last).filter(|e| e.rem_euclid(step) == 0);
    exponents.map(|e| (libm::pow(base, f64::from(e)), words(e))).collect()
}

/// A power of ten: small ones in full.
pub fn power_of_ten(exponent: i32) -> String {
    match exponent {
        0 => "1".to_owned(),
        1..=3 => number(libm::pow(10.0, f64::from(exponent))),
        _ => format!("10{}", raised(exponent)),
    }
}

fn raised(exponent: i32) -> String {
    let digit = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '⁰',
    };
    exponent.to_string().chars().map(digit).collect()
}

/// A number in few letters: 4k for 4096, as lengths are said.
pub fn short(x: f64) -> String {
    const MI: f64 = 1024.0 * 1024.0;
    match x {
        _ if x >= MI && x % MI == 0.0 => format!("{}M", x / MI),
        _ if x >= 1024.0 && x % 1024.0 == 0.0 => format!("{}k", x / 1024.0),
        _ => number(x),
    }
}

/// A number with the digits that it has.
pub fn number(x: f64) -> String {
    let text = match x.abs() {
        0.0 => "0".to_owned(),
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 0.01 => format!("{x:.2}"),
        _ => return format!("{x:.1e}"),
    };
    match text.split_once('.') {
        Some((whole, "00")) => whole.to_owned(),
        Some(_) => text.trim_end_matches('0').to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(axis: &Axis, most: usize) -> Vec<String> {
        axis.ticks(most).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_and_not_too_many() {
        let axis = |scale, low, high| Axis { title: String::new(), scale, range: (low, high) };
        assert_eq!(
            words(&axis(Scale::Linear, 0.0, 3300.0), 7),
            ["0", "500", "1000", "1500", "2000", "2500", "3000"]
        );
        assert_eq!(
            words(&axis(Scale::Linear, 0.0, 1.06), 6),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(words(&axis(Scale::Log10, 2e-7, 3e-3), 9), ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³"]);
        assert_eq!(words(&axis(Scale::Log10, 2e-7, 3e3), 6), ["10⁻⁶", "10⁻⁴", "10⁻²", "1", "100"]);
        assert_eq!(
            words(&axis(Scale::Log2, 1.0, 70000.0), 9),
            ["1", "4", "16", "64", "256", "1k", "4k", "16k", "64k"]
        );
    }

    #[test]
    fn numbers_lie_where_their_scale_says() {
        let axis = Axis::over("", Scale::Log2, [1.0, 256.0].into_iter()).between(1.0, 256.0);
        assert!((axis.place(16.0) - 0.5).abs() < 1e-12);
        assert!(axis.has(256.0) && !axis.has(512.0) && !axis.has(0.0) && !axis.has(f64::NAN));
        let axis = Axis::over("", Scale::Linear, [3.0, 5.0].into_iter());
        assert!(axis.place(0.0) == 0.0 && axis.has(5.0));
    }

    #[test]
    fn an_axis_of_nothing_has_ends() {
        for scale in [Scale::Linear, Scale::Log10, Scale::Log2] {
            let axis = Axis::over("", scale, std::iter::empty());
            assert!(axis.range.0 < axis.range.1 && !axis.ticks(5).is_empty());
        }
    }
}
