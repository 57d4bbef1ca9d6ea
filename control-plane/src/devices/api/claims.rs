//! Enrolment keys over HTTP.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::names::{check_name, check_value};
use super::super::secret::Secret;
use super::super::store::claims::{self as store, Claim};
use super::super::store::fleets;
use crate::access::{Action, Caller, Resource, Subject, audit, authorize};
use crate::app::App;
use crate::http::{Json, Page, PageQuery, Path, Problem, Query};
use crate::limits;
use crate::time::Timestamp;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(get, revoke))
}

/// An enrolment key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateClaim {
    /// A name for people.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: String,
    /// When it stops working; never, if absent.
    expires: Option<Timestamp>,
    /// How many devices may enrol with it; any number, if absent.
    #[schema(minimum = 1, maximum = 1000000000)]
    use_limit: Option<i64>,
    /// Serial numbers of the hardware that may enrol; any, if empty.
    #[serde(default)]
    #[schema(max_items = 1000)]
    serials: BTreeSet<String>,
    /// Hardware classes that may enrol; any, if empty.
    #[serde(default)]
    #[schema(max_items = 1000)]
    hardware: BTreeSet<String>,
}

/// An enrolment key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct ClaimView {
    /// Its id.
    id: String,
    /// The fleet that devices enrol into.
    fleet: String,
    /// Its name.
    name: String,
    /// When it was made.
    created: Timestamp,
    /// The principal that made it.
    created_by: String,
    /// When it stops working.
    #[schema(required)]
    expires: Option<Timestamp>,
    /// How many devices may enrol with it.
    #[schema(required)]
    use_limit: Option<i64>,
    /// How many devices have enrolled with it.
    #[schema(minimum = 0)]
    used: i64,
    /// Serial numbers of the hardware that may enrol; any, if empty.
    serials: BTreeSet<String>,
    /// Hardware classes that may enrol; any, if empty.
    hardware: BTreeSet<String>,
    /// When it was revoked.
    #[schema(required)]
    revoked: Option<Timestamp>,
}

impl From<Claim> for ClaimView {
    fn from(claim: Claim) -> Self {
        ClaimView {
            id: claim.id,
            fleet: claim.fleet,
            name: claim.name,
            created: Timestamp(claim.created_us),
            created_by: claim.created_by,
            expires: claim.expires_us.map(Timestamp),
            use_limit: claim.use_limit,
            used: claim.used,
            serials: claim.serials,
            hardware: claim.hardware,
            revoked: claim.revoked_us.map(Timestamp),
        }
    }
}

/// A new enrolment key with its secret.
#[derive(Debug, Serialize, ToSchema)]
struct CreatedClaim {
    /// The key itself: `dunlin_key_…`. It is shown here only; keep it.
    claim: String,
    /// What is known about it.
    #[serde(flatten)]
    view: ClaimView,
}

/// Makes an enrolment key for a fleet.
#[utoipa::path(post, path = "/fleets/{id}/claims", operation_id = "create_claim", tag = "fleets",
    params(("id" = String, Path, min_length = 1, max_length = 64)), request_body = CreateClaim,
    responses((status = 201, body = CreatedClaim, headers(("location" = String, description = "The key's path")))))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(fleet): Path<String>,
    Json(body): Json<CreateClaim>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<CreatedClaim>), Problem> {
    authorize(&caller, Action::ManageClaims, Resource::Fleet(&fleet))?;
    check(&app, &body)?;
    let secret = Secret::claim().map_err(|error| Problem::internal(&error))?;
    let claim = Claim {
        id: app.ids.next(),
        fleet,
        name: body.name,
        created_us: app.clock.now_us(),
        created_by: caller.principal.id.clone(),
        expires_us: body.expires.map(|expires| expires.0),
        use_limit: body.use_limit,
        used: 0,
        revoked_us: None,
        serials: body.serials,
        hardware: body.hardware,
    };
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    async {
        let fleet = &claim.fleet;
        if fleets::get(tx, fleet).await?.is_none() {
            return Err(Problem::not_found("fleet", fleet));
        }
        if store::count(tx, fleet).await? >= limits::CLAIMS {
            let detail = format!("the fleet has {} enrolment keys; revoke some first", limits::CLAIMS);
            return Err(Problem::conflict(detail));
        }
        store::insert(tx, &claim, &secret.digest()).await?;
        let after = serde_json::json!({
            "fleet": fleet, "name": claim.name, "expires": claim.expires_us.map(Timestamp),
            "use_limit": claim.use_limit, "serials": claim.serials.len(), "hardware": claim.hardware,
        });
        let subject = Subject::of_fleet("claim", &claim.id, fleet);
        audit(&app, tx, &caller, "claim.create", subject, None, Some(after)).await?;
        Ok::<_, Problem>(())
    }
    .await?;
    transaction.commit().await?;
    let location = format!("/api/v1/claims/{}", claim.id);
    let created = CreatedClaim { claim: secret.reveal().to_owned(), view: claim.into() };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(created)))
}

fn check(app: &App, body: &CreateClaim) -> Result<(), Problem> {
    check_value("/name", &body.name)?;
    if body.name.is_empty() {
        return Err(Problem::unprocessable("/name", "the name is empty"));
    }
    if body.expires.is_some_and(|expires| expires.0 <= app.clock.now_us()) {
        return Err(Problem::unprocessable("/expires", "the time is over already"));
    }
    if body.use_limit.is_some_and(|limit| !(1..=1_000_000_000).contains(&limit)) {
        return Err(Problem::unprocessable("/use_limit", "1 to 1000000000 is expected"));
    }
    for (field, list) in [("/serials", &body.serials), ("/hardware", &body.hardware)] {
        if list.len() > limits::CLAIM_ALLOWS {
            return Err(Problem::unprocessable(
                field,
                format!("at most {} are possible", limits::CLAIM_ALLOWS),
            ));
        }
    }
    for serial in &body.serials {
        check_value("/serials", serial)?;
        if serial.is_empty() {
            return Err(Problem::unprocessable("/serials", "a serial number is empty"));
        }
    }
    body.hardware.iter().try_for_each(|class| check_name("/hardware", class))
}

/// Lists a fleet's enrolment keys, the newest first; revoked ones too, since the audit log names them.
#[utoipa::path(get, path = "/fleets/{id}/claims", operation_id = "list_claims", tag = "fleets",
    params(("id" = String, Path, min_length = 1, max_length = 64), PageQuery),
    responses((status = 200, body = Page<ClaimView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(fleet): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<ClaimView>>, Problem> {
    authorize(&caller, Action::ManageClaims, Resource::Fleet(&fleet))?;
    // Keys may carry long lists of serial numbers: shorter pages keep answers small.
    let limit = page.limit()?.min(100);
    let before = page.after()?;
    let mut db = app.db.read().acquire().await?;
    if fleets::get(&mut db, &fleet).await?.is_none() {
        return Err(Problem::not_found("fleet", &fleet));
    }
    let claims = store::list(&mut db, &fleet, before, limit + 1).await?;
    Ok(Json(Page::new(claims, limit, |claim| claim.id.clone()).map(ClaimView::from)))
}

/// Shows an enrolment key, without its secret.
#[utoipa::path(get, path = "/claims/{id}", operation_id = "get_claim", tag = "fleets",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 200, body = ClaimView)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ClaimView>, Problem> {
    authorize(&caller, Action::ManageClaims, Resource::Listing)?;
    let mut db = app.db.read().acquire().await?;
    let claim = store::get(&mut db, &id).await?.ok_or_else(|| Problem::not_found("enrolment key", &id))?;
    authorize(&caller, Action::ManageClaims, Resource::Fleet(&claim.fleet))?;
    Ok(Json(claim.into()))
}

/// Revokes an enrolment key: no device enrols with it any more. Devices that did stay.
#[utoipa::path(delete, path = "/claims/{id}", operation_id = "revoke_claim", tag = "fleets",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 204)))]
async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    authorize(&caller, Action::ManageClaims, Resource::Listing)?;
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    async {
        let claim = store::get(tx, &id).await?.ok_or_else(|| Problem::not_found("enrolment key", &id))?;
        authorize(&caller, Action::ManageClaims, Resource::Fleet(&claim.fleet))?;
        if claim.revoked_us.is_some() {
            return Ok::<_, Problem>(());
        }
        store::revoke(tx, &id, now_us).await?;
        let before = serde_json::json!({ "fleet": claim.fleet, "name": claim.name, "used": claim.used });
        let subject = Subject::of_fleet("claim", &id, &claim.fleet);
        audit(&app, tx, &caller, "claim.revoke", subject, Some(before), None).await?;
        Ok::<_, Problem>(())
    }
    .await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
