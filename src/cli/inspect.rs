//! `attnbench inspect`.

use super::Found;
use super::common::{
    all_of, check_writable, in_words, json_on_stdout, on_interrupt, print, registry, say,
    write_json,
};
use anyhow::{Context, Result, bail};
use attnbench::device::cpu::CpuConfig;
use attnbench::device::{CompileError, gpu, interrupt};
use attnbench::inspect::asm::{disassembled, functions};
use attnbench::inspect::build::Builder;
use attnbench::inspect::compare::compare;
use attnbench::inspect::compiler::{Compiler, chosen};
use attnbench::inspect::instances::{Instance, instances};
use attnbench::inspect::listing::listing;
use attnbench::inspect::target::Target;
use attnbench::inspect::{Row, nvidia, object, row};
use attnbench::judge::space::{Filter, Nothing, Space};
use attnbench::kernel::{Code, Manifest};
use attnbench::problem::WantedTypes;
use attnbench::report::inspect::{self as report, Failed};
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Arguments of `inspect`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[
    (0, "all is well"),
    (1, "a kernel cannot be launched as its manifest says, or something that --deny names was found"),
    (2, "the request, a source, a file or the machine was at fault"),
    (3, "an interrupt ended the building, and no kernel so far is at fault"),
]))]
pub struct Args {
    /// Built-in kernels by name, manifests, or compiled files (.hsaco, .co, .cubin); all built-in
    /// kernels where none is given
    #[arg(value_name = "KERNEL|MANIFEST.toml|FILE.hsaco")]
    kernels: Vec<String>,
    /// Targets to build for, such as gfx942,gfx1100
    #[arg(long, value_name = "TARGET,…", value_delimiter = ',', default_value = "gfx942")]
    arch: Vec<String>,
    /// Lanes of a wave: the target's own, or 64 on RDNA
    #[arg(long, default_value = "own", value_parser = ["own", "32", "64"])]
    wave: String,
    /// Only this type of the cache (f16), or exactly these of q, cache and out (f16/f16/f32)
    #[arg(long)]
    dtype: Option<WantedTypes>,
    /// Only head vectors of these sizes
    #[arg(long, value_name = "A..B", value_parser = super::sweep::parse_range)]
    head_dim: Option<(usize, usize)>,
    /// The most instances of a kernel that are built
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    instances: u32,
    /// clang with the AMDGPU target, or hipcc (also: ATTNBENCH_CLANG)
    #[arg(long, value_name = "PATH")]
    compiler: Option<PathBuf>,
    /// Print the assembly, with the source's lines between the instructions
    #[arg(long)]
    asm: bool,
    /// Compare with an earlier result
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// What makes the exit status 1: spills, scratch, or (with --compare) worse: fewer waves, more
    /// spills, scratch or LDS
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',', value_parser = ["spills", "scratch", "worse"])]
    deny: Vec<String>,
    /// Write the result as JSON to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// What was found so far.
#[derive(Default)]
struct Figures {
    rows: Vec<Row>,
    failed: Vec<Failed>,
    listings: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Found> {
    if let Some(path) = &args.json {
        check_writable(path)?;
    }
    if args.deny.iter().any(|d| d == "worse") && args.compare.is_none() {
        bail!("--deny worse: there is nothing to compare with; add --compare OLD.json");
    }
    let old = args.compare.as_deref().map(read_old).transpose()?;
    on_interrupt()?;
    let registry = registry()?;
    let mut manifests = Vec::new();
    let mut files = Vec::new();
    if args.kernels.is_empty() {
        manifests = registry.all()?;
    }
    for name in &args.kernels {
        let ending = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
        if ["hsaco", "co", "o", "cubin", "ptx"].contains(&ending) {
            files.push(PathBuf::from(name));
        } else {
            manifests.push(registry.find(name)?);
        }
    }
    let mut found = Figures::default();
    let mut builder = None;
    let sources: Vec<&Manifest> =
        manifests.iter().filter(|m| matches!(m.code, Code::Source(_))).collect();
    if !sources.is_empty() {
        let targets = targets(args)?;
        if !targets.is_empty() {
            let compiler = args.compiler.clone().or_else(|| chosen(|name| std::env::var_os(name)));
            let compiler = Compiler::find(compiler.as_deref())?;
            for (target, _) in &targets {
                compiler.check(target)?;
            }
            let cache_dir = CpuConfig::from_env().cache_dir;
            builder = Some(Builder { compiler, cache_dir });
        }
        let mut jobs = Vec::new();
        for manifest in &sources {
            for (target, wave) in &targets {
                match drawn(args, manifest, *wave) {
                    Ok(all) => {
                        jobs.extend(all.into_iter().map(|i| Job { manifest, target, instance: i }));
                    }
                    // Of all built-in kernels those are meant that have such cases.
                    Err(error) if args.kernels.is_empty() && error.is::<Nothing>() => {
                        say(&format!("note: {error}"));
                    }
                    Err(error) => found.fail(manifest, &target.id, in_words(&error)),
                }
            }
        }
        if let Some(builder) = &builder {
            build_all(args, builder, &jobs, &mut found)?;
        }
        for_nvidia(args, &sources, &mut found)?;
    }
    for manifest in &manifests {
        if let Code::Object(path) = &manifest.code {
            object_of(args, &manifest.name, path, Some(manifest), &mut found);
        }
    }
    for path in &files {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        object_of(args, &name, path, None, &mut found);
    }
    finish(args, builder.as_ref(), &found, old.as_deref())
}

/// The targets with the wave sizes that are asked for.
fn targets(args: &Args) -> Result<Vec<(Target, u32)>> {
    let mut targets = Vec::new();
    for name in &args.arch {
        if name.starts_with("sm_") {
            continue;
        }
        let target = Target::parse(name).map_err(|e| anyhow::anyhow!("--arch: {e}"))?;
        let wave = args.wave.parse().unwrap_or_else(|_| target.wave());
        if !target.has_wave(wave) {
            bail!(
                "--wave {wave}: {target} has waves of 64 only; leave it out, or name RDNA targets"
            );
        }
        if !targets.contains(&(target.clone(), wave)) {
            targets.push((target, wave));
        }
    }
    Ok(targets)
}

fn read_old(path: &Path) -> Result<Vec<Row>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--compare {shown}: cannot be read"))?;
    report::read(&text).map_err(|why| anyhow::anyhow!("--compare {shown}: {why}"))
}

/// The instances of a manifest over what its sweep draws at this wave size.
fn drawn(args: &Args, manifest: &Manifest, wave: u32) -> Result<Vec<Instance>> {
    let manifest = manifest.driven()?.manifest;
    let has_heads = manifest.stage.has_heads();
    let filter = Filter {
        dtype: args.dtype,
        head_dim: args.head_dim.filter(|_| has_heads),
        waves: vec![wave],
        ..Filter::default()
    };
    let space = Space::new(&manifest, &filter, &[])?;
    let mut all = instances(&space)?;
    if all.is_empty() {
        bail!("no case of it can be drawn; widen its [supports]");
    }
    let most = args.instances as usize;
    if all.len() > most {
        say(&format!(
            "note: {} has {} instances, {most} of them are built (--instances N builds more)",
            manifest.name,
            all.len()
        ));
        all.truncate(most);
    }
    Ok(all)
}

/// Builds for NVIDIA's targets with NVRTC, and reads the cubins.
fn for_nvidia(args: &Args, sources: &[&Manifest], found: &mut Figures) -> Result<()> {
    let compiler = gpu::Compiler::new(gpu::Api::Cuda, gpu::GpuConfig::from_env());
    for arch in args.arch.iter().filter(|name| name.starts_with("sm_")) {
        if interrupt::is_requested() {
            break;
        }
        compiler.version().with_context(|| format!("--arch {arch}"))?;
        for manifest in sources {
            let instances = match drawn(args, manifest, 32) {
                Ok(instances) => instances,
                Err(error) => {
                    found.fail(manifest, arch, in_words(&error));
                    continue;
                }
            };
            for instance in instances {
                match nvidia::of_instance(&compiler, &manifest.name, &instance, arch) {
                    Ok(rows) => {
                        for row in rows {
                            if !found.rows.iter_mut().any(|known| known.absorb(&row)) {
                                found.rows.push(row);
                            }
                        }
                    }
                    Err(CompileError::Interrupted) => return Ok(()),
                    Err(error) => found.fail(manifest, arch, error.to_string()),
                }
            }
        }
    }
    Ok(())
}

/// One compilation.
struct Job<'a> {
    manifest: &'a Manifest,
    target: &'a Target,
    instance: Instance,
}

impl Figures {
    /// Says why a kernel has no row; once, though each of its instances and targets may say the same.
    fn fail(&mut self, manifest: &Manifest, target: &str, error: String) {
        let told = |f: &Failed| f.kernel == manifest.name && f.error == error;
        if !self.failed.iter().any(told) {
            let starts = error.starts_with(&manifest.name);
            let prefix = if starts { String::new() } else { format!("{}: ", manifest.name) };
            say(&format!("error: {prefix}{error}"));
        }
        let target = Some(target.to_owned());
        let failed = Failed { kernel: manifest.name.clone(), target, error };
        if !self.failed.contains(&failed) {
            self.failed.push(failed);
        }
    }
}

/// Builds on all cores, and tells the results in the jobs' order.
fn build_all(args: &Args, builder: &Builder, jobs: &[Job<'_>], found: &mut Figures) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<_>> = jobs.iter().map(|_| OnceLock::new()).collect();
    let bar = ProgressBar::with_draw_target(
        Some(jobs.len() as u64),
        ProgressDrawTarget::stderr_with_hz(10),
    );
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at).filter(|_| !interrupt::is_requested()) else {
                        break;
                    };
                    let name = &job.manifest.name;
                    let built = row::of_instance(builder, name, &job.instance, job.target);
                    let _ = results[at].set(built);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    for (job, result) in jobs.iter().zip(results) {
        match result.into_inner() {
            Some(Ok((rows, built))) => {
                let functions = functions(&built.assembly);
                for row in rows {
                    // Two instances may differ in another entry only.
                    if found.rows.iter_mut().any(|known| known.absorb(&row)) {
                        continue;
                    }
                    for f in functions.iter().filter(|f| args.asm && f.name == row.symbol) {
                        let text = listing(&built.assembly, f);
                        found.listings += &format!("{} {text}", job.target);
                    }
                    found.rows.push(row);
                }
            }
            Some(Err(error @ CompileError::Rejected { .. })) => {
                found.fail(job.manifest, &job.target.id, error.to_string());
            }
            // Not reached, or cut short.
            None | Some(Err(CompileError::Interrupted)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

fn object_of(
    args: &Args,
    name: &str,
    path: &Path,
    manifest: Option<&Manifest>,
    found: &mut Figures,
) {
    let opened = wanted(args, manifest)
        .and_then(|wanted| object::open(name, path, &wanted).map_err(Into::into));
    match opened {
        Ok(opened) => {
            let nothing = opened.assembly.is_none() && !opened.rows.iter().any(is_nvidia);
            if nothing {
                say(&format!(
                    "note: {}: no llvm-objdump was found, so instructions are not counted (Debian, \
                     Ubuntu: apt-get install llvm-19)",
                    path.display()
                ));
            }
            if let Some(assembly) = opened.assembly.filter(|_| args.asm) {
                let functions = disassembled(&assembly);
                for row in &opened.rows {
                    for f in functions.iter().filter(|f| f.name == row.symbol) {
                        found.listings += &format!("{} {}", row.target, listing(&assembly, f));
                    }
                }
            }
            found.rows.extend(opened.rows);
        }
        Err(error) => {
            let error = in_words(&error);
            say(&format!("error: {error}"));
            found.failed.push(Failed { kernel: name.to_owned(), target: None, error });
        }
    }
}

fn is_nvidia(row: &Row) -> bool {
    row.target.starts_with("sm_")
}

/// The entries that a code object's manifest launches, with their launches.
fn wanted(
    args: &Args,
    manifest: Option<&Manifest>,
) -> Result<Vec<(String, Vec<attnbench::inspect::instances::Shape>)>> {
    let Some(manifest) = manifest else { return Ok(Vec::new()) };
    let mut entries: Vec<(String, Vec<_>)> = Vec::new();
    // A code object has one wave size; what the cases of the other would launch is the same.
    for instance in drawn(args, manifest, 64)? {
        for (entry, shapes) in instance.source.entries.iter().zip(&instance.shapes) {
            match entries.iter_mut().find(|(e, _)| e == entry) {
                Some((_, known)) => known.extend(shapes),
                None => entries.push((entry.clone(), shapes.iter().copied().collect())),
            }
        }
    }
    Ok(entries)
}

/// Prints, writes, and judges.
fn finish(
    args: &Args,
    builder: Option<&Builder>,
    found: &Figures,
    old: Option<&[Row]>,
) -> Result<Found> {
    let compiler = builder.map(|b| b.compiler.name());
    let comparison = old.map(|old| compare(old, &found.rows));
    let mut written = Ok(());
    if let Some(path) = args.json.as_deref().filter(|_| !found.rows.is_empty()) {
        let document = report::document(compiler.as_deref(), &found.rows, &found.failed);
        written = write_json(path, &document);
    }
    // Last: a terminal that was closed keeps back no file.
    let mut printed = Ok(());
    if !json_on_stdout(args.json.as_deref()) && !found.rows.is_empty() {
        let mut text = String::new();
        if let Some(compiler) = &compiler {
            text += &format!("compiler {compiler}\n");
        }
        text += &found.listings;
        text += &format!("{}\n{}", report::summary(&found.rows), report::remarks(&found.rows));
        if let Some(comparison) = &comparison {
            text += &report::comparison(comparison);
        }
        printed = print(&text);
    }
    all_of([written, printed])?;
    let denied = |what: &str| args.deny.iter().any(|d| d == what);
    let fault = found.rows.iter().any(|r| {
        r.fault.is_some() || denied("spills") && r.spills() || denied("scratch") && r.uses_scratch()
    });
    let worse = denied("worse") && comparison.is_some_and(|c| c.is_worse());
    Ok(if fault || worse {
        Found::Fault
    } else if interrupt::is_requested() {
        Found::Incomplete
    } else if !found.failed.is_empty() {
        Found::Trouble
    } else {
        Found::Nothing
    })
}
