//! `inspect`: what it tells of kernels built for AMD targets, of compiled files, and of wrong requests.
//!
//! Where there is no clang with the AMDGPU target, the tests that build say so and do nothing.

mod expected;
mod figures;
mod files;
mod occupancy;
mod release;

use super::bench::{Bench, Ran, cache};
use attnbench::inspect::Row;
use attnbench::inspect::build::Builder;
use attnbench::inspect::compiler::{Compiler, chosen};
use serde_json::Value;
use std::sync::LazyLock;

/// The compiler, where there is one; said once where there is none.
pub fn builder() -> Option<&'static Builder> {
    static BUILDER: LazyLock<Option<Builder>> =
        LazyLock::new(|| match Compiler::find(chosen(|name| std::env::var_os(name)).as_deref()) {
            Ok(compiler) => Some(Builder { compiler, cache_dir: cache() }),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        });
    BUILDER.as_ref()
}

/// The document on standard output, checked against its schema, and its rows.
#[track_caller]
pub fn rows(ran: &Ran) -> Vec<Row> {
    static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let text = include_str!("../../golden/schema/attnbench-inspect-1.json");
        let schema = serde_json::from_str(text).expect("the schema is JSON");
        jsonschema::validator_for(&schema).expect("the schema is a schema")
    });
    let text = &ran.stdout;
    let document: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    let wrong: Vec<String> =
        SCHEMA.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{}\n{document:#}", wrong.join("\n"));
    attnbench::report::inspect::read(text).expect("it reads its own document")
}

/// A kernel in the bench's folder: its entry, how it is launched, and its source.
fn plant(bench: &Bench, name: &str, entry: &str, block: &str, source: &str) -> String {
    let manifest = format!(
        "format = \"kernel/1\"\nname = \"{name}\"\nsource = \"{name}.hip\"\nstage = \"decode\"\n\
         [[launch]]\nentry = \"{entry}\"\nargs = [\"q\", \"k\", \"v\", \"out\"]\n\
         grid = [1, 1, 1]\nblock = {block}\n"
    );
    bench.write(&format!("{name}.toml"), manifest);
    bench.write(&format!("{name}.hip"), format!("#include <hip/hip_runtime.h>\n{source}"));
    format!("{name}.toml")
}
