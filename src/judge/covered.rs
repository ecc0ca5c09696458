//! What a sweep's pass covers, and what it says nothing of.

use super::checked::Checked;
use super::draw::{LARGEST_PREFILL, LARGEST_SEQ_LEN};
use super::lds;
use super::space::Space;
use super::sweep::{Report, Verdict};
use crate::kernel::Claim;
use crate::problem::Stage;

/// What a manifest claims beyond what a sweep of it can show: each makes a pass incomplete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Types and layouts that this program does not drive.
    pub not_driven: Vec<String>,
    /// Launches that a target cannot make.
    pub not_launchable: Vec<String>,
}

impl Claims {
    /// The claims of a space: of types that the user narrows by `--dtype` none are asked for.
    pub fn of(space: &Space, not_driven: &[Claim], narrowed: bool) -> Claims {
        let asked = not_driven.iter().filter(|claim| !narrowed || claim.axis() != "dtype");
        Claims {
            not_driven: asked.map(Claim::to_string).collect(),
            not_launchable: lds::beyond(space),
        }
    }

    /// All of them, as a result lists what is missing.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.not_driven.iter().chain(&self.not_launchable)
    }
}

impl Report {
    /// Takes what is claimed beyond what was drawn: no pass says anything of that.
    pub fn take_claims(&mut self, claims: Claims) {
        if self.verdict == Verdict::Pass && claims.all().next().is_some() {
            self.verdict = Verdict::Incomplete;
        }
        self.claims = claims;
    }

    /// Takes what the checked share came to, or why there was none.
    pub fn take_checked(&mut self, checked: Checked) {
        match checked {
            Checked::Done(share, findings) => {
                if !findings.is_empty() {
                    self.verdict = Verdict::Fail;
                    self.failed += share.failed;
                }
                self.findings.extend(findings);
                self.checked = Some(share);
            }
            Checked::Not(why) => self.not_looked_at.push(format!("checked runs ({why})")),
        }
    }

    /// Says what besides a pass of this space says nothing of.
    pub fn say_what_was_left(&mut self, space: &Space) {
        let (manifest, stage) = (&space.manifest, space.manifest.stage);
        for wave in [32, 64] {
            if !space.waves.contains(&wave) {
                self.not_looked_at.push(format!("waves of {wave}"));
            }
        }
        if !manifest.numerics.nonfinite {
            self.not_looked_at.push("NaN and infinities (nonfinite = false)".to_owned());
        }
        let longest = if stage == Stage::Prefill { LARGEST_PREFILL } else { LARGEST_SEQ_LEN };
        if stage.has_keys() && manifest.supports.seq_len.at_least(longest + 1).is_some() {
            let drawn = self.coverage.extremes.map_or(0, |[(_, longest), _]| longest);
            self.not_looked_at.push(format!("lengths over {drawn}"));
        }
        if !self.claims.not_driven.is_empty() {
            self.not_looked_at.push(self.claims.not_driven.join(", "));
        }
    }
}
