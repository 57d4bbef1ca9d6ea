//! Enrolment: a claim is exchanged for an identity, once in a device's life; and the renewal of certificates.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::authority::{Csr, CsrError, Issued};
use super::background::tell;
use super::secret::{self, Secret};
use super::store::{certificates, claims, devices, pairs};
use crate::access::{Caller, Subject, audit};
use crate::app::App;
use crate::bus::DeviceId;
use crate::clock::SECOND_US;
use crate::config::{ClientCertificates, Config};
use crate::db::{DbError, Tx};
use crate::http::Problem;
use crate::limits;
use crate::live::DeviceChange;

/// What a device says when it comes.
#[derive(Debug)]
pub(super) struct Enrolment {
    pub(super) claim: String,
    pub(super) hardware: String,
    pub(super) serial: Option<String>,
    pub(super) device: Option<DeviceId>,
    pub(super) attributes: BTreeMap<String, Option<String>>,
    pub(super) csr: Option<Csr>,
}

/// What proves a device's identity from now on: one of the two.
#[derive(Debug)]
pub(super) enum Given {
    Password(Secret),
    Certificate(Issued),
}

/// Where devices reach MQTT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Endpoint {
    /// Host name or address. `0.0.0.0` or `::`: the host under which the device reached the HTTP API.
    pub host: String,
    /// Port.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
}

/// Where devices reach MQTT.
pub(super) fn endpoint(app: &App) -> Endpoint {
    let endpoints = app.endpoints();
    let config = &app.config;
    let listens_everywhere = config.mqtt_listen.ip().is_unspecified();
    // The device knows under which name it found this server; the server does not.
    let host = if config.broker_url.is_none() && config.mqtt_public_address.is_none() && listens_everywhere {
        config.mqtt_listen.ip().to_string()
    } else {
        endpoints.mqtt_host
    };
    Endpoint { host, port: endpoints.mqtt_port, tls: endpoints.mqtt_tls }
}

/// Exchanges the claim for an identity. The same hardware with the same claim gets the same device again, with new
/// credentials, so that a device may lose the answer.
pub(super) async fn enroll(
    app: &App,
    enrolment: &Enrolment,
    request_id: Option<String>,
) -> Result<(DeviceId, String, Given), Problem> {
    let now_us = app.clock.now_us();
    let digest = hex::encode(secret::digest(enrolment.claim.as_bytes()));
    let mut tx = app.db.begin().await?;
    let (id, fleet, given, is_new) = exchange(app, &mut tx, enrolment, &digest, request_id, now_us).await?;
    tx.commit().await?;
    super::changed(app, id.as_str()).await;
    if is_new {
        tell(app, &fleet, id.as_str(), DeviceChange::Enrolled);
    }
    Ok((id, fleet, given))
}

async fn exchange(
    app: &App,
    tx: &mut Tx,
    enrolment: &Enrolment,
    digest: &str,
    request_id: Option<String>,
    now_us: i64,
) -> Result<(DeviceId, String, Given, bool), Problem> {
    let claim = claims::lock_by_digest(tx, digest).await?;
    let claim = claim.ok_or_else(|| Problem::forbidden("the enrolment key is not known").field("/claim"))?;
    check_claim(&claim, enrolment, now_us)?;
    let caller = Caller::internal(format!("claim:{}", claim.id), claim.name.clone(), request_id);
    let known = match &enrolment.serial {
        Some(serial) => devices::by_serial(tx, &claim.fleet, serial).await?,
        None => None,
    };
    let (id, is_new) = match known {
        Some((id, from, blocked)) => {
            if from.as_deref() != Some(claim.id.as_str()) {
                let detail = format!(
                    "hardware with this serial number is enrolled as {id:?}, with another enrolment key; delete that \
                     device, or give it new credentials (POST /api/v1/devices/{id}/credentials)"
                );
                return Err(Problem::conflict(detail).field("/serial"));
            }
            if blocked {
                return Err(Problem::forbidden(format!("the device {id:?} is blocked")));
            }
            if enrolment.device.as_ref().is_some_and(|wanted| wanted.as_str() != id) {
                let detail = format!("hardware with this serial number is enrolled as {id:?}");
                return Err(Problem::conflict(detail).field("/device"));
            }
            let id = DeviceId::new(&id).map_err(|error| Problem::internal(&error))?;
            (id, false)
        }
        None => (new_device(app, tx, enrolment, &claim, now_us).await?, true),
    };
    let given = give(app, tx, &id, enrolment.csr.as_ref(), now_us).await?;
    let after = json!({
        "fleet": claim.fleet, "hardware": enrolment.hardware, "serial": enrolment.serial, "credential": given.name(),
    });
    let subject = Subject::of_fleet("device", id.as_str(), &claim.fleet);
    let action = if is_new { "device.enroll" } else { "device.enroll_again" };
    audit(app, tx, &caller, action, subject, None, Some(after)).await?;
    Ok((id, claim.fleet, given, is_new))
}

fn check_claim(claim: &claims::Claim, enrolment: &Enrolment, now_us: i64) -> Result<(), Problem> {
    let refused = |why: &str| Err(Problem::forbidden(format!("the enrolment key {why}")).field("/claim"));
    if claim.revoked_us.is_some() {
        return refused("is revoked");
    }
    if claim.expires_us.is_some_and(|expires_us| expires_us <= now_us) {
        return refused("has expired");
    }
    if !claim.hardware.is_empty() && !claim.hardware.contains(&enrolment.hardware) {
        return refused("is not for this hardware class");
    }
    let serial_fits = enrolment.serial.as_ref().is_some_and(|serial| claim.serials.contains(serial));
    if !claim.serials.is_empty() && !serial_fits {
        return refused("is not for hardware with this serial number, or without one");
    }
    Ok(())
}

async fn new_device(
    app: &App,
    tx: &mut Tx,
    enrolment: &Enrolment,
    claim: &claims::Claim,
    now_us: i64,
) -> Result<DeviceId, Problem> {
    if claim.use_limit.is_some_and(|limit| claim.used >= limit) {
        return Err(Problem::forbidden("the enrolment key is used up").field("/claim"));
    }
    let id = match &enrolment.device {
        Some(wanted) => {
            check_free(app, tx, wanted).await?;
            wanted.clone()
        }
        None => DeviceId::new(&app.ids.next()).map_err(|error| Problem::internal(&error))?,
    };
    let device = devices::NewDevice {
        id: &id,
        fleet: &claim.fleet,
        hardware: &enrolment.hardware,
        serial: enrolment.serial.as_deref(),
        claim: Some(&claim.id),
        password_digest: None,
    };
    devices::insert(tx, &device, now_us).await.map_err(taken)?;
    pairs::change(tx, pairs::Table::Attributes(false), id.as_str(), &enrolment.attributes).await?;
    claims::count_use(tx, &claim.id).await?;
    Ok(id)
}

/// Checks that no device has or had this id.
pub(super) async fn check_free(app: &App, tx: &mut Tx, id: &DeviceId) -> Result<(), Problem> {
    if devices::get(tx, id.as_str(), &super::reading(app)).await?.is_some() {
        return Err(
            Problem::conflict(format!("there is a device {:?} already", id.as_str())).field("/device")
        );
    }
    if let Some(until_us) =
        devices::deleted_until(tx, id.as_str()).await?.filter(|until| *until > app.clock.now_us())
    {
        let detail = format!(
            "a device {:?} was deleted, and its certificates are valid until {}; choose another id",
            id.as_str(),
            crate::time::format_us(until_us)
        );
        return Err(Problem::conflict(detail).field("/device"));
    }
    Ok(())
}

/// Two requests at once can get past the checks; the database lets one through.
pub(super) fn taken(error: DbError) -> Problem {
    if error.is_unique_violation() {
        Problem::conflict("a device with this id or serial number was created at the same time; try again")
    } else {
        error.into()
    }
}

/// Gives the device a certificate, if it asked for one and this installation checks them, else a new password; what
/// it had before is no longer good.
pub(super) async fn give(
    app: &App,
    tx: &mut Tx,
    id: &DeviceId,
    csr: Option<&Csr>,
    now_us: i64,
) -> Result<Given, Problem> {
    certificates::revoke_all(tx, id.as_str(), now_us).await?;
    let given = match csr.filter(|_| super::gives_certificates(&app.config)) {
        Some(csr) => Given::Certificate(issue(app, tx, id, csr, now_us).await.map_err(csr_problem)?),
        None if needs_certificate(&app.config) => {
            let detail =
                "devices of this installation log in with certificates: send a certificate signing request";
            return Err(Problem::unprocessable("/csr", detail));
        }
        None => Given::Password(Secret::password().map_err(|error| Problem::internal(&error))?),
    };
    let digest = match &given {
        Given::Password(password) => Some(password.digest()),
        Given::Certificate(_) => None,
    };
    devices::set_credentials(tx, id.as_str(), digest.as_deref()).await?;
    sqlx::query("update devices set revision = revision + 1, changed_us = $1 where id = $2")
        .bind(now_us)
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(given)
}

fn needs_certificate(config: &Config) -> bool {
    config.broker_url.is_none()
        && config.mqtt_tls_certificate.is_some()
        && config.mqtt_client_certificates == ClientCertificates::Required
}

/// Why [`issue`] failed.
enum IssueError {
    Csr(CsrError),
    TooOften,
    Other(Problem),
}

async fn issue(app: &App, tx: &mut Tx, id: &DeviceId, csr: &Csr, now_us: i64) -> Result<Issued, IssueError> {
    let authority = app.devices.authority().map_err(IssueError::Other)?;
    let other = |error: DbError| IssueError::Other(error.into());
    let yesterday_us = now_us.saturating_sub(86_400 * SECOND_US);
    if certificates::issued_since(tx, id.as_str(), yesterday_us).await.map_err(other)?
        >= limits::CERTIFICATES_PER_DAY
    {
        return Err(IssueError::TooOften);
    }
    let issued =
        authority.issue(csr, id, app.config.devices_certificate_life, now_us).map_err(IssueError::Csr)?;
    certificates::insert(tx, id, &issued, now_us).await.map_err(other)?;
    Ok(issued)
}

fn csr_problem(error: IssueError) -> Problem {
    match error {
        IssueError::Csr(CsrError::Authority) => Problem::internal(&CsrError::Authority),
        IssueError::Csr(error) => Problem::unprocessable("/csr", error.to_string()),
        IssueError::TooOften => Problem::conflict(RenewError::TooOften.to_string()),
        IssueError::Other(problem) => problem,
    }
}

impl Given {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Given::Password(_) => "password",
            Given::Certificate(_) => "certificate",
        }
    }
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The message cannot be read.
    #[error("the message is not readable: {0}")]
    Message(#[from] dunlin_protocol::DecodeError),
    /// The request in it is wrong.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The device is unknown or blocked.
    #[error("the device is unknown or blocked")]
    Refused,
    /// It asks again and again.
    #[error(
        "the device got {} certificates in a day; it gets the next one tomorrow",
        limits::CERTIFICATES_PER_DAY
    )]
    TooOften,
    /// The database or the authority failed; the device asks again.
    #[error("{0}")]
    Failed(Problem),
}

/// Answers `up/csr` of a connected device: the body of `down/cert`. Older certificates stay good until the device has
/// logged in with this one, since it may lose the answer.
///
/// # Errors
/// See [`RenewError`]; after [`RenewError::Failed`] the same message may succeed later.
pub async fn renew(app: &App, device: &DeviceId, message: &[u8]) -> Result<bytes::Bytes, RenewError> {
    let request = dunlin_protocol::CertificateRequest::decode(message)?;
    let csr = Csr::from_der(request.der)?;
    let issued = renewed(app, device, &csr, None).await?;
    let authority = app.devices.authority().map_err(RenewError::Failed)?;
    let answer = dunlin_protocol::Certificate { device: &issued.der, authority: authority.certificate_der() };
    let mut out = vec![0; dunlin_protocol::limits::MAX_DOWN_MESSAGE];
    let length = answer.encode(&mut out).map_err(|error| {
        RenewError::Failed(Problem::internal(&format!("certificate of {device}: {error:?}")))
    })?;
    out.truncate(length);
    Ok(out.into())
}

/// Issues the next certificate of a device that has proven who it is.
pub(super) async fn renewed(
    app: &App,
    device: &DeviceId,
    csr: &Csr,
    request_id: Option<String>,
) -> Result<Issued, RenewError> {
    let entry = app.devices.directory.get(device.as_str()).filter(|entry| !entry.blocked);
    let entry = entry.ok_or(RenewError::Refused)?;
    let now_us = app.clock.now_us();
    let failed = |error: DbError| RenewError::Failed(error.into());
    let mut tx = app.db.begin().await.map_err(failed)?;
    let issued = match issue(app, &mut tx, device, csr, now_us).await {
        Err(IssueError::TooOften) => return Err(RenewError::TooOften),
        issued => issued.map_err(|error| RenewError::Failed(csr_problem(error)))?,
    };
    let caller = Caller::internal(format!("device:{device}"), device.as_str(), request_id);
    let after = json!({ "serial": issued.serial, "expires": crate::time::format_us(issued.expires_us) });
    let subject = Subject::of_fleet("device", device.as_str(), &entry.cohort.fleet);
    audit(app, &mut tx, &caller, "device.renew_certificate", subject, None, Some(after))
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(|error| failed(error.into()))?;
    Ok(issued)
}

/// When the id of a device that is deleted now may be used again: after its last certificate has expired, and not
/// before every process has noticed the deletion.
pub(super) fn rests_until_us(last_certificate_us: Option<i64>, now_us: i64) -> i64 {
    let noticed_us = now_us.saturating_add(limits::micros(limits::DIRECTORY_OVERLAP));
    last_certificate_us.map_or(noticed_us, |expires_us| expires_us.max(noticed_us))
}
