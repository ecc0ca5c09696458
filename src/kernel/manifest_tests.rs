use super::*;
use crate::kernel::{Denormals, Promise, Range, ScalarType, ScratchType};
use crate::problem::{DType, DTypes};
use std::collections::BTreeSet;

/// The example of the format, word for word.
const EXAMPLE: &str = r#"
format = "kernel/1"
name = "flash-decode"
source = "attention.hip"              # relative to this file; or code_object = "attention.hsaco" (.hsaco, .co, .cubin, .ptx)
stage = "decode"                      # one of the stages below
include_dirs = ["include"]            # relative to this file
defines = { TILE = 32, T = "{kv}" }   # strings are literal text with {…} substituted, "={tile * 2}" is an expression

[params]                              # tunables; one value is drawn a case, every value at least once
splits = [1, 2, 4, 8]

[scratch]
partial = "f32: batch * num_heads * splits * (head_dim + 2)"

[[launch]]
entry = "flash_decode"
args = ["q", "k", "v", "partial", "u32:num_heads", "u32:num_kv_heads", "u32:seq_len", "u32:capacity", "u32:head_dim", "f32:scale"]
grid = ["num_heads", "splits", "batch"]
block = ["max(64, head_dim)", "1", "1"]
shared_bytes = "4 * head_dim"

[layout]
k = ["HND"]
v = ["HND", "HDN"]

[supports]
dtype = [{ q = "f32", kv = "f32", out = "f32" }]
head_dim = { max = 128, multiple_of = 4 }      # min, max, multiple_of, one_of
group = { max = 16 }
seq_len = { min = 1 }
batch = { max = 1 }
align = 4
padding = false
window = false
softcap = false
sinks = false

[numerics]
accumulate = "f32"
probs = "f32"
exp_ulp = 2
bitwise = ["repeat"]
"#;

const SMALL: &str = r#"format = "kernel/1"
name = "small"
source = "small.hip"
stage = "decode"
[[launch]]
entry = "small"
args = ["q", "k", "v", "out", "lse", "u32:seq_len"]
grid = ["num_heads", 1, "batch"]
block = [64, 1, 1]
"#;

fn parse(text: &str) -> Result<Manifest> {
    Manifest::parse(text, Path::new("kernels/small.toml"))
}

#[test]
fn the_example_of_the_format_means_what_it_says() {
    let m = Manifest::parse(EXAMPLE, Path::new("kernels/flash.toml")).unwrap();
    assert_eq!((m.name.as_str(), m.stage), ("flash-decode", Stage::Decode));
    assert_eq!(m.code, Code::Source("kernels/attention.hip".into()));
    assert_eq!(m.include_dirs, [PathBuf::from("kernels/include")]);
    let defines: Vec<_> = m.defines.iter().map(|d| (d.name.as_str(), d.text.to_string())).collect();
    assert_eq!(defines, [("TILE", "32".to_owned()), ("T", "{kv}".to_owned())]);
    assert_eq!(m.params, [Param { name: "splits".into(), values: vec![1, 2, 4, 8] }]);
    let [scratch] = &m.scratch[..] else { panic!("{:?}", m.scratch) };
    assert_eq!((scratch.name.as_str(), scratch.dtype), ("partial", ScratchType::F32));
    assert_eq!(scratch.elements.text(), "batch * num_heads * splits * (head_dim + 2)");

    let launch = &m.launches[0];
    assert_eq!(launch.entry, Template::literal("flash_decode"));
    let scalar = |ty, text| ArgSpec::Scalar { ty, expr: Expr::parse(text).unwrap() };
    let u32s = ["num_heads", "num_kv_heads", "seq_len", "capacity", "head_dim"];
    let mut args = [Pointer::Q, Pointer::K, Pointer::V].map(ArgSpec::Pointer).to_vec();
    args.push(ArgSpec::Scratch(0));
    args.extend(u32s.map(|text| scalar(ScalarType::U32, text)));
    args.push(scalar(ScalarType::F32, "scale"));
    assert_eq!(launch.args, args);
    let texts = |exprs: &[Expr; 3]| exprs.each_ref().map(|e| e.text().to_owned());
    assert_eq!(texts(&launch.grid), ["num_heads", "splits", "batch"]);
    assert_eq!(texts(&launch.block), ["max(64, head_dim)", "1", "1"]);
    assert_eq!(launch.shared_bytes.text(), "4 * head_dim");
    assert_eq!((m.launches.len(), launch.line), (1, 15));

    let strings = |list: &[crate::problem::Layout]| list.iter().map(|l| l.to_string()).collect();
    let (k, v): (Vec<String>, Vec<String>) = (strings(&m.layouts.k), strings(&m.layouts.v));
    assert_eq!((k, v), (vec!["HND".into()], vec!["HND".into(), "HDN".into()]));
    let range = |max| Range { max, ..Range::default() };
    assert_eq!(
        m.supports,
        Supports {
            dtypes: vec![DTypes::uniform(DType::F32)],
            head_dim: Range { min: 1, max: Some(128), multiple_of: 4, one_of: None },
            head_dim_v: None,
            group: range(Some(16)),
            seq_len: range(None),
            batch: range(Some(1)),
            align: Some(4),
            padding: false,
            window: false,
            softcap: false,
            sinks: false,
            hidden: Range::default(),
            rope: Vec::new(),
        }
    );
    assert_eq!(m.numerics, Numerics::default());
    // It shows the keys, and is no whole kernel: nothing among its arguments is a result.
    let message = m.judged().unwrap_err().to_string();
    let want = "kernels/flash.toml:15: `launch` = [[launch]]: no launch writes the result of stage \
                `decode`; pass \"out\" among the `args`";
    assert_eq!(message, want);
    assert_eq!(m.default_params(), BTreeMap::from([("splits".to_owned(), 1)]));
}

#[test]
fn defaults() {
    let m = parse(SMALL).unwrap();
    assert!(m.include_dirs.is_empty() && m.defines.is_empty());
    assert!(m.params.is_empty() && m.scratch.is_empty());
    assert_eq!(m.launches[0].shared_bytes, Expr::constant(0));
    assert_eq!(m.supports, Supports::default());
    assert_eq!(m.supports.dtypes, [DTypes::uniform(DType::F32)]);
    assert_eq!((m.supports.seq_len.min, m.supports.seq_len.max), (1, None));
    assert_eq!((m.supports.align, m.supports.padding), (None, false));
    assert_eq!(m.layouts, Layouts::default());
    assert_eq!((m.layouts.k[0].as_str(), m.layouts.v.len()), ("HND", 1));
    let n = m.numerics;
    assert_eq!((n.accumulate, n.probs), (DType::F32, Some(DType::F32)));
    assert_eq!((n.exp_ulp, n.exp_arg_ulp, n.tanh_ulp), (2.0, 1.0, 4.0));
    assert_eq!((n.denormals, n.bitwise), (Denormals::Keep, BTreeSet::from([Promise::Repeat])));
}

#[test]
fn everything_that_can_be_set() {
    let text = SMALL.replace("small.hip\"", "small.hsaco\"").replace("source", "code_object")
        + r#"[layout]
k = ["row", "PHDTd", "SNHD"]
v = ["col", "PHTDt", "LHND"]
[supports]
dtype = [{ q = "f16", kv = "f8_e4m3", out = "f32" }, { q = "bf16", kv = "bf16", out = "bf16" }]
head_dim = { one_of = [128, 64] }
head_dim_v = { max = 64 }
seq_len = { min = 0, max = 4_096 }
align = 16
padding = true
window = true
softcap = true
sinks = true
[numerics]
accumulate = "f16"
probs = "bf16"
exp_ulp = 1.5
exp_arg_ulp = 3
tanh_ulp = 8
denormals = "flush"
bitwise = []
"#;
    let m = parse(&text).unwrap();
    assert_eq!(m.code, Code::Object("kernels/small.hsaco".into()));
    assert_eq!(
        format!("{:?} {:?}", m.layouts.k, m.layouts.v),
        "[HND, PHDTd, SNHD] [HDN, PHTDt, LHND]"
    );
    let s = m.supports;
    assert_eq!(s.dtypes[0].to_string(), "f16/f8_e4m3/f32");
    assert_eq!(s.head_dim.one_of, Some(vec![64, 128]));
    assert_eq!(s.head_dim_v.unwrap().max, Some(64));
    assert_eq!((s.seq_len.min, s.seq_len.max, s.align), (0, Some(4096), Some(16)));
    assert!(s.padding && s.window && s.softcap && s.sinks);
    let n = m.numerics;
    assert_eq!((n.accumulate, n.probs), (DType::F16, Some(DType::BF16)));
    assert_eq!((n.exp_ulp, n.exp_arg_ulp, n.tanh_ulp), (1.5, 3.0, 8.0));
    assert_eq!((n.denormals, n.bitwise.len()), (Denormals::Flush, 0));
}

/// P may be held in the type that V has.
#[test]
fn probs_may_be_of_the_type_of_v() {
    let with = |probs: &str| parse(&format!("{SMALL}[numerics]\nprobs = \"{probs}\"\n"));
    let n = with("kv").unwrap().numerics;
    assert_eq!((n.probs, n.probs_with(DType::BF16)), (None, DType::BF16));
    assert_eq!(with("f16").unwrap().numerics.probs_with(DType::BF16), DType::F16);
    let refused = with("v").unwrap_err().to_string();
    assert!(refused.contains("\"f32\", \"f16\", \"bf16\" or \"kv\", the type of V"), "{refused}");
}

/// Scratch may be zeros that are left as zeros.
#[test]
fn scratch_may_be_zeroed() {
    let of = |text: &str| {
        let m = parse(&format!("{SMALL}[scratch]\ntmp = \"{text}\"\n")).unwrap();
        let scratch = &m.scratch[0];
        (scratch.zeroed, scratch.dtype, scratch.elements.text().to_owned())
    };
    assert_eq!(of("zeroed u32: 4"), (true, ScratchType::U32, "4".to_owned()));
    assert_eq!(of(" zeroed  f32 : batch * 2"), (true, ScratchType::F32, "batch * 2".to_owned()));
    assert_eq!(of("u32: 4"), (false, ScratchType::U32, "4".to_owned()));
    let m = parse(&format!("{SMALL}[scratch]\ntmp = \"zeroed u32: batch\"\n")).unwrap();
    let case: Case = "b=3,hq=1,hkv=1,d=4,n=3".parse().unwrap();
    let env = crate::kernel::Env::new(&case, &case.placements().unwrap());
    let sizes = m.scratch_sizes(&env).unwrap();
    assert_eq!((sizes[0].zeroed, sizes[0].elements, sizes[0].bytes()), (true, 3, 12));
}

/// `small` with a rule of two steps for three of four tunables.
const RULED: &str = r#"[params]
splits = [1, 2]
waves = [4, 8]
depth = [1, 2]
room = [48]
[rule]
rows = "batch * num_kv_heads"
slots = "units * 2"
splits = "max(1, slots / rows)"
waves = "if_le(splits, 2, 8, 4)"
room = "min(shared_kib, 64)"
[[launch]]"#;

fn ruled() -> Manifest {
    parse(&SMALL.replacen("[[launch]]", RULED, 1)).unwrap()
}

/// What a rule makes of a case, by hand; a tunable without a rule has its first value.
#[test]
fn a_rule_gives_tunables() {
    let tuned = |id: &str, units: u32, shared: u32| {
        let mut case: Case = id.parse().unwrap();
        let places = case.placements().unwrap();
        ruled().tune(&mut case, &places, units, shared).unwrap();
        let value = |name: &str| case.params[name];
        assert_eq!(case.params.len(), 4, "steps are no tunables: {:?}", case.params);
        ["splits", "waves", "depth", "room"].map(value)
    };
    // rows 2, slots 20: 10 parts, so 4 waves; of 99 KiB 64.
    let case = "b=1,hq=4,hkv=2,d=8,n=5";
    assert_eq!(tuned(case, 10, 99 << 10), [10, 4, 1, 64]);
    // rows 16, slots 20.
    assert_eq!(tuned("b=8,hq=4,hkv=2,d=8,n=5", 10, 48 << 10), [1, 8, 1, 48]);
    // rows 2, slots 4; bytes are KiB rounded down.
    assert_eq!(tuned(case, 2, (50 << 10) - 1), [2, 8, 1, 49]);
    // What the case says is kept, and rules behind it see that.
    assert_eq!(tuned(&format!("{case},p.splits=1"), 10, 99 << 10), [1, 8, 1, 64]);
    assert_eq!(tuned(&format!("{case},p.waves=7,p.depth=2"), 10, 99 << 10), [10, 7, 2, 64]);
    // A sweep has the first values, whatever the rule says.
    assert_eq!(ruled().default_params()["splits"], 1);
}

/// A value that no tunable can have, or none at all, is an error with the variables that led there.
#[test]
fn a_rule_out_of_range_is_an_error() {
    let fails = |rule: &str, words: &[&str]| {
        let text = SMALL.replacen(
            "[[launch]]",
            &format!("[params]\nwaves = [4]\n[rule]\n{rule}\n[[launch]]"),
            1,
        );
        let mut case: Case = "b=2,hq=4,hkv=2,d=8,n=5".parse().unwrap();
        let places = case.placements().unwrap();
        let message =
            parse(&text).unwrap().tune(&mut case, &places, 132, 227 << 10).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "no `{word}` in: {message}");
        }
        // What the case says is not asked of the rule.
        case.params.insert("waves".to_owned(), 4);
        assert_eq!(
            parse(&text).unwrap().tune(&mut case, &places, 132, 227 << 10).is_ok(),
            !rule.contains("step")
        );
    };
    let limit = "but it must be between 1 and 65535";
    fails("waves = \"batch - 2\"", &["small: rule.waves", "is 0 (with batch = 2)", limit]);
    fails("waves = \"-units\"", &["is -132 (with units = 132)", limit]);
    fails("waves = \"units * 1000\"", &["is 132000 (with units = 132)", limit]);
    fails("waves = \"units / 2.0\"", &["`rule.waves` takes integers, got the float 66"]);
    fails("waves = \"units / (batch - 2)\"", &["small: rule.waves", "divides by zero"]);
    // Also of a step.
    fails("step = \"1 / (batch - 2)\"\nwaves = \"step\"", &["small: rule.step", "divides by zero"]);
}

/// A rule may say more values than the list has, of its own tunable alone.
#[test]
fn what_a_rule_may_say_is_supported() {
    let supports = |change: &[(&str, i64)]| {
        let mut case: Case =
            "b=1,hq=1,hkv=1,d=4,n=3,p.splits=1,p.waves=4,p.depth=1,p.room=48".parse().unwrap();
        case.params.extend(change.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        ruled().supports(&case).map_err(|e| e.to_string())
    };
    assert_eq!(supports(&[]), Ok(()));
    assert_eq!(supports(&[("splits", 77), ("waves", 3), ("room", 1)]), Ok(()));
    assert_eq!(supports(&[("splits", 65_535)]), Ok(()));
    for (change, words) in [
        (("depth", 3), "parameter depth = 3 (supports 1, 2)"),
        (("splits", 0), "parameter splits = 0 (supports 1, 2)"),
        (("splits", 65_536), "parameter splits = 65536"),
        (("rows", 2), "parameter rows = 2 (supports no such parameter)"),
    ] {
        let refused = supports(&[change]).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}

/// The rule of `decode_fast` on an H100: what was measured to be best there.
#[test]
fn decode_fast_is_tuned_by_hand() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/decode_fast.toml");
    let fast = Manifest::load(&file).unwrap();
    for (name, splits, waves, depth, early, stretches) in [
        ("llama8b_b1_8k", 16, 8, 1, 2, 2),
        ("llama8b_b64_4k", 1, 2, 1, 5, 1),
        ("llama8b_b256_1k", 1, 8, 2, 1, 1),
        ("mha_b8_4k", 1, 4, 1, 5, 1),
        ("smollm2_b64_2k", 1, 8, 1, 5, 1),
        ("llama8b_b1_512", 8, 4, 1, 1, 2),
        ("llama8b_b1_206", 1, 8, 2, 1, 1),
        ("gqa16_b16_8k", 2, 8, 1, 5, 2),
    ] {
        let mut case = crate::bench::shapes::parse(name).unwrap().remove(0).case;
        let places = case.placements().unwrap();
        fast.tune(&mut case, &places, 132, 227 << 10).unwrap();
        let want = [
            ("splits", splits),
            ("waves", waves),
            ("depth", depth),
            ("room", 80),
            ("early", early),
            ("stretches", stretches),
        ];
        let want: BTreeMap<String, i64> = want.map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(case.params, want, "{name}");
        case.k = crate::problem::Storage::contiguous("NHD".parse().unwrap());
        case.v = case.k.clone();
        fast.supports(&case).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn a_manifest_of_every_stage() {
    for (stage, args) in [
        ("decode", r#""q", "lse", "out""#),
        ("scores", r#""q", "k", "scores", "f32:scale""#),
        ("softmax", r#""scores", "probs", "lse""#),
        ("pv", r#""probs", "v", "out""#),
        ("prefill", r#""q", "k", "v", "out", "u64:q_stride_n""#),
        ("append", r#""new_k", "k", "pos""#),
        ("append", r#""new_k", "new_v", "k", "v", "u32:pos""#),
        ("merge", r#""partial_out", "partial_lse", "out", "u32:splits""#),
        ("head_combine", r#""x", "w_o", "out", "u32:hidden""#),
        ("norm", r#""residual", "x", "weight", "out", "f32:eps""#),
    ] {
        let text = SMALL
            .replace("\"decode\"", &format!("\"{stage}\""))
            .replace(r#""q", "k", "v", "out", "lse", "u32:seq_len""#, args)
            + "[params]\nsplits = [1]\n";
        let m = parse(&text).unwrap();
        assert_eq!(m.stage.name(), stage);
        assert!(!m.judged().unwrap().is_empty());
    }
}

#[test]
fn what_is_judged() {
    let judged = |stage: &str, args: &str| {
        let text = SMALL
            .replace("\"decode\"", &format!("\"{stage}\""))
            .replace(r#""q", "k", "v", "out", "lse", "u32:seq_len""#, args);
        parse(&text).unwrap().judged()
    };
    assert_eq!(judged("decode", r#""out", "lse""#), Ok(vec![Pointer::Out, Pointer::Lse]));
    assert_eq!(judged("append", r#""new_v", "v""#), Ok(vec![Pointer::V]));
    for (stage, args, mend) in [
        ("decode", r#""q", "lse""#, "small.toml:5: `launch` = [[launch]]: no launch writes"),
        ("decode", r#""q""#, "stage `decode`; pass \"out\" among"),
        ("append", r#""new_v""#, "stage `append`; pass \"k\" or \"v\" among"),
        ("norm", r#""residual""#, "stage `norm`; pass \"out\" among"),
    ] {
        let message = judged(stage, args).unwrap_err().to_string();
        assert!(message.contains(mend), "{message}");
    }
}

/// What the format has and this program does not drive is refused by its name, never as a mistake.
#[test]
fn keys_that_are_not_driven_yet_are_refused_by_name() {
    let small = |tail: &str| {
        let text = format!(
            "format = \"kernel/1\"\nname = \"small\"\nsource = \"small.hip\"\nstage = \"decode\"\n\
             [[launch]]\nentry = \"small\"\nargs = [\"q\", \"out\"]\ngrid = [1, 1, 1]\n\
             block = [64, 1, 1]\n{tail}\n"
        );
        Manifest::parse(&text, Path::new("small.toml")).map_err(|e| e.to_string())
    };
    for (tail, name) in [
        ("[pages]\ntable = \"rect\"", "`[pages]`"),
        ("[scales]\nk = \"H\"", "`[scales]`"),
        ("[mla]\nlatent = 512", "`[mla]`"),
        ("[types]\nf16 = \"uint16_t\"", "`[types]`"),
        ("[merge]\ninputs = \"pair\"", "`[merge]`"),
        ("[sinks]\ntype = \"bf16\"", "`[sinks]`"),
        ("[lse]\nbase = \"2\"", "`[lse]`"),
        ("[bias]\ntype = \"f32\"", "`[bias]`"),
        ("[rope]\ntype = \"f32\"", "`[rope]`"),
        ("[[struct]]\nname = \"Params\"", "`[[struct]]`"),
        ("[layout]\nkv = [\"PCTHD\"]", "`[layout] kv`"),
        ("[supports]\nqueries = { max = 8 }", "`[supports] queries`"),
        ("[supports]\npage_size = { one_of = [16] }", "`[supports] page_size`"),
        ("[supports]\nalibi = true", "`[supports] alibi`"),
        ("[supports]\ndtype = [{ q = \"f16\", k = \"f8_e4m3\" }]", "`[supports] dtype k`"),
        ("[numerics]\nscores = \"f16\"", "`[numerics] scores`"),
        ("[numerics]\nrow_sum = \"p_narrow\"", "`[numerics] row_sum`"),
        ("[numerics]\nmatrix = \"cdna2\"", "`[numerics] matrix`"),
    ] {
        let message = small(tail).unwrap_err();
        assert!(message.contains(&format!("{name} is not driven yet: ")), "{message}");
        assert!(!message.contains("did you mean"), "{message}");
    }
    let manifest = small("[numerics]\nnonfinite = false\n[device]\nlds_kib = 64").unwrap();
    assert!(!manifest.numerics.nonfinite && manifest.device.lds_kib == Some(64));
    let message = small("[device]\nlds_kib = 200").unwrap_err();
    assert!(message.contains("no AMD target gives a block more than 160 KiB"), "{message}");
}

/// Each mistake: what is replaced in the small manifest, by what, the line, and the key phrase.
#[test]
fn every_mistake_names_file_line_key_and_mend() {
    let end = "block = [64, 1, 1]\n";
    let add = |tail: &str| format!("{end}{tail}");
    let cases: Vec<(&str, String, usize, &str)> = vec![
        (
            "name = \"small\"",
            "nmae = \"small\"".into(),
            2,
            "unknown key `nmae`; did you mean `name`?",
        ),
        ("grid =", "gird =".into(), 8, "unknown key `launch[0].gird`; did you mean `grid`?"),
        (end, add("[suports]\n"), 10, "unknown key `suports`; did you mean `supports`?"),
        (
            end,
            add("[supports]\nheaddim = {}\n"),
            11,
            "`supports.headdim`; did you mean `head_dim`?",
        ),
        (
            end,
            add("[supports]\nbatch = { maxi = 1 }\n"),
            11,
            "`supports.batch.maxi`; did you mean `max`?",
        ),
        (
            end,
            add("[supports]\ndtype = [\n{ q = \"f32\", kk = \"f32\" }]\n"),
            12,
            "unknown key `supports.dtype[0].kk`",
        ),
        (end, add("[numerics]\nexp_ulps = 2\n"), 11, "did you mean `exp_ulp`?"),
        (end, add("[layout]\nkk = [\"HND\"]\n"), 11, "unknown key `layout.kk`; did you mean `k`?"),
        ("kernel/1", "kernel/2".into(), 1, "this program reads kernel/1"),
        (
            "format = \"kernel/1\"\n",
            String::new(),
            1,
            "`format` is missing; write format = \"kernel/1\"",
        ),
        (
            "source = \"small.hip\"\n",
            String::new(),
            1,
            "`source` is missing; write source = \"kernel.hip\"",
        ),
        ("name = \"small\"", "name = \"a b\"".into(), 2, "has no spaces and no slashes"),
        (
            "name = \"small\"",
            "name = 3".into(),
            2,
            "`name` must be a string, such as \"flash-decode\", got the integer 3",
        ),
        (
            "source = \"small.hip\"",
            "source = \"small.hip\"\ncode_object = \"a.co\"".into(),
            4,
            "there is a `source` too",
        ),
        (
            "source = \"small.hip\"",
            "code_object = \"a.exe\"".into(),
            3,
            "a code object ends in .hsaco",
        ),
        ("source = \"small.hip\"", "source = \"a.cubin\"".into(), 3, "write it as `code_object`"),
        (
            "source = \"small.hip\"",
            "code_object = \"a.co\"\ndefines = { A = 1 }".into(),
            4,
            "compiled already",
        ),
        ("\"decode\"", "\"decod\"".into(), 4, "unknown stage `decod`; did you mean `decode`?"),
        ("stage = \"decode\"\n", String::new(), 1, "`stage` is missing"),
        ("[[launch]]", "[launch]".into(), 5, "write [[launch]] with two brackets"),
        ("\"small\"\nargs", "\" \"\nargs".into(), 6, "the name is empty"),
        (
            "\"small\"\nargs",
            "\"small<{hd}>\"\nargs".into(),
            6,
            "unknown variable `hd` (known here: batch, num_heads, num_kv_heads, group, head_dim, ",
        ),
        ("\"small\"\nargs", "\"small<{kv>\"\nargs".into(), 6, "the `{` at column 7 has no partner"),
        (
            "\"lse\"",
            "\"les\"".into(),
            7,
            "`launch[0].args[4]` = \"les\": unknown argument; did you mean `lse`?",
        ),
        ("\"lse\"", "\"new_k\"".into(), 7, "stage `decode` has no such pointer; it has q, k, v"),
        (
            "\"lse\"",
            "\"u31:seq_len\"".into(),
            7,
            "unknown type of a scalar `u31`; did you mean `u32`?",
        ),
        (
            "\"lse\"",
            "\"u32:seqlen\"".into(),
            7,
            "unknown variable `seqlen`; did you mean `seq_len`? (known here: batch, ",
        ),
        ("\"lse\"", "\"u32:eps\"".into(), 7, "unknown variable `eps`"),
        ("\"lse\"", "\"u32:\"".into(), 7, "it is empty"),
        (
            "\"lse\"",
            "7".into(),
            7,
            "must be a pointer such as \"q\", or a scalar such as \"u32:num_heads\", got the integer 7",
        ),
        ("args = [", "args = [] #".into(), 7, "the list is empty"),
        (
            "[\"num_heads\", 1, \"batch\"]",
            "[\"num_heads\", 1]".into(),
            8,
            "`launch[0].grid` = 2 elements: write a list of three",
        ),
        ("[\"num_heads\", 1, \"batch\"]", "\"num_heads\"".into(), 8, "must be a list of three"),
        (
            "[\"num_heads\", 1, \"batch\"]",
            "[1.5, 1, 1]".into(),
            8,
            "`launch[0].grid[0]` must be an integer or an expression",
        ),
        (
            "[\"num_heads\", 1, \"batch\"]",
            "[\"num_heads +\", 1, 1]".into(),
            8,
            "expression `num_heads +`, column 12",
        ),
        (
            "[64, 1, 1]",
            "[-64, 1, 1]".into(),
            9,
            "`launch[0].block[0]` = -64: it must be between 0 and",
        ),
        ("[64, 1, 1]", "[\"64 / 0\", 1, 1]".into(), 9, "divides by zero"),
        ("[64, 1, 1]", "[\"64 / 2.0\", 1, 1]".into(), 9, "takes integers, got the float 32"),
        (
            end,
            add("shared_bytes = true\n"),
            10,
            "`launch[0].shared_bytes` must be an integer or an expression",
        ),
        (end, add("[params]\nsplits = []\n"), 11, "`params.splits` = []: the list is empty"),
        (
            end,
            add("[params]\nsplits = 4\n"),
            11,
            "must be a list of integers, such as [1, 2, 4], got the integer 4",
        ),
        (end, add("[params]\nsplits = [1,\n2, 1]\n"), 12, "it is in the list already"),
        (end, add("[params]\n\"a b\" = [1]\n"), 11, "the name is no identifier"),
        (end, add("[params]\nseq_len = [1]\n"), 11, "expressions have this name already"),
        (end, add("[params]\nkv = [1]\n"), 11, "expressions have this name already"),
        (end, add("[scratch]\nout = \"f32: 1\"\n"), 11, "a pointer has this name already"),
        (end, add("[scratch]\nnew_k = \"f32: 1\"\n"), 11, "a pointer has this name already"),
        (
            end,
            add("[scratch]\ntmp = \"f32\"\n"),
            11,
            "there is no `:`; write \"dtype: element count\"",
        ),
        (end, add("[scratch]\ntmp = \"f33: 1\"\n"), 11, "unknown type of a scratch buffer `f33`"),
        (end, add("[scratch]\ntmp = \"f32: splits\"\n"), 11, "unknown variable `splits`"),
        (end, add("[scratch]\n1a = \"f32: 1\"\n"), 11, "the name is no identifier"),
        (end, add("[layout]\nk = []\n"), 11, "`layout.k` = []: the list is empty"),
        (end, add("[layout]\nk = \"HND\"\n"), 11, "must be a list such as [\"HND\", \"NHD\"]"),
        (
            end,
            add("[layout]\nv = [\"HNX\"]\n"),
            11,
            "`layout.v[0]` = \"HNX\": layout `HNX`: `X` is no axis",
        ),
        (end, add("[layout]\nv = [\"HD\"]\n"), 11, "it has no token axis"),
        (end, add("[layout]\nv = [\"HND\", \"SHND\"]\n"), 11, "it is in the list already"),
        (end, add("[supports]\ndtype = []\n"), 11, "`supports.dtype` = []: the list is empty"),
        (
            end,
            add("[supports]\ndtype = [{ q = \"f32\", kv = \"f32\" }]\n"),
            11,
            "`supports.dtype[0].out` is missing",
        ),
        (
            end,
            add("[supports]\ndtype = [{ q = \"fp32\", kv = \"f32\", out = \"f32\" }]\n"),
            11,
            "unknown dtype `fp32`",
        ),
        (end, add("[supports]\nhead_dim = 128\n"), 11, "must be a table such as { min = 1"),
        (
            end,
            add("[supports]\nhead_dim = { min = 8, max = 4 }\n"),
            11,
            "`supports.head_dim.max` = 4: it must be at least 8",
        ),
        (end, add("[supports]\nhead_dim = { multiple_of = 0 }\n"), 11, "it must be at least 1"),
        (
            end,
            add("[supports]\nhead_dim = { max = 6, min = 5, multiple_of = 4 }\n"),
            11,
            "no value satisfies all of it",
        ),
        (end, add("[supports]\nhead_dim = { one_of = [] }\n"), 11, "the list is empty"),
        (
            end,
            add("[supports]\nbatch = { min = -1 }\n"),
            11,
            "`supports.batch.min` = -1: it must be at least 1",
        ),
        (
            end,
            add("[supports]\nalign = 12\n"),
            11,
            "it must be a power of two of at most 4096 bytes",
        ),
        (
            end,
            add("[supports]\nwindow = 1\n"),
            11,
            "`supports.window` must be true or false, got the integer 1",
        ),
        (
            end,
            add("[numerics]\naccumulate = \"f64\"\n"),
            11,
            "it must be \"f32\", \"f16\" or \"bf16\"",
        ),
        (end, add("[numerics]\nexp_ulp = -1\n"), 11, "it must be finite and not negative"),
        (end, add("[numerics]\nexp_ulp = nan\n"), 11, "it must be finite and not negative"),
        (
            end,
            add("[numerics]\ndenormals = \"drop\"\n"),
            11,
            "unknown treatment of denormals `drop`",
        ),
        (
            end,
            add("[numerics]\nbitwise = [\"repat\"]\n"),
            11,
            "unknown law `repat`; did you mean `repeat`?",
        ),
        // These had a sweep ask for gigabytes, or overflow, before it had a case.
        (
            end,
            add("[supports]\nbatch = { min = 1000000000 }\n"),
            11,
            "its least value is 1000000000; it must be at most 65536",
        ),
        (
            end,
            add("[supports]\nhead_dim = { one_of = [4, 9000000000000000000] }\n"),
            11,
            "`supports.head_dim.one_of` = 9000000000000000000: it must be at most 1048576",
        ),
        (
            end,
            add("[supports]\nseq_len = { multiple_of = 4294967296, min = 1 }\n"),
            11,
            "its least value is 4294967296; it must be at most 2147483647",
        ),
        (
            end,
            add("[scratch]\ntmp = \"zerod u32: 4\"\n"),
            11,
            "unknown type of a scratch buffer `zerod u32`",
        ),
        (
            end,
            add("[scratch]\ntmp = \"zeroed: 4\"\n"),
            11,
            "unknown type of a scratch buffer `zeroed`",
        ),
        (end, add("[scratch]\ntmp = \"zeroed u31: 4\"\n"), 11, "did you mean `u32`?"),
        // Of [rule].
        (end, add("rule = 3\n"), 10, "launch[0].rule"),
        (
            "[[launch]]",
            "[params]\nwaves = [1]\n[rule]\nwavs = 2\n[[launch]]".into(),
            8,
            "`rule.wavs` = `wavs`: there is no such tunable in [params], and no later rule reads it",
        ),
        (
            "[[launch]]",
            "[params]\nwaves = [1]\n[rule]\nwaves = 2\nstep = \"waves\"\n[[launch]]".into(),
            9,
            "`rule.step` = `step`: there is no such tunable in [params], and no later rule reads it",
        ),
        // A rule sees what stands before it, the device's own, and nothing of a later one.
        (
            "[[launch]]",
            "[params]\nwaves = [1]\n[rule]\nwaves = \"step\"\nstep = 2\n[[launch]]".into(),
            8,
            "unknown variable `step`",
        ),
        (
            "[[launch]]",
            "[params]\nwaves = [1]\n[rule]\nwaves = \"unit\"\n[[launch]]".into(),
            8,
            "unknown variable `unit`; did you mean `units`? (known here: batch, ",
        ),
        (
            "[[launch]]",
            "[params]\nwaves = [1]\n[rule]\nseq_len = 4\n[[launch]]".into(),
            8,
            "`rule.seq_len` = `seq_len`: expressions have this name already",
        ),
        (
            "[[launch]]",
            "[params]\nwaves = [1]\n[rule]\nunits = 4\nwaves = \"units\"\n[[launch]]".into(),
            8,
            "expressions have this name already",
        ),
        (
            "[[launch]]",
            "[params]\nunits = [1]\n[[launch]]".into(),
            6,
            "expressions have this name already",
        ),
        ("[[launch]]", "[rule]\n\"a b\" = 4\n[[launch]]".into(), 6, "the name is no identifier"),
        (
            "[[launch]]",
            "[params]\nwaves = [1]\n[rule]\nwaves = true\n[[launch]]".into(),
            8,
            "`rule.waves` must be an integer or an expression",
        ),
        // What only rules see.
        ("[64, 1, 1]", "[\"units\", 1, 1]".into(), 9, "unknown variable `units`"),
        ("[[launch]]", "defines = { 2X = 1 }\n[[launch]]".into(), 5, "the name is no identifier"),
        (
            "[[launch]]",
            "defines = { X = 1.5 }\n[[launch]]".into(),
            5,
            "must be an integer or a string",
        ),
        (
            "[[launch]]",
            "defines = { X = \"=tile\" }\n[[launch]]".into(),
            5,
            "a text that starts with `=` is one expression",
        ),
        (
            "[[launch]]",
            "defines = { X = \"={tile}\" }\n[[launch]]".into(),
            5,
            "unknown variable `tile`",
        ),
        (
            "[[launch]]",
            "include_dirs = \"include\"\n[[launch]]".into(),
            5,
            "must be a list of folders",
        ),
        ("stage = \"decode\"", "stage = \"merge\"".into(), 1, "`params.splits` is missing"),
        ("[[launch]]", "[[launch]".into(), 5, "this is not TOML"),
        ("[[launch]]", "stage = \"pv\"\n[[launch]]".into(), 5, "this is not TOML"),
    ];
    for (old, new, line, phrase) in cases {
        let text = SMALL.replacen(old, &new, 1);
        assert_ne!(text, SMALL, "{old}");
        let error = parse(&text).expect_err(phrase);
        let message = error.to_string();
        assert!(message.contains(phrase), "want {phrase}\n got {message}");
        assert!(message.starts_with(&format!("kernels/small.toml:{line}: ")), "{line}: {message}");
    }
}

/// Whatever is quoted, a message is one line of bearable length that names the place.
#[test]
fn a_message_stays_one_line_whatever_is_in_the_file() {
    let long = "x".repeat(1 << 17);
    let params: String = (0..2000).map(|i| format!("a{i} = [{i}]\n")).collect();
    let sum: Vec<String> = (0..2000).map(|i| format!("a{i}")).collect();
    for (old, new) in [
        ("\"small\"\nsource", "\"a\\u0007b\"\nsource".to_owned()),
        ("name = \"small\"", format!("name = \"{long}\"")),
        ("name = \"small\"", format!("name = \"{}\"", "x".repeat(101))),
        ("name = \"small\"", format!("{long} = 1\nname = \"small\"")),
        ("name = \"small\"", "\"na\\nme\" = \"small\"".to_owned()),
        ("stage = \"decode\"", format!("stage = \"{long}\"")),
        ("grid = [\"num_heads\"", "grid = [\"\"\"\n1 +\n\"\"\"".to_owned()),
        ("grid = [\"num_heads\"", format!("grid = [\"{long}\"")),
        ("grid = [\"num_heads\"", format!("grid = [\"{long}(1)\"")),
        ("grid = [\"num_heads\"", format!("grid = [\"1 \\u0000 {long}\"")),
        ("entry = \"small\"", "entry = \"k<\\n{d>\"".to_owned()),
        ("entry = \"small\"", format!("entry = \"{{{long}}}\"")),
        ("\"lse\", ", format!("\"{long}\", ")),
        ("block = [64, 1, 1]\n", format!("block = [64, 1, 1]\n[supports]\nalign = \"{long}\"\n")),
        ("[[launch]]", format!("[params]\n{params}[[launch]]\n\"{long}\" = 2")),
    ] {
        let text = SMALL.replacen(old, &new, 1);
        assert_ne!(text, SMALL, "{old}");
        let message = parse(&text).expect_err(old).to_string();
        assert!(message.starts_with("kernels/small.toml:"), "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
        assert!(message.chars().count() < 1500, "{} characters", message.chars().count());
    }

    // So do messages about a case.
    let launch = format!("[params]\n{params}[[launch]]");
    let text = SMALL.replacen("[[launch]]", &launch, 1);
    let text = text.replacen("\"num_heads\"", &format!("\"-1 - {}\"", sum.join(" - ")), 1);
    let manifest = parse(&text).unwrap();
    let mut case: Case = "hq=1,hkv=1,d=4,n=3".parse().unwrap();
    let message = manifest.supports(&case).unwrap_err().to_string();
    assert!(message.contains("parameter a0 = nothing (supports 0)"), "{message}");
    manifest.complete(&mut case);
    manifest.supports(&case).unwrap();
    let env = crate::kernel::Env::new(&case, &case.placements().unwrap());
    let module = crate::device::Module::uncompiled(1, 32);
    let message = manifest
        .launches(&env, &module, &|_| Ok(crate::device::Arg::Null))
        .expect_err("a negative grid")
        .to_string();
    assert!(message.contains("launch[0].grid[0]") && message.contains("a0 = 0"), "{message}");
    assert!(message.chars().count() < 1000, "{message}");
}

#[test]
fn a_file_that_is_no_manifest_is_refused_before_it_is_held() {
    let text = format!("{SMALL}# {}", "x".repeat(MAX_BYTES));
    let message = parse(&text).unwrap_err().to_string();
    assert!(
        message.starts_with("kernels/small.toml:1: it has more than 262144 bytes"),
        "{message}"
    );

    let endless = Manifest::load(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(endless.contains("/dev/zero:1: it has more than 262144 bytes"), "{endless}");
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("k.toml");
    std::fs::write(&binary, b"name = \"\xff\"").unwrap();
    let message = Manifest::load(&binary).unwrap_err().to_string();
    assert!(message.contains("k.toml: cannot be read: it is not UTF-8 text"), "{message}");
}
