//! Prefill and decode rows: the most likely token after each step.
//!
//! One id can be neither right nor wrong by itself, so the verdict is `reference`. What the rows say
//! together is noted: a decode step that answers every prompt with one id, or repeats its prefill.

use super::{Numbers, Row};
use std::collections::{BTreeMap, BTreeSet};

/// Prompts that a note names at most: one that has more says how many.
const FEW: usize = 2;

/// Notes what the rows of one file say together.
pub fn note_top_ones(rows: &mut [Row]) {
    let mut ids: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    let mut prompts: BTreeMap<String, BTreeSet<Option<String>>> = BTreeMap::new();
    let mut prefill: BTreeMap<Option<String>, i64> = BTreeMap::new();
    for row in rows.iter() {
        let (Numbers::TopOne(id), Some(phase)) = (&row.numbers, &row.head.phase) else { continue };
        ids.entry(phase.clone()).or_default().insert(*id);
        prompts.entry(phase.clone()).or_default().insert(row.head.prompt_id.clone());
        if phase == "prefill_last" {
            prefill.insert(row.head.prompt_id.clone(), *id);
        }
    }
    for row in rows {
        let Numbers::TopOne(id) = row.numbers else { continue };
        let mut notes = vec![format!("top1 {id}: an id alone cannot be judged")];
        let phase = row.head.phase.as_deref().unwrap_or_default();
        let of = prompts.get(phase).map_or(0, BTreeSet::len);
        let decodes = phase.starts_with("decode");
        if decodes && of >= FEW && ids.get(phase).is_some_and(|ids| ids.len() == 1) {
            notes.push(format!("{of} prompts collapsed to this one id"));
        }
        if phase == "decode0" && prefill.get(&row.head.prompt_id) == Some(&id) {
            notes.push("it repeats prefill_last".to_owned());
        }
        row.notes = notes;
    }
}
