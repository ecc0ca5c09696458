use super::*;

/// Written by hand: each kind of access in the spelling of each generation.
const SNIPPET: &str = "
\t.text
\t.globl\tk                               ; -- Begin function k
k:                                      ; @k
; %bb.0:
\t.loc\t1 4 10 prologue_end             ; ./k.hip:4:10
\ts_load_dwordx4 s[8:11], s[2:3], 0x0
\ts_waitcnt lgkmcnt(0)
\tglobal_load_dwordx4 v[0:3], v6, s[4:5]
\tglobal_load_b128 v[0:3], v6, s[4:5]
\tbuffer_load_dwordx4 v[0:3], v6, s[4:7], 0 offen
\tflat_load_dwordx3 v[0:2], v[4:5]
\tglobal_load_b96 v[0:2], v6, s[4:5]
\tglobal_load_dwordx2 v[0:1], v6, s[4:5]
\tglobal_load_b64 v[0:1], v6, s[4:5]
\tglobal_load_dword v0, v6, s[4:5]
\tglobal_load_lds_dword v[0:1], off
\tglobal_load_b32 v0, v6, s[4:5]
\tbuffer_load_format_xy v[0:1], off, s[4:7], 0
\tglobal_load_ushort v0, v6, s[4:5]
\tglobal_load_d16_u8 v0, v6, s[4:5]
\tglobal_load_d16_hi_b16 v0, v6, s[4:5]
\tglobal_load_short_d16 v0, v6, s[4:5]
\tglobal_load_ubyte v0, v6, s[4:5]
\tglobal_store_dwordx2 v6, v[0:1], s[4:5]
\tglobal_store_b8 v6, v0, s[4:5]
\tglobal_atomic_add_f32 v6, v0, s[4:5]
\tbuffer_store_dword v40, off, s[0:3], s33 offset:4 ; 4-byte Folded Spill
\tscratch_load_b32 v40, off, s33
\ts_mov_b64 s[98:99], s[2:3]
\ts_mov_b64 s[96:97], s[0:1]
\tbuffer_load_dword v40, off, s[96:99], 0 offset:8
.LBB0_2:                                ; =>This Inner Loop
\tds_read_b128 v[0:3], v7
\tds_bpermute_b32 v0, v1, v2
\tv_mfma_f32_16x16x16_f16 a[0:3], v[4:5], v[4:5], a[0:3]
\tv_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]
\tv_swmmac_f32_16x16x32_f16 v[0:7], v[8:15], v[16:23], v24
\ts_barrier
\ts_barrier_signal -1
\ts_barrier_wait 0xffff
\ts_wait_loadcnt 0x0
\ts_swappc_b64 s[30:31], s[16:17]
\ts_endpgm
.Ltmp0:
\t.section\t.rodata,\"a\",@progbits
\t.amdhsa_kernel k
\t\t.amdhsa_next_free_vgpr 12
\t.end_amdhsa_kernel
.Lfunc_end0:
\t.size\tk, .Lfunc_end0-k
                                        ; -- End function
; Occupancy: 8
\t.globl\tother                           ; -- Begin function other
other:
\ts_endpgm
.Lfunc_end1:
; Occupancy: 7
attnbench_entry_0:
\t.quad\tother
\t.size\tattnbench_entry_0, 8
attnbench_entry_1:
\t.quad\tk
";

#[test]
fn every_spelling_is_counted_once() {
    let functions = functions(SNIPPET);
    let [k, other] = &functions[..] else { panic!("{functions:?}") };
    assert_eq!(
        (k.name, k.occupancy, other.name, other.occupancy),
        ("k", Some(8), "other", Some(7))
    );
    let want = Counts {
        instructions: 37,
        loads: Widths { b16: 3, b12: 2, b8: 3, b4: 3, less: 5 },
        stores: Widths { b8: 1, less: 1, ..Widths::default() },
        scalar_loads: 1,
        scratch: 3,
        lds: 1,
        matrix: 3,
        barriers: 2,
        waits: 2,
        calls: 1,
    };
    assert_eq!(count(&k.lines), want);
    assert_eq!(count(&other.lines).instructions, 1);
    assert_eq!(entry_symbol(SNIPPET, 0), Some("other"));
    assert_eq!(entry_symbol(SNIPPET, 1), Some("k"));
    assert_eq!(entry_symbol(SNIPPET, 2), None);
}

/// As `llvm-objdump-19 -d --no-show-raw-insn --no-leading-addr` writes it.
#[test]
fn a_disassembly_ends_before_its_padding() {
    let text = "\nscale.hsaco:\tfile format elf64-amdgpu\n\nDisassembly of section .text:\n\n<scale>:\n\
        \ts_load_dwordx4 s[4:7], s[0:1], 0x0          // 000000001600: C00A0100 00000000\n\
        \ts_nop 6                                     // 000000001660: BF800006\n\
        \tglobal_store_dwordx4 v6, a[0:3], s[6:7]     // 000000001664: DC7C8000 00860006\n\
        \ts_endpgm                                    // 00000000166C: BF810000\n\
        \ts_nop 0                                     // 000000001670: BF800000\n\
        \ts_code_end                                  // 000000001674: BF9F0000\n\n\
        0000000000001700 <next>:\n\ts_endpgm\n";
    let functions = disassembled(text);
    let [scale, next] = &functions[..] else { panic!("{functions:?}") };
    assert_eq!((scale.name, next.name), ("scale", "next"));
    let counts = count(&scale.lines);
    assert_eq!((counts.instructions, counts.stores.b16, counts.scalar_loads), (4, 1, 1));
}
