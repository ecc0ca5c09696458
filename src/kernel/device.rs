//! `[device]`: what a kernel asks of the machine that it runs on.

use super::read::{ManifestError, Section};
use crate::device::Lanes;

/// What a kernel asks of its device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceNeeds {
    /// How the lanes of a wave advance.
    pub lanes: Lanes,
}

impl DeviceNeeds {
    pub(super) fn read(section: &Section) -> Result<DeviceNeeds, ManifestError> {
        section.keys(&["lanes"])?;
        let lanes = section.get("lanes").map(|item| item.word("\"independent\" or \"lockstep\""));
        Ok(DeviceNeeds { lanes: lanes.transpose()?.unwrap_or_default() })
    }
}
