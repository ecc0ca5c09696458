//! `bench`: what it measures, writes and says; documents beside one another; tunables by rule, and scratch
//! that is zeros; the peers' script. The path on a GPU is tried in `gpu/host.rs`.

mod data;
mod documents;
mod peers;
mod program;
mod tunables;

use super::bench::{Bench, Ran};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A shape that takes the CPU device no time.
const SHAPE: &str = "b=2,hq=4,hkv=2,d=64,n=40,dt=f16";

const SCHEMA: &str = include_str!("../../golden/schema/attnbench-bench-1.json");

/// The schema as it is published, where keys may be added.
static OPEN: LazyLock<jsonschema::Validator> = LazyLock::new(|| validator(&schema()));

/// The same where none may: what this version of the program writes.
static STRICT: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let mut schema = schema();
    close(&mut schema);
    validator(&schema)
});

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::validator_for(schema).expect("the schema is a schema")
}

/// Forbids what is not described, in every object.
fn close(schema: &mut Value) {
    if let Value::Object(object) = schema {
        let is_object = object.get("type") == Some(&json!("object"));
        if is_object && object.contains_key("properties") {
            object.insert("additionalProperties".to_owned(), json!(false));
        }
        object.values_mut().for_each(close);
    } else if let Value::Array(list) = schema {
        list.iter_mut().for_each(close);
    }
}

/// What is wrong with a document.
fn mistakes(schema: &jsonschema::Validator, document: &Value) -> Vec<String> {
    schema.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

/// The bench document on standard output, which holds nothing else, checked against the schema.
#[track_caller]
pub fn document(ran: &Ran) -> Value {
    let document: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    let wrong = mistakes(&STRICT, &document);
    assert!(wrong.is_empty(), "{}\n{document:#}", wrong.join("\n"));
    document
}

/// The document of a bench on the CPU device, and its only row.
#[track_caller]
fn only_row(args: &[&str], code: i32) -> Value {
    let own = ["--device", "cpu", "--rounds", "2", "--replays", "2", "--json", "-"];
    let ran = Bench::new().run([&["bench"], args, &own].concat()).ends_with(code);
    let mut document = document(&ran);
    let rows = document["rows"].as_array_mut().expect("rows");
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows.remove(0)
}
