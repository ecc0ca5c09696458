//! Real captures, whole and re-cut to windows and lengths.

use super::{DECODE, built_in, captures, trial};
use attnbench::judge::trial::Outcome;

#[test]
fn captures_re_cut_to_windows_are_right_in_every_stage() {
    for name in DECODE.iter().chain(&["scores", "softmax", "pv", "split"]) {
        let manifest = built_in(name);
        let mut trial = trial(&manifest);
        let mut judged = 0;
        for (captured, whole) in captures() {
            let n = captured.seq_len;
            for (turn, w) in [0, 1, 2, 7, 8, 9, 63, 64, 65, n - 1, n, n + 1].into_iter().enumerate()
            {
                // The long one at a third of its windows.
                if n > 500 && turn % 3 != 0 {
                    continue;
                }
                let mut case = whole.clone().for_stage(manifest.stage);
                case.params = manifest.default_params();
                case.window_len = w;
                case.wave = [32, 64][turn % 2];
                if turn % 2 == 1 {
                    case.seq_lens[0] = 1 + (n * turn) / 12;
                }
                if let Some(first) = manifest.supports.dtypes.first()
                    && !manifest.supports.dtypes.contains(&case.dtypes)
                {
                    case.dtypes = *first;
                }
                let outcome = trial.judge(&case).expect("it runs");
                assert!(matches!(outcome, Outcome::Passed(_)), "{name} on {case}: {outcome:?}");
                judged += 1;
            }
        }
        assert!(judged > 60, "{name}: {judged}");
    }
}
