//! The search: every member of every family, and pairs of them, against the heads that are wrong.
//!
//! The head whose weight is spread over the most keys comes first: it tells hypotheses apart best,
//! and most of them end there. A member that would read outside a buffer is rejected, never clamped.

use super::catalogue::{Change, FAULTS, Fault, Member, Params, Rank, Search as Family};
use super::check::{Candidate, Checked};
use super::predict::{Fit, Prediction, fit, right, runs};
use super::problem::{Problem, Task};
use super::profile::{Hypothesis, Probe};
use super::ranges::{Left, Screen, screen};
use super::recipe::{Aspect, Cache, Combine, End, How, Parts, Reading, Recipe, RowMap};
use super::{infer, members};
use crate::device::interrupt;
use std::collections::BTreeMap;

/// Elements of the output on which a member is tried before it is judged in full.
const FIRST_LOOK: usize = 8;
/// Members of a family that pass the screen and are judged in full; the others coincide as well
/// as the screen can tell.
const JUDGED: usize = 64;
/// Default members of a family that a profile tries.
const DEFAULTS: usize = 8;
/// The closest of what does not fit that are judged in full.
const CLOSEST: usize = 5;

/// How many predictions of an id were tried, and how many of them were rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Members of the family.
    pub tried: usize,
    /// Those that would have read outside a buffer.
    pub out_of_range: usize,
}

/// What speaks for a finding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Elements of wrong outputs of which the prediction and the right answer differ by more than
    /// both bounds, and of which the prediction's own bound is small beside its values.
    pub telling: usize,
    /// Elements of which the prediction's own bound is that small.
    pub narrow: usize,
    /// Whether those elements prove something: there are some, and they are not one number for
    /// which any address would do, nor zeros.
    pub tells: bool,
}

/// A fault, or two, with what it makes of the outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Indices in [`FAULTS`], ascending.
    pub faults: Vec<usize>,
    /// The parameters of all.
    pub params: Params,
    /// How it compares on the heads that are wrong.
    pub fit: Fit,
    /// Whether it is right about the others as well.
    pub everywhere: bool,
    /// What speaks for it.
    pub evidence: Evidence,
    /// How it ranks among those that fit.
    pub order: (Rank, usize),
    /// How it computes an output.
    pub recipe: Recipe,
}

impl Finding {
    /// The ids, `a+b` for a pair.
    pub fn id(&self) -> String {
        let ids: Vec<&str> = self.faults.iter().map(|i| FAULTS[*i].id).collect();
        ids.join("+")
    }
}

/// What a search came to.
#[derive(Debug, Clone, Default)]
pub struct Searched {
    /// What fits, the preferred first.
    pub fits: Vec<Finding>,
    /// What came closest, the closest first.
    pub closest: Vec<Finding>,
    /// By id.
    pub tried: BTreeMap<String, Tried>,
    /// Members that fit as well as the screen can tell, and were not judged in full, by id.
    pub more: BTreeMap<&'static str, usize>,
}

impl Searched {
    /// Predictions tried in all.
    pub fn total(&self) -> usize {
        self.tried.values().map(|t| t.tried).sum()
    }

    fn sort(&mut self) {
        self.fits.sort_by_key(|f| (!f.evidence.tells, !f.everywhere, f.order));
        self.closest.sort_by(|a, b| {
            a.fit.ratio.total_cmp(&b.fit.ratio).then(a.fit.mae.total_cmp(&b.fit.mae))
        });
        self.closest.truncate(CLOSEST);
    }
}

/// A search over the outputs of a problem.
pub struct Search<'p, 'a> {
    problem: &'p Problem<'a>,
    right: Recipe,
    /// The units to be explained, those that tell the most first.
    wrong: Vec<usize>,
    /// The others.
    others: Vec<usize>,
    prediction: Prediction,
    screens: BTreeMap<usize, Screen>,
    /// The right answer of a unit, and its bound.
    rights: BTreeMap<usize, (Vec<f64>, Vec<f64>)>,
}

impl<'p, 'a> Search<'p, 'a> {
    /// A search for what explains the units `wrong`; `spread` says of each unit over how many keys
    /// its weight is spread.
    pub fn new(problem: &'p Problem<'a>, mut wrong: Vec<usize>, spread: &[f64]) -> Self {
        let mut right = vec![true; problem.units.len()];
        wrong.iter().for_each(|u| right[*u] = false);
        let others = (0..problem.units.len()).filter(|u| right[*u]).collect();
        wrong.sort_by(|a, b| spread[*b].total_cmp(&spread[*a]).then(a.cmp(b)));
        Search {
            problem,
            right: Recipe::right(problem),
            wrong,
            others,
            prediction: Prediction::default(),
            screens: BTreeMap::new(),
            rights: BTreeMap::new(),
        }
    }

    /// A search for what explains the units of a problem that are wrong.
    pub fn of(problem: &'p Problem<'a>) -> Self {
        let mut p = Prediction::default();
        let (mut wrong, mut spread) = (Vec::new(), Vec::new());
        for unit in 0..problem.units.len() {
            if !right(problem, unit, &problem.arithmetic, &mut p).fits() {
                wrong.push(unit);
            }
            spread.push(p.spread());
        }
        Search::new(problem, wrong, &spread)
    }

    /// Whether every output is right.
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Tries every fault of the catalogue alone.
    pub fn singles(&mut self) -> Searched {
        let mut searched = Searched::default();
        if self.wrong.is_empty() {
            return searched;
        }
        let mut near = Vec::new();
        for (index, fault) in FAULTS.iter().enumerate() {
            let members = self.members(fault);
            let mut tried = Tried { tried: members.len(), out_of_range: 0 };
            let alive = self.alive(fault, &members, &mut near, index);
            let mut judged = [0; KINDS];
            for (place, member) in members.iter().enumerate() {
                let Some(recipe) = self.recipe(&[&member.change]) else { continue };
                if !self.in_range(&recipe) {
                    tried.out_of_range += 1;
                    continue;
                }
                if !alive(place) {
                    continue;
                }
                let judged = &mut judged[kind(&member.change)];
                if *judged == JUDGED && fault.search != Family::Each {
                    *searched.more.entry(fault.id).or_default() += 1;
                    continue;
                }
                let first = self.first_look(&recipe);
                // What no screen has let pass counts only where it passes here.
                let screened = self.problem.task == Task::Attend && is_screened(&member.change);
                *judged += usize::from(screened || first.fits());
                if !first.fits() {
                    if !screened {
                        near.push((first, vec![index], member.params.clone(), recipe));
                    }
                    continue;
                }
                let (fit, all) = self.judge(&recipe, false);
                let rank = if member.params.is_empty() { Rank::Plain } else { fault.rank };
                let everywhere = all && self.fits_others(&recipe);
                // One row that holds another's answer is no order of rows.
                let whole = everywhere || !matches!(member.change, Change::Row(_));
                if !all || !whole {
                    near.push((fit, vec![index], member.params.clone(), recipe));
                    continue;
                }
                let evidence = self.evidence(&recipe);
                if self.proves_nothing(fit, evidence) {
                    continue;
                }
                searched.fits.push(Finding {
                    faults: vec![index],
                    params: member.params.clone(),
                    fit,
                    everywhere,
                    evidence,
                    order: (rank, place),
                    recipe,
                });
            }
            searched.tried.insert(fault.id.to_owned(), tried);
        }
        if searched.fits.is_empty() {
            searched.closest = self.closest(near);
        }
        searched.sort();
        searched
    }

    /// Tries every pair of faults with their default parameters, and windows and tails of any size
    /// with each of the others.
    pub fn pairs(&mut self) -> Searched {
        let mut searched = Searched::default();
        if self.wrong.is_empty() {
            return searched;
        }
        let members = self.defaults();
        let mut near = Vec::new();
        let mut tried = Tried::default();
        for (at, a) in members.iter().enumerate() {
            for b in &members[at + 1..] {
                if let Some(recipe) = self
                    .recipe(&[&a.member.change, &b.member.change])
                    .filter(|_| a.fault != b.fault)
                {
                    tried.tried += 1;
                    self.pair([a, b], recipe, &mut searched, &mut near, &mut tried);
                }
            }
        }
        for a in &members {
            self.with_ranges(a, &mut searched, &mut near, &mut tried);
        }
        searched.tried.insert("pairs".to_owned(), tried);
        if searched.fits.is_empty() {
            searched.closest = self.closest(near);
        }
        searched.sort();
        searched
    }

    /// The members of all faults with which pairs are formed.
    fn defaults(&self) -> Vec<Placed> {
        let of = |(fault, of): (usize, &'static Fault)| {
            let members = self.members(of).into_iter().filter(|m| m.default).enumerate();
            members.map(move |(place, member)| Placed { fault, place, member }).collect::<Vec<_>>()
        };
        FAULTS.iter().enumerate().flat_map(of).collect()
    }

    /// Tries a pair in full.
    fn pair(
        &mut self,
        [a, b]: [&Placed; 2],
        recipe: Recipe,
        searched: &mut Searched,
        near: &mut Vec<Near>,
        tried: &mut Tried,
    ) {
        if !self.in_range(&recipe) {
            tried.out_of_range += 1;
            return;
        }
        // Two faults that together leave no key would explain every output of zeros.
        if self.attends_nothing(&recipe) {
            return;
        }
        let first = self.first_look(&recipe);
        let (a, b) = if a.fault < b.fault { (a, b) } else { (b, a) };
        let faults = vec![a.fault, b.fault];
        let mut params = a.member.params.clone();
        params.extend(b.member.params.clone());
        if !first.fits() {
            near.push((first, faults, params, recipe));
            return;
        }
        let (fit, all) = self.judge(&recipe, false);
        if !all {
            near.push((fit, faults, params, recipe));
            return;
        }
        let evidence = self.evidence(&recipe);
        // Two faults that together make zeros would explain an output that was never written.
        if fit.finite > 0 && !evidence.tells {
            return;
        }
        searched.fits.push(Finding {
            everywhere: self.fits_others(&recipe),
            evidence,
            order: (FAULTS[a.fault].rank.max(FAULTS[b.fault].rank), a.place + b.place),
            faults,
            params,
            fit,
            recipe,
        });
    }

    /// Windows and tails of any size together with a member: one running sum for all of them, and
    /// in full what that lets pass.
    fn with_ranges(
        &mut self,
        a: &Placed,
        searched: &mut Searched,
        near: &mut Vec<Near>,
        tried: &mut Tried,
    ) {
        let Some(alive) = self.ranges_beside(&a.member.change) else { return };
        for (fault, of) in FAULTS.iter().enumerate() {
            if !matches!(of.search, Family::Windows | Family::Tails) || fault == a.fault {
                continue;
            }
            let mut judged = 0;
            for (place, member) in self.members(of).into_iter().enumerate() {
                // Pairs of default members were tried.
                if member.default {
                    continue;
                }
                tried.tried += 1;
                if judged == JUDGED || !alive(&member.change) {
                    continue;
                }
                let Some(recipe) = self.recipe(&[&a.member.change, &member.change]) else {
                    continue;
                };
                judged += 1;
                let b = Placed { fault, place, member };
                self.pair([a, &b], recipe, searched, near, tried);
            }
        }
    }

    /// Which windows and tails may fit beside a change, by the head that tells the most; `None`
    /// where the change leaves no running sum.
    fn ranges_beside(&mut self, change: &Change) -> Option<impl Fn(&Change) -> bool + use<>> {
        let base = self.recipe(&[change])?;
        let own = [Aspect::First, Aspect::Last, Aspect::Combine, Aspect::Row];
        let summed = base.out_rows.is_none() && own.iter().all(|aspect| !base.touches(*aspect));
        let mut whole = base.clone();
        whole.keys.window = 0;
        if self.problem.task != Task::Attend || !summed || !self.in_range(&whole) {
            return None;
        }
        let unit = self.wrong[0];
        let keys = self.problem.units[unit].keys;
        let seen = screen(self.problem, &base, unit, false, &mut self.prediction);
        Some(move |change: &Change| match change {
            Change::Window(_) | Change::End(End::Tile(_), _) => screened(&seen, change, keys)
                .is_some_and(|(left, parameter)| {
                    left.fits.get(parameter).copied().unwrap_or(false)
                }),
            _ => false,
        })
    }

    /// What speaks for a recipe on the heads that are wrong.
    fn evidence(&mut self, recipe: &Recipe) -> Evidence {
        /// A bound above this share of the values explains too much.
        const SMALL: f64 = 1.0 / 16.0;
        let dims = self.problem.head_dim_v;
        let (mut telling, mut narrow, mut elements) = (0, 0, 0);
        let mut first: Option<(f64, f64)> = None;
        let (mut differ, mut zeros) = (false, true);
        for unit in self.wrong.clone() {
            if !self.unit(recipe, unit, dims).fits() {
                continue;
            }
            let (want, want_bound) = self.right_of(unit);
            let said = self.prediction.said();
            let (out, bounds) = (&self.prediction.answer.out, &self.prediction.bound.out);
            let size =
                libm::sqrt(out[..said].iter().map(|x| x * x).sum::<f64>() / said.max(1) as f64);
            elements += said;
            for i in 0..said.min(want.len()) {
                let (x, bound) = (out[i], bounds[i]);
                // Zeros throughout are as exact as can be.
                narrow += usize::from(bound <= SMALL * size || size == 0.0);
                // What is not finite on either side compares false.
                if (x - want[i]).abs() > bound + want_bound[i]
                    && (x - want[i]).is_finite()
                    && bound <= SMALL * size
                {
                    telling += 1;
                    zeros &= x == 0.0;
                    match first {
                        None => first = Some((x, bound)),
                        Some((y, other)) => differ |= (x - y).abs() > bound + other,
                    }
                }
            }
        }
        // why: roundings that could have gone either way make a bound that much else fits.
        if recipe.simulates() && 4 * telling < elements {
            return Evidence::default();
        }
        let names_address = recipe.names_address(self.problem);
        let tells = telling > 0 && !zeros && (differ || !names_address);
        Evidence { telling, narrow, tells }
    }

    /// Whether a fit is one of a bound that would explain any output: of wrong outputs with numbers
    /// in them, none is predicted to a small part of its values.
    fn proves_nothing(&mut self, fit: Fit, evidence: Evidence) -> bool {
        fit.finite > 0 && evidence.narrow == 0 && self.outputs_are_wrong()
    }

    /// Whether the right answer explains none of what is to be explained, as it does where what is
    /// looked for is what coincides with it.
    fn outputs_are_wrong(&mut self) -> bool {
        let stored = self.problem.arithmetic.out;
        let Some(unit) = self.wrong.first().copied() else { return false };
        let (want, bounds) = self.right_of(unit);
        !fit(&want, &bounds, self.problem.output(unit), stored).fits()
    }

    /// The right answer of a unit and its bound.
    fn right_of(&mut self, unit: usize) -> (Vec<f64>, Vec<f64>) {
        if let Some(known) = self.rights.get(&unit) {
            return known.clone();
        }
        let mut p = Prediction::default();
        let dims = self.problem.head_dim_v;
        let right = match p.make(self.problem, &self.right, unit, dims) {
            Ok(()) => (p.answer.out, p.bound.out),
            Err(_) => (Vec::new(), Vec::new()),
        };
        self.rights.insert(unit, right.clone());
        right
    }

    /// Whether a fault, or two, explains what is wrong here: with the parameters that are the
    /// kernel's own, and any that follow the case.
    pub fn check(&mut self, candidate: &Candidate) -> Checked {
        if self.wrong.is_empty() {
            return Checked::CannotTell;
        }
        if candidate.is_former_row() {
            return match infer::missing_row(self.problem) {
                Ok(_) => Checked::Fits,
                Err(_) => Checked::CannotTell,
            };
        }
        let mut found = None;
        let mut outside = false;
        match candidate.faults[..] {
            [fault] => {
                let of = &FAULTS[fault];
                let mut members = self.members(of);
                members.extend(members::beyond(of.id, &candidate.params, self.problem));
                let alive = self.alive(of, &members, &mut Vec::new(), fault);
                let mut judged = 0;
                for (place, member) in members.iter().enumerate() {
                    if !of.agrees(&candidate.params, &member.params) {
                        continue;
                    }
                    let Some(recipe) = self.recipe(&[&member.change]) else { continue };
                    outside |= !self.in_range(&recipe);
                    if judged < JUDGED && alive(place) && self.in_range(&recipe) {
                        judged += usize::from(is_screened(&member.change));
                        found = found.max(self.checked(&recipe));
                    }
                }
            }
            [a, b] => {
                let (a, b) = self.ranged_last(a, b);
                let agree =
                    |fault: usize, m: &Member| FAULTS[fault].agrees(&candidate.params, &m.params);
                let mut firsts = self.members(&FAULTS[a]);
                firsts.retain(|m| agree(a, m) && (m.default || FAULTS[a].search == Family::Each));
                let mut seconds = self.members(&FAULTS[b]);
                seconds.retain(|m| agree(b, m));
                for one in &firsts {
                    let alive = self.ranges_beside(&one.change);
                    let mut judged = 0;
                    for two in &seconds {
                        let ranged = FAULTS[b].search != Family::Each && !two.default;
                        let passes = alive.as_ref().is_some_and(|alive| alive(&two.change));
                        if ranged && !passes || judged == JUDGED {
                            continue;
                        }
                        let Some(recipe) = self.recipe(&[&one.change, &two.change]) else {
                            continue;
                        };
                        outside |= !self.in_range(&recipe);
                        if self.in_range(&recipe) && !self.attends_nothing(&recipe) {
                            judged += 1;
                            found = found.max(self.checked(&recipe));
                        }
                    }
                }
            }
            _ => {}
        }
        match found {
            Some(true) => Checked::Fits,
            Some(false) => Checked::CannotTell,
            None if outside => Checked::CannotTell,
            None => Checked::Refuted,
        }
    }

    /// Whether a recipe fits, and if it does, whether that tells something. One that reads what was never a
    /// tensor's (NaN, or fillers whose products overflow) predicts nothing that f32 must agree with: it says
    /// as little.
    fn checked(&mut self, recipe: &Recipe) -> Option<bool> {
        let first = self.first_look(recipe).fits();
        if !first && self.reads_filler() {
            return Some(false);
        }
        let fits = first && self.judge(recipe, false).1;
        if first && !fits && self.reads_filler() {
            return Some(false);
        }
        let whole = fits && (recipe.row == RowMap::Own || self.fits_others(recipe));
        whole.then(|| self.evidence(recipe).tells)
    }

    /// Whether the prediction made last is made of values that no right tensor has.
    fn reads_filler(&self) -> bool {
        /// The square root of f32's largest number is little more.
        const LARGE: f64 = 1e19;
        let odd = |x: &f64| !x.is_finite() || x.abs() > LARGE;
        let answer = &self.prediction.answer;
        answer.scores.iter().chain(&answer.out).any(odd) || self.prediction.values().iter().any(odd)
    }

    /// Two faults, the one whose family is over ranges last.
    fn ranged_last(&self, a: usize, b: usize) -> (usize, usize) {
        let ranged = |fault: usize| matches!(FAULTS[fault].search, Family::Windows | Family::Tails);
        if ranged(a) && !ranged(b) { (b, a) } else { (a, b) }
    }

    /// The right answer, and of each fault the nearest of its default members, on all `units`; and what a
    /// probe says that knows the weights of the nearest of all, and two layouts of V.
    pub fn nearest(&mut self, units: &[usize]) -> (Vec<Hypothesis>, Option<Probe>) {
        let right = (self.right.clone(), "none", Params::new());
        let mut nearest = vec![self.hypothesis(units, right)];
        for fault in FAULTS.iter() {
            let members = self.members(fault).into_iter().filter(|m| m.default);
            let recipes: Vec<_> = members
                .filter_map(|m| Some((self.recipe(&[&m.change])?, fault.id, m.params)))
                .filter(|(recipe, ..)| self.in_range(recipe) && !self.attends_nothing(recipe))
                .take(DEFAULTS)
                .collect();
            let of = recipes.into_iter().map(|recipe| self.hypothesis(units, recipe));
            nearest.extend(of.min_by(|a, b| a.0.fit.mae.total_cmp(&b.0.fit.mae)));
        }
        let own = nearest.iter().min_by(|a, b| a.0.fit.mae.total_cmp(&b.0.fit.mae));
        let col = nearest.iter().find(|(h, _)| h.fault == "v_col");
        let probe = own.zip(col).map(|((_, own), (_, col))| {
            let of = |v: &Reading| {
                let mut recipe = own.clone();
                recipe.v = v.clone();
                recipe
            };
            (of(&self.right.v), of(&col.v))
        });
        let probe = probe.map(|(row, col)| {
            let mut mae = |recipe| self.hypothesis(units, (recipe, "", Params::new())).0.fit.mae;
            Probe { row: mae(row), col: mae(col) }
        });
        (nearest.into_iter().map(|(hypothesis, _)| hypothesis).collect(), probe)
    }

    fn hypothesis(
        &mut self,
        units: &[usize],
        (recipe, fault, params): (Recipe, &'static str, Params),
    ) -> (Hypothesis, Recipe) {
        let fits: Vec<Fit> =
            units.iter().map(|u| self.unit(&recipe, *u, self.problem.head_dim_v)).collect();
        let fit = fits.iter().fold(Fit::NONE, |all, fit| all.and(*fit));
        let heads = fits.iter().map(|fit| fit.ratio).collect();
        (Hypothesis { fault, params, fit, heads }, recipe)
    }

    /// How each unit compares with a finding's prediction.
    pub fn fits(&mut self, finding: &Finding) -> Vec<Fit> {
        let dims = self.problem.head_dim_v;
        (0..self.problem.units.len()).map(|u| self.unit(&finding.recipe, u, dims)).collect()
    }

    /// The bound of a finding's prediction of a unit, `[head_dim_v]`.
    pub fn bounds(&mut self, finding: &Finding, unit: usize) -> &[f64] {
        self.unit(&finding.recipe, unit, self.problem.head_dim_v);
        &self.prediction.bound.out
    }

    /// Which members of a family the screens leave; what came closest is put into `near`.
    fn alive(
        &mut self,
        fault: &Fault,
        members: &[Member],
        near: &mut Vec<Near>,
        index: usize,
    ) -> impl Fn(usize) -> bool + use<> {
        let mut left: Option<Vec<bool>> = None;
        if fault.search != Family::Each && self.problem.task == Task::Attend {
            let mut fits = vec![true; members.len()];
            for (turn, unit) in self.wrong.clone().into_iter().enumerate() {
                let problem = self.problem;
                let prediction = &mut self.prediction;
                let screen = self.screens.entry(unit).or_insert_with(|| {
                    screen(problem, &Recipe::right(problem), unit, true, prediction)
                });
                let mut closest: Option<(usize, f64)> = None;
                for (place, member) in members.iter().enumerate() {
                    let Some((family, parameter)) =
                        screened(screen, &member.change, problem.units[unit].keys)
                    else {
                        continue;
                    };
                    fits[place] &= family.fits.get(parameter).copied().unwrap_or(false);
                    if let Some((_, error)) = family.closest.filter(|(at, _)| *at == parameter)
                        && closest.is_none_or(|(_, least)| error < least)
                    {
                        closest = Some((place, error));
                    }
                }
                if turn == 0
                    && let Some((place, mae)) = closest.filter(|(place, _)| !fits[*place])
                {
                    let member = &members[place];
                    if let Some(recipe) = self.recipe(&[&member.change]) {
                        let fit = Fit { ratio: f64::INFINITY, mae, finite: 1 };
                        near.push((fit, vec![index], member.params.clone(), recipe));
                    }
                }
                // Members that are not screened stay, whatever the screens of more units say.
                let left = members.iter().zip(&fits).any(|(m, f)| *f && is_screened(&m.change));
                if !left {
                    break;
                }
            }
            left = Some(fits);
        }
        move |place| left.as_ref().is_none_or(|left| left[place])
    }

    /// The members of a fault that can be seen in the outputs.
    fn members(&self, fault: &Fault) -> Vec<Member> {
        let mut members = (fault.members)(self.problem);
        members.retain(|m| m.change.concerns(self.problem.task));
        members
    }

    fn recipe(&self, changes: &[&Change]) -> Option<Recipe> {
        let mut recipe = self.right.clone();
        changes.iter().all(|change| change.apply(&mut recipe)).then_some(recipe)
    }

    /// Whether a recipe leaves the head that tells the most no key, though there are some.
    fn attends_nothing(&self, recipe: &Recipe) -> bool {
        let unit = self.wrong[0];
        let keys = recipe.range(&self.problem.units[unit], self.problem);
        keys.is_empty() && !self.problem.attended(unit).is_empty()
    }

    /// Whether every address that a recipe reads is in its buffer.
    fn in_range(&self, recipe: &Recipe) -> bool {
        let p = self.problem;
        let (dim_k, dim_v) = recipe.dims(p);
        let (reads_k, reads_v) = p.task.reads();
        let queries = matches!(p.task, Task::Attend | Task::Scores);
        recipe.sources(p).all(|index| {
            let unit = &p.units[index];
            let keys = recipe.range(unit, p);
            let inside = |reading: &Reading, cache: Cache, bits: u32, dim: usize| {
                let memory = if reading.buffer == Cache::K { &p.k } else { &p.v };
                let at = recipe.head(cache, unit, p);
                let fits = |keys| reading.first_inside(at, keys, dim, memory.len()).is_some();
                runs(&keys, bits).iter().all(fits)
            };
            (!reads_k || inside(&recipe.k, Cache::K, recipe.bits[0], dim_k))
                && (!reads_v || inside(&recipe.v, Cache::V, recipe.bits[1], dim_v))
                && (!queries || recipe.query(index, p).is_some())
        })
    }

    /// After an interrupt nothing fits: who asked drops the answer, and the search is over at once.
    fn unit(&mut self, recipe: &Recipe, unit: usize, dims: usize) -> Fit {
        let none = Fit { ratio: f64::INFINITY, mae: f64::INFINITY, finite: 0 };
        if interrupt::is_requested() {
            return none;
        }
        match self.prediction.make(self.problem, recipe, unit, dims) {
            Ok(()) => self.prediction.fit(self.problem, unit),
            Err(_) => none,
        }
    }

    /// The first elements of the head that tells the most.
    fn first_look(&mut self, recipe: &Recipe) -> Fit {
        self.unit(recipe, self.wrong[0], self.problem.head_dim_v.min(FIRST_LOOK))
    }

    /// All elements of the heads that are wrong, to the first that does not fit, or all of them.
    fn judge(&mut self, recipe: &Recipe, all: bool) -> (Fit, bool) {
        let mut fit = Fit::NONE;
        // Elements that the recipe says something of, and all.
        let (mut said, mut elements) = (0, 0);
        for unit in self.wrong.clone() {
            fit = fit.and(self.unit(recipe, unit, self.problem.head_dim_v));
            said += self.prediction.said();
            elements += self.prediction.answer.out.len();
            if !fit.fits() && !all {
                return (fit, false);
            }
        }
        // why: of outputs that it never writes a kernel says nothing, and that fits anything.
        (fit, fit.fits() && 2 * said >= elements)
    }

    fn fits_others(&mut self, recipe: &Recipe) -> bool {
        let others = self.others.clone();
        others.into_iter().all(|unit| self.unit(recipe, unit, self.problem.head_dim_v).fits())
    }

    /// The closest of what does not fit, judged in full.
    fn closest(&mut self, mut near: Vec<Near>) -> Vec<Finding> {
        // The mean error over no element is 0: what predicts no finite number is close to nothing.
        let far = |fit: &Fit| if fit.finite == 0 { f64::INFINITY } else { fit.mae };
        near.sort_by(|a, b| far(&a.0).total_cmp(&far(&b.0)).then(a.0.ratio.total_cmp(&b.0.ratio)));
        near.truncate(CLOSEST);
        near.into_iter()
            .map(|(_, faults, params, recipe)| {
                let (fit, _) = self.judge(&recipe, true);
                let (order, evidence) = ((Rank::Searched, 0), Evidence::default());
                Finding { faults, params, fit, everywhere: false, evidence, order, recipe }
            })
            .collect()
    }
}

/// A member of a fault, by their indices.
struct Placed {
    fault: usize,
    place: usize,
    member: Member,
}

/// What did not fit: how far off it was, which faults, their parameters, the recipe.
type Near = (Fit, Vec<usize>, Params, Recipe);

/// Kinds of members of one family.
const KINDS: usize = 3;

/// The kind of a member: each is judged up to [`JUDGED`] times, so that none hides another.
fn kind(change: &Change) -> usize {
    match change {
        Change::Combine(Combine::Split(_, Parts::Even(_))) => 2,
        Change::Combine(Combine::Split(How::Mean, _)) => 1,
        _ => 0,
    }
}

/// Whether a screen has a place for a member.
fn is_screened(change: &Change) -> bool {
    screened(&Screen::default(), change, 0).is_some()
}

/// Where a screen keeps a member of a family, if it does; `keys` are those of the unit.
fn screened<'s>(screen: &'s Screen, change: &Change, keys: usize) -> Option<(&'s Left, usize)> {
    match change {
        Change::Window(w) => Some((&screen.windows, (*w).min(keys))),
        Change::End(End::Tile(tile), false) => Some((&screen.tails, keys - keys % tile)),
        Change::Combine(Combine::Split(how, Parts::Cut(cut))) => {
            let left = if *how == How::Sum { &screen.sums } else { &screen.means };
            Some((left, (*cut).min(keys)))
        }
        _ => None,
    }
}
