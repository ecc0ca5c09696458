//! The runs of a case side by side, on a device on which several cost hardly more than one.

use super::super::law::Posed;
use super::{Observed, Planned, Seen, Trial, TrialError};
use crate::data::image::{Image, Poisons, Role, Stray};
use crate::data::inputs::Inputs;
use crate::device::{
    ARENA_ALIGN, Arg, Fault, Launch, MOST_EXCHANGES, MOST_SIDE_BY_SIDE, RunError, Stretch,
};
use crate::problem::Case;

/// Runs that were made side by side: the three of a case, and those of its law.
pub(super) struct Beside {
    /// Of each of the three, the first byte of the arena that it changed and might not.
    pub(super) changed: Vec<Option<usize>>,
    /// Where each of the three begins in the arena.
    pub(super) at: [usize; 3],
    /// What the law's came to; `None` where they were not among them.
    pub(super) observed: Option<Vec<Vec<Observed>>>,
}

/// Bytes of images that are run side by side: of larger ones each run is long enough alone.
const MOST_BESIDE: usize = 80 << 20;

/// A run on the stretch of the arena that begins at a byte.
fn stretch(image: &Image, launches: &[Launch], at: usize) -> Stretch {
    let shift = |arg: &Arg| match *arg {
        Arg::Address(byte) => Arg::Address(byte + at),
        other => other,
    };
    let shifted = |launch: &Launch| Launch {
        args: launch.args.iter().map(shift).collect(),
        ..launch.clone()
    };
    let of_role = |role: Role| {
        let buffers = image.buffers().iter().filter(move |buffer| buffer.role == role);
        buffers.map(|buffer| buffer.range.start + at..buffer.range.end + at).collect()
    };
    Stretch {
        bytes: at..at + image.size().next_multiple_of(ARENA_ALIGN),
        launches: launches.iter().map(shifted).collect(),
        outputs: of_role(Role::Output),
        scratch: of_role(Role::Scratch),
    }
}

impl Trial {
    /// The three runs of a case and those of its law at once, side by side in the arena, where the
    /// device gains by it. `None` where it does not, or a fault ended one of them: then they are to be
    /// made one after another, and the fault is the case's, even if it does not come back.
    pub(super) fn run_side_by_side(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        image: &Image,
        launches: &[Launch],
        posed: Option<&Posed>,
    ) -> Result<(Option<Beside>, Option<Fault>), TrialError> {
        if self.device.side_by_side().is_none() {
            return Ok((None, None));
        }
        // What cannot be planned is told when it comes to it.
        let plans = posed.map(|posed| posed.runs.iter().map(|(other, _)| self.plan(other)));
        let plans: Vec<Planned> =
            plans.and_then(|plans| plans.collect::<Result<_, _>>().ok()).unwrap_or_default();
        let room = |image: &Image| image.size().next_multiple_of(ARENA_ALIGN);
        let laws: Vec<_> = posed
            .iter()
            .flat_map(|posed| &posed.runs)
            .zip(&plans)
            .map(|(run, plan)| (&run.0, &run.1, &plan.image, &plan.launches[..], Poisons::RUNS[2]))
            .collect();
        let own = Poisons::RUNS.map(|poisons| (case, inputs, image, launches, poisons));
        // The device makes as many of the three as it can, from one with NaN for poison. First lies that
        // one, then what else is written here, then what is made.
        let told_apart = !inputs.hold_poison() && 3 * image.buffers().len() <= MOST_EXCHANGES;
        let is_made = Poisons::RUNS.map(|poisons| told_apart && image.is_exchanged(case, poisons));
        let mut end = 0;
        let mut take = |image: &Image| {
            end += room(image);
            end - room(image)
        };
        let base = told_apart.then(|| take(image));
        let mut at = [0; 3];
        let (made, written): (Vec<_>, Vec<_>) = (0..3).partition(|run: &usize| is_made[*run]);
        written.into_iter().for_each(|run| at[run] = take(image));
        let of_laws: Vec<usize> = laws.iter().map(|(_, _, image, ..)| take(image)).collect();
        made.into_iter().for_each(|run| at[run] = take(image));
        if end > MOST_BESIDE || own.len() + laws.len() > MOST_SIDE_BY_SIDE {
            return Ok((None, None));
        }
        let kernel = self.manifest.name.clone();
        let refused = |source| TrialError::Run { kernel: kernel.clone(), source };
        let arena = self.device.arena(end).map_err(&refused)?;
        if let Some(base) = base {
            image.write(case, inputs, Poisons::NAN, &mut arena[base..base + image.size()]);
        }
        let (mut runs, mut exchanges) = (Vec::new(), Vec::new());
        let is_made = is_made.into_iter().chain(laws.iter().map(|_| false));
        let places = at.iter().chain(&of_laws).zip(is_made);
        for (&(case, inputs, image, launches, poisons), (&at, is_made)) in
            own.iter().chain(&laws).zip(places)
        {
            match base.filter(|_| is_made) {
                Some(base) => exchanges.extend(image.exchanges(poisons, base, at)),
                None => image.write(case, inputs, poisons, &mut arena[at..at + image.size()]),
            }
            runs.push(stretch(image, launches, at));
        }
        let limit = self.time_limit.of(case, launches, self.device.slowdown()).whole;
        let Some(device) = self.device.side_by_side() else { return Ok((None, None)) };
        let changed = match device.run(&runs, &exchanges, limit) {
            Ok(changed) => changed,
            Err(RunError::Fault(fault)) => return Ok((None, Some(fault))),
            Err(source) => return Err(refused(source)),
        };
        let mut observed = Vec::new();
        for (run, (case, _, image, ..)) in runs[own.len()..].iter().zip(&laws) {
            self.seen = Seen::Beside(run.bytes.start);
            observed.push(self.observed(case, image, &self.judged(case))?);
        }
        let observed = (!plans.is_empty()).then_some(observed);
        Ok((Some(Beside { changed, at, observed }), None))
    }

    /// The first byte that the run that is looked at changed and might not have. `changed`: what the
    /// device has seen outside of the outputs, of a run beside others.
    pub(super) fn stray_write(
        &mut self,
        image: &Image,
        changed: Option<usize>,
    ) -> Result<Option<Stray>, TrialError> {
        let Seen::Beside(at) = self.seen else {
            let before = std::mem::take(&mut self.before);
            let stray = image.stray_write(&before, self.after(image)?);
            self.before = before;
            return Ok(stray);
        };
        let own = at..at + image.size();
        let outside = changed.map(|byte| image.stray_at(byte - at));
        let Some(device) = self.device.side_by_side() else { return Ok(outside) };
        if outside.is_some() {
            return Ok(outside);
        }
        for buffer in image.buffers().iter().filter(|buffer| buffer.role == Role::Output) {
            device.exchange(buffer.range.start + at..buffer.range.end + at);
        }
        let (before, after) = (&device.given()[own.clone()], &device.left()[own]);
        Ok(image.stray_in_outputs(before, after))
    }
}
