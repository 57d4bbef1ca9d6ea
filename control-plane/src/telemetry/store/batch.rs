//! One batch, one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dunlin_protocol::{Ack, State};

use super::sql::{Rows, count};
use super::{process, sequences};
use crate::bus::DeviceId;
use crate::db::{Db, DbError, Tx};
use crate::telemetry::ingest::{
    Body, Counters, DeadLetter, Decoded, EventRow, Ingest, LabelKey, LiveSums, Moment, Part, PartKey, Plan,
    Reason, Received, SequenceKey, decode, plan,
};
use crate::telemetry::limits;
use crate::telemetry::neighbours::Devices;

/// What a batch has led to.
#[derive(Debug)]
pub(crate) struct Committed {
    /// What to tell devices.
    pub(crate) acks: Vec<(DeviceId, Ack)>,
    /// What became of the messages.
    pub(crate) counters: Counters,
    /// What to tell those who look on.
    pub(crate) live: BTreeMap<(std::sync::Arc<str>, [u8; 32]), LiveSums>,
    /// Events that were kept.
    pub(crate) events: Vec<EventRow>,
    /// Devices whose state has changed, with their fleets.
    pub(crate) states: Vec<(DeviceId, std::sync::Arc<str>)>,
}

/// Why a batch was not committed. Nothing of it took effect, but for [`BatchError::Unclear`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    /// Another process took this one for dead: begin anew under another name, then repeat the batch.
    #[error("another process has taken this one's sums over")]
    TakenOver,
    /// Another process has applied messages of the same devices: repeat the batch with locks.
    #[error("another process receives messages of the same devices")]
    Stale,
    /// The commit failed, and nobody knows whether it had an effect: begin anew under another name, then repeat the
    /// batch with locks. What was committed will be recognised.
    #[error("the commit failed: {0}")]
    Unclear(DbError),
    /// The database failed before the commit: repeat the batch.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> Self {
        BatchError::Db(error.into())
    }
}

/// Whether sequence rows are locked before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// No: what is in memory is believed, and checked when it is written. Fast as long as a device's messages all come
    /// to one process.
    Optimistic,
    /// Yes: for devices whose messages are split among processes.
    Locked,
}

/// Who writes, and with whom.
pub(crate) struct Writer<'a> {
    /// The database.
    pub(crate) db: &'a Db,
    /// The name of this process in `telemetry_processes`.
    pub(crate) process: &'a str,
    /// The devices domain.
    pub(crate) devices: &'a dyn Devices,
}

impl Writer<'_> {
    /// Applies a batch. Afterwards `ingest` holds what the database holds.
    ///
    /// # Errors
    /// See [`BatchError`]; `ingest` is unchanged then.
    pub(crate) async fn apply(
        &self,
        ingest: &mut Ingest,
        received: &[Received],
        new_id: &(dyn Fn() -> String + Send + Sync),
        now_us: i64,
        horizon: crate::telemetry::ingest::Horizon,
        reading: Reading,
    ) -> Result<Committed, BatchError> {
        let mut decoded: Vec<Decoded<'_>> = received.iter().map(decode).collect();
        let mut keys: BTreeSet<SequenceKey> = decoded.iter().filter_map(Decoded::boot).collect();
        let mut tx = self.db.begin().await?;
        if reading == Reading::Locked {
            // Takes the row of this process first, as all do.
            if !process::beat(&mut tx, self.process, &ingest.counters, now_us).await? {
                return Err(BatchError::TakenOver);
            }
        }
        let missing: Vec<SequenceKey> =
            keys.iter().filter(|key| ingest.sequences.get(*key).is_none()).cloned().collect();
        let mut known = HashMap::with_capacity(missing.len());
        sequences::select(&mut tx, &missing, &mut known).await?;
        let new = missing.into_iter().filter(|key| !known.contains_key(key)).collect();
        let refused = too_many_boots(&mut tx, new).await?;
        if !refused.is_empty() {
            for message in &mut decoded {
                if message.boot().is_some_and(|boot| refused.contains(&boot)) {
                    message.refuse(Reason::Boots);
                }
            }
            keys.retain(|key| !refused.contains(key));
        }
        if reading == Reading::Locked {
            known = sequences::lock(&mut tx, &keys, now_us).await?;
        }
        let mut plan = plan(ingest, &decoded, &known, &Moment { now_us, horizon, new_id });
        let mut counters = ingest.counters;
        counters.add(&plan.counters);
        if !process::beat(&mut tx, self.process, &counters, now_us).await? {
            return Err(BatchError::TakenOver);
        }
        if !sequences::write(&mut tx, &plan.sequences, now_us).await? {
            return Err(BatchError::Stale);
        }
        write_parts(&mut tx, self.process, &plan.parts).await?;
        write_labels(&mut tx, &plan.labels).await?;
        write_events(&mut tx, &plan.events, now_us).await?;
        write_letters(&mut tx, &plan.letters, new_id, now_us).await?;
        let states = newest_states(&mut tx, &plan, &decoded).await?;
        let behind = self.devices.write(&mut tx, &plan.seen, &states, now_us).await?;
        let states = states
            .iter()
            .filter_map(|(device, _)| Some((device.clone(), self.devices.cohort(device)?.fleet)))
            .collect();
        if let Err(error) = tx.commit().await {
            return Err(BatchError::Unclear(error.into()));
        }
        self.devices.written(&plan.seen, behind, now_us);
        let committed = Committed {
            acks: std::mem::take(&mut plan.acks),
            counters: plan.counters,
            live: std::mem::take(&mut plan.live),
            events: std::mem::take(&mut plan.events),
            states,
        };
        for (key, sequence) in known {
            ingest.sequences.insert(key, sequence);
        }
        ingest.commit(plan);
        Ok(committed)
    }
}

/// Those of the boots, of which there are no rows yet, that their devices have no room for.
async fn too_many_boots(tx: &mut Tx, new: Vec<SequenceKey>) -> Result<BTreeSet<SequenceKey>, DbError> {
    let devices = new.iter().map(|(device, _)| device.clone()).collect();
    let mut counts = sequences::count_boots(tx, &devices).await?;
    let mut is_beyond = |(device, _): &SequenceKey| {
        counts.get_mut(device.as_str()).is_some_and(|count| {
            *count += 1;
            *count > limits::BOOTS_PER_DEVICE
        })
    };
    Ok(new.into_iter().filter(|key| is_beyond(key)).collect())
}

/// The states to pass on: of each device the last one of the boot that was first heard of last.
async fn newest_states<'a>(
    tx: &mut Tx,
    plan: &Plan,
    decoded: &'a [Decoded<'a>],
) -> Result<Vec<(DeviceId, &'a State<'a>)>, DbError> {
    let mut states: BTreeMap<&DeviceId, ((i64, u64), usize)> = BTreeMap::new();
    for state in &plan.states {
        let order = (state.first_us, state.boot);
        let newest = states.entry(&state.device).or_insert((order, state.message));
        if newest.0 <= order {
            *newest = (order, state.message);
        }
    }
    let mut result = Vec::with_capacity(states.len());
    for (device, ((first_us, boot), message)) in states {
        // The rows are written already, with those of this batch.
        let newest = sequences::newest_state(tx, device).await?;
        if newest.is_none_or(|(newest, newest_us)| (newest_us, newest) <= (first_us, boot))
            && let Some(Decoded { body: Ok(Body::State(state)), .. }) = decoded.get(message)
        {
            result.push((device.clone(), state));
        }
    }
    Ok(result)
}

static PARTS: Rows = Rows::new(
    "insert into telemetry_parts (id, process, sealed, model, slot, cohort, fleet, minute_us, sums) values ",
    9,
    " on conflict (id) do update set sums = excluded.sums",
);

async fn write_parts(tx: &mut Tx, process: &str, parts: &BTreeMap<PartKey, Part>) -> Result<(), DbError> {
    let parts: Vec<_> = parts.iter().collect();
    for (range, text) in PARTS.split(parts.len()) {
        let mut query = sqlx::query(text);
        for (key, part) in parts.get(range).unwrap_or_default() {
            query = query
                .bind(&*part.id)
                .bind(process)
                .bind(0_i64)
                .bind(hex::encode(key.model))
                .bind(&*key.slot)
                .bind(&*key.cohort.key)
                .bind(&*key.cohort.fleet)
                .bind(key.minute_us)
                .bind(part.sums.encode());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

static LABELS: Rows = Rows::new(
    "insert into telemetry_labels (model, slot, cohort, day_us, predicted, label, confidence, fleet, count) values ",
    9,
    " on conflict (model, slot, cohort, day_us, predicted, label, confidence) \
     do update set count = telemetry_labels.count + excluded.count",
);

async fn write_labels(tx: &mut Tx, labels: &BTreeMap<LabelKey, u64>) -> Result<(), DbError> {
    let labels: Vec<_> = labels.iter().collect();
    for (range, text) in LABELS.split(labels.len()) {
        let mut query = sqlx::query(text);
        for (key, n) in labels.get(range).unwrap_or_default() {
            query = query
                .bind(hex::encode(key.model))
                .bind(&*key.slot)
                .bind(&*key.cohort.key)
                .bind(key.day_us)
                .bind(i64::from(key.predicted))
                .bind(i64::from(key.label))
                .bind(i64::from(key.confidence))
                .bind(&*key.cohort.fleet)
                .bind(count(**n));
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

static EVENTS: Rows = Rows::new(
    "insert into telemetry_events (id, device, fleet, at_us, received_us, slot, kind, value, detail) values ",
    9,
    "",
);

async fn write_events(tx: &mut Tx, events: &[EventRow], now_us: i64) -> Result<(), DbError> {
    for (range, text) in EVENTS.split(events.len()) {
        let mut query = sqlx::query(text);
        for event in events.get(range).unwrap_or_default() {
            query = query
                .bind(event.id.as_str())
                .bind(event.device.as_str())
                .bind(&*event.fleet)
                .bind(event.at_us)
                .bind(now_us)
                .bind(event.slot.as_str())
                .bind(event.kind.as_str())
                .bind(event.value)
                .bind(event.detail.as_str());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

static LETTERS: Rows = Rows::new(
    "insert into telemetry_dead_letters (id, received_us, device, fleet, kind, reason, detail, size, payload) values ",
    9,
    "",
);

async fn write_letters(
    tx: &mut Tx,
    letters: &[DeadLetter],
    new_id: &(dyn Fn() -> String + Send + Sync),
    now_us: i64,
) -> Result<(), DbError> {
    for (range, text) in LETTERS.split(letters.len()) {
        let mut query = sqlx::query(text);
        for letter in letters.get(range).unwrap_or_default() {
            query = query
                .bind(new_id())
                .bind(now_us)
                .bind(letter.device.as_str())
                .bind(letter.fleet.clone())
                .bind(letter.kind)
                .bind(letter.reason.name())
                .bind(letter.reason.to_string())
                .bind(count(letter.size as u64))
                .bind(letter.payload.clone());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Seals parts of this process; they are never written again.
pub(crate) async fn seal(db: &Db, parts: &[std::sync::Arc<str>]) -> Result<(), DbError> {
    static SEAL: Rows = Rows::new(
        "with k(id) as (values ",
        1,
        ") update telemetry_parts set sealed = 1 where sealed = 0 and id in (select id from k)",
    );
    for (range, text) in SEAL.split(parts.len()) {
        let mut query = sqlx::query(text);
        for id in parts.get(range).unwrap_or_default() {
            query = query.bind(&**id);
        }
        query.execute(db.write()).await?;
    }
    Ok(())
}

/// What the database holds of a boot.
#[cfg(test)]
pub(crate) async fn read_sequence(
    db: &Db,
    key: &SequenceKey,
) -> Result<Option<crate::telemetry::ingest::Sequence>, DbError> {
    let mut tx = db.begin().await?;
    let mut known = HashMap::new();
    sequences::select(&mut tx, std::slice::from_ref(key), &mut known).await?;
    Ok(known.remove(key))
}
