//! Shuffles, ballots and `__syncwarp` among the lanes of one wave.
//!
//! Every lane deposits a value and waits. Lanes that ask for the same with the same mask form a
//! group; once a group holds all of its mask's lanes that still run, each of them gets its result.

/// Lanes that a wave can have.
pub(super) const MAX_LANES: usize = 64;

pub(super) const SHUFFLE: u32 = 0;
pub(super) const BALLOT: u32 = 1;
/// Set in the forms that name their lanes by a mask.
pub(super) const STRICT: u32 = 16;
/// Set in shuffles up and down, at whose ends a kernel takes what it then does not use.
const ALONG: u32 = 32;

/// Whether lanes that ask it are given something, so that all must mean the same.
pub(super) fn is_exchange(what: u32) -> bool {
    matches!(what & !(STRICT | ALONG), SHUFFLE | BALLOT)
}

/// What a lane asks, and of whom.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Ask {
    what: u32,
    mask: u64,
}

impl Ask {
    fn name(self) -> &'static str {
        match self.what & !(STRICT | ALONG) {
            SHUFFLE => "a shuffle",
            BALLOT => "a vote",
            _ => "__syncwarp",
        }
    }
}

/// One wave of a block.
pub(super) struct Wave {
    /// Lanes that exist and have not returned.
    live: u64,
    /// Lanes that wait here.
    waiting: u64,
    /// The ask of the lane that came first, and who asked the same.
    first: Ask,
    same: u64,
    /// Whether its lanes run on at once after an exchange, or only after everyone else.
    pub(super) eager: bool,
    /// Lanes that the last exchange gave their own value, as the lane that they asked took no part.
    absent: u64,
    asks: [Ask; MAX_LANES],
    sources: [u8; MAX_LANES],
    values: [u64; MAX_LANES],
    results: [u64; MAX_LANES],
}

impl Wave {
    pub(super) fn new() -> Wave {
        Wave {
            live: 0,
            waiting: 0,
            first: Ask::default(),
            same: 0,
            eager: false,
            absent: 0,
            asks: [Ask::default(); MAX_LANES],
            sources: [0; MAX_LANES],
            values: [0; MAX_LANES],
            results: [0; MAX_LANES],
        }
    }

    /// Begins a block with `lanes` lanes.
    pub(super) fn begin(&mut self, lanes: usize, eager: bool) {
        self.live = if lanes >= 64 { !0 } else { (1 << lanes) - 1 };
        self.waiting = 0;
        self.eager = eager;
    }

    /// A lane asks; the lanes that may go on now are returned.
    pub(super) fn ask(
        &mut self,
        lane: usize,
        what: u32,
        mask: u64,
        value: u64,
        source: u32,
    ) -> u64 {
        let (bit, ask) = (1 << lane, Ask { what, mask });
        if self.waiting == 0 {
            (self.first, self.same) = (ask, 0);
        }
        self.waiting |= bit;
        self.asks[lane] = ask;
        self.values[lane] = value;
        self.sources[lane] = (source as usize % MAX_LANES) as u8;
        let group = if ask == self.first {
            self.same |= bit;
            self.same
        } else {
            self.group(ask)
        };
        self.complete_if_whole(ask, group)
    }

    /// What a lane that was let go has got.
    pub(super) fn result(&self, lane: usize) -> u64 {
        self.results[lane]
    }

    /// Lanes of the exchange just made that asked a lane that took no part, and which.
    pub(super) fn take_absent(&mut self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let sources = self.sources;
        lanes(std::mem::take(&mut self.absent)).map(move |lane| (lane, sources[lane] as usize))
    }

    /// Lanes that have not returned.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// What a lane waits for, if it does.
    pub(super) fn what(&self, lane: usize) -> Option<&'static str> {
        (self.waiting >> lane & 1 == 1).then(|| self.asks[lane].name())
    }

    /// A lane returns from the kernel; the lanes that waited for it only are returned.
    pub(super) fn retire(&mut self, lane: usize) -> u64 {
        self.live &= !(1 << lane);
        if self.waiting == 0 {
            return 0;
        }
        let mut gone = 0;
        for (ask, group) in self.groups() {
            gone |= self.complete_if_whole(ask, group);
        }
        gone
    }

    /// When nothing in the block can run: lets those go who, under divergence, would not wait on
    /// hardware. A form without a mask means the active lanes; it is well defined if none of them
    /// reads an inactive one.
    pub(super) fn release_divergent(&mut self) -> u64 {
        let mut gone = 0;
        for (ask, group) in self.groups() {
            let reads_absent = lanes(group).any(|lane| group >> self.sources[lane] & 1 == 0);
            if ask.what & STRICT == 0 && !(ask.what & !ALONG == SHUFFLE && reads_absent) {
                self.complete(ask, group);
                gone |= group;
            }
        }
        gone
    }

    /// Who waits for what: lanes and the name of the operation.
    pub(super) fn waiting(&self) -> Vec<(u64, &'static str)> {
        self.groups().into_iter().map(|(ask, group)| (group, ask.name())).collect()
    }

    /// Lanes that have not returned and do not wait here.
    pub(super) fn elsewhere(&self) -> u64 {
        self.live & !self.waiting
    }

    fn group(&self, ask: Ask) -> u64 {
        lanes(self.waiting).filter(|&lane| self.asks[lane] == ask).fold(0, |g, lane| g | 1 << lane)
    }

    fn groups(&self) -> Vec<(Ask, u64)> {
        let mut groups = Vec::new();
        let mut rest = self.waiting;
        while rest != 0 {
            let ask = self.asks[rest.trailing_zeros() as usize];
            let group = self.group(ask);
            groups.push((ask, group));
            rest &= !group;
        }
        groups
    }

    #[inline]
    fn complete_if_whole(&mut self, ask: Ask, group: u64) -> u64 {
        if ask.mask & self.live & !group != 0 {
            return 0;
        }
        self.complete(ask, group);
        group
    }

    fn complete(&mut self, ask: Ask, group: u64) {
        self.waiting &= !group;
        self.same &= !group;
        match ask.what & !(STRICT | ALONG) {
            SHUFFLE => {
                for lane in lanes(group) {
                    let source = self.sources[lane] as usize;
                    let takes_part = group >> source & 1 == 1;
                    self.absent |= u64::from(!takes_part && ask.what & ALONG == 0) << lane;
                    self.results[lane] = self.values[if takes_part { source } else { lane }];
                }
            }
            BALLOT => {
                let votes = lanes(group)
                    .filter(|&lane| self.values[lane] != 0)
                    .fold(0, |votes, lane| votes | 1 << lane);
                lanes(group).for_each(|lane| self.results[lane] = votes);
            }
            _ => {}
        }
    }
}

/// The set bits of `set`, from the lowest.
#[inline]
pub(super) fn lanes(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let lane = set.trailing_zeros() as usize;
        set &= set - 1;
        Some(lane)
    })
}
