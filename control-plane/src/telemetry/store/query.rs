//! Reading statistics: what is rolled up plus what is not, in one statement, so that every number is exact at one moment.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sqlx::Row as _;

use super::sql::unsigned;
use crate::access::Visible;
use crate::db::{Db, DbError};
use crate::telemetry::aggregate::{Aggregate, CodecError};
use crate::telemetry::ingest::Counters;

/// Why statistics cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// A row cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        QueryError::Db(error.into())
    }
}

/// A stretch of time, and the length of the intervals into which it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its beginning, microseconds UTC; the beginning of an interval.
    pub(crate) from_us: i64,
    /// Its end, microseconds UTC; the beginning of the first interval that does not belong to it.
    pub(crate) to_us: i64,
    /// The length of an interval: one of [`super::rollup::LEVELS`].
    pub(crate) seconds: i64,
}

impl Span {
    /// The intervals that hold any of the times from `from_us` (included) to `to_us` (not included).
    pub(crate) fn around(from_us: i64, to_us: i64, seconds: i64) -> Self {
        let length_us = seconds * 1_000_000;
        let floor = |us: i64| us.div_euclid(length_us).saturating_mul(length_us);
        let to_us = floor(to_us.saturating_sub(1)).saturating_add(length_us);
        Span { from_us: floor(from_us), to_us: to_us.max(floor(from_us)), seconds }
    }

    /// How many intervals.
    pub(crate) fn intervals(&self) -> i64 {
        (self.to_us - self.from_us) / (self.seconds * 1_000_000)
    }
}

/// Which statistics of a model; empty texts stand for all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Selection<'a> {
    /// The digest in hex.
    pub(crate) model: &'a str,
    /// The slot.
    pub(crate) slot: &'a str,
    /// The cohort.
    pub(crate) cohort: &'a str,
    /// The fleet.
    pub(crate) fleet: &'a str,
}

const FROM_BOTH: &str = "from (\
    select model, slot, cohort, fleet, start_us, sums from telemetry_rollups \
    where seconds = $1 and start_us >= $2 and start_us < $3 and ($4 = '' or model = $4) \
    union all select model, slot, cohort, fleet, minute_us as start_us, sums from telemetry_parts \
    where minute_us >= $2 and minute_us < $3 and sealed < 2 and ($4 = '' or model = $4)) as both_tables \
    where ($5 = '' or slot = $5) and ($6 = '' or cohort = $6) and ($7 = '' or fleet = $7)";

macro_rules! rows {
    ($sql:expr, $span:expr, $selection:expr) => {
        sqlx::query(sqlx::AssertSqlSafe($sql))
            .bind($span.seconds)
            .bind($span.from_us)
            .bind($span.to_us)
            .bind($selection.model)
            .bind($selection.slot)
            .bind($selection.cohort)
            .bind($selection.fleet)
    };
}

/// The sums of each interval in which there are any.
///
/// # Errors
/// See [`QueryError`].
pub(crate) async fn series(
    db: &Db,
    span: Span,
    selection: Selection<'_>,
) -> Result<BTreeMap<i64, Aggregate>, QueryError> {
    let sql = format!("select start_us, sums {FROM_BOTH}");
    let mut rows = rows!(sql, span, selection).fetch(db.read());
    let mut series: BTreeMap<i64, Aggregate> = BTreeMap::new();
    let length_us = span.seconds * 1_000_000;
    while let Some(row) = rows.try_next().await? {
        // Parts are cut by the minute.
        let start_us = row.try_get::<i64, _>(0)?.div_euclid(length_us) * length_us;
        let sums = Aggregate::decode(&row.try_get::<Vec<u8>, _>(1)?)?;
        series.entry(start_us).or_default().merge(&sums);
    }
    Ok(series)
}

/// What sums are told apart by in a summary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    /// The digest in hex.
    pub(crate) model: String,
    /// The slot.
    pub(crate) slot: String,
    /// The cohort.
    pub(crate) cohort: String,
    /// The fleet.
    pub(crate) fleet: String,
}

/// The sums of each model, slot and cohort.
///
/// # Errors
/// See [`QueryError`].
pub(crate) async fn groups(
    db: &Db,
    span: Span,
    selection: Selection<'_>,
) -> Result<BTreeMap<Group, Aggregate>, QueryError> {
    let sql = format!("select model, slot, cohort, fleet, sums {FROM_BOTH}");
    let mut rows = rows!(sql, span, selection).fetch(db.read());
    let mut groups: BTreeMap<Group, Aggregate> = BTreeMap::new();
    while let Some(row) = rows.try_next().await? {
        let group = Group {
            model: row.try_get(0)?,
            slot: row.try_get(1)?,
            cohort: row.try_get(2)?,
            fleet: row.try_get(3)?,
        };
        let sums = Aggregate::decode(&row.try_get::<Vec<u8>, _>(4)?)?;
        groups.entry(group).or_default().merge(&sums);
    }
    Ok(groups)
}

/// How often a class was predicted where another, or the same, was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confusion {
    /// The class that was predicted.
    pub(crate) predicted: i64,
    /// The class that was right.
    pub(crate) label: i64,
    /// Confidence in tenths; 255: unknown.
    pub(crate) confidence: i64,
    /// How often.
    pub(crate) count: i64,
}

/// Labels of the days that hold any of the span.
///
/// # Errors
/// When the database fails.
pub(crate) async fn confusion(
    db: &Db,
    span: Span,
    selection: Selection<'_>,
    limit: i64,
) -> Result<Vec<Confusion>, DbError> {
    let days = Span::around(span.from_us, span.to_us, 86_400);
    let rows = sqlx::query(
        "select predicted, label, confidence, cast(sum(count) as bigint) from telemetry_labels \
         where model = $1 and day_us >= $2 and day_us < $3 and ($4 = '' or slot = $4) and ($5 = '' or cohort = $5) \
         and ($6 = '' or fleet = $6) group by predicted, label, confidence order by predicted, label, confidence \
         limit $7",
    )
    .bind(selection.model)
    .bind(days.from_us)
    .bind(days.to_us)
    .bind(selection.slot)
    .bind(selection.cohort)
    .bind(selection.fleet)
    .bind(limit)
    .fetch_all(db.read())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Confusion {
                predicted: row.try_get(0)?,
                label: row.try_get(1)?,
                confidence: row.try_get(2)?,
                count: row.try_get(3)?,
            })
        })
        .collect()
}

/// The counters of all processes, ended ones included.
///
/// # Errors
/// When the database fails.
pub(crate) async fn counters(db: &Db) -> Result<Counters, DbError> {
    let rows = sqlx::query(
        "select received, applied, duplicates, malformed, unknown, lost, skewed from telemetry_counters \
         union all select received, applied, duplicates, malformed, unknown, lost, skewed from telemetry_processes",
    )
    .fetch_all(db.read())
    .await?;
    let mut sum = Counters::default();
    for row in &rows {
        let mut values = [0; 7];
        for (column, value) in values.iter_mut().enumerate() {
            *value = unsigned(row.try_get(column)?);
        }
        sum.add(&Counters::from_values(values));
    }
    Ok(sum)
}

/// What a device has sent since it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceTotals {
    /// Boots that were heard of.
    pub(crate) boots: i64,
    /// Messages that were applied.
    pub(crate) applied: i64,
    /// Messages that the device gave up before they arrived.
    pub(crate) lost: i64,
    /// Reports among the applied ones.
    pub(crate) reports: i64,
    /// Inferences that gave a result.
    pub(crate) inferences: i64,
    /// Inferences that gave none.
    pub(crate) failures: i64,
    /// When the last report came, microseconds UTC; 0: none.
    pub(crate) report_us: i64,
}

/// The sums of one device.
///
/// # Errors
/// When the database fails.
pub(crate) async fn device_totals(db: &Db, device: &str) -> Result<DeviceTotals, DbError> {
    let row = sqlx::query(
        "select cast(coalesce(sum(boots), 0) as bigint), cast(coalesce(sum(applied), 0) as bigint), \
         cast(coalesce(sum(lost), 0) as bigint), cast(coalesce(sum(reports), 0) as bigint), \
         cast(coalesce(sum(inferences), 0) as bigint), cast(coalesce(sum(failures), 0) as bigint), \
         cast(coalesce(max(report_us), 0) as bigint) from (\
         select 1 as boots, applied, lost, reports, inferences, failures, report_us from telemetry_sequences \
         where device = $1 union all \
         select boots, applied, lost, reports, inferences, failures, report_us from telemetry_forgotten \
         where device = $1) as both_tables",
    )
    .bind(device)
    .fetch_one(db.read())
    .await?;
    Ok(DeviceTotals {
        boots: row.try_get(0)?,
        applied: row.try_get(1)?,
        lost: row.try_get(2)?,
        reports: row.try_get(3)?,
        inferences: row.try_get(4)?,
        failures: row.try_get(5)?,
        report_us: row.try_get(6)?,
    })
}

/// A kept event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) at_us: i64,
    pub(crate) received_us: i64,
    pub(crate) slot: String,
    pub(crate) kind: String,
    pub(crate) value: i64,
    pub(crate) detail: String,
}

/// A device's events, the newest first, those with ids below `before`.
///
/// # Errors
/// When the database fails.
pub(crate) async fn events(
    db: &Db,
    device: &str,
    before: Option<&str>,
    limit: i64,
) -> Result<Vec<Event>, DbError> {
    let rows = sqlx::query(
        "select id, at_us, received_us, slot, kind, value, detail from telemetry_events \
         where device = $1 and ($2 = '' or id < $2) order by id desc limit $3",
    )
    .bind(device)
    .bind(before.unwrap_or(""))
    .bind(limit)
    .fetch_all(db.read())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Event {
                id: row.try_get(0)?,
                at_us: row.try_get(1)?,
                received_us: row.try_get(2)?,
                slot: row.try_get(3)?,
                kind: row.try_get(4)?,
                value: row.try_get(5)?,
                detail: row.try_get(6)?,
            })
        })
        .collect()
}

/// A kept sample of a message that was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) received_us: i64,
    pub(crate) device: String,
    pub(crate) fleet: Option<String>,
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) size: i64,
    pub(crate) payload: Vec<u8>,
}

/// Dead letters, the newest first, those with ids below `before`; of one device and one reason unless those are empty.
///
/// # Errors
/// When the database fails.
pub(crate) async fn letters(
    db: &Db,
    visible: Visible<'_>,
    device: &str,
    reason: &str,
    before: Option<&str>,
    limit: i64,
) -> Result<Vec<Letter>, DbError> {
    let fleet = match visible {
        Visible::All => "",
        Visible::Only(fleet) => fleet,
        Visible::Nothing => return Ok(Vec::new()),
    };
    let rows = sqlx::query(
        "select id, received_us, device, fleet, kind, reason, detail, size, payload from telemetry_dead_letters \
         where ($1 = '' or fleet = $1) and ($2 = '' or device = $2) and ($3 = '' or reason = $3) \
         and ($4 = '' or id < $4) order by id desc limit $5",
    )
    .bind(fleet)
    .bind(device)
    .bind(reason)
    .bind(before.unwrap_or(""))
    .bind(limit)
    .fetch_all(db.read())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Letter {
                id: row.try_get(0)?,
                received_us: row.try_get(1)?,
                device: row.try_get(2)?,
                fleet: row.try_get(3)?,
                kind: row.try_get(4)?,
                reason: row.try_get(5)?,
                detail: row.try_get(6)?,
                size: row.try_get(7)?,
                payload: row.try_get(8)?,
            })
        })
        .collect()
}
