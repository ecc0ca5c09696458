//! Blocks that hand their sums to the last of them: on AMD each wave's stores are done before the ticket.

use super::super::bench::{Bench, manifest, mutated};
use super::builder;
use attnbench::inspect::asm::mnemonic;
use std::path::Path;

/// The tickets in what `inspect --asm` printed, each with whether the barrier before it waits for the
/// stores before that: by target.
fn tickets(assembly: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let (mut target, mut code) = (String::new(), Vec::new());
    for line in assembly.lines().chain(["gfx"]) {
        if !line.starts_with("gfx") {
            code.extend(mnemonic(line).map(|word| (word, line)));
            continue;
        }
        let is_ticket = |word: &str| word.contains("_atomic_add") || word.contains("_atomic_inc");
        for at in (0..code.len()).filter(|at| is_ticket(code[*at].0)) {
            let barrier = code[..at].iter().rposition(|(word, _)| word.starts_with("s_barrier"));
            let before = &code[..barrier.expect("a barrier before the ticket")];
            let store = before.iter().rposition(|(word, _)| word.contains("_store_"));
            let between = &before[store.expect("a store before the barrier")..];
            let waits = between.iter().any(|(word, line)| match *word {
                "s_waitcnt" => line.contains("vmcnt(0)"),
                "s_waitcnt_vscnt" | "s_wait_storecnt" => line.contains("0x0"),
                _ => false,
            });
            found.push((target.clone(), waits));
        }
        target = line.split(' ').next().unwrap_or_default().to_owned();
        code.clear();
    }
    found
}

fn of_kernel(bench: &Bench, kernel: &Path, targets: &str) -> Vec<(String, bool)> {
    let kernel = kernel.to_str().expect("a plain path");
    let command =
        ["inspect", kernel, "--arch", targets, "--dtype", "f16", "--head-dim", "64", "--asm"];
    let found = tickets(&bench.run(command).ends_with(0).stdout);
    for target in targets.split(',') {
        assert!(found.iter().any(|(of, _)| of == target), "{kernel}: no ticket for {target}");
    }
    found
}

#[test]
fn every_wave_waits_for_its_stores_before_the_blocks_ticket() {
    if builder().is_none() {
        return;
    }
    let bench = Bench::new();
    let targets = "gfx90a,gfx942,gfx1100,gfx1201";
    for kernel in ["decode_fast.toml", "decode_vector.toml"] {
        for (target, waits) in of_kernel(&bench, &manifest(kernel), targets) {
            assert!(waits, "{kernel} on {target}: the ticket is taken with stores under way");
        }
    }
    // As it was: gfx9's barrier alone waits for nothing.
    let fence = "    __builtin_amdgcn_fence(__ATOMIC_RELEASE, \"agent\");\n";
    let folder = mutated("no_release", &[("portable.h", fence, "")]);
    for (target, waits) in of_kernel(&bench, &folder.join("decode_fast.toml"), "gfx90a,gfx942") {
        assert!(!waits, "{target}: a wait without the fence is not seen to be missing");
    }
}
