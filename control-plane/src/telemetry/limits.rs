//! Telemetry's limits, in one place. What an operator may want to change is a setting (`telemetry.*`).

use std::time::Duration;

/// How long a batch waits for more messages once it has one.
pub(super) const LINGER: Duration = Duration::from_millis(2);
/// How often a process says that it lives, and seals what rests.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// Time to wait before a failed transaction is repeated for the first time.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Time to wait before it is repeated, at most.
pub(super) const RETRY_LAST: Duration = Duration::from_secs(2);
/// Batches for which rows are locked after one found that other processes get messages of the same devices.
pub(super) const LOCKED_BATCHES: u32 = 256;
/// Events that are kept of a device.
pub(super) const EVENTS_PER_DEVICE: i64 = 1_000;
/// New events of a device after which the oldest ones are deleted.
pub(super) const EVENTS_TRIM: i64 = 100;
/// Devices with new events that are remembered.
pub(super) const EVENT_DEVICES: usize = 100_000;
/// How often background work looks for something to do.
pub(super) const BACKGROUND: Duration = Duration::from_secs(2);
/// How often old rows are deleted.
pub(super) const RETENTION: Duration = Duration::from_secs(600);
/// How long a boot of a device is remembered after its last message.
pub(super) const SEQUENCES_KEPT: Duration = Duration::from_secs(90 * 86_400);
/// Boots of a device that are remembered at once: each is a row of about 150 bytes. Enough for a device that starts
/// every ten minutes. What is remembered cannot be forgotten earlier to make room, because a message of a forgotten boot
/// that comes once more would count twice; so messages of further boots are refused. Each process may exceed this by
/// the new boots of one batch.
pub(super) const BOOTS_PER_DEVICE: i64 = 15_000;
/// How far the end of a window may lie in the future.
pub(super) const FUTURE: Duration = Duration::from_secs(300);
/// Intervals of one answer.
pub(super) const INTERVALS: i64 = 1_500;
/// Rows of a confusion matrix in one answer.
pub(super) const CONFUSION: i64 = 10_000;
/// Models, slots and cohorts in one summary.
pub(super) const GROUPS: usize = 10_000;
/// Models whose baselines are kept in memory.
pub(super) const BASELINES: usize = 64;
/// Time during which the heartbeat of a process may stand still before another one takes its work over.
pub(super) const SILENCE: Duration = Duration::from_secs(10);
