//! The suite of planted faults, under every compiler and wave size that is here.

use std::collections::BTreeMap;

use super::*;

/// A kernel of the suite, as its `//@` line has it.
#[derive(Debug)]
struct Planted {
    name: String,
    shape: Shape,
    wants: Class,
    also: Option<Class>,
    /// Who may be named: ranges of linear thread numbers in which `W` is the wave size.
    threads: String,
    blocks: Option<u32>,
    wave: Option<u32>,
    endless: bool,
    /// Elements of `out` that must be written; then nothing else is looked for.
    must: Option<usize>,
    /// Whether a line must be named.
    marked: bool,
    /// The marked lines.
    lines: Vec<u32>,
}

fn class(name: &str) -> Class {
    Class::ALL.into_iter().find(|class| class.name() == name).unwrap_or_else(|| panic!("{name}"))
}

/// The kernels of a file.
fn read(file: &Path) -> Vec<Planted> {
    let text = std::fs::read_to_string(file).expect("a file of the suite");
    let mut found: Vec<Planted> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(words) = line.strip_prefix("//@ ") {
            let mut words = words.split_whitespace();
            let name = words.next().expect("a name").to_owned();
            let mut keys: BTreeMap<&str, &str> =
                words.map(|word| word.split_once('=').expect("key=value")).collect();
            let mut take = |key: &str| keys.remove(key);
            let number = |text: &str| text.parse::<i32>().unwrap_or_else(|_| panic!("{text}"));
            let mut size = |key: &str| take(key).map_or(0, |text| number(text) as u32);
            let shape = Shape {
                grid: size("grid"),
                block: size("block"),
                shared: size("shared"),
                n: size("n").cast_signed(),
            };
            found.push(Planted {
                shape,
                wants: class(take("wants").expect("wants")),
                also: take("also").map(class),
                threads: take("threads").unwrap_or("").to_owned(),
                blocks: take("blocks").map(|b| number(b) as u32),
                wave: take("waves").map(|w| number(w) as u32),
                endless: take("endless").is_some(),
                must: take("must").map(|n| number(n) as usize),
                marked: take("line").is_none(),
                lines: Vec::new(),
                name,
            });
            take("cuda");
            assert!(keys.is_empty(), "{}: {keys:?}", file.display());
        } else if line.trim_end().ends_with("//!") {
            found.last_mut().expect("a kernel before its mark").lines.push(number);
        }
    }
    found
}

/// How a kernel of a file is launched.
pub fn shape(file: &Path, name: &str) -> Shape {
    read(file).into_iter().find(|p| p.name == name).unwrap_or_else(|| panic!("{name}")).shape
}

impl Planted {
    fn may_be(&self, thread: u32, wave: u32) -> bool {
        let term = |text: &str| -> u32 {
            let text = text.trim();
            let (head, rest) = match text.strip_prefix('W') {
                Some(rest) => (wave, rest),
                None => match text.strip_suffix('W') {
                    Some(times) => {
                        (times.trim_end_matches('*').parse::<u32>().expect(text) * wave, "")
                    }
                    None => return text.parse().unwrap_or_else(|_| panic!("{text}")),
                },
            };
            let value = |digits: &str| digits.parse::<u32>().unwrap_or_else(|_| panic!("{text}"));
            match rest.chars().next() {
                None => head,
                Some('+') => head + value(&rest[1..]),
                Some('-') => head - value(&rest[1..]),
                Some('/') => head / value(&rest[1..]),
                Some('*') => head * value(&rest[1..]),
                _ => panic!("{text}"),
            }
        };
        self.threads.split(',').any(|part| match part.split_once("..") {
            Some((a, b)) => (term(a)..=term(b)).contains(&thread),
            None => term(part) == thread,
        })
    }

    /// What is amiss with the findings of the faulty kernel; `None` if they are as they must be.
    fn amiss(&self, found: &[Finding], wave: u32) -> Option<&'static str> {
        let own = |f: &&Finding| f.kind.class() == self.wants;
        let is_marked = |line: u32| !self.marked || self.lines.contains(&line);
        if !found.iter().any(|f| own(&f)) {
            return Some("not found");
        }
        if found.iter().any(|f| !own(&f) && Some(f.kind.class()) != self.also) {
            return Some("another class is found too");
        }
        let of_line = || found.iter().filter(own).filter(|f| is_marked(f.site.line.line));
        if of_line().next().is_none() {
            return Some("at another line");
        }
        if found.iter().filter(own).any(|f| !is_marked(f.site.line.line)) {
            return Some("at another line too");
        }
        let in_thread = |f: &&Finding| {
            let block = f.place.map_or(0, |p| p.block[0]);
            self.may_be(f.thread, wave) && self.blocks.is_none_or(|b| b == block)
        };
        let other = |f: &&Finding| {
            f.other
                .as_ref()
                .is_none_or(|o| is_marked(o.site.line.line) && self.may_be(o.place.thread[0], wave))
        };
        (!of_line().any(|f| in_thread(&f) && other(&f))).then_some("in another thread")
    }
}

#[test]
fn planted_faults_are_found_at_their_lines_and_their_twins_are_silent() {
    let only = std::env::var("ATTNBENCH_PLANTED").unwrap_or_default();
    let mut failures = Vec::new();
    let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
    let jobs: Vec<(usize, Class, u32)> = (0..devices().len())
        .flat_map(|d| Class::ALL.map(|class| (d, class)))
        .flat_map(|(d, class)| [32, 64].map(|wave| (d, class, wave)))
        .collect();
    let work = |(d, class, wave): (usize, Class, u32)| {
        let file = folder().join(format!("{class}.hip"));
        let kernels = read(&file);
        let mut device = devices().swap_remove(d);
        let named = |p: &Planted| [format!("{}<true>", p.name), format!("{}<false>", p.name)];
        let entries = kernels.iter().flat_map(named).collect();
        let module =
            device.compile(&source(&file, entries, wave)).unwrap_or_else(|e| panic!("{e:?}"));
        let mut failures = Vec::new();
        for (i, p) in kernels.iter().enumerate().filter(|(_, p)| p.name.contains(&only)) {
            for (twin, seed) in [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)] {
                let limit =
                    Duration::from_millis(if p.endless && twin == 0 { 400 } else { 10_000 });
                let (result, found) = run(&mut device, &module, 2 * i + twin, p.shape, seed, limit);
                let faulty = twin == 0 && p.wave.is_none_or(|w| w == wave);
                let amiss = match p.must {
                    Some(must) => unwritten(&device, p, must, wave, faulty),
                    None if faulty => p.amiss(&found, wave),
                    None => (result.is_err() || !found.is_empty()).then_some("a clean kernel"),
                };
                if let Some(amiss) = amiss {
                    let list: Vec<String> = found.iter().map(in_a_line).collect();
                    failures.push(format!(
                        "{} {}<{}> wave {wave} seed {seed}: {amiss}: {result:?}\n      {}",
                        device.describe(),
                        p.name,
                        twin == 0,
                        list.join("\n      ")
                    ));
                    break;
                }
            }
        }
        (class, kernels.len(), failures)
    };
    // Two at a time: a compilation each.
    for pair in jobs.chunks(2) {
        let done = std::thread::scope(|scope| {
            let running: Vec<_> = pair.iter().map(|job| scope.spawn(|| work(*job))).collect();
            running.into_iter().map(|r| r.join().expect("a test thread")).collect::<Vec<_>>()
        });
        for (class, count, failed) in done {
            counts.insert(class, count);
            failures.extend(failed);
        }
    }
    println!("planted: {counts:?}");
    assert!(failures.is_empty(), "{} amiss\n{}", failures.len(), failures.join("\n"));
    assert!(counts.values().all(|n| *n >= 6) && counts.values().sum::<usize>() >= 40, "{counts:?}");
}

/// Whether exactly the named threads' elements are left unwritten.
fn unwritten(
    device: &CpuDevice,
    p: &Planted,
    must: usize,
    wave: u32,
    faulty: bool,
) -> Option<&'static str> {
    let map = device.accessed().expect("a checked device");
    let [out, ..] = offsets();
    let left: Vec<usize> = (0..must).filter(|i| map[out + 4 * i] & access::INIT == 0).collect();
    let named = |i: &usize| p.may_be(*i as u32 % p.shape.block, wave);
    match faulty {
        true if left.is_empty() => Some("all is written"),
        true if !left.iter().all(named) => Some("in another thread"),
        false if !left.is_empty() => Some("something is left unwritten"),
        _ => None,
    }
}
