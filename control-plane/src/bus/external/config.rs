//! Settings of the connection to a broker.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{fmt, fs, io, path::Path, sync::Arc};

/// How to reach and use a broker.
#[derive(Clone)]
pub struct ExternalConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, or plain TCP.
    pub tls: Option<BrokerTls>,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// This process' client id: the same at every start, and no other process'. See [`ExternalConfig::client_id_in`].
    pub client_id: String,
    /// Name of the shared subscription.
    pub group: String,
    /// Unacknowledged messages that the broker may have out to this process (1 to 65,535).
    pub receive_maximum: u16,
    /// Longest packet that is accepted, in bytes; a broker does not deliver longer ones.
    pub packet_bytes: u32,
}

/// A client's TLS configuration.
#[derive(Clone)]
pub struct BrokerTls(pub(super) Arc<ClientConfig>);

impl fmt::Debug for ExternalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls.is_some())
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("client_id", &self.client_id)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// Settings of the broker that cannot be used. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL is not one of a broker.
    #[error("broker.url: {0}; expected mqtt://USER:PASSWORD@HOST:PORT or mqtts://…")]
    Url(String),
    /// A file cannot be used.
    #[error("{setting}: {message}")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The client id cannot be read or written.
    #[error("data_dir: the MQTT client id cannot be kept in {path}: {source}")]
    ClientId {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

impl ExternalConfig {
    /// Reads `mqtt://USER:PASSWORD@HOST:PORT` (port 1883 unless given) or `mqtts://…` (8883). `tls` is asked for with
    /// `mqtts` only.
    ///
    /// # Errors
    /// When the URL is not of that form, or what `tls` says.
    pub fn from_url(
        url: &str,
        client_id: String,
        group: &str,
        tls: impl FnOnce() -> Result<BrokerTls, BrokerError>,
    ) -> Result<ExternalConfig, BrokerError> {
        let wrong = |message: &str| BrokerError::Url(message.to_owned());
        let url = url::Url::parse(url).map_err(|error| BrokerError::Url(error.to_string()))?;
        let (tls, port) = match url.scheme() {
            "mqtt" | "tcp" => (None, 1883),
            "mqtts" | "ssl" => (Some(tls()?), 8883),
            _ => return Err(wrong("unknown scheme")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("something stands behind the port"));
        }
        let decoded = |text: &str| percent_decoded(text).ok_or_else(|| wrong("a %-escape is not valid"));
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decoded(user)?, decoded(password.unwrap_or(""))?)),
        };
        Ok(ExternalConfig {
            // As a client writes an IPv6 address in front of a port.
            host: host.to_owned(),
            port: url.port().unwrap_or(port),
            tls,
            credentials,
            client_id,
            group: group.to_owned(),
            receive_maximum: 4_096,
            packet_bytes: 64 * 1024,
        })
    }

    /// The client id of the process with this data folder: made at the first start and kept there.
    ///
    /// # Errors
    /// When the file can neither be read nor written.
    pub fn client_id_in(data_dir: &Path) -> Result<String, BrokerError> {
        let path = data_dir.join("mqtt-client-id");
        let failed = |source| BrokerError::ClientId { path: path.display().to_string(), source };
        match fs::read_to_string(&path) {
            Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
            Ok(_) => {
                fs::remove_file(&path).map_err(failed)?;
                ExternalConfig::client_id_in(data_dir)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = format!("dunlin-{}", uuid::Uuid::now_v7());
                fs::write(&path, &id).map_err(failed)?;
                Ok(id)
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn filter(&self) -> String {
        format!("$share/{}/d/+/up/#", self.group)
    }

    /// Messages that wait inside this process: all that a broker may have out, twice because what is queued when a
    /// connection is lost is delivered again, and some of QoS 0.
    pub(super) fn queue(&self) -> usize {
        2 * usize::from(self.receive_maximum) + 1_024
    }
}

impl BrokerTls {
    /// Verifies the broker by the certificates (PEM) in the file `ca`, or by those that the system trusts, and shows
    /// the client certificate, if one is given.
    ///
    /// # Errors
    /// When a file cannot be used; the error names its setting.
    pub fn new(ca: Option<&Path>, client: Option<(&Path, &Path)>) -> Result<BrokerTls, BrokerError> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                for certificate in certificates(path, "broker.ca")? {
                    roots.add(certificate).map_err(|error| file("broker.ca", path, &error))?;
                }
            }
            None => {
                // One that cannot be read is a defect of the system that others make up for.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            let message =
                "no certificate to verify the broker with: the system trusts none; name a file".to_owned();
            return Err(BrokerError::File { setting: "broker.ca", message });
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let unusable =
            |error: rustls::Error| BrokerError::File { setting: "broker.ca", message: error.to_string() };
        let builder = builder.map_err(unusable)?.with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let certificates = certificates(chain, "broker.client_certificate")?;
                let private = PrivateKeyDer::from_pem_file(key);
                let private = private.map_err(|error| file("broker.client_key", key, &error))?;
                let config = builder.with_client_auth_cert(certificates, private);
                config.map_err(|error| file("broker.client_certificate", chain, &error))?
            }
        };
        Ok(BrokerTls(Arc::new(config)))
    }
}

fn certificates(path: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(|error| file(setting, path, &error))? {
        certificates if certificates.is_empty() => Err(file(setting, path, &"holds no certificate")),
        certificates => Ok(certificates),
    }
}

fn file(setting: &'static str, path: &Path, error: &dyn fmt::Display) -> BrokerError {
    BrokerError::File { setting, message: format!("{}: {error}", path.display()) }
}

/// Undoes the %-escapes of a URL; `None` if the result is no text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<ExternalConfig, BrokerError> {
        ExternalConfig::from_url(url, "id".into(), "dunlin", || {
            Err(BrokerError::File { setting: "broker.ca", message: "asked for".into() })
        })
    }

    #[test]
    fn urls_name_a_broker() {
        let config = read("mqtt://broker.example").unwrap();
        assert_eq!((&*config.host, config.port, &config.credentials), ("broker.example", 1883, &None));
        let config = read("mqtt://me:p%40ss%2Fword@10.0.0.1:1884/").unwrap();
        assert_eq!((&*config.host, config.port), ("10.0.0.1", 1884));
        assert_eq!(config.credentials, Some(("me".into(), "p@ss/word".into())));
        assert_eq!(config.filter(), "$share/dunlin/d/+/up/#");
        assert!(!format!("{config:?}").contains("p@ss"), "secrets are not printed");
        assert!(read("mqtts://broker").unwrap_err().to_string().contains("asked for"));
        for wrong in [
            "",
            "broker",
            "http://broker",
            "mqtt://",
            "mqtt://broker/topic",
            "mqtt://broker?x",
            "mqtt://%ff@b",
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.starts_with("broker.url: "), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_client_id_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = ExternalConfig::client_id_in(folder.path()).unwrap();
        assert_eq!(ExternalConfig::client_id_in(folder.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(ExternalConfig::client_id_in(other.path()).unwrap(), first);
        assert!(ExternalConfig::client_id_in(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let failed = |ca: Option<&Path>| BrokerTls::new(ca, None).err().unwrap().to_string();
        assert!(failed(Some(&path)).starts_with("broker.ca: "));
        fs::write(&path, "nonsense").unwrap();
        assert!(failed(Some(&path)).ends_with("holds no certificate"));
    }
}
