//! Enrolment: a claim is exchanged for an identity, over HTTP, once in a device's life. And the way back in when the
//! certificate of it has expired.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::http::{body, cause, client, reason};
use crate::identity::{Credential, Endpoint, Identity, IdentityError, KeyRequest};
use crate::transport::TlsError;

/// How long enrolment may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 << 10;

/// What a device says about itself.
#[derive(Clone, Debug, Default)]
pub struct Enrolment {
    /// The control plane's HTTP address, such as `http://192.168.1.5:8080`.
    pub server: String,
    /// The secret that allows this device to join a fleet.
    pub claim: String,
    /// The id that the operator wants for the device; the server chooses one otherwise.
    pub device: Option<String>,
    /// The hardware's serial number: the same hardware with the same claim becomes the same device again, so that an
    /// answer may get lost. See [`crate::identity::serial`].
    pub serial: Option<String>,
    /// Hardware class, such as `raspberry-pi-4`.
    pub hardware: String,
    /// Facts about the device.
    pub attributes: BTreeMap<String, String>,
    /// The certificate authority to trust for HTTPS, PEM; the system's roots without it.
    pub ca: Option<String>,
}

/// Why a device was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The address makes no sense.
    #[error("{server:?} is no server address ({error}); write it as http://HOST:PORT")]
    Address {
        /// What was given.
        server: String,
        /// What is wrong with it.
        error: String,
    },
    /// Nobody answers, or not as a control plane does.
    #[error("{server} cannot be asked: {error}; is `dunlin serve` running there?")]
    Unreachable {
        /// The server.
        server: String,
        /// What happened.
        error: String,
    },
    /// The server said no.
    #[error("{server} refuses to enrol this device: {reason}")]
    Refused {
        /// The server.
        server: String,
        /// Its HTTP status.
        status: u16,
        /// Its reason.
        reason: String,
    },
    /// The server does not renew the certificate.
    #[error("{server} does not renew it ({reason}){}", way_out(*.status))]
    NotRenewed {
        /// The server.
        server: String,
        /// Its HTTP status.
        status: u16,
        /// Its reason.
        reason: String,
    },
    /// The answer makes no sense.
    #[error("{server} gave an answer that makes no sense: {error}; update dunlin on both sides")]
    Answer {
        /// The server.
        server: String,
        /// What is wrong with it.
        error: String,
    },
    /// Key or certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[derive(Serialize)]
struct Request<'a> {
    claim: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<&'a str>,
    hardware: &'a str,
    attributes: &'a BTreeMap<String, String>,
    /// PEM; answered with a certificate by a server whose broker speaks TLS.
    csr: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    device: String,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    ca: Option<String>,
    /// The root to begin with, in base64; none before there are keys.
    #[serde(default)]
    root: Option<String>,
    mqtt: Endpoint,
}

/// [`enrol`] for a caller without a runtime. Not to be called in a task.
///
/// # Errors
/// As [`enrol`].
pub fn enrol_blocking(enrolment: &Enrolment) -> Result<Identity, EnrolError> {
    let unreachable = |error: std::io::Error| EnrolError::Unreachable {
        server: enrolment.server.clone(),
        error: error.to_string(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
    runtime.block_on(enrol(enrolment))
}

/// Exchanges the claim for an identity. The private key is made here and stays here. The caller saves the identity.
///
/// # Errors
/// [`EnrolError`] says who refused what; it never contains the claim.
pub async fn enrol(enrolment: &Enrolment) -> Result<Identity, EnrolError> {
    let server = enrolment.server.trim_end_matches('/').to_owned();
    let host = host(&server)?;
    let key = KeyRequest::new(enrolment.device.as_deref())?;
    let request = Request {
        claim: &enrolment.claim,
        device: enrolment.device.as_deref(),
        serial: enrolment.serial.as_deref(),
        hardware: &enrolment.hardware,
        attributes: &enrolment.attributes,
        csr: &key.csr,
    };
    let answer: Answer = post(&server, "enroll", enrolment.ca.as_deref(), &request).await?;
    let answer_error = |error: String| EnrolError::Answer { server: server.clone(), error };
    let credential = match (answer.certificate, answer.password) {
        (Some(certificate), _) => Credential::Certificate { certificate, key: key.key },
        (None, Some(password)) => Credential::Password { password },
        (None, None) => return Err(answer_error("it holds neither a certificate nor a password".into())),
    };
    let mut mqtt = answer.mqtt;
    // A server that listens on every address does not know by which name it was found.
    if matches!(mqtt.host.as_str(), "" | "0.0.0.0" | "::" | "[::]") {
        mqtt.host = host;
    }
    let ca = answer.ca.filter(|_| mqtt.tls);
    let (device, server_ca) = (answer.device, enrolment.ca.clone());
    let root = answer.root;
    Ok(Identity { server, server_ca, device, mqtt, ca, credential, root, pending_key: None, candidate: None })
}

#[derive(Serialize)]
struct RenewRequest<'a> {
    device: &'a str,
    certificate: &'a str,
    /// PEM; for the certificate's own key.
    csr: &'a str,
}

#[derive(Deserialize)]
struct RenewAnswer {
    certificate: String,
}

/// Asks for the next certificate with the current one, which may have expired: for the same key, so that the request's
/// signature proves who asks. For [`Identity::offered`].
///
/// # Errors
/// [`EnrolError::NotRenewed`] when the server says no; the others when it cannot be asked.
pub async fn renew(identity: &Identity) -> Result<String, EnrolError> {
    let server = identity.server.clone();
    host(&server)?;
    let (Credential::Certificate { certificate, .. }, Some(csr)) =
        (&identity.credential, identity.request_again()?)
    else {
        let reason = "this device logs in with a password".into();
        return Err(EnrolError::NotRenewed { server, status: 0, reason });
    };
    let request = RenewRequest { device: &identity.device, certificate, csr: &csr };
    match post::<RenewAnswer>(&server, "enroll/renew", identity.server_ca.as_deref(), &request).await {
        Ok(answer) => Ok(answer.certificate),
        Err(EnrolError::Refused { server, status, reason }) => {
            Err(EnrolError::NotRenewed { server, status, reason })
        }
        Err(other) => Err(other),
    }
}

/// What to do when a certificate is not renewed; other refusals (too many requests, a server that starts) pass by
/// themselves.
fn way_out(status: u16) -> &'static str {
    match status {
        403 => "; enrol the device again: delete identity.json in its state folder and start it with a claim",
        _ => "; it is asked again",
    }
}

/// The host in the server's address.
fn host(server: &str) -> Result<String, EnrolError> {
    let address = |error: String| EnrolError::Address { server: server.to_owned(), error };
    let base = Url::parse(server).map_err(|error| address(error.to_string()))?;
    match base.host_str().filter(|_| matches!(base.scheme(), "http" | "https")) {
        Some(host) => Ok(host.trim_matches(['[', ']']).to_owned()),
        None => Err(address("the scheme is neither http nor https".into())),
    }
}

/// Sends a request to the server's API and reads its answer.
async fn post<T: DeserializeOwned>(
    server: &str,
    path: &str,
    ca: Option<&str>,
    request: &impl Serialize,
) -> Result<T, EnrolError> {
    let unreachable =
        |error: reqwest::Error| EnrolError::Unreachable { server: server.to_owned(), error: cause(error) };
    let answer_error = |error: String| EnrolError::Answer { server: server.to_owned(), error };
    let client = client(server, ca)?.timeout(TIMEOUT).build().map_err(unreachable)?;
    let request = client.post(format!("{server}/api/v1/{path}")).json(request);
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let body = body(response, MAX_ANSWER).await.map_err(unreachable)?;
    let body = body.ok_or_else(|| answer_error(format!("it is longer than {MAX_ANSWER} bytes")))?;
    if !status.is_success() {
        let reason = reason(&body).unwrap_or_else(|| status.to_string());
        return Err(EnrolError::Refused { server: server.to_owned(), status: status.as_u16(), reason });
    }
    // The place only: the text may hold a password.
    serde_json::from_slice(&body)
        .map_err(|error| answer_error(format!("line {}, column {}", error.line(), error.column())))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one request with the given status line and body, and returns what was asked.
    async fn server(status: &str, body: &str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.ends_with(b"}") {
                let len = stream.read(&mut chunk).await.unwrap();
                request.extend_from_slice(&chunk[..len]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (address, task)
    }

    fn enrolment(server: &str) -> Enrolment {
        let hardware = "linux".into();
        Enrolment { server: server.into(), claim: "the-claim".into(), hardware, ..Enrolment::default() }
    }

    #[tokio::test]
    async fn a_claim_becomes_a_password() {
        let body =
            r#"{"device":"d7","password":"pw","mqtt":{"host":"0.0.0.0","port":1883,"tls":false},"more":1}"#;
        let (address, asked) = server("201 Created", body).await;
        let identity = enrol(&enrolment(&format!("{address}/"))).await.unwrap();
        assert_eq!(identity.device, "d7");
        assert_eq!(identity.credential, Credential::Password { password: "pw".into() });
        assert_eq!(identity.mqtt.host, "127.0.0.1");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("POST /api/v1/enroll HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("BEGIN CERTIFICATE REQUEST"), "{asked}");
        assert!(!asked.contains("PRIVATE KEY"), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_never_shows_the_claim() {
        let body = r#"{"title":"Forbidden","detail":"the claim has been used up","status":403}"#;
        let (address, _) = server("403 Forbidden", body).await;
        let error = enrol(&enrolment(&address)).await.unwrap_err();
        assert!(matches!(error, EnrolError::Refused { status: 403, .. }));
        let text = error.to_string();
        assert!(text.contains("used up") && !text.contains("the-claim"), "{text}");
    }

    #[tokio::test]
    async fn nonsense_is_refused_without_a_panic() {
        for body in ["", "{", "[]", r#"{"device":"d","mqtt":{"host":"h","port":99999,"tls":false}}"#] {
            let (address, _) = server("200 OK", body).await;
            let error = enrol(&enrolment(&address)).await.unwrap_err();
            assert!(matches!(error, EnrolError::Answer { .. }), "{body}: {error}");
        }
        let error = enrol(&enrolment("ftp://host")).await.unwrap_err();
        assert!(matches!(error, EnrolError::Address { .. }));
        let error = enrol(&enrolment("http://127.0.0.1:1")).await.unwrap_err();
        assert!(error.to_string().contains("dunlin serve"), "{error}");
    }
}
