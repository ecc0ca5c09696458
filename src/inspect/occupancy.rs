//! How many waves a SIMD holds at a time, and what keeps it from holding more.

use super::target::Target;

/// What a kernel takes of the hardware in one launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// VGPRs a lane; with AGPRs where they share a file ([`Target::unified`]), else the larger.
    pub vgprs: u32,
    /// SGPRs a wave, with those that the hardware reserves.
    pub sgprs: u32,
    /// LDS a block, static and dynamic, bytes.
    pub lds: u32,
    /// Threads a block, at least 1.
    pub threads: u32,
    /// Lanes a wave.
    pub wave: u32,
}

/// What keeps a SIMD from holding more waves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Nothing: it is full.
    Full,
    /// Vector registers.
    Vgpr,
    /// Scalar registers.
    Sgpr,
    /// Shared memory.
    Lds,
    /// The block's size: whole blocks do not fill the rest, or there are no more barriers.
    Block,
}

impl Limit {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Full => "full",
            Limit::Vgpr => "vgpr",
            Limit::Sgpr => "sgpr",
            Limit::Lds => "lds",
            Limit::Block => "block",
        }
    }
}

/// Waves that run at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occupancy {
    /// Blocks of a CU (on RDNA of a WGP); 0: not one fits, it cannot be launched.
    pub blocks: u32,
    /// Waves a SIMD on average; below 1 where not every SIMD has one.
    pub waves: f64,
    /// The most that a SIMD can hold.
    pub most: u32,
    /// What limits it.
    pub limit: Limit,
}

/// Waves a SIMD that so many VGPRs allow.
pub fn vgpr_waves(target: &Target, wave: u32, vgprs: u32) -> u32 {
    let limits = target.limits(wave);
    let taken = vgprs.max(1).next_multiple_of(limits.vgpr_granule);
    (limits.vgprs / taken).min(limits.waves)
}

/// Waves a SIMD that so many SGPRs allow.
///
/// *Source:* `GCNSubtarget::getOccupancyWithNumSGPRs`.
pub fn sgpr_waves(target: &Target, wave: u32, sgprs: u32) -> u32 {
    let limits = target.limits(wave);
    let waves = match sgprs {
        _ if limits.sgprs.is_none() => limits.waves,
        0..=80 => 10,
        81..=88 => 9,
        89..=100 => 8,
        _ => 7,
    };
    waves.min(limits.waves)
}

/// The waves a SIMD that a launch can have, by the hardware's limits alone: it says nothing of how
/// many blocks the launch has.
pub fn occupancy(target: &Target, u: &Use) -> Occupancy {
    let l = target.limits(u.wave);
    let block = u.threads.max(1).div_ceil(u.wave);
    let (vgpr, sgpr) = (vgpr_waves(target, u.wave, u.vgprs), sgpr_waves(target, u.wave, u.sgprs));
    let by_registers = vgpr.min(sgpr);
    // Of a block's waves each SIMD gets its share.
    let by_waves = by_registers * l.simds / block;
    let by_lds = match u.lds {
        0 => u32::MAX,
        _ if u.lds > l.lds_block => 0,
        lds => l.lds / lds.next_multiple_of(l.lds_granule),
    };
    // A block of one wave needs no barrier.
    let by_barriers = if block == 1 { u32::MAX } else { l.barriers };
    let blocks = by_waves.min(by_lds).min(by_barriers);
    let full = blocks * block == l.waves * l.simds;
    let limit = if full {
        Limit::Full
    } else if by_lds < by_waves.min(by_barriers) {
        Limit::Lds
    } else if by_waves > blocks || by_registers == l.waves {
        Limit::Block
    } else if vgpr <= sgpr {
        Limit::Vgpr
    } else {
        Limit::Sgpr
    };
    let waves = f64::from(blocks * block) / f64::from(l.simds);
    Occupancy { blocks, waves, most: l.waves, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str, vgprs: u32, sgprs: u32, lds: u32, threads: u32) -> (f64, &'static str) {
        let target = Target::parse(target).unwrap();
        let u = Use { vgprs, sgprs, lds, threads, wave: target.wave() };
        let o = occupancy(&target, &u);
        (o.waves, o.limit.name())
    }

    /// By hand from the limits of each target.
    #[test]
    fn each_limit_by_hand() {
        // gfx942: 512 registers in steps of 8, 8 waves, 64 KiB for 4 SIMDs.
        assert_eq!(of("gfx942", 64, 16, 0, 256), (8.0, "full"));
        assert_eq!(of("gfx942", 65, 16, 0, 256), (7.0, "vgpr"));
        assert_eq!(of("gfx942", 128, 16, 0, 256), (4.0, "vgpr"));
        assert_eq!(of("gfx942", 129, 16, 0, 256), (3.0, "vgpr"));
        assert_eq!(of("gfx942", 512, 16, 0, 64), (1.0, "vgpr"));
        assert_eq!(of("gfx942", 64, 102, 0, 256), (7.0, "sgpr"));
        // A block of 33 KiB has the CU for itself: 4 waves, one a SIMD; 2 waves are half of one.
        assert_eq!(of("gfx942", 32, 16, 33 << 10, 256), (1.0, "lds"));
        assert_eq!(of("gfx942", 32, 16, 33 << 10, 128), (0.5, "lds"));
        assert_eq!(of("gfx942", 32, 16, 32 << 10, 256), (2.0, "lds"));
        assert_eq!(of("gfx942", 32, 16, (64 << 10) + 1, 256), (0.0, "lds"));
        assert_eq!(of("gfx950", 32, 16, 80 << 10, 256), (2.0, "lds"));
        // 5 waves: 6 blocks are 30 of 32 waves.
        assert_eq!(of("gfx942", 32, 16, 0, 320), (7.5, "block"));
        // Two waves: no more than 16 barriers on a CU with 32 places.
        assert_eq!(of("gfx942", 32, 16, 0, 128), (8.0, "full"));
        assert_eq!(of("gfx906", 24, 16, 0, 128), (8.0, "block"));
        // 1024 threads are 16 waves, 4 a SIMD: more than 128 registers fit none.
        assert_eq!(of("gfx942", 136, 16, 0, 1024), (0.0, "vgpr"));

        // gfx1100: 1536 registers in steps of 24, 16 waves of 32, 128 KiB for a WGP of 4 SIMDs.
        assert_eq!(of("gfx1100", 96, 16, 0, 128), (16.0, "full"));
        assert_eq!(of("gfx1100", 97, 16, 0, 128), (12.0, "vgpr"));
        assert_eq!(of("gfx1100", 256, 106, 0, 128), (5.0, "vgpr"));
        assert_eq!(of("gfx1100", 32, 16, 64 << 10, 1024), (16.0, "full"));
        assert_eq!(of("gfx1100", 32, 16, 64 << 10, 128), (2.0, "lds"));
        // gfx1102 has 1024 in steps of 16.
        assert_eq!(of("gfx1102", 96, 16, 0, 128), (10.0, "vgpr"));
        assert_eq!(of("gfx1030", 64, 16, 0, 128), (16.0, "full"));
        assert_eq!(of("gfx1010", 48, 16, 0, 32), (20.0, "full"));
    }
}
