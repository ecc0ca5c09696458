//! A sweep's result as JUnit XML, which CI servers read and show.
//!
//! A kernel is a suite. Its cases are thousands, so tests are what has a name from run to run: the cases of a
//! wave size, a family of properties that failed, and whether enough was judged for a verdict. The file is
//! valid under the schema that Jenkins checks files with (`junit-10.xsd` of its xUnit plugin).

use super::json::{list, text};
use quick_junit::{
    NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The JUnit XML of a sweep's document.
///
/// # Errors
/// [`SerializeError`]: the XML could not be written; no document is known that brings it about.
pub fn xml(document: &Value) -> Result<String, SerializeError> {
    let mut report = Report::new("attnbench sweep");
    let mut time = Duration::ZERO;
    for kernel in list(&document["kernels"]) {
        let suite = suite(document, kernel);
        time += suite.time.unwrap_or_default();
        report.add_test_suite(suite);
    }
    report.set_time(time);
    let skipped = report.skipped;
    let text = report.to_string()?;
    // The crate counts skipped tests in the root as well, where the schema has no such attribute. The root
    // is the first to have it.
    Ok(text.replacen(&format!(" skipped=\"{skipped}\""), "", 1))
}

fn suite(document: &Value, kernel: &Value) -> TestSuite {
    let name = plain(&text(&kernel["name"]));
    let mut suite = TestSuite::new(name.as_str());
    // Anything else would not be a time: no sweep takes a thousand years.
    let seconds = kernel["seconds"].as_f64().filter(|s| (0.0..3e10).contains(s));
    suite.set_time(Duration::from_secs_f64(seconds.unwrap_or(0.0)));
    for (key, value) in [
        ("seed", &document["seed"]),
        ("device", &document["device"]),
        ("version", &document["version"]),
        ("command", &document["command"]),
        ("cases", &kernel["cases"]),
        ("skipped", &kernel["skipped"]),
        ("vacuous", &kernel["vacuous"]),
        ("worst_ratio", &kernel["worst_ratio"]),
    ] {
        if !value.is_null() {
            suite.properties.push(Property::new(key, plain(&text(value))));
        }
    }
    let mut add = |test: &str, status: TestCaseStatus| {
        let mut case = TestCase::new(plain(test), status);
        case.set_classname(name.as_str());
        suite.add_test_case(case);
    };
    for (wave, cases) in kernel["by_wave"].as_object().into_iter().flatten() {
        add(&format!("wave {wave}"), of_wave(cases));
    }
    for (property, failures) in by_property(kernel) {
        add(&property, of_property(&property, &failures));
    }
    add("complete", completeness(kernel));
    suite
}

/// The cases of a wave size: passed where none failed, skipped where none was judged.
fn of_wave(cases: &Value) -> TestCaseStatus {
    let count = |key: &str| cases[key].as_u64().unwrap_or(0);
    match (count("failed"), count("cases")) {
        (0, 0) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message("no case was judged");
            status
        }
        (0, _) => TestCaseStatus::success(),
        (failed, all) => unsuccessful(
            NonSuccessKind::Failure,
            "cases",
            &format!("{failed} of {all} cases failed"),
            "What failed in them stands in the tests of the properties beside this one.",
        ),
    }
}

/// The failures of a kernel by their property, in the order in which the document has them.
fn by_property(kernel: &Value) -> BTreeMap<String, Vec<&Value>> {
    let mut all: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for failure in list(&kernel["failures"]) {
        all.entry(text(&failure["property"])).or_default().push(failure);
    }
    all
}

fn of_property(property: &str, failures: &[&Value]) -> TestCaseStatus {
    let first = failures.first().and_then(|f| f["detail"].as_str());
    let described: Vec<String> = failures.iter().map(|f| describe(f)).collect();
    let message = first.unwrap_or("a case failed");
    unsuccessful(NonSuccessKind::Failure, property, message, &described.join("\n"))
}

/// A failure in lines: the smallest case, where it is wrong, what explains it, how to see it again.
fn describe(failure: &Value) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(lines, "{name:8}{value}");
    };
    line("case", &text(&failure["id"]));
    if let Some(detail) = failure["detail"].as_str() {
        line("what", detail);
    }
    let at = &failure["where"];
    if at.is_object() {
        let place: Vec<String> = ["output", "batch", "head", "token", "d"]
            .into_iter()
            .filter(|key| !at[*key].is_null())
            .map(|key| format!("{key} {}", text(&at[key])))
            .collect();
        line("where", &place.join(", "));
        let measure = |key: &str| match failure[key].as_f64() {
            Some(x) => format!("{x:.3e}"),
            None => "not finite".to_owned(),
        };
        let (ratio, largest) = (measure("ratio"), measure("max_abs"));
        line("error", &format!("{ratio} bounds, largest {largest}"));
    }
    for finding in list(&failure["findings"]) {
        line("checker", &text(&finding["words"]));
    }
    if let Some(words) = failure["trigger"]["words"].as_str() {
        line("when", words);
    }
    if let Some(words) = failure["seen"]["words"].as_str() {
        line("seen", words);
    }
    let diagnosis = &failure["diagnosis"];
    if diagnosis.is_object() {
        let fault = diagnosis["fault"].as_str();
        let fault = fault.map_or(String::new(), |fault| format!(": {fault}"));
        line("fault", &format!("{}{fault}", text(&diagnosis["verdict"])));
        for advice in list(&diagnosis["advice"]) {
            line("look at", &text(advice));
        }
    }
    if let Some(replay) = failure["replay"].as_str() {
        line("replay", replay);
    }
    lines
}

/// Whether enough was judged for a verdict.
fn completeness(kernel: &Value) -> TestCaseStatus {
    let mut why: Vec<String> = Vec::new();
    why.extend(kernel["stopped"].as_str().map(str::to_owned));
    let missing: Vec<String> = list(&kernel["missing"]).iter().map(text).collect();
    if !missing.is_empty() {
        why.push(format!("never exercised: {}", missing.join(", ")));
    }
    for (reason, n) in kernel["skipped_why"].as_object().into_iter().flatten() {
        why.push(format!("skipped {} times: {reason}", text(n)));
    }
    let message = why.first().map_or("not enough was judged for a verdict", String::as_str);
    match (kernel["error"].as_str(), kernel["verdict"].as_str()) {
        (Some(error), _) => unsuccessful(NonSuccessKind::Error, "error", error, error),
        (None, Some("incomplete")) => {
            unsuccessful(NonSuccessKind::Error, "incomplete", message, &why.join("\n"))
        }
        // A sweep that ended early on a failure did not look at the rest: neither right nor wrong.
        (None, Some("fail")) if !why.is_empty() => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(plain(message));
            status
        }
        (None, Some("pass" | "fail")) => TestCaseStatus::success(),
        _ => unsuccessful(NonSuccessKind::Error, "verdict", "there is no verdict", ""),
    }
}

fn unsuccessful(kind: NonSuccessKind, of: &str, message: &str, words: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(plain(of));
    status.set_message(plain(message));
    status.set_description(plain(words));
    status
}

/// A text that XML 1.0 can hold: what it has no place for is replaced by U+FFFD, so that it is seen to have
/// been there. The crate would leave out control characters, and keep U+FFFE and U+FFFF, which XML forbids.
fn plain(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' => c,
        '\t' => ' ',
        '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sweep(kernels: Value) -> Value {
        json!({
            "format": "attnbench-sweep/1", "version": "0.1.0", "command": "attnbench sweep 'a \"b\" <c>'",
            "device": "cpu (g++ & co)", "seed": 7, "kernels": kernels,
        })
    }

    fn failing(name: &str, detail: &str) -> Value {
        let failure = |property: &str| {
            json!({
                "property": property, "id": "b=1,hq=1", "detail": detail, "ratio": 12.5, "max_abs": null,
                "nonfinite": true, "mae": 0.1, "where": {"output": "out", "batch": 0, "head": 3, "token": 0,
                "d": 17}, "diagnosis": {"verdict": "explained", "fault": "seq_len_minus_1",
                "advice": ["the end of the loop"]}, "replay": "attnbench replay 'x.safetensors'",
                "findings": [{"words": "reads past the end of k"}],
            })
        };
        json!({
            "name": name, "verdict": "fail", "cases": 10, "passed": 6, "failed": 4, "skipped": 2,
            "vacuous": 1, "seconds": 1.5, "worst_ratio": null, "nonfinite": true,
            "by_wave": {"32": {"cases": 5, "passed": 5, "failed": 0},
                        "64": {"cases": 5, "passed": 1, "failed": 4}},
            "drawn": {}, "stopped": "stopped by --fail-fast", "missing": [],
            "failures": [failure("oracle"), failure("oracle"), failure("sanitize/memory")],
        })
    }

    fn read(document: &Value) -> Report {
        let text = xml(document).expect("XML");
        Report::deserialize_from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    fn case<'a>(suite: &'a TestSuite, name: &str) -> &'a TestCase {
        let found = suite.test_cases.iter().find(|case| case.name.as_str() == name);
        found.unwrap_or_else(|| panic!("no test {name} in {suite:?}"))
    }

    #[test]
    fn a_kernel_that_passes_shows_as_passed() {
        let text = include_str!("../../plots/results/2026-11-26-cpu/sweep.json");
        let report = read(&serde_json::from_str(text).expect("a document"));
        assert_eq!((report.test_suites.len(), report.failures, report.errors), (13, 0, 0));
        let suite = &report.test_suites[0];
        assert_eq!((suite.name.as_str(), suite.tests), ("decode_naive", 3));
        assert_eq!(suite.time, Some(Duration::from_millis(19_930)));
        for name in ["wave 32", "wave 64", "complete"] {
            let case = case(suite, name);
            assert_eq!(case.status, TestCaseStatus::success());
            assert_eq!(case.classname.as_ref().map(|c| c.as_str()), Some("decode_naive"));
        }
        let properties: Vec<_> =
            suite.properties.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
        for expected in
            [("seed", "20261126"), ("version", "0.1.0"), ("vacuous", "291"), ("skipped", "0")]
        {
            assert!(properties.contains(&expected), "{properties:?}");
        }
    }

    #[test]
    fn each_property_that_failed_is_a_test_that_failed() {
        let report = read(&sweep(json!([failing("decode", "out[0] is wrong")])));
        let suite = &report.test_suites[0];
        assert_eq!((suite.tests, suite.failures, suite.errors, suite.skipped), (5, 3, 0, 1));
        assert_eq!(case(suite, "wave 32").status, TestCaseStatus::success());
        let TestCaseStatus::NonSuccess { kind, message, ty, description, .. } =
            &case(suite, "oracle").status
        else {
            panic!("oracle passed")
        };
        assert_eq!(*kind, NonSuccessKind::Failure);
        assert_eq!(message.as_deref(), Some("out[0] is wrong"));
        assert_eq!(ty.as_deref(), Some("oracle"));
        let words = description.as_deref().expect("a description");
        assert_eq!(words.matches("b=1,hq=1").count(), 2, "{words}");
        for part in [
            "where   output out, batch 0, head 3, token 0, d 17",
            "1.250e1 bounds, largest not finite",
            "checker reads past the end of k",
            "explained: seq_len_minus_1",
            "look at the end of the loop",
            "replay  attnbench replay 'x.safetensors'",
        ] {
            assert!(words.contains(part), "no `{part}` in {words}");
        }
    }

    #[test]
    fn what_could_not_be_swept_or_not_enough_is_an_error() {
        let kernel = |more: Value| {
            let mut kernel =
                json!({"name": "k", "verdict": "incomplete", "seconds": 0.0, "failures": []});
            for (key, value) in more.as_object().expect("fields") {
                kernel[key] = value.clone();
            }
            kernel
        };
        let report = read(&sweep(json!([
            kernel(json!({"error": "does not compile"})),
            kernel(json!({"missing": ["dtype bf16", "wave 64"]})),
            kernel(json!({})),
        ])));
        assert_eq!((report.tests, report.failures, report.errors), (3, 0, 3));
        let message = |i: usize| match &case(&report.test_suites[i], "complete").status {
            TestCaseStatus::NonSuccess { kind: NonSuccessKind::Error, message, .. } => {
                message.as_deref().expect("a message").to_owned()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(message(0), "does not compile");
        assert_eq!(message(1), "never exercised: dtype bf16, wave 64");
        assert_eq!(message(2), "not enough was judged for a verdict");
    }

    #[test]
    fn names_of_any_characters_stay_names() {
        let name = "<k>&\"'\u{1b}[31m\u{0}\u{b}\u{fffe}\u{ffff}\t\u{9b}é]]>";
        let kernel = failing(name, "<failure>&amp;]]>\u{1}\nnext");
        let text = xml(&sweep(json!([kernel]))).expect("XML");
        let forbidden =
            |c: char| c < ' ' && !"\n\r\t".contains(c) || matches!(c, '\u{fffe}' | '\u{ffff}');
        assert!(!text.contains(forbidden), "{text:?}");
        assert!(!text.contains("<k>") && !text.contains("<failure>&amp;"), "{text}");
        let report = read(&sweep(json!([failing(name, "<failure>&amp;]]>\u{1}\nnext")])));
        let suite = &report.test_suites[0];
        let r = char::REPLACEMENT_CHARACTER;
        assert_eq!(suite.name.as_str(), format!("<k>&\"'{r}[31m{r}{r}{r}{r} {r}é]]>"));
        let TestCaseStatus::NonSuccess { description, .. } = &case(suite, "oracle").status else {
            panic!("oracle passed")
        };
        let words = description.as_deref().expect("a description");
        assert!(words.contains(&format!("<failure>&amp;]]>{r}\nnext")), "{words}");
    }

    #[test]
    fn the_root_has_the_attributes_of_the_schema_only() {
        let text = xml(&sweep(json!([failing("decode", "wrong")]))).expect("XML");
        let root = text.lines().find(|line| line.starts_with("<testsuites")).expect("a root");
        assert!(!root.contains("skipped"), "{root}");
        let suite = text.lines().find(|line| line.contains("<testsuite ")).expect("a suite");
        assert!(suite.contains("skipped=\"1\"") && suite.contains("time=\"1.500\""), "{suite}");
    }
}
