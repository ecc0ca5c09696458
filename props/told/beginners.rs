//! The first tries of a person: what is said leads to the line that is missing.

use super::*;

/// A kernel of one line, over a whole output.
fn one_line(name: &str, body: &str) -> PathBuf {
    let source = PLAIN.1;
    let from = source.find("    float acc[LONGEST]").expect("the body");
    let to = source.rfind('}').expect("the end");
    small(PLAIN, name, &[(&source[from..to], body)])
}

#[test]
fn an_empty_kernel() {
    let told = sweep(&one_line("empty", ""), 60, &[]);
    told.names_nothing_but(&[]);
    told.shows("never_written");
    assert_eq!(told.kernel["failed"], told.kernel["cases"], "{}", told.text);
}

#[test]
fn a_kernel_that_stores_zeros() {
    let told = sweep(
        &one_line("zeros", "    for (int d = 0; d < row; ++d) out[head * row + d] = Out(0.0f);\n"),
        60,
        &[],
    );
    told.names_nothing_but(&[]);
    told.shows("all_zero");
}

#[test]
fn a_kernel_that_stores_nan() {
    let told = sweep(
        &one_line("nan", "    for (int d = 0; d < row; ++d) out[head * row + d] = Out(NAN);\n"),
        60,
        &[],
    );
    told.names_nothing_but(&[]);
    assert!(told.failure()["diagnosis"]["fault"].is_null(), "{}", told.text);
    for word in ["inf bounds", "largest 0"] {
        assert!(!told.text.contains(word), "{}", told.text);
    }
    assert!(told.text.contains("are not finite"), "{}", told.text);
}

#[test]
fn pointers_of_halves_under_a_manifest_of_floats() {
    let entry = ("plain<{q}, {kv}, {out}>", "plain<__half, __half, __half>");
    let said = refused(
        &small(PLAIN, "halves", &[entry]),
        &["f32 by the manifest", "`const __half*`", "argument 1 `q`"],
    );
    assert!(said.contains("argument 4 `out`"), "{said}");
}

#[test]
fn an_include_that_is_missing() {
    let include = ("<hip/hip_bf16.h>", "\"mine/numbers.h\"");
    refused(
        &small(PLAIN, "include", &[include]),
        &["plain.hip:2:", "mine/numbers.h: No such file", "`include_dirs`"],
    );
}

#[test]
fn three_compile_errors() {
    let edits = [
        ("s *= scale;", "s *= scal;"),
        ("most = now;", "int word = \"three\";\n        most = now;"),
        ("        sum = sum * keep", "        first(2);\n        sum = sum * keep"),
    ];
    let kernel = small(PLAIN, "three_errors", &edits);
    let source = fs::read_to_string(kernel.with_extension("hip")).expect("the source");
    let row = |text: &str| 1 + source.lines().position(|line| line.contains(text)).expect("a line");
    let places = ["scal;", "first(2)", "int word"].map(|text| format!("plain.hip:{}:", row(text)));
    let [a, b, c] = places.each_ref().map(String::as_str);
    let said = refused(
        &kernel,
        &["3 errors", a, b, c, "s *= scal;", "first(2);", "int word = \"three\";", "^~~~~"],
    );
    assert_eq!(said.matches(": error: ").count(), 3, "{said}");
    assert!(!said.contains("not declared in plain.hip"), "{said}");
}
