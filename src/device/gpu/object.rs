//! Binaries that a user has compiled: which of their kernels a manifest's entries are.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol, SymbolKind};

use super::super::signature::Signature;
use super::super::{CompileError, Module, ParamKind, Source, cache};
use super::{Api, cubin};

/// Endings of files that are binaries already, and which API loads them.
const ENDINGS: [(&str, Api); 4] =
    [("hsaco", Api::Hip), ("co", Api::Hip), ("cubin", Api::Cuda), ("ptx", Api::Cuda)];

/// The API that loads a file as it is; `None` for a source.
pub fn api_of(file: &Path) -> Option<Api> {
    let ending = file.extension()?.to_str()?;
    ENDINGS.into_iter().find(|(own, _)| *own == ending).map(|(_, api)| api)
}

/// A kernel of a binary.
struct Kernel {
    symbol: String,
    params: Option<Vec<ParamKind>>,
    signature: Signature,
}

/// The module of a file that is a binary already.
pub(super) fn load(source: &Source, api: Api) -> Result<Module, CompileError> {
    let rejected = |why| CompileError::rejected(&source.file, why);
    if api_of(&source.file) != Some(api) {
        let other = if api == Api::Hip { "an NVIDIA GPU" } else { "an AMD GPU" };
        let own = if api == Api::Hip { ".hsaco or .co" } else { ".cubin or .ptx" };
        return Err(rejected(format!("it is for {other}; name a {own} file")));
    }
    let bytes = fs::read(&source.file).map_err(|e| CompileError::reading(&source.file, &e))?;
    let kernels = kernels(&source.file, &bytes).map_err(&rejected)?;
    let mut found = Vec::new();
    for entry in &source.entries {
        let is_it = |kernel: &&Kernel| kernel.symbol == *entry || plain(&kernel.symbol) == *entry;
        match kernels.iter().find(is_it) {
            Some(kernel) => found.push(kernel),
            None => {
                let has: Vec<String> = kernels.iter().map(|k| plain(&k.symbol)).collect();
                let has = has.join(", ");
                return Err(rejected(format!("there is no kernel `{entry}` in it; it has {has}")));
            }
        }
    }
    // Which kernels of it, too: another instance of the manifest has others of the same file.
    let mut hasher = blake3::Hasher::new();
    cache::field(&mut hasher, &bytes);
    found.iter().for_each(|kernel| cache::field(&mut hasher, kernel.symbol.as_bytes()));
    Ok(Module {
        hash: hasher.finalize().to_hex().as_str()[..32].into(),
        file: Arc::new(std::path::absolute(&source.file).unwrap_or(source.file.clone())),
        entries: Arc::new(source.entries.clone()),
        kernels: Arc::new(found.iter().map(|kernel| kernel.symbol.clone()).collect()),
        params: Arc::new(found.iter().map(|kernel| kernel.params.clone()).collect()),
        signatures: Arc::new(found.iter().map(|kernel| kernel.signature.clone()).collect()),
        wave: source.wave,
        log: "".into(),
    })
}

fn kernels(file: &Path, bytes: &[u8]) -> Result<Vec<Kernel>, String> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("cubin") => {
            let kernels = cubin::kernels(bytes).map_err(|e| e.to_string())?;
            let sized = |kernel: cubin::Kernel| Kernel {
                symbol: kernel.name,
                params: Some(kernel.params.iter().map(|p| ParamKind::Sized(p.bytes)).collect()),
                signature: Signature { most_threads: kernel.max_threads, ..Signature::default() },
            };
            Ok(kernels.into_iter().map(sized).collect())
        }
        Some("ptx") => {
            let text = String::from_utf8_lossy(bytes);
            let starts = text.match_indices(".entry ").map(|(at, word)| at + word.len());
            let name = |at: usize| {
                let rest = &text[at..];
                let is_part = |c: char| c.is_alphanumeric() || "_$%".contains(c);
                rest.split_once(|c: char| !is_part(c)).map(|(name, _)| name.to_owned())
            };
            let kernel = |symbol| Kernel { symbol, params: None, signature: Signature::default() };
            Ok(starts.filter_map(name).map(kernel).collect())
        }
        _ => {
            // A kernel of an AMD code object is a function with a descriptor, its name and `.kd`.
            let elf: ElfFile64<'_> = ElfFile64::parse(bytes).map_err(|e| {
                format!("it is no code object ({e}); build it with --no-gpu-bundle-output")
            })?;
            let names = elf.symbols().chain(elf.dynamic_symbols());
            let mut symbols: Vec<String> = names
                .filter(|symbol| symbol.kind() != SymbolKind::Section)
                .filter_map(|symbol| symbol.name().ok()?.strip_suffix(".kd").map(str::to_owned))
                .collect();
            symbols.sort();
            symbols.dedup();
            let kernel = |symbol| Kernel { symbol, params: None, signature: Signature::default() };
            Ok(symbols.into_iter().map(kernel).collect())
        }
    }
}

/// A symbol as a manifest names it: `void k<float>(float*)` is `k<float>`.
pub fn plain(symbol: &str) -> String {
    let whole = addr2line::demangle_auto(symbol.into(), None).into_owned();
    let whole = whole.strip_prefix("void ").unwrap_or(&whole);
    whole.split_once('(').map_or(whole, |(head, _)| head).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(file: &Path, entry: &str) -> Source {
        let entries = vec![entry.to_owned()];
        Source { file: file.into(), include_dirs: vec![], defines: vec![], entries, wave: 32 }
    }

    #[test]
    fn a_ptx_kernel_is_found_by_its_name_and_by_its_expression() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.ptx");
        let text = ".version 8.0\n.visible .entry _Z5scaleIfEvPT_f(\n.param .u64 a)\n{}\n\
                    .visible .entry plain(\n{}\n";
        fs::write(&file, text).unwrap();
        for (entry, symbol) in [("scale<float>", "_Z5scaleIfEvPT_f"), ("plain", "plain")] {
            let module = load(&source(&file, entry), Api::Cuda).unwrap();
            assert_eq!(*module.kernels, [symbol]);
        }
        // Two instances of one file are two modules: a launch names its kernel by number.
        let hash = |entry| load(&source(&file, entry), Api::Cuda).unwrap().hash;
        assert_ne!(hash("plain"), hash("scale<float>"));
        let missing = load(&source(&file, "scale<int>"), Api::Cuda).unwrap_err().to_string();
        assert!(missing.contains("no kernel `scale<int>` in it; it has scale<float>, plain"));
        let other = load(&source(&file, "plain"), Api::Hip).unwrap_err().to_string();
        assert!(other.contains("for an NVIDIA GPU; name a .hsaco or .co file"), "{other}");
        fs::write(dir.path().join("k.co"), "no").unwrap();
        let broken = load(&source(&dir.path().join("k.co"), "plain"), Api::Hip).unwrap_err();
        assert!(broken.to_string().contains("no code object"), "{broken}");
    }
}
