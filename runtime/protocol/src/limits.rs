//! Every limit of the protocol in one place. A message beyond a limit is refused, never truncated.

/// The version of the protocol that this crate speaks; the first byte of every message. It only changes when an
/// older reader could do harm with a newer message; everything else is added at the end of a message.
pub const VERSION: u8 = 1;

/// Most messages of one boot that a device may have outstanding (sent and not acknowledged):
/// `seq < oldest + WINDOW`.
pub const WINDOW: u64 = 64;
/// The highest sequence number and the highest base, so that both fit the signed 64-bit integers of databases and
/// no sum of them overflows. A device that sends a million messages a second reaches it after 292,000 years.
pub const MAX_SEQUENCE: u64 = i64::MAX as u64 - WINDOW;

/// Longest device id, in bytes.
pub const MAX_DEVICE_ID: usize = 64;
/// Longest topic (`d/{id}/down/desired`), in bytes.
pub const MAX_TOPIC: usize = 2 + MAX_DEVICE_ID + 13;

/// Most bytes that an envelope of this version takes.
pub const MAX_ENVELOPE: usize = 1 + 1 + 8 + 10 + 1 + 5;
/// Longest message from a device, envelope included, in bytes. Firmware chooses smaller buffers.
pub const MAX_UP_MESSAGE: usize = 4096;
/// Longest message to a device, in bytes.
pub const MAX_DOWN_MESSAGE: usize = 8192;
/// Default budget of a report, envelope included, in bytes.
pub const REPORT_BUDGET: usize = 1024;
/// Smallest budget of a report: header, envelope and the largest section that cannot be split fit in.
pub const MIN_REPORT_BUDGET: usize = 256;

/// Longest name of a model slot, in bytes.
pub const MAX_SLOT: usize = 32;
/// Most model slots of a device.
pub const MAX_SLOTS: usize = 8;
/// Longest `agent_version` and `hardware`, in bytes.
pub const MAX_NAME: usize = 64;
/// Most attributes in a state, and most settings of a slot.
pub const MAX_PAIRS: usize = 16;
/// Longest key of an attribute or a setting, in bytes.
pub const MAX_KEY: usize = 32;
/// Longest value of an attribute or a setting, in bytes.
pub const MAX_VALUE: usize = 96;
/// Longest reason of a failed slot and longest detail of an event, in bytes.
pub const MAX_DETAIL: usize = 160;
/// Longest address of an artifact, in bytes.
pub const MAX_URL: usize = 512;
/// Most entries of one label message.
pub const MAX_LABELS: usize = 256;
/// Longest certificate signing request, and longest certificate, in bytes (DER).
pub const MAX_CERTIFICATE: usize = 2048;

/// Most signatures on a message.
pub const MAX_SIGNATURES: usize = 8;
/// Most keys of a role.
pub const MAX_KEYS: usize = 8;
/// Most roles in a root.
pub const MAX_ROLES: usize = 8;
/// Longest root with its signatures, in bytes.
pub const MAX_ROOT: usize = 2048;
/// Longest release with its signatures, in bytes.
pub const MAX_RELEASE: usize = 1536;
/// Most hardware classes of a release.
pub const MAX_HARDWARE: usize = 8;
/// Most bytes of one chunk of an artifact or a root.
pub const MAX_CHUNK: usize = 4096;

/// Most sections in one report.
pub const MAX_SECTIONS: usize = 256;
/// Most different gauges, and most different marks, in one report.
pub const MAX_READINGS: usize = 16;
/// Most counters of one feature.
pub const MAX_COUNTERS: u32 = 1 << 16;
/// The largest count in a message: devices count in 32 bits. This limit and the next ones keep a damaged or
/// malicious message from overflowing sums over many devices.
pub const MAX_COUNT: u64 = u32::MAX as u64;
/// The largest magnitude of a feature's sum: [`MAX_COUNT`] values of 23 bits.
pub const MAX_SUM: u64 = 1 << 55;
/// The largest sum of squares of a feature: [`MAX_COUNT`] squares of 46 bits.
pub const MAX_SQUARES: u128 = 1 << 78;
/// The largest magnitude of a gauge's sum, in thousandths: [`MAX_COUNT`] readings of 8,388.
pub const MAX_GAUGE_SUM: u64 = 1 << 55;
/// The largest sum of latencies, in microseconds (2,284 years).
pub const MAX_LATENCY_SUM: u64 = 1 << 56;
