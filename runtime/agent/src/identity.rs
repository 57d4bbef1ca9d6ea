//! Who a device is: what enrolment gave it, kept in `identity.json` in the state folder.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::transport::{MqttOptions, TlsError, client_config};

/// Name of the file in the state folder.
const FILE: &str = "identity.json";
/// Largest identity file that is read, in bytes.
const MAX_FILE: u64 = 256 << 10;

/// What a device knows about itself and its server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The HTTP address of the control plane.
    pub server: String,
    /// The certificate authority to trust for HTTPS, PEM; the system's roots without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ca: Option<String>,
    /// The device's id.
    pub device: String,
    /// Where its messages go.
    pub mqtt: Endpoint,
    /// The certificate authority that signs the broker's certificate, PEM; the system's roots without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The proof.
    pub credential: Credential,
    /// The root (base64) that the device was given when it was enrolled: whose releases and assignments it believes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// A key whose certificate has been asked for and has not arrived, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_key: Option<String>,
    /// A certificate for the credential's own key that came over HTTP, PEM. It is shown to the broker, and takes the
    /// place of the credential's when the broker has accepted it: where HTTP is not protected, anyone may have sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
}

/// The broker's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
}

/// How the device proves its identity.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Credential {
    /// A password of its own.
    Password {
        /// The password.
        password: String,
    },
    /// A certificate of its own, both PEM. The key was made on the device and has never left it.
    Certificate {
        /// The certificate, with intermediate ones after it.
        certificate: String,
        /// The private key.
        key: String,
    },
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("server", &self.server)
            .field("device", &self.device)
            .field("mqtt", &self.mqtt)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Password { .. } => "Password(masked)",
            Credential::Certificate { .. } => "Certificate(key masked)",
        })
    }
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is damaged.
    #[error("{}: is damaged ({error}); delete it and enrol the device again with a claim", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// A key or request could not be made.
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// A certificate arrived that was not asked for.
    #[error("a certificate arrived that belongs to another key")]
    WrongKey,
    /// TLS refuses the parts.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A private key made on this device, and the request to certify it.
pub struct KeyRequest {
    /// The key, PEM.
    pub key: String,
    /// The certificate signing request, PEM.
    pub csr: String,
    /// The certificate signing request, DER.
    pub csr_der: Vec<u8>,
}

impl KeyRequest {
    /// Makes a P-256 key and a request in the device's name. The control plane puts the name into the certificate
    /// itself, so that it does not matter when it is not known yet.
    ///
    /// # Errors
    /// [`IdentityError::Key`] if the system has no randomness.
    pub fn new(device: Option<&str>) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        Self::with_key(&key, device)
    }

    fn with_key(key: &KeyPair, device: Option<&str>) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(device) = device {
            params.distinguished_name.push(DnType::CommonName, device);
        }
        let request = params.serialize_request(key)?;
        Ok(KeyRequest { key: key.serialize_pem(), csr: request.pem()?, csr_der: request.der().to_vec() })
    }
}

impl Identity {
    /// The identity in a state folder, if the device has been enrolled.
    ///
    /// # Errors
    /// [`IdentityError::File`] and [`IdentityError::Damaged`] name the file.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let path = folder.join(FILE);
        let file = |error| IdentityError::File { path: path.clone(), error };
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file(error)),
            Ok(found) if found.len() > MAX_FILE => {
                let error = format!("it has {} bytes", found.len());
                return Err(IdentityError::Damaged { path, error });
            }
            Ok(_) => {}
        }
        let bytes = std::fs::read(&path).map_err(file)?;
        // serde's messages may quote a value, which may be a secret: only the place is told.
        let damaged = |error: serde_json::Error| IdentityError::Damaged {
            path: path.clone(),
            error: format!("line {}, column {}", error.line(), error.column()),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Stores the identity in a state folder; readable by its owner only.
    ///
    /// # Errors
    /// [`IdentityError::File`] names the file.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let path = folder.join(FILE);
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        files::create_private_dir(folder)
            .and_then(|()| files::replace_private(&path, &bytes))
            .map_err(|error| IdentityError::File { path, error })
    }

    /// Options for a connection to the broker.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] if the certificates do not fit.
    pub fn mqtt_options(&self, keep_alive: Duration) -> Result<MqttOptions, IdentityError> {
        let (password, certificate) = match &self.credential {
            Credential::Password { password } => (Some(password.clone()), None),
            Credential::Certificate { certificate, key } => {
                (None, Some((self.candidate.as_ref().unwrap_or(certificate).as_str(), key.as_str())))
            }
        };
        let tls = if self.mqtt.tls { Some(client_config(self.ca.as_deref(), certificate)?) } else { None };
        let (host, port, device) = (self.mqtt.host.clone(), self.mqtt.port, self.device.clone());
        Ok(MqttOptions { host, port, device, password, tls, keep_alive })
    }

    /// When to renew the certificate, in seconds since 1970: at two thirds of its life. Nothing for a password.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] if the certificate cannot be read.
    pub fn renew_at(&self) -> Result<Option<u64>, IdentityError> {
        let validity = self.shown().map(validity).transpose()?;
        Ok(validity.map(|(from, until)| from + until.saturating_sub(from) / 3 * 2))
    }

    /// When the certificate expires, in seconds since 1970. Nothing for a password.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] if the certificate cannot be read.
    pub fn expires_at(&self) -> Result<Option<u64>, IdentityError> {
        Ok(self.shown().map(validity).transpose()?.map(|(_, until)| until))
    }

    /// The certificate that the broker is shown.
    fn shown(&self) -> Option<&str> {
        match &self.credential {
            Credential::Password { .. } => None,
            Credential::Certificate { certificate, .. } => {
                Some(self.candidate.as_ref().unwrap_or(certificate))
            }
        }
    }

    /// A request (PEM) to certify the credential's key anew, whose signature proves that the device has the key.
    /// Nothing for a password.
    ///
    /// # Errors
    /// [`IdentityError::Key`] if the key cannot be read.
    pub fn request_again(&self) -> Result<Option<String>, IdentityError> {
        let Credential::Certificate { key, .. } = &self.credential else { return Ok(None) };
        Ok(Some(KeyRequest::with_key(&KeyPair::from_pem(key)?, Some(&self.device))?.csr))
    }

    /// Takes a certificate (PEM) that came over HTTP, if it is one for the credential's key; the broker decides whether
    /// it is good. The caller saves the identity.
    ///
    /// # Errors
    /// [`IdentityError::WrongKey`] and [`IdentityError::Tls`]; nothing has changed then.
    pub fn offered(&mut self, certificate: &str) -> Result<(), IdentityError> {
        let Credential::Certificate { key, .. } = &self.credential else {
            return Err(IdentityError::WrongKey);
        };
        self.check_pair(certificate, key)?;
        self.candidate = Some(certificate.to_owned());
        Ok(())
    }

    /// The broker has accepted what it was shown. True if that has changed the identity, which the caller then saves.
    pub fn accepted(&mut self) -> bool {
        match (self.candidate.take(), &mut self.credential) {
            (Some(candidate), Credential::Certificate { certificate, .. }) => {
                *certificate = candidate;
                true
            }
            _ => false,
        }
    }

    /// The broker has refused what it was shown. True if that has changed the identity, which the caller then saves.
    pub fn refused(&mut self) -> bool {
        self.candidate.take().is_some()
    }

    /// Checks that certificate and key, both PEM, belong together.
    fn check_pair(&self, certificate: &str, key: &str) -> Result<(), IdentityError> {
        validity(certificate)?;
        // rustls compares the key with the certificate.
        client_config(self.ca.as_deref(), Some((certificate, key))).map_err(|error| match error {
            TlsError::Config(rustls::Error::InconsistentKeys(_)) => IdentityError::WrongKey,
            other => other.into(),
        })?;
        Ok(())
    }

    /// The request for a new certificate. The key is the one asked with before, if no answer has come yet, so that a
    /// late answer still fits.
    ///
    /// # Errors
    /// [`IdentityError::Key`].
    pub fn request_renewal(&mut self) -> Result<KeyRequest, IdentityError> {
        let pending = self.pending_key.as_deref().and_then(|pem| KeyPair::from_pem(pem).ok());
        let request = match pending {
            Some(key) => KeyRequest::with_key(&key, Some(&self.device))?,
            None => KeyRequest::new(Some(&self.device))?,
        };
        self.pending_key = Some(request.key.clone());
        Ok(request)
    }

    /// Takes a new certificate, PEM, if it belongs to the key that was asked with. The caller saves the identity.
    ///
    /// # Errors
    /// [`IdentityError::WrongKey`] and [`IdentityError::Tls`]; nothing has changed then.
    pub fn renewed(&mut self, certificate: &str) -> Result<(), IdentityError> {
        let Some(key) = self.pending_key.clone() else { return Err(IdentityError::WrongKey) };
        self.check_pair(certificate, &key)?;
        self.credential = Credential::Certificate { certificate: certificate.to_owned(), key };
        self.pending_key = None;
        Ok(())
    }
}

/// A serial number for hardware that has none: random, made once for a state folder.
///
/// # Errors
/// [`IdentityError::File`] names the file.
pub fn serial(folder: &Path) -> Result<String, IdentityError> {
    let path = folder.join("serial");
    let file = |error| IdentityError::File { path: path.clone(), error };
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    let random = getrandom::u64().map_err(|error| file(io::Error::other(error.to_string())))?;
    let serial = format!("{random:016x}");
    files::create_private_dir(folder)
        .and_then(|()| files::replace_private(&path, serial.as_bytes()))
        .map_err(file)?;
    Ok(serial)
}

/// A certificate in DER as PEM.
pub(crate) fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// From when until when a PEM certificate is valid, in seconds since 1970.
fn validity(pem: &str) -> Result<(u64, u64), IdentityError> {
    let wrong = |error: String| IdentityError::Certificate(error);
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| wrong(error.to_string()))?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = certificate.validity();
    Ok((seconds(validity.not_before), seconds(validity.not_after)))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer};

    use super::*;

    fn identity(credential: Credential) -> Identity {
        let mqtt = Endpoint { host: "localhost".into(), port: 1883, tls: false };
        let (server, device) = ("http://localhost:8080".into(), "d1".into());
        Identity {
            server,
            server_ca: None,
            device,
            mqtt,
            ca: None,
            credential,
            root: None,
            pending_key: None,
            candidate: None,
        }
    }

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    impl Authority {
        fn sign(&self, csr: &str, days: i64) -> String {
            let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
            request.params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            request.params.not_after = rcgen::date_time_ymd(2026, 1, u8::try_from(1 + days).unwrap());
            request.signed_by(&self.issuer).unwrap().pem()
        }
    }

    #[test]
    fn an_identity_is_private_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap(), None);
        let identity = identity(Credential::Password { password: "secret".into() });
        identity.save(folder.path()).unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap(), Some(identity.clone()));
        assert!(!format!("{identity:?}").contains("secret"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_serial_number_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = serial(&folder.path().join("new")).unwrap();
        assert_eq!(serial(&folder.path().join("new")).unwrap(), first);
        assert_ne!(serial(folder.path()).unwrap(), first);
    }

    #[test]
    fn a_damaged_file_is_named_and_its_secrets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity(Credential::Password { password: "secret".into() });
        identity.save(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap().replace("\"port\": 1883", "\"port\": \"secret\"");
        std::fs::write(&path, text).unwrap();
        let error = Identity::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("identity.json") && error.contains("enrol the device again"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let authority = authority();
        let first = KeyRequest::new(None).unwrap();
        let certificate = authority.sign(&first.csr, 9);
        let mut identity = identity(Credential::Certificate { certificate, key: first.key });
        identity.ca = Some(authority.pem.clone());
        let start = 1_767_225_600; // 2026-01-01
        assert_eq!(identity.renew_at().unwrap(), Some(start + 6 * 24 * 3600));

        let request = identity.request_renewal().unwrap();
        let again = identity.request_renewal().unwrap();
        assert_eq!(request.key, again.key, "a late answer must still fit");
        let stranger = KeyRequest::new(None).unwrap();
        let before = identity.clone();
        let wrong = identity.renewed(&authority.sign(&stranger.csr, 9));
        assert!(matches!(wrong, Err(IdentityError::WrongKey)), "{wrong:?}");
        assert!(matches!(identity.renewed("no certificate"), Err(IdentityError::Certificate(_))));
        assert_eq!(identity, before);

        identity.renewed(&authority.sign(&request.csr, 18)).unwrap();
        assert_eq!(identity.renew_at().unwrap(), Some(start + 12 * 24 * 3600));
        assert_eq!(identity.pending_key, None);
        identity.mqtt.tls = true;
        identity.mqtt_options(Duration::from_secs(30)).unwrap();
        let unasked = identity.renewed(&authority.sign(&request.csr, 18));
        assert!(matches!(unasked, Err(IdentityError::WrongKey)));
    }

    #[test]
    fn a_certificate_that_came_over_http_counts_when_it_was_accepted() {
        let authority = authority();
        let first = KeyRequest::new(None).unwrap();
        let certificate = authority.sign(&first.csr, 9);
        let mut identity = identity(Credential::Certificate { certificate, key: first.key });
        identity.ca = Some(authority.pem.clone());
        let before = identity.clone();
        let start = 1_767_225_600; // 2026-01-01
        assert_eq!(identity.expires_at().unwrap(), Some(start + 9 * 24 * 3600));
        let stranger = KeyRequest::new(None).unwrap();
        let wrong = identity.offered(&authority.sign(&stranger.csr, 18));
        assert!(matches!(wrong, Err(IdentityError::WrongKey)), "{wrong:?}");
        assert!(!identity.accepted() && !identity.refused());
        assert_eq!(identity, before);

        let next = authority.sign(&identity.request_again().unwrap().unwrap(), 18);
        identity.offered(&next).unwrap();
        assert_eq!(identity.expires_at().unwrap(), Some(start + 18 * 24 * 3600), "it is shown");
        assert_eq!(identity.credential, before.credential, "and it does not count yet");
        assert!(identity.refused());
        assert_eq!(identity, before);
        identity.offered(&next).unwrap();
        assert!(identity.accepted());
        assert_ne!(identity.credential, before.credential);
        assert_eq!((identity.candidate.clone(), identity.accepted()), (None, false));
    }
}
