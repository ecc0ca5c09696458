//! Compiling: messages that a user can act on, and a cache that is never stale.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::{Arg, CompileError, Device, RunError};

use super::{compile, config, device, launch, run_words, write};

const TEN: &str = r#"
#include "value.h"
extern "C" __global__ void put(unsigned* out) { out[threadIdx.x] = VALUE; }
"#;

#[test]
fn a_compile_error_names_the_users_file_and_line() {
    let device = device();
    let text = "#include <hip/hip_runtime.h>\n__global__ void k(int* p) {\n  *p = missing;\n}\n";
    let written = write(text, &["k"], 64);
    match device.compile(&written.source) {
        Err(CompileError::Rejected { first, all, .. }) => {
            let file = written.source.file.display();
            assert!(first.starts_with(&format!("{file}:3:8: error: ")), "{first}");
            assert!(first.contains("missing") && all.contains(&first), "{first}\n{all}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_entry_is_named() {
    let device = device();
    let text = "namespace n { __global__ void k(int* p) { *p = 1; } }\n";
    for entry in ["foo", "n::foo", "n::foo<int, 3>", "m::k"] {
        match device.compile(&write(text, &["n::k", entry], 64).source) {
            Err(CompileError::Rejected { first, .. }) => {
                let told = format!("entry `{entry}` is not declared in attention.hip");
                assert!(first.starts_with(&told) && first.contains("n::k"), "{first}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_function_without_a_body_and_a_missing_file_are_errors() {
    let device = device();
    let text = "__device__ int lost(int);\n__global__ void k(int* p) { *p = lost(*p); }\n";
    match device.compile(&write(text, &["k"], 64).source) {
        Err(CompileError::Rejected { first, .. }) => assert!(first.contains("lost"), "{first}"),
        other => panic!("{other:?}"),
    }
    let mut written = write(text, &["k"], 64);
    written.source.file = PathBuf::from("/nonexistent/k.hip");
    let error = device.compile(&written.source).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/k.hip"), "{error}");
}

#[test]
fn a_compiler_that_is_not_there_is_an_error_and_not_another_compiler() {
    let config = CpuConfig::from_vars(|name| {
        (name == "ATTNBENCH_CXX").then(|| "/nonexistent/compiler".into())
    });
    match CpuDevice::new(config) {
        Err(CompileError::NoCompiler(why)) => {
            assert!(why.contains("/nonexistent/compiler") && why.contains("install"), "{why}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(device) => panic!("{}", device.describe()),
    }
}

#[test]
fn a_program_that_is_no_worker_is_told_so() {
    let mut config = config();
    config.worker_program = PathBuf::from("/bin/true");
    let mut device = CpuDevice::new(config).unwrap();
    device.arena(64).unwrap();
    let written = write(TEN, &["put"], 32);
    fs::write(written.source.file.with_file_name("value.h"), "#define VALUE 1\n").unwrap();
    let module = device.compile(&written.source).unwrap();
    let run = run_words(&mut device, launch(&module, 0, 1, 1, &[Arg::Address(0)]), 0, &[0]);
    match run {
        Err(RunError::Device(why)) => assert!(why.contains("ATTNBENCH_WORKER"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unwritable_cache_names_the_path_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    // A file where a folder is needed: root may write anywhere else.
    let file = dir.path().join("cache");
    fs::write(&file, "").unwrap();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let is_root = fs::write(closed.join("probe"), "").is_ok();
    for cache_dir in [Some(file), (!is_root).then_some(closed)].into_iter().flatten() {
        let mut config = config();
        config.cache_dir = cache_dir.clone();
        let device = CpuDevice::new(config).unwrap();
        match device.compile(&write("__global__ void k() {}", &["k"], 64).source) {
            Err(error @ CompileError::Io { .. }) => {
                let text = error.to_string();
                let path = cache_dir.to_string_lossy();
                assert!(text.contains(&*path) && text.contains("ATTNBENCH_CACHE"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn threads_that_compile_the_same_thing_agree() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.cache_dir = dir.path().to_owned();
    let device = CpuDevice::new(config).unwrap();
    let written = write("__global__ void k(int* p) { *p = 7; }", &["k"], 64);
    let hashes: Vec<String> = std::thread::scope(|scope| {
        let one = || {
            let mut device = device.sibling();
            let source = &written.source;
            move || {
                let module = device.compile(source).unwrap();
                let launch = launch(&module, 0, 1, 1, &[Arg::Address(0)]);
                assert_eq!(run_words(&mut device, launch, 0, &[0]).unwrap(), [7]);
                module.hash.to_string()
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    // One binary, its description and its lock; nothing half-made is left.
    let folder = dir.path().join(&hashes[0][..2]);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 3);
}

#[test]
fn a_change_in_an_included_file_or_a_define_is_a_new_binary() {
    let mut device = device();
    let mut written = write(TEN, &["put"], 32);
    let header = written.source.file.with_file_name("value.h");
    let mut value = |source: &_, header_text: &str| {
        fs::write(&header, header_text).unwrap();
        let module = device.compile(source).unwrap();
        let launch = launch(&module, 0, 1, 1, &[Arg::Address(0)]);
        (run_words(&mut device, launch, 0, &[0]).unwrap()[0], module.hash)
    };
    let (first, hash) = value(&written.source, "#define VALUE 10\n");
    assert_eq!(first, 10);
    assert_eq!(value(&written.source, "#define VALUE 20\n").0, 20);
    let again = value(&written.source, "#define VALUE 10\n");
    assert_eq!(again, (10, hash), "the same files are the same binary");
    written.source.defines = vec![("A".to_owned(), "30".to_owned())];
    assert_eq!(value(&written.source, "#define VALUE A\n").0, 30);
    written.source.defines = vec![("A".to_owned(), "40".to_owned())];
    assert_eq!(value(&written.source, "#define VALUE A\n").0, 40);
}

#[test]
fn an_include_named_by_a_macro_is_followed() {
    let mut device = device();
    let text = TEN.replace("\"value.h\"", "CONFIG");
    let mut written = write(&text, &["put"], 32);
    written.source.defines = vec![("CONFIG".to_owned(), "\"value.h\"".to_owned())];
    for value in [11, 12] {
        let header = written.source.file.with_file_name("value.h");
        fs::write(header, format!("#define VALUE {value}\n")).unwrap();
        let module = device.compile(&written.source).unwrap();
        let launch = launch(&module, 0, 1, 1, &[Arg::Address(0)]);
        assert_eq!(run_words(&mut device, launch, 0, &[0]).unwrap(), [value]);
    }
}

#[test]
fn a_damaged_cache_entry_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.cache_dir = dir.path().to_owned();
    let mut device = CpuDevice::new(config).unwrap();
    let text = "__global__ void k(int* p) { *p = 7; }";
    let written = write(text, &["k"], 64);
    let module = device.compile(&written.source).unwrap();
    fs::remove_file(&*module.file).unwrap();
    let run = launch(&module, 0, 1, 1, &[Arg::Address(0)]);
    let error = run_words(&mut device, run.clone(), 0, &[0]).unwrap_err().to_string();
    assert!(error.contains("no longer in the compile cache"), "{error}");
    device.compile(&written.source).unwrap();
    assert_eq!(run_words(&mut device, run.clone(), 0, &[0]).unwrap(), [7]);
    fs::write(module.file.with_extension("json"), "{").unwrap();
    let again = device.compile(&written.source).unwrap();
    assert_eq!(again.hash, module.hash);
    assert_eq!(*compile(&device, text, &["k"], 32).entries, ["k"]);
}
