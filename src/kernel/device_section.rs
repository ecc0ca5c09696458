//! `[device]`: what a manifest says of the devices that its kernel is for.

use super::read::{ManifestError, Section};

/// The most local memory that a block of any AMD target can have, KiB.
const MOST_LDS_KIB: usize = 160;

/// What a manifest says of the devices that its kernel is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSection {
    /// LDS that a block may have, KiB; `None`: that of every target.
    pub lds_kib: Option<u32>,
}

impl DeviceSection {
    pub(super) fn read(section: &Section) -> Result<DeviceSection, ManifestError> {
        section.keys(&["lds_kib"])?;
        let mut device = DeviceSection::default();
        if let Some(item) = section.get("lds_kib") {
            let kib = item.count(1, "a number of KiB, such as 64")?;
            if kib > MOST_LDS_KIB {
                let why =
                    format!("no AMD target gives a block more than {MOST_LDS_KIB} KiB of LDS");
                return Err(item.bad(kib, why));
            }
            device.lds_kib = Some(kib as u32);
        }
        Ok(device)
    }
}
