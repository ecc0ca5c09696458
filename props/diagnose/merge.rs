//! Parts put together wrongly, and lse and promises, by plain loops.

use super::capture::Capture;
use super::inject;
use crate::support::cases::{count, parallel};
use attnbench::data::generate::generate;
use attnbench::data::image::{Image, Poisons};
use attnbench::data::random::Stream;
use attnbench::judge::diagnose::check::{Candidate, Checked};
use attnbench::judge::diagnose::lse::{LseVerdict, explain_lse};
use attnbench::judge::diagnose::problem::Problem;
use attnbench::judge::diagnose::promise::promises;
use attnbench::judge::diagnose::search::Search;
use attnbench::judge::diagnose::{Named, Options, Verdict, diagnose};
use attnbench::oracle::Arithmetic;
use attnbench::problem::{Case, DType};
use std::collections::BTreeMap;

/// A random case of stage `merge` with the bytes of its buffers.
fn parts(r: &mut Stream) -> (Case, BTreeMap<String, Vec<u8>>) {
    let (batch, heads, dim) = (1 + r.below(3), 2 + r.below(3), 4 + r.below(12));
    let splits = 3 + r.below(6);
    let lens = vec!["1"; batch].join(",");
    let id = format!(
        "stage=merge,b={batch},hq={heads},hkv={heads},d={dim},n=[{lens}],p.splits={splits},seed={}",
        r.below(1 << 20)
    );
    let case: Case = id.parse().expect("a case");
    let inputs = generate(&case, &[]).expect("synthetic data");
    let places = case.placements().expect("a case that can be placed");
    let image = Image::new(&case, &places, &[]).expect("an image");
    let mut memory = vec![0u8; image.size()];
    image.write(&case, &inputs, Poisons::RUNS[2], &mut memory);
    let of = |name: &str| {
        let range = image.buffer(name).expect("a buffer").range.clone();
        (name.to_owned(), memory[range].to_vec())
    };
    (case, ["partial_out", "partial_lse"].map(of).into())
}

/// What a merge makes of parts, `[batch, heads, dim]`.
fn merged(case: &Case, buffers: &BTreeMap<String, Vec<u8>>, fault: &str) -> Vec<f64> {
    let load = |name: &str, at: usize| DType::F32.load(&buffers[name], at);
    let (batch, heads, dim, splits) =
        (case.batch(), case.num_heads, case.head_dim_v, case.splits());
    let mut out = Vec::new();
    for row in 0..batch * heads {
        let (s, h) = (row / heads, row % heads);
        let lse: Vec<f64> = (0..splits)
            .map(|i| match fault {
                "lse_layout_swapped" => load("partial_lse", (i * batch + s) * heads + h),
                _ => load("partial_lse", row * splits + i),
            })
            .collect();
        let own: Vec<bool> =
            (0..splits).map(|i| load("partial_lse", row * splits + i).is_finite()).collect();
        let count = own.iter().filter(|own| **own).count() as f64;
        let weight = |i: usize| match fault {
            "sum" => f64::from(u8::from(own[i])),
            "mean" => f64::from(u8::from(own[i])) / count.max(1.0),
            "lse_base" => libm::exp2(lse[i]),
            "part_dropped" if i + 1 == splits => 0.0,
            "empty_part_counted" if !own[i] => 1.0,
            _ => libm::exp(lse[i]),
        };
        let total: f64 = match fault {
            "sum" | "mean" => 1.0,
            _ => (0..splits).map(weight).sum(),
        };
        for d in 0..dim {
            let part = |i: usize| {
                let x = load("partial_out", (row * splits + i) * dim + d);
                // Whose weight is 0 is skipped, whatever it holds.
                if weight(i) > 0.0 { weight(i) * x } else { 0.0 }
            };
            let sum = (0..splits).map(part).sum::<f64>();
            out.push(if total > 0.0 { sum / total } else { 0.0 });
        }
    }
    out
}

fn problem<'a>(case: &Case, buffers: &'a BTreeMap<String, Vec<u8>>, out: &[f64]) -> Problem<'a> {
    let out: Vec<f64> = out.iter().map(|x| DType::F32.round(*x)).collect();
    let bytes = |name: &str| buffers.get(name).map(|b| &b[..]);
    Problem::of_case(case, &bytes, out, Arithmetic::single(DType::F32)).expect("a problem")
}

/// Every wrong way to merge is named or listed; the right one is clean.
#[test]
fn whatever_is_wrong_with_a_merge_is_named_or_listed() {
    const FAULTS: [(&str, &str); 7] = [
        ("right", ""),
        ("sum", "split_not_rescaled"),
        ("mean", "split_not_rescaled"),
        ("lse_base", "lse_base"),
        ("lse_layout_swapped", "lse_layout_swapped"),
        ("part_dropped", "part_dropped"),
        ("empty_part_counted", "empty_part_counted"),
    ];
    let named = parallel(count(), |index| {
        let (fault, id) = FAULTS[index % FAULTS.len()];
        let mut r = Stream::new(67, &[index as u64]);
        let (case, buffers) = parts(&mut r);
        let out = merged(&case, &buffers, fault);
        let d = diagnose(&problem(&case, &buffers, &out), Options::default());
        let listed = d.equivalent.iter().any(|e| e.fault == id);
        match d.verdict {
            Verdict::Clean => assert!(fault == "right" || listed, "{index} {fault}: {case}"),
            Verdict::Explained | Verdict::Ambiguous => {
                assert!(
                    d.fault.as_deref() == Some(id) || listed,
                    "{index} {fault}: {case}: {}",
                    d.note
                );
            }
            other => panic!("{index} {fault}: {case}: {other:?} {}", d.note),
        }
        (fault, d.verdict != Verdict::Clean)
    });
    for (fault, _) in FAULTS {
        let told = named.iter().filter(|(f, told)| *f == fault && *told).count();
        println!("{fault:20} {told}");
        assert_eq!(told > 0, fault != "right", "{fault}");
    }
}

/// What is named of one capture holds in others with the same fault, and is refuted where another
/// is wrong.
#[test]
fn a_name_is_checked_on_other_captures() {
    const IDS: [&str; 6] = [
        "seq_len_minus_1",
        "missing_scale",
        "k_col",
        "other_head_sink",
        "scores_narrowed",
        "row_map",
    ];
    let mut tally: BTreeMap<Checked3, usize> = BTreeMap::new();
    for (index, id) in IDS.iter().copied().cycle().take(60).enumerate() {
        let mut r = Stream::new(79, &[index as u64]);
        let of = |id: &'static str, r: &mut Stream| {
            loop {
                let capture = Capture::random(r);
                let enough = capture.lens.iter().all(|n| *n > 8) && capture.head_dim_v >= 8;
                let plain = capture.window == 0 && enough;
                if let Some(injected) = plain.then(|| inject::inject(&capture, id, r)).flatten() {
                    return (capture.slice(&injected.out), injected);
                }
            }
        };
        let (slice, injected) = of(id, &mut r);
        let other = IDS[(index + 1 + r.below(IDS.len() - 1)) % IDS.len()];
        let (wrong, _) = of(other, &mut r);
        let params = injected
            .params
            .iter()
            .map(|(k, v)| (*k, attnbench::judge::diagnose::catalogue::Param::Text(v.clone())));
        let fit = attnbench::judge::diagnose::predict::Fit::NONE;
        let named = Named { fault: id.to_owned(), params: params.collect(), fit };
        let candidate = Candidate::named(&named).expect("a fault of the catalogue");
        for (slice, own) in [(&slice, true), (&wrong, false)] {
            let problem = Problem::of_slice(slice).expect("a slice that is driven");
            let mut search = Search::of(&problem);
            let right = search.is_right();
            let checked = search.check(&candidate);
            let allowed: &[Checked] = match (own, right) {
                (_, true) => &[Checked::CannotTell],
                (true, _) => &[Checked::Fits, Checked::CannotTell],
                (false, _) => &[Checked::Refuted, Checked::CannotTell],
            };
            assert!(allowed.contains(&checked), "{index} {id} on {other} ({own}): {checked:?}");
            *tally
                .entry((own, checked == Checked::Fits, checked == Checked::Refuted))
                .or_default() += 1;
        }
    }
    println!("{tally:?}");
    assert!(tally[&(true, true, false)] > 40 && tally[&(false, false, true)] > 40, "{tally:?}");
}

/// Whose capture it is, whether it fits, whether it is refuted.
type Checked3 = (bool, bool, bool);

/// Of random captures with an lse that is wrong in one way, that way is told, or none.
#[test]
fn what_is_wrong_with_an_lse_is_told() {
    let told = parallel(count(), |index| {
        let mut r = Stream::new(83, &[index as u64]);
        let capture = Capture::random(&mut r);
        let slice = capture.slice(&inject::right(&capture));
        let attended = attnbench::judge::diagnose::attend::attended(&slice).expect("driven");
        let right = attended.lse.and_then(|t| t.values()).expect("there is one");
        let mut problem = Problem::of_slice(&slice).expect("driven");
        let heads = problem.num_heads;
        let (fault, wrong): (&str, Vec<f64>) = match index % 4 {
            0 => ("", right.clone()),
            1 => ("lse_base", right.iter().map(|x| x / std::f64::consts::LN_2).collect()),
            2 => {
                let (batch, at) =
                    (problem.batch(), |f: usize| (f % problem.batch(), f / problem.batch()));
                let of = |f: usize| right[at(f).0 * heads + at(f).1];
                let f = if batch > 1 && heads > 1 { "lse_layout_swapped" } else { "" };
                (f, (0..right.len()).map(of).collect())
            }
            _ => (
                "none",
                right.iter().enumerate().map(|(i, x)| x + 0.01 * (1 + i % 3) as f64).collect(),
            ),
        };
        problem.lse = Some(wrong.iter().map(|x| DType::F32.round(*x)).collect());
        let found = explain_lse(&problem);
        let same = wrong == right;
        match (fault, found) {
            ("" | "none", found) => {
                let named = matches!(found, LseVerdict::Named(_));
                assert!(!named, "{index}: {found:?}");
                false
            }
            (id, LseVerdict::Named(found)) => {
                assert!(found.fault == id, "{index} {id}: {found:?}");
                true
            }
            (..) => {
                assert!(same || right.len() < 5, "case {index}: {fault} is not told");
                false
            }
        }
    });
    let told = told.into_iter().filter(|t| *t).count();
    assert!(told * 4 > count(), "{told} of {}", count());
}

/// An output under another promise is told as right under that; a wrong one under none.
#[test]
fn a_promise_that_would_make_an_output_right_is_told() {
    let kinds = parallel(count(), |index| {
        let mut r = Stream::new(89, &[index as u64]);
        let capture = loop {
            let capture = Capture::sized(&mut r, &[70, 100]);
            let enough = capture.lens.iter().all(|n| *n > 8) && capture.window == 0;
            let large = capture.head_dim_v >= 8 && capture.num_heads > 1;
            if enough && large && capture.out_dtype == DType::F32 {
                break capture;
            }
        };
        let (key, out) = match index % 4 {
            0 => {
                let id = "scores_narrowed";
                ("scores", inject::inject(&capture, id, &mut r).expect("any capture").out)
            }
            1 => {
                let made = loop {
                    let made = inject::inject(&capture, "accumulate", &mut r).expect("any capture");
                    let pv = ("where", "pv".to_owned());
                    if made.params.contains(&pv) && !made.params.iter().any(|(k, _)| *k == "tile") {
                        break made;
                    }
                };
                ("accumulate", made.out)
            }
            2 => {
                let mut out = inject::right(&capture);
                out.iter_mut().for_each(|x| *x *= 1.004);
                ("", out)
            }
            _ => ("", inject::inject(&capture, "missing_scale", &mut r).expect("any").out),
        };
        let slice = capture.slice(&out);
        let problem = Problem::of_slice(&slice).expect("driven");
        let found = promises(&problem);
        if key.is_empty() {
            assert!(found.is_empty(), "case {index}: {found:?}");
        }
        (key, found.iter().any(|p| p.key == key), found.first().is_some_and(|p| p.key == key))
    });
    for key in ["scores", "accumulate"] {
        let of: Vec<_> = kinds.iter().filter(|k| k.0 == key).collect();
        let (told, first) = (of.iter().filter(|k| k.1).count(), of.iter().filter(|k| k.2).count());
        println!("{key}: told {told}, first {first}, of {}", of.len());
        assert!(2 * told > of.len(), "{key}: {told} of {}", of.len());
    }
}
