//! Triggers: the smallest conjunction of facts that all failing cases have and no passing one.
//!
//! A trigger is true whatever the cause of a failure is. It is found among the cases at hand, and
//! refined by a few more that are drawn to tell its rivals apart: such a case is one on which
//! conjunctions that explain everything so far disagree, one that has every fact of the trigger (it
//! must fail), or one that lacks a single fact (it must pass).

use super::facts::{Fact, Is, Properties, Value, is_narrow};
use crate::problem::Case;
use std::collections::BTreeSet;
use std::fmt;

/// Facts of one conjunction.
const MOST_FACTS: usize = 3;
/// Conjunctions of one size that are told apart.
const RIVALS: usize = 64;
/// Cases of each kind that must have confirmed a trigger before no more are drawn.
const CONFIRMED: usize = 6;
/// A conjunction that passing cases have too is told only where it leaves out this share of them.
const LEFT_OUT: f64 = 0.6;

/// Of so few passing cases no fact more is told apart.
const FEW: u32 = 8;

/// A case whose outcome is known.
#[derive(Debug, Clone)]
pub struct Known {
    /// What can be said of it.
    pub properties: Properties,
    /// Whether it fails.
    pub fails: bool,
}

/// When a kernel fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// Facts that all failing cases have; none where every case fails.
    pub facts: Vec<Fact>,
    /// Failing cases that have them all, which are all failing ones.
    pub failing: usize,
    /// Passing cases that have them all, and passing cases.
    pub passing: (usize, usize),
    /// Cases that were drawn to tell, among both.
    pub drawn: usize,
}

impl Trigger {
    /// Whether no passing case has the facts.
    pub fn is_exact(&self) -> bool {
        self.passing.0 == 0
    }

    /// The facts in words.
    pub fn facts_in_words(&self) -> String {
        let facts: Vec<String> = self.facts.iter().map(Fact::to_string).collect();
        if facts.is_empty() { "in every case".to_owned() } else { facts.join(" and ") }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (have, of) = self.passing;
        let (failing, facts) = (self.failing, self.facts_in_words());
        if self.facts.is_empty() {
            write!(f, "{facts}: all {failing} cases that were tried fail")?;
        } else {
            write!(
                f,
                "{facts}: {failing} of {failing} failing cases have this, and {have} of {of} \
                 passing ones"
            )?;
        }
        match self.drawn {
            0 => Ok(()),
            1 => f.write_str(" (1 of them drawn to tell)"),
            n => write!(f, " ({n} of them drawn to tell)"),
        }
    }
}

/// Where more cases come from, and what becomes of them.
pub trait Source {
    /// Cases that may be tried, with their properties.
    fn pool(&mut self) -> Vec<(Case, Properties)>;
    /// Whether a case fails as the others do; `None` where it cannot be told, or no more may be tried.
    fn fails(&mut self, case: &Case) -> Option<bool>;
    /// A failing case with another value of a numeric property, where there is such a case.
    fn with(&mut self, case: &Case, name: &str, value: i64) -> Option<(Case, Properties)>;
    /// The failing cases at hand, the cheapest first.
    fn failing(&self) -> Vec<(Case, Properties)>;
    /// Whether no more cases may be tried.
    fn is_over(&self) -> bool;
}

/// The trigger of what is known, refined by cases of `source`; `None` where no conjunction tells.
pub fn find(mut known: Vec<Known>, source: &mut dyn Source) -> Option<Trigger> {
    let at_hand = known.len();
    let mut pool = source.pool();
    let (mut had, mut lacked) = (0, 0);
    while !source.is_over() && (had < CONFIRMED || lacked < CONFIRMED) {
        let mut rivals = conjunctions(&known);
        let is_exact = !rivals.is_empty();
        if !is_exact {
            rivals.extend(nearly(&known));
        }
        let Some(turn) = next(&rivals, &pool, had <= lacked) else { break };
        let (case, properties) = pool.swap_remove(turn.at);
        let Some(fails) = source.fails(&case) else { continue };
        match turn.why {
            Why::HasAll => had += 1,
            Why::LacksOne => lacked += 1,
            Why::Divides => {}
        }
        let refuted = match turn.why {
            Why::HasAll => !fails,
            Why::LacksOne => fails,
            Why::Divides => false,
        };
        if refuted && is_exact {
            (had, lacked) = (0, 0);
        }
        known.push(Known { properties, fails });
    }
    let mut best = conjunctions(&known).into_iter().next();
    if let Some(facts) = &mut best {
        pin(facts, &mut known, source);
    }
    let failing = known.iter().filter(|k| k.fails).count();
    let passing = known.len() - failing;
    let is_sure = |facts: &Vec<Fact>| {
        failing >= NEEDED[facts.len()] && (facts.is_empty() || passing >= NEEDED_TO_PASS)
    };
    let facts = match best.filter(is_sure) {
        Some(facts) => facts,
        None => nearly(&known).filter(is_sure)?,
    };
    Some(counted(facts, &known, at_hand))
}

/// Failing cases without which so many facts would be a coincidence.
const NEEDED: [usize; MOST_FACTS + 1] = [1, 2, 6, 12];
/// Passing cases without which a fact says nothing.
const NEEDED_TO_PASS: usize = 5;

fn counted(facts: Vec<Fact>, known: &[Known], at_hand: usize) -> Trigger {
    let has = |k: &&Known| facts.iter().all(|f| f.holds(&k.properties));
    let passing = known.iter().filter(|k| !k.fails);
    Trigger {
        failing: known.iter().filter(|k| k.fails).count(),
        passing: (passing.clone().filter(has).count(), passing.count()),
        drawn: known.len() - at_hand,
        facts,
    }
}

/// What the next case is drawn for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Rival conjunctions disagree on it.
    Divides,
    /// It has every fact: it must fail.
    HasAll,
    /// It lacks one fact: it must pass.
    LacksOne,
}

struct Turn {
    at: usize,
    why: Why,
}

/// The case of the pool that tells the most.
fn next(rivals: &[Vec<Fact>], pool: &[(Case, Properties)], wants_all: bool) -> Option<Turn> {
    let best = rivals.first()?;
    let holds = |facts: &[Fact], p: &Properties| facts.iter().all(|f| f.holds(p));
    let cheap = |at: &usize| pool[*at].0.work();
    if rivals.len() > 1 {
        let split = |at: &usize| {
            let have = rivals.iter().filter(|facts| holds(facts, &pool[*at].1)).count();
            have.min(rivals.len() - have)
        };
        let at = (0..pool.len())
            .filter(|at| split(at) > 0)
            .max_by_key(|at| (split(at), std::cmp::Reverse(cheap(at))));
        if let Some(at) = at {
            return Some(Turn { at, why: Why::Divides });
        }
    }
    let lacking = |p: &Properties| best.iter().filter(|f| !f.holds(p)).count();
    let first = |wanted: usize| (0..pool.len()).find(|at| lacking(&pool[*at].1) == wanted);
    let all = first(0).map(|at| Turn { at, why: Why::HasAll });
    let one = first(1).filter(|_| !best.is_empty()).map(|at| Turn { at, why: Why::LacksOne });
    if wants_all { all.or(one) } else { one.or(all) }
}

/// The smallest conjunctions that all failing cases have and no passing one has, the plainest first.
fn conjunctions(known: &[Known]) -> Vec<Vec<Fact>> {
    let failing: Vec<&Properties> =
        known.iter().filter(|k| k.fails).map(|k| &k.properties).collect();
    let passing: Vec<&Properties> =
        known.iter().filter(|k| !k.fails).map(|k| &k.properties).collect();
    if failing.is_empty() {
        return Vec::new();
    }
    if passing.is_empty() {
        return vec![Vec::new()];
    }
    let facts = shared(&failing, &passing);
    let sets: Vec<Set> = facts.iter().map(|f| Set::of(&passing, |p| f.holds(p))).collect();
    let mut found: Vec<Vec<usize>> = Vec::new();
    for size in 1..=MOST_FACTS {
        combine(&sets, size, &mut Vec::new(), &Set::all(passing.len()), &mut found);
        if !found.is_empty() {
            break;
        }
    }
    let oddness = |of: &Vec<usize>| of.iter().map(|i| facts[*i].oddness()).sum::<u32>();
    found.sort_by_key(oddness);
    found.truncate(RIVALS);
    found.into_iter().map(|of| of.into_iter().map(|i| facts[i].clone()).collect()).collect()
}

/// Facts that all failing cases have and some passing case lacks, the plainest first.
fn shared(failing: &[&Properties], passing: &[&Properties]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (name, first) in failing[0] {
        let of = |p: &&Properties| p.get(name).cloned();
        let values: Option<BTreeSet<Value>> = failing.iter().map(of).collect();
        let Some(values) = values else { continue };
        let mut add = |is: Is| {
            let fact = Fact { name: name.clone(), is };
            if passing.iter().any(|p| !fact.holds(p)) {
                facts.push(fact);
            }
        };
        let narrow = is_narrow(name);
        if values.len() == 1 && (narrow || !matches!(first, Value::Number(_))) {
            add(Is::Equal(first.clone()));
        }
        if let (Some(Value::Number(least)), Some(Value::Number(most))) =
            (values.first(), values.last())
        {
            add(Is::AtLeast(*least));
            add(Is::AtMost(*most));
        }
        let others: BTreeSet<Value> = passing.iter().filter_map(of).collect();
        if values.len() > 1 && narrow && !matches!(first, Value::Answer(_)) {
            others.difference(&values).for_each(|value| add(Is::Not(value.clone())));
        }
    }
    facts.sort_by_key(Fact::oddness);
    facts
}

/// Adds every combination of `size` sets whose intersection is empty, and of which each set is needed.
fn combine(
    sets: &[Set],
    size: usize,
    chosen: &mut Vec<usize>,
    left: &Set,
    found: &mut Vec<Vec<usize>>,
) {
    /// Combinations that are kept at most, before the plainest are chosen.
    const MOST: usize = 4096;
    let from = chosen.last().map_or(0, |last| last + 1);
    for at in from..sets.len() {
        let rest = left.and(&sets[at]);
        if found.len() == MOST {
            return;
        }
        if rest.count() == left.count() {
            continue;
        }
        chosen.push(at);
        match size {
            1 if rest.count() == 0 && each_matters(sets, chosen) => found.push(chosen.clone()),
            1 => {}
            _ if rest.count() == 0 => {}
            _ => combine(sets, size - 1, chosen, &rest, found),
        }
        chosen.pop();
    }
}

/// Whether each set of several leaves out passing cases enough that the others do not: a fact that is
/// there for one case alone is a coincidence.
fn each_matters(sets: &[Set], chosen: &[usize]) -> bool {
    /// Passing cases that a fact more must leave out.
    const ENOUGH: u32 = 4;
    if chosen.len() == 1 {
        return true;
    }
    chosen.iter().all(|own| {
        let others = chosen.iter().filter(|at| *at != own);
        let left = others.map(|at| sets[*at].clone()).reduce(|a, b| a.and(&b));
        left.is_none_or(|left| left.count() >= ENOUGH)
    })
}

/// A conjunction that all failing cases and only few passing ones have: it is needed, and with
/// something else, or with data that show it, a case fails.
fn nearly(known: &[Known]) -> Option<Vec<Fact>> {
    let failing: Vec<&Properties> =
        known.iter().filter(|k| k.fails).map(|k| &k.properties).collect();
    let passing: Vec<&Properties> =
        known.iter().filter(|k| !k.fails).map(|k| &k.properties).collect();
    let facts = shared(&failing, &passing);
    let sets: Vec<Set> = facts.iter().map(|f| Set::of(&passing, |p| f.holds(p))).collect();
    let (mut left, mut chosen) = (Set::all(passing.len()), Vec::new());
    while chosen.len() < MOST_FACTS {
        let best = (0..sets.len())
            .min_by_key(|at| (left.and(&sets[*at]).count(), facts[*at].oddness()))?;
        let rest = left.and(&sets[best]);
        // A fact more must leave out most of what is left: fewer would be chance.
        let most = if chosen.is_empty() { left.count() / 2 } else { left.count() / 4 };
        if rest.count() > most || !chosen.is_empty() && left.count() < FEW {
            break;
        }
        left = rest;
        chosen.push(best);
    }
    let out = 1.0 - left.count() as f64 / passing.len().max(1) as f64;
    (out >= LEFT_OUT && !chosen.is_empty())
        .then(|| chosen.into_iter().map(|at| facts[at].clone()).collect())
}

/// Moves each threshold of a conjunction to where the kernel begins to fail, by halving between the
/// nearest passing and the nearest failing value.
fn pin(facts: &mut [Fact], known: &mut Vec<Known>, source: &mut dyn Source) {
    for at in 0..facts.len() {
        let (Is::AtLeast(edge) | Is::AtMost(edge)) = facts[at].is else { continue };
        let rises = matches!(facts[at].is, Is::AtLeast(_));
        let name = facts[at].name.clone();
        let others: Vec<Fact> =
            facts.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, f)| f.clone()).collect();
        let number = |p: &Properties| match p.get(&name) {
            Some(Value::Number(n)) => Some(*n),
            _ => None,
        };
        let has_others = |k: &&Known| !k.fails && others.iter().all(|f| f.holds(&k.properties));
        let beyond = |n: &i64| if rises { *n < edge } else { *n > edge };
        let passing = known.iter().filter(has_others).filter_map(|k| number(&k.properties));
        let passing = passing.filter(beyond);
        let Some(mut pass) = (if rises { passing.max() } else { passing.min() }) else { continue };
        let failing = source.failing();
        let Some((case, _)) = failing.iter().find(|(_, p)| number(p) == Some(edge)) else {
            continue;
        };
        let mut fail = edge;
        while (fail - pass).abs() > 1 {
            let middle = (fail + pass) / 2;
            let Some((other, properties)) = source.with(case, &name, middle) else { break };
            let holds =
                number(&properties) == Some(middle) && others.iter().all(|f| f.holds(&properties));
            if !holds {
                break;
            }
            let Some(fails) = source.fails(&other) else { break };
            known.push(Known { properties, fails });
            if fails { fail = middle } else { pass = middle }
        }
        facts[at].is = if rises { Is::AtLeast(fail) } else { Is::AtMost(fail) };
    }
}

/// A set of passing cases.
#[derive(Debug, Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn of(all: &[&Properties], has: impl Fn(&Properties) -> bool) -> Set {
        let mut words = vec![0u64; all.len().div_ceil(64)];
        for (i, _) in all.iter().enumerate().filter(|(_, p)| has(p)) {
            words[i / 64] |= 1 << (i % 64);
        }
        Set(words)
    }

    fn all(n: usize) -> Set {
        let mut words = vec![0u64; n.div_ceil(64)];
        (0..n).for_each(|i| words[i / 64] |= 1 << (i % 64));
        Set(words)
    }

    fn and(&self, other: &Set) -> Set {
        Set(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that fails by a rule, over cases of three numbers and a word.
    struct Rule<'r>(&'r dyn Fn(&Properties) -> bool, u64);

    fn number(p: &Properties, name: &str) -> i64 {
        match p[name] {
            Value::Number(n) => n,
            _ => 0,
        }
    }

    fn properties(seed: u64) -> Properties {
        let mut r = crate::data::random::Stream::new(seed, &[7]);
        let mut p = Properties::new();
        p.insert("batch".into(), Value::Number(1 + r.below(4) as i64));
        p.insert("seq_len".into(), Value::Number(1 + r.below(300) as i64));
        p.insert("head_dim".into(), Value::Number([64, 80, 128][r.below(3)]));
        p.insert("wave".into(), Value::Word(["32", "64"][r.below(2)].into()));
        p.insert("ragged".into(), Value::Answer(r.below(2) == 0));
        p.insert("sinks".into(), Value::Answer(r.below(2) == 0));
        p
    }

    impl Source for Rule<'_> {
        fn pool(&mut self) -> Vec<(Case, Properties)> {
            // A case is only carried along: its batch says which properties it stands for.
            (1000..1300)
                .map(|seed| (Case::plain(1, 1, seed, vec![1]), properties(seed as u64)))
                .collect()
        }
        fn fails(&mut self, case: &Case) -> Option<bool> {
            self.1 += 1;
            (self.1 <= 40).then(|| match case.head_dim_v {
                0 => self.0(&properties(case.seed)),
                seed => self.0(&properties(seed as u64)),
            })
        }
        fn with(&mut self, _: &Case, _: &str, _: i64) -> Option<(Case, Properties)> {
            None
        }
        fn failing(&self) -> Vec<(Case, Properties)> {
            Vec::new()
        }
        fn is_over(&self) -> bool {
            self.1 > 40
        }
    }

    fn trigger(rule: &dyn Fn(&Properties) -> bool) -> Option<Trigger> {
        let known =
            (0..60).map(properties).map(|p| Known { fails: rule(&p), properties: p }).collect();
        find(known, &mut Rule(rule, 0))
    }

    #[test]
    fn the_facts_that_decide_are_told_and_no_others() {
        let told = |rule: &dyn Fn(&Properties) -> bool| trigger(rule).map(|t| t.facts_in_words());
        assert_eq!(told(&|_| true).as_deref(), Some("in every case"));
        assert_eq!(told(&|p| p["wave"] == Value::Word("64".into())).as_deref(), Some("wave = 64"));
        let not_128 = |p: &Properties| number(p, "head_dim") != 128;
        assert!(["head_dim != 128", "head_dim <= 80"].contains(&&*told(&not_128).unwrap()));
        let two = |p: &Properties| number(p, "batch") >= 2 && p["ragged"] == Value::Answer(true);
        let words = told(&two).unwrap();
        assert!(words.contains("batch >= 2") && words.contains("ragged"), "{words}");
        assert_eq!(words.matches(" and ").count(), 1, "{words}");
    }

    #[test]
    fn a_trigger_counts_what_it_was_made_of() {
        let t = trigger(&|p| p["wave"] == Value::Word("64".into())).unwrap();
        assert!(t.is_exact() && t.failing > 20 && t.passing.1 > 20 && t.drawn > 0);
        let words = t.to_string();
        assert!(words.contains("failing cases have this, and 0 of"), "{words}");
    }

    #[test]
    fn what_follows_no_conjunction_has_no_exact_trigger() {
        let odd = |p: &Properties| number(p, "seq_len").count_ones() % 2 == 1;
        assert!(trigger(&odd).is_none_or(|t| !t.is_exact()));
    }
}
