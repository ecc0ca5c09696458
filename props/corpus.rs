//! What fuzzing found stays found: every file of the fuzzers' corpora, and seeded mutations of
//! them, through the bodies of the fuzz targets. `fuzz/README.md` says how to fuzz for real.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[path = "../fuzz/bodies.rs"]
mod bodies;

/// Mutated inputs of each target.
const MUTATIONS: usize = 4000;

/// Longest input, as the fuzzers have it.
const MAX_LEN: usize = 4096;

/// Longest time for an input. The slowest one takes a few milliseconds; what is not bounded by the
/// input's size takes more than any machine under load does.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Whether the parser took the input.
type Body = fn(&[u8]) -> bool;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The corpus of a target by file name: a run of the same seed is the same everywhere.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz_folder().join("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut all: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let path = file.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a file of the corpus"))
        })
        .collect();
    all.sort();
    assert!(all.len() >= 10, "only {} files in {}", all.len(), folder.display());
    all
}

/// The words of a dictionary: `"text"` a line, with `\xNN` for bytes.
fn dictionary(target: &str) -> Vec<Vec<u8>> {
    let path = fuzz_folder().join("dict").join(format!("{target}.dict"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let word = |line: &str| {
        let quoted = line.strip_prefix('"').and_then(|l| l.strip_suffix('"'));
        let mut rest = quoted.unwrap_or_else(|| panic!("{}: {line}", path.display()));
        let mut word = Vec::new();
        while let Some(at) = rest.find("\\x") {
            word.extend(rest[..at].bytes());
            word.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two digits"));
            rest = &rest[at + 4..];
        }
        word.extend(rest.bytes());
        word
    };
    text.lines().map(word).collect()
}

/// Runs a body, and says which input it was that it panicked on or took too long for.
fn run(target: &str, body: Body, input: &[u8], whence: &str) -> bool {
    let started = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(input)));
    let taken = started.elapsed();
    let shown = input.escape_ascii();
    assert!(taken < MAX_TIME, "{target}: {whence} takes {taken:?}: \"{shown}\"");
    outcome.unwrap_or_else(|_| panic!("{target}: {whence} breaks a law, see above: \"{shown}\""))
}

/// One change of the kinds that find most: bits, digits, cuts, other inputs' parts, known words.
fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], r: &mut SmallRng) {
    let at = r.random_range(0..=input.len());
    let end = r.random_range(at..=input.len().min(at + 16));
    let word = &words[r.random_range(0..words.len())];
    match r.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << r.random_range(0..8),
        1 if at < input.len() => input[at] = r.random(),
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let from = r.random_range(0..=other.len());
            let to = r.random_range(from..=other.len().min(from + 64));
            input.splice(at..end, other[from..to].iter().copied());
        }
        5 => drop(input.splice(at..end, word.iter().copied())),
        // A whole word by another keeps more of the grammar.
        _ => {
            let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
            let from = input[..at].iter().rposition(|b| !part(b)).map_or(0, |i| i + 1);
            let to = input[at..].iter().position(|b| !part(b)).map_or(input.len(), |i| at + i);
            let number = r.random_range(0..200).to_string().into_bytes();
            let is_number = from < to && input[from..to].iter().all(u8::is_ascii_digit);
            let with = if is_number && r.random_range(0..4) > 0 { &number } else { word };
            input.splice(from..to, with.iter().copied());
        }
    }
    input.truncate(MAX_LEN);
}

fn replay_and_mutate(target: &str, body: Body) {
    let (corpus, words) = (corpus(target), dictionary(target));
    let (taken, refused): (Vec<_>, Vec<_>) =
        corpus.iter().partition(|(name, input)| run(target, body, input, name));
    // Changes to what is refused already rarely get past the parser's first lines.
    assert!(taken.len() >= 10, "{target}: of the corpus only {} are accepted", taken.len());
    // Another seed each time would find more, and fail on changes that are not at fault.
    let seed: u64 = std::env::var("ATTNBENCH_FUZZ_SEED").map_or(1, |s| s.parse().expect("a seed"));
    let mut r = SmallRng::seed_from_u64(seed);
    let mut still = 0;
    for i in 0..MUTATIONS {
        let (name, first) = taken[r.random_range(0..taken.len())];
        let other = &corpus[r.random_range(0..corpus.len())].1;
        let mut input = first.clone();
        for _ in 0..r.random_range(1..=3) {
            mutate(&mut input, other, &words, &mut r);
        }
        let whence = format!("mutation {i} of seed {seed}, of {name},");
        still += usize::from(run(target, body, &input, &whence));
    }
    let (taken, refused) = (taken.len(), refused.len());
    println!(
        "{target}: {taken} files accepted, {refused} refused; of {MUTATIONS} mutations of seed \
         {seed}, {still} accepted"
    );
}

#[test]
fn slices_of_the_corpus_keep_their_laws() {
    replay_and_mutate("slice", bodies::slice);
}

#[test]
fn manifests_of_the_corpus_keep_their_laws() {
    replay_and_mutate("manifest", bodies::manifest);
}

#[test]
fn case_ids_of_the_corpus_keep_their_laws() {
    replay_and_mutate("case_id", bodies::case_id);
}

#[test]
fn expressions_of_the_corpus_keep_their_laws() {
    replay_and_mutate("expr", bodies::expr);
}

#[test]
fn traces_of_the_corpus_keep_their_laws() {
    replay_and_mutate("trace", bodies::trace);
}
