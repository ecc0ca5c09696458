//! `trace`: right f32 kernels, printed with six digits, are never called wrong, and wrong ones never
//! right; and the program on golden, broken and hostile files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use attnbench::data::trace::read_from;
use attnbench::judge::trace::{Judge, Row, Verdict};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::bench::{Bench, Ran, said_once};

/// Sampled elements; the head vector has as many.
const DIMS: usize = 16;

/// Seeds of each law.
const SEEDS: u64 = 400;

/// How a kernel sums.
#[derive(Debug, Clone, Copy)]
enum Order {
    Forward,
    Backward,
    /// Four partial sums.
    Lanes,
}

const ORDERS: [Order; 3] = [Order::Forward, Order::Backward, Order::Lanes];

fn sum(terms: impl DoubleEndedIterator<Item = f32>, order: Order) -> f32 {
    match order {
        Order::Forward => terms.fold(0.0, |a, x| a + x),
        Order::Backward => terms.rev().fold(0.0, |a, x| a + x),
        Order::Lanes => {
            let mut lanes = [0.0f32; 4];
            terms.enumerate().for_each(|(i, x)| lanes[i % 4] += x);
            (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
        }
    }
}

/// One decode step of one head.
#[derive(Debug, Clone)]
struct Step {
    /// `[keys, DIMS]` each.
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
    keys: usize,
    window: usize,
    scale: f32,
    /// V is widely spread.
    spread: bool,
}

fn gauss(r: &mut SmallRng) -> f32 {
    (0..12).map(|_| r.random::<f32>()).sum::<f32>() - 6.0
}

impl Step {
    /// Of some data: Gaussian, sharply peaked, equal scores, constant V, and widely spread V.
    fn draw(r: &mut SmallRng) -> Step {
        let keys = [1, 2, 9, 63, 64, 65, 93, 206, 738][r.random_range(0..9)];
        let window = [keys, 64, 16, 1][r.random_range(0..4)].min(keys);
        let kind = r.random_range(0..6);
        let (sharp, spread) =
            (if kind == 1 { 6.0 } else { 1.5 }, if kind == 2 { 8.0 } else { 0.0 });
        let mut all = |n: usize| (0..n).map(|_| gauss(r)).collect::<Vec<f32>>();
        let (q, mut k, mut v) = (all(DIMS), all(keys * DIMS), all(keys * DIMS));
        let powers = all(keys * DIMS);
        v.iter_mut().zip(&powers).for_each(|(v, p)| *v *= (spread * p).exp2());
        if kind == 3 {
            v.fill(1.25);
        }
        if kind == 4 {
            k.fill(0.5);
        }
        Step { k, v, q, keys, window, scale: sharp / (DIMS as f32).sqrt(), spread: kind == 2 }
    }

    fn scores(&self, order: Order) -> Vec<f32> {
        let dot = |n: usize| sum((0..DIMS).map(|d| self.q[d] * self.k[n * DIMS + d]), order);
        (0..self.keys).map(|n| self.scale * dot(n)).collect()
    }

    fn weights(&self, order: Order) -> Vec<f32> {
        let s = self.scores(order);
        let m = s.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f32> = s.iter().map(|s| libm::expf(s - m)).collect();
        let l = sum(e.iter().copied(), order);
        e.iter().map(|e| e / l).collect()
    }

    fn mix(&self, p: &[f32], v: &[f32], order: Order) -> Vec<f32> {
        (0..DIMS).map(|d| sum((0..p.len()).map(|n| p[n] * v[n * DIMS + d]), order)).collect()
    }

    /// The f64 sum over the last `keys`, as a probe makes it.
    fn reference(&self, p: &[f32], keys: usize) -> Vec<f64> {
        let rows = self.keys - keys..self.keys;
        (0..DIMS)
            .map(|d| rows.clone().map(|n| f64::from(p[n]) * f64::from(self.v[n * DIMS + d])).sum())
            .collect()
    }

    /// The event of a kernel that gave `p` and `out`, with a reference over the window or all keys.
    fn event(&self, p: &[f32], out: &[f32], full: bool) -> Value {
        let from = self.keys - self.window;
        let reference = self.reference(p, if full { self.keys } else { self.window });
        let mean = |a: &[f32], b: &[f64]| {
            a.iter().zip(b).map(|(x, y)| (f64::from(*x) - y).abs()).sum::<f64>() / DIMS as f64
        };
        let out_f64: Vec<f64> = out.iter().map(|x| f64::from(*x)).collect();
        let rows: Vec<Value> = (from..self.keys)
            .map(|n| printed((0..DIMS).map(|d| f64::from(self.v[n * DIMS + d]))))
            .collect();
        let mae = six(mean(out, &reference));
        json!({
            "event": "attn_vacc_trace", "prompt_id": "p", "phase": "decode0", "layer": 1, "head": 2,
            "pos_id": self.keys - 1, "seq_len": self.keys, "window_len": self.window,
            "head_dim": DIMS, "dims_sample": DIMS, "kv_heads": 1, "scale_used": self.scale,
            "p_window_gpu": printed(p[from..].iter().map(|p| f64::from(*p))),
            "v_window_gpu_sample": rows,
            "v_layout_probe": {"v_layout_best": "row", "v_mae_row": mae, "v_mae_col": 2.0 * mae + 1.0},
            "pv_cpu_fp64_sample": printed(reference.iter().copied()),
            "pv_gpu_sample": printed(out_f64.iter().copied()),
            "attn_out_cpu_fp64_sample": printed(reference.iter().copied()),
            "attn_out_gpu_sample": printed(out_f64.iter().copied()),
            "pv_mae": mae, "attn_out_mae": mae, "pv_scope": if full { "full" } else { "window" },
        })
    }
}

/// A number as the traces print it.
fn six(x: f64) -> f64 {
    format!("{x:.5e}").parse().expect("a number")
}

fn printed(x: impl Iterator<Item = f64>) -> Value {
    x.map(six).collect()
}

fn judge(event: &Value) -> Row {
    let mut judge = Judge::new(0);
    let text = event.to_string();
    let read = read_from(Path::new("law"), &mut text.as_bytes(), &mut |e| judge.add(e));
    read.expect("a known event");
    judge.finish().remove(0)
}

/// A right kernel is clean by a full sum. By a window's it is clean or cannot be judged, unless V
/// outside the window is larger than any in it, which no trace can know.
#[test]
fn right_kernels_are_never_called_wrong() {
    let (mut clean, mut by_reference, mut beyond, mut worst) = (0, 0, 0, 0.0f64);
    for seed in 0..SEEDS {
        let mut r = SmallRng::seed_from_u64(seed);
        let step = Step::draw(&mut r);
        for order in ORDERS {
            let p = step.weights(order);
            let out = step.mix(&p, &step.v, order);
            let row = judge(&step.event(&p, &out, true));
            assert_eq!(row.verdict, Verdict::Clean, "{seed} {order:?}: {row:#?}");
            assert!(!row.notes.join("").contains("contradicts"), "{seed}: {row:#?}");
            worst = worst.max(row.ratio.unwrap_or(0.0));
            let row = judge(&step.event(&p, &out, false));
            match row.verdict {
                Verdict::Clean => clean += 1,
                Verdict::Reference => by_reference += 1,
                _ => {
                    let (out, seen) = step.v.split_at((step.keys - step.window) * DIMS);
                    let largest = |v: &[f32]| v.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                    assert!(largest(out) > largest(seen), "{seed} {order:?}: {row:#?}");
                    assert!(row.notes.join("").contains("as large as any seen"), "{row:#?}");
                    beyond += 1;
                }
            }
        }
    }
    println!(
        "window: {clean} clean, {by_reference} by reference, {beyond} beyond the range seen; the \
         worst of the full sums at {worst:.3} of its bound"
    );
    assert!(clean > 100 && by_reference > 100 && beyond < SEEDS, "{clean} {by_reference} {beyond}");
    assert!(worst > 0.05, "no honest kernel comes near: {worst}");
}

/// A kernel that is wrong by more than rounding is never clean, whichever keys the reference sums.
#[test]
fn wrong_kernels_are_never_called_clean() {
    let (mut tried, mut seen) = (0, 0);
    for seed in 0..SEEDS {
        let mut r = SmallRng::seed_from_u64(seed);
        let step = Step::draw(&mut r);
        let p = step.weights(Order::Forward);
        let right = step.mix(&p, &step.v, Order::Forward);
        let other: Vec<f32> = step.v.iter().map(|_| gauss(&mut r)).collect();
        let shifted: Vec<f32> =
            step.v.iter().cycle().skip(DIMS).take(step.v.len()).copied().collect();
        let columns: Vec<f32> = (0..step.v.len())
            .map(|i| step.v[(i % DIMS * step.keys + i / DIMS) % step.v.len()])
            .collect();
        let mut dropped = p.clone();
        // The heaviest key: one that rounding does not cover.
        let heaviest = (0..step.keys).max_by(|a, b| p[*a].total_cmp(&p[*b])).expect("a key");
        dropped[heaviest] = 0.0;
        let faults = [
            ("another layer's V", step.mix(&p, &other, Order::Forward)),
            ("rows shifted by one", step.mix(&p, &shifted, Order::Forward)),
            ("columns", step.mix(&p, &columns, Order::Forward)),
            ("one key too few", step.mix(&dropped, &step.v, Order::Forward)),
            ("zeros", vec![0.0; DIMS]),
            ("one part in a thousand too much", right.iter().map(|x| x * 1.001).collect()),
        ];
        for (name, out) in faults {
            // What a fault leaves as it was, no judge can see: at least a thousandth of the largest.
            let scale = right.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            let moved = right.iter().zip(&out).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
            if moved < 5e-4 * scale {
                continue;
            }
            for full in [true, false] {
                tried += 1;
                let row = judge(&step.event(&p, &out, full));
                // Where V cancels in every element, rounding is larger than what is left.
                let magnitude = (0..step.keys)
                    .map(|n| {
                        p[n] * step.v[n * DIMS..][..DIMS].iter().fold(0.0f32, |a, x| a.max(x.abs()))
                    })
                    .sum::<f32>();
                if moved < 5e-4 * magnitude {
                    continue;
                }
                // Rounding of a sum over rows that a trace does not show follows the largest V that it
                // shows, which may be 2^24 times what counts.
                if step.spread && step.window < step.keys {
                    continue;
                }
                assert_ne!(row.verdict, Verdict::Clean, "{seed}, {name}, full {full}: {row:#?}");
                assert_ne!(row.verdict, Verdict::Invalid, "{seed}, {name}: {row:#?}");
                let whole = full || step.window == step.keys;
                assert!(!whole || row.verdict.is_fault(), "{seed}, {name}: {row:#?}");
                seen += 1;
            }
        }
    }
    println!("{seen} of {tried} wrong outputs moved enough, and none is called clean");
    assert!(seen > 1500, "{seen} of {tried}");
}

impl Step {
    /// The softmax event of a kernel that gave `s` and `p`.
    fn softmax_event(&self, s: &[f32], p: &[f32]) -> Value {
        let from = self.keys - self.window;
        let exact: Vec<f64> = (0..self.keys)
            .map(|n| {
                let terms =
                    (0..DIMS).map(|d| f64::from(self.q[d]) * f64::from(self.k[n * DIMS + d]));
                f64::from(self.scale) * terms.sum::<f64>()
            })
            .collect();
        let m = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let l: f64 = exact.iter().map(|s| libm::exp(s - m)).sum();
        let window = |x: &[f32]| printed(x[from..].iter().map(|x| f64::from(*x)));
        json!({
            "event": "attn_softmax_trace", "prompt_id": "p", "layer": 1, "head": 2,
            "pos_id": self.keys - 1, "seq_len": self.keys, "window_len": self.window,
            "head_dim": DIMS, "scale_used": self.scale,
            "qk_window_gpu": window(s), "softmax_window_gpu": window(p),
            "qk_window_cpu_fp64": printed(exact[from..].iter().copied()),
            "softmax_window_cpu": printed(exact[from..].iter().map(|s| libm::exp(s - m) / l)),
        })
    }
}

/// Scores and weights of right kernels are clean; of wrong ones never.
#[test]
fn softmax_traces_tell_right_from_wrong() {
    let mut seen = 0;
    for seed in 0..SEEDS {
        let step = Step::draw(&mut SmallRng::seed_from_u64(seed));
        for order in ORDERS {
            let (s, p) = (step.scores(order), step.weights(order));
            let row = judge(&step.softmax_event(&s, &p));
            assert_eq!(row.verdict, Verdict::Clean, "{seed} {order:?}: {row:#?}");
        }
        let (s, p) = (step.scores(Order::Forward), step.weights(Order::Forward));
        let softmax = |s: &[f32], from: usize| {
            let m = s[from..].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let l: f32 = s[from..].iter().map(|s| (s - m).exp()).sum();
            s.iter().map(|s| (s - m).exp() / l).collect::<Vec<f32>>()
        };
        let last = step.keys - 1;
        let mut faults = Vec::new();
        // The first key's mass left out of the sum: seen where it is more than rounding.
        if step.keys > 1 && p[0] > 1e-3 {
            faults.push(("first key left out", s.clone(), softmax(&s, 1)));
        }
        if s[last].abs() > 0.1 {
            let twice: Vec<f32> = s.iter().map(|s| 1.01 * s).collect();
            faults.push(("scores 1 % too large", twice.clone(), softmax(&twice, 0)));
            if step.window > 1 && s.iter().any(|x| (x - s[last]).abs() > 0.5) && p[last] > 1e-3 {
                faults.push(("weights of other scores", s.clone(), softmax(&twice, 0)));
            }
        }
        for (name, s, p) in faults {
            let row = judge(&step.softmax_event(&s, &p));
            // Two keys far apart share their mass to the last digit, whatever their scores.
            let moved = p[step.keys - step.window..].iter().any(|p| *p < 0.999 && *p > 1e-3);
            if moved {
                assert!(row.verdict.is_fault(), "{seed}, {name}: {row:#?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "{seen}");
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/traces").join(name)
}

/// The document, checked against its schema.
#[track_caller]
fn document(ran: &Ran) -> Value {
    static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let text = include_str!("../golden/schema/attnbench-trace-1.json");
        let schema = serde_json::from_str(text).expect("the schema is JSON");
        jsonschema::validator_for(&schema).expect("the schema is a schema")
    });
    let document: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    let wrong: Vec<String> =
        SCHEMA.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{}\n{document:#}", wrong.join("\n"));
    document
}

/// Runs `trace --json -` on golden traces.
fn traced(names: &[&str], code: i32) -> Value {
    let files: Vec<PathBuf> = names.iter().map(|n| golden(n)).collect();
    let args = files.iter().map(|f| f.to_str().expect("a plain path"));
    document(&Bench::new().run(["trace", "--json", "-"].into_iter().chain(args)).ends_with(code))
}

fn column(document: &Value, key: &str) -> Vec<Value> {
    document["rows"].as_array().unwrap().iter().map(|r| r[key].clone()).collect()
}

#[test]
fn golden_traces_end_as_their_verdicts_say() {
    let one = traced(&["b3_24.jsonl"], 1);
    assert_eq!(column(&one, "verdict"), ["reference", "unexplained"]);
    assert_eq!(column(&one, "pv_mae"), [json!(0.269958), json!(0.628486)]);
    assert_eq!(column(&one, "v_layout_best"), ["col", "col"]);
    let one = traced(&["b3_25.jsonl"], 0);
    assert_eq!(column(&one, "verdict"), ["reference", "clean", "reference"]);
    assert_eq!(column(&one, "pv_scope"), ["window", "window", "window"]);
    let mass: Vec<f64> = column(&one, "window_mass").iter().map(|m| m.as_f64().unwrap()).collect();
    assert!((mass[0] - 0.2226698).abs() < 1e-6 && (mass[1] - 1.0).abs() < 1e-6, "{mass:?}");
    let one = traced(&["b3_26.jsonl"], 1);
    assert_eq!(column(&one, "verdict"), ["clean", "clean", "clean", "explained"]);
    assert_eq!(column(&one, "fault")[3], "append_early");
    assert_eq!(column(&one, "window_len"), [json!(64), json!(9), Value::Null, Value::Null]);
    assert_eq!((&one["skipped"], &one["skipped_why"]["unknown_event"]), (&json!(2), &json!(1)));
}

#[test]
fn two_traces_together_say_that_one_kernel_was_wrong() {
    let files = [golden("b3_24.jsonl"), golden("b3_25.jsonl")].map(|f| f.display().to_string());
    let both = traced(&["b3_24.jsonl", "b3_25.jsonl"], 1);
    let compared = both["compared"].as_array().unwrap();
    assert_eq!(compared.len(), 2);
    for pair in compared {
        assert_eq!(
            (&pair["p_equal"], &pair["v_equal"], &pair["pv_equal"]),
            (&json!(true), &json!(true), &json!(false))
        );
        assert_eq!((&pair["one_kernel_is_wrong"], &pair["files"]), (&json!(true), &json!(files)));
    }
    assert_eq!(compared[1]["wrong_file"], files[0]);
    assert_eq!(column(&both, "file")[1..3], [json!(files[0]), json!(files[1])]);

    let ran = Bench::new().run(["trace", &files[0], &files[1]]).ends_with(1);
    for words in ["pv_mae b3_24", "pv_mae b3_25", "verdict b3_24"] {
        assert!(ran.stdout.lines().next().unwrap().contains(words), "{}", ran.stdout);
    }
    let last = ran.stdout.lines().last().unwrap();
    assert!(last.contains("one of the two kernels was wrong, that of b3_24"), "{last}");
    assert_eq!(ran.stderr, "");
}

/// A proof by two files is a fault found, although neither file alone has one.
#[test]
fn a_proof_alone_ends_with_one() {
    let bench = Bench::new();
    for name in ["b3_24", "b3_25"] {
        let text = fs::read_to_string(golden(&format!("{name}.jsonl"))).unwrap();
        bench.write(&format!("{name}.jsonl"), text.lines().next().unwrap());
        bench.run(["trace", &format!("{name}.jsonl")]).ends_with(0);
    }
    let ran = bench.run(["trace", "b3_24.jsonl", "b3_25.jsonl"]).ends_with(1);
    assert!(
        ran.stdout
            .lines()
            .last()
            .unwrap()
            .starts_with("FAULT: 2 events: 2 reference; b3_24 and b3_25")
    );
    // Files of one name are told apart by their paths; three have a column for it.
    bench.write("x/b3_24.jsonl", fs::read(golden("b3_24.jsonl")).unwrap());
    let ran = bench.run(["trace", "b3_24.jsonl", "x/b3_24.jsonl"]).ends_with(1);
    assert!(ran.stdout.contains("verdict x/b3_24.jsonl"), "{}", ran.stdout);
    let ran = bench.run(["trace", "b3_24.jsonl", "b3_25.jsonl", "x/b3_24.jsonl"]).ends_with(1);
    assert!(ran.stdout.starts_with("| file"), "{}", ran.stdout);
}

#[test]
fn files_that_are_no_traces_are_refused() {
    let bench = Bench::new();
    let refuses = |words: &[&str]| bench.run(["trace", "bad.jsonl", "--json", "-"]).refuses(words);
    refuses(&["bad.jsonl", "No such file"]);
    for (bytes, words) in [
        (&b""[..], &["an empty file", "attn_vacc_trace"][..]),
        (b"\x7fELF\x02\x01\x01\0\0\n\xff\xfe\0\n", &["2 that are no JSON object"]),
        (b"{\"event\":\"other\"}\n", &["1 of unknown events"]),
        (b"[{\"phase\":\"decode0\",\"top1_id\":1}]", &["one object a line"]),
    ] {
        bench.write("bad.jsonl", bytes);
        refuses(words);
    }
    bench.write("bad.jsonl", vec![b'['; 3 << 20]);
    refuses(&["recursion limit"]);
    bench.write("bad.jsonl", vec![b'7'; (8 << 20) + 1]);
    refuses(&["longer than 8 MiB"]);
    bench.run(["trace", "."]).refuses(&[".: ", "is not a file of lines"]);
    bench.run(["trace", "/dev/zero"]).refuses(&["/dev/zero", "is not a file of lines"]);
    let none = bench.run(["trace"]).ends_with(2);
    assert!(none.stderr.contains("FILE.jsonl"), "{}", none.stderr);
    let good = golden("b3_25.jsonl").display().to_string();
    bench.run(["trace", &good, "--json", "none/x.json"]).refuses(&["no folder none"]);
    bench.run(["trace", &good, "--json", "x.json"]).ends_with(0);
    assert!(bench.dir().join("x.json").is_file());
}

/// A known event with a mistake is a row that says what it is, and the others are judged.
#[test]
fn events_with_a_mistake_are_invalid_rows() {
    let bench = Bench::new();
    let good = fs::read_to_string(golden("b3_25.jsonl")).unwrap();
    let good = good.lines().nth(1).unwrap();
    let invalid = |event: &str, words: &[&str]| {
        bench.write("bad.jsonl", event);
        let one = document(&bench.run(["trace", "bad.jsonl", "--json", "-"]).ends_with(2));
        assert_eq!(column(&one, "verdict"), ["invalid"], "{one:#}");
        let note = one["rows"][0]["note"].as_str().unwrap();
        for word in words {
            assert!(note.contains(word), "no `{word}` in: {note}");
        }
        said_once(note);
        bench.write("bad.jsonl", format!("{event}\n{good}\n"));
        let both = document(&bench.run(["trace", "bad.jsonl", "--json", "-"]).ends_with(2));
        assert_eq!(column(&both, "verdict"), ["invalid", "clean"]);
        let text = bench.run(["trace", "bad.jsonl"]).ends_with(2).stdout;
        assert!(text.lines().last().unwrap().starts_with("INVALID: 2 events"), "{text}");
    };
    let with = |field: &str, value: Value| {
        let mut event: Value = serde_json::from_str(good).unwrap();
        event[field] = value;
        event.to_string()
    };
    let without = |field: &str| with(field, Value::Null);
    for field in [
        "layer",
        "head",
        "seq_len",
        "window_len",
        "dims_sample",
        "p_window_gpu",
        "v_window_gpu_sample",
        "pv_gpu_sample",
    ] {
        invalid(&without(field), &[&format!("`{field}` is missing")]);
    }
    invalid(&with("prompt_id", json!(7)), &["`prompt_id` is 7", "a string"]);
    invalid(&with("window_len", json!(1e18)), &["`window_len` is 1e+18", "whole number"]);
    invalid(&with("window_len", json!(10)), &["`window_len` is 10, more than `seq_len`, 9"]);
    invalid(&with("window_len", json!(0)), &["at least 1"]);
    invalid(&with("seq_len", json!(1u64 << 40)), &["longest sequence"]);
    invalid(&with("seq_len", json!(-9)), &["`seq_len` is -9"]);
    invalid(&with("seq_len", json!("9")), &["`seq_len` is \"9\""]);
    invalid(&with("dims_sample", json!(65)), &["more than `head_dim`, 64"]);
    invalid(&with("dims_sample", json!(15)), &["has 16 elements", "`dims_sample` is 15"]);
    invalid(&with("p_window_gpu", json!([0.5])), &["1 elements", "`window_len` is 9"]);
    invalid(&with("p_window_gpu", json!({"a": 1})), &["an object of 1 keys", "an array"]);
    invalid(&with("pv_scope", json!("all\u{1b}[31m\n")), &["\"all?[31m?\"", "`window` or `full`"]);
    invalid(&with("pv_mae", json!(-1.0)), &["`pv_mae` is -1", "at least 0"]);
    invalid(&with("pv_gpu_sample", json!(vec![1e39; 16])), &["pv_gpu_sample[0]", "largest f32"]);
    invalid(&with("v_layout_probe", json!({"v_layout_best": "diagonal"})), &["diagonal", "row"]);
    invalid(&good.replacen("0.107448", "nan", 1), &["v_window_gpu_sample[0][0]` is not a finite"]);
    invalid(&good.replacen("0.107448", "[[]]", 1), &["v_window_gpu_sample[0][0]", "an array of 1"]);
    invalid("{\"event\":\"v_addr_trace\",\"layer\":1,\"pos_id\":2}", &["`mae_k_pos` is missing"]);
    invalid("{\"event\":\"attn_softmax_trace\",\"layer\":[]}", &["`layer` is an array"]);
    invalid("{\"phase\":\"decode0\",\"top1_id\":0.5}", &["`top1_id` is 0.5"]);
}

/// What a file says is not what a terminal does.
#[test]
fn names_from_a_file_stay_text() {
    let bench = Bench::new();
    let name = "a|b\u{1b}[2J\n".to_owned() + &"x".repeat(100_000);
    let line = json!({"phase": name, "prompt_id": name, "top1_id": 7}).to_string();
    bench.write("t.jsonl", format!("{line}\r\n"));
    let text = bench.run(["trace", "t.jsonl"]).ends_with(0).stdout;
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && text.len() < 1500, "{text:?}");
    assert_eq!(text.lines().next().unwrap().matches('|').count(), 5, "{text}");
    assert_eq!(text.lines().nth(2).unwrap().matches('|').count(), 5, "{text}");
}

/// Cut anywhere, a trace is judged as far as it goes.
#[test]
fn traces_cut_short_are_judged_as_far_as_they_go() {
    let bench = Bench::new();
    let whole = fs::read(golden("b3_25.jsonl")).unwrap();
    let first = whole.iter().position(|b| *b == b'\n').unwrap();
    for length in [0, 1, first / 2, first] {
        bench.write("cut.jsonl", &whole[..length]);
        let ran = bench.run(["trace", "cut.jsonl", "--json", "-"]);
        if length == first {
            assert_eq!(column(&document(&ran.ends_with(0)), "verdict"), ["reference"]);
        } else {
            ran.refuses(&["cut.jsonl", "no known event"]);
        }
    }
    bench.write("cut.jsonl", &whole[..whole.len() - 10]);
    let ran = bench.run(["trace", "cut.jsonl", "--json", "-"]).ends_with(0);
    assert_eq!(document(&ran)["skipped"], 1);
    let text = bench.run(["trace", "cut.jsonl"]).ends_with(0).stdout;
    assert!(text.contains("passed over 1 broken line (line 3: no JSON: EOF"), "{text}");
}
