//! Faults that the catalogue does not have are never falsely named.

use super::capture::Capture;
use super::{diagnosis, inject};
use crate::support::cases::{count, parallel};
use attnbench::data::random::Stream;
use attnbench::judge::diagnose::Verdict;
use std::collections::BTreeMap;

const FAULTS: [&str; 6] = [
    "noise of 1e-3",
    "a head replaced",
    "two heads swapped",
    "NaN in a head",
    "V times 1.01",
    "a key doubled",
];

/// The right output with a fault that no id describes; `None` where it would be one that an id
/// does describe, or no fault at all.
fn spoilt(c: &Capture, fault: &str, r: &mut Stream) -> Option<Vec<f64>> {
    let mut out = inject::right(c);
    let (dv, heads) = (c.head_dim_v, out.len() / c.head_dim_v);
    let size = out.iter().map(|x| x.abs()).sum::<f64>() / out.len() as f64;
    match fault {
        "noise of 1e-3" => {
            // Above a 16-bit output's own rounding.
            out.iter_mut().for_each(|x| *x += 1e-3 * size.max(1.0) * f64::from(r.gauss()));
        }
        "a head replaced" => {
            let h = r.below(heads);
            out[h * dv..][..dv].iter_mut().for_each(|x| *x = size * f64::from(r.gauss()));
        }
        "two heads swapped" => {
            // With two KV heads of one query head each, this is each reading the next one's.
            if heads < 3 || c.num_heads < 3 || c.group() == 1 {
                return None;
            }
            let (a, b) = (r.below(c.num_heads), r.below(c.num_heads));
            // Two orders of rows exchange two of them and leave the others.
            let reversed = c.num_heads == 3 && a.abs_diff(b) == 2;
            let groups = (c.num_heads, c.num_kv_heads) == (4, 2) && (a.min(b), a.max(b)) == (1, 2);
            if reversed || groups {
                return None;
            }
            if a == b || out[a * dv..][..dv] == out[b * dv..][..dv] {
                return None;
            }
            (0..dv).for_each(|d| out.swap(a * dv + d, b * dv + d));
        }
        "NaN in a head" => out[r.below(heads * dv)] = f64::NAN,
        "V times 1.01" => out.iter_mut().for_each(|x| *x *= 1.01),
        _ => {
            let n = r.below(c.lens[0]);
            out = inject::doubled(c, n);
        }
    }
    Some(out)
}

#[test]
fn what_the_catalogue_does_not_have_is_not_named() {
    let cases = count() * 2;
    let results = parallel(cases, |index| {
        let fault = FAULTS[index % FAULTS.len()];
        for attempt in 0..200 {
            let mut r = Stream::new(53, &[index as u64, attempt]);
            let capture = Capture::random(&mut r);
            // Evidence enough that chance fits nothing: of one key every output is a row of V, and
            // another head's is what a wrong head map reads.
            let keys = |n: &usize| if capture.window == 0 { *n } else { capture.window.min(*n) };
            let fewest = capture.lens.iter().map(keys).min().unwrap_or(0);
            if capture.head_dim_v < 8 || capture.num_heads < 2 || fewest < 3 {
                continue;
            }
            let Some(out) = spoilt(&capture, fault, &mut r) else { continue };
            let d = diagnosis(&capture.slice(&out));
            assert!(
                matches!(d.verdict, Verdict::Unexplained | Verdict::Clean),
                "case {index}.{attempt}: {fault} is called {:?} {:?} {:?} (ratio {})\n{}",
                d.verdict,
                d.fault,
                d.params,
                d.fit.ratio,
                d.note
            );
            if fault == "NaN in a head" {
                assert!(d.note.contains("not finite (first: sequence"), "{}", d.note);
            }
            return (fault, d.verdict);
        }
        panic!("no capture shows {fault}");
    });
    let mut tally: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (fault, verdict) in results {
        tally.entry(fault).or_default()[usize::from(verdict == Verdict::Clean)] += 1;
    }
    for (fault, [unexplained, below]) in tally {
        println!("{fault:20} unexplained {unexplained:4}  below the bound {below:4}");
        assert!(unexplained > 0, "{fault}");
    }
}
