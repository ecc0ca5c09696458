//! Figures of planted faults: which data show them first.

use super::heat::{Cell, Heat};
use super::{Drawn, Figure, counted, list, text};
use serde_json::Value;

/// Faults by the regime of data that showed them first.
pub(super) fn figures(documents: &[&Value]) -> Vec<Figure> {
    documents.iter().filter_map(|d| matrix(d)).collect()
}

/// The family of a regime: `onehot` of `onehot:first`.
fn family(fault: &Value) -> &str {
    text(fault, "regime").split(':').next().unwrap_or("")
}

fn matrix(document: &Value) -> Option<Figure> {
    let faults = list(document, "faults");
    let caught: Vec<&Value> = faults.iter().filter(|f| f["cases"].is_u64()).collect();
    let count = |of: &dyn Fn(&Value) -> bool| caught.iter().filter(|f| of(f)).count();
    let by_size = |names: &mut Vec<&str>, of: &dyn Fn(&Value, &str) -> bool| {
        names.sort_unstable();
        names.dedup();
        names.sort_by_key(|name| std::cmp::Reverse(count(&|f| of(f, name))));
    };
    let mut regimes: Vec<&str> = caught.iter().map(|f| family(f)).collect();
    by_size(&mut regimes, &|f, name| family(f) == name);
    let mut kernels: Vec<&str> = caught.iter().map(|f| text(f, "kernel")).collect();
    by_size(&mut kernels, &|f, name| text(f, "kernel") == name);
    kernels.truncate(12);
    regimes.truncate(40);
    let first = *regimes.first()?;
    let most = kernels
        .iter()
        .flat_map(|k| regimes.iter().map(move |r| (*k, *r)))
        .map(|(k, r)| count(&|f| text(f, "kernel") == k && family(f) == r))
        .max()?;
    let cell = |n: usize| match n {
        0 => Cell::Empty,
        n => Cell::Of(libm::sqrt(n as f64), n.to_string()),
    };
    let rows = regimes
        .iter()
        .map(|regime| {
            let all = count(&|f| family(f) == *regime);
            let mut cells = vec![cell(all)];
            let own = |kernel: &&str| {
                cell(count(&|f| text(f, "kernel") == *kernel && family(f) == *regime))
            };
            cells.extend(kernels.iter().map(own));
            ((*regime).to_owned(), cells)
        })
        .collect();
    let mut columns = vec!["all".to_owned()];
    columns.extend(kernels.iter().map(|k| k.replace('_', "\n")));
    let at_once = count(&|f| f["cases"] == 1);
    let title = format!(
        "{} of {} planted are caught, {at_once} of them by the first case; {} are first caught on other data than {first}",
        caught.len(),
        counted(faults.len(), "fault"),
        caught.len() - count(&|f| family(f) == first)
    );
    let heat = Heat {
        title,
        caption: format!(
            "Faults by the regime of data of the case that caught them, and the kernel that they were planted into; a \
             sweep draws among all regimes, {} cases at most. From `attnbench sweep`, by `{}`.",
            document["cases"],
            text(document, "command")
        ),
        axes: ("regime of data".into(), "kernel".into()),
        columns,
        rows,
        range: (0.0, libm::sqrt(most as f64) * 1.2),
        key: String::new(),
        good: String::new(),
        gaps: Vec::new(),
    };
    Some(Figure::new("faults-by-regime", Drawn::Heat(heat)))
}
