//! `attnbench kernels` and `attnbench devices`.

use super::Found;
use super::common::{print, registry};
use anyhow::Result;
use attnbench::device::Device;
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::gpu::{Api, GpuConfig, GpuDevice};
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

/// Lists the devices, in the order in which `auto` takes them.
pub fn devices() -> Result<Found> {
    let mut text = String::new();
    for api in Api::ALL {
        let mut ordinal = 0;
        loop {
            let gpu = match GpuDevice::open(GpuConfig::from_env(), api, ordinal) {
                Ok(gpu) => gpu,
                Err(why) => {
                    let _ = writeln!(text, "{api}  not usable: {why}");
                    break;
                }
            };
            let info = gpu.info();
            let _ = writeln!(
                text,
                "{}, waves of {}, {} multiprocessors, {} GiB, {} MiB of last-level cache, {} KiB of \
                 shared memory a block",
                gpu.describe(),
                info.wave,
                info.multiprocessors,
                info.memory >> 30,
                info.l2_bytes >> 20,
                info.max_shared >> 10
            );
            if let Err(why) = gpu.compiler() {
                let _ = writeln!(text, "  kernels cannot be compiled: {why}");
            }
            ordinal += 1;
            if ordinal >= info.count {
                break;
            }
        }
    }
    match CpuDevice::new(CpuConfig::from_env()) {
        Ok(cpu) => _ = writeln!(text, "{}, waves of 32 and 64", cpu.describe()),
        Err(why) => _ = writeln!(text, "cpu   not usable: {why}"),
    }
    print(&text)?;
    Ok(Found::Nothing)
}
