//! What the drivers tell of a GPU's state: NVIDIA by its management library, AMD by the kernel's files.

use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};

use super::super::timing::Telemetry;

/// A device's place on the bus, as both vendors' tools write it.
pub(super) fn bus_id(domain: u32, bus: u32, device: u32) -> String {
    format!("{domain:04x}:{bus:02x}:{device:02x}.0")
}

/// By NVIDIA's management library, which comes with the driver.
pub(super) fn of_nvidia(pci: &str) -> Option<Telemetry> {
    let nvml = Nvml::init().ok()?;
    let device = nvml.device_by_pci_bus_id(pci).ok()?;
    let reasons = device.current_throttle_reasons().ok();
    Some(Telemetry {
        sm_mhz: device.clock_info(Clock::SM).ok(),
        mem_mhz: device.clock_info(Clock::Memory).ok(),
        power_w: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
        temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
        throttle: reasons
            .map(|reasons| reasons.iter_names().map(|(name, _)| name.to_lowercase()).collect()),
    })
}

/// By the files that AMD's kernel driver keeps of a device, below a folder (`/sys/bus/pci/devices`).
///
/// Clocks in Hz, power in microwatts, temperature in millidegrees (Linux, Documentation/gpu/amdgpu/thermal).
pub(super) fn of_amd(devices: &Path, pci: &str) -> Option<Telemetry> {
    let monitors = std::fs::read_dir(devices.join(pci).join("hwmon")).ok()?;
    let folder = monitors.flatten().next()?.path();
    let number = |names: &[&str]| -> Option<u64> {
        names
            .iter()
            .find_map(|name| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok())
    };
    let mhz = |name: &str| number(&[name]).and_then(|hertz| u32::try_from(hertz / 1_000_000).ok());
    Some(Telemetry {
        sm_mhz: mhz("freq1_input"),
        mem_mhz: mhz("freq2_input"),
        power_w: number(&["power1_average", "power1_input"]).map(|micro| micro as f64 / 1e6),
        temperature_c: number(&["temp1_input"]).and_then(|milli| u32::try_from(milli / 1000).ok()),
        throttle: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_an_amd_gpu() {
        let devices = tempfile::tempdir().unwrap();
        let pci = bus_id(0, 0xc1, 0);
        assert_eq!(pci, "0000:c1:00.0");
        let folder = devices.path().join(&pci).join("hwmon/hwmon3");
        assert_eq!(of_amd(devices.path(), &pci), None);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("freq1_input", "2100000000\n"),
            ("freq2_input", "1300000000\n"),
            ("power1_input", "612000000\n"),
            ("temp1_input", "51000\n"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let told = Telemetry {
            sm_mhz: Some(2100),
            mem_mhz: Some(1300),
            power_w: Some(612.0),
            temperature_c: Some(51),
            throttle: None,
        };
        assert_eq!(of_amd(devices.path(), &pci), Some(told));
    }
}
