//! The verdicts on the golden traces, and on events with planted faults.

use super::digits::half_unit;
use super::*;
use crate::data::trace::read_from;
use serde_json::{Value, json};
use std::path::Path;

const B3_24: &str = include_str!("../../../golden/traces/b3_24.jsonl");
const B3_25: &str = include_str!("../../../golden/traces/b3_25.jsonl");
const B3_26: &str = include_str!("../../../golden/traces/b3_26.jsonl");

/// The golden traces are what their provenance was written about.
#[test]
fn golden_traces_are_those_of_the_manifest() {
    let manifest: Value =
        serde_json::from_str(include_str!("../../../golden/manifest.json")).unwrap();
    let listed = manifest["traces"].as_array().unwrap();
    assert_eq!(listed.len(), 3);
    for ((name, text), entry) in
        [("b3_24", B3_24), ("b3_25", B3_25), ("b3_26", B3_26)].iter().zip(listed)
    {
        assert_eq!(entry["path"], format!("traces/{name}.jsonl"));
        assert_eq!(entry["bytes"], text.len(), "{name}");
        assert_eq!(entry["blake3"], blake3::hash(text.as_bytes()).to_hex().as_str(), "{name}");
    }
}

fn judge(file: usize, text: &str) -> Vec<Row> {
    let mut judge = Judge::new(file);
    let skipped = read_from(Path::new("t"), &mut text.as_bytes(), &mut |e| judge.add(e));
    skipped.unwrap();
    judge.finish()
}

/// The only row of one event.
fn row(event: &Value) -> Row {
    let mut rows = judge(0, &event.to_string());
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn event(text: &str, line: usize) -> Value {
    serde_json::from_str(text.lines().nth(line).unwrap()).unwrap()
}

/// p5_ba of the right kernel: its window is the whole sequence.
fn whole() -> Value {
    event(B3_25, 1)
}

/// p_long of the right kernel: a window of 64 keys of 738.
fn part() -> Value {
    event(B3_25, 2)
}

#[track_caller]
fn is(row: &Row, verdict: Verdict, words: &[&str]) {
    assert_eq!(row.verdict, verdict, "{row:#?}");
    let text = row.notes.join("; ");
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}

fn verdicts(rows: &[Row]) -> Vec<(&str, &str, Option<&str>)> {
    rows.iter().map(|r| (r.head.prompt_id.as_deref().unwrap(), r.verdict.name(), r.fault)).collect()
}

#[test]
fn the_golden_traces_are_judged_as_their_provenance_says() {
    let rows = judge(0, B3_24);
    assert_eq!(verdicts(&rows), [("p4_sys", "reference", None), ("p5_ba", "unexplained", None)]);
    is(&rows[0], Verdict::Reference, &["last 64 of 93 keys", "77.7 %", "nor prove it right"]);
    is(
        &rows[1],
        Verdict::Unexplained,
        &["neither row nor col fits", "`col` is the better of two wrong guesses", "1.1e5 times"],
    );
    let rows = judge(0, B3_25);
    let want =
        [("p4_sys", "reference", None), ("p5_ba", "clean", None), ("p_long", "reference", None)];
    assert_eq!(verdicts(&rows), want);
    let rows = judge(0, B3_26);
    let want = [
        ("p4_sys", "clean", None),
        ("p5_ba", "clean", None),
        ("p4_sys", "clean", None),
        ("p5_ba", "explained", Some("append_early")),
    ];
    assert_eq!(verdicts(&rows), want);
}

/// The bound is none that any change passes: one that two digits more would show is seen.
#[test]
fn ten_units_of_rounding_leave_clean_and_half_a_unit_stays() {
    let values = |e: &Value, d: usize| e["pv_gpu_sample"][d].as_f64().unwrap();
    let mut left = 0;
    for d in 0..16 {
        let x = values(&whole(), d);
        for (units, sign) in [(10.0, 1.0), (10.0, -1.0), (0.49, 1.0), (0.49, -1.0)] {
            let mut e = whole();
            e["pv_gpu_sample"][d] = json!(x + sign * units * 2.0 * half_unit(x));
            let verdict = row(&e).verdict;
            match units {
                10.0 => left += usize::from(verdict == Verdict::Unexplained),
                _ => assert_eq!(verdict, Verdict::Clean, "{d} {sign}"),
            }
        }
    }
    // Where V cancels, the sum's rounding is more than ten units of what is left: d 2, 3, … print
    // a digit further down.
    assert!(left >= 26, "{left} of 32");
    // In scope `full` over a part of the keys only the printed samples speak, and the f32 sum over
    // all 93: 2.3e-5 at most, if V outside the window stays in the range seen.
    for d in 0..16 {
        let mut e = event(B3_26, 0);
        let x = values(&e, d);
        e["pv_gpu_sample"][d] = json!(x + 5e-5);
        assert_eq!(row(&e).verdict, Verdict::Unexplained, "{d}");
    }
}

#[test]
fn each_output_is_judged_and_told_of() {
    let mut e = whole();
    e["attn_out_gpu_sample"][3] = json!(1.6);
    is(&row(&e), Verdict::Unexplained, &["attn_out misses", "element 3", "attn_out_mae"]);
    let mut e = whole();
    for field in ["attn_out_gpu_sample", "attn_out_cpu_fp64_sample", "pv_cpu_fp64_sample"] {
        e.as_object_mut().unwrap().remove(field);
    }
    is(&row(&e), Verdict::Clean, &[]);
    let text = whole().to_string().replace("\"pv_gpu_sample\":[1.17157", "\"pv_gpu_sample\":[nan");
    is(&judge(0, &text)[0], Verdict::Unexplained, &["pv_gpu_sample[0] is not finite"]);
}

#[test]
fn a_residual_that_the_mass_outside_cannot_hold_is_no_reference() {
    let mut e = part();
    e["pv_gpu_sample"][5] = json!(2.0 + e["pv_gpu_sample"][5].as_f64().unwrap());
    is(
        &row(&e),
        Verdict::Unexplained,
        &["element 5", "rows of V 2.", "times as large as any seen"],
    );
    // It holds 0.876 at most.
    let mut e = part();
    e["pv_gpu_sample"][5] = json!(0.75 + e["pv_gpu_sample"][5].as_f64().unwrap());
    is(&row(&e), Verdict::Reference, &["18.1 %"]);
}

/// A kernel that forgot the same keys as its reference agrees with it. That is no proof.
#[test]
fn agreement_with_a_part_of_the_mass_is_not_clean() {
    let mut e = part();
    e["pv_gpu_sample"] = e["pv_cpu_fp64_sample"].clone();
    e["attn_out_gpu_sample"] = e["pv_cpu_fp64_sample"].clone();
    is(&row(&e), Verdict::Reference, &["64 of 738", "left them out too"]);
}

#[test]
fn weights_that_are_no_softmax_are_told_of() {
    let mut e = whole();
    e["p_window_gpu"][3] = json!(-0.00841277);
    is(&row(&e), Verdict::Unexplained, &["p_window_gpu[3]", "no softmax weight"]);
    let mut e = part();
    e["p_window_gpu"][0] = json!(0.5);
    is(&row(&e), Verdict::Unexplained, &["more than all"]);
    // One key's weight is lost; P·V is right for those that are there.
    let mut e = whole();
    let lost = e["p_window_gpu"][3].as_f64().unwrap();
    e["p_window_gpu"][3] = json!(0.0);
    for d in 0..16 {
        for field in ["pv_gpu_sample", "attn_out_gpu_sample"] {
            let v = e["v_window_gpu_sample"][3][d].as_f64().unwrap();
            e[field][d] = json!(e[field][d].as_f64().unwrap() - lost * v);
        }
    }
    is(&row(&e), Verdict::Unexplained, &["all 9 keys sum to 0.991587", "mass is lost"]);
}

#[test]
fn a_column_wise_sum_is_explained_where_it_fits() {
    let mut e = whole();
    let other =
        [0.3, -0.6, 1.0, 0.2, -1.2, -1.4, -0.8, 0.4, 0.7, -0.4, 0.9, -0.2, -0.8, -0.4, 0.1, 0.2];
    for f in
        ["pv_gpu_sample", "pv_cpu_fp64_sample", "attn_out_gpu_sample", "attn_out_cpu_fp64_sample"]
    {
        e[f] = json!(other);
    }
    e["v_layout_probe"] = json!({"v_layout_best": "col", "v_mae_row": 0.9, "v_mae_col": 1e-8});
    let r = row(&e);
    is(&r, Verdict::Explained, &["read column-wise"]);
    assert_eq!(r.fault, Some("v_col"));
    // In scope full, where the trace's own sum is the column-wise guess.
    let mut e = event(B3_26, 0);
    e["v_layout_probe"] = json!({"v_layout_best": "col", "v_mae_row": 0.9, "v_mae_col": 1e-8});
    assert_eq!(row(&e).fault, Some("v_col"));
    // Where both guesses agree, a row is as good.
    e["v_layout_probe"]["v_mae_row"] = json!(1e-8);
    is(&row(&e), Verdict::Clean, &[]);
}

#[test]
fn a_printed_error_that_its_samples_contradict_is_not_believed() {
    let mut e = event(B3_25, 0);
    e["pv_mae"] = json!(1e-8);
    let r = row(&e);
    is(&r, Verdict::Reference, &["pv_mae 1.0e-8 contradicts its own samples: 0.468"]);
    assert!((r.pv_mae().unwrap() - 0.467557).abs() < 1e-6);
    let mut e = whole();
    e["pv_mae"] = json!(0.5);
    is(&row(&e), Verdict::Clean, &["contradicts"]);
    // Finer than what six digits show, it is no contradiction, and the better number.
    assert_eq!(row(&whole()).pv_mae(), Some(2.30041e-8));
    // The reference may be none of its own numbers.
    let mut e = whole();
    for f in ["pv_cpu_fp64_sample", "attn_out_cpu_fp64_sample"] {
        e[f][0] = json!(7.0);
    }
    is(&row(&e), Verdict::Clean, &["pv_cpu_fp64_sample is 5.83 away from the sum"]);
}

/// An appended row's distances: K before, at, after its slot; V the same, and column-wise.
fn addr(k: [f64; 3], v: [f64; 4]) -> Value {
    json!({
        "event": "v_addr_trace", "prompt_id": "p", "layer": 1, "head": 0, "pos_id": 8, "seq_len": 9,
        "kv_pos_used": 8, "kv_head_stride_bytes": 65536, "kv_pos_stride_bytes": 256,
        "mae_k_prev": k[0], "mae_k_pos": k[1], "mae_k_next": k[2],
        "mae_v_prev": v[0], "mae_v_pos": v[1], "mae_v_next": v[2], "mae_v_col": v[3],
    })
}

#[test]
fn an_appended_row_is_found_where_it_stands() {
    let (k, v) = ([0.7, 0.0, 0.9], [1.5, 0.0, 1.7, 1.9]);
    let fault = |k, v| {
        let r = row(&addr(k, v));
        assert_eq!(r.fault.is_some(), r.verdict == Verdict::Explained, "{r:?}");
        (r.verdict.name(), r.fault)
    };
    assert_eq!(fault(k, v), ("clean", None));
    let (early_k, early_v) = ([0.0, 0.7, 0.9], [0.0, 1.5, 1.7, 1.9]);
    assert_eq!(fault(early_k, early_v), ("explained", Some("append_early")));
    assert_eq!(fault(k, early_v), ("explained", Some("append_early")));
    assert_eq!(fault([0.7, 0.9, 0.0], [1.5, 1.7, 0.0, 1.9]), ("explained", Some("append_late")));
    assert_eq!(fault(k, [1.5, 1.7, 1.8, 0.0]), ("explained", Some("append_col")));
    // Two faults at once, and a row that is nowhere.
    assert_eq!(fault(early_k, [1.5, 1.7, 1.8, 0.0]), ("unexplained", None));
    assert_eq!(fault(k, [1.5, 1.7, 1.8, 1.9]), ("unexplained", None));
    is(
        &row(&addr(k, [1.5, 0.2, 1.8, 1.9])),
        Verdict::Unexplained,
        &["V is nowhere; closest in its slot, at 0.200"],
    );
    // Equal rows: its own slot first.
    assert_eq!(fault([0.0, 0.0, 0.9], [0.0, 0.0, 0.0, 0.0]), ("clean", None));
    is(&row(&addr([0.0; 3], [0.0; 4])), Verdict::Clean, &["other slots hold an equal row"]);
}

#[test]
fn an_appended_row_is_found_to_the_rounding_of_a_narrow_cache_only() {
    let e = addr([0.7, 2e-4, 0.9], [1.5, 3e-4, 1.7, 1.9]);
    is(&row(&e), Verdict::Clean, &["rounding of a 16-bit cache"]);
    // Head vectors of 64 elements in rows of 256 bytes are f32, which an append copies.
    let both = |head_dim: u64| {
        let mut pv = whole();
        pv["head_dim"] = json!(head_dim);
        judge(0, &format!("{e}\n{pv}")).remove(0)
    };
    is(&both(64), Verdict::Unexplained, &["K is nowhere"]);
    is(&both(128), Verdict::Clean, &[]);
}

#[test]
fn the_slot_used_is_held_against_the_position_and_the_strides() {
    let (k, v) = ([0.7, 0.0, 0.9], [1.5, 0.0, 1.7, 1.9]);
    let used = |slot: u64, pos: u64| {
        let mut e = addr(k, v);
        (e["kv_pos_used"], e["pos_id"]) = (json!(slot), json!(pos));
        row(&e)
    };
    assert_eq!(used(7, 8).fault, Some("append_early"));
    assert_eq!(used(9, 8).fault, Some("append_late"));
    // 65536 / 256 rows a head: 256 is the next head's first row; a ring begins again.
    is(&used(256, 256), Verdict::Unexplained, &["slot 256 lies past the 256 rows"]);
    is(&used(0, 256), Verdict::Clean, &["ring"]);
    is(&used(255, 255), Verdict::Clean, &[]);
    is(&used(100, 8), Verdict::Clean, &["kv_pos_used is 100, pos_id 8"]);
}

/// Scores and weights of nine keys, from p5_ba.
fn softmax() -> Value {
    let p: Vec<f64> = serde_json::from_value(whole()["p_window_gpu"].clone()).unwrap();
    let six = |x: f64| format!("{x:.5e}").parse::<f64>().unwrap();
    let s: Vec<f64> = p.iter().map(|p| six(p.ln() + 3.25)).collect();
    json!({
        "event": "attn_softmax_trace", "prompt_id": "p", "layer": 1, "head": 0, "pos_id": 8,
        "seq_len": 9, "window_len": 9, "head_dim": 64, "scale_used": 0.125,
        "qk_window_gpu": s, "qk_window_cpu_fp64": s, "softmax_window_gpu": p, "softmax_window_cpu": p,
    })
}

#[test]
fn scores_and_weights_are_judged_by_each_other() {
    is(&row(&softmax()), Verdict::Clean, &[]);
    let with = |field: &str, n: usize, factor: f64| {
        let mut e = softmax();
        e[field][n] = json!(e[field][n].as_f64().unwrap() * factor);
        row(&e)
    };
    is(&with("qk_window_gpu", 2, 1.5), Verdict::Unexplained, &["score 2"]);
    // Ten units of a weight that is then no softmax of its score.
    is(&with("softmax_window_gpu", 2, 1.0 + 1e-4), Verdict::Unexplained, &["ln p - s varies"]);
    is(&with("softmax_window_gpu", 3, 0.0), Verdict::Unexplained, &["sum to 0.991587"]);
    // Every weight twice what it must be, over a part of the keys: a softmax, but not of all.
    let mut e = softmax();
    e["seq_len"] = json!(20);
    for n in 0..9 {
        for (field, by) in [("softmax_window_gpu", 0.5), ("softmax_window_cpu", 0.25)] {
            e[field][n] = json!(e[field][n].as_f64().unwrap() * by);
        }
    }
    is(&row(&e), Verdict::Unexplained, &["weight 2", "times what rounding allows"]);
    // A reference over the window alone.
    for n in 0..9 {
        e["softmax_window_cpu"][n] = json!(4.0 * e["softmax_window_cpu"][n].as_f64().unwrap());
    }
    is(&row(&e), Verdict::Reference, &["normalised over the window's 9 keys"]);
    // Scores printed before the scale.
    let mut e = softmax();
    for field in ["qk_window_gpu", "qk_window_cpu_fp64"] {
        for n in 0..9 {
            e[field][n] = json!(e[field][n].as_f64().unwrap() * 8.0);
        }
    }
    is(&row(&e), Verdict::Clean, &[]);
}

#[test]
fn a_decode_step_that_answers_every_prompt_alike_is_noted() {
    let line = |prompt: &str, phase: &str, id: i64| {
        format!("{{\"prompt_id\":\"{prompt}\",\"phase\":\"{phase}\",\"top1_id\":{id}}}\n")
    };
    let text = line("a", "prefill_last", 5) + &line("b", "prefill_last", 5);
    let rows = judge(0, &(text.clone() + &line("a", "decode0", 7) + &line("b", "decode0", 7)));
    is(&rows[0], Verdict::Reference, &["top1 5", "cannot be judged"]);
    assert!(!rows[0].notes.join("").contains("collapsed"));
    is(&rows[3], Verdict::Reference, &["2 prompts collapsed to this one id"]);
    let rows = judge(0, &(text + &line("a", "decode0", 5) + &line("b", "decode0", 7)));
    is(&rows[2], Verdict::Reference, &["repeats prefill_last"]);
    assert!(!rows[3].notes.join("").contains("collapsed"));
}

/// Both files' rows, and what they prove together.
fn together(a: &str, b: &str) -> (Vec<Row>, Vec<Pair>) {
    let mut rows = judge(0, a);
    rows.extend(judge(1, b));
    let pairs = compare(&rows);
    note_pairs(&mut rows, &pairs, &["a".to_owned(), "b".to_owned()]);
    (rows, pairs)
}

#[test]
fn two_runs_prove_a_kernel_wrong_that_one_cannot_judge() {
    let (rows, pairs) = together(B3_24, B3_25);
    assert_eq!(pairs.len(), 2);
    assert!(pairs.iter().all(Pair::proves_wrong));
    assert_eq!((pairs[0].wrong, pairs[1].wrong), (None, Some(1)));
    is(&rows[0], Verdict::Reference, &["b has the same weights and V, and another P·V"]);
    is(&rows[1], Verdict::Unexplained, &["this one, as that is clean"]);
    is(&rows[3], Verdict::Clean, &["not this one"]);

    // The later trace, over all keys, tells which; and clears the right kernel's earlier one.
    let (_, pairs) = together(B3_24, B3_26);
    assert_eq!((pairs[0].wrong, pairs[1].wrong), (Some(0), Some(1)));
    let (rows, pairs) = together(B3_25, B3_26);
    assert!(pairs.iter().all(|p| !p.proves_wrong() && p.pv_equal));
    assert_eq!((pairs[0].cleared, pairs[1].cleared), (Some(0), None));
    is(&rows[0], Verdict::Reference, &["there it is clean: the output is right"]);
}

#[test]
fn rounding_and_other_inputs_prove_nothing() {
    let mut e = whole();
    let x = e["pv_gpu_sample"][0].as_f64().unwrap();
    e["pv_gpu_sample"][0] = json!(x + 2.0 * half_unit(x));
    let (_, pairs) = together(&whole().to_string(), &e.to_string());
    assert!(pairs[0].pv_equal && !pairs[0].proves_wrong());
    for field in ["p_window_gpu", "v_window_gpu_sample"] {
        let mut e = event(B3_24, 1);
        let first = if field == "p_window_gpu" { &mut e[field][0] } else { &mut e[field][0][0] };
        *first = json!(first.as_f64().unwrap() * 1.001);
        let (_, pairs) = together(&e.to_string(), B3_25);
        assert!(pairs.len() == 1 && !pairs[0].proves_wrong(), "{pairs:?}");
    }
    // Another token is another event.
    let mut e = event(B3_24, 1);
    e["pos_id"] = json!(9);
    assert_eq!(together(&e.to_string(), B3_25).1, []);
}
