//! `v_addr_trace`: where in the cache the current token's row of K and V stands.
//!
//! The event gives the mean distance of that row from the cache at its slot, one before and one after,
//! and of V written column-wise. An append copies, so the row is found where the distance is 0. A cache
//! of 16-bit elements rounds the row: to at most 2^-8 (bf16) of its mean magnitude, for which the
//! largest distance to another row stands; this counts only where elements can be so narrow.

use super::digits::short;
use super::{Judged, Verdict};
use crate::data::trace::VAddr;
use crate::problem::DType;

/// Places in the order in which equal rows are settled: the right one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many slots after the one used.
    Slot(i64),
    /// Column-wise.
    Column,
}

/// Judges an event; `head_dim` is that of the file's other events, where they agree on one.
pub fn judge_addr(e: &VAddr, head_dim: Option<u64>) -> Judged {
    let bytes = e.pos_stride.zip(head_dim).and_then(|(stride, d)| stride.checked_div(d));
    let narrow = bytes.is_none_or(|b| b < 4);
    let k =
        [(Place::Slot(0), Some(e.k_pos)), (Place::Slot(-1), e.k_prev), (Place::Slot(1), e.k_next)];
    let v = [
        (Place::Slot(0), Some(e.v_pos)),
        (Place::Slot(-1), e.v_prev),
        (Place::Slot(1), e.v_next),
        (Place::Column, e.v_col),
    ];
    let (at_k, at_v) = (find(&k, narrow), find(&v, narrow));
    let (Some((at_k, k_rounded, k_twice)), Some((at_v, v_rounded, v_twice))) = (at_k, at_v) else {
        return nowhere(&k, &v, at_k.is_some(), at_v.is_some());
    };
    let (shift, mut notes) = shift(e);
    if let Some(rows) = rows_a_head(e).filter(|rows| e.slot().is_some_and(|s| s >= *rows)) {
        let note = format!(
            "slot {} lies past the {rows} rows that a head's stride holds: in the next head",
            e.slot().unwrap_or(0)
        );
        return Judged::new(Verdict::Unexplained, note);
    }
    if k_rounded || v_rounded {
        notes.push("it is found to the rounding of a 16-bit cache, not to the bit".to_owned());
    }
    if k_twice || v_twice {
        notes
            .push("other slots hold an equal row: that it stands in its own is assumed".to_owned());
    }
    let moved = |place: Place| match place {
        Place::Slot(n) => Place::Slot(n.saturating_add(shift)),
        Place::Column => Place::Column,
    };
    let (at_k, at_v) = (moved(at_k), moved(at_v));
    let right = Place::Slot(0);
    let which = match (at_k == right, at_v == right) {
        (true, true) => {
            let mut judged = Judged::new(Verdict::Clean, "K and V stand in their slot");
            judged.notes.extend(notes);
            return judged;
        }
        (false, false) => "K and V stand",
        (false, true) => "K stands",
        (true, false) => "V stands",
    };
    let wrong = if at_k == right { at_v } else { at_k };
    // K is not probed column-wise: only V can be found so.
    let one_fault = at_k == right || at_v == right || at_k == at_v;
    let found = match wrong {
        Place::Slot(-1) if one_fault => Some(("append_early", "one slot before")),
        Place::Slot(1) if one_fault => Some(("append_late", "one slot after")),
        Place::Column if one_fault => Some(("append_col", "column-wise in")),
        _ => None,
    };
    let mut judged = match found {
        Some((fault, place)) => Judged {
            fault: Some(fault),
            ..Judged::new(
                Verdict::Explained,
                format!("{which} {place} the slot of position {}", e.head.pos_id.unwrap_or(0)),
            )
        },
        None => Judged::new(
            Verdict::Unexplained,
            format!("K stands {}, V {}: no one fault", at_k.in_words(), at_v.in_words()),
        ),
    };
    judged.notes.extend(notes);
    judged
}

impl Place {
    fn in_words(self) -> String {
        match self {
            Place::Slot(0) => "in its slot".to_owned(),
            Place::Slot(n) if n < 0 => format!("{} before it", n.unsigned_abs()),
            Place::Slot(n) => format!("{n} after it"),
            Place::Column => "column-wise".to_owned(),
        }
    }
}

impl VAddr {
    /// The slot that the distances are about.
    fn slot(&self) -> Option<u64> {
        self.kv_pos_used.or(self.head.pos_id)
    }
}

/// Rows that a head's memory holds, where rows of a head follow each other.
fn rows_a_head(e: &VAddr) -> Option<u64> {
    let (head, pos) = (e.head_stride?, e.pos_stride?);
    (head > pos && pos > 0 && head % pos == 0).then(|| head / pos)
}

/// How many slots the one used lies after the one of `pos_id`, and what was made of it.
fn shift(e: &VAddr) -> (i64, Vec<String>) {
    let Some((used, pos)) = e.kv_pos_used.zip(e.head.pos_id).filter(|(used, pos)| used != pos)
    else {
        return (0, Vec::new());
    };
    // A ring starts again at its first row.
    let ring = rows_a_head(e).is_some_and(|rows| pos >= rows && pos % rows == used);
    if used.abs_diff(pos) == 1 && !ring {
        let note = format!("kv_pos_used is {used}, pos_id {pos}");
        return (if used < pos { -1 } else { 1 }, vec![note]);
    }
    let what = if ring { "the cache is a ring" } else { "taken for a page's slot" };
    (0, vec![format!("kv_pos_used is {used}, pos_id {pos}: {what}")])
}

/// Where a row is found; whether only to rounding; whether elsewhere too.
fn find(places: &[(Place, Option<f64>)], narrow: bool) -> Option<(Place, bool, bool)> {
    let known = || places.iter().filter_map(|(place, x)| Some((*place, (*x)?)));
    let farthest = known().map(|(_, x)| x).fold(0.0, f64::max);
    let rounding = if narrow { DType::BF16.unit_roundoff() * farthest } else { 0.0 };
    for limit in [0.0, rounding] {
        let mut at = known().filter(|(_, x)| *x <= limit).map(|(place, _)| place);
        if let Some(place) = at.next() {
            // why: the first slot of a cache of one row would be its own neighbour.
            return Some((place, limit > 0.0, at.next().is_some()));
        }
    }
    None
}

fn nowhere(
    k: &[(Place, Option<f64>)],
    v: &[(Place, Option<f64>)],
    k_found: bool,
    v_found: bool,
) -> Judged {
    let closest = |places: &[(Place, Option<f64>)]| {
        let known = places.iter().filter_map(|(place, x)| Some((*place, (*x)?)));
        known.min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let mut parts = Vec::new();
    for (name, places, found) in [("K", k, k_found), ("V", v, v_found)] {
        if let Some((place, x)) = closest(places).filter(|_| !found) {
            parts.push(format!("{name} is nowhere; closest {}, at {}", place.in_words(), short(x)));
        }
    }
    Judged::new(Verdict::Unexplained, parts.join(", "))
}
