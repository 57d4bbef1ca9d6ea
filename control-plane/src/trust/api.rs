//! Trust over HTTP.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use dunlin_protocol::limits::MAX_ROOT;
use dunlin_protocol::{RoleKeys, Root};
use dunlin_trust::Refused;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::roots::{self, CurrentRoot, RootRefused};
use super::store;
use crate::access::{Action, Caller, Resource, Subject, audit, authorize};
use crate::app::App;
use crate::clock::SECOND_US;
use crate::http::{Json, Path, Problem, octets};
use crate::time::Timestamp;

/// The routes of this domain.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_trust)).routes(routes!(add_root)).routes(routes!(get_root))
}

/// Which keys devices believe.
#[derive(Serialize, ToSchema)]
struct TrustView {
    /// This server's director key: the Ed25519 public key in hex. A root has to name it.
    director: String,
    /// The number of the newest root; null when there is none: devices then need no signatures.
    #[schema(required, minimum = 1)]
    root: Option<u32>,
    /// When a newer root must have replaced it; null: never, or there is none.
    #[schema(required)]
    expires: Option<Timestamp>,
    /// The newest root's roles.
    roles: Vec<RoleView>,
}

/// A role of a root.
#[derive(Serialize, ToSchema)]
struct RoleView {
    /// `root`, `release` or `director`; `unknown`: one of a newer program.
    role: &'static str,
    /// How many different ones of the keys have to sign.
    threshold: u8,
    /// Ed25519 public keys in hex.
    keys: Vec<String>,
}

impl From<RoleKeys<'_>> for RoleView {
    fn from(role: RoleKeys<'_>) -> Self {
        let keys = role.keys.iter().map(|key| hex::encode(key.0)).collect();
        RoleView { role: role.role.as_str(), threshold: role.threshold, keys }
    }
}

fn expires(root: &Root<'_>) -> Option<Timestamp> {
    let seconds = i64::try_from(root.expires_unix_s).unwrap_or(i64::MAX);
    Some(seconds).filter(|seconds| *seconds > 0).map(|seconds| Timestamp(seconds.saturating_mul(SECOND_US)))
}

/// Shows which keys devices believe.
#[utoipa::path(get, path = "/trust", operation_id = "get_trust", tag = "trust",
    responses((status = 200, body = TrustView)))]
async fn get_trust(State(app): State<App>, caller: Caller) -> Result<Json<TrustView>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    let mut view = TrustView {
        director: hex::encode(app.trust.director()?.public()),
        root: None,
        expires: None,
        roles: Vec::new(),
    };
    let mut db = app.db.read().acquire().await?;
    if let Some(current) = store::newest_root(&mut db).await? {
        let root = current.read().map_err(|error| Problem::internal(&error))?;
        view.root = Some(current.number);
        view.expires = expires(&root);
        view.roles = root.roles.iter().map(RoleView::from).collect();
    }
    Ok(Json(view))
}

/// A root that was taken.
#[derive(Serialize, ToSchema)]
struct AddedRoot {
    /// Its number.
    #[schema(minimum = 1)]
    number: u32,
}

/// Adds the next root, signed as the newest one and as itself demand. The newest one again is answered with status 200.
#[utoipa::path(post, path = "/trust/roots", operation_id = "add_root", tag = "trust",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A signed root"),
    responses((status = 201, body = AddedRoot, headers(("location" = String, description = "The root's path"))),
        (status = 200, body = AddedRoot, description = "It is the newest root already")))]
async fn add_root(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    authorize(&caller, Action::ManageTrust, Resource::Installation)?;
    let message = octets(&headers, body, MAX_ROOT as u64).await?.to_vec();
    let director = app.trust.director()?.public();
    let now_us = app.clock.now_us();
    let now_unix_s = (now_us / SECOND_US).unsigned_abs();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (number, status) = async {
        let current = store::newest_root(tx).await?;
        if let Some(current) = current.as_ref().filter(|current| current.message == message) {
            return Ok((current.number, StatusCode::OK));
        }
        let number = roots::check(&message, current.as_ref(), &director, now_unix_s).map_err(refused)?;
        let root = CurrentRoot { number, message };
        store::insert_root(tx, &root, now_us, &caller.principal.id).await.map_err(|error| {
            let at_once = format!("another root {number} was added at the same time");
            if error.is_unique_violation() { Problem::conflict(at_once).field("body") } else { error.into() }
        })?;
        // Each device is told of it with its next desired state.
        crate::devices::renew_all(tx, now_us).await?;
        let shown = |root: &CurrentRoot| {
            let roles = root.read().map(|root| root.roles.iter().map(RoleView::from).collect::<Vec<_>>());
            serde_json::json!({ "number": root.number, "roles": roles.unwrap_or_default() })
        };
        let before = current.as_ref().map(shown);
        let id = number.to_string();
        audit(&app, tx, &caller, "trust.add_root", Subject::new("root", &id), before, Some(shown(&root)))
            .await?;
        Ok::<_, Problem>((number, StatusCode::CREATED))
    }
    .await?;
    transaction.commit().await?;
    let location = format!("/api/v1/trust/roots/{number}");
    Ok((status, [(header::LOCATION, location)], Json(AddedRoot { number })).into_response())
}

fn refused(why: RootRefused) -> Problem {
    let detail = format!("the root is refused: {why}");
    match why {
        RootRefused::Trust(Refused::RootNumber { .. }) | RootRefused::Director => {
            Problem::conflict(detail).field("body")
        }
        _ => Problem::unprocessable("body", detail),
    }
}

/// Downloads a root. No access token is needed: roots are public, and devices follow them one by one.
#[utoipa::path(get, path = "/trust/roots/{number}", operation_id = "get_root", tag = "trust", security(()),
    params(("number" = u32, Path, minimum = 1, maximum = 4_294_967_295_u32)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
async fn get_root(State(app): State<App>, Path(number): Path<String>) -> Result<Response, Problem> {
    let missing = || Problem::not_found("root", &number);
    let parsed: u32 = number.parse().map_err(|_| missing())?;
    let mut db = app.db.read().acquire().await?;
    let message = store::root(&mut db, parsed).await?.ok_or_else(missing)?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        // A number never gets another root.
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, message).into_response())
}
