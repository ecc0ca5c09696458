//! Numbers that are held in fewer bits than the manifest says, and an lse that counts what is not there.

use super::*;

/// A part without keys has the weight exp(0) in a merge, and whatever lies in its output.
#[test]
fn a_finite_lse_of_a_part_without_keys() {
    let (from, to) =
        ("partial_lse[row] = sums", "partial_lse[row] = sums.total == 0.0f ? 0.0f : sums");
    let told = sweep(&built_in("split", "finite_lse", &[("decode_split.hip", from, to)]), 100, &[]);
    told.names_nothing_but(&["empty_part_counted", "lse_of_nothing"]);
    told.needs("a split without keys");
    assert!(told.text.contains("without keys"), "{}", told.text);
}

#[test]
fn scores_stored_in_f16() {
    let edit = (
        "decode_online.hip",
        "scores[i] = finish_score(dot, scale, softcap);",
        "scores[i] = finish_score(to_float(rounded<__half>::from(dot)), scale, softcap);",
    );
    let told = sweep(&built_in("decode_online", "f16_scores", &[edit]), 100, &[]);
    told.names_nothing_but(&["scores_narrowed"]);
    let d = &told.failure()["diagnosis"];
    assert!(d["fault"] == "scores_narrowed" || d["promise"]["key"] == "scores", "{}", told.text);
}
