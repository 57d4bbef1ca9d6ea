//! TLS for HTTP: a certificate and a key in files, read again when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::config::Config;

/// How often the files' times are looked at.
const LOOK: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// Has every TLS connection of the process use ring: libraries that are built without a provider ask for the process'
/// default. A second call changes nothing.
pub(super) fn install_crypto() {
    // Who installed one before has decided.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The server's certificate and its files.
pub(super) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    config: RustlsConfig,
}

impl Certificate {
    /// The certificate that the settings name; `None` when TLS is off.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, StartError> {
        let missing = |setting| StartError::Certificate {
            setting,
            message: "http.tls_certificate and http.tls_key belong together; this one is missing".to_owned(),
        };
        let (chain, key) = match (&config.http_tls_certificate, &config.http_tls_key) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(missing("http.tls_key")),
            (None, Some(_)) => return Err(missing("http.tls_certificate")),
            (Some(chain), Some(key)) => (chain.clone(), key.clone()),
        };
        let config = RustlsConfig::from_config(Arc::new(read(&chain, &key)?));
        Ok(Some(Certificate { chain, key, config }))
    }

    /// What accepts connections; it sees a new certificate as soon as that is read.
    pub(super) fn acceptor(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Reads the files again when they change, until the process stops. Files that cannot be used leave the old
    /// certificate in place.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let mut seen = self.changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let changed = self.changed();
            if changed == seen {
                continue;
            }
            match read(&self.chain, &self.key) {
                Ok(config) => {
                    self.config.reload_from_config(Arc::new(config));
                    // Only now: files that are half written are read again.
                    seen = changed;
                    tracing::info!("read the certificate of HTTP again");
                }
                Err(error) => {
                    tracing::warn!(%error, "the changed certificate cannot be used; the old one stays")
                }
            }
        }
    }

    /// When the files were last changed.
    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.chain, &self.key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
    }
}

/// Reads the files and checks that they belong together.
fn read(chain: &PathBuf, key: &PathBuf) -> Result<ServerConfig, StartError> {
    let wrong = |setting: &'static str, path: &PathBuf, error: &dyn std::fmt::Display| {
        StartError::Certificate { setting, message: format!("{}: {error}", path.display()) }
    };
    let of_chain = |error: &dyn std::fmt::Display| wrong("http.tls_certificate", chain, error);
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of_chain(&error))?;
    if certificates.is_empty() {
        return Err(of_chain(&"holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("http.tls_key", key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| of_chain(&error))?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| of_chain(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
