//! Instructions of a kernel counted, in the compiler's assembly or in a disassembly.

/// Memory accesses by their width a lane, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Widths {
    /// 16 bytes.
    pub b16: u32,
    /// 12 bytes.
    pub b12: u32,
    /// 8 bytes.
    pub b8: u32,
    /// 4 bytes.
    pub b4: u32,
    /// 2 bytes or one.
    pub less: u32,
}

impl Widths {
    fn count(&mut self, bytes: u32) {
        match bytes {
            16.. => self.b16 += 1,
            12 => self.b12 += 1,
            8 => self.b8 += 1,
            4 => self.b4 += 1,
            _ => self.less += 1,
        }
    }

    /// All of them.
    pub fn sum(&self) -> u32 {
        self.b16 + self.b12 + self.b8 + self.b4 + self.less
    }
}

/// What a kernel's code holds: instructions as they stand, not as often as they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// All instructions.
    pub instructions: u32,
    /// Vector loads of global memory (`global_load`, `flat_load`, `buffer_load`).
    pub loads: Widths,
    /// Vector stores.
    pub stores: Widths,
    /// Scalar loads (`s_load`, `s_buffer_load`): arguments, and what is the same for a whole wave.
    pub scalar_loads: u32,
    /// Accesses to scratch (`scratch_`, and `buffer_` with the scratch offset).
    pub scratch: u32,
    /// Accesses to LDS but those that only move values between lanes.
    pub lds: u32,
    /// Matrix instructions (`v_mfma`, `v_smfmac`, `v_wmma`, `v_swmmac`).
    pub matrix: u32,
    /// Barriers (`s_barrier`, or a pair of `s_barrier_signal` and `s_barrier_wait`).
    pub barriers: u32,
    /// Waits for memory (`s_waitcnt…`, `s_wait_…`).
    pub waits: u32,
    /// Calls of functions that were not inlined.
    pub calls: u32,
}

/// One function of an assembly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its symbol.
    pub name: &'a str,
    /// Its lines, from the one after its label.
    pub lines: Vec<&'a str>,
    /// What the compiler says of waves a SIMD, by its own reckoning.
    pub occupancy: Option<u32>,
}

/// The functions of what `clang -S` wrote.
pub fn functions(assembly: &str) -> Vec<Function<'_>> {
    let mut functions: Vec<Function<'_>> = Vec::new();
    let mut open = None;
    for line in assembly.lines() {
        if let Some(begin) = line.find("; -- Begin function ") {
            open = Some(line[begin + 20..].trim());
            continue;
        }
        if let Some(name) = open
            && line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
        {
            functions.push(Function { name, lines: Vec::new(), occupancy: None });
            open = None;
            continue;
        }
        let Some(last) = functions.last_mut() else { continue };
        if let Some(waves) = line.strip_prefix("; Occupancy: ") {
            last.occupancy = waves.trim().parse().ok();
        } else if last.occupancy.is_none() && open.is_none() {
            last.lines.push(line);
        }
    }
    for function in &mut functions {
        let end = function.lines.iter().position(|l| l.starts_with(".Lfunc_end"));
        function.lines.truncate(end.unwrap_or(function.lines.len()));
    }
    functions
}

/// The functions of what `llvm-objdump -d` wrote.
pub fn disassembled(text: &str) -> Vec<Function<'_>> {
    let mut functions: Vec<Function<'_>> = Vec::new();
    for line in text.lines() {
        // `<k>:`, or with its address `0000000000001600 <k>:`.
        let label = line.split_once('<').and_then(|(address, rest)| {
            let is_address = address.chars().all(|c| c.is_ascii_hexdigit() || c == ' ');
            rest.strip_suffix(">:").filter(|_| is_address)
        });
        if let Some(name) = label {
            functions.push(Function { name, lines: Vec::new(), occupancy: None });
        } else if let Some(last) = functions.last_mut() {
            last.lines.push(line);
        }
    }
    for function in &mut functions {
        // Up to the next function, or for what the processor fetches ahead, there is padding.
        let is_code = |line: &str| !matches!(mnemonic(line), Some("s_nop" | "s_code_end") | None);
        let end = function.lines.iter().rposition(|l| is_code(l)).map_or(0, |at| at + 1);
        function.lines.truncate(end);
    }
    functions
}

/// The symbol of each entry, from the variables that the wrapper declares for them
/// (`attnbench_entry_N`).
pub fn entry_symbol(assembly: &str, index: usize) -> Option<&str> {
    let label = format!("\nattnbench_entry_{index}:");
    let after = &assembly[assembly.find(&label)? + label.len()..];
    let line = after.lines().map(str::trim).find(|l| l.starts_with(".quad"))?;
    line.strip_prefix(".quad")?.trim().split(['@', ' ', '\t']).next()
}

/// The mnemonic of a line; `None` for labels, directives and comments.
pub fn mnemonic(line: &str) -> Option<&str> {
    let word = line.split_whitespace().next()?;
    let is_code = word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.ends_with(':');
    is_code.then_some(word)
}

/// Counts the instructions of a function's lines.
pub fn count(lines: &[&str]) -> Counts {
    let mut c = Counts::default();
    // On targets without scratch instructions it is a buffer, whose descriptor comes in s[0:3] and may be
    // copied.
    let mut descriptors = vec!["s[0:3]".to_owned()];
    let copies = lines.iter().filter_map(|l| l.trim().strip_prefix("s_mov_b64 s["));
    for copy in copies.filter_map(|l| l.strip_suffix("], s[0:1]")) {
        if let Some(first) = copy.split(':').next().and_then(|n| n.parse::<u32>().ok()) {
            descriptors.push(format!("s[{first}:{}]", first + 3));
        }
    }
    for line in lines {
        let Some(word) = mnemonic(line) else { continue };
        c.instructions += 1;
        let global = ["global_", "flat_", "buffer_"].iter().find_map(|p| word.strip_prefix(p));
        let to_scratch =
            word.starts_with("buffer_") && descriptors.iter().any(|d| line.contains(d.as_str()));
        if word.starts_with("scratch_") || to_scratch {
            c.scratch += 1;
        } else if let Some(rest) = global {
            if let Some(what) = rest.strip_prefix("load_") {
                c.loads.count(width(what));
            } else if let Some(what) = rest.strip_prefix("store_") {
                c.stores.count(width(what));
            }
        } else if word.starts_with("s_load_") || word.starts_with("s_buffer_load_") {
            c.scalar_loads += 1;
        } else if word.starts_with("ds_") {
            c.lds += u32::from(!word.contains("permute") && !word.contains("swizzle"));
        } else if ["v_mfma", "v_smfmac", "v_wmma", "v_swmmac"].iter().any(|p| word.starts_with(p)) {
            c.matrix += 1;
        } else if word == "s_barrier" || word.starts_with("s_barrier_signal") {
            c.barriers += 1;
        } else if word.starts_with("s_waitcnt") || word.starts_with("s_wait_") {
            c.waits += 1;
        } else if word.starts_with("s_swappc") {
            c.calls += 1;
        }
    }
    c
}

/// Bytes a lane of `dwordx4`, `b128`, `ushort`, `d16_u8`, `lds_dword`, …
fn width(what: &str) -> u32 {
    let what = what.trim_start_matches("lds_").trim_start_matches("tr_");
    if let Some(format) = what.strip_prefix("format_") {
        // A component of a buffer's format, at most 4 bytes each.
        return 4 * format.chars().take_while(|c| "xyzw".contains(*c)).count() as u32;
    }
    let first = what.trim_start_matches("d16_").trim_start_matches("hi_");
    let first = first.split('_').next().unwrap_or_default();
    match first {
        "dwordx4" | "b128" => 16,
        "dwordx3" | "b96" => 12,
        "dwordx2" | "b64" => 8,
        "dword" | "b32" => 4,
        "ushort" | "sshort" | "short" | "u16" | "i16" | "b16" => 2,
        _ => 1,
    }
}

#[cfg(test)]
#[path = "asm_tests.rs"]
mod tests;
