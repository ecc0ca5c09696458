//! `attnbench kernels` and `attnbench devices`.

use super::Found;
use super::common::{Cpu, print, registry};
use anyhow::Result;
use std::fmt::Write;

/// Lists the built-in kernels.
pub fn kernels() -> Result<Found> {
    let mut text = String::new();
    for manifest in registry()?.all()? {
        let s = &manifest.supports;
        let dtypes: Vec<String> = s.dtypes.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "{}  stage {}, dtypes {}, head_dim {}, group {}, batch {}, seq_len {}",
            manifest.name,
            manifest.stage,
            dtypes.join(" "),
            s.head_dim,
            s.group,
            s.batch,
            s.seq_len
        );
        let _ = writeln!(text, "  {}", manifest.file.display());
    }
    print(&text)?;
    Ok(Found::Nothing)
}

/// Lists the devices.
pub fn devices() -> Result<Found> {
    match Cpu::open("cpu") {
        Ok(cpu) => print(&format!("{}, waves of 32 and 64\n", cpu.describe()))?,
        Err(why) => print(&format!("cpu   not usable: {why}\n"))?,
    }
    print("hip   not yet in this version\ncuda  not yet in this version\n")?;
    Ok(Found::Nothing)
}
