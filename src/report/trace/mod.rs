//! Judged traces: tables like those of the reports that the traces were written for, and JSON.

mod columns;
mod json;

use self::columns::{Cell, Column, Side};
use super::table::{align_numbers, table};
use crate::data::trace::Skipped;
use crate::judge::trace::{Numbers, Pair, Row, Verdict};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;

pub use self::json::TRACE_FORMAT;

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

/// Where two files are set side by side, a row of each; else one row of any.
type Line<'a> = Vec<Option<&'a Row>>;

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
                false => header.extend(
                    self.names.iter().map(|n| format!("{name} {}", columns::text(Some(n)))),
                ),
            }
        }
        let mut t = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
        for line in &lines {
            let mut row = Vec::new();
            let any = line.iter().flatten().next();
            if file {
                row.push(columns::text(any.map(|r| self.names[r.file].as_str())));
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
        let mut out = self.table(&|r| matches!(r.numbers, Numbers::VAcc { .. }), &columns::pv());
        out += &self.table(&|r| matches!(r.numbers, Numbers::Softmax { .. }), &columns::softmax());
        out += &self.table(&|r| matches!(r.numbers, Numbers::VAddr(_)), &columns::addr());
        out += &self.table(&|r| matches!(r.numbers, Numbers::TopOne(_)), &columns::top_one());
        for row in &self.rows {
            let h = &row.head;
            let file = &self.names[row.file];
            let mut place = match self.names.len() {
                1 => format!("line {}", row.line),
                _ => format!("{file} line {}", row.line),
            };
            if invalid(row) {
                let _ = write!(place, ", {}", columns::text(Some(&row.event)));
            }
            if h.prompt_id.is_some() {
                let _ = write!(place, ", {}", columns::text(h.prompt_id.as_deref()));
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
                let _ = writeln!(out, "{}: passed over {line}", columns::text(Some(name)));
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
