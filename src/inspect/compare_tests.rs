use super::*;
use crate::inspect::row::RowOccupancy;

fn row(entry: &str, vgprs: u32, waves: f64) -> Row {
    Row {
        kernel: "k".into(),
        entry: entry.into(),
        symbol: String::new(),
        target: "gfx942".into(),
        wave: 64,
        defines: Vec::new(),
        dtype: None,
        params: Default::default(),
        vgprs,
        agprs: Some(0),
        sgprs: Some(10),
        vgpr_spills: Some(0),
        sgpr_spills: None,
        scratch_bytes: 0,
        dynamic_stack: false,
        lds_static_bytes: 0,
        lds_dynamic_bytes: None,
        argument_bytes: None,
        max_threads: None,
        block_threads: None,
        occupancy: Some(RowOccupancy {
            waves,
            most: 8,
            limit: "vgpr".into(),
            threads: 64,
            lds_bytes: 0,
            blocks: 1,
        }),
        counts: None,
        code_bytes: None,
        fault: None,
    }
}

#[test]
fn each_figure_goes_its_own_way() {
    let old = [row("a", 64, 8.0), row("b", 64, 8.0), row("gone", 1, 8.0)];
    let mut spilled = row("b", 60, 8.0);
    spilled.vgpr_spills = Some(3);
    let new = [row("a", 72, 7.0), spilled, row("new", 1, 8.0)];
    let c = compare(&old, &new);
    let seen: Vec<_> = c.differences.iter().map(|d| (&*d.place, d.what, d.change)).collect();
    assert_eq!(
        seen,
        [
            ("k a gfx942 wave 64", "occupancy", Change::Worse),
            ("k a gfx942 wave 64", "vgprs", Change::Other),
            ("k b gfx942 wave 64", "vgpr spills", Change::Worse),
            ("k b gfx942 wave 64", "vgprs", Change::Other),
        ]
    );
    assert!(c.is_worse());
    assert_eq!(
        (c.added, c.gone),
        (vec!["k new gfx942 wave 64".into()], vec!["k gone gfx942 wave 64".into()])
    );
    // Registers that leave the waves as they are are told, and are no loss.
    let more = compare(&old[..1], &[row("a", 63, 8.0)]);
    assert!(more.differences.len() == 1 && !more.is_worse());
    let same = compare(&old, &old);
    assert!(!same.is_worse() && same.same == 3 && same.differences.is_empty());
    // Other targets than those asked for are not gone.
    let mut elsewhere = row("x", 1, 1.0);
    elsewhere.target = "gfx1100".into();
    assert!(compare(&[elsewhere], &old).gone.is_empty());
}
