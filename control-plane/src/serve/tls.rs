//! TLS of HTTP and of the embedded MQTT endpoint: a certificate and a key in files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;
use dunlin_gateway::tls::ServerIdentity;
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

/// A certificate chain and its key in files.
#[derive(Debug)]
struct Files {
    /// The settings that name them.
    settings: [&'static str; 2],
    chain: PathBuf,
    key: PathBuf,
    /// When they were changed, as far as that has been read.
    seen: [Option<SystemTime>; 2],
}

impl Files {
    /// The files that the settings name; `None` when both are empty.
    fn of(
        settings: [&'static str; 2],
        chain: Option<&PathBuf>,
        key: Option<&PathBuf>,
    ) -> Result<Option<Files>, StartError> {
        let [of_chain, of_key] = settings;
        let missing = |setting| StartError::Certificate {
            setting,
            message: format!("{of_chain} and {of_key} belong together; this one is missing"),
        };
        match (chain, key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(missing(of_key)),
            (None, Some(_)) => Err(missing(of_chain)),
            (Some(chain), Some(key)) => {
                let mut files =
                    Files { settings, chain: chain.clone(), key: key.clone(), seen: [None, None] };
                // Before they are read for the first time: a change meanwhile is not missed.
                files.seen = files.changed();
                Ok(Some(files))
            }
        }
    }

    /// The chain cannot be used.
    fn bad_chain(&self, error: &dyn std::fmt::Display) -> StartError {
        wrong(self.settings[0], &self.chain, error)
    }

    /// The key cannot be used.
    fn bad_key(&self, error: &dyn std::fmt::Display) -> StartError {
        wrong(self.settings[1], &self.key, error)
    }

    /// Has them used again when they change, until the process stops. Files that cannot be used leave the old certificate
    /// in place.
    async fn watch(
        mut self,
        stop: CancellationToken,
        mut reload: impl FnMut(&Files) -> Result<(), StartError>,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let changed = self.changed();
            if changed == self.seen {
                continue;
            }
            match reload(&self) {
                Ok(()) => {
                    // Only now: files that are half written are read again.
                    self.seen = changed;
                    tracing::info!(file = %self.chain.display(), "read the changed certificate");
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

fn wrong(setting: &'static str, path: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::Certificate { setting, message: format!("{}: {error}", path.display()) }
}

/// The certificate of HTTP.
pub(super) struct HttpCertificate {
    files: Files,
    config: RustlsConfig,
}

impl HttpCertificate {
    /// The certificate that the settings name; `None` when TLS is off.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, StartError> {
        let settings = ["http.tls_certificate", "http.tls_key"];
        let (chain, key) = (config.http_tls_certificate.as_ref(), config.http_tls_key.as_ref());
        let Some(files) = Files::of(settings, chain, key)? else { return Ok(None) };
        let config = RustlsConfig::from_config(Arc::new(http_config(&files)?));
        Ok(Some(HttpCertificate { files, config }))
    }

    /// What accepts connections; it sees a new certificate as soon as that is read.
    pub(super) fn acceptor(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Reads the files again when they change, until the process stops.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let config = self.config;
        let reload = |files: &Files| {
            config.reload_from_config(Arc::new(http_config(files)?));
            Ok(())
        };
        self.files.watch(stop, reload).await;
    }
}

/// Reads the files and checks that they belong together.
fn http_config(files: &Files) -> Result<ServerConfig, StartError> {
    let certificates = CertificateDer::pem_file_iter(&files.chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| files.bad_chain(&error))?;
    if certificates.is_empty() {
        return Err(files.bad_chain(&"holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| files.bad_key(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| files.bad_chain(&error))?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| files.bad_chain(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificate of the embedded MQTT endpoint.
pub(super) struct MqttCertificate {
    files: Files,
    identity: Arc<ServerIdentity>,
}

impl MqttCertificate {
    /// The certificate that the settings name; `None` when TLS is off.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, StartError> {
        let settings = ["mqtt.tls_certificate", "mqtt.tls_key"];
        let (chain, key) = (config.mqtt_tls_certificate.as_ref(), config.mqtt_tls_key.as_ref());
        let Some(files) = Files::of(settings, chain, key)? else { return Ok(None) };
        let (chain, key) = mqtt_files(&files)?;
        let identity = ServerIdentity::new(&chain, &key).map_err(|error| files.bad_chain(&error))?;
        Ok(Some(MqttCertificate { files, identity }))
    }

    /// What the endpoint shows; connections see a new certificate as soon as that is read.
    pub(super) fn identity(&self) -> Arc<ServerIdentity> {
        Arc::clone(&self.identity)
    }

    /// Reads the files again when they change, until the process stops.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let identity = self.identity;
        let reload = |files: &Files| {
            let (chain, key) = mqtt_files(files)?;
            identity.replace(&chain, &key).map_err(|error| files.bad_chain(&error))
        };
        self.files.watch(stop, reload).await;
    }
}

fn mqtt_files(files: &Files) -> Result<(Vec<u8>, Vec<u8>), StartError> {
    let chain = std::fs::read(&files.chain).map_err(|error| files.bad_chain(&error))?;
    let key = std::fs::read(&files.key).map_err(|error| files.bad_key(&error))?;
    Ok((chain, key))
}
