//! TLS for listeners.

use crate::Certificate;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Whether devices show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A device may show one; without, it logs in by password.
    Optional,
    /// Connections without one are refused.
    Required,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A text that should be PEM is not.
    #[error("the {what} cannot be read as PEM: {source}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A PEM text without a certificate.
    #[error("the {what} contains no certificate")]
    NoCertificate {
        /// Which text.
        what: &'static str,
    },
    /// A certificate of the device CA that cannot be a trust anchor.
    #[error("the device CA's certificate cannot be used: {0}")]
    Ca(rustls::Error),
    /// The device CA cannot verify clients.
    #[error("client certificates cannot be verified: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The server's certificate and key do not fit, or the key's type is not supported.
    #[error("the server's certificate and private key cannot be used: {0}")]
    Identity(rustls::Error),
}

/// The server's certificate chain and private key. They can be replaced while connections are accepted.
pub struct ServerIdentity(RwLock<Arc<CertifiedKey>>);

impl ServerIdentity {
    /// Reads both from PEM.
    ///
    /// # Errors
    /// When a text is not readable, or they do not belong together.
    pub fn new(chain: &[u8], key: &[u8]) -> Result<Arc<ServerIdentity>, TlsError> {
        Ok(Arc::new(ServerIdentity(RwLock::new(certified(chain, key)?))))
    }

    /// Shows these to every connection from now on.
    ///
    /// # Errors
    /// As [`ServerIdentity::new`]; the old ones stay.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let new = certified(chain, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity(key masked)")
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = read_certificates(chain, "server certificate")?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem { what: "private key", source })?;
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(TlsError::Identity)
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// A configuration for [`crate::Listener::tls`]: who the server is, and, for mutual TLS, the CA that issues the devices'
/// certificates, as PEM. TLS 1.2 and 1.3.
///
/// # Errors
/// When the CA's certificate cannot be used.
pub fn server_config(
    identity: Arc<ServerIdentity>,
    clients: Option<(&[u8], ClientCertificates)>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    // The provider supports the default versions.
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Identity)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((ca, certificates)) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(ca, "device CA")? {
                roots.add(certificate).map_err(TlsError::Ca)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(match certificates {
                ClientCertificates::Required => verifier.build()?,
                ClientCertificates::Optional => verifier.allow_unauthenticated().build()?,
            })
        }
    };
    let mut config = builder.with_cert_resolver(identity);
    // A fleet reconnects after a restart of the server, when memory of sessions is gone anyway; without it an idle
    // connection costs less, and a certificate is verified at every connection.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn read_certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|source| TlsError::Pem { what, source })?;
    match certificates.is_empty() {
        true => Err(TlsError::NoCertificate { what }),
        false => Ok(certificates),
    }
}

/// Reads a certificate that TLS has verified, and for how long it is valid still (zero if it has expired); `None` if it
/// has no (readable) common name.
pub(crate) fn client_certificate(der: &[u8], now: UnixTime) -> Option<(Certificate, Duration)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let common_name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let serial = certificate.raw_serial().to_vec();
    let not_after = certificate.validity().not_after.timestamp();
    let remaining = not_after.saturating_sub_unsigned(now.as_secs());
    let remaining = Duration::from_secs(u64::try_from(remaining).unwrap_or(0));
    Some((Certificate { common_name, serial }, remaining))
}
