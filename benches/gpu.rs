//! Decode kernels on a GPU, by criterion's statistics and the GPU's own clock; nothing where there is none.
//!
//! What is measured, and how, is `attnbench bench`'s: a kernel is judged first, calls rotate over buffers
//! that no cache holds, and a graph of them is replayed. criterion decides how often, compares with its
//! last run (`--save-baseline`, `--baseline`) and draws. Shapes may be named: `cargo bench --bench gpu --
//! b1_8k`.

mod common;

use attnbench::bench::{Bench, Options, shapes};
use attnbench::device::Device;
use attnbench::device::gpu::{Api, GpuConfig, GpuDevice};
use attnbench::kernel::{Manifest, Registry};
use attnbench::problem::Stage;
use common::config;
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{SamplingMode, Throughput};
use std::time::Duration;

/// The GPU's time, in nanoseconds. Rates are also told as a share of what reading alone reached.
struct GpuTime {
    /// GB/s.
    ceiling: f64,
}

impl Measurement for GpuTime {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {
        unreachable!("the GPU's time comes from iter_custom")
    }

    fn end(&self, _: ()) -> f64 {
        unreachable!("the GPU's time comes from iter_custom")
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, nanoseconds: &f64) -> f64 {
        *nanoseconds
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for GpuTime {
    fn format_throughput(&self, throughput: &Throughput, nanoseconds: f64) -> String {
        match throughput {
            Throughput::Bytes(bytes) | Throughput::BytesDecimal(bytes) => {
                let gbs = *bytes as f64 / nanoseconds;
                format!(
                    "{gbs:.0} GB/s ({:.1} % of {:.0})",
                    100.0 * gbs / self.ceiling,
                    self.ceiling
                )
            }
            _ => format!("{nanoseconds:.0} ns"),
        }
    }

    fn scale_values(&self, _: f64, values: &mut [f64]) -> &'static str {
        values.iter_mut().for_each(|value| *value /= 1e3);
        "us"
    }

    fn scale_throughputs(
        &self,
        _: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        match throughput {
            Throughput::Bytes(bytes) | Throughput::BytesDecimal(bytes) => {
                values.iter_mut().for_each(|value| *value = *bytes as f64 / *value);
                "GB/s"
            }
            _ => "ns",
        }
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ns"
    }
}

/// The first GPU for which kernels can be compiled, or why there is none.
fn gpu() -> Result<GpuDevice, String> {
    let mut reasons = Vec::new();
    for api in Api::ALL {
        // Its worker is the program, not this bench.
        let own = GpuConfig::from_env();
        let config = match std::env::var_os("ATTNBENCH_WORKER") {
            Some(_) => own,
            None => GpuConfig { worker_program: config().worker_program, ..own },
        };
        let opened = GpuDevice::open(config, api, 0).and_then(|gpu| {
            gpu.compiler().map_err(|e| e.to_string())?;
            Ok(gpu)
        });
        match opened {
            Ok(gpu) => return Ok(gpu),
            Err(why) => reasons.push(format!("{api}: {why}")),
        }
    }
    Err(reasons.join("; "))
}

fn main() {
    let gpu = match gpu() {
        Ok(gpu) => gpu,
        Err(why) => {
            println!(
                "no GPU, and so nothing to time here; the other benches are of the CPU ({why})"
            );
            return;
        }
    };
    let registry = Registry::new(config().cache_dir).expect("a cache");
    let kernels: Vec<Manifest> = registry
        .all()
        .expect("the built-in kernels")
        .into_iter()
        .filter(|manifest| manifest.stage == Stage::Decode)
        .collect();
    let options = Options {
        rounds: 1,
        replays: 10,
        seed: 1,
        time_limit: Duration::from_secs(30),
        layouts: Vec::new(),
        all_params: false,
    };
    let make = || Box::new(gpu.sibling()) as Box<dyn Device>;
    let helpers = registry.helpers().expect("a cache");
    let mut bench = Bench::new(&kernels, helpers, &make, options).expect("kernels that compile");
    bench.read().expect("a GPU that reads");
    let ceiling = bench.ceiling().expect("a GPU that reads").map_or(f64::INFINITY, |c| c.gbs);

    let mut criterion =
        common::criterion().with_measurement(GpuTime { ceiling }).configure_from_args();
    // criterion asks for names when all is ready, and judging a kernel takes its time.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let all = shapes::parse("peers").expect("the named shapes");
    let wanted =
        |name: &str| named.iter().any(|part| format!("gpu/{name}").contains(part.as_str()));
    let any = all.iter().any(|shape| wanted(&shape.name));
    for shape in all.into_iter().filter(|shape| !any || wanted(&shape.name)) {
        let mut group = criterion.benchmark_group(format!("gpu/{}", shape.name));
        // Each sample allocates its buffers anew, which the host's clock counts and the GPU's does not.
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        let (ready, rows) = bench.prepare(&shape);
        for row in rows {
            println!("{} on {}: {}", row.kernel, row.shape, row.why.unwrap_or(row.verdict));
        }
        for kernel in &ready {
            group.throughput(Throughput::BytesDecimal(kernel.row().kv_bytes));
            group.bench_function(&kernel.row().kernel, |b| {
                b.iter_custom(|calls| bench.nanoseconds(kernel, calls).expect("a GPU that runs"));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
