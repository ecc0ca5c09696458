//! How far a kernel's sum lies from another, element by element, and how far rounding can put it.

/// The residuals of a sum against another, and the limit of rounding on each.
pub struct Residuals {
    /// `[dims]`.
    pub abs: Vec<f64>,
    /// `[dims]`.
    pub rounding: Vec<f64>,
}

impl Residuals {
    /// Of `gpu` against another sum; `slack` is the limit at an element.
    pub fn new(gpu: &[f64], against: &[f64], slack: impl Fn(usize) -> f64) -> Residuals {
        let abs = gpu.iter().zip(against).map(|(g, a)| (g - a).abs()).collect();
        Residuals { abs, rounding: (0..gpu.len()).map(slack).collect() }
    }

    /// The largest residual over rounding and `more`, and its element.
    pub fn worst(&self, more: f64) -> (usize, f64) {
        let ratio = |d: usize| match self.abs[d] {
            0.0 => 0.0,
            x => x / (self.rounding[d] + more),
        };
        (0..self.abs.len())
            .map(|d| (d, ratio(d)))
            .fold((0, 0.0), |a, b| if b.1 > a.1 { b } else { a })
    }

    /// The largest residual.
    pub fn largest(&self) -> f64 {
        self.abs.iter().copied().fold(0.0, f64::max)
    }

    /// The mean residual.
    pub fn mean(&self) -> f64 {
        mean(&self.abs)
    }

    /// The mean of the limits of rounding: the level that a right kernel's mean error stays under.
    pub fn mean_rounding(&self) -> f64 {
        mean(&self.rounding)
    }
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len().max(1) as f64
}
