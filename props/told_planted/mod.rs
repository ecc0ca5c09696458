//! What is said of planted faults: never a false name, and when a kernel fails.
//!
//! [`inside`] has faults of the catalogue, each with the ids that are truly its own; [`outside`] has
//! faults that the catalogue does not know, each with facts that are true of when it shows. A few of
//! both are planted by default. The whole tables are planted by
//! `cargo test --release --test props told_planted -- --ignored --nocapture`.

mod inside;
mod outside;

use serde_json::Value;

use super::bench::{Bench, Edit, mutated};
use super::faults;
use super::support::cases::parallel;

/// A fault in a kernel, and what is true of it.
#[derive(Debug, Clone, Copy)]
pub struct Plant {
    /// What is wrong, as a name.
    pub name: &'static str,
    /// The built-in kernel whose files are edited.
    pub kernel: &'static str,
    /// Ids of the catalogue that name it truly; none outside the catalogue.
    pub is: &'static [&'static str],
    /// Why ids that are not the fault's own name it truly.
    pub why: &'static str,
    /// Facts of which a true trigger has one; none where the fault shows whatever the axes are.
    pub when: &'static [&'static str],
    /// The edits.
    pub edits: &'static [Edit<'static>],
}

/// What a sweep said of a plant.
#[derive(Debug, Default)]
struct Said {
    /// Whether a case failed.
    caught: bool,
    /// Each failure's property, with the ids under it: the fault and its equivalents.
    names: Vec<(String, Vec<String>)>,
    /// The triggers' facts.
    triggers: Vec<String>,
    /// The case that the first failure is told by.
    case: String,
}

/// Sweeps a planted kernel.
fn said(plant: &Plant) -> Said {
    let folder = mutated(&format!("told_{}", plant.name), plant.edits);
    let manifest = folder.join(format!("{}.toml", plant.kernel));
    let manifest = manifest.to_str().expect("a plain path");
    let sweep = ["sweep", manifest, "--cases", "100", "--no-sanitize", "-j", "1", "--json", "-"];
    let ran = Bench::new().run(sweep);
    assert!(ran.code <= 1, "{}: {}\n{}", plant.name, ran.stdout, ran.stderr);
    let document = ran.document();
    let mut said = Said { caught: ran.code == 1, ..Said::default() };
    for failure in document["kernels"][0]["failures"].as_array().expect("failures") {
        let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let diagnosis = &failure["diagnosis"];
        let mut names = Vec::new();
        if diagnosis["fault"].is_string() {
            let equivalent = diagnosis["equivalent"].as_array().into_iter().flatten();
            names.extend(equivalent.chain([diagnosis]).map(|named| text(&named["fault"])));
            names.reverse();
        }
        said.names.push((text(&failure["property"]), names));
        said.triggers.push(text(&failure["trigger"]["words"]));
        if said.case.is_empty() {
            said.case = text(&failure["id"]);
        }
    }
    said
}

impl Said {
    /// Whether an id, or each of a pair, is one of those that are true.
    fn is_true(id: &str, plant: &Plant) -> bool {
        id.split('+').all(|one| plant.is.contains(&one))
    }

    /// Whether a failure's names, the fault and its equivalents, have a true one.
    fn has_true(names: &[String], plant: &Plant) -> bool {
        names.iter().any(|id| Said::is_true(id, plant))
    }

    /// Whether a failure has a name, and one that is true is not among those said.
    fn is_false(&self, plant: &Plant) -> bool {
        self.names.iter().any(|(_, names)| !names.is_empty() && !Said::has_true(names, plant))
    }

    /// Whether the fault is named.
    fn is_named(&self, plant: &Plant) -> bool {
        self.names.iter().any(|(_, names)| Said::has_true(names, plant))
    }

    /// Whether a trigger has a fact that is true.
    fn is_told(&self, plant: &Plant) -> bool {
        self.triggers.iter().any(|words| plant.when.iter().any(|fact| words.contains(fact)))
    }

    /// A row of the table.
    fn row(&self, plant: &Plant) -> String {
        let false_name = if self.is_false(plant) { "FALSE" } else { "" };
        let named = match (plant.is.is_empty(), self.is_named(plant)) {
            (true, _) => "",
            (false, true) => "named",
            (false, false) => "NOT NAMED",
        };
        let told = match (plant.when.is_empty(), self.is_told(plant)) {
            (true, _) => "",
            (false, true) => "told",
            (false, false) => "NOT TOLD",
        };
        let names: Vec<String> =
            self.names.iter().map(|(of, ids)| format!("{of}: {}", ids.join(" = "))).collect();
        format!(
            "{} | {false_name}{named}{told} | {} | {} | {}",
            plant.name,
            names.join("; "),
            self.triggers.join("; "),
            self.case
        )
    }
}

/// What is said of each plant, which every sweep catches; the table is printed.
fn sweep_all(plants: &[Plant]) -> Vec<Said> {
    let all = parallel(plants.len(), |at| {
        let said = said(&plants[at]);
        println!("{}", said.row(&plants[at]));
        said
    });
    for (plant, said) in plants.iter().zip(&all) {
        assert!(said.caught, "{} is not caught", plant.name);
    }
    all
}

/// Asserts that no name is false.
#[track_caller]
fn none_is_false(plants: &[Plant], all: &[Said]) {
    let wrong: Vec<String> = plants
        .iter()
        .zip(all)
        .filter(|(plant, said)| said.is_false(plant))
        .map(|(plant, said)| said.row(plant))
        .collect();
    assert!(wrong.is_empty(), "{} false names:\n{}", wrong.len(), wrong.join("\n"));
}

/// Asserts that so many in a hundred of those that are asked for are there.
#[track_caller]
fn most(plants: &[&Plant], all: &[&Said], percent: usize, is: impl Fn(&Said, &Plant) -> bool) {
    let lacking: Vec<String> = plants
        .iter()
        .zip(all)
        .filter(|(plant, said)| !is(said, plant))
        .map(|(plant, said)| said.row(plant))
        .collect();
    let (of, there) = (plants.len(), plants.len() - lacking.len());
    println!("{there} of {of}");
    assert!(there * 100 >= of * percent, "{there} of {of}; not:\n{}", lacking.join("\n"));
}

/// Asserts what must hold of faults of the catalogue.
fn assert_named(plants: &[Plant]) {
    let all = sweep_all(plants);
    none_is_false(plants, &all);
    most(&plants.iter().collect::<Vec<_>>(), &all.iter().collect::<Vec<_>>(), 95, Said::is_named);
}

/// Asserts what must hold of faults outside the catalogue.
fn assert_told(plants: &[Plant]) {
    let all = sweep_all(plants);
    none_is_false(plants, &all);
    let (dependent, of): (Vec<&Plant>, Vec<&Said>) =
        plants.iter().zip(&all).filter(|(plant, _)| !plant.when.is_empty()).unzip();
    most(&dependent, &of, 80, Said::is_told);
}

/// Those of a list with these names.
fn some(plants: &[Plant], names: &[&str]) -> Vec<Plant> {
    let named = |name: &&str| *plants.iter().find(|p| p.name == *name).expect("in the list");
    names.iter().map(named).collect()
}

/// A few of every kind: addresses, heads, keys, scores, sums, sinks, parts, an lse.
#[test]
#[ignore = "minutes: a plant compiles a kernel for each type"]
fn faults_of_the_catalogue_are_named_and_never_falsely() {
    assert_named(&some(inside::PLANTS, &inside::FEW));
}

#[test]
#[ignore = "minutes: a plant compiles a kernel for each type"]
fn faults_outside_the_catalogue_have_no_name_and_a_true_trigger() {
    let all = outside::all();
    assert_told(&some(&all, &outside::FEW));
}

#[test]
fn the_lists_are_long_and_of_distinct_faults() {
    let outside = outside::all();
    let names: std::collections::BTreeSet<_> =
        inside::PLANTS.iter().chain(&outside).map(|p| p.name).collect();
    assert_eq!(names.len(), inside::PLANTS.len() + outside.len(), "two have the same name");
    assert!(inside::PLANTS.len() >= 80 && outside.len() >= 60, "{}", outside.len());
    let ids: std::collections::BTreeSet<_> =
        inside::PLANTS.iter().flat_map(|p| p.is).copied().collect();
    let left_out = ["layer_slice", "v_prev_layer_mixed", "stale_current"];
    for fault in &attnbench::judge::diagnose::catalogue::FAULTS {
        assert!(ids.contains(fault.id) || left_out.contains(&fault.id), "{} is nowhere", fault.id);
    }
}

#[test]
#[ignore = "minutes; run it for the table"]
fn every_fault_of_the_catalogue() {
    assert_named(inside::PLANTS);
}

#[test]
#[ignore = "minutes; run it for the table"]
fn every_fault_outside_the_catalogue() {
    assert_told(&outside::all());
}

/// A plant that other ids name truly as well says why.
#[test]
fn every_name_beside_a_fault_s_own_has_a_reason() {
    for plant in inside::PLANTS {
        assert!(plant.is.len() < 2 || !plant.why.is_empty(), "{}", plant.name);
    }
}
