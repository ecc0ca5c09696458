//! Small lengths and windows, every one of them from 1 (and the empty sequence): where tiles,
//! splits and reductions have next to nothing to do.

use super::{DECODE, built_in, trial};
use attnbench::judge::trial::Outcome;
use attnbench::problem::Case;

/// Every length up to this, with every window up to two more.
const LARGEST: usize = 9;

fn judge_all(kernels: &[&str], ids: &dyn Fn(usize, usize) -> String) {
    for name in kernels {
        let manifest = built_in(name);
        let mut trial = trial(&manifest);
        for n in 0..=LARGEST {
            let windows = if manifest.supports.window { LARGEST + 2 } else { 0 };
            for w in 0..=windows {
                let mut case: Case = match ids(n, w).parse() {
                    Ok(case) => case,
                    // Nothing is appended to an empty sequence.
                    Err(_) => continue,
                };
                let turn = n + w;
                for param in &manifest.params {
                    let value = param.values[turn % param.values.len()];
                    case.params.insert(param.name.clone(), value);
                }
                case.wave = [32, 64][turn % 2];
                let outcome = trial.judge(&case).expect("it runs");
                assert!(matches!(outcome, Outcome::Passed(_)), "{name} on {case}: {outcome:?}");
            }
        }
    }
}

#[test]
fn decode_of_every_small_length_and_window() {
    judge_all(&DECODE, &|n, w| {
        format!("b=2,hq=4,hkv=2,d=5,n=[{n},{}],cap=12,w={w},data=onehot:any,seed={}", n / 2, n * w)
    });
}

#[test]
fn every_stage_of_every_small_length_and_window() {
    for stage in ["scores", "softmax", "pv", "split", "prefill", "append"] {
        judge_all(&[stage], &|n, w| {
            let out = if matches!(stage, "scores" | "split") { "f32" } else { "f16" };
            let dt = match stage {
                "softmax" | "append" => "f32".to_owned(),
                _ => format!("f16/f16/{out}"),
            };
            let splits = if stage == "split" { ",p.splits=1" } else { "" };
            format!(
                "stage={stage},b=1,hq=2,hkv=1,d=6,n={n},cap=12,w={w},dt={dt}{splits},data=coded,seed={n}"
            )
        });
    }
}
