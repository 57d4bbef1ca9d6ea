//! What the system tells about the device's health, where it does (Linux).

use std::fs;
use std::path::Path;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Health {
    /// The hottest thermal zone, in degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Charge of the first battery, 0 to 100 %.
    pub battery_percent: Option<f32>,
    /// Resident memory of this process, in bytes.
    pub memory_bytes: Option<u64>,
}

impl Health {
    /// Reads what there is.
    pub fn read() -> Self {
        Self::read_below(Path::new("/"))
    }

    fn read_below(root: &Path) -> Self {
        Health {
            temperature_c: temperature(&root.join("sys/class/thermal")),
            battery_percent: battery(&root.join("sys/class/power_supply")),
            memory_bytes: memory(&root.join("proc/self/status")),
        }
    }
}

/// `/sys/class/thermal/thermal_zone*/temp`: millidegrees. Zones that are switched off report nonsense such as -274.
fn temperature(zones: &Path) -> Option<f32> {
    let zones = fs::read_dir(zones).ok()?.flatten();
    let zones = zones.filter(|zone| zone.file_name().to_string_lossy().starts_with("thermal_zone"));
    let readings = zones.filter_map(|zone| number(&zone.path().join("temp")));
    let plausible = readings.map(|milli| milli / 1000.0).filter(|celsius| (-60.0..=200.0).contains(celsius));
    plausible.max_by(f32::total_cmp)
}

/// `/sys/class/power_supply/*/capacity`: percent.
fn battery(supplies: &Path) -> Option<f32> {
    let mut supplies: Vec<_> = fs::read_dir(supplies).ok()?.flatten().map(|entry| entry.path()).collect();
    supplies.sort();
    let readings = supplies.iter().filter_map(|path| number(&path.join("capacity")));
    readings.into_iter().find(|percent| (0.0..=100.0).contains(percent))
}

/// The line `VmRSS:  1234 kB`.
fn memory(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn number(path: &Path) -> Option<f32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_come_from_where_linux_puts_them() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(Health::read_below(root.path()), Health::default());
        write("sys/class/thermal/thermal_zone0/temp", "41500\n");
        write("sys/class/thermal/thermal_zone1/temp", "-274000\n");
        write("sys/class/thermal/thermal_zone2/temp", "nonsense");
        write("sys/class/thermal/cooling_device0/temp", "99000");
        write("sys/class/power_supply/AC/online", "1");
        write("sys/class/power_supply/BAT0/capacity", "87\n");
        write("proc/self/status", "Name:\tdunlin\nVmRSS:\t   2048 kB\n");
        let health = Health::read_below(root.path());
        assert_eq!(health.temperature_c, Some(41.5));
        assert_eq!(health.battery_percent, Some(87.0));
        assert_eq!(health.memory_bytes, Some(2 << 20));
    }
}
