//! TLS as a client: whom the device trusts, and how it proves who it is.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text is damaged.
    #[error("the {what} is no valid PEM text: {error}; enrol the device again")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        error: String,
    },
    /// No certificate to trust anyone by.
    #[error("there is no CA certificate to trust: neither from the server nor on this system")]
    NoRoots,
    /// The parts do not fit together.
    #[error("TLS cannot be configured: {0}")]
    Config(#[from] rustls::Error),
}

/// A client configuration with the ring provider, so that no C library is needed.
///
/// Trusts `ca` (PEM) if given, the system's roots otherwise. `identity` is a certificate chain and its private key,
/// both PEM.
///
/// # Errors
/// [`TlsError`] names the part that does not fit.
pub fn client_config(
    ca: Option<&str>,
    identity: Option<(&str, &str)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in certificates("CA certificate", pem)? {
                roots.add(certificate)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match identity {
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|error| TlsError::Pem { what: "device key", error: error.to_string() })?;
            builder.with_client_auth_cert(certificates("device certificate", chain)?, key)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// A configuration that trusts nobody: for plain HTTP by a client that insists on one.
pub(crate) fn no_trust() -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error: String| TlsError::Pem { what, error };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(found) if found.is_empty() => Err(wrong("no certificate in it".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(error.to_string())),
    }
}
