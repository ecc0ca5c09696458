//! The pages: what must stand in them, that they need nothing else, and that text is never markup.

use super::super::figures;
use super::{page, without_prolog};
use serde_json::{Value, json};

/// What a hostile name looks like.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&</code></pre><script>alert(2)</script>";

fn stored(text: &str) -> Value {
    serde_json::from_str(text).expect("a document")
}

fn stored_sweep() -> Value {
    stored(include_str!("../../../plots/results/2026-11-26-cpu/sweep.json"))
}

fn stored_bench() -> Value {
    stored(include_str!("../../../plots/results/2026-11-26-h100/bench.json"))
}

/// A sweep with a kernel that fails, one that could not be swept and one that passes.
fn sweep(name: &str) -> Value {
    json!({
        "format": "attnbench-sweep/1", "version": "0.1.0", "device": name, "seed": 20_261_126,
        "command": format!("attnbench sweep {name}"),
        "kernels": [
            failing(name),
            {"name": "broken", "verdict": "incomplete", "error": name, "cases": 0, "failures": []},
            {"name": "fine", "verdict": "pass", "cases": 10, "passed": 10, "failed": 0, "failures": []},
        ],
    })
}

fn failing(name: &str) -> Value {
    json!({
        "name": name, "verdict": "fail", "cases": 1300, "passed": 1048, "failed": 252, "skipped": 3,
        "vacuous": 7, "seconds": 2.5, "worst_ratio": null, "nonfinite": true, "median_ratio": 0.05,
        "p999_ratio": 0.9, "worst_case": name,
        "by_wave": {"32": {"cases": 650, "passed": 398, "failed": 252},
                    "64": {"cases": 650, "passed": 650, "failed": 0}},
        "drawn": {"dtype": {name: 650, "f32": 650}}, "missing": [name], "skipped_why": {name: 3},
        "vacuous_why": {name: 7}, "stopped": "stopped by --fail-fast", "failures": [failure(name)],
    })
}

fn failure(name: &str) -> Value {
    json!({
        "property": "sanitize/memory", "case": {"k": name}, "id": format!("b=1,hq=4 {name}"),
        "ratio": 9.4e5, "max_abs": 0.39953, "mae": null, "nonfinite": true, "wrong_elements": 2,
        "where": {"output": "out", "batch": 1, "head": 3, "token": 0, "d": 17},
        "detail": format!("reads past k {name}"), "count": 252, "original": name,
        "others": [name], "saved": name, "replay": format!("attnbench replay {name}"),
        "diagnosis": diagnosis(name), "findings": [finding(name)],
    })
}

fn finding(name: &str) -> Value {
    json!({
        "class": "memory", "kind": "out-of-bounds", "words": format!("thread 1 reads {name}"),
        "target": name, "count": 4, "at": {"file": name, "line": 65, "function": name,
        "callers": [{"file": name, "line": 108, "function": name}]},
        "other": {"at": {"file": name, "line": 9, "function": name}},
    })
}

fn diagnosis(name: &str) -> Value {
    json!({
        "verdict": "explained", "fault": "layer_slice", "params": {"read": 0, "how": name}, "stage": "pv",
        "mae": 0.1, "ratio": 0.002, "note": format!("all 9 outputs are wrong. {name}"),
        "advice": [format!("the base pointers {name}")], "told_by": name, "tried": 219,
        "candidates": [{"fault": "layer_slice", "params": {"read": 0}, "mae": 1e-6, "ratio": 0.002}],
        "equivalent": [{"fault": "dropped_tail", "params": {"tile": name}}], "more": {name: 3},
        "heads": [{"batch": 0, "head": 5, "verdict": "explained", "fault": name, "ratio": null,
                   "nonfinite": true}],
        "search": {name: {"tried": 219, "out_of_range": 1}},
    })
}

fn diagnose(name: &str, verdicts: &[&str]) -> Value {
    let slices = verdicts.iter().map(|verdict| {
        let mut slice = diagnosis(name);
        slice["verdict"] = json!(verdict);
        slice["file"] = json!(format!("some/{name}.safetensors"));
        if !["explained", "ambiguous"].contains(verdict) {
            slice["fault"] = Value::Null;
        }
        slice
    });
    json!({
        "format": "attnbench-diagnose/1", "version": "0.1.0", "command": name,
        "slices": slices.collect::<Vec<_>>(),
    })
}

fn trace(name: &str, verdict: &str) -> Value {
    json!({
        "format": "attnbench-trace/1", "version": "0.1.0", "command": name, "skipped": 3,
        "skipped_why": {"unknown_event": 2, "broken_line": 1, "long_line": 0},
        "rows": [{
            "event": "v_acc_trace", "prompt_id": name, "layer": 29, "head": 0, "seq_len": 93,
            "window_len": 64, "v_layout_best": "col", "pv_scope": "window", "pv_mae": 0.302,
            "attn_out_mae": null, "window_mass": 0.223, "verdict": verdict, "fault": null,
            "note": format!("misses by 2.80; {name}"), "ratio": 2.5, "file": name, "line": 1,
        }],
        "compared": [{
            "files": [name, "b.jsonl"], "rows": [0, 0], "prompt_id": name, "layer": 29, "head": 0,
            "p_equal": true, "v_equal": true, "pv_equal": true, "one_kernel_is_wrong": false,
            "wrong_file": null,
        }],
    })
}

fn bench(name: &str, verdict: &str, change: &str) -> Value {
    let row = |kernel: &str, verdict: &str| {
        json!({
            "kernel": kernel, "shape": name, "layout": name, "dtype": name, "params": {name: 4},
            "by_rule": true, "verdict": verdict, "why": name, "ratio": 0.03,
            "us": {"median": 15.9, "p5": 15.7, "p95": 16.1, "samples": 150, "rounds": [15.9]},
            "gbs": 2111.4, "share": 0.67, "of_read": 0.785, "tokens_per_s": 62924.7,
            "telemetry": {"sm_mhz": 1980, "mem_mhz": 2619, "power_w": 311.6, "temperature_c": 54,
                          "throttle": [name]},
        })
    };
    json!({
        "format": "attnbench-bench/1", "program": "attnbench", "version": "0.1.0", "command": name,
        "seed": 1, "device": {"name": name, "api": "cuda", "memory": 85_017_493_504_u64},
        "method": {"clock": "host", "rounds": 5, "replays": 30, "warm": 3},
        "ceiling": {"gbs": 3145.4, "bytes": 1_073_741_824, "gbs_at_begin": 3145.4, "gbs_at_end": 3135.7},
        "rows": [row(name, verdict)], "peers": [row("cudnn", "right")],
        "versus": [{"kernel": name, "shape": name, "layout": name, "us": 15.9, "peer": "cudnn",
                    "peer_us": 18.2, "ratio": 1.147}],
        "changes": [{"kernel": name, "shape": name, "layout": name, "old_us": 15.0, "us": 15.9,
                     "ratio": 1.06, "low": 1.05, "high": 1.07, "change": change}],
    })
}

fn all(name: &str) -> Vec<Value> {
    vec![
        sweep(name),
        diagnose(name, &["explained"]),
        diagnose(name, &["clean", "reference", "unexplained", "invalid"]),
        trace(name, "unexplained"),
        bench(name, "wrong", "slower"),
        json!({"format": name, "command": name, "version": name}),
        stored_sweep(),
        stored_bench(),
    ]
}

/// The page of a document, after all that holds of any page was asserted.
#[track_caller]
fn checked(document: &Value) -> String {
    let page = page(document, &[]);
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{}", &page[..60]);
    for part in
        ["<main>", "<title>", "<h1>", "prefers-color-scheme: dark", "name=\"viewport\"", "</html>"]
    {
        assert!(page.contains(part), "no {part}");
    }
    let lower = page.to_lowercase();
    for never in
        ["<script", "<img", "<iframe", "<object", "<base", "@import", "url(", "javascript:"]
    {
        assert!(!lower.contains(never), "{never} in the page");
    }
    for load in ["src=", "href="] {
        for (at, _) in lower.match_indices(load) {
            // In text a quote is escaped, and an equals sign is not: only attributes have both.
            let Some(value) = lower[at + load.len()..].strip_prefix('"') else { continue };
            let ours = value.starts_with('#') || value.starts_with("result.json\"");
            assert!(
                ours || value.starts_with("data:,\""),
                "{load}{}",
                &value[..value.len().min(60)]
            );
        }
    }
    headings_in_order(&page);
    balanced(&page);
    page
}

/// No heading skips a level.
fn headings_in_order(page: &str) {
    let mut last = 0;
    for (at, _) in page.match_indices("<h") {
        let Some(level) = page[at + 2..].chars().next().and_then(|c| c.to_digit(10)) else {
            continue;
        };
        assert!(level <= last + 1, "h{level} after h{last}");
        last = level;
    }
}

/// Every element that is opened is closed, and the other way about: hostile text would break that.
fn balanced(page: &str) {
    for element in [
        "main", "div", "table", "tr", "td", "th", "code", "pre", "article", "details", "dl", "p",
        "ul",
    ] {
        let opened = page.matches(&format!("<{element}>")).count()
            + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

/// Asserts that a page has every text.
#[track_caller]
fn has(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "no `{part}` in {page}");
    }
}

/// The large word of a page.
fn verdict(page: &str) -> &str {
    let from = page.find("class=\"word\"").expect("a verdict");
    let word = &page[from..page[from..].find("</p>").expect("an end") + from];
    word.rsplit("</span>").next().expect("a word")
}

#[test]
fn no_text_is_ever_markup() {
    for document in all(HOSTILE) {
        let page = checked(&document);
        assert!(!page.contains("<img"), "{page}");
        assert!(!page.contains("</code></pre><script"), "{page}");
    }
    // It is there, as text.
    let escaped = "&lt;img src=x onerror=alert(1)&gt;";
    for document in &all(HOSTILE)[..6] {
        assert!(page(document, &[]).contains(escaped), "{document:#}");
    }
}

#[test]
fn whatever_is_missing_or_of_another_type_a_page_is_made() {
    for document in all("k") {
        let object = document.as_object().expect("an object");
        for key in object.keys() {
            for value in [
                Value::Null,
                json!(3),
                json!("text"),
                json!([]),
                json!([3]),
                json!([{}]),
                json!({}),
            ] {
                let mut broken = document.clone();
                broken[key] = value;
                checked(&broken);
            }
        }
    }
    checked(&Value::Null);
    assert_eq!(verdict(&page(&json!([]), &[])), "UNKNOWN");
}

#[test]
fn a_sweep_that_fails_says_where_and_how_to_see_it_again() {
    let page = checked(&sweep("mine"));
    assert_eq!(verdict(&page), "FAIL");
    has(
        &page,
        &[
            "1 of 3 kernels failed: mine, in 252 of 1,310 cases.",
            "<th scope=\"row\"><a href=\"#kernel-0\">mine</a></th>",
            "<article class=\"bad\" id=\"kernel-0\"><h3>mine: sanitize/memory</h3>",
            "Fails in 252 of 1,300 cases.",
            "<code>b=1,hq=4 mine</code></pre>",
            "batch 1, head 3, token 0, d 17 of out",
            "got 9.4e5 times the bound; largest 3.995e-1, mean not finite; 2 elements wrong",
            "thread 1 reads mine",
            "mine:65 (mine), called at mine:108 (mine); the other side at mine:9 (mine)",
            "<code>layer_slice {how: mine, read: 0}</code>",
            "<li>all 9 outputs are wrong</li>",
            "the base pointers mine",
            "<code>attnbench replay mine</code></pre>",
            "<code>attnbench sweep mine</code></pre>",
            "20261126",
            "f32: 50.0 %, mine: 50.0 %",
            "Never exercised",
            "3 times: mine",
            "ERROR</span>",
        ],
    );
}

#[test]
fn a_sweep_comes_to_the_verdict_of_the_program() {
    let of = |kernels: Value| {
        let page = checked(&json!({"format": "attnbench-sweep/1", "kernels": kernels}));
        verdict(&page).to_owned()
    };
    let pass = json!({"name": "a", "verdict": "pass"});
    let incomplete = json!({"name": "b", "verdict": "incomplete"});
    let error = json!({"name": "c", "verdict": "incomplete", "error": "does not compile"});
    let fail = json!({"name": "d", "verdict": "fail", "error": "and an error"});
    assert_eq!(of(json!([pass])), "PASS");
    assert_eq!(of(json!([pass, error])), "ERROR");
    assert_eq!(of(json!([pass, error, incomplete])), "INCOMPLETE");
    assert_eq!(of(json!([pass, error, incomplete, fail])), "FAIL");
    assert_eq!(of(json!([])), "NOTHING");
}

#[test]
fn the_stored_sweep_passes() {
    let page = checked(&stored_sweep());
    assert_eq!(verdict(&page), "PASS");
    has(
        &page,
        &["All 13 kernels pass: 215,499 cases judged, none failed.", "decode_split", "17,000"],
    );
    assert!(!page.contains("What is wrong"));
}

#[test]
fn a_diagnosis_names_the_fault_and_what_to_look_at() {
    let page = checked(&diagnose("mine", &["explained"]));
    assert_eq!(verdict(&page), "EXPLAINED");
    has(
        &page,
        &[
            "Diagnosis of some/mine.safetensors",
            "<code>layer_slice {how: mine, read: 0}</code>",
            "all 9 outputs are wrong",
            "the base pointers mine",
            "Closest hypotheses",
            "batch 0, head 5",
            "<td class=\"number\">inf</td>",
            "1 of 1",
            "dropped_tail {tile: mine}",
            "3 more of mine",
        ],
    );
    let of = |verdicts: &[&str]| verdict(&checked(&diagnose("s", verdicts))).to_owned();
    assert_eq!(of(&["clean", "reference"]), "NO FAULT");
    assert_eq!(of(&["clean", "invalid"]), "INVALID");
    assert_eq!(of(&["clean", "invalid", "ambiguous"]), "FAULT");
    assert_eq!(of(&["unexplained"]), "UNEXPLAINED");
}

#[test]
fn a_trace_has_its_events_and_what_each_verdict_rests_on() {
    let page = checked(&trace("mine", "reference"));
    assert_eq!(verdict(&page), "OK");
    has(
        &page,
        &[
            "1 event: 1 reference.",
            "v_acc_trace",
            "<th scope=\"col\" class=\"number\">pv_mae</th>",
            "0.302000",
            "mine line 1, mine layer 29 head 0",
            "<li>misses by 2.80</li>",
            "Passed over: 3 lines (1 broken line, 2 unknown events).",
            "mine and b.jsonl",
        ],
    );
    assert!(!page.contains("qk_mae"), "a column that no row fills");
    assert_eq!(verdict(&checked(&trace("mine", "unexplained"))), "FAULT");
    assert_eq!(verdict(&checked(&trace("mine", "invalid"))), "INVALID");
    let mut proof = trace("mine", "clean");
    proof["compared"][0]["one_kernel_is_wrong"] = json!(true);
    proof["compared"][0]["wrong_file"] = json!("some/b.jsonl");
    let page = checked(&proof);
    assert_eq!(verdict(&page), "FAULT");
    has(&page, &["one of the two kernels was wrong, that of b.jsonl."]);
}

#[test]
fn a_bench_has_times_ceiling_peers_changes_and_telemetry() {
    let page = checked(&bench("mine", "right", "same"));
    assert_eq!(verdict(&page), "TIMED");
    has(
        &page,
        &[
            "the best of the others takes 1.147 times as long as mine",
            "3145 GB/s: reading alone, 1,073 MB",
            "5 rounds, each on buffers allocated anew, of 30 replays",
            "<td class=\"number\">78.5 %</td>",
            "mine=4 (rule)",
            "cudnn",
            "1.050 and 1.070",
            "multiprocessors 1980 MHz",
            "no figure here is a GPU",
            "85,017 MB",
        ],
    );
    let of =
        |verdict_: &str, change: &str| verdict(&checked(&bench("k", verdict_, change))).to_owned();
    assert_eq!(of("right", "slower"), "SLOWER");
    assert_eq!(of("wrong", "same"), "FAULT");
    assert_eq!(of("impossible", "same"), "FAULT");
    assert_eq!(of("refused", "same"), "NOT TIMED");
    has(&checked(&bench("k", "refused", "same")), &["What does not count"]);
}

#[test]
fn the_stored_bench_is_shown_beside_others() {
    let document = stored_bench();
    let page = checked(&document);
    let ceiling = format!("{:.0} GB/s", document["ceiling"]["gbs"].as_f64().expect("a ceiling"));
    assert_eq!(verdict(&page), "TIMED");
    has(
        &page,
        &["NVIDIA H100 80GB HBM3", &ceiling, "llama8b_b1_8k", "Beside others", "flash_attention_2"],
    );
}

#[test]
fn figures_stand_in_the_page_without_their_prolog() {
    let svg =
        "<?xml version=\"1.0\"?>\n<!DOCTYPE svg>\n<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>";
    assert_eq!(without_prolog(svg), "<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>");
    let document = stored_bench();
    let figures = figures::of(std::slice::from_ref(&document));
    assert!(!figures.is_empty(), "the stored bench has figures");
    let page = page(&document, &figures);
    assert!(
        !page.contains("<?xml") && !page.to_lowercase().contains("<script"),
        "a prolog or a script"
    );
    assert_eq!(page.matches("<div class=\"drawing\"><svg").count(), figures.len());
    headings_in_order(&page);
}
