//! One document beside another.

use super::document::{Changed, Document, Row, Versus};
use super::stats::{change, geometric_mean};

/// Each timed row beside the row of the same key of an earlier document, where it has one.
pub fn changes(new: &[Row], old: &Document, tolerance: f64) -> Vec<Changed> {
    let mut changes = Vec::new();
    for row in new {
        let same =
            old.rows.iter().find(|other| other.key() == row.key() && row.params == other.params);
        let same = same.or_else(|| old.rows.iter().find(|other| other.key() == row.key()));
        let Some((us, before)) = row.us.as_ref().zip(same.and_then(|row| row.us.as_ref())) else {
            continue;
        };
        let (ratio, (low, high), change) = change(us, before, tolerance);
        changes.push(Changed {
            kernel: row.kernel.clone(),
            shape: row.shape.clone(),
            layout: row.layout.clone(),
            old_us: before.median,
            us: us.median,
            ratio,
            low,
            high,
            change,
        });
    }
    changes
}

/// Each timed row beside the fastest of others on the same shape and layout, where there is one.
pub fn versus(rows: &[Row], peers: &[Row]) -> Vec<Versus> {
    let timed = |row: &&Row| row.us.is_some();
    let of = |row: &Row| row.us.as_ref().map_or(f64::INFINITY, |us| us.median);
    let mut all = Vec::new();
    for row in rows.iter().filter(timed) {
        let same = |peer: &&Row| peer.shape == row.shape && peer.layout == row.layout;
        let best = peers.iter().filter(timed).filter(same).min_by(|a, b| of(a).total_cmp(&of(b)));
        if let Some(best) = best {
            all.push(Versus {
                kernel: row.kernel.clone(),
                shape: row.shape.clone(),
                layout: row.layout.clone(),
                us: of(row),
                peer: best.kernel.clone(),
                peer_us: of(best),
                ratio: of(best) / of(row),
            });
        }
    }
    all
}

/// Of a kernel's rows beside others: the geometric mean of the ratios, and the least of them.
pub fn summary(versus: &[Versus], kernel: &str) -> Option<(f64, f64)> {
    let ratios: Vec<f64> =
        versus.iter().filter(|v| v.kernel == kernel).map(|versus| versus.ratio).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    Some((geometric_mean(&ratios)?, least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::{Change, Times};

    fn row(kernel: &str, shape: &str, us: f64) -> Row {
        let us = Times::of(&[vec![us], vec![1.001 * us]]);
        let [kernel, shape] = [kernel, shape].map(str::to_owned);
        Row { kernel, shape, layout: "NHD".into(), us, ..Row::default() }
    }

    #[test]
    fn the_best_of_the_others_counts() {
        let rows = [row("ours", "a", 10.0), row("ours", "b", 10.0), row("ours", "c", 1.0)];
        let mut peers = vec![row("x", "a", 12.0), row("y", "a", 11.0), row("x", "b", 5.0)];
        peers.push(Row { us: None, ..row("z", "a", 1.0) });
        peers.push(Row { layout: "HND".into(), ..row("z", "a", 1.0) });
        let all = versus(&rows, &peers);
        let of: Vec<(&str, &str)> = all.iter().map(|v| (&*v.shape, &*v.peer)).collect();
        assert_eq!(of, [("a", "y"), ("b", "x")]);
        let (mean, least) = summary(&all, "ours").unwrap();
        assert!((mean - (1.1f64 * 0.5).sqrt()).abs() < 1e-9 && (least - 0.5).abs() < 1e-9);
        assert_eq!(summary(&all, "other"), None);
    }

    #[test]
    fn rows_of_the_same_key_are_compared() {
        let old = Document {
            rows: vec![row("k", "a", 10.0), row("k", "b", 10.0)],
            ..Document::default()
        };
        let new = [row("k", "a", 10.5), row("k", "c", 1.0), row("other", "a", 1.0)];
        let all = changes(&new, &old, 0.02);
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].change, all[0].old_us),
            (Change::Slower, old.rows[0].us.clone().unwrap().median)
        );
    }
}
