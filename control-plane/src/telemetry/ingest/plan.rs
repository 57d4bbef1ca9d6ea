//! What one transaction writes for a batch of messages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dunlin_protocol::{Ack, Envelope, Section, Verdict};

use super::{
    Body, Cohort, DeadLetter, Decoded, Generations, Horizon, Letters, Part, PartKey, Parts, Reason, Sequence,
    SequenceKey, window_end,
};
use crate::bus::DeviceId;

/// What a process keeps between batches: only what is committed.
#[derive(Debug)]
pub struct Ingest {
    /// Sequence windows of late. The database's rows are what counts; see [`Sequence::version`].
    pub sequences: Generations<SequenceKey, Sequence>,
    /// Open parts.
    pub parts: Parts,
    /// Which dead letters were kept of late.
    pub letters: Letters,
    /// Every message that this process has committed; the process' row holds the same.
    pub counters: Counters,
}

impl Ingest {
    /// Boots of devices whose windows are kept in memory: about 150 bytes each.
    pub const SEQUENCES: usize = 200_000;
    /// Devices with dead letters that are kept in memory.
    pub const LETTERS: usize = 20_000;

    /// A process that has committed nothing.
    pub fn new() -> Self {
        Ingest {
            sequences: Generations::new(Self::SEQUENCES),
            parts: Parts::default(),
            letters: Letters::new(Self::LETTERS),
            counters: Counters::default(),
        }
    }

    /// Takes over what was committed.
    pub fn commit(&mut self, plan: Plan) {
        self.counters.add(&plan.counters);
        self.parts.commit(plan.parts);
        for (key, sequence) in plan.sequences {
            self.sequences.insert(key, sequence);
        }
    }

    /// Begins anew, because another process believed this one dead and took its parts and counters over.
    pub fn reset(&mut self) {
        self.sequences.clear();
        self.parts.clear();
        self.counters = Counters::default();
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Ingest::new()
    }
}

/// What became of messages. `received = applied + duplicates + malformed + unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages with telemetry, however often they came.
    pub received: u64,
    /// Messages that took effect.
    pub applied: u64,
    /// Messages that had taken effect before.
    pub duplicates: u64,
    /// Messages that could not be read, or contradict their device's numbers.
    pub malformed: u64,
    /// Messages of devices that are unknown or blocked.
    pub unknown: u64,
    /// Messages that devices gave up before they arrived, told by gaps in their numbers.
    pub lost: u64,
    /// Applied reports whose device's clock was not believed.
    pub skewed: u64,
}

impl Counters {
    /// The counters' words, in the order of [`Counters::values`].
    pub const NAMES: [&'static str; 7] =
        ["received", "applied", "duplicates", "malformed", "unknown", "lost", "skewed"];

    /// The counters in order.
    pub fn values(&self) -> [u64; 7] {
        [self.received, self.applied, self.duplicates, self.malformed, self.unknown, self.lost, self.skewed]
    }

    /// The counters of these values.
    pub fn from_values(values: [u64; 7]) -> Self {
        let [received, applied, duplicates, malformed, unknown, lost, skewed] = values;
        Counters { received, applied, duplicates, malformed, unknown, lost, skewed }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Counters) {
        let (mut sum, other) = (self.values(), other.values());
        sum.iter_mut().zip(other).for_each(|(sum, n)| *sum = sum.saturating_add(n));
        *self = Counters::from_values(sum);
    }
}

/// Everything that depends on the moment and is not in the messages.
pub struct Moment<'a> {
    /// The time, microseconds UTC.
    pub now_us: i64,
    /// How far devices' clocks are believed.
    pub horizon: Horizon,
    /// Makes ids of parts and events.
    pub new_id: &'a dyn Fn() -> String,
}

/// An event to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The row's id; ids grow with time.
    pub id: String,
    /// Whose event.
    pub device: DeviceId,
    /// The device's fleet.
    pub fleet: Arc<str>,
    /// When it happened, as far as that is known, microseconds UTC.
    pub at_us: i64,
    /// The model slot; empty: the device itself.
    pub slot: String,
    /// The kind's word.
    pub kind: String,
    /// A number that goes with the kind.
    pub value: i64,
    /// More for people.
    pub detail: String,
}

/// What labels are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelKey {
    /// The digest of the model's artifact.
    pub model: [u8; 32],
    /// The model slot.
    pub slot: Box<str>,
    /// The devices.
    pub cohort: Cohort,
    /// The day in which the labels were given: its beginning, microseconds UTC.
    pub day_us: i64,
    /// The class that was predicted.
    pub predicted: u32,
    /// The class that was right.
    pub label: u32,
    /// Confidence in tenths; 255: unknown.
    pub confidence: u8,
}

/// A state message that was applied; its place in the batch says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// Whose.
    pub device: DeviceId,
    /// In which boot.
    pub boot: u64,
    /// When that boot was first heard of, microseconds UTC.
    pub first_us: i64,
    /// The message's place in the batch.
    pub message: usize,
}

/// What a batch tells of a model in a fleet, for those who look on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveSums {
    /// Reports.
    pub reports: u64,
    /// Inferences that gave a result.
    pub inferences: u64,
    /// Inferences that gave none.
    pub failures: u64,
}

/// What one transaction writes, and what may be said after its commit.
#[derive(Debug, Default)]
pub struct Plan {
    /// Sequence rows that changed, by key: their new contents.
    pub sequences: BTreeMap<SequenceKey, Sequence>,
    /// Parts that changed: their new contents.
    pub parts: BTreeMap<PartKey, Part>,
    /// What became of the messages.
    pub counters: Counters,
    /// Events to keep.
    pub events: Vec<EventRow>,
    /// Labels to add.
    pub labels: BTreeMap<LabelKey, u64>,
    /// States to pass on, the last of each boot.
    pub states: Vec<StateRow>,
    /// Samples of what was not applied.
    pub letters: Vec<DeadLetter>,
    /// Devices that gave a sign of life.
    pub seen: BTreeSet<DeviceId>,
    /// What to tell devices after the commit.
    pub acks: Vec<(DeviceId, Ack)>,
    /// What to tell those who look on after the commit, by fleet and model.
    pub live: BTreeMap<(Arc<str>, [u8; 32]), LiveSums>,
}

const MINUTE_US: i64 = 60 * 1_000_000;
const DAY_US: i64 = 86_400 * 1_000_000;

/// Says what to write for a batch. `known` gives the rows of boots that are not in [`Ingest::sequences`], or newer
/// ones; a boot that is in neither was never heard of.
pub fn plan(
    ingest: &mut Ingest,
    messages: &[Decoded<'_>],
    known: &HashMap<SequenceKey, Sequence>,
    moment: &Moment<'_>,
) -> Plan {
    let mut plan = Plan::default();
    let mut rejected: Vec<(usize, Reason)> = Vec::new();
    let mut order: Vec<(usize, &Decoded<'_>, Envelope)> = Vec::with_capacity(messages.len());
    plan.counters.received = messages.len() as u64;
    for (place, message) in messages.iter().enumerate() {
        if message.received.cohort.is_some() && !message.received.refused {
            // Cloning an id is cheap, but looking into the set first is cheaper.
            if !plan.seen.contains(message.received.device.as_str()) {
                plan.seen.insert(message.received.device.clone());
            }
        }
        match (&message.envelope, &message.body) {
            (Some(envelope), _) => order.push((place, message, *envelope)),
            (None, Err(Reason::UnknownDevice)) => {
                plan.counters.unknown += 1;
                rejected.push((place, Reason::UnknownDevice));
            }
            (None, body) => {
                plan.counters.malformed += 1;
                rejected.push((place, body.as_ref().err().copied().unwrap_or(Reason::Kind)));
            }
        }
    }
    // Boot by boot, and the lowest number first: one that came late may still be inside the window then.
    let key = |message: &(usize, &Decoded<'_>, Envelope)| (message.2.boot, message.2.seq, message.0);
    order.sort_unstable_by(|a, b| {
        a.1.received.device.cmp(&b.1.received.device).then_with(|| key(a).cmp(&key(b)))
    });
    let same_boot = |a: &(usize, &Decoded<'_>, Envelope), b: &(usize, &Decoded<'_>, Envelope)| {
        a.2.boot == b.2.boot && a.1.received.device == b.1.received.device
    };
    for boot in order.chunk_by(same_boot) {
        let Some((_, first, envelope)) = boot.first() else { continue };
        let key: SequenceKey = (first.received.device.clone(), envelope.boot);
        let before = known.get(&key).or_else(|| ingest.sequences.get(&key)).copied();
        let before = before.unwrap_or_else(|| Sequence::new(moment.now_us));
        let mut sequence = before;
        let mut state = None;
        for (place, message, envelope) in boot {
            match sequence.apply(envelope.seq, envelope.oldest) {
                Verdict::Fresh => match &message.body {
                    Ok(body) => {
                        plan.counters.applied += 1;
                        if matches!(body, Body::State(_)) {
                            state = Some(*place);
                            sequence.state_seq = i64::try_from(envelope.seq).unwrap_or(i64::MAX);
                        }
                        apply(&mut plan, ingest, &mut sequence, message, body, envelope, moment);
                    }
                    Err(reason) => {
                        plan.counters.malformed += 1;
                        rejected.push((*place, *reason));
                    }
                },
                Verdict::Duplicate => plan.counters.duplicates += 1,
                Verdict::Malformed => {
                    plan.counters.malformed += 1;
                    rejected.push((*place, Reason::Sequence));
                }
            }
        }
        plan.counters.lost += sequence.lost - before.lost;
        // A state that came late must not replace a newer one.
        if let Some(message) = state.filter(|_| sequence.state_seq > before.state_seq) {
            plan.states.push(StateRow {
                device: key.0.clone(),
                boot: key.1,
                first_us: sequence.first_us,
                message,
            });
        }
        sequence.state_seq = sequence.state_seq.max(before.state_seq);
        if sequence.version > 0 || sequence != before {
            plan.acks.push((key.0.clone(), sequence.window.ack(key.1)));
        }
        if sequence != before {
            sequence.version += 1;
            plan.sequences.insert(key, sequence);
        }
    }
    plan.states.sort_unstable_by_key(|state| state.message);
    let rejected = rejected.iter().filter_map(|(place, reason)| Some((messages.get(*place)?, *reason)));
    plan.letters = ingest.letters.sample(rejected, moment.now_us);
    plan
}

fn apply(
    plan: &mut Plan,
    ingest: &Ingest,
    sequence: &mut Sequence,
    message: &Decoded<'_>,
    body: &Body<'_>,
    envelope: &Envelope,
    moment: &Moment<'_>,
) {
    let Some(cohort) = &message.received.cohort else { return };
    let age_s = (envelope.age_s != Envelope::AGE_UNKNOWN).then_some(envelope.age_s);
    match body {
        Body::Report(report) => {
            let header = report.header();
            let (end_us, skewed) =
                window_end(header.start_unix_s, header.duration_ms, age_s, moment.now_us, moment.horizon);
            plan.counters.skewed += u64::from(skewed);
            let key = PartKey {
                model: header.model,
                slot: header.slot.into(),
                cohort: cohort.clone(),
                minute_us: end_us.div_euclid(MINUTE_US) * MINUTE_US,
            };
            let live = (Arc::clone(&cohort.fleet), header.model);
            let part = plan.parts.entry(key).or_insert_with_key(|key| match ingest.parts.get(key) {
                Some(part) => part.clone(),
                None => Part { id: (moment.new_id)().into(), sums: Default::default(), touched_us: 0 },
            });
            part.touched_us = moment.now_us;
            part.sums.add(report);
            let (inferences, failures) = outcome(report);
            sequence.reports += 1;
            sequence.inferences = sequence.inferences.saturating_add(inferences);
            sequence.failures = sequence.failures.saturating_add(failures);
            sequence.report_us = moment.now_us;
            let live = plan.live.entry(live).or_default();
            live.reports += 1;
            live.inferences = live.inferences.saturating_add(inferences);
            live.failures = live.failures.saturating_add(failures);
        }
        Body::Event(event) => {
            let (at_us, _) = window_end(event.unix_s, 0, age_s, moment.now_us, moment.horizon);
            plan.events.push(EventRow {
                id: (moment.new_id)(),
                device: message.received.device.clone(),
                fleet: Arc::clone(&cohort.fleet),
                at_us,
                slot: event.slot.to_owned(),
                kind: event_kind(event.kind),
                value: event.value,
                detail: event.detail.to_owned(),
            });
        }
        Body::Label(label) => {
            let (at_us, _) = window_end(0, 0, age_s, moment.now_us, moment.horizon);
            for entry in label.entries.iter() {
                let key = LabelKey {
                    model: label.model,
                    slot: label.slot.into(),
                    cohort: cohort.clone(),
                    day_us: at_us.div_euclid(DAY_US) * DAY_US,
                    predicted: entry.predicted,
                    label: entry.label,
                    confidence: entry.confidence_bin,
                };
                let count = plan.labels.entry(key).or_insert(0);
                *count = count.saturating_add(entry.count);
            }
        }
        // Passed on as a whole after all messages of the boot are known.
        Body::State(_) => {}
    }
}

/// The kind's word; a kind that this version does not know has its number.
fn event_kind(kind: dunlin_protocol::EventKind) -> String {
    match kind {
        dunlin_protocol::EventKind::Other(number) => format!("unknown_{number}"),
        kind => kind.as_str().to_owned(),
    }
}

/// Inferences with and without a result that a report tells of.
fn outcome(report: &dunlin_protocol::Report<'_>) -> (u64, u64) {
    report.sections().fold((0, 0), |(inferences, failures), section| match section {
        Section::Counts(counts) => {
            (inferences.saturating_add(counts.inferences), failures.saturating_add(counts.failures.total()))
        }
        _ => (inferences, failures),
    })
}
