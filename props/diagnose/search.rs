//! The search covers what it says: its counts against closed forms.

use super::capture::Capture;
use super::{diagnosis, inject};
use attnbench::data::golden::embedded;
use attnbench::data::random::Stream;
use attnbench::judge::diagnose::search::Tried;

/// The golden slice with four layers, with noise on its output, so that everything is searched.
#[test]
fn the_counts_are_those_of_closed_forms() {
    let (_, slice) =
        embedded().iter().find(|(name, _)| name.contains("LHND4")).expect("a golden slice");
    let mut slice = slice.clone();
    for i in 0..slice.out.len() {
        let x = slice.out.get(i).expect("f32");
        slice.out.dtype.store(&mut slice.out.bytes, i, x + 1e-2 * f64::from(i as u32 % 7));
    }
    let d = diagnosis(&slice);
    let (s, dim, layers) = (slice.seq_len, slice.head_dim, slice.layers());
    let tried = |id: &str| d.tried.get(id).copied().unwrap_or_default();
    assert_eq!((s, dim, layers, slice.capacity), (9, 64, 4, 256));
    // Each layer but its own; every window shorter than the sequence; every tile of two keys to
    // all of them; every cut and 2 to S even parts, added and averaged; every number of elements
    // short of all.
    assert_eq!(tried("layer_slice"), Tried { tried: layers - 1, out_of_range: 0 });
    assert_eq!(tried("window_w"), Tried { tried: s - 1, out_of_range: 0 });
    assert_eq!(tried("dropped_tail"), Tried { tried: s - 1, out_of_range: 0 });
    assert_eq!(tried("split_not_rescaled"), Tried { tried: 2 * (s - 1 + s - 1), out_of_range: 0 });
    assert_eq!(tried("zero_padded_head_dim"), Tried { tried: dim - 1, out_of_range: 0 });
    // f16 and bf16, normalised or not, fused or not, five tilings, scores in f64 or f32.
    assert_eq!(tried("fp16_accumulate"), Tried { tried: 2 * 2 * 2 * 5 * 2, out_of_range: 0 });
    assert_eq!(tried("window_off_by_one"), Tried::default());
    assert_eq!(tried("head_off_by_one"), Tried { tried: 2, out_of_range: 0 });
    // K, V or both, of every stride or of heads alone.
    assert_eq!(tried("stride_seq_len"), Tried { tried: 6, out_of_range: 0 });
    for id in ["seq_len_minus_1", "seq_len_plus_1", "pos_shift", "sink_dropped", "kv_swapped"] {
        assert_eq!(tried(id), Tried { tried: 1, out_of_range: 0 }, "{id}");
    }
    assert!(tried("pairs").tried > 500, "{:?}", tried("pairs"));
}

/// A sequence that fills its cache: the row past the end of the last head is outside the buffer.
#[test]
fn what_lies_outside_a_buffer_is_rejected() {
    let capture = (0..1000u64)
        .map(|i| Capture::random(&mut Stream::new(61, &[i])))
        .find(|c| {
            let full = c.lens == [c.capacity] && !c.k.padded && !c.v.padded;
            full && c.layers == 1 && c.k.layout == "HND" && c.v.layout == "HND" && c.window == 0
        })
        .expect("such a capture");
    let mut out = inject::right(&capture);
    out.iter_mut().for_each(|x| *x += 0.25);
    let d = diagnosis(&capture.slice(&out));
    for id in ["seq_len_plus_1", "pos_shift"] {
        assert_eq!(d.tried[id], Tried { tried: 1, out_of_range: 1 }, "{id}");
    }
    assert_eq!(d.tried["capacity_as_seq"], Tried { tried: 1, out_of_range: 0 });
}
