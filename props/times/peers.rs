//! The script that times other libraries, as far as it goes without a GPU.

use super::super::bench::Bench;
use serde_json::Value;
use std::process::{Command, Output};

/// Runs the script; `None`, and a word of it, where there is no Python.
fn peers(args: &[&str]) -> Option<Output> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/peers.py");
    let mut command = Command::new("python3");
    // Nothing is left beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).args(args);
    match command.current_dir(Bench::new().dir().parent().expect("a folder")).output() {
        Ok(output) => Some(output),
        Err(why) => {
            eprintln!("skipped: python3: {why}");
            None
        }
    }
}

/// Every shape and set that `--shapes` knows: the script reads the file that is part of the program.
#[test]
fn the_script_knows_every_shape() {
    let known = include_str!("../../benches/shapes.json");
    let known: Value = serde_json::from_str(known).expect("the shapes are JSON");
    let names: Vec<&str> = known["shapes"]
        .as_array()
        .expect("shapes")
        .iter()
        .map(|shape| shape["name"].as_str().expect("a name"))
        .collect();
    let sets: Vec<&str> =
        known["sets"].as_object().expect("sets").keys().map(String::as_str).collect();
    assert!(names.len() >= 15 && sets.contains(&"peers"), "{names:?} {sets:?}");
    for list in [names.join(","), sets.join(",")] {
        let Some(output) = peers(&["--check", "--shapes", &list]) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for name in &names {
            let line =
                text.lines().find(|line| line.trim_start().starts_with(&format!("{name}: ")));
            // Bytes of K and V as the program counts them.
            let shape = attnbench::bench::shapes::parse(name).expect("a shape").remove(0).case;
            let keys: usize = (0..shape.batch()).map(|s| shape.attended(s).len()).sum();
            let bytes = 2 * keys * shape.num_kv_heads * shape.head_dim * shape.dtypes.kv.size();
            let megabytes = format!("KV {:.1} MB, ", bytes as f64 / 1e6);
            assert!(
                line.is_some_and(|line| line.contains(&megabytes)),
                "{name}, {megabytes}: {text}"
            );
        }
    }
}

#[test]
fn the_script_refuses_what_is_wrong() {
    for (args, words) in [
        (["--shapes", "llama8b_b1_8"], "no shape or set 'llama8b_b1_8'; sets: peers, own"),
        (["--layout", "HDN"], "--layout: 'HDN' is none of NHD, HND"),
        (["--json", "no/such/folder/x.json"], "no folder for no/such/folder/x.json"),
    ] {
        let Some(output) = peers(&[&["--check"], &args[..]].concat()) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("peers.py: ") && said.contains(words), "{said}");
        assert!(!said.contains("Traceback") && output.stdout.is_empty(), "{said}");
    }
}
