//! Keys of the format that this program does not drive yet: refused by name, not as mistakes.

/// Tables and keys of the manifest itself.
const TABLES: [&str; 10] =
    ["pages", "scales", "mla", "types", "merge", "sinks", "lse", "bias", "rope", "struct"];
/// Keys of a table, by its path.
const KEYS: [(&str, &[&str]); 4] = [
    ("layout", &["kv", "x", "v_x"]),
    (
        "supports",
        &[
            "queries",
            "ragged",
            "mask",
            "alibi",
            "bias",
            "topk",
            "duplicates",
            "writes_cache",
            "page_size",
            "wave",
            "num_heads",
            "num_kv_heads",
            "scale",
            "layouts",
            "capacity",
            "max_score",
        ],
    ),
    (
        "numerics",
        &[
            "scores",
            "q_scaled",
            "products",
            "partials",
            "dequantised",
            "row_sum",
            "row_sum_lanes",
            "matrix",
            "tanh_abs",
            "sum_eps",
        ],
    ),
    ("supports.dtype", &["k", "v"]),
];

/// A key as a message names it, where the format has it and this program does not drive it.
pub(super) fn not_driven(path: &str, key: &str) -> Option<String> {
    if path.is_empty() {
        let brackets = if key == "struct" { ("[[", "]]") } else { ("[", "]") };
        return TABLES.contains(&key).then(|| format!("{}{key}{}", brackets.0, brackets.1));
    }
    // An element of a list is `supports.dtype[0]`.
    let table = path.split('[').next().unwrap_or(path);
    let (_, keys) = KEYS.iter().find(|(of, _)| *of == table)?;
    let place = match table.split_once('.') {
        Some((table, list)) => format!("[{table}] {list}"),
        None => format!("[{table}]"),
    };
    keys.contains(&key).then(|| format!("{place} {key}"))
}
