//! What the check sees, cell by cell: faults of kinds that suites in use miss at some lengths, in the
//! real `decode_split`, swept at given numbers of keys in each type. Every cell must be caught, and
//! the untouched kernel must pass in all of them.
//!
//! The whole table: `cargo test --release --test props sensitivity -- --ignored --nocapture`.

use std::fmt::Write;
use std::path::Path;

use super::bench::{Edit, mutated};
use super::laws::trial;
use super::support::cases::parallel;
use attnbench::judge::draw::Draw;
use attnbench::judge::space::{Filter, Space};
use attnbench::judge::trial::Outcome;
use attnbench::kernel::Manifest;
use std::sync::Arc;

/// Cases of a cell: the fault must show within them, and the right kernel in none.
const CASES: usize = 16;
const LENGTHS: [usize; 7] = [17, 64, 256, 1024, 4096, 16384, 65536];
const TYPES: [&str; 3] = ["f32", "f16", "bf16"];

const ONLINE: &str = "decode_online.hip";
const SPLIT: &str = "decode_split.hip";
const MANIFEST: &str = "decode_split.toml";
/// Each case in 8 splits, so that a fault of one of them is one of 8.
const EIGHT: Edit<'static> = (MANIFEST, "splits = [1, 2, 3, 4, 8, 16]", "splits = [8]");

/// The faults of the comparison with the suites in use, as edits.
const FAULTS: &[(&str, &[Edit<'static>])] = &[
    (
        "all-zero output",
        &[("merge.hip", "rounded<Out>::from(normalised(sum, total))", "rounded<Out>::from(0.0f)")],
    ),
    (
        "uniform softmax (Q·K ignored)",
        &[(ONLINE, "scores[i] = finish_score(dot, scale, softcap);", "scores[i] = 0.0f * dot;")],
    ),
    (
        "upper half of K's head_dim ignored",
        &[(ONLINE, "d < head_dim; ++d) dot +=", "d < head_dim / 2; ++d) dot +=")],
    ),
    ("scale 1/sqrt(160) for 128", &[(MANIFEST, "\"f32:scale\"", "\"f32:scale * 0.894427191\"")]),
    (
        "one key dropped",
        &[(SPLIT, "to < end ? to : end, head_dim,", "to < end ? to : end - 1, head_dim,")],
    ),
    (
        "last 8 keys dropped",
        &[(
            SPLIT,
            "const int end = seq_lens[b], begin",
            "const int end = seq_lens[b] > 8 ? seq_lens[b] - 8 : 0, begin",
        )],
    ),
    (
        "1 of 8 splits dropped",
        &[EIGHT, (SPLIT, "to = from + part;", "to = split == 3 ? from : from + part;")],
    ),
    (
        "1 head reads the wrong KV head",
        &[(
            SPLIT,
            "k += b * k_stride_s + (h / group) * k_stride_h;",
            "const int wrong = gridDim.x > group && h == 0 ? 1 : h / group;\n    k += b * k_stride_s + wrong * k_stride_h;",
        )],
    ),
    (
        "last 8 dims of V zero",
        &[(
            "merge.hip",
            "rounded<Out>::from(normalised(sum, total))",
            "rounded<Out>::from(d + 8 >= head_dim ? 0.0f : normalised(sum, total))",
        )],
    ),
    (
        "softcap ignored",
        &[("portable.h", "softcap > 0.0f ? softcap * tanhf(s / softcap) : s", "s")],
    ),
    (
        "split weights base-2/e mix",
        &[
            EIGHT,
            (
                "merge.hip",
                "weights[s] = weight_of(partial_lse[s], maximum);",
                "weights[s] = partial_lse[s] == -INFINITY ? 0.0f : exp2f(partial_lse[s] - maximum);",
            ),
        ],
    ),
    (
        "stale neighbour key in",
        &[(
            SPLIT,
            "begin = first_key(end, window_len);",
            "begin = first_key(end, window_len) > 0 ? first_key(end, window_len) - 1 : 0;",
        )],
    ),
];

/// After how many cases a cell is caught; `None` where every case passes. The cases are those that
/// `sweep --seq-len N..N --head-dim 128..128 --dtype TYPE` draws first.
fn cell(folder: &Path, length: usize, dtype: &str) -> Option<usize> {
    let manifest = Arc::new(Manifest::load(&folder.join(MANIFEST)).expect("a manifest"));
    let filter = Filter {
        waves: vec![32, 64],
        dtype: Some(dtype.parse().expect("a type")),
        seq_len: Some((length, length)),
        head_dim: Some((128, 128)),
        ..Filter::default()
    };
    let space = Space::new(&manifest, &filter, &[]).expect("a space with cases");
    let mut trial = trial(&manifest);
    let (mut judged, mut index) = (0, 0);
    while judged < CASES {
        let Draw::Case(case) = space.draw(1, index) else { panic!("nothing to draw") };
        index += 1;
        match trial.judge(&case).expect("it runs") {
            Outcome::Passed(_) => judged += 1,
            Outcome::Failed(_) => return Some(judged + 1),
            Outcome::Vacuous(_) => {}
        }
    }
    None
}

/// Every cell of the given lengths: after how many cases each fault is caught, by type and length.
fn table(lengths: &[usize]) -> Vec<Vec<Option<usize>>> {
    let folders: Vec<_> = FAULTS
        .iter()
        .enumerate()
        .map(|(i, (_, edits))| mutated(&format!("sensitivity_{i}"), edits))
        .chain([mutated("sensitivity_right", &[])])
        .collect();
    let columns = TYPES.len() * lengths.len();
    let cells = parallel(folders.len() * columns, |i| {
        let (row, column) = (i / columns, i % columns);
        cell(&folders[row], lengths[column % lengths.len()], TYPES[column / lengths.len()])
    });
    cells.chunks(columns).map(<[_]>::to_vec).collect()
}

/// What is wrong with a table: right kernels rejected, and faults not caught.
fn holes(lengths: &[usize], rows: &[Vec<Option<usize>>]) -> Vec<String> {
    let (right, faulty) = rows.split_last().expect("the untouched kernel");
    let place = |column: usize| {
        format!("{} at {} keys", TYPES[column / lengths.len()], lengths[column % lengths.len()])
    };
    let mut holes = Vec::new();
    for (column, caught) in right.iter().enumerate().filter(|(_, caught)| caught.is_some()) {
        holes.push(format!("the right kernel is rejected: {}, {caught:?}", place(column)));
    }
    for ((name, _), row) in FAULTS.iter().zip(faulty) {
        for (column, _) in row.iter().enumerate().filter(|(_, caught)| caught.is_none()) {
            holes.push(format!("{name} is not caught: {}", place(column)));
        }
    }
    holes
}

#[test]
fn every_fault_is_caught_at_small_lengths_and_no_right_kernel_is_rejected() {
    let lengths = &LENGTHS[..2];
    let rows = table(lengths);
    assert_eq!(holes(lengths, &rows), Vec::<String>::new());
    // The check of the check: the right kernel in a fault's place is a hole.
    let mut empty = rows.clone();
    empty[0] = rows[FAULTS.len()].clone();
    assert_eq!(holes(lengths, &empty).len(), TYPES.len() * lengths.len());
}

#[test]
#[ignore = "minutes; run it for the table"]
fn every_fault_is_caught_at_every_length() {
    let rows = table(&LENGTHS);
    let mut text = format!(
        "# Sensitivity\n\n`decode_split` with one fault, head_dim 128: after how many of {CASES} cases it \
         is caught, at 17 / 64 / 256 / 1024 / 4096 / 16384 / 65536 keys.\n\n\
         | fault | f32 | f16 | bf16 |\n|---|---|---|---|\n"
    );
    let names = FAULTS.iter().map(|(name, _)| *name).chain(["none: the right kernel"]);
    for (name, row) in names.zip(&rows) {
        write!(text, "| {name} |").expect("a string");
        for cells in row.chunks(LENGTHS.len()) {
            let cells: Vec<String> =
                cells.iter().map(|c| c.map_or("-".to_owned(), |n| n.to_string())).collect();
            let all = cells.iter().all(|c| c != "-");
            let none = cells.iter().all(|c| c == "-");
            let words = if all {
                "always: "
            } else if none {
                "never: "
            } else {
                ""
            };
            write!(text, " {words}{} |", cells.join(" / ")).expect("a string");
        }
        text.push('\n');
    }
    println!("{text}");
    let file = "plots/results/2026-11-23-cpu/sensitivity.md";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    std::fs::write(file, text).expect("written");
    assert_eq!(holes(&LENGTHS, &rows), Vec::<String>::new());
}
