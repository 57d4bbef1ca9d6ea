//! The certificate authority of devices' certificates. Made at the first start; its key never leaves the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificationRequest};

use crate::bus::DeviceId;
use crate::clock::SECOND_US;
use crate::{files, limits};

/// The authority: its certificate and key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("device authority: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// One of the two files is there without the other.
    #[error(
        "device authority: {missing} is missing, but {there} is there; restore the missing file (without it no \
         device certificate can be issued)"
    )]
    Half {
        /// The file that is missing.
        missing: PathBuf,
        /// The other one.
        there: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("device authority: {path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The database belongs to another authority.
    #[error(
        "the database's devices have certificates of another authority than {path}; processes on one database need \
         the same files: set devices.ca_certificate and devices.ca_key"
    )]
    Other {
        /// The certificate that this process has.
        path: PathBuf,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] crate::db::DbError),
    /// No random bytes, or the cryptographic library failed.
    #[error("device authority: {0}")]
    Crypto(String),
}

/// Why a certificate was not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is not a certificate signing request.
    #[error("this is no PKCS #10 certificate signing request in {0}")]
    Unreadable(&'static str),
    /// The request is not signed by the key it names.
    #[error("the certificate signing request's signature is wrong")]
    Signature,
    /// The request's key is of a kind that is not signed.
    #[error("the key is not supported; use ECDSA P-256 or Ed25519")]
    Key,
    /// The authority failed.
    #[error("the authority failed")]
    Authority,
}

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// In PEM.
    pub pem: String,
    /// In DER.
    pub der: Vec<u8>,
    /// Its serial number in hex.
    pub serial: String,
    /// From when on it is no longer valid.
    pub expires_us: i64,
}

/// A certificate of a device that asks for the next one.
pub(crate) struct Presented {
    /// The device's id.
    pub(crate) device: String,
    /// The serial number in hex.
    pub(crate) serial: String,
    /// The public key: subject public key info in DER.
    pub(crate) key: Vec<u8>,
}

impl Authority {
    /// Reads the authority from its files, or makes it when neither is there and `create`.
    ///
    /// # Errors
    /// When a file is missing, cannot be read or written, or holds something else.
    pub fn open(certificate: &Path, key: &Path, create: bool, now_us: i64) -> Result<Self, AuthorityError> {
        match (read(certificate)?, read(key)?) {
            (Some(pem), Some(key_pem)) => Authority::from_pem(&pem, &key_pem, certificate, key),
            (Some(_), None) => Err(AuthorityError::Half { missing: key.into(), there: certificate.into() }),
            (None, None) if !create => {
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                Err(AuthorityError::File { path: certificate.into(), source })
            }
            (None, key_pem) => {
                // A key without a certificate: the first start ended between the two files.
                let pair = match &key_pem {
                    Some(pem) => KeyPair::from_pem(pem).map_err(|error| content(key, &error))?,
                    None => KeyPair::generate().map_err(|error| AuthorityError::Crypto(error.to_string()))?,
                };
                let pem =
                    self_signed(&pair, now_us).map_err(|error| AuthorityError::Crypto(error.to_string()))?;
                if key_pem.is_none() {
                    write(key, pair.serialize_pem().as_bytes(), 0o600)?;
                }
                write(certificate, pem.as_bytes(), 0o644)?;
                Authority::from_pem(&pem, &pair.serialize_pem(), certificate, key)
            }
        }
    }

    fn from_pem(pem: &str, key_pem: &str, certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let pair = KeyPair::from_pem(key_pem).map_err(|error| content(key, &error))?;
        let public = pair.subject_public_key_info();
        let (_, block) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| content(certificate, &error))?;
        let parsed = block.parse_x509().map_err(|error| content(certificate, &error))?;
        if parsed.public_key().raw != public {
            return Err(content(certificate, &format!("it does not belong to the key in {}", key.display())));
        }
        if !parsed.is_ca() {
            return Err(content(
                certificate,
                &"it is not the certificate of an authority (CA:TRUE is missing)",
            ));
        }
        let issuer = Issuer::from_ca_cert_pem(pem, pair).map_err(|error| content(certificate, &error))?;
        Ok(Authority { issuer, pem: pem.to_owned(), der: block.contents })
    }

    /// The authority's certificate in PEM: what brokers check devices' certificates with.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.der
    }

    /// Issues a certificate: the device's id is its common name, and nothing in the request but its key counts.
    ///
    /// # Errors
    /// When the request cannot be read, is not signed by its own key, or has a key of another kind.
    pub fn issue(
        &self,
        csr: &Csr,
        device: &DeviceId,
        life: Duration,
        now_us: i64,
    ) -> Result<Issued, CsrError> {
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).map_err(|_| CsrError::Authority)?;
        // Positive and of full length in DER.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x7f | 0x40;
        }
        let now_s = now_us.div_euclid(SECOND_US);
        let expires_s = now_s.saturating_add_unsigned(life.as_secs());
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        let uri = format!("urn:dunlin:device:{device}").try_into().map_err(|_| CsrError::Authority)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // Devices' clocks are not exact, and some begin at the time of their firmware.
        params.not_before = date(now_s.saturating_sub(limits::CERTIFICATE_BACKDATED.as_secs().cast_signed()));
        params.not_after = date(expires_s);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate =
            params.signed_by(&csr.0.public_key, &self.issuer).map_err(|_| CsrError::Authority)?;
        Ok(Issued {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            serial: hex::encode(serial),
            expires_us: expires_s.saturating_mul(SECOND_US),
        })
    }

    /// Reads a certificate that this authority issued and that is valid now, or was until at most `grace` ago.
    pub(crate) fn verify(&self, pem: &str, now_us: i64, grace: Duration) -> Option<Presented> {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = block.parse_x509().ok()?;
        let (_, authority) = X509Certificate::from_der(&self.der).ok()?;
        certificate.verify_signature(Some(authority.public_key())).ok()?;
        let now_s = now_us.div_euclid(SECOND_US);
        let validity = certificate.validity();
        let ends_s = validity.not_after.timestamp().saturating_add_unsigned(grace.as_secs());
        if now_s < validity.not_before.timestamp() || now_s > ends_s {
            return None;
        }
        let device = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        Some(Presented {
            device,
            serial: hex::encode(certificate.raw_serial()),
            key: certificate.public_key().raw.to_vec(),
        })
    }

    /// The list of revoked certificates (serial numbers in hex, with the times of revocation), in PEM.
    ///
    /// # Errors
    /// When the authority fails.
    pub fn revocation_list(&self, revoked: &[(String, i64)], now_us: i64) -> Result<String, CsrError> {
        let now_s = now_us.div_euclid(SECOND_US);
        let revoked_certs = revoked
            .iter()
            .filter_map(|(serial, revoked_us)| {
                Some(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&hex::decode(serial).ok()?),
                    revocation_time: date(revoked_us.div_euclid(SECOND_US)),
                    reason_code: Some(RevocationReason::CessationOfOperation),
                    invalidity_date: None,
                })
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: date(now_s),
            next_update: date(now_s.saturating_add_unsigned(limits::CRL_LIFE.as_secs())),
            // Numbers must grow; seconds do.
            crl_number: SerialNumber::from_slice(&now_s.max(0).to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(|_| CsrError::Authority)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(key masked)")
    }
}

/// A certificate signing request whose signature was checked.
pub struct Csr(CertificateSigningRequestParams);

impl Csr {
    /// Reads a request in PEM.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        let (_, block) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| CsrError::Unreadable("PEM"))?;
        Csr::read(&block.contents, "PEM")
    }

    /// Reads a request in DER.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        Csr::read(der, "DER")
    }

    fn read(der: &[u8], form: &'static str) -> Result<Self, CsrError> {
        if der.len() > dunlin_protocol::limits::MAX_CERTIFICATE
            || X509CertificationRequest::from_der(der).is_err()
        {
            return Err(CsrError::Unreadable(form));
        }
        match CertificateSigningRequestParams::from_der(&der.to_vec().into()) {
            Ok(params) => Ok(Csr(params)),
            Err(rcgen::Error::InvalidCertificationRequestSignature) => Err(CsrError::Signature),
            Err(rcgen::Error::UnsupportedSignatureAlgorithm) => Err(CsrError::Key),
            Err(_) => Err(CsrError::Unreadable(form)),
        }
    }

    /// The public key: subject public key info in DER.
    pub(crate) fn key(&self) -> Vec<u8> {
        self.0.public_key.subject_public_key_info()
    }
}

impl std::fmt::Debug for Csr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Csr")
    }
}

fn self_signed(pair: &KeyPair, now_us: i64) -> Result<String, rcgen::Error> {
    let now_s = now_us.div_euclid(SECOND_US);
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "Dunlin device authority");
    params.not_before = date(now_s.saturating_sub(limits::CERTIFICATE_BACKDATED.as_secs().cast_signed()));
    params.not_after = date(now_s.saturating_add_unsigned(limits::AUTHORITY_LIFE.as_secs()));
    // It signs devices' certificates only, no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(pair)?.pem())
}

/// The moment so many seconds after 1970 (never before it: X.509 needs no such times here).
fn date(unix_s: i64) -> time::OffsetDateTime {
    let seconds = u64::try_from(unix_s).unwrap_or(0).min(LAST_DATE_S);
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}

/// 9999-12-31: "no end" in X.509 (RFC 5280, 4.1.2.5), and the end of what the date type holds.
const LAST_DATE_S: u64 = 253_402_214_400;

fn content(path: &Path, reason: &dyn std::fmt::Display) -> AuthorityError {
    AuthorityError::Content { path: path.into(), reason: reason.to_string() }
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    files::read(path).map_err(|source| AuthorityError::File { path: path.into(), source })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    files::write(path, bytes, mode).map_err(|source| AuthorityError::File { path: path.into(), source })
}
