//! AMD targets and the limits of their hardware.
//!
//! *Sources:* LLVM 19, `AMDGPUBaseInfo.cpp` (`getVGPRAllocGranule`, `getTotalNumVGPRs`,
//! `getMaxWavesPerEU`, `getMaxWorkGroupsPerCU`, `getEUsPerCU`, `getLocalMemorySize`), `AMDGPU.td`
//! (which target has which feature), `ELF.h` (`EF_AMDGPU_MACH`); llvm.org/docs/AMDGPUUsage.html.

use crate::problem::{did_you_mean, nearest};
use std::fmt;

/// A generation of targets whose limits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// gfx900 to gfx90c but the next two: 256 VGPRs, ten waves.
    Gfx9,
    /// MI100: a separate file of 256 accumulation registers.
    Gfx908,
    /// MI200, MI300: one file of 512 for both, eight waves.
    Gfx90a,
    /// MI350: as MI300, with 160 KiB of LDS.
    Gfx950,
    /// RDNA 1.
    Gfx10,
    /// RDNA 2.
    Gfx103,
    /// RDNA 3 and 3.5 with a VGPR file of 1024.
    Gfx11,
    /// RDNA 3, 3.5 and 4 with a VGPR file of 1536.
    Gfx11Large,
}

/// A processor: its name, its number in a code object's `e_flags`, its family.
type Processor = (&'static str, u32, Family);

const PROCESSORS: [Processor; 33] = [
    ("gfx900", 0x2c, Family::Gfx9),
    ("gfx902", 0x2d, Family::Gfx9),
    ("gfx904", 0x2e, Family::Gfx9),
    ("gfx906", 0x2f, Family::Gfx9),
    ("gfx908", 0x30, Family::Gfx908),
    ("gfx909", 0x31, Family::Gfx9),
    ("gfx90c", 0x32, Family::Gfx9),
    ("gfx90a", 0x3f, Family::Gfx90a),
    ("gfx940", 0x40, Family::Gfx90a),
    ("gfx941", 0x4b, Family::Gfx90a),
    ("gfx942", 0x4c, Family::Gfx90a),
    ("gfx950", 0x4f, Family::Gfx950),
    ("gfx1010", 0x33, Family::Gfx10),
    ("gfx1011", 0x34, Family::Gfx10),
    ("gfx1012", 0x35, Family::Gfx10),
    ("gfx1013", 0x42, Family::Gfx10),
    ("gfx1030", 0x36, Family::Gfx103),
    ("gfx1031", 0x37, Family::Gfx103),
    ("gfx1032", 0x38, Family::Gfx103),
    ("gfx1033", 0x39, Family::Gfx103),
    ("gfx1034", 0x3e, Family::Gfx103),
    ("gfx1035", 0x3d, Family::Gfx103),
    ("gfx1036", 0x45, Family::Gfx103),
    ("gfx1100", 0x41, Family::Gfx11Large),
    ("gfx1101", 0x46, Family::Gfx11Large),
    ("gfx1102", 0x47, Family::Gfx11),
    ("gfx1103", 0x44, Family::Gfx11),
    ("gfx1150", 0x43, Family::Gfx11),
    ("gfx1151", 0x4a, Family::Gfx11Large),
    ("gfx1152", 0x55, Family::Gfx11),
    ("gfx1153", 0x58, Family::Gfx11),
    ("gfx1200", 0x48, Family::Gfx11Large),
    ("gfx1201", 0x4e, Family::Gfx11Large),
];

/// An AMD target: a processor, and the features that its name may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As the compiler is told it: `gfx942`, `gfx90a:sramecc+:xnack-`.
    pub id: String,
    /// The family.
    pub family: Family,
}

/// What the hardware has, for waves of one size. Registers are counted a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// VGPRs of a SIMD (with the accumulation registers, where they share a file).
    pub vgprs: u32,
    /// VGPRs are given out in so many.
    pub vgpr_granule: u32,
    /// SGPRs of a SIMD; `None` where every wave has its own full set.
    pub sgprs: Option<u32>,
    /// Waves that a SIMD can hold.
    pub waves: u32,
    /// SIMDs over which a block's waves are spread: a CU's, on RDNA a WGP's (two CUs).
    pub simds: u32,
    /// LDS of those, bytes.
    pub lds: u32,
    /// The most LDS that one block can have, bytes.
    pub lds_block: u32,
    /// LDS is given out in so many bytes.
    pub lds_granule: u32,
    /// Blocks of several waves at a time: each needs a barrier.
    pub barriers: u32,
}

/// Why a target is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not the name of an AMD processor.
    #[error("there is no AMD target `{name}`{} (known: {known})", did_you_mean(nearest))]
    Unknown {
        /// What was asked for.
        name: String,
        /// A known one that is close to it.
        nearest: Option<String>,
        /// All of them.
        known: String,
    },
}

impl Target {
    /// Reads a target's name.
    ///
    /// # Errors
    /// [`TargetError::Unknown`].
    pub fn parse(name: &str) -> Result<Target, TargetError> {
        let processor = name.split(':').next().unwrap_or_default();
        match PROCESSORS.iter().find(|(known, ..)| *known == processor) {
            Some((_, _, family)) => Ok(Target { id: name.to_owned(), family: *family }),
            None => Err(TargetError::Unknown {
                name: crate::problem::clip(name),
                nearest: nearest(processor, PROCESSORS.iter().map(|p| p.0)),
                known: PROCESSORS.map(|p| p.0).join(", "),
            }),
        }
    }

    /// The target of a code object, by the low byte of its `e_flags`.
    pub fn from_flags(e_flags: u32) -> Option<Target> {
        let (name, _, family) = PROCESSORS.iter().find(|p| p.1 == e_flags & 0xff)?;
        Some(Target { id: (*name).to_owned(), family: *family })
    }

    /// The processor's name without features.
    pub fn processor(&self) -> &str {
        self.id.split(':').next().unwrap_or_default()
    }

    /// The wave size that the compiler takes by default.
    pub fn wave(&self) -> u32 {
        if self.is_rdna() { 32 } else { 64 }
    }

    /// Whether it can run waves of so many lanes.
    pub fn has_wave(&self, wave: u32) -> bool {
        wave == 64 || wave == 32 && self.is_rdna()
    }

    /// Whether AGPRs and VGPRs share one file.
    pub fn unified(&self) -> bool {
        matches!(self.family, Family::Gfx90a | Family::Gfx950)
    }

    fn is_rdna(&self) -> bool {
        use Family::{Gfx10, Gfx11, Gfx11Large, Gfx103};
        matches!(self.family, Gfx10 | Gfx103 | Gfx11 | Gfx11Large)
    }

    /// Its limits with waves of 32 or 64 lanes.
    pub fn limits(&self, wave: u32) -> Limits {
        // In waves of 64 lanes a register takes two rows of RDNA's file.
        let half = if wave == 64 { 2 } else { 1 };
        let (vgprs, vgpr_granule, waves) = match self.family {
            Family::Gfx9 | Family::Gfx908 => (256, 4, 10),
            Family::Gfx90a | Family::Gfx950 => (512, 8, 8),
            Family::Gfx10 => (1024 / half, 8 / half, 20),
            Family::Gfx103 | Family::Gfx11 => (1024 / half, 16 / half, 16),
            Family::Gfx11Large => (1536 / half, 24 / half, 16),
        };
        let (lds_block, lds_granule) = match self.family {
            Family::Gfx950 => (160 << 10, 1280),
            _ => (64 << 10, 512),
        };
        let rdna = self.is_rdna();
        Limits {
            vgprs,
            vgpr_granule,
            sgprs: (!rdna).then_some(800),
            waves,
            simds: 4,
            lds: if rdna { 2 * lds_block } else { lds_block },
            lds_block,
            lds_granule,
            barriers: if rdna { 32 } else { 16 },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_flags_and_mistakes() {
        let t = Target::parse("gfx90a:sramecc+:xnack-").unwrap();
        assert_eq!((t.processor(), t.family, t.wave()), ("gfx90a", Family::Gfx90a, 64));
        assert!(t.unified() && !t.has_wave(32));
        // Of a real gfx942 code object.
        assert_eq!(Target::from_flags(0x54c).unwrap().id, "gfx942");
        assert_eq!(Target::from_flags(0), None);
        let t = Target::parse("gfx1201").unwrap();
        assert!(t.has_wave(32) && t.has_wave(64) && t.wave() == 32);
        let error = Target::parse("gfx1101x").unwrap_err().to_string();
        assert!(error.contains("no AMD target `gfx1101x`; did you mean `gfx1101`?"), "{error}");
    }

    #[test]
    fn each_number_belongs_to_one_processor() {
        for (i, (name, mach, _)) in PROCESSORS.iter().enumerate() {
            let twice = PROCESSORS[..i].iter().any(|p| p.0 == *name || p.1 == *mach);
            assert!(!twice, "{name}");
        }
    }
}
