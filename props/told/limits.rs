//! What a target cannot launch, what a claim did not bring, and a stack that is too small for a kernel.

use super::*;

/// The scores of all keys in shared memory: beyond a length no target has so much.
#[test]
fn scores_of_all_keys_in_shared_memory() {
    let scores = [
        ("const long long head =", "extern __shared__ float scores[];\n    const long long head ="),
        ("        s *= scale;\n", "        s = scores[n] = s * scale;\n"),
        ("block = [1, 1, 1]\n", "block = [1, 1, 1]\nshared_bytes = \"4 * seq_len\"\n"),
    ];
    let told = sweep(&small(PLAIN, "scores_in_lds", &scores), 60, &[]);
    assert_eq!((told.code, &told.kernel["failed"]), (3, &0.into()), "{}", told.text);
    let missing = told.kernel["missing"][0].as_str().expect("a length");
    for word in ["seq_len 16385", "gfx942", "64 KiB", "gfx950", "160 KiB", "40961"] {
        assert!(missing.contains(word), "no `{word}`: {missing}");
    }
    let most = ("head_dim = {", "seq_len = { max = 16384 }\nhead_dim = {");
    sweep(&small(PLAIN, "scores_in_lds_bounded", &[&scores[..], &[most]].concat()), 60, &[])
        .passes();
}

#[test]
fn claims_that_nothing_drives() {
    let claim = (
        "{ q = \"f16\", kv = \"f16\", out = \"f16\" }",
        "{ q = \"f16\", kv = \"f8_e4m3\", out = \"f16\" }",
    );
    let told = sweep(&small(PLAIN, "claims_fp8", &[claim]), 60, &[]);
    assert_eq!((told.code, &told.kernel["verdict"]), (3, &"incomplete".into()), "{}", told.text);
    assert_eq!(told.kernel["not_driven"], serde_json::json!(["kv = f8_e4m3"]));
    assert!(told.text.contains("claimed and not driven: kv = f8_e4m3"), "{}", told.text);

    let claim = ("[supports]", "[layout]\nk = [\"HND\", \"PHTD\"]\nv = [\"HND\"]\n\n[supports]");
    let told = sweep(&small(PLAIN, "claims_pages", &[claim]), 60, &[]);
    assert_eq!((told.code, &told.kernel["verdict"]), (3, &"incomplete".into()), "{}", told.text);
    assert_eq!(told.kernel["not_driven"], serde_json::json!(["layout k PHTD"]));
}

/// An array of 32 floats that is written up to 128.
#[test]
fn a_private_array_that_is_overrun() {
    let told = sweep(&small(PLAIN, "short_array", &[("LONGEST = 128", "LONGEST = 32")]), 60, &[]);
    let failure = told.failure();
    let words = failure["detail"].as_str().expect("words");
    assert!(words.contains("stack"), "{words}");
    assert!(words.contains("--sanitize=memory"), "{words}");
    assert!(told.names().is_empty(), "{}", told.text);
}
