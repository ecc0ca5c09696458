//! The `kernel/1` manifest: a TOML file beside a kernel source that says what the kernel computes,
//! how it is launched, and inside which bounds.

use super::args::{ArgSpec, NULL, Scratch};
use super::device::DeviceNeeds;
use super::env::VARIABLES;
use super::expr::{Expr, FUNCTIONS};
use super::numerics::Numerics;
use super::read::{Document, Item, ManifestError, ManifestProblem, Section};
use super::supports::{Layouts, Supports};
use super::template::{TYPE_NAMES, Template};
use crate::problem::{Case, MAX_SPLITS, Pointer, Stage, clip, is_identifier};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// The format that this program reads.
pub const FORMAT: &str = "kernel/1";

/// Variables of rules alone: the device's multiprocessors (compute units), and the shared memory that a
/// block may have, KiB.
pub const DEVICE_VARIABLES: [&str; 2] = ["units", "shared_kib"];

/// A manifest takes a few kilobytes; what is larger is another file, or no file at all
/// (`/dev/zero`). Names are looked up one by one, which is fast for as many as fit in here.
const MAX_BYTES: usize = 256 << 10;

/// Bytes of a kernel's name: files are called after it, and their names have at most 255.
const MAX_NAME: usize = 100;

/// Endings of code objects.
const OBJECT_ENDINGS: [&str; 4] = ["hsaco", "co", "cubin", "ptx"];

/// Where a kernel's code comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A source to compile.
    Source(PathBuf),
    /// A compiled code object: `.hsaco`, `.co`, `.cubin` or `.ptx`.
    Object(PathBuf),
}

impl Code {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Code::Source(path) | Code::Object(path) => path,
        }
    }
}

/// A preprocessor definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Define {
    /// The macro.
    pub name: String,
    /// What it stands for.
    pub text: Template,
}

/// A tunable: one value is drawn a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name in expressions.
    pub name: String,
    /// The values, at least one.
    pub values: Vec<i64>,
}

/// A launch, before its case is known.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchSpec {
    /// Line of the manifest, from 1.
    pub line: usize,
    /// Name expression of the kernel.
    pub entry: Template,
    /// Arguments in order.
    pub args: Vec<ArgSpec>,
    /// Blocks along x, y, z.
    pub grid: [Expr; 3],
    /// Threads of a block along x, y, z.
    pub block: [Expr; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: Expr,
}

/// A kernel's manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file that it was read from, as its user named it.
    pub file: PathBuf,
    /// The kernel's name in tables and reports.
    pub name: String,
    /// Its code, relative to the working directory as `file` is.
    pub code: Code,
    /// What it computes.
    pub stage: Stage,
    /// Folders for `#include`, in order.
    pub include_dirs: Vec<PathBuf>,
    /// Preprocessor definitions, in the file's order.
    pub defines: Vec<Define>,
    /// Tunables, in the file's order.
    pub params: Vec<Param>,
    /// What the tunables best are for a case on a device, in the file's order: what `bench` uses. Each
    /// sees the case's variables, the device's `units` and `shared_kib`, and the rules before it; one that
    /// has no tunable's name is a step to a later one.
    pub rule: Vec<(String, Expr)>,
    /// Scratch buffers, in the file's order.
    pub scratch: Vec<Scratch>,
    /// Launches in order, at least one.
    pub launches: Vec<LaunchSpec>,
    /// The layouts of K and V that it reads.
    pub layouts: Layouts,
    /// Its bounds.
    pub supports: Supports,
    /// What its error bound may assume.
    pub numerics: Numerics,
    /// What it asks of its device.
    pub device: DeviceNeeds,
}

impl Manifest {
    /// Reads a manifest and checks that its code is there.
    ///
    /// # Errors
    /// [`ManifestError`]: the first mistake, with file, line, key and mend.
    pub fn load(file: &Path) -> Result<Manifest, ManifestError> {
        let shown = file.display().to_string();
        let fail = |why: String| {
            let problem = Box::new(ManifestProblem::Io(why));
            ManifestError { file: shown.clone(), line: 0, problem }
        };
        let mut bytes = Vec::new();
        // One byte more than a manifest may have, so that it shows.
        std::fs::File::open(file)
            .and_then(|f| f.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|e| fail(e.to_string()))?;
        let text = String::from_utf8_lossy(&bytes);
        if bytes.len() <= MAX_BYTES && std::str::from_utf8(&bytes).is_err() {
            return Err(fail("it is not UTF-8 text".into()));
        }
        let manifest = Manifest::parse(&text, file)?;
        let code = manifest.code.path();
        if !code.is_file() {
            let key = match manifest.code {
                Code::Source(_) => "source",
                Code::Object(_) => "code_object",
            };
            return Err(ManifestError {
                file: shown,
                line: 1 + text.lines().position(|l| l.trim_start().starts_with(key)).unwrap_or(0),
                problem: Box::new(ManifestProblem::Value {
                    key: key.to_owned(),
                    value: format!("\"{}\"", code.display()),
                    why: "there is no such file; the path is relative to the manifest".into(),
                }),
            });
        }
        Ok(manifest)
    }

    /// Reads a manifest's text. `file` names it in messages, and its folder is what relative paths
    /// start from; nothing is read from the disk.
    ///
    /// # Errors
    /// [`ManifestError`]: the first mistake, with file, line, key and mend.
    pub fn parse(text: &str, file: &Path) -> Result<Manifest, ManifestError> {
        let shown = file.display().to_string();
        let doc = Document { file: &shown, text };
        if text.len() > MAX_BYTES {
            return Err(doc.error(0, ManifestProblem::TooLarge { limit: MAX_BYTES }));
        }
        let table = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            doc.error(at, ManifestProblem::Syntax(e.message().to_owned()))
        })?;
        read(&Section::new(doc, "", 0, table.get_ref()), file)
    }

    /// Whether some launch takes this tensor.
    pub fn takes(&self, pointer: Pointer) -> bool {
        self.launches.iter().flat_map(|l| &l.args).any(|a| *a == ArgSpec::Pointer(pointer))
    }

    /// The outputs of the stage among the arguments: what is judged.
    pub fn outputs(&self) -> Vec<Pointer> {
        let ports = self.stage.ports().into_iter();
        ports.filter(|p| p.write && self.takes(p.pointer)).map(|p| p.pointer).collect()
    }

    /// The outputs of the stage among the arguments, where there is enough to judge: every one that
    /// the stage demands, and at least one at all. A manifest without can be built and inspected
    /// (one launch of several, say), but not swept.
    ///
    /// # Errors
    /// [`ManifestError`] at the first launch: which output to pass.
    pub fn judged(&self) -> Result<Vec<Pointer>, ManifestError> {
        let outputs = self.outputs();
        let writes: Vec<_> = self.stage.ports().into_iter().filter(|p| p.write).collect();
        let wanted: Vec<String> = writes
            .iter()
            .filter(|p| p.required || writes.iter().all(|p| !p.required))
            .map(|p| format!("\"{}\"", p.pointer))
            .collect();
        let absent = writes.iter().any(|p| p.required && !outputs.contains(&p.pointer));
        if !absent && !outputs.is_empty() {
            return Ok(outputs);
        }
        let why = format!(
            "no launch writes the result of stage `{}`; pass {} among the `args`",
            self.stage,
            wanted.join(" or ")
        );
        Err(ManifestError {
            file: self.file.display().to_string(),
            line: self.launches.first().map_or(0, |l| l.line),
            problem: Box::new(ManifestProblem::Value {
                key: "launch".to_owned(),
                value: "[[launch]]".to_owned(),
                why,
            }),
        })
    }

    /// The first value of every tunable.
    pub fn default_params(&self) -> BTreeMap<String, i64> {
        self.params.iter().map(|p| (p.name.clone(), p.values[0])).collect()
    }

    /// Gives a case the tunables that it does not set.
    pub fn complete(&self, case: &mut Case) {
        for (name, value) in self.default_params() {
            case.params.entry(name).or_insert(value);
        }
    }

    /// Whether a scalar argument's expression reads a variable.
    pub fn reads_variable(&self, name: &str) -> bool {
        self.launches.iter().flat_map(|l| &l.args).any(|arg| match arg {
            ArgSpec::Scalar { expr, .. } => expr.names().iter().any(|n| n == name),
            _ => false,
        })
    }

    /// The name of an argument, for messages: `q`, `partial`, `u32:num_heads`, `null`.
    pub fn arg_name(&self, arg: &ArgSpec) -> String {
        match arg {
            ArgSpec::Pointer(pointer) => pointer.to_string(),
            ArgSpec::Scratch(i) => self.scratch.get(*i).map_or("?".to_owned(), |s| clip(&s.name)),
            ArgSpec::Null => NULL.to_owned(),
            ArgSpec::Scalar { ty, expr } => format!("{ty}:{}", clip(expr.text())),
        }
    }
}

type Result<T, E = ManifestError> = std::result::Result<T, E>;

fn read(root: &Section, file: &Path) -> Result<Manifest> {
    root.keys(&[
        "format",
        "name",
        "source",
        "code_object",
        "stage",
        "include_dirs",
        "defines",
        "params",
        "rule",
        "scratch",
        "launch",
        "layout",
        "supports",
        "numerics",
        "device",
    ])?;
    let item = root.require("format", "format = \"kernel/1\"")?;
    let format = item.string("\"kernel/1\"")?;
    if format != FORMAT {
        let why = "this program reads kernel/1; write format = \"kernel/1\"";
        return Err(item.bad(format_args!("\"{format}\""), why));
    }
    let name = read_name(root.require("name", "name = \"my-kernel\"")?)?;
    let dir = file.parent().unwrap_or(Path::new(""));
    let code = read_code(root, dir)?;
    let stage = root.require("stage", "stage = \"decode\"")?.word("a stage, such as \"decode\"")?;

    let params = read_params(root, stage)?;
    let known: Vec<&str> = VARIABLES
        .iter()
        .chain(stage.variables())
        .copied()
        .chain(params.iter().map(|p| p.name.as_str()))
        .collect();
    let scratch = read_scratch(root, &known)?;
    Ok(Manifest {
        file: file.to_owned(),
        name,
        code,
        stage,
        include_dirs: match root.get("include_dirs") {
            Some(item) => read_dirs(item, dir)?,
            None => Vec::new(),
        },
        defines: read_defines(root, &known)?,
        launches: read_launches(root, stage, &scratch, &known)?,
        layouts: match root.get("layout") {
            Some(item) => Layouts::read(&item.table("a table [layout]")?)?,
            None => Layouts::default(),
        },
        supports: match root.get("supports") {
            Some(item) => Supports::read(&item.table("a table [supports]")?)?,
            None => Supports::default(),
        },
        numerics: match root.get("numerics") {
            Some(item) => Numerics::read(&item.table("a table [numerics]")?)?,
            None => Numerics::default(),
        },
        device: match root.get("device") {
            Some(item) => DeviceNeeds::read(&item.table("a table [device]")?)?,
            None => DeviceNeeds::default(),
        },
        rule: read_rule(root, stage, &params)?,
        params,
        scratch,
    })
}

fn read_name(item: &Item) -> Result<String> {
    let name = item.string("a string, such as \"flash-decode\"")?;
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !"/\\".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        let why = "a kernel's name has no spaces and no slashes; write one such as flash-decode";
        return Err(item.bad(format_args!("{name:?}"), why));
    }
    if name.len() > MAX_NAME {
        let why = format_args!("it has {} bytes; use at most {MAX_NAME}", name.len());
        return Err(item.bad(format_args!("{name:?}"), why));
    }
    Ok(name.to_owned())
}

fn read_code(root: &Section, dir: &Path) -> Result<Code> {
    let (key, item) = match (root.get("source"), root.get("code_object")) {
        (Some(item), None) => ("source", item),
        (None, Some(item)) => ("code_object", item),
        (Some(_), Some(item)) => {
            let value = format_args!("\"{}\"", item.string("a path")?).to_string();
            return Err(item.bad(value, "there is a `source` too; keep one of them"));
        }
        (None, None) => {
            return Err(root.missing("source", "source = \"kernel.hip\", or a code_object"));
        }
    };
    let text = item.string("a path relative to the manifest, such as \"attention.hip\"")?;
    let path = dir.join(text);
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let is_object = OBJECT_ENDINGS.contains(&ending);
    let quoted = format!("\"{text}\"");
    match key {
        _ if text.is_empty() => Err(item.bad(quoted, "the path is empty; name a file")),
        "source" if is_object => {
            Err(item.bad(quoted, "this is a code object; write it as `code_object`"))
        }
        "source" => Ok(Code::Source(path)),
        _ if !is_object => {
            Err(item.bad(quoted, "a code object ends in .hsaco, .co, .cubin or .ptx"))
        }
        _ => match ["defines", "include_dirs"].into_iter().find_map(|key| root.get(key)) {
            Some(other) => {
                let why = "a code object is compiled already; remove this, or give the `source`";
                Err(other.bad("{…}", why))
            }
            None => Ok(Code::Object(path)),
        },
    }
}

fn read_dirs(item: &Item, dir: &Path) -> Result<Vec<PathBuf>> {
    let list = item.list("a list of folders, such as [\"include\"]")?;
    list.iter().map(|i| Ok(dir.join(i.string("a folder, such as \"include\"")?))).collect()
}

fn check_identifier(item: &Item, name: &str) -> Result<()> {
    if is_identifier(name) {
        return Ok(());
    }
    Err(item.bad(
        format_args!("`{name}`"),
        "the name is no identifier; use letters, digits and _, and start with no digit",
    ))
}

fn read_params(root: &Section, stage: Stage) -> Result<Vec<Param>> {
    let mut params = Vec::new();
    let section = root.get("params").map(|i| i.table("a table [params]")).transpose()?;
    for (name, item) in section.iter().flat_map(Section::entries) {
        check_identifier(item, name)?;
        if is_taken(name, stage) {
            let why = "expressions have this name already; call the tunable otherwise";
            return Err(item.bad(format_args!("`{name}`"), why));
        }
        let want = "a list of integers, such as [1, 2, 4]";
        let mut values = Vec::new();
        for item in item.filled_list(want)? {
            let value = item.integer("an integer, such as 4")?;
            if values.contains(&value) {
                return Err(item.bad(value, "it is in the list already; remove one"));
            }
            // The parts of a head, in whichever stage: each is a block, and a row of memory.
            let parts = usize::try_from(value).ok();
            if name == "splits" && !parts.is_some_and(|s| (1..=MAX_SPLITS).contains(&s)) {
                let why = format!("a head has between 1 and {MAX_SPLITS} parts; write fewer");
                return Err(item.bad(value, why));
            }
            values.push(value);
        }
        params.push(Param { name: name.to_owned(), values });
    }
    if stage.has_splits() && !params.iter().any(|p| p.name == "splits") {
        // The parts' shape is [batch, num_heads, splits, head_dim]: somebody must say how many.
        let mend = "splits = [1, 2, 8] under [params]: that many parts a head";
        return Err(root.missing("params.splits", mend));
    }
    Ok(params)
}

fn read_rule(root: &Section, stage: Stage, params: &[Param]) -> Result<Vec<(String, Expr)>> {
    let mut rules: Vec<(String, Expr)> = Vec::new();
    let section = root.get("rule").map(|i| i.table("a table [rule]")).transpose()?;
    let is_param = |name: &str| params.iter().any(|p| p.name == name);
    for (name, item) in section.iter().flat_map(Section::entries) {
        check_identifier(item, name)?;
        if !is_param(name) && is_taken(name, stage) {
            let why = "expressions have this name already; call the value otherwise";
            return Err(item.bad(format_args!("`{}`", clip(name)), why));
        }
        let expr = item.expression()?;
        let before = rules.iter().map(|(name, _)| name.as_str());
        let known: Vec<&str> = VARIABLES
            .iter()
            .chain(stage.variables())
            .copied()
            .chain(DEVICE_VARIABLES)
            .chain(before)
            .collect();
        check_expr(item, &expr, &known)?;
        rules.push((name.to_owned(), expr));
    }
    // What is no tunable is a step to one: else it is a tunable's name with a mistake in it.
    for (name, item) in section.iter().flat_map(Section::entries) {
        let is_read = rules.iter().any(|(_, expr)| expr.names().iter().any(|read| read == name));
        if !is_param(name) && !is_read {
            let why =
                "there is no such tunable in [params], and no later rule reads it; mend the name";
            return Err(item.bad(format_args!("`{}`", clip(name)), why));
        }
    }
    Ok(rules)
}

/// Whether expressions have a name already.
fn is_taken(name: &str, stage: Stage) -> bool {
    VARIABLES.contains(&name)
        || DEVICE_VARIABLES.contains(&name)
        || stage.variables().contains(&name)
        || FUNCTIONS.contains(&name)
        || TYPE_NAMES.contains(&name)
}

fn read_scratch(root: &Section, known: &[&str]) -> Result<Vec<Scratch>> {
    let mut list: Vec<Scratch> = Vec::new();
    let section = root.get("scratch").map(|i| i.table("a table [scratch]")).transpose()?;
    for (name, item) in section.iter().flat_map(Section::entries) {
        check_identifier(item, name)?;
        if name == NULL || name.parse::<Pointer>().is_ok() {
            let why = "a pointer has this name already; call the scratch buffer otherwise";
            return Err(item.bad(format_args!("`{name}`"), why));
        }
        let scratch = Scratch::read(name, item)?;
        check_expr(item, &scratch.elements, known)?;
        list.push(scratch);
    }
    Ok(list)
}

fn check_expr(item: &Item, expr: &Expr, known: &[&str]) -> Result<()> {
    expr.check(known.iter().copied()).map_err(|e| item.bad_text(e))
}

fn check_template(item: &Item, template: Template, known: &[&str]) -> Result<Template> {
    for expr in template.exprs() {
        check_expr(item, expr, known)?;
    }
    Ok(template)
}

fn read_defines(root: &Section, known: &[&str]) -> Result<Vec<Define>> {
    let mut defines = Vec::new();
    let want = "a table such as { TILE = 32 }";
    let section = root.get("defines").map(|i| i.table(want)).transpose()?;
    for (name, item) in section.iter().flat_map(Section::entries) {
        check_identifier(item, name)?;
        let text = match item.as_integer() {
            Some(integer) => Template::literal(integer?.to_string()),
            None => {
                let text = item.string("an integer or a string, such as \"{kv}\"")?;
                let template = Template::parse_define(text).map_err(|e| item.bad_text(e))?;
                check_template(item, template, known)?
            }
        };
        defines.push(Define { name: name.to_owned(), text });
    }
    Ok(defines)
}

fn read_launches(
    root: &Section,
    stage: Stage,
    scratch: &[Scratch],
    known: &[&str],
) -> Result<Vec<LaunchSpec>> {
    let want = "a list of tables; write [[launch]] with two brackets";
    let list = root.require("launch", "a table [[launch]] with entry, args, grid and block")?;
    list.filled_list(want)?
        .iter()
        .map(|item| read_launch(&item.table("a table [[launch]]")?, stage, scratch, known))
        .collect()
}

fn read_launch(
    section: &Section,
    stage: Stage,
    scratch: &[Scratch],
    known: &[&str],
) -> Result<LaunchSpec> {
    section.keys(&["entry", "args", "grid", "block", "shared_bytes"])?;
    let item = section.require("entry", "entry = \"my_kernel\"")?;
    let text = item.string("a name expression, such as \"flash_decode<{kv}>\"")?;
    if text.trim().is_empty() {
        return Err(item.bad(format_args!("{text:?}"), "the name is empty; name a kernel"));
    }
    let entry = Template::parse(text).map_err(|e| item.bad_text(e))?;
    let entry = check_template(item, entry, known)?;

    let want = "a list of arguments, such as [\"q\", \"k\", \"v\", \"out\"]";
    let mut args = Vec::new();
    for item in section.require("args", want)?.filled_list(want)? {
        let arg = ArgSpec::read(&item, stage, scratch)?;
        if let ArgSpec::Scalar { expr, .. } = &arg {
            check_expr(&item, expr, known)?;
        }
        args.push(arg);
    }
    let expression = |item: &Item| {
        let expr = item.expression()?;
        check_expr(item, &expr, known)?;
        if expr.names().is_empty() {
            // A constant is checked now; anything else when there is a case.
            let value = expr.eval_int(&item.key, &|_| None).map_err(|e| item.bad_text(e))?;
            u32::try_from(value).map_err(|_| {
                item.bad(value, format_args!("it must be between 0 and {}", u32::MAX))
            })?;
        }
        Ok(expr)
    };
    let triple = |key: &str, example: &str| {
        let want = format!("a list of three, such as {example}");
        let item = section.require(key, &format!("{key} = {example}"))?;
        let list = item.list(&want)?;
        let count = list.len();
        <[Item; 3]>::try_from(list)
            .map_err(|_| item.bad(format_args!("{count} elements"), format_args!("write {want}")))
    };
    let [gx, gy, gz] = triple("grid", "[\"num_heads\", 1, \"batch\"]")?;
    let [bx, by, bz] = triple("block", "[64, 1, 1]")?;
    Ok(LaunchSpec {
        line: section.line(),
        entry,
        args,
        grid: [expression(&gx)?, expression(&gy)?, expression(&gz)?],
        block: [expression(&bx)?, expression(&by)?, expression(&bz)?],
        shared_bytes: match section.get("shared_bytes") {
            Some(item) => expression(item)?,
            None => Expr::constant(0),
        },
    })
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
