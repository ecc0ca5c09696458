use super::*;

/// Both from props/inspect/two.cu, by NVRTC 12.9 and 13.5 (props/inspect/README.md).
const CUDA12: &[u8] = include_bytes!("../../../props/inspect/cuda12_sm80.cubin");
const CUDA13: &[u8] = include_bytes!("../../../props/inspect/cuda13_sm90.cubin");

/// Of the source: 256 floats of shared memory, bounds of 256 threads, two pointers, an int and a double;
/// an array of 32 ints that is indexed by what is read. Registers and code bytes are those that `readelf
/// -x .nv.info` and `readelf -s` show.
#[test]
fn real_cubins_of_both_versions() {
    for (bytes, sm, registers, code) in
        [(CUDA12, 80, [8, 9], [640, 512]), (CUDA13, 90, [10, 10], [640, 640])]
    {
        let cubin = read(bytes).unwrap();
        assert_eq!(cubin.sm, sm);
        let [frame, scale] = &cubin.kernels[..] else { panic!("{cubin:?}") };
        assert_eq!((frame.name.as_str(), scale.name.as_str()), ("frame", "scale"));
        assert_eq!([frame.code_bytes, scale.code_bytes], code);
        assert_eq!([frame.registers, scale.registers], registers);
        assert_eq!((frame.shared_bytes, scale.shared_bytes), (0, 1024));
        assert_eq!((frame.frame_bytes, frame.stack_bytes, scale.frame_bytes), (128, 128, 0));
        assert_eq!((frame.max_threads, scale.max_threads), (None, Some(256)));
        let param = |offset, bytes| Param { offset, bytes };
        assert_eq!(frame.params, [param(0, 8), param(8, 8), param(16, 4)]);
        assert_eq!(scale.params, [param(0, 8), param(8, 8), param(16, 4), param(24, 8)]);
        assert_eq!((frame.param_bytes, scale.param_bytes), (20, 32));
    }
    assert!(is_cubin(CUDA13) && !is_cubin(b"\x7fELF") && !is_cubin(b""));
}

#[test]
fn no_cut_and_no_changed_byte_brings_it_down() {
    for bytes in [CUDA12, CUDA13] {
        for length in 0..bytes.len() {
            let _ = read(&bytes[..length]);
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0xff;
            let _ = read(&changed);
        }
    }
}

#[test]
fn broken_cubins_say_what_is_wrong() {
    let refuses = |change: &dyn Fn(&mut Vec<u8>), words: &str| {
        let mut bytes = CUDA13.to_vec();
        change(&mut bytes);
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refuses(&|b| b.truncate(30), "it is no cubin");
    refuses(&|b| b[18] = 224, "its machine is 224, that of a cubin is 190");
    refuses(&|b| b[8] = 9, "its ELF ABI version is 9, known are 7 (CUDA 12) and 8 (CUDA 13)");
    // The first attribute of .nv.info, a register count.
    let info = b"\x04\x2f\x08\x00";
    let at = CUDA13.windows(4).position(|w| w == info).unwrap();
    refuses(&|b| b[at] = 9, "section .nv.info is broken: an attribute has a format");
    refuses(&|b| b[at + 3] = 0x7f, "an attribute's data are cut short");
    refuses(&|b| b[at + 1] = 0x7f, "a kernel has no register count");
}
