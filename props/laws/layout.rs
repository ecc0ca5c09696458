//! Where elements lie changes nothing: layouts, paddings, offsets, more rows than needed, and other
//! fillers (which every run of a case has).

use super::{DECODE, breaks, built_in, holds, trial};
use attnbench::data::generate::generate;
use attnbench::data::image::Poisons;
use attnbench::judge::law::Law;
use attnbench::problem::Case;

#[test]
fn other_layouts_and_paddings_change_nothing() {
    holds(Law::Layout, &DECODE);
    holds(Law::Layout, &["append", "scores", "softmax", "pv", "split"]);
    holds(Law::Layout, &["merge", "prefill", "head_combine", "norm"]);
}

#[test]
fn a_larger_capacity_changes_nothing() {
    holds(Law::Capacity, &DECODE);
    holds(Law::Capacity, &["append", "scores", "softmax", "pv", "split", "prefill"]);
}

/// The same bits under every poison, in what must not be read.
#[test]
fn other_fillers_change_nothing() {
    for name in DECODE {
        let manifest = built_in(name);
        let mut trial = trial(&manifest);
        for id in [
            "b=2,hq=4,hkv=2,d=20,n=[70,9],cap=90,k=NHD+pad3.1,v=HDN+pad2",
            "b=1,hq=3,hkv=1,d=64,n=129,w=65,dt=f16,k=HND+pad1,v=HND+pad4",
        ] {
            let mut case: Case = id.parse().expect("an id");
            case.params = manifest.default_params();
            let inputs = generate(&case, &[]).expect("data");
            let runs = Poisons::RUNS.map(|poisons| {
                trial.observe(&case, &inputs, poisons).expect("it runs").expect("no fault")
            });
            assert_eq!(runs[0], runs[1], "{name} on {id}");
            assert_eq!(runs[0], runs[2], "{name} on {id}");
        }
    }
}

#[test]
fn a_kernel_that_takes_the_strides_of_k_for_v_is_seen() {
    let edit = (
        "decode_online.toml",
        r#""i64:v_stride_s", "i64:v_stride_h", "i64:v_stride_n", "i64:v_stride_d","#,
        r#""i64:k_stride_s", "i64:k_stride_h", "i64:k_stride_n", "i64:k_stride_d","#,
    );
    breaks(Law::Layout, "law_v_by_k", "decode_online", &[edit]);
}

#[test]
fn a_kernel_whose_row_is_as_long_as_the_capacity_is_seen() {
    let edit = ("scores.toml", "\"i64:scores_stride_s\"", "\"i64:num_heads * seq_len\"");
    breaks(Law::Capacity, "law_row_length", "scores", &[edit]);
}
