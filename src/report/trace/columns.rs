//! The columns of the tables of judged traces.

use crate::judge::trace::{Numbers, Row};
use crate::problem::one_line;

/// Characters of a name that a cell shows.
const CELL: usize = 24;

/// A cell of a table, taken from a row.
pub type Cell = fn(&Row) -> String;

/// How a column stands where two files are set side by side.
pub enum Side {
    /// Once: it is part of what makes two rows one event.
    Same,
    /// Once where the files agree in all rows that they both have, else once for each.
    WhereDifferent,
    /// Once for each file.
    Each,
}

/// A column: its heading, how it stands, and its cell.
pub struct Column(pub &'static str, pub Side, pub Cell);

/// A name's cell.
pub fn text(x: Option<&str>) -> String {
    x.map_or_else(|| "-".to_owned(), |x| one_line(&x.replace('|', "/"), CELL))
}

fn whole(x: Option<u64>) -> String {
    x.map_or_else(|| "-".to_owned(), |x| x.to_string())
}

/// A measure with the six digits of the traces.
fn measure(x: Option<f64>) -> String {
    match x {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(x) if (1e-4..1e6).contains(&x) => {
            let decimals = (5.0 - x.log10().floor()).clamp(0.0, 9.0) as usize;
            let digits = format!("{x:.decimals$}");
            let short = digits.trim_end_matches('0').trim_end_matches('.');
            if digits.contains('.') { short.to_owned() } else { digits }
        }
        Some(x) => format!("{x:.5e}"),
    }
}

const PROMPT: Column = Column("prompt", Side::Same, |r| text(r.head.prompt_id.as_deref()));
const LAYER: Column = Column("layer", Side::Same, |r| whole(r.head.layer));
const HEAD: Column = Column("head", Side::Same, |r| whole(r.head.head));
const SEQ_LEN: Column = Column("seq_len", Side::Same, |r| whole(r.head.seq_len));
const POS_ID: Column = Column("pos_id", Side::Same, |r| whole(r.head.pos_id));
const VERDICT: Column = Column("verdict", Side::Each, |r| match r.fault {
    Some(fault) => format!("{}: {fault}", r.verdict.name()),
    None => r.verdict.name().to_owned(),
});

/// P·V and the output.
pub fn pv() -> Vec<Column> {
    vec![
        PROMPT,
        LAYER,
        HEAD,
        SEQ_LEN,
        Column("v_layout_best", Side::Each, |r| match &r.numbers {
            Numbers::VAcc { probe, .. } => text(probe.best),
            _ => "-".to_owned(),
        }),
        Column("pv_scope", Side::WhereDifferent, |r| match &r.numbers {
            Numbers::VAcc { scope: s, .. } => s.name().to_owned(),
            _ => "-".to_owned(),
        }),
        Column("pv_mae", Side::Each, |r| measure(r.pv_mae())),
        Column("attn_out_mae", Side::Each, |r| measure(r.out_mae())),
        Column("window_mass", Side::WhereDifferent, |r| measure(r.window_mass())),
        VERDICT,
    ]
}

/// Scores and weights.
pub fn softmax() -> Vec<Column> {
    vec![
        PROMPT,
        LAYER,
        HEAD,
        SEQ_LEN,
        Column("qk_mae", Side::Each, |r| match r.numbers {
            Numbers::Softmax { qk_mae, .. } => measure(Some(qk_mae)),
            _ => "-".to_owned(),
        }),
        Column("softmax_mae", Side::Each, |r| match r.numbers {
            Numbers::Softmax { softmax_mae, .. } => measure(Some(softmax_mae)),
            _ => "-".to_owned(),
        }),
        Column("window_mass", Side::WhereDifferent, |r| measure(r.window_mass())),
        VERDICT,
    ]
}

/// Where the appended row stands.
pub fn addr() -> Vec<Column> {
    fn distances(r: &Row, k: bool) -> String {
        let Numbers::VAddr(e) = &r.numbers else { return "-".to_owned() };
        let all = if k {
            vec![e.k_prev, Some(e.k_pos), e.k_next]
        } else {
            vec![e.v_prev, Some(e.v_pos), e.v_next, e.v_col]
        };
        all.into_iter().map(measure).collect::<Vec<_>>().join(" ")
    }
    vec![
        PROMPT,
        LAYER,
        HEAD,
        POS_ID,
        Column("K prev pos next", Side::Each, |r| distances(r, true)),
        Column("V prev pos next col", Side::Each, |r| distances(r, false)),
        VERDICT,
    ]
}

/// Prefill and decode rows.
pub fn top_one() -> Vec<Column> {
    vec![
        PROMPT,
        Column("phase", Side::Same, |r| text(r.head.phase.as_deref())),
        Column("top1", Side::Each, |r| match r.numbers {
            Numbers::TopOne(id) => id.to_string(),
            _ => "-".to_owned(),
        }),
        VERDICT,
    ]
}
