//! What the checker costs: each kernel's time under it over its time without, and the share of it that
//! each class of checks takes.
//!
//! A table, not a criterion group: the figures are ratios of times taken in turns, so that a busy
//! machine slows both. The share of a class is what the run gets faster without it; the rest is the
//! instrumented code, and placing each access. Kernels may be named:
//! `cargo bench --bench sanitize -- decode_online`.

mod common;

use attnbench::device::cpu::{CpuConfig, Variant};
use attnbench::device::finding::Class;
use attnbench::judge::trial::Trial;
use attnbench::kernel::Manifest;
use common::{config, kernels, trials_with};
use std::sync::Arc;

/// Turns, of which the fastest run counts.
const TURNS: usize = 15;

/// Shapes with enough work that starting a run is little of it.
fn shape(manifest: &Manifest) -> &'static str {
    match manifest.stage.name() {
        "prefill" => "hq=4,hkv=2,d=64,n=48",
        "merge" => "b=4,hq=32,hkv=32,d=128,n=1",
        "head_combine" => "hq=8,hkv=2,d=64,hidden=512,n=1",
        "norm" => "b=8,hidden=4096,n=1,hq=1,hkv=1,d=1",
        "append" => "b=64,hq=8,hkv=8,d=128,n=16",
        _ => "hq=8,hkv=2,d=64,n=512",
    }
}

fn checked(classes: &[Class]) -> CpuConfig {
    CpuConfig { variant: Variant::Checked, classes: classes.to_vec(), ..config() }
}

fn main() {
    // cargo test --benches runs every bench once, to see that it runs.
    let turns = if std::env::args().any(|arg| arg == "--test") { 1 } else { TURNS };
    let classes = Class::ALL.map(|class| format!(" {class} |")).concat();
    println!("| kernel | case | wave | fast, us | checked, us | slower |{classes}");
    println!("|---|---|--:|--:|--:|--:|{}", "--:|".repeat(Class::ALL.len()));
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let asked = |m: &&Arc<Manifest>| named.is_empty() || named.contains(&m.name);
    for manifest in kernels().iter().filter(asked) {
        for wave in [32, 64] {
            row(manifest, wave, turns);
        }
    }
}

fn row(manifest: &Arc<Manifest>, wave: u32, turns: usize) {
    let mut case = common::case(manifest, shape(manifest));
    case.wave = wave;
    let without = |class: Class| {
        let rest: Vec<Class> = Class::ALL.into_iter().filter(|c| *c != class).collect();
        checked(&rest)
    };
    let mut configs = vec![config(), checked(&Class::ALL)];
    configs.extend(Class::ALL.map(without));
    let mut trials: Vec<Trial> =
        configs.into_iter().flat_map(|config| trials_with(config, manifest, 1)).collect();
    let mut best = vec![f64::MAX; trials.len()];
    for _ in 0..turns {
        for (best, trial) in best.iter_mut().zip(&mut trials) {
            let time = trial.timed(&case, 1).unwrap_or_else(|e| panic!("{case}: {e}"));
            *best = best.min(1e6 * time.as_secs_f64());
        }
    }
    let (fast, all) = (best[0], best[1]);
    let share = |time: f64| format!("{:.0} %", 100.0 * (time / all).max(0.0));
    let classes: Vec<String> = best[2..].iter().map(|less| share(all - less)).collect();
    println!(
        "| {} | {} | {wave} | {fast:.0} | {all:.0} | {:.1} | {} |",
        manifest.name,
        shape(manifest),
        all / fast,
        classes.join(" | ")
    );
}
