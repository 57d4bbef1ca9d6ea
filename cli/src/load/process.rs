//! What a process has used so far, from Linux' `/proc`.

use std::time::Duration;

use serde::Serialize;

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    /// Processor time in user mode and in the kernel.
    #[serde(skip)]
    pub(crate) cpu: Duration,
    /// Memory that is in use: resident set size in bytes.
    pub(crate) resident_bytes: u64,
}

impl Usage {
    /// Of this process id, or of the own one (`self`). `None` where there is no `/proc`.
    pub(crate) fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        parse(&stat, &status)
    }
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name in parentheses may hold blanks; user and system time are fields 14 and 15, in hundredths of a second
    // (USER_HZ, which is 100 on every architecture that Linux runs these programs on).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let cpu = Duration::from_millis((ticks.next()?? + ticks.next()??) * 10);
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu, resident_bytes: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        let usage = parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\n").expect("it is readable");
        assert_eq!((usage.cpu, usage.resident_bytes), (Duration::from_secs(3), 2 << 20));
        assert!(parse("", "").is_none());
    }
}
