//! The search: every member of every family, and pairs of them, against the heads that are wrong.
//!
//! The head whose weight is spread over the most keys comes first: it tells hypotheses apart best,
//! and most of them end there. A member that would read outside a buffer is rejected, never clamped.

use super::catalogue::{Change, FAULTS, Fault, Member, Params, Rank, Search as Family};
use super::predict::{Fit, Prediction};
use super::problem::{Problem, Task};
use super::profile::{Hypothesis, Probe};
use super::ranges::{Left, Screen, screen};
use super::recipe::{Cache, Combine, End, How, Parts, Reading, Recipe};
use crate::device::interrupt;
use std::collections::BTreeMap;
use std::ops::Range;

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
        self.fits.sort_by_key(|f| (!f.everywhere, f.order));
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
        }
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
                let mut finding = Finding {
                    faults: vec![index],
                    params: member.params.clone(),
                    fit,
                    everywhere: false,
                    order: (rank, place),
                    recipe: recipe.clone(),
                };
                if all {
                    finding.everywhere = self.fits_others(&recipe);
                    searched.fits.push(finding);
                } else {
                    near.push((fit, vec![index], member.params.clone(), recipe));
                }
            }
            searched.tried.insert(fault.id.to_owned(), tried);
        }
        if searched.fits.is_empty() {
            searched.closest = self.closest(near);
        }
        searched.sort();
        searched
    }

    /// Tries every pair of faults with their default parameters.
    pub fn pairs(&mut self) -> Searched {
        let mut searched = Searched::default();
        if self.wrong.is_empty() {
            return searched;
        }
        let members: Vec<(usize, usize, Member)> = FAULTS
            .iter()
            .enumerate()
            .flat_map(|(i, fault)| {
                let defaults = self.members(fault).into_iter().filter(|m| m.default);
                defaults.enumerate().map(move |(place, m)| (i, place, m)).collect::<Vec<_>>()
            })
            .collect();
        let mut near = Vec::new();
        let mut tried = Tried::default();
        for (at, (i, place, a)) in members.iter().enumerate() {
            for (j, other, b) in &members[at + 1..] {
                let Some(recipe) = self.recipe(&[&a.change, &b.change]).filter(|_| i != j) else {
                    continue;
                };
                tried.tried += 1;
                if !self.in_range(&recipe) {
                    tried.out_of_range += 1;
                    continue;
                }
                // Two faults that together leave no key would explain every output of zeros.
                if self.attends_nothing(&recipe) {
                    continue;
                }
                let first = self.first_look(&recipe);
                let mut params = a.params.clone();
                params.extend(b.params.clone());
                if !first.fits() {
                    near.push((first, vec![*i, *j], params, recipe));
                    continue;
                }
                let (fit, all) = self.judge(&recipe, false);
                if !all {
                    near.push((fit, vec![*i, *j], params, recipe));
                    continue;
                }
                let everywhere = self.fits_others(&recipe);
                let rank = FAULTS[*i].rank.max(FAULTS[*j].rank);
                searched.fits.push(Finding {
                    faults: vec![*i, *j],
                    params,
                    fit,
                    everywhere,
                    order: (rank, place + other),
                    recipe,
                });
            }
        }
        searched.tried.insert("pairs".to_owned(), tried);
        if searched.fits.is_empty() {
            searched.closest = self.closest(near);
        }
        searched.sort();
        searched
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
                let screen =
                    self.screens.entry(unit).or_insert_with(|| screen(problem, unit, prediction));
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
        let inside = |reading: &Reading, at, keys: &Range<usize>, dim| {
            let memory = if reading.buffer == Cache::K { &p.k } else { &p.v };
            reading.first_inside(at, keys, dim, memory.len()).is_some()
        };
        p.units.iter().all(|unit| {
            let keys = recipe.range(unit, p);
            let head = recipe.heads.of(unit.h, p.group(), p.num_kv_heads);
            let (reads_k, reads_v) = p.task.reads();
            keys.is_empty()
                || (!reads_k || inside(&recipe.k, (unit.s, head), &keys, p.head_dim))
                    && (!reads_v || inside(&recipe.v, (unit.s, head), &keys, p.head_dim_v))
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
        for unit in self.wrong.clone() {
            fit = fit.and(self.unit(recipe, unit, self.problem.head_dim_v));
            if !fit.fits() && !all {
                return (fit, false);
            }
        }
        (fit, fit.fits())
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
                let order = (Rank::Searched, 0);
                Finding { faults, params, fit, everywhere: false, order, recipe }
            })
            .collect()
    }
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
        Change::End(End::Tile(tile), _) => Some((&screen.tails, keys - keys % tile)),
        Change::Combine(Combine::Split(how, Parts::Cut(cut))) => {
            let left = if *how == How::Sum { &screen.sums } else { &screen.means };
            Some((left, (*cut).min(keys)))
        }
        _ => None,
    }
}
