//! Every fault of the catalogue, injected with random parameters into random captures, is named, or
//! listed where it coincides with what is.

use super::capture::Capture;
use super::diagnosis;
use super::inject::{IDS, Injected, inject};
use crate::support::cases::{count, parallel};
use attnbench::data::random::Stream;
use attnbench::judge::diagnose::catalogue::Params;
use attnbench::judge::diagnose::{Diagnosis, Verdict};
use std::collections::BTreeMap;

/// How an injected fault came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    /// It is the name that was given.
    Named,
    /// It is listed beside what was named.
    Listed,
    /// It makes no difference there, and is listed beside the right answer.
    Clean,
    /// A row that is gone would explain it, and heads so much alike cannot prove that.
    Unproven,
}

/// Whether a diagnosis names a fault with its parameters, or lists it.
fn came(d: &Diagnosis, injected: &Injected) -> Option<Came> {
    let is = |fault: &str, params: &Params| {
        let same = |(key, value): &(&'static str, String)| {
            params.get(key).is_some_and(|p| p.to_string() == *value)
        };
        fault == injected.id && injected.params.iter().all(same)
    };
    let listed =
        d.equivalent.iter().any(|e| is(&e.fault, &e.params)) || d.more.contains_key(injected.id);
    match d.verdict {
        Verdict::Explained | Verdict::Ambiguous if is(d.fault.as_deref()?, &d.params) => {
            Some(Came::Named)
        }
        Verdict::Explained | Verdict::Ambiguous => listed.then_some(Came::Listed),
        Verdict::Clean => listed.then_some(Came::Clean),
        Verdict::Unexplained if injected.params.iter().any(|(_, value)| value == "former") => {
            d.note.contains("a row that is gone would").then_some(Came::Unproven)
        }
        _ => None,
    }
}

/// Six cases are tried for each that `PROPTEST_CASES` asks of a property.
#[test]
fn whatever_fault_was_injected_is_named_or_listed() {
    let cases = count() * 6;
    let results = parallel(cases, |index| {
        let id = IDS[index % IDS.len()];
        for attempt in 0..200 {
            let mut r = Stream::new(31, &[index as u64, attempt]);
            let capture = match id {
                // An index is cut to 8 bits at least.
                "index_bits" => Capture::sized(&mut r, &[400]),
                _ => Capture::random(&mut r),
            };
            let Some(injected) = inject(&capture, id, &mut r) else { continue };
            let d = diagnosis(&capture.slice(&injected.out));
            let came = came(&d, &injected);
            assert!(
                came.is_some(),
                "case {index}.{attempt}: {id} {:?} came out as {:?} {:?} {:?}, ratio {}; equivalent \
                 {:?}; closest {:?}\n{}\nheads {}/{} dims {}/{} lens {:?} cap {} layer {}/{} window \
                 {} softcap {} sinks {} {:?}/{:?} k {} v {} padded {} {} out {:?}",
                injected.params,
                d.verdict,
                d.fault,
                d.params,
                d.fit.ratio,
                d.equivalent.iter().map(ToString::to_string).collect::<Vec<_>>(),
                d.candidates.iter().map(|c| format!("{c} {:.2e}", c.fit.ratio)).collect::<Vec<_>>(),
                d.note,
                capture.num_heads,
                capture.num_kv_heads,
                capture.head_dim,
                capture.head_dim_v,
                capture.lens,
                capture.capacity,
                capture.layer,
                capture.layers,
                capture.window,
                capture.softcap,
                capture.sinks.is_some(),
                capture.k.dtype,
                capture.out_dtype,
                capture.k.layout,
                capture.v.layout,
                capture.k.padded,
                capture.v.padded,
                capture.out_dtype,
            );
            return (id, came, d.verdict);
        }
        panic!("no capture shows {id}");
    });
    let mut tally: BTreeMap<(&str, Option<Came>), usize> = BTreeMap::new();
    for (id, came, _) in &results {
        *tally.entry((*id, *came)).or_default() += 1;
    }
    let ambiguous = results.iter().filter(|(.., v)| *v == Verdict::Ambiguous).count();
    println!("{cases} injected faults, {ambiguous} of them ambiguous");
    for id in IDS {
        let of = |came| tally.get(&(id, Some(came))).copied().unwrap_or(0);
        let (named, listed, clean) = (of(Came::Named), of(Came::Listed), of(Came::Clean));
        let unproven = of(Came::Unproven);
        println!(
            "{id:24} named {named:4}  listed {listed:4}  no difference {clean:4}  unproven {unproven:4}"
        );
        assert!(named > unproven, "{id} is hardly ever named");
    }
}
