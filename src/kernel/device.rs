//! `[device]`: what a kernel asks of the machine that it runs on.

use super::read::{ManifestError, Section};
use crate::device::Lanes;

/// The most local memory that a block of any AMD target can have, KiB.
const MOST_LDS_KIB: usize = 160;

/// What a kernel asks of its device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceNeeds {
    /// How the lanes of a wave advance.
    pub lanes: Lanes,
    /// LDS that a block may have, KiB; `None`: that of every target.
    pub lds_kib: Option<u32>,
}

impl DeviceNeeds {
    pub(super) fn read(section: &Section) -> Result<DeviceNeeds, ManifestError> {
        section.keys(&["lanes", "lds_kib"])?;
        let mut needs = DeviceNeeds::default();
        if let Some(item) = section.get("lanes") {
            needs.lanes = item.word("\"independent\" or \"lockstep\"")?;
        }
        if let Some(item) = section.get("lds_kib") {
            let kib = item.count(1, "a number of KiB, such as 64")?;
            if kib > MOST_LDS_KIB {
                let why =
                    format!("no AMD target gives a block more than {MOST_LDS_KIB} KiB of LDS");
                return Err(item.bad(kib, why));
            }
            needs.lds_kib = Some(kib as u32);
        }
        Ok(needs)
    }
}
