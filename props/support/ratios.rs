//! Errors over their bounds, many of them.

/// The error of a value over its bound.
pub fn ratio(got: f64, want: f64, limit: f64) -> f32 {
    match (got - want).abs() {
        _ if got == want => 0.0,
        error if error.is_finite() => (error / limit) as f32,
        _ => f32::INFINITY,
    }
}

/// The value that a share of all does not exceed.
pub fn quantile(sorted: &[f32], share: f64) -> f32 {
    let at = (share * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
