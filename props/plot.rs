//! Laws of figures: they are drawn from stored results alone, the same on every machine, and the gallery is
//! what they come to.

use std::fs;
use std::path::{Path, PathBuf};

use attnbench::report::figures::{self, Figure};
use serde_json::Value;

use super::bench::Bench;

/// What the gallery is drawn from, in this order.
const RESULTS: [&str; 7] = [
    "2026-11-26-cpu/diagnose.json",
    "2026-11-26-cpu/trace.json",
    "2026-11-26-cpu/sweep.json",
    "2026-11-26-h100/sweep.json",
    "2026-11-26-h100/bench.json",
    "2026-11-26-h100/tune.json",
    "2026-11-26-cpu/faults.json",
];

fn plots(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plots").join(path)
}

fn result(name: &str) -> PathBuf {
    plots(&format!("results/{name}"))
}

fn gallery() -> Vec<Figure> {
    let read = |name: &&str| -> Value {
        let text = fs::read_to_string(result(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    figures::of(&RESULTS.iter().map(read).collect::<Vec<_>>())
}

/// The gallery's page.
fn page(figures: &[Figure]) -> String {
    let command = format!(
        "attnbench plot {} -o plots/figures",
        RESULTS.map(|name| format!("plots/results/{name}")).join(" \\\n    ")
    );
    let mut text = format!(
        "# Gallery\n\nEvery figure is drawn from the results in [`results/`](results), which say in their `command` how \
         they were made. A test draws all of them again and compares them byte for byte \
         (`cargo test --test props plot::`; with `ATTNBENCH_GALLERY=write` it writes them, and this page). This \
         draws them all:\n\n```sh\n{command}\n```\n"
    );
    for figure in figures {
        text += &format!(
            "\n## {}\n\n![{}](figures/{}.svg)\n\n{}\n",
            figure.title, figure.title, figure.name, figure.caption
        );
    }
    text
}

#[test]
fn the_gallery_is_what_the_stored_results_come_to() {
    let figures = gallery();
    let mut files: Vec<(PathBuf, String)> = figures
        .iter()
        .map(|f| (plots(&format!("figures/{}.svg", f.name)), f.svg.clone()))
        .collect();
    files.push((plots("README.md"), page(&figures)));
    let folder = plots("figures");
    if std::env::var("ATTNBENCH_GALLERY").as_deref() == Ok("write") {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        files.iter().for_each(|(path, text)| fs::write(path, text).expect("written"));
    }
    for (path, text) in &files {
        let kept = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(kept == *text, "{} is not what is drawn now", path.display());
    }
    // Nothing is left of figures that are drawn no more.
    assert_eq!(fs::read_dir(folder).expect("a folder").count(), figures.len());
}

#[test]
fn every_kind_of_figure_is_in_the_gallery_and_says_what_it_shows() {
    let figures = gallery();
    let names: Vec<&str> = figures.iter().map(|f| f.name.as_str()).collect();
    for name in [
        "layouts",
        "layout-probe",
        "heads",
        "reference-window",
        "first-wrong-key",
        "errors-seq_len",
        "errors-window_len",
        "error-over-bound",
        "cases-a-second",
        "beside-peers-NHD",
        "beside-peers-HND",
        "throughput",
        "roofline",
        "splits",
        "faults-by-regime",
    ] {
        assert!(names.contains(&name), "no {name} among {names:?}");
    }
    for figure in &figures {
        let svg = &figure.svg;
        assert!(figure.title.chars().any(|c| c.is_ascii_digit()), "{}: no number", figure.name);
        assert!(figure.caption.contains("From `attnbench"));
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{}", figure.name);
        assert!(svg.contains("prefers-color-scheme:dark"), "{}", figure.name);
        for never in ["NaN", "\"inf", ">inf", "href", "<script"] {
            assert!(!svg.contains(never), "{never} in {}", figure.name);
        }
        // All of it is on the paper.
        let (width, height) = figure.size();
        for (key, limit) in [("x=\"", width), ("y=\"", height), ("cx=\"", width), ("cy=\"", height)]
        {
            for part in svg.split(&format!(" {key}")).skip(1) {
                let number: f64 =
                    part.split('"').next().and_then(|n| n.parse().ok()).expect("a number");
                assert!(
                    (0.0..=f64::from(limit)).contains(&number),
                    "{}: {key}{number}",
                    figure.name
                );
            }
        }
    }
}

#[test]
fn plot_writes_svg_and_png_and_says_what_each_shows() {
    let bench = Bench::new();
    let sweep = result(RESULTS[3]);
    let sweep = sweep.to_str().expect("a plain path");
    let said = bench.run(["plot", sweep, "-o", "new/figures", "--png"]).ends_with(0).stdout;
    let folder = bench.dir().join("new/figures");
    for name in ["errors-seq_len", "error-over-bound"] {
        assert!(said.contains(&format!("{name}.svg")), "{said}");
        assert!(folder.join(format!("{name}.svg")).exists());
        let png = fs::read(folder.join(format!("{name}.png"))).expect("a picture");
        assert!(png.starts_with(b"\x89PNG"));
        // Text was drawn, by the font that comes with the program: there is more than one colour of paper.
        assert!(png.len() > 8000, "{name}: {} bytes", png.len());
    }
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let bench = Bench::new();
    let write = |name: &str, text: &str| fs::write(bench.dir().join(name), text).expect("written");
    write("broken.json", "{\"format\": ");
    write("other.json", "{\"format\": \"somebody/9\"}");
    write("empty.json", "{\"format\": \"attnbench-sweep/1\", \"kernels\": []}");
    for (file, words) in [
        ("broken.json", "broken.json is no JSON"),
        ("other.json", "`format` is somebody/9"),
        ("empty.json", "nothing to draw in empty.json"),
        ("missing.json", "cannot read missing.json"),
    ] {
        bench.run(["plot", file, "-o", "figures"]).refuses(&[words]);
        assert!(!bench.dir().join("figures").exists());
    }
}
