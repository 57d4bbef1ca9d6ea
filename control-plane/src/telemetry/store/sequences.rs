//! Sequence rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dunlin_protocol::SequenceWindow;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::sql::{Rows, count, signed, unsigned};
use crate::bus::DeviceId;
use crate::db::{DbError, Tx};
use crate::telemetry::ingest::{Sequence, SequenceKey};

static SELECT: Rows = Rows::new(
    "with k(device, boot) as (values ",
    2,
    // "cross join … where" rather than "join … on", so that SQLite walks over the keys and not over the table.
    ") select s.device, s.boot, s.version, s.base, s.bitmap, s.applied, s.lost, s.reports, s.inferences, s.failures, \
     s.first_us, s.report_us, s.state_seq from k cross join telemetry_sequences s \
     where s.device = k.device and s.boot = k.boot",
);

static LOCK: Rows = Rows::new(
    "insert into telemetry_sequences (device, boot, version, base, bitmap, applied, lost, reports, inferences, \
     failures, first_us, report_us, state_seq, updated_us) values ",
    14,
    " on conflict (device, boot) do update set version = telemetry_sequences.version + 1 \
     returning device, boot, version, base, bitmap, applied, lost, reports, inferences, failures, first_us, report_us, \
     state_seq",
);

static WRITE: Rows = Rows::new(
    "insert into telemetry_sequences (device, boot, version, base, bitmap, applied, lost, reports, inferences, \
     failures, first_us, report_us, state_seq, updated_us) values ",
    14,
    " on conflict (device, boot) do update set version = excluded.version, base = excluded.base, \
     bitmap = excluded.bitmap, applied = excluded.applied, lost = excluded.lost, reports = excluded.reports, \
     inferences = excluded.inferences, failures = excluded.failures, first_us = excluded.first_us, \
     report_us = excluded.report_us, state_seq = excluded.state_seq, updated_us = excluded.updated_us \
     where telemetry_sequences.version = excluded.version - 1",
);

/// Reads rows.
pub(super) async fn select(
    tx: &mut Tx,
    keys: &[SequenceKey],
    known: &mut HashMap<SequenceKey, Sequence>,
) -> Result<(), DbError> {
    for (range, text) in SELECT.split(keys.len()) {
        let mut query = sqlx::query(text);
        for (device, boot) in keys.get(range).unwrap_or_default() {
            query = query.bind(device.as_str()).bind(signed(*boot));
        }
        for row in query.fetch_all(&mut **tx).await? {
            let (key, sequence) = from_row(&row)?;
            known.insert(key, sequence);
        }
    }
    Ok(())
}

static COUNT: Rows = Rows::new(
    "with k(device) as (values ",
    1,
    ") select k.device, (select count(*) from telemetry_sequences s where s.device = k.device) from k",
);

/// How many boots of these devices there are rows of.
pub(super) async fn count_boots(
    tx: &mut Tx,
    devices: &BTreeSet<DeviceId>,
) -> Result<HashMap<String, i64>, DbError> {
    let devices: Vec<&DeviceId> = devices.iter().collect();
    let mut counts = HashMap::with_capacity(devices.len());
    for (range, text) in COUNT.split(devices.len()) {
        let mut query = sqlx::query(text);
        for device in devices.get(range).unwrap_or_default() {
            query = query.bind(device.as_str());
        }
        for row in query.fetch_all(&mut **tx).await? {
            counts.insert(row.try_get(0)?, row.try_get(1)?);
        }
    }
    Ok(counts)
}

/// Reads rows and keeps others from changing them until the end of the transaction; rows that are missing are made.
/// `keys` are sorted: whoever locks rows does so in this order.
pub(super) async fn lock(
    tx: &mut Tx,
    keys: &BTreeSet<SequenceKey>,
    now_us: i64,
) -> Result<HashMap<SequenceKey, Sequence>, DbError> {
    let keys: Vec<&SequenceKey> = keys.iter().collect();
    let new = Sequence { version: 1, ..Sequence::new(now_us) };
    let mut known = HashMap::with_capacity(keys.len());
    for (range, text) in LOCK.split(keys.len()) {
        let mut query = sqlx::query(text);
        for key in keys.get(range).unwrap_or_default() {
            query = bind(query, key, &new, now_us);
        }
        for row in query.fetch_all(&mut **tx).await? {
            let (key, sequence) = from_row(&row)?;
            known.insert(key, sequence);
        }
    }
    Ok(known)
}

/// Writes rows; `false` when one of them is not what it was when it was read.
pub(super) async fn write(
    tx: &mut Tx,
    sequences: &BTreeMap<SequenceKey, Sequence>,
    now_us: i64,
) -> Result<bool, DbError> {
    let sequences: Vec<_> = sequences.iter().collect();
    let mut written = 0;
    for (range, text) in WRITE.split(sequences.len()) {
        let mut query = sqlx::query(text);
        for (key, sequence) in sequences.get(range).unwrap_or_default() {
            query = bind(query, key, sequence, now_us);
        }
        written += query.execute(&mut **tx).await?.rows_affected();
    }
    Ok(written == sequences.len() as u64)
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn bind<'q>(query: Query<'q>, key: &SequenceKey, sequence: &Sequence, now_us: i64) -> Query<'q> {
    query
        .bind(key.0.as_str())
        .bind(signed(key.1))
        .bind(sequence.version)
        .bind(signed(sequence.window.base()))
        .bind(signed(sequence.window.bitmap()))
        .bind(count(sequence.applied))
        .bind(count(sequence.lost))
        .bind(count(sequence.reports))
        .bind(count(sequence.inferences))
        .bind(count(sequence.failures))
        .bind(sequence.first_us)
        .bind(sequence.report_us)
        .bind(sequence.state_seq)
        .bind(now_us)
}

fn from_row(row: &AnyRow) -> Result<(SequenceKey, Sequence), DbError> {
    let device: String = row.try_get(0)?;
    let device = DeviceId::new(&device).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let number = |column: usize| row.try_get::<i64, _>(column);
    let sequence = Sequence {
        version: number(2)?,
        window: SequenceWindow::from_parts(unsigned(number(3)?), unsigned(number(4)?)),
        applied: unsigned(number(5)?),
        lost: unsigned(number(6)?),
        reports: unsigned(number(7)?),
        inferences: unsigned(number(8)?),
        failures: unsigned(number(9)?),
        first_us: number(10)?,
        report_us: number(11)?,
        state_seq: number(12)?,
    };
    Ok(((device, unsigned(number(1)?)), sequence))
}

/// The boot of the device whose states were applied last: the one that was first heard of last.
pub(super) async fn newest_state(tx: &mut Tx, device: &DeviceId) -> Result<Option<(u64, i64)>, DbError> {
    let row = sqlx::query(
        "select boot, first_us from telemetry_sequences where device = $1 and state_seq >= 0 \
         order by first_us desc, boot desc limit 1",
    )
    .bind(device.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok((unsigned(row.try_get(0)?), row.try_get(1)?))).transpose()
}
