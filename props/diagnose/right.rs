//! Right outputs, computed in every honest way, are clean.

use super::capture::Capture;
use super::{diagnosis, inject};
use crate::support::cases::{Head, count, parallel};
use crate::support::honest::WAYS;
use attnbench::data::random::Stream;
use attnbench::judge::diagnose::Verdict;
use attnbench::problem::DType;

/// The rows that a head of a capture attends, in f32.
struct Rows {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

fn rows(c: &Capture, s: usize, h: usize) -> Rows {
    let (n, g) = (c.lens[s], h / c.group());
    let first = if c.window == 0 { 0 } else { n.saturating_sub(c.window) };
    let of = |cache: &super::capture::Cache| {
        let mut rows = Vec::new();
        for n in first..n {
            for d in 0..cache.dim {
                let at = [('S', s), ('L', c.layer), ('H', g), ('N', n), ('D', d)];
                rows.push(cache.values[cache.address(at)] as f32);
            }
        }
        rows
    };
    Rows { q: c.query(s, h).iter().map(|x| *x as f32).collect(), k: of(&c.k), v: of(&c.v) }
}

/// f64 rounded once, online softmax in f32, splits, other orders, P narrowed, in f32, f16 and bf16
/// outputs: not one is anything but clean.
#[test]
fn every_right_output_is_clean() {
    let cases = count() * 10;
    let checked = parallel(cases, |index| {
        let mut r = Stream::new(47, &[index as u64]);
        let capture = Capture::random(&mut r);
        // The ways of a kernel that accumulates in 16 bits need its promise, which these files
        // do not make.
        let ways: Vec<_> = WAYS.iter().filter(|w| w.accumulate == DType::F32).collect();
        let way = r.below(ways.len() + 1);
        let (name, out) = match ways.get(way) {
            None => ("f64, rounded", inject::right(&capture)),
            Some(way) => {
                let mut out = Vec::new();
                for s in 0..capture.lens.len() {
                    for h in 0..capture.num_heads {
                        let rows = rows(&capture, s, h);
                        let head = Head {
                            q: &rows.q[..],
                            k: &rows.k,
                            v: &rows.v,
                            head_dim_v: capture.head_dim_v,
                            scale: f64::from(capture.scale),
                            softcap: f64::from(capture.softcap),
                            sink: capture.sinks.as_ref().map(|sinks| f64::from(sinks[h])),
                        };
                        out.extend(way.attend(&head).out.iter().map(|x| f64::from(*x)));
                    }
                }
                (way.name, out)
            }
        };
        let d = diagnosis(&capture.slice(&out));
        assert!(
            d.verdict == Verdict::Clean,
            "case {index}, {name}: {:?} {:?} {:?}\n{}",
            d.verdict,
            d.fault,
            d.params,
            d.note
        );
        d.fit.ratio
    });
    let largest = checked.iter().copied().fold(0.0, f64::max);
    println!("{cases} right outputs, all clean; the largest error is {largest:.3} of its bound");
}
