//! Figures of traces: how the layout probe chose.

use super::rows::{Row, Rows};
use super::scale::{Axis, Scale};
use super::{Drawn, Figure, counted, list, number, text};
use serde_json::Value;

/// All figures of the documents' rows.
pub(super) fn figures(documents: &[&Value]) -> Vec<Figure> {
    probe(documents).into_iter().collect()
}

/// The mean errors of the probe's two layouts, and what the kernel's own error turned out to be.
fn probe(documents: &[&Value]) -> Option<Figure> {
    let probed: Vec<&Value> = documents
        .iter()
        .flat_map(|d| list(d, "rows"))
        .filter(|r| number(r, "v_mae_row").is_finite() && number(r, "v_mae_col").is_finite())
        .take(24)
        .collect();
    let rows: Vec<Row> = probed
        .iter()
        .map(|r| {
            let file = text(r, "file").rsplit(['/', '\\']).next().unwrap_or("");
            let values = vec![
                (0, number(r, "v_mae_row")),
                (1, number(r, "v_mae_col")),
                (2, number(r, "pv_mae")),
            ];
            let name = format!(
                "{}: {}, head {}",
                file.trim_end_matches(".jsonl"),
                text(r, "prompt_id"),
                r["head"]
            );
            Row { name, values, note: format!("says {}", text(r, "v_layout_best")) }
        })
        .collect();
    let values = || rows.iter().flat_map(|r| &r.values).map(|v| v.1).filter(|x| *x > 0.0);
    let least = values().reduce(f64::min)?;
    let says = |word: &str| probed.iter().filter(|r| text(r, "v_layout_best") == word).count();
    if says("col") + says("row") == 0 {
        return None;
    }
    let of = |word: &'static str, key: &'static str| {
        let asked = probed.iter().filter(move |r| text(r, "v_layout_best") == word);
        asked.map(move |r| number(r, key)).fold(f64::INFINITY, f64::min)
    };
    let title = if says("col") > 0 {
        format!(
            "The layout probe says col {} of {}, for an error of {:.2} or more; the least error anywhere is {least:.0e}",
            counted(says("col"), "time"),
            probed.len(),
            of("col", "v_mae_col")
        )
    } else {
        format!(
            "The layout probe says row {} of {}, for an error of {:.0e} or more",
            counted(says("row"), "time"),
            probed.len(),
            of("row", "v_mae_row")
        )
    };
    let rows = Rows {
        title,
        caption: "Mean errors in the trace of P·V against a reference that read V row by row, one that read it \
                  column-wise, and that of P·V as it stood. The probe says which of the two is less, whether or not \
                  either is right. From `attnbench trace --json`."
            .into(),
        series: vec!["V by rows".into(), "V by columns".into(), "P·V, as traced".into()],
        axis: Axis::over("mean absolute error", Scale::Log10, values()),
        rule: None,
        rows,
    };
    Some(Figure::new("layout-probe", Drawn::Rows(rows)))
}
