//! Steps of generation put together: append then attend, and decode against prefill.

use super::{DECODE, breaks_case, built_in, faulty, trial};
use attnbench::data::generate::generate;
use attnbench::data::image::Poisons;
use attnbench::data::inputs::Inputs;
use attnbench::judge::trial::{Observed, Trial};
use attnbench::kernel::Manifest;
use attnbench::oracle::Expected;
use attnbench::problem::{Case, Pointer, Stage};

fn observe(trial: &mut Trial, case: &Case, inputs: &Inputs) -> Vec<Observed> {
    trial.observe(case, inputs, Poisons::RUNS[1]).expect("it runs").expect("no fault")
}

fn case(id: &str, manifest: &Manifest) -> Case {
    let mut case: Case = id.parse().expect("an id");
    case.params = manifest.default_params();
    assert_eq!(manifest.supports(&case), Ok(()));
    case
}

/// decode0 equals prefill_last: decoding the token at position t over t + 1 keys is the last row of
/// a prefill over t + 1 tokens.
#[test]
fn decode_at_a_position_is_the_last_row_of_the_prefill_up_to_it() {
    let prefill = built_in("prefill");
    let mut prefills = trial(&prefill);
    for name in DECODE {
        let decode = built_in(name);
        let mut decodes = trial(&decode);
        for (i, more) in [
            "n=1",
            "n=2",
            "n=9",
            "n=33",
            "n=64,w=17",
            "n=65,dt=bf16",
            "n=40,dt=f16,softcap=20",
            "n=[31,7],sinks=1",
            "n=50,k=NHD+pad3,v=HDN+pad1,dt=f16",
            "n=45,data=onehot:last",
            "n=45,data=large:negative",
            "n=30,data=coded",
        ]
        .iter()
        .enumerate()
        {
            let id = format!("hq=4,hkv=2,d=24,{more},seed={i}");
            let whole = case(&format!("stage=prefill,{id}"), &prefill);
            let rows = generate(&whole, &[]).expect("data");
            let last = case(&id, &decode);
            let mut inputs = rows.clone();
            inputs.put(&last, Pointer::Q, |s, h, q| {
                q.copy_from_slice(rows.q().rows(s, h, whole.pos(s)..whole.seq_lens[s]));
            });
            let all = &observe(&mut prefills, &whole, &rows)[0].values;
            let one = &observe(&mut decodes, &last, &inputs)[0].values;
            let bound = |trial: &Trial, case: &Case, inputs: &Inputs| {
                let expected = Expected::new(case, inputs, &trial.arithmetic(case));
                expected.of(Pointer::Out).expect("out").bound.clone()
            };
            let slack = [bound(&prefills, &whole, &rows), bound(&decodes, &last, &inputs)];
            let (d, heads) = (last.head_dim, last.num_heads);
            let mut at = 0;
            for s in 0..last.batch() {
                let n = last.seq_lens[s];
                for h in 0..heads {
                    at += (n - 1) * d;
                    for e in 0..d {
                        let j = (s * heads + h) * d + e;
                        let (error, limit) = ((all[at] - one[j]).abs(), slack[0][at] + slack[1][j]);
                        assert!(error <= limit, "{name} {id}: out[{s}, {h}, {e}]: {error:e}");
                        at += 1;
                    }
                }
            }
            assert_eq!(at, all.len());
        }
    }
}

/// Appending a row and attending the cache is attending the longer cache, to the bit.
#[test]
fn append_then_attend_is_to_attend_the_longer_cache() {
    let append = built_in("append");
    let mut appends = trial(&append);
    for name in DECODE {
        let decode = built_in(name);
        let mut decodes = trial(&decode);
        for (i, more) in
            ["n=1", "n=2", "n=17,dt=f16", "n=[64,3],dt=bf16", "n=33,k=NHD+pad2,v=HDN+pad1@3"]
                .iter()
                .enumerate()
        {
            let id = format!("hq=4,hkv=2,d=24,cap=70,{more},seed={i}");
            let longer = case(&id, &decode);
            let inputs = generate(&longer, &[]).expect("data");
            let row = case(&format!("stage=append,{id}"), &append);
            let new = generate(&row, &[]).expect("data");
            let written = observe(&mut appends, &row, &new);
            let mut cached = inputs.clone();
            for (output, cache) in written.iter().zip([Pointer::K, Pointer::V]) {
                assert_eq!(output.output, cache);
                let old = inputs.of(cache);
                cached.put(&longer, cache, |s, g, rows| {
                    let (pos, d) = (longer.pos(s), longer.head_dim);
                    rows.copy_from_slice(old.all(s, g));
                    let from = (s * longer.num_kv_heads + g) * d;
                    for (x, y) in rows[pos * d..].iter_mut().zip(&output.values[from..from + d]) {
                        *x = *y as f32;
                    }
                });
            }
            let after = observe(&mut decodes, &longer, &cached);
            assert_eq!(after, observe(&mut decodes, &longer, &inputs), "{name} {id}");
        }
    }
}

/// The seed's own probe (`v_addr`): the appended row is at `pos`, `pos - 1` and `pos + 1` are
/// untouched, and it is not written column-wise; at the cache's ends too. The fault is named by the
/// place that was written.
#[test]
fn the_appended_row_is_at_its_position_and_nowhere_else() {
    let append = built_in("append");
    assert_eq!(append.stage, Stage::Append);
    let from = "position = pos[b];";
    for (name, to, says) in [
        ("v_addr_early", "position = pos[b] - 1;", "token 3"),
        ("v_addr_late", "position = pos[b] + 1;", "token 5"),
    ] {
        let wrong = faulty(name, "append", &[("append.hip", from, to)]);
        for (kind, layout) in [("row", "HND"), ("column", "HDN"), ("token first", "NHD")] {
            let id = format!("stage=append,hq=2,hkv=2,d=8,n=5,cap=9,k={layout},v={layout},seed=1");
            let failure = breaks_case(&wrong, &case(&id, &wrong));
            assert_eq!(failure.property, "stray-write", "{name} {kind}: {}", failure.detail);
            assert!(failure.detail.contains(says), "{name} {kind}: {}", failure.detail);
        }
    }
    let from = "v += b * v_stride_s + h * v_stride_h + position * v_stride_n;";
    let to = "v += b * v_stride_s + h * v_stride_h + position;\n    v_stride_d = v_stride_n;";
    let columns = faulty("v_addr_columns", "append", &[("append.hip", from, to)]);
    let id = "stage=append,hq=2,hkv=2,d=8,n=5,cap=9,seed=1";
    let failure = breaks_case(&columns, &case(id, &columns));
    assert_eq!(failure.property, "stray-write", "{}", failure.detail);
}
