use super::attend::attended;
use super::catalogue::{FAULTS, Rank, find};
use super::predict::Prediction;
use super::problem::Problem;
use super::recipe::{Combine, End, HeadMap, How, Keys, Parts, Recipe};
use super::{Options, REFERENCE, Verdict, diagnose};
use crate::data::golden::embedded;
use crate::data::slice::KvSlice;
use crate::oracle::Arithmetic;
use crate::problem::{Case, DType, Stage};

/// The ids of the contract, but for the one that is about the reference and the right answer.
const IDS: &str = "v_col k_col nhd_as_hnd hnd_as_nhd layer_slice v_prev_layer_mixed kv_swapped \
    head_map_interleaved head_off_by_one stride_seq_len seq_len_minus_1 seq_len_plus_1 pos_shift \
    sink_dropped capacity_as_seq stale_current window_w window_off_by_one dropped_tail missing_scale \
    double_scale scale_by_d split_not_rescaled zero_padded_head_dim fp16_accumulate \
    other_sequence constant_stride window_from_longest other_head_sink sink_twice sink_ignored \
    sink_dropped_in_split softcap_ignored softcap_on_unscaled accumulate scores_narrowed index_bits \
    k_head_map v_head_map head_map row_map lse_base lse_layout_swapped part_dropped \
    empty_part_counted";

#[test]
fn every_id_of_the_contract_has_an_entry_with_a_meaning_and_advice() {
    let ids: Vec<&str> = FAULTS.iter().map(|f| f.id).collect();
    assert_eq!(ids.join(" "), IDS);
    for fault in &FAULTS {
        assert!(fault.meaning.len() > 15 && fault.advice.len() > 15, "{}", fault.id);
        assert!(!fault.meaning.contains("  ") && !fault.advice.contains("  "), "{}", fault.id);
    }
    assert!(find(REFERENCE).is_none() && find("v_col").is_some_and(|f| f.rank == Rank::Plain));
}

#[test]
fn the_keys_of_every_end_by_hand() {
    let right = Keys {
        end: End::Right,
        window_follows: false,
        window: 0,
        window_of: None,
        without_first: false,
        shift: 0,
    };
    // Ten keys in a cache of sixteen rows.
    let range = |keys: Keys| keys.range(10, 16);
    assert_eq!(range(right), 0..10);
    assert_eq!(range(Keys { window: 4, ..right }), 6..10);
    assert_eq!(range(Keys { end: End::MinusOne, ..right }), 0..9);
    assert_eq!(range(Keys { end: End::MinusOne, window: 4, ..right }), 6..9);
    let follows = Keys { window_follows: true, window: 4, ..right };
    assert_eq!(range(Keys { end: End::MinusOne, ..follows }), 5..9);
    assert_eq!(range(Keys { end: End::PlusOne, ..right }), 0..11);
    assert_eq!(range(Keys { end: End::Capacity, ..follows }), 12..16);
    assert_eq!(range(Keys { end: End::Tile(4), ..right }), 0..8);
    assert_eq!(range(Keys { end: End::Tile(11), ..right }), 0..0);
    assert_eq!(range(Keys { shift: 1, ..right }), 1..11);
    assert_eq!(range(Keys { without_first: true, ..right }), 1..10);
    assert_eq!(range(Keys { without_first: true, window: 4, ..right }), 6..10);
}

#[test]
fn the_head_maps_and_the_parts_by_hand() {
    let of = |map: HeadMap| (0..6).map(|h| map.of(h, 2, 3)).collect::<Vec<_>>();
    assert_eq!(of(HeadMap::Grouped), [0, 0, 1, 1, 2, 2]);
    assert_eq!(of(HeadMap::Interleaved), [0, 1, 2, 0, 1, 2]);
    assert_eq!(of(HeadMap::NextWrapped), [1, 1, 2, 2, 0, 0]);
    assert_eq!(of(HeadMap::NextClamped), [0, 1, 1, 2, 2, 2]);
    assert_eq!(Parts::Cut(5).lengths(&(2..9)), [3, 4]);
    // What lies before or after the keys cuts nothing.
    assert_eq!(Parts::Cut(2).lengths(&(2..9)), [7]);
    assert_eq!(Parts::Cut(20).lengths(&(2..9)), [7]);
    assert_eq!(Parts::Even(3).lengths(&(0..10)), [4, 4, 2]);
    assert_eq!(Parts::Even(4).lengths(&(0..5)), [2, 2, 1]);
}

fn golden(name: &str) -> &'static KvSlice {
    &embedded().iter().find(|(n, _)| n.contains(name)).expect("a golden slice").1
}

fn verdict(slice: &KvSlice) -> (Verdict, Option<String>) {
    let d = diagnose(&Problem::of_slice(slice).unwrap(), Options::default());
    (d.verdict, d.fault)
}

/// An output that was f16 before it was captured as f32 is right to f16's rounding, and no further.
#[test]
fn an_output_that_was_narrow_is_known_by_its_values() {
    let mut slice = golden("p4_sys_decode0_L00").clone();
    let size = slice.out.len();
    for i in 0..size {
        let x = DType::F16.round(slice.out.get(i).unwrap());
        slice.out.dtype.store(&mut slice.out.bytes, i, x);
    }
    assert_eq!(verdict(&slice), (Verdict::Clean, None));
    let note =
        |slice: &KvSlice| diagnose(&Problem::of_slice(slice).unwrap(), Options::default()).note;
    assert!(note(&slice).contains("the output is f16"), "{}", note(&slice));
    // One value that f16 does not have: then it was f32, and right only if P was narrow.
    let x = slice.out.get(size - 1).unwrap();
    slice.out.dtype.store(&mut slice.out.bytes, size - 1, x + 1e-6);
    assert!(!note(&slice).contains("the output is f16"), "{}", note(&slice));
    assert!(note(&slice).contains("P is held in f16"), "{}", note(&slice));
}

/// Two faults at once are named as a pair, in the catalogue's order.
#[test]
fn a_pair_is_named() {
    let slice = golden("LHND4");
    let wrong = KvSlice { layer: 0, scale: 1.0, ..slice.clone() };
    let slice = KvSlice { out: attended(&wrong).unwrap().out, ..slice.clone() };
    let d = diagnose(&Problem::of_slice(&slice).unwrap(), Options::default());
    assert_eq!(d.verdict, Verdict::Explained, "{}", d.note);
    assert_eq!(d.fault.as_deref(), Some("layer_slice+missing_scale"));
    assert_eq!(d.params["read"].to_string(), "0");
    assert_eq!(d.advice().len(), 2);
    let alone = diagnose(
        &Problem::of_slice(&slice).unwrap(),
        Options { pairs: false, ..Options::default() },
    );
    assert_eq!(alone.verdict, Verdict::Unexplained);
}

/// A fault of one head alone is explained, and the heads are told.
#[test]
fn the_heads_that_are_wrong_are_told() {
    let slice = golden("p4_sys_decode0_L15");
    let right = attended(slice).unwrap().out;
    let fewer = KvSlice { seq_len: slice.seq_len - 1, probs: None, scores: None, ..slice.clone() };
    let wrong = attended(&fewer).unwrap().out;
    // The last head alone without its last key.
    let row = slice.head_dim * 4;
    let mut out = right;
    let last = out.bytes.len() - row;
    out.bytes[last..].copy_from_slice(&wrong.bytes[last..]);
    let slice = KvSlice { out, ..slice.clone() };
    let d = diagnose(&Problem::of_slice(&slice).unwrap(), Options::default());
    assert_eq!((d.verdict, d.fault.as_deref()), (Verdict::Explained, Some("seq_len_minus_1")));
    assert_eq!(d.params["heads"].to_string(), "8");
    assert_eq!(d.wrong().map(|h| h.head).collect::<Vec<_>>(), [8]);
    assert!(d.note.contains("1 of 9 outputs are wrong (head 8)"), "{}", d.note);
}

fn with_out(slice: &KvSlice, value: impl Fn(usize, f64) -> f64) -> KvSlice {
    let mut slice = slice.clone();
    for i in 0..slice.out.len() {
        let x = value(i, slice.out.get(i).unwrap());
        slice.out.dtype.store(&mut slice.out.bytes, i, x);
    }
    slice
}

/// Heads that are all alike agree on any row, and faults that leave no key make zeros: neither
/// explains an output that was never written, nor one that is the same for all heads.
#[test]
fn an_output_that_says_nothing_of_its_row_is_not_explained_by_one() {
    for value in [0.0, 0.25] {
        let slice = with_out(golden("p5_ba_decode0_L15"), |_, _| value);
        let d = diagnose(&Problem::of_slice(&slice).unwrap(), Options::default());
        assert_eq!(d.verdict, Verdict::Unexplained, "{value}: {:?} {}", d.fault, d.note);
        assert_eq!(d.note.contains("zeros throughout"), value == 0.0, "{}", d.note);
    }
    let slice = golden("p4_sys_decode0_L15");
    let problem = Problem::of_slice(slice).unwrap();
    assert!(problem.seq_len % 16 >= 8, "a window of 8 and tiles of 16 leave no key");
    let slice = with_out(slice, |_, _| 0.0);
    assert_eq!(verdict(&slice), (Verdict::Unexplained, None));
}

/// What the screen lets pass of one kind of split hides none of another.
#[test]
fn means_of_even_parts_are_tried_however_long_the_sequence() {
    let slice = golden("p_long_decode0_L29");
    let problem = Problem::of_slice(slice).unwrap();
    assert!(problem.seq_len > 64);
    let mut recipe = Recipe::right(&problem);
    recipe.combine = Combine::Split(How::Mean, Parts::Even(7));
    let mut p = Prediction::default();
    let mut out = Vec::new();
    for unit in 0..problem.units.len() {
        p.make(&problem, &recipe, unit, problem.head_dim_v).unwrap();
        out.extend_from_slice(&p.answer.out);
    }
    let slice = with_out(slice, |i, _| out[i]);
    let d = diagnose(
        &Problem::of_slice(&slice).unwrap(),
        Options { pairs: false, ..Options::default() },
    );
    assert_eq!(d.fault.as_deref(), Some("split_not_rescaled"), "{}", d.note);
    assert_eq!(
        (d.params["how"].to_string(), d.params["splits"].to_string()),
        ("mean".into(), "7".into())
    );
}

/// Stale rows that are not finite make many predictions so, and those are close to nothing.
#[test]
fn what_predicts_no_number_is_not_the_closest() {
    let mut slice = with_out(golden("LHND4"), |i, x| x + 1e-2 * (i % 7) as f64);
    let problem = Problem::of_slice(&slice).unwrap();
    let place = problem.v.place.clone();
    let (keys, rows, dim) = (problem.seq_len, problem.capacity, problem.head_dim_v);
    let (layers, heads) = (problem.layers, problem.num_kv_heads);
    for (l, h) in (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h))) {
        for (n, d) in (keys..rows).flat_map(|n| (0..dim).map(move |d| (n, d))) {
            slice.v.dtype.store(&mut slice.v.bytes, place.index(0, l, h, n, d), f64::NAN);
        }
    }
    let d = diagnose(
        &Problem::of_slice(&slice).unwrap(),
        Options { pairs: false, ..Options::default() },
    );
    assert_eq!(d.verdict, Verdict::Unexplained);
    assert!(d.candidates[0].fit.ratio.is_finite(), "{}", d.note);
}

/// NaN where NaN is right is no fault of the kernel, and all the same nothing to pass over.
#[test]
fn an_output_that_is_rightly_not_finite_is_told() {
    let mut slice = with_out(golden("p5_ba_decode0_L15"), |_, _| f64::NAN);
    for i in 0..slice.k.len() {
        slice.k.dtype.store(&mut slice.k.bytes, i, f64::NAN);
    }
    (slice.probs, slice.scores) = (None, None);
    let d = diagnose(&Problem::of_slice(&slice).unwrap(), Options::default());
    assert_eq!(d.verdict, Verdict::Clean);
    assert!(d.note.contains("attended row 0 of K is not finite"), "{}", d.note);
}

/// Weights that are zeros throughout cover no key.
#[test]
fn weights_that_were_never_written_are_no_reference() {
    let mut slice = golden("p5_ba_decode0_L15").clone();
    let probs = slice.probs.as_mut().unwrap();
    probs.bytes.fill(0);
    let d = diagnose(&Problem::of_slice(&slice).unwrap(), Options::default());
    assert_eq!((d.verdict, d.fault), (Verdict::Clean, None));
    assert!(d.note.contains("the probs in the file are not the softmax"), "{}", d.note);
}

/// P·V alone has no K to look into, whose rows may be longer than those of V.
#[test]
fn a_stage_that_reads_no_keys_is_not_searched_for_bad_ones() {
    let case =
        Case { stage: Stage::Pv, head_dim_v: 2, capacity: 3, ..Case::plain(1, 1, 8, vec![3]) };
    let (v, probs) = (vec![0u8; 3 * 2 * 4], vec![0u8; 3 * 4]);
    let buffer = |name: &str| match name {
        "v" => Some(&v[..]),
        "probs" => Some(&probs[..]),
        _ => None,
    };
    let arithmetic = Arithmetic::single(DType::F32);
    let problem = Problem::of_case(&case, &buffer, vec![f64::NAN; 2], arithmetic).unwrap();
    let d = diagnose(&problem, Options::default());
    assert_eq!(d.verdict, Verdict::Unexplained);
    assert!(d.note.contains("2 elements of head 0 are not finite"), "{}", d.note);
}
