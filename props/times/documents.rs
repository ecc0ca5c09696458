//! One document beside others: an earlier run's, and those of peers.

use super::super::bench::Bench;
use super::{OPEN, STRICT, document, mistakes};
use serde_json::{Value, json};

/// Times of five rounds about a median, as far apart as `spread` says.
fn us(median: f64, spread: f64) -> Value {
    let rounds = [-1.0, 0.5, 0.0, 1.0, -0.5].map(|step| median * (1.0 + spread * step));
    json!({"median": median, "p5": 0.98 * median, "p95": 1.02 * median, "samples": 150, "rounds": rounds})
}

fn row(kernel: &str, shape: &str, us: Value) -> Value {
    let median = us["median"].as_f64().expect("a median");
    json!({
        "kernel": kernel, "hash": "0123456789abcdef", "shape": shape, "case": "hq=8,hkv=2,d=64,n=100,dt=f16",
        "batch": 1, "num_heads": 8, "num_kv_heads": 2, "head_dim": 64, "seq_len": 100, "window_len": 0,
        "dtype": "f16", "layout": "NHD", "by_rule": false, "verdict": "right", "ratio": 0.5,
        "heads_checked": 8, "kv_bytes": 51_200, "sets": 2, "calls": 4, "graph": true, "us": us,
        "gbs": 51.2 / median, "share": 0.9, "tokens_per_s": 1e6 / median,
    })
}

fn whole(rows: Vec<Value>) -> Value {
    let document = json!({
        "format": "attnbench-bench/1", "program": "attnbench", "version": "1.0.0", "command": "bench",
        "seed": 1,
        "device": {"name": "GPU A", "api": "cuda", "arch": "sm_90", "driver": "1.0", "compiler": "NVRTC 1.0",
            "multiprocessors": 132, "l2_bytes": 52_428_800, "memory": 85_899_345_920u64},
        "method": {"clock": "device", "rounds": 5, "replays": 30, "warm": 3},
        "ceiling": {"gbs": 3000.0, "bytes": 1_073_741_824, "gbs_at_begin": 2990.0, "gbs_at_end": 2980.0},
        "rows": rows,
    });
    assert_eq!(mistakes(&STRICT, &document), Vec::<String>::new());
    document
}

/// What peers.py writes (benches/peers/measure.py): no verdicts, settings beside, and what is missing.
fn of_peers(rows: &[(&str, &str, f64)]) -> Value {
    let row = |(kernel, shape, median): &(&str, &str, f64)| {
        json!({
            "kernel": kernel, "shape": shape, "batch": 1, "num_heads": 8, "num_kv_heads": 2, "head_dim": 64,
            "seq_len": 100, "window_len": 0, "dtype": "f16", "layout": "NHD", "kv_bytes": 51_200, "sets": 2,
            "calls": 4, "graph": true, "us": us(*median, 0.001), "gbs": 51.2 / median,
            "tokens_per_s": 1e6 / median, "rel_l2_error": 3.1e-4, "settings": {"kv_splits": 8},
        })
    };
    json!({
        "format": "attnbench-bench/1", "program": "peers.py",
        "command": "python3 benches/peers/peers.py --json peers.json", "seed": 1,
        "device": {"name": "GPU A", "api": "cuda", "driver": "1.0", "arch": "sm_90", "multiprocessors": 132,
            "l2_bytes": 52_428_800, "memory": 85_899_345_920u64},
        "versions": {"torch": "2.9.0", "cuda": "12.8", "cudnn": "9.1.0", "triton": null},
        "method": {"rounds": 5, "replays": 30, "warm": 3, "least_bytes": 256_000_000},
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "missing": [{"kernel": "sglang_triton", "shape": "a", "layout": "HND", "why": "no SGLang"}],
        "telemetry": [{"when": "before a", "sm_mhz": 1980.0, "mem_mhz": 2619.0, "power_w": 120.5,
            "temperature_c": 40.0, "throttle": ["gpu_idle"]}],
    })
}

/// What else is described stays strict where keys may be added.
#[test]
fn the_schema_takes_what_is_right_and_nothing_else() {
    let own = whole(vec![row("k", "a", us(100.0, 0.002))]);
    let peers = of_peers(&[("x", "a", 90.0)]);
    assert_eq!(mistakes(&OPEN, &own), Vec::<String>::new());
    assert_eq!(mistakes(&OPEN, &peers), Vec::<String>::new());
    for (pointer, value) in [
        ("/format", json!("attnbench-bench/2")),
        ("/seed", json!(-1)),
        ("/device/api", json!("opencl")),
        ("/device/driver", Value::Null),
        ("/method/clock", json!("sundial")),
        ("/method/rounds", json!(0)),
        ("/ceiling/gbs", json!("fast")),
        ("/rows", json!({})),
        ("/rows/0/kernel", json!("")),
        ("/rows/0/dtype", json!("f16/f16")),
        ("/rows/0/verdict", json!("maybe")),
        ("/rows/0/verdict", json!("wrong")),
        ("/rows/0/us", Value::Null),
        ("/rows/0/us/median", json!(0)),
        ("/rows/0/us/samples", json!(0)),
        ("/rows/0/us/rounds", json!([])),
        ("/rows/0/ratio", Value::Null),
        ("/rows/0/kv_bytes", json!(1.5)),
        ("/rows/0/graph", json!("yes")),
    ] {
        let mut wrong = own.clone();
        *wrong.pointer_mut(pointer).expect(pointer) = value.clone();
        assert!(!OPEN.is_valid(&wrong), "{pointer} = {value}");
    }
    for (of, keys) in [
        (
            "",
            &[
                "format", "program", "version", "command", "seed", "device", "method", "ceiling",
                "rows",
            ][..],
        ),
        ("/device", &["name", "api", "arch", "driver", "multiprocessors", "l2_bytes", "memory"]),
        ("/method", &["clock", "rounds", "replays", "warm"]),
        (
            "/rows/0",
            &["kernel", "shape", "layout", "dtype", "batch", "us", "verdict", "case", "sets"],
        ),
        ("/rows/0/us", &["median", "p5", "p95", "samples", "rounds"]),
    ] {
        for key in keys {
            let mut wrong = own.clone();
            let object = wrong.pointer_mut(of).and_then(Value::as_object_mut).expect("an object");
            object.remove(*key).expect(key);
            assert!(!OPEN.is_valid(&wrong), "without {of}/{key}");
        }
    }
}

/// Writes both, and compares; the changes of the document in words, and what was printed.
#[track_caller]
fn compared(new: &Value, old: &Value, more: &[&str], code: i32) -> (Vec<(String, String)>, String) {
    let bench = Bench::new();
    bench.write("new.json", new.to_string());
    bench.write("old.json", old.to_string());
    let args = [&["bench", "--from", "new.json", "--compare", "old.json"], more].concat();
    let text = bench.run(&args).ends_with(code).stdout;
    let document = document(&bench.run([&args[..], &["--json", "-"]].concat()).ends_with(code));
    assert_eq!(document["rows"], new["rows"], "what was measured stays");
    let word = |change: &Value, key: &str| change[key].as_str().expect("a word").to_owned();
    let changes = document["changes"].as_array().map_or(&[][..], Vec::as_slice);
    (changes.iter().map(|c| (word(c, "shape"), word(c, "change"))).collect(), text)
}

#[test]
fn a_run_is_compared_with_an_earlier_one() {
    let spread = 0.002;
    let old = whole(vec![
        row("k", "same", us(100.0, spread)),
        row("k", "slower", us(100.0, spread)),
        row("k", "faster", us(100.0, spread)),
        row("k", "unclear", us(100.0, spread)),
        row("k", "gone", us(100.0, spread)),
        row("other", "new", us(100.0, spread)),
    ]);
    let slower = row("k", "slower", us(105.0, spread));
    let all = [
        row("k", "same", us(100.7, spread)),
        slower.clone(),
        row("k", "faster", us(95.0, spread)),
        // Slower by its median, and as fast in a round.
        row("k", "unclear", us(105.0, 0.06)),
        row("k", "new", us(100.0, spread)),
    ];
    let (changes, text) = compared(&whole(all.to_vec()), &old, &[], 1);
    let want =
        ["same", "slower", "faster", "unclear"].map(|word| (word.to_owned(), word.to_owned()));
    assert_eq!(changes, want);
    assert!(text.ends_with("\n5 timed, 1 faster, 1 slower, 1 same, 1 unclear\n"), "{text}");
    let line =
        text.lines().find(|line| line.starts_with("| slower ")).expect("a line of the table");
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    // Rounds of 105 (1 +- 0.002) over rounds of 100 (1 +- 0.002).
    let want = ["slower", "NHD", "k", "100.0", "105.0", "1.050", "1.046 and 1.054", "slower"];
    let of_changes = text.lines().filter(|line| line.starts_with("| slower ")).nth(1);
    let cells = of_changes.map_or(cells, |line| line.split('|').map(str::trim).collect());
    assert_eq!(cells[1..9], want, "{text}");
    assert!(!text.contains("another device"), "{text}");

    // Without the slower one all is well; within the tolerance it is the same.
    let rest = whole(all.iter().filter(|row| **row != slower).cloned().collect());
    assert_eq!(compared(&rest, &old, &[], 0).0.len(), 3);
    let one = whole(vec![slower]);
    let is = |more: &[&str], code| compared(&one, &old, more, code).0[0].1.clone();
    assert_eq!(is(&["--tolerance", "6"], 0), "same");
    assert_eq!(is(&["--tolerance", "4.9"], 1), "slower");

    // Of another layout, type or kernel nothing is said.
    let mut other = whole(vec![row("k", "same", us(100.0, spread))]);
    other["rows"][0]["layout"] = json!("HND");
    let (changes, text) = compared(&other, &old, &[], 0);
    assert!(
        changes.is_empty() && text.contains("no row of the earlier result is of the same"),
        "{text}"
    );
    other["rows"][0]["layout"] = json!("NHD");
    other["rows"][0]["dtype"] = json!("bf16");
    assert!(compared(&other, &old, &[], 0).0.is_empty());

    let mut elsewhere = old.clone();
    elsewhere["device"]["name"] = json!("GPU B");
    let text = compared(&one, &elsewhere, &[], 1).1;
    assert!(
        text.contains("then it was another device (GPU B): what changed need not be the"),
        "{text}"
    );
}

/// The same kernel with other tunables is another row; of the same ones where there is such.
#[test]
fn rows_of_the_same_tunables_are_compared() {
    let with = |median: f64, waves: i64| {
        let mut row = row("k", "a", us(median, 0.002));
        row["params"] = json!({"waves": waves});
        row
    };
    let (old, new) = (whole(vec![with(50.0, 4), with(100.0, 8)]), whole(vec![with(100.0, 8)]));
    assert_eq!(compared(&new, &old, &[], 0).0[0].1, "same");
    let new = whole(vec![with(100.0, 4)]);
    assert_eq!(compared(&new, &old, &[], 1).0[0].1, "slower");
}

#[test]
fn peers_stand_side_by_side() {
    let bench = Bench::new();
    let own = whole(vec![
        row("k", "a", us(100.0, 0.002)),
        row("k", "b", us(100.0, 0.002)),
        row("k", "c", us(1.0, 0.002)),
    ]);
    bench.write("own.json", own.to_string());
    bench.write("x.json", of_peers(&[("x", "a", 120.0), ("y", "a", 50.0)]).to_string());
    bench.write(
        "z.json",
        of_peers(&[("x", "b", 400.0), ("z", "b", 500.0), ("z", "d", 1.0)]).to_string(),
    );
    let with = ["bench", "--from", "own.json", "--with", "x.json", "--with", "z.json"];
    let text = bench.run(with).ends_with(0).stdout;
    // x has 120 on a and 400 on b, y 50 on a alone, z 500 on b alone: 50 / 100 and 400 / 100, of which the
    // geometric mean is the root of 2.
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let find = |cells: &[&str]| lines.iter().any(|l| l.len() > 2 && l[1..l.len() - 1] == *cells);
    assert!(find(&["shape", "layout", "k", "x", "y", "z", "best of them / ours"]), "{text}");
    assert!(find(&["a", "NHD", "100.0", "120.0", "50.0", "-", "0.500"]), "{text}");
    assert!(find(&["b", "NHD", "100.0", "400.0", "-", "500.0", "4.000"]), "{text}");
    let words = "k: best of them / ours, geometric mean 1.414 over 2, least 0.500\n";
    assert!(text.contains(words), "{text}");
    assert!(!text.contains("no reason is known"), "{text}");

    let document = document(&bench.run([&with[..], &["--json", "-"]].concat()).ends_with(0));
    let versus = json!([
        {"kernel": "k", "shape": "a", "layout": "NHD", "us": 100.0, "peer": "y", "peer_us": 50.0, "ratio": 0.5},
        {"kernel": "k", "shape": "b", "layout": "NHD", "us": 100.0, "peer": "x", "peer_us": 400.0, "ratio": 4.0},
    ]);
    assert_eq!(document["versus"], versus);
    assert_eq!(document["peers"].as_array().map(Vec::len), Some(5));
    assert_eq!(document["rows"], own["rows"]);

    // The peers' own result can be shown, and be compared.
    let alone = bench.run(["bench", "--from", "x.json"]).ends_with(0).stdout;
    assert!(alone.ends_with("\n2 timed\n") && !alone.contains("no reason is known"), "{alone}");
    // Of other shapes there is nothing beside.
    bench.write("d.json", of_peers(&[("x", "d", 1.0)]).to_string());
    let text = bench.run(["bench", "--from", "own.json", "--with", "d.json"]).ends_with(0).stdout;
    assert!(text.contains("no shape and layout of these rows is among the others'\n"), "{text}");
}

/// What is not right makes the status that it made when it was measured.
#[test]
fn a_result_is_taken_again() {
    let bench = Bench::new();
    let from = |document: &Value, code: i32| {
        bench.write("a.json", document.to_string());
        bench.run(["bench", "--from", "a.json"]).ends_with(code).stdout
    };
    let mut document = whole(vec![row("k", "a", us(100.0, 0.002))]);
    let text = from(&document, 0);
    assert!(text.contains("ceiling 3000 GB/s: reading alone, 1073 MB"), "{text}");
    assert!(!text.contains("no figure here is a GPU's"), "{text}");
    let row = &mut document["rows"][0];
    row["verdict"] = json!("impossible");
    row["why"] = json!("9999 GB/s");
    let text = from(&document, 1);
    assert!(text.contains("impossible k on a (NHD): 9999 GB/s\n"), "{text}");
    assert!(text.ends_with("\n0 timed, 1 faster than the memory allows\n"), "{text}");
    let row = &mut document["rows"][0];
    row["verdict"] = json!("refused");
    row["us"] = Value::Null;
    from(&document, 2);
}

/// The device under load, over all rows.
#[test]
fn what_the_driver_told_is_summed_up() {
    let bench = Bench::new();
    let mut document = whole(vec![row("k", "a", us(100.0, 0.002)), row("k", "b", us(90.0, 0.002))]);
    for (index, mhz) in [1500, 1980].into_iter().enumerate() {
        document["rows"][index]["telemetry"] = json!({"sm_mhz": mhz, "mem_mhz": 2619, "power_w": null,
            "temperature_c": 40, "throttle": ["sw_power_cap"]});
    }
    assert_eq!(mistakes(&STRICT, &document), Vec::<String>::new());
    bench.write("t.json", document.to_string());
    let text = bench.run(["bench", "--from", "t.json"]).ends_with(0).stdout;
    let words = "under load: multiprocessors 1500 to 1980 MHz, memory 2619 MHz, unknown W, 40 degrees C; \
                 clocks held back by sw_power_cap\n";
    assert!(text.contains(words), "{text}");
}
