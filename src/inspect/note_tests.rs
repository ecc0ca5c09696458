use super::*;

/// Built by clang 19 from props/inspect/scale.hip.
const SCALE: &[u8] = include_bytes!("../../props/inspect/scale.hsaco");

/// What `llvm-readelf-19 --notes` prints of it, and the size that its symbol table tells.
#[test]
fn a_real_code_object_reads_as_llvm_readelf_reads_it() {
    let object = read(SCALE).unwrap();
    assert_eq!(object.target.id, "gfx942");
    assert!(object.undefined.is_empty());
    let want = Kernel {
        name: "scale".to_owned(),
        vgprs: 12,
        agprs: Some(4),
        sgprs: 14,
        vgpr_spills: 0,
        sgpr_spills: 0,
        scratch_bytes: 0,
        dynamic_stack: false,
        lds_bytes: 4096,
        kernarg_bytes: 20,
        max_threads: 256,
        wave: 64,
        code_bytes: Some(0x70),
    };
    assert_eq!(object.kernels, [want]);
}

/// The file with `from` replaced by as many bytes.
fn changed(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = SCALE.windows(from.len()).position(|w| w == from).expect("the bytes are there");
    let mut bytes = SCALE.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[track_caller]
fn refuses(bytes: &[u8], words: &str) {
    let error = read(bytes).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn no_cut_and_no_changed_byte_brings_it_down() {
    for length in 0..SCALE.len() {
        let _ = read(&SCALE[..length]);
    }
    // Headers come first, sections' own last: without those there is nothing to find.
    for length in [0, 3, 20, 63, SCALE.len() / 2, SCALE.len() - 64] {
        refuses(&SCALE[..length], "it is no AMD code object");
    }
    for at in 0..SCALE.len() {
        let mut bytes = SCALE.to_vec();
        bytes[at] ^= 0xff;
        let _ = read(&bytes);
    }
}

#[test]
fn what_is_no_code_object_is_told_apart() {
    refuses(b"__CLANG_OFFLOAD_BUNDLE__\x02\0\0\0", "an offload bundle");
    refuses(b"CCOB\x02\0\0\0", "--no-gpu-bundle-output");
    refuses(b"", "no AMD code object");
    let mut other = SCALE.to_vec();
    other[18] = 62;
    refuses(&other, "its machine is 62, AMD's is 224");
    let mut unknown = SCALE.to_vec();
    unknown[48] = 0xfe;
    refuses(&unknown, "e_flags 0x5fe name no processor known here");
}

#[test]
fn a_note_that_is_absent_or_broken_is_told() {
    refuses(&changed(b"AMDGPU\0", b"AMDGPX\0"), "no AMDGPU metadata note");
    refuses(&changed(b"amdhsa.kernels", b"amdhsa.kernelz"), "there is no `amdhsa.kernels`");
    refuses(&changed(b".vgpr_count", b".vgpr_xount"), "scale has no `.vgpr_count`");
    // Values of other types in place of the numbers 12 and 14, and of a list of one.
    refuses(&changed(b".vgpr_count\x0c", b".vgpr_count\xc0"), "`.vgpr_count` of scale is nil");
    refuses(&changed(b".sgpr_count\x0e", b".sgpr_count\xff"), "`.sgpr_count` of scale is -1");
    refuses(&changed(b"amdhsa.kernels\x91", b"amdhsa.kernels\x01"), "`amdhsa.kernels` is no list");
}

#[test]
fn the_symbol_stands_in_for_an_absent_name() {
    let object = read(&changed(b".name\xa5scale", b".nome\xa5scale")).unwrap();
    assert_eq!(object.kernels[0].name, "scale");
}
