//! The device that `--device` names.

use anyhow::{Result, bail};
use attnbench::bench::document;
use attnbench::device::cpu::{CpuConfig, CpuDevice, Variant};
use attnbench::device::gpu::{Api, GpuConfig, GpuDevice};
use attnbench::device::{Device, Lanes};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A device, of which each thread gets its own.
pub struct Machine {
    first: Mutex<First>,
    /// Of `auto`: what was not there.
    passed_over: Vec<String>,
}

enum First {
    Cpu(CpuDevice),
    Gpu(GpuDevice),
}

/// What `--device` can say.
#[derive(Clone, Copy)]
enum Wanted {
    Auto,
    Cpu,
    Gpu(Api, u32),
}

impl Wanted {
    fn named(name: &str) -> Result<Wanted> {
        let no_such =
            || bail!("--device {name}: no such device; write auto, cpu, hip[:N] or cuda[:N]");
        let (kind, ordinal) = match name.split_once(':') {
            None => (name, 0),
            Some((kind, number)) => match number.parse() {
                Ok(number) => (kind, number),
                Err(_) => return no_such(),
            },
        };
        Ok(match (kind, Api::named(kind)) {
            (_, Some(api)) => Wanted::Gpu(api, ordinal),
            ("auto", _) if kind == name => Wanted::Auto,
            ("cpu", _) if kind == name => Wanted::Cpu,
            _ => return no_such(),
        })
    }
}

impl Machine {
    /// Opens the device that `--device` names: of `auto` the first of an AMD GPU, an NVIDIA GPU and the
    /// CPU. Only the CPU device can check runs, or run a kernel for a debugger.
    ///
    /// # Errors
    /// There is no such device, and how to mend that.
    pub fn open(name: &str, config: CpuConfig) -> Result<Machine> {
        let cpu_only = match config.variant {
            Variant::Checked => Some("--sanitize"),
            Variant::Debug => Some("--debug"),
            _ => None,
        };
        let mut passed_over = Vec::new();
        match (Wanted::named(name)?, cpu_only) {
            (Wanted::Gpu(..), Some(option)) => {
                bail!("{option} needs the CPU device; leave out --device {name}")
            }
            (Wanted::Gpu(api, ordinal), None) => {
                let opened = GpuDevice::open(GpuConfig::from_env(), api, ordinal);
                let gpu = opened.map_err(|why| anyhow::anyhow!("--device {name}: {why}"))?;
                return Ok(Machine::of(First::Gpu(gpu), passed_over));
            }
            (Wanted::Auto, None) => {
                for api in Api::ALL {
                    // One that kernels cannot be compiled for is none.
                    let opened = GpuDevice::open(GpuConfig::from_env(), api, 0).and_then(|gpu| {
                        gpu.compiler().map_err(|e| e.to_string())?;
                        Ok(gpu)
                    });
                    match opened {
                        Ok(gpu) => return Ok(Machine::of(First::Gpu(gpu), passed_over)),
                        Err(why) => {
                            // The whole of it is for those who ask for this device.
                            let short = why.split_once(';').map_or(&*why, |(short, _)| short);
                            passed_over.push(format!("{api}: {short}"));
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(Machine::of(First::Cpu(CpuDevice::new(config)?), passed_over))
    }

    fn of(first: First, passed_over: Vec<String>) -> Machine {
        Machine { first: Mutex::new(first), passed_over }
    }

    fn first(&self) -> MutexGuard<'_, First> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for reports.
    pub fn describe(&self) -> String {
        match &*self.first() {
            First::Cpu(cpu) => cpu.describe(),
            First::Gpu(gpu) => gpu.describe(),
        }
    }

    /// The name, and for `auto` why it is this one.
    pub fn describe_choice(&self) -> String {
        let name = self.describe();
        match &self.passed_over[..] {
            [] => name,
            passed => format!("{name} (auto; {})", passed.join("; ")),
        }
    }

    /// What a result says of it.
    pub fn facts(&self) -> document::Device {
        match &*self.first() {
            First::Cpu(cpu) => document::Device {
                name: cpu.describe(),
                api: "cpu".to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
                multiprocessors: cpu.units(),
                ..document::Device::default()
            },
            First::Gpu(gpu) => {
                let info = gpu.info();
                document::Device {
                    name: info.name.clone(),
                    api: info.api.to_string(),
                    arch: info.arch.clone(),
                    driver: info.driver.clone(),
                    compiler: gpu.compiler().unwrap_or("none").to_owned(),
                    multiprocessors: info.multiprocessors,
                    l2_bytes: info.l2_bytes,
                    memory: info.memory,
                }
            }
        }
    }

    /// The wave sizes that it can run.
    pub fn waves(&self) -> Vec<u32> {
        match &*self.first() {
            First::Cpu(cpu) => cpu.waves().to_vec(),
            First::Gpu(gpu) => gpu.waves().to_vec(),
        }
    }

    /// Whether it is a GPU.
    pub fn is_gpu(&self) -> bool {
        matches!(&*self.first(), First::Gpu(_))
    }

    /// A device for one more thread.
    pub fn another(&self) -> Box<dyn Device> {
        self.another_with(Lanes::default())
    }

    /// As [`Machine::another`], with the lanes of a wave advancing in this way; on a GPU they do what they
    /// do.
    pub fn another_with(&self, lanes: Lanes) -> Box<dyn Device> {
        match &*self.first() {
            First::Cpu(cpu) if lanes == Lanes::default() => Box::new(cpu.sibling()),
            First::Cpu(cpu) => Box::new(cpu.with_lanes(lanes)),
            First::Gpu(gpu) => Box::new(gpu.sibling()),
        }
    }
}
