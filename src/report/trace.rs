//! Judged traces: tables like those of the reports that the traces were written for, and JSON.

use super::table::{align_numbers, table};
use crate::data::trace::{Scope, Skipped};
use crate::judge::trace::{Numbers, Pair, Row, Verdict};
use crate::problem::one_line;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;

/// Version of the trace document.
pub const TRACE_FORMAT: &str = "attnbench-trace/1";

/// Characters of a name that a cell shows.
const CELL: usize = 24;

/// Judged traces.
#[derive(Debug)]
pub struct Report {
    /// Short names of the files, all different.
    pub names: Vec<String>,
    /// The files as they were given.
    pub files: Vec<String>,
    /// What was passed over in each.
    pub skipped: Vec<Skipped>,
    /// The rows of all, in order.
    pub rows: Vec<Row>,
    /// The events that two files hold.
    pub pairs: Vec<Pair>,
}

fn scope(s: Scope) -> &'static str {
    match s {
        Scope::Window => "window",
        Scope::Full => "full",
    }
}

/// Where two files are set side by side, a row of each; else one row of any.
type Line<'a> = Vec<Option<&'a Row>>;

/// A cell of a table, taken from a row.
type Cell = fn(&Row) -> String;

/// How a column stands where two files are set side by side.
enum Side {
    /// Once: it is part of what makes two rows one event.
    Same,
    /// Once where the files agree in all rows that they both have, else once for each.
    WhereDifferent,
    /// Once for each file.
    Each,
}

/// A column: its heading, how it stands, and its cell.
struct Column(&'static str, Side, Cell);

fn text(x: Option<&str>) -> String {
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

fn pv_columns() -> Vec<Column> {
    vec![
        PROMPT,
        LAYER,
        HEAD,
        SEQ_LEN,
        Column("v_layout_best", Side::Each, |r| match &r.numbers {
            Numbers::VAcc { v_layout_best, .. } => text(*v_layout_best),
            _ => "-".to_owned(),
        }),
        Column("pv_scope", Side::WhereDifferent, |r| match &r.numbers {
            Numbers::VAcc { scope: s, .. } => scope(*s).to_owned(),
            _ => "-".to_owned(),
        }),
        Column("pv_mae", Side::Each, |r| measure(pv_mae(r))),
        Column("attn_out_mae", Side::Each, |r| measure(out_mae(r))),
        Column("window_mass", Side::WhereDifferent, |r| measure(r.window_mass())),
        VERDICT,
    ]
}

fn softmax_columns() -> Vec<Column> {
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

fn addr_columns() -> Vec<Column> {
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

fn top_one_columns() -> Vec<Column> {
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

fn pv_mae(row: &Row) -> Option<f64> {
    match row.numbers {
        Numbers::VAcc { pv_mae, .. } => pv_mae,
        _ => None,
    }
}

fn out_mae(row: &Row) -> Option<f64> {
    match row.numbers {
        Numbers::VAcc { out_mae, .. } => out_mae,
        _ => None,
    }
}

impl Report {
    /// Two files are set side by side; more are told apart by a column.
    fn side_by_side(&self) -> bool {
        self.names.len() == 2
    }

    /// The rows of some kind, matched across two files.
    fn lines(&self, of: &dyn Fn(&Row) -> bool) -> Vec<Line<'_>> {
        let mut lines: Vec<Line<'_>> = Vec::new();
        // Lines that still lack the second file's row.
        let mut open: HashMap<_, VecDeque<usize>> = HashMap::new();
        for row in self.rows.iter().filter(|r| of(r)) {
            if !self.side_by_side() {
                lines.push(vec![Some(row)]);
            } else if row.file == 0 {
                open.entry(row.key()).or_default().push_back(lines.len());
                lines.push(vec![Some(row), None]);
            } else if let Some(i) = open.get_mut(&row.key()).and_then(VecDeque::pop_front) {
                lines[i][1] = Some(row);
            } else {
                lines.push(vec![None, Some(row)]);
            }
        }
        lines
    }

    /// A table of the rows of some kind; empty where there is none.
    fn table(&self, of: &dyn Fn(&Row) -> bool, columns: &[Column]) -> String {
        let lines = self.lines(of);
        if lines.is_empty() {
            return String::new();
        }
        let file = self.names.len() > 2;
        let cells = |line: &Line<'_>, cell: Cell| -> Vec<String> {
            line.iter().map(|r| r.map_or_else(|| "-".to_owned(), cell)).collect()
        };
        // Whether a column stands once.
        let once: Vec<bool> = columns
            .iter()
            .map(|Column(_, side, cell)| match side {
                Side::Same => true,
                Side::Each => !self.side_by_side(),
                Side::WhereDifferent => lines
                    .iter()
                    .filter(|line| line.iter().all(Option::is_some))
                    .all(|line| cells(line, *cell).windows(2).all(|two| two[0] == two[1])),
            })
            .collect();
        let mut header = Vec::new();
        if file {
            header.push("file".to_owned());
        }
        for (Column(name, ..), once) in columns.iter().zip(&once) {
            match once {
                true => header.push((*name).to_owned()),
                false => {
                    header.extend(self.names.iter().map(|n| format!("{name} {}", text(Some(n)))))
                }
            }
        }
        let mut t = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
        for line in &lines {
            let mut row = Vec::new();
            let any = line.iter().flatten().next();
            if file {
                row.push(text(any.map(|r| self.names[r.file].as_str())));
            }
            for (Column(_, _, cell), once) in columns.iter().zip(&once) {
                match once {
                    true => row.extend(any.map(|r| cell(r))),
                    false => row.extend(cells(line, *cell)),
                }
            }
            t.add_row(row);
        }
        align_numbers(&mut t, usize::from(file) + 1);
        format!("{t}\n\n")
    }

    /// The tables, what each row's verdict rests on, and in the last line what it all comes to.
    pub fn text(&self) -> String {
        let invalid = |r: &Row| matches!(r.numbers, Numbers::None);
        let mut out = self.table(&|r| matches!(r.numbers, Numbers::VAcc { .. }), &pv_columns());
        out += &self.table(&|r| matches!(r.numbers, Numbers::Softmax { .. }), &softmax_columns());
        out += &self.table(&|r| matches!(r.numbers, Numbers::VAddr(_)), &addr_columns());
        out += &self.table(&|r| matches!(r.numbers, Numbers::TopOne(_)), &top_one_columns());
        for row in &self.rows {
            let h = &row.head;
            let file = &self.names[row.file];
            let mut place = match self.names.len() {
                1 => format!("line {}", row.line),
                _ => format!("{file} line {}", row.line),
            };
            if invalid(row) {
                let _ = write!(place, ", {}", text(Some(&row.event)));
            }
            if h.prompt_id.is_some() {
                let _ = write!(place, ", {}", text(h.prompt_id.as_deref()));
            }
            for (what, n) in [("layer", h.layer), ("head", h.head)] {
                if let Some(n) = n {
                    let _ = write!(place, " {what} {n}");
                }
            }
            let _ = writeln!(out, "{place}: {}", row.verdict.name());
            for note in &row.notes {
                let _ = writeln!(out, "  {note}");
            }
        }
        for (name, skipped) in self.names.iter().zip(&self.skipped) {
            if let Some(line) = passed_over(skipped) {
                let _ = writeln!(out, "{}: passed over {line}", text(Some(name)));
            }
        }
        out.push_str(&self.last_line());
        out.push('\n');
        out
    }

    fn last_line(&self) -> String {
        let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(row.verdict).or_default() += 1;
        }
        let word = match self.worst() {
            Found::Fault => "FAULT",
            Found::Invalid => "INVALID",
            Found::Nothing => "OK",
        };
        let counts: Vec<String> = counts.iter().map(|(v, n)| format!("{n} {}", v.name())).collect();
        let events = if self.rows.len() == 1 { "event" } else { "events" };
        let mut line = format!("{word}: {} {events}: {}", self.rows.len(), counts.join(", "));
        let proofs: Vec<&Pair> = self.pairs.iter().filter(|p| p.proves_wrong()).collect();
        if proofs.is_empty() {
            return line;
        }
        let mut by_files: BTreeMap<(usize, usize), Vec<&Pair>> = BTreeMap::new();
        for pair in proofs {
            by_files
                .entry((self.rows[pair.a].file, self.rows[pair.b].file))
                .or_default()
                .push(pair);
        }
        for ((a, b), pairs) in by_files {
            let (a, b) = (&self.names[a], &self.names[b]);
            let events =
                if pairs.len() == 1 { "1 event" } else { &format!("{} events", pairs.len()) };
            let _ = write!(
                line,
                "; {a} and {b} have the same weights and V in {events} and another P·V: one of the \
                 two kernels was wrong"
            );
            let mut wrong: Vec<usize> =
                pairs.iter().filter_map(|p| p.wrong.map(|w| self.rows[w].file)).collect();
            wrong.sort_unstable();
            wrong.dedup();
            if let [only] = wrong[..] {
                let _ = write!(line, ", that of {}", self.names[only]);
            }
        }
        line
    }

    /// What the verdicts and the pairs come to.
    pub fn worst(&self) -> Found {
        let proof = self.pairs.iter().any(Pair::proves_wrong);
        if proof || self.rows.iter().any(|r| r.verdict.is_fault()) {
            Found::Fault
        } else if self.rows.iter().any(|r| r.verdict == Verdict::Invalid) {
            Found::Invalid
        } else {
            Found::Nothing
        }
    }

    /// The document.
    pub fn json(&self) -> Value {
        let total = |f: fn(&Skipped) -> u64| self.skipped.iter().map(f).sum::<u64>();
        let mut document = json!({
            "format": TRACE_FORMAT,
            "version": env!("CARGO_PKG_VERSION"),
            "rows": self.rows.iter().map(|r| self.json_row(r)).collect::<Vec<_>>(),
            "skipped": total(Skipped::total),
            "skipped_why": {
                "unknown_event": total(|s| s.unknown),
                "broken_line": total(|s| s.broken),
                "long_line": total(|s| s.long),
            },
        });
        if self.files.len() > 1 {
            document["compared"] = self.pairs.iter().map(|p| self.json_pair(p)).collect();
        }
        document
    }

    fn json_row(&self, row: &Row) -> Value {
        let h = &row.head;
        let mut r = json!({
            "event": row.event, "prompt_id": h.prompt_id, "layer": h.layer, "head": h.head,
            "seq_len": h.seq_len, "window_len": h.window_len, "v_layout_best": null,
            "pv_scope": null, "pv_mae": pv_mae(row), "attn_out_mae": out_mae(row),
            "window_mass": row.window_mass(), "verdict": row.verdict.name(), "fault": row.fault,
            "note": row.notes.join("; "), "ratio": row.ratio, "file": self.files[row.file], "line": row.line,
            "phase": h.phase, "pos_id": h.pos_id,
        });
        let mut more = |key: &str, value: Value| r[key] = value;
        match &row.numbers {
            Numbers::VAcc { v_layout_best, scope: s, pv_mae_recomputed, .. } => {
                more("v_layout_best", json!(v_layout_best));
                more("pv_scope", json!(scope(*s)));
                more("pv_mae_recomputed", json!(pv_mae_recomputed));
            }
            Numbers::Softmax { qk_mae, softmax_mae, .. } => {
                more("qk_mae", json!(qk_mae));
                more("softmax_mae", json!(softmax_mae));
            }
            Numbers::TopOne(id) => more("top1_id", json!(id)),
            Numbers::VAddr(_) | Numbers::None => {}
        }
        r
    }

    fn json_pair(&self, pair: &Pair) -> Value {
        let (a, b) = (&self.rows[pair.a], &self.rows[pair.b]);
        let mut p = Map::new();
        let file = |row: usize| json!(self.files[self.rows[row].file]);
        p.insert("files".into(), json!([self.files[a.file], self.files[b.file]]));
        p.insert("rows".into(), json!([pair.a, pair.b]));
        p.insert("prompt_id".into(), json!(a.head.prompt_id));
        p.insert("layer".into(), json!(a.head.layer));
        p.insert("head".into(), json!(a.head.head));
        p.insert("p_equal".into(), json!(pair.p_equal));
        p.insert("v_equal".into(), json!(pair.v_equal));
        p.insert("pv_equal".into(), json!(pair.pv_equal));
        p.insert("ratio".into(), json!(pair.ratio));
        p.insert("one_kernel_is_wrong".into(), json!(pair.proves_wrong()));
        p.insert("wrong_file".into(), pair.wrong.map_or(Value::Null, file));
        p.insert("cleared_file".into(), pair.cleared.map_or(Value::Null, file));
        Value::Object(p)
    }
}

/// What judged traces come to; the exit status follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No fault.
    Nothing,
    /// A row says so, or two files together do.
    Fault,
    /// No fault, but an event that could not be judged.
    Invalid,
}

/// What was passed over in a file, in words.
fn passed_over(s: &Skipped) -> Option<String> {
    let parts: Vec<String> =
        [(s.unknown, "unknown event"), (s.broken, "broken line"), (s.long, "too long line")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}{}", if n == 1 { "" } else { "s" }))
            .collect();
    let first = s.first.as_ref().map(|(line, why)| format!(" (line {line}: {why})"));
    (!parts.is_empty()).then(|| format!("{}{}", parts.join(", "), first.unwrap_or_default()))
}
