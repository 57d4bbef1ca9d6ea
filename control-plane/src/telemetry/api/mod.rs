//! Telemetry over HTTP.

mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::aggregate::Aggregate;
use super::baseline::OwnedBaseline;
use super::limits;
use super::store::query::{self, QueryError, Selection, Span};
use crate::access::{Action, Caller, Resource, Visible, authorize};
use crate::app::App;
use crate::http::{Json, Page, PageQuery, Path, Problem, Query};
use crate::models::ModelVersion;
use crate::time::Timestamp;
use view::{FeatureView, IntervalView, SumsView, features};

/// The routes of this domain.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(summary))
        .routes(routes!(model_statistics))
        .routes(routes!(digest_statistics))
        .routes(routes!(counters))
        .routes(routes!(dead_letters))
        .routes(routes!(device_statistics))
        .routes(routes!(device_events))
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Db(error) => error.into(),
            error => Problem::internal(&error),
        }
    }
}

/// The length of intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Resolution {
    /// Minutes: for the last days.
    Minute,
    /// Hours: for the last months.
    Hour,
    /// Days: for years.
    Day,
}

impl Resolution {
    fn seconds(self) -> i64 {
        match self {
            Resolution::Minute => 60,
            Resolution::Hour => 3_600,
            Resolution::Day => 86_400,
        }
    }

    /// What suits a stretch of time.
    fn of(length_us: i64) -> Self {
        const HOUR_US: i64 = 3_600_000_000;
        match length_us {
            ..=21_600_000_000 => Resolution::Minute,
            length_us if length_us <= 14 * 24 * HOUR_US => Resolution::Hour,
            _ => Resolution::Day,
        }
    }
}

/// A stretch of time.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TimeQuery {
    /// Its beginning; an hour before its end, if absent.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Its end, not included; now, if absent.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// The length of the intervals; what suits the stretch of time, if absent. Times are widened to whole intervals.
    resolution: Option<Resolution>,
}

impl TimeQuery {
    fn span(&self, app: &App) -> Result<(Span, Resolution), Problem> {
        // Windows of devices whose clocks are fast end a little after now.
        let now_us = app.clock.now_us().saturating_add(60_000_000);
        let to_us = self.to.map_or(now_us, |to| to.0);
        let from_us = self.from.map_or(to_us.saturating_sub(3_600_000_000), |from| from.0);
        if from_us >= to_us {
            return Err(Problem::unprocessable("from", "the time must begin before it ends"));
        }
        let resolution = self.resolution.unwrap_or_else(|| Resolution::of(to_us - from_us));
        let span = Span::around(from_us, to_us, resolution.seconds());
        if span.intervals() > limits::INTERVALS {
            let detail = format!(
                "that would be {} intervals, and an answer has at most {}; ask for longer intervals or less time",
                span.intervals(),
                limits::INTERVALS
            );
            return Err(Problem::unprocessable("resolution", detail));
        }
        Ok((span, resolution))
    }
}

/// Whose statistics are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhoseQuery {
    /// Those of one fleet.
    #[param(max_length = 64)]
    fleet: Option<String>,
    /// Those of one cohort: `fleet/hardware`.
    #[param(max_length = 160)]
    cohort: Option<String>,
    /// Those of one model slot.
    #[param(max_length = 64)]
    slot: Option<String>,
}

impl WhoseQuery {
    /// The fleet to restrict the answer to; empty: all. A token for a fleet sees that fleet only.
    fn fleet<'a>(&'a self, caller: &'a Caller) -> Result<&'a str, Problem> {
        for (field, text) in [("fleet", &self.fleet), ("cohort", &self.cohort), ("slot", &self.slot)] {
            if text.as_ref().is_some_and(|text| text.contains('\0')) {
                return Err(Problem::unprocessable(field, "texts must not contain the character U+0000"));
            }
        }
        match (caller.fleets(), self.fleet.as_deref()) {
            (Visible::Only(own), None) => Ok(own),
            (Visible::Only(own), Some(fleet)) if fleet != own => {
                Err(Problem::forbidden(format!("the token reaches the fleet {own:?} only")))
            }
            (_, fleet) => Ok(fleet.unwrap_or("")),
        }
    }
}

/// What each model did.
#[derive(Debug, Serialize, ToSchema)]
struct Summary {
    /// The beginning of the time that is summed up.
    from: Timestamp,
    /// Its end.
    to: Timestamp,
    /// One entry for each model, slot and cohort.
    items: Vec<SummaryItem>,
}

/// What a model did on devices of one cohort.
#[derive(Debug, Serialize, ToSchema)]
struct SummaryItem {
    /// The model's name; null when the registry does not know the artifact.
    #[schema(required)]
    model: Option<String>,
    /// Its version.
    #[schema(required)]
    version: Option<i64>,
    /// The artifact's digest, in hex.
    digest: String,
    /// The model slot.
    slot: String,
    /// The fleet.
    fleet: String,
    /// The cohort: `fleet/hardware`.
    cohort: String,
    /// What it did.
    #[serde(flatten)]
    sums: SumsView,
}

/// Sums up what each model did on each cohort, exactly.
#[utoipa::path(get, path = "/telemetry/summary", operation_id = "telemetry_summary", tag = "telemetry",
    params(TimeQuery, WhoseQuery), responses((status = 200, body = Summary)))]
async fn summary(
    State(app): State<App>,
    caller: Caller,
    Query(time): Query<TimeQuery>,
    Query(whose): Query<WhoseQuery>,
) -> Result<Json<Summary>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    let (span, _) = time.span(&app)?;
    let selection = Selection {
        model: "",
        slot: whose.slot.as_deref().unwrap_or(""),
        cohort: whose.cohort.as_deref().unwrap_or(""),
        fleet: whose.fleet(&caller)?,
    };
    let groups = query::groups(&app.db, span, selection).await?;
    if groups.len() > limits::GROUPS {
        let detail = format!("that would be {} entries; ask for one fleet, cohort or slot", groups.len());
        return Err(Problem::unprocessable("fleet", detail));
    }
    let mut names: BTreeMap<String, Option<ModelVersion>> = BTreeMap::new();
    let mut items = Vec::with_capacity(groups.len());
    for (group, sums) in &groups {
        if !names.contains_key(&group.model) {
            names.insert(group.model.clone(), name(&app, &group.model).await?);
        }
        let known = names.get(&group.model).and_then(Option::as_ref);
        let visible = match caller.models() {
            Visible::All => true,
            Visible::Only(own) => known.is_some_and(|known| known.model == own),
            Visible::Nothing => false,
        };
        if !visible {
            continue;
        }
        items.push(SummaryItem {
            model: known.map(|known| known.model.clone()),
            version: known.map(|known| known.version),
            digest: group.model.clone(),
            slot: group.slot.clone(),
            fleet: group.fleet.clone(),
            cohort: group.cohort.clone(),
            sums: SumsView::of(sums),
        });
    }
    Ok(Json(Summary { from: Timestamp(span.from_us), to: Timestamp(span.to_us), items }))
}

/// The model and version that a digest names.
async fn name(app: &App, digest: &str) -> Result<Option<ModelVersion>, Problem> {
    let mut db = app.db.read().acquire().await?;
    Ok(crate::models::find_by_digest(app, &mut db, digest).await?)
}

/// What a model did over time.
#[derive(Debug, Serialize, ToSchema)]
struct Statistics {
    /// The model's name; null when the registry does not know the artifact.
    #[schema(required)]
    model: Option<String>,
    /// Its version.
    #[schema(required)]
    version: Option<i64>,
    /// The artifact's digest, in hex.
    digest: String,
    /// The beginning of the time.
    from: Timestamp,
    /// Its end.
    to: Timestamp,
    /// The length of the intervals.
    resolution: Resolution,
    /// What it did in all of the time.
    total: SumsView,
    /// The monitored features in all of the time.
    features: Vec<FeatureView>,
    /// Features that devices told of and that contradict the artifact's baseline; they are left out.
    contradicting_features: usize,
    /// Runs of the model over the calibration data; null without a baseline.
    #[schema(required)]
    baseline_samples: Option<u32>,
    /// Predictions whose right answer became known, of the days that hold any of the time.
    confusion: Vec<ConfusionView>,
    /// What it did in each interval in which it did anything.
    series: Vec<IntervalView>,
}

/// How often one class was predicted where another, or the same, was right.
#[derive(Debug, Serialize, ToSchema)]
struct ConfusionView {
    /// The class that was predicted.
    predicted: i64,
    /// The class that was right.
    label: i64,
    /// The confidence of the prediction in tenths, 0 to 9; null: unknown.
    #[schema(required)]
    confidence: Option<i64>,
    /// How often.
    count: i64,
}

/// Shows what a version of a model did: exact counts, quantiles of latencies with their bounds, distributions of
/// features beside those of the calibration data, and the course of time.
#[utoipa::path(get, path = "/telemetry/models/{name}/versions/{version}", operation_id = "model_statistics",
    tag = "telemetry",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("version" = i64, Path, minimum = 1), TimeQuery, WhoseQuery),
    responses((status = 200, body = Statistics)))]
async fn model_statistics(
    State(app): State<App>,
    caller: Caller,
    Path((model, version)): Path<(String, i64)>,
    Query(time): Query<TimeQuery>,
    Query(whose): Query<WhoseQuery>,
) -> Result<Json<Statistics>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&model))?;
    if model.contains('\0') {
        return Err(Problem::not_found("model version", &model));
    }
    let found = crate::models::version(&mut *app.db.read().acquire().await?, &model, version).await?;
    let found = found.ok_or_else(|| Problem::not_found("model version", &format!("{model}:{version}")))?;
    let known = Some(ModelVersion { model, version });
    statistics(&app, &caller, found.digest, known, &time, &whose).await
}

/// Shows what an artifact did that devices run, whether the registry knows it or not.
#[utoipa::path(get, path = "/telemetry/digests/{digest}", operation_id = "digest_statistics", tag = "telemetry",
    params(("digest" = String, Path, min_length = 64, max_length = 64, pattern = "^[0-9a-f]{64}$", description = "The artifact's digest, in hex"),
        TimeQuery, WhoseQuery),
    responses((status = 200, body = Statistics)))]
async fn digest_statistics(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<String>,
    Query(time): Query<TimeQuery>,
    Query(whose): Query<WhoseQuery>,
) -> Result<Json<Statistics>, Problem> {
    if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Problem::unprocessable("digest", "64 digits of 0-9 and a-f are expected"));
    }
    let known = name(&app, &digest).await?;
    match (&known, caller.fleets()) {
        (Some(known), _) => authorize(&caller, Action::Read, Resource::Model(&known.model))?,
        (None, Visible::Only(fleet)) => authorize(&caller, Action::Read, Resource::Fleet(fleet))?,
        (None, _) => authorize(&caller, Action::Read, Resource::Installation)?,
    }
    statistics(&app, &caller, digest, known, &time, &whose).await
}

async fn statistics(
    app: &App,
    caller: &Caller,
    digest: String,
    known: Option<ModelVersion>,
    time: &TimeQuery,
    whose: &WhoseQuery,
) -> Result<Json<Statistics>, Problem> {
    let (span, resolution) = time.span(app)?;
    let selection = Selection {
        model: &digest,
        slot: whose.slot.as_deref().unwrap_or(""),
        cohort: whose.cohort.as_deref().unwrap_or(""),
        fleet: whose.fleet(caller)?,
    };
    let series = query::series(&app.db, span, selection).await?;
    let mut total = Aggregate::default();
    series.values().for_each(|sums| total.merge(sums));
    let confusion = query::confusion(&app.db, span, selection, limits::CONFUSION).await?;
    let baseline = match &known {
        Some(_) => baseline(app, &digest).await?,
        None => None,
    };
    let (features, contradicting_features) = features(&total, baseline.as_deref());
    Ok(Json(Statistics {
        model: known.as_ref().map(|known| known.model.clone()),
        version: known.as_ref().map(|known| known.version),
        digest,
        from: Timestamp(span.from_us),
        to: Timestamp(span.to_us),
        resolution,
        total: SumsView::of(&total),
        features,
        contradicting_features,
        baseline_samples: baseline.map(|baseline| baseline.samples),
        confusion: confusion
            .into_iter()
            .map(|entry| ConfusionView {
                predicted: entry.predicted,
                label: entry.label,
                confidence: Some(entry.confidence).filter(|tenths| *tenths <= 9),
                count: entry.count,
            })
            .collect(),
        series: series
            .iter()
            .map(|(start_us, sums)| IntervalView { start: Timestamp(*start_us), sums: SumsView::of(sums) })
            .collect(),
    }))
}

/// The baseline of an artifact of the registry, from memory if it was asked for of late.
async fn baseline(app: &App, digest: &str) -> Result<Option<Arc<OwnedBaseline>>, Problem> {
    if let Some(baseline) = app.telemetry.baselines.get(digest) {
        return Ok(Some(baseline));
    }
    let bytes = crate::models::artifact(app, digest).await?;
    let artifact = bytes.parse().map_err(|error| Problem::internal(&error))?;
    let Some(baseline) = OwnedBaseline::of(&artifact) else { return Ok(None) };
    let baseline = Arc::new(baseline);
    app.telemetry.baselines.put(digest, Arc::clone(&baseline));
    Ok(Some(baseline))
}

/// What became of all messages with telemetry, since the installation exists.
/// `received = applied + duplicates + malformed + unknown`.
#[derive(Debug, Serialize, ToSchema)]
struct CountersView {
    /// Messages, however often they came.
    received: u64,
    /// Messages that took effect, each once.
    applied: u64,
    /// Messages that had taken effect before.
    duplicates: u64,
    /// Messages that could not be read, or contradict their device's numbers.
    malformed: u64,
    /// Messages of devices that are unknown or blocked.
    unknown: u64,
    /// Messages that devices gave up before they arrived, told by gaps in their numbers.
    lost: u64,
    /// Applied reports of devices whose clock was not believed; they count at the time of arrival less their age.
    skewed: u64,
}

/// Shows what became of all messages: exact counts, committed together with what they count.
#[utoipa::path(get, path = "/telemetry/counters", operation_id = "telemetry_counters", tag = "telemetry",
    responses((status = 200, body = CountersView)))]
async fn counters(State(app): State<App>, caller: Caller) -> Result<Json<CountersView>, Problem> {
    authorize(&caller, Action::Read, Resource::Installation)?;
    let counters = query::counters(&app.db).await?;
    Ok(Json(CountersView {
        received: counters.received,
        applied: counters.applied,
        duplicates: counters.duplicates,
        malformed: counters.malformed,
        unknown: counters.unknown,
        lost: counters.lost,
        skewed: counters.skewed,
    }))
}

/// Which dead letters are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LetterQuery {
    /// Those of one device.
    #[param(max_length = 64)]
    device: Option<String>,
    /// Those with one reason: `unknown_device`, `envelope`, `body`, `report`, `text`, `label`, `sequence`, `boots`,
    /// `kind` or `refused`.
    #[param(max_length = 64)]
    reason: Option<String>,
}

/// A sample of a message that was not applied.
#[derive(Debug, Serialize, ToSchema)]
struct LetterView {
    /// Its id; ids grow with time.
    id: String,
    /// When it came.
    received: Timestamp,
    /// Who sent it.
    device: String,
    /// The sender's fleet; null when the device is unknown.
    #[schema(required)]
    fleet: Option<String>,
    /// What it was: `report`, `state`, `event` or `label`.
    kind: String,
    /// Why it was not applied, in a word.
    reason: String,
    /// Why, in a sentence.
    detail: String,
    /// How long it was, in bytes.
    size: i64,
    /// Its first bytes, in base64.
    payload: String,
}

/// Lists samples of messages that were not applied, the newest first: a few for each device and reason. The counters
/// count all of them.
#[utoipa::path(get, path = "/telemetry/dead-letters", operation_id = "list_dead_letters", tag = "telemetry",
    params(PageQuery, LetterQuery), responses((status = 200, body = Page<LetterView>)))]
async fn dead_letters(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageQuery>,
    Query(wanted): Query<LetterQuery>,
) -> Result<Json<Page<LetterView>>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    for (field, text) in [("device", &wanted.device), ("reason", &wanted.reason)] {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Problem::unprocessable(field, "texts must not contain the character U+0000"));
        }
    }
    let limit = page.limit()?;
    let after: Option<String> = page.after()?;
    let (device, reason) = (wanted.device.as_deref().unwrap_or(""), wanted.reason.as_deref().unwrap_or(""));
    let letters =
        query::letters(&app.db, caller.fleets(), device, reason, after.as_deref(), limit + 1).await?;
    let view = |letter: query::Letter| LetterView {
        id: letter.id,
        received: Timestamp(letter.received_us),
        device: letter.device,
        fleet: letter.fleet,
        kind: letter.kind,
        reason: letter.reason,
        detail: letter.detail,
        size: letter.size,
        payload: base64::engine::general_purpose::STANDARD.encode(letter.payload),
    };
    Ok(Json(Page::new(letters, limit, |letter| letter.id.clone()).map(view)))
}

/// What a device has sent since it was enrolled.
#[derive(Debug, Serialize, ToSchema)]
struct DeviceStatistics {
    /// The device.
    device: String,
    /// Times that it began anew: starts, or losses of its storage.
    boots: i64,
    /// Messages that took effect.
    applied: i64,
    /// Messages that it gave up before they arrived, told by gaps in their numbers.
    lost: i64,
    /// Reports among the messages that took effect.
    reports: i64,
    /// Inferences that gave a result.
    inferences: i64,
    /// Inferences that gave none.
    failures: i64,
    /// When its last report came; null before the first one.
    #[schema(required)]
    last_report: Option<Timestamp>,
}

/// The device's fleet, if the caller may look at it.
fn visible_device(app: &App, caller: &Caller, id: &str) -> Result<(), Problem> {
    let Some(entry) = app.devices.directory.get(id) else {
        // Whoever sees all devices may know that there is none.
        authorize(caller, Action::Read, Resource::Installation)?;
        return Err(Problem::not_found("device", id));
    };
    authorize(caller, Action::Read, Resource::Fleet(&entry.cohort.fleet))
}

/// Shows what a device has sent: exact counts.
#[utoipa::path(get, path = "/devices/{id}/statistics", operation_id = "device_statistics", tag = "telemetry",
    params(("id" = String, Path, min_length = 1, max_length = 64)),
    responses((status = 200, body = DeviceStatistics)))]
async fn device_statistics(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeviceStatistics>, Problem> {
    visible_device(&app, &caller, &id)?;
    let totals = query::device_totals(&app.db, &id).await?;
    Ok(Json(DeviceStatistics {
        device: id,
        boots: totals.boots,
        applied: totals.applied,
        lost: totals.lost,
        reports: totals.reports,
        inferences: totals.inferences,
        failures: totals.failures,
        last_report: Some(totals.report_us).filter(|at| *at > 0).map(Timestamp),
    }))
}

/// Something that happened on a device.
#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    /// Its id; ids grow with the time of arrival.
    id: String,
    /// When it happened, by the device's clock if that can be believed.
    at: Timestamp,
    /// When the message came.
    received: Timestamp,
    /// The model slot; empty when it concerns the device.
    slot: String,
    /// The kind: `inference_failed`, `reverted`, `golden_mismatch`, `restarted`, `clock_jump`, `queue_merged`,
    /// `storage_lost`, `assignment_refused`, or `unknown_` and a number for what a newer device tells of.
    kind: String,
    /// A number that goes with the kind.
    value: i64,
    /// More for people.
    detail: String,
}

/// Lists what happened on a device, the newest first: the last 1,000 events, as long as they are kept.
#[utoipa::path(get, path = "/devices/{id}/events", operation_id = "list_device_events", tag = "telemetry",
    params(("id" = String, Path, min_length = 1, max_length = 64), PageQuery),
    responses((status = 200, body = Page<EventView>)))]
async fn device_events(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<EventView>>, Problem> {
    visible_device(&app, &caller, &id)?;
    let limit = page.limit()?;
    let after: Option<String> = page.after()?;
    let events = query::events(&app.db, &id, after.as_deref(), limit + 1).await?;
    let view = |event: query::Event| EventView {
        id: event.id,
        at: Timestamp(event.at_us),
        received: Timestamp(event.received_us),
        slot: event.slot,
        kind: event.kind,
        value: event.value,
        detail: event.detail,
    };
    Ok(Json(Page::new(events, limit, |event| event.id.clone()).map(view)))
}
