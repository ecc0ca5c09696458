//! Figures of documents that are small, odd or hostile: titles stay true, and nothing breaks.

use super::{Figure, of};
use serde_json::{Value, json};

fn figure(documents: &[Value], name: &str) -> Option<Figure> {
    let figures = of(documents);
    for f in &figures {
        sound(f);
    }
    figures.into_iter().find(|f| f.name == name)
}

/// What holds of every figure.
fn sound(f: &Figure) {
    for never in
        ["NaN", "inf ", "inf%", " 1 cases", " 1 shapes", " 1 captures", " 1 heads", " 1 faults"]
    {
        assert!(!f.title.contains(never), "{never} in: {}", f.title);
    }
    assert!(f.title.len() < 400 && !f.title.is_empty(), "{}", f.title);
    let (width, height) = f.size();
    assert!(width == 840 && (100..4000).contains(&height), "{}: {height}", f.name);
    assert!(
        f.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'),
        "{}",
        f.name
    );
    assert!(!f.svg.chars().any(|c| c.is_control() && c != '\n'), "{}", f.name);
    assert!(!f.svg.contains("<b>"), "{}", f.name);
}

fn sweep(name: &str, failed: u64, ratio: f64) -> Value {
    let bin = |from: u64| json!({"along": "seq_len", "dtype": "f16", "from": from, "cases": 10, "max_abs": 1e-3, "bound": 2e-3, "ratio": ratio});
    let mut counts = vec![0; 120];
    counts[119] = 3;
    json!({
        "format": "attnbench-sweep/1", "device": "cpu (g++ 12, x86_64)", "seed": 1,
        "kernels": [{
            "name": name, "verdict": "pass", "cases": 300, "failed": failed, "seconds": 2.0,
            "errors": [bin(1), bin(2), bin(4), bin(8)],
            "ratios": {"log10_from": -6, "bins_a_decade": 20, "counts": counts, "below": 7},
        }],
    })
}

#[test]
fn a_sweep_that_failed_does_not_say_that_all_is_within_bounds() {
    let title =
        |failed| figure(&[sweep("decode_mine", failed, 0.836)], "errors-seq_len").unwrap().title;
    assert_eq!(
        title(44),
        "44 of 300 cases fail; of 40 passed ones with normal data the worst uses 83.6 % of its bound"
    );
    assert_eq!(title(0), "Of 40 passed cases with normal data the worst uses 83.6 % of its bound");
}

#[test]
fn what_is_left_of_the_axis_is_said() {
    let f = figure(&[sweep("k", 0, 0.5)], "error-over-bound").unwrap();
    assert!(f.svg.contains("k, 70 % further left"));
    assert!(f.title.starts_with("In 30 % of"), "{}", f.title);
}

#[test]
fn each_device_has_its_own_mark() {
    let mut few = sweep("k", 0, 0.5);
    few["kernels"][0]["cases"] = json!(10);
    few["device"] = json!("hip:0 (a, b)");
    // The device without a rate has no place in the legend, and takes none's mark.
    let f = figure(&[few, sweep("k", 0, 0.5)], "cases-a-second").unwrap();
    assert_eq!(f.title, "150 cases a second are judged against the f64 oracle");
    assert!(f.svg.contains("<circle") && !f.svg.contains("hip"));
}

fn bench(peers: &[(&str, f64)], layout: &str) -> Value {
    let row = |kernel: &str, us: f64| {
        json!({
            "kernel": kernel, "shape": "s", "layout": layout, "batch": 1, "num_heads": 8, "num_kv_heads": 2,
            "head_dim": 64, "seq_len": 512, "dtype": "f16", "kv_bytes": 1e6, "verdict": "right", "by_rule": true,
            "params": {"splits": 1}, "us": {"median": us},
        })
    };
    json!({
        "format": "attnbench-bench/1", "program": "attnbench", "device": {"name": "X"},
        "method": {"clock": "device"}, "ceiling": {"gbs": 1000.0}, "rows": [row("mine", 10.0)],
        "peers": peers.iter().map(|(name, us)| row(name, *us)).collect::<Vec<_>>(),
    })
}

#[test]
fn a_faster_peer_is_drawn_and_told() {
    let f = figure(&[bench(&[("cudnn", 5.0)], "NHD")], "beside-peers-NHD").unwrap();
    assert_eq!(
        f.title,
        "mine is ahead of the best of 1 other on 0 of 1 shape: 0.50 times as fast (geometric mean), 0.500 at least"
    );
    // Two marks in the row and one each in the legend.
    assert_eq!(f.svg.matches("<circle").count(), 2);
    let f =
        figure(&[bench(&[("a", 20.0), ("b", 30.0)], "../../x")], "beside-peers-______x").unwrap();
    assert!(f.title.contains("best of 2 others on 1 of 1 shape"));
}

#[test]
fn peers_of_a_document_of_their_own_stand_beside() {
    let mut peers = bench(&[], "NHD");
    peers["program"] = json!("peers.py");
    peers["rows"][0]["kernel"] = json!("cudnn");
    let f = figure(&[bench(&[], "NHD"), peers], "beside-peers-NHD").unwrap();
    assert!(f.svg.contains("cudnn"));
}

#[test]
fn what_is_faster_than_the_memory_is_called_so() {
    let mut fast = bench(&[], "NHD");
    fast["rows"][0]["us"]["median"] = json!(0.1);
    let title = figure(&[fast.clone()], "roofline").unwrap().title;
    assert!(title.starts_with("1 of 1 time lie above"), "{title}");
    fast["method"]["clock"] = json!("host");
    assert!(figure(&[fast], "throughput").unwrap().caption.contains("no GPU's figures"));
}

fn slice(file: &str, right: Value, fault: Value, units: Value) -> Value {
    let heads = |r: &Value| json!([r, r]);
    json!({
        "file": file, "fault": null, "shape": {"prompt_id": "p<b>", "layer": 3, "seq_len": 80},
        "units": units,
        "hypotheses": [
            {"fault": "none", "mae": 0.1, "ratio": right, "heads": heads(&right)},
            {"fault": "v_col", "mae": 0.2, "ratio": fault, "heads": heads(&fault)},
        ],
        "probe": {"mae_row": 0.3, "mae_col": 0.2},
        "windows": [{"window_len": 1, "mae": 0.5, "missing": 0.9}, {"window_len": 64, "mae": 0.25, "missing": 0.5},
                    {"window_len": 80, "mae": 0.0, "missing": 0.0}],
        "first_wrong": [{"key": 1, "max_abs": 1.0, "bound": 1e-3, "ratio": 1000.0},
                        {"key": 79, "max_abs": 0.1, "bound": 1e-3, "ratio": 100.0}],
    })
}

fn diagnose(slices: Vec<Value>) -> Value {
    json!({"format": "attnbench-diagnose/1", "slices": slices})
}

#[test]
fn titles_of_slices_follow_from_them() {
    let units = json!([{"batch": 0, "head": 0}, {"batch": 0, "head": 5}]);
    let title = |slices: Vec<Value>, name: &str| figure(&[diagnose(slices)], name).unwrap().title;
    let clean = || slice("d/one.safetensors", json!(0.5), json!(300.0), units.clone());
    let wrong = || slice("d/two.safetensors", json!(700.0), json!(0.25), units.clone());
    let lost = || slice("d/three.safetensors", json!(700.0), Value::Null, units.clone());
    assert_eq!(
        title(vec![clean()], "layouts"),
        "The right answer fits 1 capture; the nearest of 1 fault is at 300 times its bound"
    );
    assert_eq!(
        title(vec![clean(), wrong()], "layouts"),
        "Of 1 fault only v_col explains two; a probe of two layouts says col"
    );
    assert_eq!(
        title(vec![lost()], "layouts"),
        "None of 1 fault explains three; a probe of two layouts says col"
    );
    assert_eq!(
        title(vec![clean(), wrong()], "heads"),
        "2 of 4 heads in 2 captures are wrong, head 0 of two most"
    );
    let batch = slice(
        "b",
        json!(2.0),
        json!(9.0),
        json!([{"batch": 1, "head": 4}, {"batch": 1, "head": 7}]),
    );
    assert!(title(vec![batch], "heads").contains("head 1.4 of b"));
    assert_eq!(
        title(vec![clean()], "reference-window"),
        "Over the last 64 keys a reference calls the right output of p<b>, layer 3, 80 keys wrong by 0.25: it leaves \
         out 50 % of the weight"
    );
    assert!(title(vec![clean()], "first-wrong-key").ends_with("it is 100 bounds or more"));
    // Of nothing that was left out, and of no finite number, there is no figure.
    let mut none = clean();
    none["windows"] = json!([{"window_len": 1, "mae": 0.0, "missing": 0.0}]);
    none["first_wrong"] = json!([{"key": 1, "max_abs": null, "bound": null, "ratio": null}]);
    let figures = of(&[diagnose(vec![none])]);
    assert!(figures.iter().all(|f| f.name != "reference-window" && f.name != "first-wrong-key"));
}

#[test]
fn hostile_documents_neither_break_nor_grow() {
    let long = "n<b>\u{1}\u{7f}".repeat(300);
    let mut many = sweep(&long, 0, 5e-324);
    many["kernels"][0]["ratios"]["counts"] = json!([u64::MAX, u64::MAX]);
    many["kernels"][0]["ratios"]["bins_a_decade"] = json!(0);
    many["kernels"][0]["errors"][0]["max_abs"] = json!(5e-324);
    let kernels: Vec<Value> = (0..500)
        .map(|i| {
            let mut kernel = many["kernels"][0].clone();
            kernel["name"] = json!(format!("{i}{long}"));
            kernel
        })
        .collect();
    many["kernels"] = json!(kernels);
    let faults: Vec<Value> = (0..500)
        .map(|i| {
            let alone = json!({format!("r{i}"): 1, "gauss": i % 2, long.clone(): null});
            json!({"fault": "f", "kernel": format!("k{i}"), "regime": format!("r{i}"), "cases": 1, "alone": alone})
        })
        .collect();
    let documents = [
        many,
        bench(&[(&long, 1e-300)], &long),
        json!({"format": "attnbench-faults/1", "cases": 300, "cases_alone": 60, "faults": faults}),
        diagnose(vec![slice(&long, Value::Null, Value::Null, Value::Null)]),
        json!({"format": "attnbench-trace/1", "rows": [{"v_mae_row": 5e-324, "v_mae_col": 1.0, "pv_mae": null, "prompt_id": long}]}),
        json!({"format": "attnbench-sweep/1", "kernels": 7}),
        json!({"format": "attnbench-diagnose/1"}),
        json!(null),
    ];
    let figures = of(&documents);
    assert!(figures.len() > 5, "{}", figures.len());
    figures.iter().for_each(sound);
    for (i, figure) in figures.iter().enumerate() {
        assert!(
            figures[..i].iter().all(|other| other.name != figure.name),
            "{} twice",
            figure.name
        );
    }
}

#[test]
fn a_fault_that_every_regime_catches_is_counted_and_left_out() {
    let fault = |name: &str, alone: Value| json!({"fault": name, "kernel": "k", "cases": 1, "alone": alone});
    let document = |faults: Vec<Value>| json!({"format": "attnbench-faults/1", "command": "c", "cases": 300, "cases_alone": 60, "faults": faults});
    let easy = fault("easy", json!({"gauss": 1, "large": 2}));
    let hard = fault("hard", json!({"gauss": null, "large": 7}));
    let f = figure(&[document(vec![easy.clone(), hard])], "faults-by-regime").unwrap();
    assert_eq!(
        f.title,
        "1 of 2 faults planted show on data of any regime; 1 stay hidden on some, 1 on all but one"
    );
    assert!(f.svg.contains("hard") && !f.svg.contains("easy"));
    // Nothing is drawn of nothing.
    assert!(figure(&[document(vec![easy])], "faults-by-regime").is_none());
    assert!(figure(&[document(vec![])], "faults-by-regime").is_none());
}
