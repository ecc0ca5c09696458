//! The figures of the built-in kernels, as kept in `expected.json`.

use super::super::bench::Bench;
use super::{builder, rows};
use attnbench::inspect::compare::place;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The compiler's major version, and of each row VGPRs, SGPRs, static LDS: what the code decides alone.
#[test]
fn built_in_kernels_neither_spill_nor_use_scratch_and_have_the_figures_kept() {
    let Some(builder) = builder() else { return };
    let mode = std::env::var("ATTNBENCH_INSPECT").unwrap_or_default();
    let all = matches!(mode.as_str(), "all" | "write");
    let arch = if all { "gfx90a,gfx942,gfx1100,gfx1201" } else { "gfx942,gfx1100" };
    let mut command = vec!["inspect", "--arch", arch, "--json", "-", "--deny", "spills,scratch"];
    if !all {
        command.extend(["--dtype", "f16"]);
    }
    let bench = Bench::new();
    let told = rows(&bench.run(command).ends_with(0));
    assert!(told.len() >= if all { 190 } else { 24 }, "{}", told.len());
    for row in &told {
        let no_spill = !row.spills() && !row.uses_scratch() && row.fault.is_none();
        assert!(no_spill && row.counts.unwrap().scratch == 0, "{row:?}");
    }

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("props/inspect/expected.json");
    let figures: BTreeMap<String, Value> =
        told.iter().map(|r| (place(r), json!([r.vgprs, r.sgprs, r.lds_static_bytes]))).collect();
    if mode == "write" {
        let lines: Vec<String> =
            figures.iter().map(|(name, f)| format!("    {}: {f}", json!(name))).collect();
        let text = format!(
            "{{\n  \"clang\": {},\n  \"vgprs, sgprs, static LDS\": {{\n{}\n  }}\n}}\n",
            builder.compiler.major(),
            lines.join(",\n")
        );
        std::fs::write(file, text).unwrap();
        return;
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    if kept["clang"] != builder.compiler.major() {
        eprintln!("registers are not compared: kept are those of clang {}", kept["clang"]);
        return;
    }
    for (name, figure) in &figures {
        let want = &kept["vgprs, sgprs, static LDS"][name];
        assert_eq!(want, figure, "{name}; if that is meant, write them again: see the README");
    }
}
