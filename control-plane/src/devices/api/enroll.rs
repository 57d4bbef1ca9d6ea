//! Enrolment over HTTP, and the authority's certificate.

use std::collections::BTreeMap;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::authority::{Csr, CsrError};
use super::super::enroll::{self, Endpoint, Enrolment, Given, RenewError};
use super::super::names::{check_key, check_name, check_value};
use super::super::store::certificates;
use crate::access::{Action, Caller, Resource, authorize};
use crate::app::App;
use crate::bus::{Credential, DeviceId, LoginRefused};
use crate::http::{ClientAddress, Json, Problem, RequestId};
use crate::limits;
use crate::time::Timestamp;
use crate::trust::newest_root;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enroll))
        .routes(routes!(renew))
        .routes(routes!(authority))
        .routes(routes!(revocation_list))
}

/// A device that wants in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EnrollRequest {
    /// The enrolment key: `dunlin_key_…`.
    #[schema(min_length = 1, max_length = 256)]
    claim: String,
    /// The hardware class.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    hardware: String,
    /// The hardware's serial number; the attribute `serial` counts, if this is absent. The same hardware with the same
    /// key gets the same device again.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    serial: Option<String>,
    /// The wanted id; the server chooses one, if absent.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    device: Option<String>,
    /// Facts about the device.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// A certificate signing request (PKCS #10, PEM). Only its key counts. Where devices log in by certificate it is
    /// answered with one, elsewhere with a password.
    #[schema(max_length = 8192)]
    csr: Option<String>,
}

/// A device's identity. Exactly one of `password` and `certificate` is there.
#[derive(Serialize, ToSchema)]
pub(super) struct Enrolled {
    /// The device's id: MQTT client id and user name.
    device: String,
    /// The fleet that it is in.
    fleet: String,
    /// The MQTT password; it is shown here only.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// The certificate (PEM); its common name is the device's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// When the certificate expires. To be renewed after two thirds of its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_expires: Option<Timestamp>,
    /// Certificates (PEM) to check the MQTT server's certificate with; null: the well-known authorities.
    #[schema(required)]
    ca: Option<String>,
    /// Where to reach MQTT.
    mqtt: Endpoint,
    /// The newest root, in base64: which keys to believe from now on. Absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

/// Enrols a device. No access token is needed: the enrolment key is the permission.
#[utoipa::path(post, path = "/enroll", operation_id = "enroll", tag = "enrolment", request_body = EnrollRequest,
    security(()), responses((status = 201, body = Enrolled)))]
async fn enroll(
    State(app): State<App>,
    Extension(request_id): Extension<RequestId>,
    Json(body): Json<EnrollRequest>,
) -> Result<(StatusCode, Json<Enrolled>), Problem> {
    let enrolment = read(body)?;
    let (device, fleet, given) = enroll::enroll(&app, &enrolment, Some(request_id.0)).await?;
    Ok((StatusCode::CREATED, Json(enrolled(&app, device, fleet, given).await?)))
}

fn read(body: EnrollRequest) -> Result<Enrolment, Problem> {
    check_name("/hardware", &body.hardware)?;
    let serial = body.serial.or_else(|| body.attributes.get("serial").cloned());
    if let Some(serial) = &serial {
        check_value("/serial", serial)?;
        if serial.is_empty() {
            return Err(Problem::unprocessable("/serial", "the serial number is empty"));
        }
    }
    if body.attributes.len() > limits::PAIRS {
        let detail = format!("at most {} attributes are possible", limits::PAIRS);
        return Err(Problem::unprocessable("/attributes", detail));
    }
    for (key, value) in &body.attributes {
        check_key("/attributes", key)?;
        check_value(&format!("/attributes/{key}"), value)?;
    }
    Ok(Enrolment {
        claim: body.claim,
        hardware: body.hardware,
        serial,
        device: body.device.as_deref().map(|id| device_id("/device", id)).transpose()?,
        attributes: body.attributes.into_iter().map(|(key, value)| (key, Some(value))).collect(),
        csr: body.csr.as_deref().map(|csr| read_csr("/csr", csr)).transpose()?,
    })
}

/// An id that somebody wishes for a new device.
pub(super) fn device_id(field: &str, id: &str) -> Result<DeviceId, Problem> {
    check_name(field, id)?;
    DeviceId::new(id).map_err(|error| Problem::unprocessable(field, error.to_string()))
}

pub(super) fn read_csr(field: &str, pem: &str) -> Result<Csr, Problem> {
    Csr::from_pem(pem).map_err(|error| Problem::unprocessable(field, error.to_string()))
}

/// The answer with what the device was given.
async fn enrolled(app: &App, device: DeviceId, fleet: String, given: Given) -> Result<Enrolled, Problem> {
    let (password, certificate) = match given {
        Given::Password(password) => (Some(password.reveal().to_owned()), None),
        Given::Certificate(issued) => (None, Some(issued)),
    };
    let root = newest_root(&mut *app.db.read().acquire().await?).await?;
    Ok(Enrolled {
        root: root.map(|root| STANDARD.encode(root.message)),
        device: device.as_str().to_owned(),
        fleet,
        password,
        certificate_expires: certificate.as_ref().map(|issued| Timestamp(issued.expires_us)),
        certificate: certificate.map(|issued| issued.pem),
        ca: server_ca(app).await,
        mqtt: enroll::endpoint(app),
    })
}

/// What devices check the MQTT server's certificate with: the same that this server uses towards an external broker,
/// or the embedded endpoint's own chain.
async fn server_ca(app: &App) -> Option<String> {
    let file = if app.config.broker_url.is_some() {
        app.config.broker_ca.as_ref()
    } else {
        app.config.devices_server_ca.as_ref().or(app.config.mqtt_tls_certificate.as_ref())
    }?;
    match tokio::fs::read_to_string(file).await {
        Ok(pem) => Some(pem),
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "devices cannot be told which certificates to trust");
            None
        }
    }
}

/// New credentials for a device, made by an operator.
pub(super) async fn answer_credentials(
    app: &App,
    device: DeviceId,
    fleet: String,
    given: Given,
) -> Result<Response, Problem> {
    Ok((StatusCode::CREATED, Json(enrolled(app, device, fleet, given).await?)).into_response())
}

/// A device that asks for its next certificate.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RenewRequest {
    /// The device's id.
    #[schema(min_length = 1, max_length = 64)]
    device: String,
    /// A certificate signing request (PKCS #10, PEM).
    #[schema(max_length = 8192)]
    csr: String,
    /// The device's password, if it has one.
    #[schema(max_length = 256)]
    password: Option<String>,
    /// The device's current certificate (PEM), which may have expired `devices.certificate_grace` ago; the request must
    /// then be for the same key, whose signature proves that the device has it. (A new key is certified over MQTT, or
    /// with an enrolment key.)
    #[schema(max_length = 8192)]
    certificate: Option<String>,
}

/// The next certificate.
#[derive(Serialize, ToSchema)]
struct Renewed {
    /// The certificate (PEM).
    certificate: String,
    /// When it expires.
    expires: Timestamp,
}

/// Renews a device's certificate. No access token is needed: the device's password or certificate is the permission.
#[utoipa::path(post, path = "/enroll/renew", operation_id = "renew_certificate", tag = "enrolment",
    request_body = RenewRequest, security(()), responses((status = 201, body = Renewed)))]
async fn renew(
    State(app): State<App>,
    Extension(request_id): Extension<RequestId>,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<RenewRequest>,
) -> Result<(StatusCode, Json<Renewed>), Problem> {
    let csr = read_csr("/csr", &body.csr)?;
    let refused =
        || Problem::forbidden("the device is unknown or blocked, or its password or certificate is not good");
    let device = DeviceId::new(&body.device).map_err(|_| refused())?;
    match (&body.password, &body.certificate) {
        (Some(password), _) => {
            let credential =
                Credential::Password { username: device.as_str(), password: password.as_bytes() };
            super::super::authenticate(&app, credential, address.0).await.map_err(|error| match error {
                LoginRefused::Unavailable => Problem::unavailable("the device cannot be looked up now"),
                LoginRefused::BadCredential | LoginRefused::Revoked | LoginRefused::Blocked => refused(),
            })?;
        }
        (None, Some(certificate)) => {
            let grace = app.config.devices_certificate_grace;
            let presented = app
                .devices
                .authority()?
                .verify(certificate, app.clock.now_us(), grace)
                .ok_or_else(refused)?;
            let mut db = app.db.read().acquire().await?;
            let standing = certificates::standing(&mut db, &presented.serial, device.as_str()).await?;
            if presented.device != device.as_str() || presented.key != csr.key() || standing.is_none() {
                return Err(refused());
            }
        }
        (None, None) => {
            let detail = "the device's password or its current certificate is needed";
            return Err(Problem::unprocessable("/certificate", detail));
        }
    }
    let issued =
        enroll::renewed(&app, &device, &csr, Some(request_id.0)).await.map_err(|error| match error {
            RenewError::Failed(problem) => problem,
            RenewError::Refused => refused(),
            error @ RenewError::TooOften => Problem::conflict(error.to_string()),
            RenewError::Csr(CsrError::Authority) => Problem::internal(&CsrError::Authority),
            error @ (RenewError::Csr(_) | RenewError::Message(_)) => {
                Problem::unprocessable("/csr", error.to_string())
            }
        })?;
    Ok((
        StatusCode::CREATED,
        Json(Renewed { certificate: issued.pem, expires: Timestamp(issued.expires_us) }),
    ))
}

/// The authority that signs devices' certificates.
#[derive(Serialize, ToSchema)]
struct AuthorityView {
    /// Its certificate (PEM): what a broker checks devices' certificates with.
    certificate: String,
}

/// Shows the certificate of the authority that signs devices' certificates.
#[utoipa::path(get, path = "/ca", operation_id = "get_authority", tag = "enrolment",
    responses((status = 200, body = AuthorityView)))]
async fn authority(State(app): State<App>, caller: Caller) -> Result<Json<AuthorityView>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    Ok(Json(AuthorityView { certificate: app.devices.authority()?.certificate_pem().to_owned() }))
}

/// The list of revoked device certificates (PEM), for brokers that cannot ask: certificates of blocked and deleted
/// devices, and those replaced by new credentials. It is valid for a week; fetch it after every change.
#[utoipa::path(get, path = "/ca/crl", operation_id = "get_revocation_list", tag = "enrolment",
    responses((status = 200, content_type = "application/x-pem-file", body = String)))]
async fn revocation_list(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    let now_us = app.clock.now_us();
    let mut db = app.db.read().acquire().await?;
    let revoked = certificates::revoked(&mut db, now_us).await?;
    let list = app
        .devices
        .authority()?
        .revocation_list(&revoked, now_us)
        .map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], list).into_response())
}
