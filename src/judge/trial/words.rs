//! What a run showed, in words.

use super::super::compare::{Comparison, Where, place};
use crate::data::image::{Image, Poisons};
use crate::device::Fault;
use crate::oracle::Expected;
use crate::problem::{Case, Pointer, Stage};

pub(super) fn fault_in_words(fault: &Fault, image: &Image) -> (&'static str, String) {
    match fault {
        Fault::Crash { arena_offset: Some(at), .. } => {
            let place = match usize::try_from(*at) {
                Ok(byte) => image.describe(byte),
                Err(_) => format!("{} bytes before all buffers", -at),
            };
            ("crash", format!("{fault}; the address lies {place}"))
        }
        Fault::Crash { .. } | Fault::StackOverwritten { .. } => ("crash", fault.to_string()),
        Fault::Timeout { .. } => ("timeout", fault.to_string()),
        Fault::Deadlock { .. } => ("deadlock", fault.to_string()),
        Fault::SharedOverrun { .. } => ("shared-overrun", fault.to_string()),
        Fault::Trap { .. } => ("trap", fault.to_string()),
        Fault::Found => ("sanitize", fault.to_string()),
    }
}

/// `oracle` for the stage's main output, `oracle/NAME` for another.
pub(super) fn property_of(expected: &Expected, output: Pointer) -> &'static str {
    match output {
        main if expected.outputs.first().is_some_and(|(p, _)| *p == main) => "oracle",
        Pointer::Lse => "oracle/lse",
        Pointer::Residual => "oracle/residual",
        Pointer::V => "oracle/v",
        _ => "oracle",
    }
}

/// An element of an output in words.
pub(in crate::judge) fn element_in_words(case: &Case, output: Pointer, at: Where) -> String {
    let Where { batch, head, token, d } = at;
    match (output, case.stage) {
        (Pointer::Lse, _) => format!("lse[{batch}, {head}]"),
        (Pointer::Scores | Pointer::Probs, _) => format!("{output}[{batch}, {head}, {token}]"),
        (Pointer::K | Pointer::V, _) => {
            format!("{output}[sequence {batch}, KV head {head}, token {token}, element {d}]")
        }
        (_, Stage::Prefill) => format!("out[{batch}, {token}, {head}, {d}]"),
        (_, Stage::HeadCombine | Stage::Norm) => format!("{output}[{batch}, {d}]"),
        (_, Stage::Split) => format!("out[{batch}, {head}, {d}], of the parts put together,"),
        _ => format!("{output}[{batch}, {head}, {d}]"),
    }
}

pub(super) fn wrong_in_words(case: &Case, c: &Comparison, poisons: Poisons) -> String {
    format!(
        "{} is {:.9e}, must be {:.9e} within {:.2e} ({} elements wrong; poison {poisons})",
        element_in_words(case, c.output, c.at),
        c.got,
        c.want,
        c.bound,
        c.wrong
    )
}

pub(super) fn repeat_in_words(
    case: &Case,
    image: &Image,
    judged: &[Pointer],
    first: &[u8],
    again: &[u8],
) -> String {
    let mut byte = first.iter().zip(again).position(|(a, b)| a != b).unwrap_or(0);
    let mut what = "an output".to_owned();
    for output in judged {
        let (elements, size) = match case.stage {
            // As merged, in f64.
            Stage::Split if *output == Pointer::Lse => (case.batch() * case.num_heads, 8),
            Stage::Split => (case.batch() * case.num_heads * case.head_dim_v, 8),
            _ => {
                let output = image.output(*output);
                (output.runs.iter().map(|r| r.count).sum(), output.dtype.size())
            }
        };
        if byte < elements * size {
            what = element_in_words(case, *output, place(case, image, *output, byte / size));
            break;
        }
        byte -= elements * size;
    }
    format!(
        "{what} has other bits on a repeat with another order of threads and other poison in what \
         the kernel must not read"
    )
}
