//! Fleets over HTTP.

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::names::check_name;
use super::super::settings::Settings;
use super::super::store::fleets::{self as store, Fleet};
use crate::access::{Action, Caller, Resource, Subject, audit, authorize};
use crate::app::App;
use crate::http::{ETag, Json, Page, PageQuery, Path, Preconditions, Problem, Query, Tagged};
use crate::limits;
use crate::time::Timestamp;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(get, change, delete))
}

/// A fleet to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateFleet {
    /// Its name, for ever: it stands in paths, filters and statistics.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    id: String,
    /// What it is.
    #[serde(default)]
    #[schema(max_length = 1024)]
    description: String,
    /// How often its devices report.
    #[serde(default)]
    settings: Settings,
}

/// Changes of a fleet; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeFleet {
    /// What it is.
    #[schema(max_length = 1024)]
    description: Option<String>,
    /// How often its devices report; all of it.
    settings: Option<Settings>,
}

/// A fleet.
#[derive(Debug, Serialize, ToSchema)]
struct FleetView {
    /// Its name.
    id: String,
    /// What it is.
    description: String,
    /// How often its devices report.
    settings: Settings,
    /// How many devices it has.
    #[schema(minimum = 0)]
    devices: i64,
    /// When it was made.
    created: Timestamp,
}

impl From<Fleet> for FleetView {
    fn from(fleet: Fleet) -> Self {
        FleetView {
            id: fleet.id,
            description: fleet.description,
            settings: fleet.settings,
            devices: fleet.devices,
            created: Timestamp(fleet.created_us),
        }
    }
}

fn to_json(fleet: &Fleet) -> serde_json::Value {
    serde_json::json!({ "description": fleet.description, "settings": fleet.settings })
}

fn check_description(text: &str) -> Result<(), Problem> {
    if text.chars().count() <= limits::DESCRIPTION_CHARS && !text.contains('\0') {
        return Ok(());
    }
    let detail = format!("at most {} characters are expected", limits::DESCRIPTION_CHARS);
    Err(Problem::unprocessable("/description", detail))
}

/// Makes a fleet.
#[utoipa::path(post, path = "/fleets", operation_id = "create_fleet", tag = "fleets", request_body = CreateFleet,
    responses((status = 201, body = FleetView, headers(("location" = String, description = "The fleet's path")))))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CreateFleet>,
) -> Result<(StatusCode, [(HeaderName, String); 2], Json<FleetView>), Problem> {
    // Before the check of the name: who may not make fleets does not learn what names are possible.
    authorize(&caller, Action::ManageFleets, Resource::Fleet(&body.id))?;
    check_name("/id", &body.id)?;
    check_description(&body.description)?;
    body.settings.check("/settings")?;
    let fleet = Fleet {
        id: body.id,
        description: body.description,
        settings: body.settings,
        devices: 0,
        revision: 1,
        created_us: app.clock.now_us(),
    };
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    async {
        let count: i64 =
            sqlx::Row::try_get(&sqlx::query("select count(*) from fleets").fetch_one(&mut **tx).await?, 0)?;
        if count >= limits::FLEETS {
            return Err(Problem::conflict(format!("there are {} fleets already", limits::FLEETS)));
        }
        if store::get(tx, &fleet.id).await?.is_some() {
            return Err(Problem::conflict(format!("there is a fleet {:?} already", fleet.id)).field("/id"));
        }
        store::insert(tx, &fleet).await.map_err(|error| match error.is_unique_violation() {
            true => Problem::conflict(format!("there is a fleet {:?} already", fleet.id)).field("/id"),
            false => error.into(),
        })?;
        let subject = Subject::of_fleet("fleet", &fleet.id, &fleet.id);
        audit(&app, tx, &caller, "fleet.create", subject, None, Some(to_json(&fleet))).await?;
        Ok::<_, Problem>(())
    }
    .await?;
    transaction.commit().await?;
    let headers = [
        (header::LOCATION, format!("/api/v1/fleets/{}", fleet.id)),
        (header::ETAG, ETag::revision(fleet.revision).as_str().to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, Json(fleet.into())))
}

/// Lists fleets by name.
#[utoipa::path(get, path = "/fleets", operation_id = "list_fleets", tag = "fleets", params(PageQuery),
    responses((status = 200, body = Page<FleetView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<FleetView>>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    let limit = page.limit()?;
    let after = page.after()?;
    let mut db = app.db.read().acquire().await?;
    let fleets = store::list(&mut db, caller.fleets(), after, limit + 1).await?;
    Ok(Json(Page::new(fleets, limit, |fleet| fleet.id.clone()).map(FleetView::from)))
}

/// Shows a fleet.
#[utoipa::path(get, path = "/fleets/{id}", operation_id = "get_fleet", tag = "fleets",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 200, body = FleetView)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Tagged<FleetView>, Problem> {
    authorize(&caller, Action::Read, Resource::Fleet(&id))?;
    let mut db = app.db.read().acquire().await?;
    let fleet = store::get(&mut db, &id).await?.ok_or_else(|| Problem::not_found("fleet", &id))?;
    // The number of devices changes without a new revision: the tag is for changes only.
    Ok(Tagged::new(ETag::revision(fleet.revision), fleet.into()))
}

/// Changes a fleet. New settings reach its devices as soon as they are connected.
#[utoipa::path(patch, path = "/fleets/{id}", operation_id = "change_fleet", tag = "fleets", request_body = ChangeFleet,
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 200, body = FleetView)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
    Json(body): Json<ChangeFleet>,
) -> Result<Tagged<FleetView>, Problem> {
    authorize(&caller, Action::ManageFleets, Resource::Fleet(&id))?;
    if let Some(description) = &body.description {
        check_description(description)?;
    }
    if let Some(settings) = &body.settings {
        settings.check("/settings")?;
    }
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (fleet, is_announced) = async {
        let before = store::get(tx, &id).await?.ok_or_else(|| Problem::not_found("fleet", &id))?;
        preconditions.require(&ETag::revision(before.revision))?;
        let mut after = before.clone();
        if let Some(description) = &body.description {
            after.description.clone_from(description);
        }
        if let Some(settings) = body.settings {
            after.settings = settings;
        }
        if after == before {
            return Ok((before, false));
        }
        if !store::update(tx, &after).await? {
            return Err(Problem::precondition_failed());
        }
        after.revision += 1;
        let is_announced = after.settings != before.settings;
        if is_announced {
            store::renew_desired(tx, &id, now_us).await?;
        }
        let subject = Subject::of_fleet("fleet", &id, &id);
        audit(&app, tx, &caller, "fleet.change", subject, Some(to_json(&before)), Some(to_json(&after)))
            .await?;
        Ok::<_, Problem>((after, is_announced))
    }
    .await?;
    transaction.commit().await?;
    if is_announced {
        tracing::info!(fleet = id, "new settings; its devices are told within seconds");
    }
    Ok(Tagged::new(ETag::revision(fleet.revision), fleet.into()))
}

/// Deletes a fleet that has no devices, and its enrolment keys.
#[utoipa::path(delete, path = "/fleets/{id}", operation_id = "delete_fleet", tag = "fleets",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 204)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
) -> Result<StatusCode, Problem> {
    authorize(&caller, Action::ManageFleets, Resource::Fleet(&id))?;
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    async {
        let fleet = store::get(tx, &id).await?.ok_or_else(|| Problem::not_found("fleet", &id))?;
        preconditions.check(&ETag::revision(fleet.revision))?;
        let has_devices =
            || Problem::conflict(format!("the fleet {id:?} has devices; move or delete them first"));
        if fleet.devices > 0 {
            return Err(has_devices());
        }
        store::delete(tx, &id).await.map_err(|error| match error.is_foreign_key_violation() {
            true => has_devices(),
            false => error.into(),
        })?;
        let subject = Subject::of_fleet("fleet", &id, &id);
        audit(&app, tx, &caller, "fleet.delete", subject, Some(to_json(&fleet)), None).await?;
        Ok::<_, Problem>(())
    }
    .await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
