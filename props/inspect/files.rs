//! Compiled files, and requests that cannot be met.

use super::super::bench::Bench;
use super::{builder, plant, rows};
use std::ffi::OsStr;

const SCALE: &[u8] = include_bytes!("scale.hsaco");
const CUDA13: &[u8] = include_bytes!("cuda13_sm90.cubin");

/// Figures by hand from the source and `llvm-readelf`.
#[test]
fn compiled_files_are_read_without_a_compiler() {
    let bench = Bench::new();
    bench.write("scale.hsaco", SCALE);
    bench.write("two.cubin", CUDA13);
    let nowhere = [("PATH", OsStr::new("/nonexistent"))];
    let ran = bench
        .run_with(["inspect", "scale.hsaco", "two.cubin", "--json", "-"], &nowhere)
        .ends_with(0);
    assert!(ran.stderr.contains("no llvm-objdump was found"), "{}", ran.stderr);
    let rows = rows(&ran);
    let names: Vec<_> = rows.iter().map(|r| (&*r.entry, &*r.target)).collect();
    assert_eq!(names, [("scale", "gfx942"), ("frame", "sm_90"), ("scale", "sm_90")]);
    assert_eq!((rows[0].vgprs, rows[0].agprs, rows[0].counts), (12, Some(4), None));
    // 4 KiB a block of four waves, 16 of them in 64 KiB: more than the 8 that the waves allow.
    let occupancy = rows[0].occupancy.as_ref().unwrap();
    assert_eq!((occupancy.waves, &*occupancy.limit, occupancy.threads), (8.0, "full", 256));
    assert_eq!((rows[1].scratch_bytes, rows[2].lds_static_bytes), (128, 1024));
    assert_eq!(rows[2].occupancy.as_ref().unwrap().waves, 64.0);
    let text = bench.run_with(["inspect", "two.cubin"], &nowhere).ends_with(0).stdout;
    assert!(
        text.contains("128 bytes of local memory a thread: registers that were spilled, or"),
        "{text}"
    );
}

#[test]
fn a_manifest_of_a_code_object_is_read_with_its_launches() {
    let bench = Bench::new();
    bench.write("scale.hsaco", SCALE);
    let manifest = |entry: &str, threads: u32| {
        let text = format!(
            "format = \"kernel/1\"\nname = \"mine\"\ncode_object = \"scale.hsaco\"\nstage = \"decode\"\n\
             [[launch]]\nentry = \"{entry}\"\nargs = [\"q\", \"out\", \"f32:scale\"]\n\
             grid = [1, 1, 1]\nblock = [{threads}, 1, 1]\nshared_bytes = 30000\n"
        );
        bench.write("mine.toml", text);
        bench.run(["inspect", "mine.toml", "--json", "-"])
    };
    let told = rows(&manifest("scale", 256).ends_with(0));
    let o = told[0].occupancy.as_ref().unwrap();
    assert_eq!((&*told[0].kernel, o.lds_bytes, o.waves, &*o.limit), ("mine", 34096, 1.0, "lds"));
    if let Some(counts) = told[0].counts {
        // By hand from the disassembly.
        let seen = (counts.instructions, counts.loads.b16, counts.stores.b16, counts.matrix);
        assert_eq!((seen, counts.barriers), ((18, 1, 1, 1), 1));
    }
    let fault = rows(&manifest("scale", 512).ends_with(1))[0].fault.clone().unwrap();
    assert!(fault.contains("at most 256"), "{fault}");
    manifest("scael", 256).refuses(&["no kernel `scael` in it; it has scale"]);
}

#[test]
fn wrong_files_are_told_by_name() {
    let bench = Bench::new();
    bench.write("bundle.co", b"__CLANG_OFFLOAD_BUNDLE__\x02\0\0\0\0\0\0\0");
    bench.write("k.ptx", b".version 8.0");
    bench.write("short.hsaco", &SCALE[..900]);
    bench.write("text.hsaco", b"hello");
    bench.write("short.cubin", &CUDA13[..900]);
    for (file, word) in [
        ("bundle.co", "--no-gpu-bundle-output"),
        ("k.ptx", "decided by the driver"),
        ("short.hsaco", "no AMD code object"),
        ("text.hsaco", "no AMD code object"),
        ("short.cubin", "no cubin"),
        ("absent.hsaco", "cannot be read"),
    ] {
        bench.run(["inspect", file]).refuses(&[file, word]);
    }
}

#[test]
fn wrong_requests_are_refused_with_the_mend() {
    let bench = Bench::new();
    let refuses = |args: &[&str], words: &[&str]| {
        bench.run(["inspect"].iter().chain(args)).refuses(words);
    };
    refuses(&["norm", "--arch", "gfx94"], &["no AMD target `gfx94`; did you mean `gfx9"]);
    refuses(&["norm", "--arch", "sm_90x"], &["sm_90x"]);
    refuses(&["norm", "--wave", "32"], &["--wave 32: gfx942 has waves of 64 only"]);
    refuses(&["nrom"], &["no kernel `nrom`; did you mean `norm`?"]);
    refuses(&["norm", "--deny", "worse"], &["add --compare OLD.json"]);
    refuses(&["norm", "--compare", "no.json"], &["--compare no.json: cannot be read"]);
    bench.write("old.json", "{\"format\": \"attnbench-sweep/1\"}");
    refuses(&["norm", "--compare", "old.json"], &["its format is \"attnbench-sweep/1\""]);
    let packages = ["apt-get install clang-19 lld-19"];
    refuses(&["norm", "--compiler", "/nonexistent/clang"], &packages);
    bench
        .run_with(["inspect", "norm"], &[("PATH", OsStr::new("/nonexistent"))])
        .refuses(&["needs clang, and none was found", packages[0]]);
}

#[test]
fn a_source_that_does_not_compile_leaves_the_others_their_figures() {
    let Some(builder) = builder() else { return };
    let bench = Bench::new();
    let good = "__global__ void k(const float *q, const float *, const float *, float *out) { out[0] = q[0]; }";
    let good = plant(&bench, "good", "k", "[64, 1, 1]", good);
    for (name, source, word) in [
        (
            "broken",
            "__global__ void k(float *q) { q[0] = nothing; }",
            "broken.hip:2:38: error: use of undeclared identifier 'nothing'",
        ),
        (
            "noentry",
            "__global__ void other(float *q) {}",
            "entry `k` is not declared in noentry.hip",
        ),
        (
            "undefined",
            "__device__ float far(float); __global__ void k(float *q) { q[0] = far(q[1]); }",
            "it calls `far(float)`, which is nowhere defined",
        ),
    ] {
        let bad = plant(&bench, name, "k", "[64, 1, 1]", source);
        let ran = bench.run(["inspect", &bad, &good, "--json", "-", "--arch", "gfx942,gfx1100"]);
        assert_eq!((ran.code, rows(&ran).len()), (2, 2), "{ran:?}");
        ran.refuses(&[word]);
    }
    if builder.compiler.major() < 20 {
        bench.run(["inspect", &good, "--arch", "gfx950"]).refuses(&["does not build for gfx950"]);
    }
}
