//! Every setting, declared once: its type, key, default and meaning. The configuration file's keys, the environment
//! variables, the flags of `dunlin serve`, `--print-config` and the help texts all come from this table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{ByteSize, ClientCertificates, LogFormat, Value};
use super::{ConfigError, Setting};

/// Defines [`Config`] and [`SETTINGS`]: a line is `field: Type = "key", "default", masking;`.
macro_rules! settings {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty = $key:literal, $default:literal, $mask:ident;)*) => {
        /// The settings of `dunlin serve`, with their types.
        #[derive(Clone, Debug)]
        pub struct Config { $($(#[doc = $doc])* pub $field: $type,)* }

        /// The table of settings.
        pub const SETTINGS: &[Setting] = &[
            $(Setting {
                key: $key,
                kind: <$type as Value>::KIND,
                default: $default,
                doc: concat!($($doc,)*),
                mask: super::Mask::$mask,
            },)*
        ];

        impl Config {
            /// Reads every setting from the text that `text` gives for its key.
            pub(super) fn read<'a>(
                text: impl Fn(&'static str) -> &'a str,
                wrong: impl Fn(&'static str, String) -> ConfigError,
            ) -> Result<Self, ConfigError> {
                Ok(Config {
                    $($field: <$type as Value>::parse(text($key)).map_err(|expected| wrong($key, expected))?,)*
                })
            }
        }
    };
}

settings! {
    /// Folder for the database, the artifacts and the keys of an installation without servers of its own.
    data_dir: PathBuf = "data_dir", "dunlin-data", No;
    /// Database: postgres://USER:PASSWORD@HOST/NAME or sqlite:PATH. Empty: dunlin.sqlite in the data folder.
    database_url: Option<String> = "database_url", "", Url;
    /// Connections to PostgreSQL, at most.
    database_connections: u32 = "database_connections", "16", No;
    /// Address of the HTTP API and the status page.
    http_listen: SocketAddr = "http.listen", "127.0.0.1:8080", No;
    /// URL under which devices and people reach the HTTP API, if a proxy stands in between. Empty: from http.listen.
    http_public_url: Option<String> = "http.public_url", "", No;
    /// Certificate chain (PEM) of the HTTP API; with http.tls_key it turns TLS on. Read again when it changes.
    http_tls_certificate: Option<PathBuf> = "http.tls_certificate", "", No;
    /// Private key (PEM) of the HTTP API.
    http_tls_key: Option<PathBuf> = "http.tls_key", "", No;
    /// Header that holds the client's address when a proxy stands in between, as in X-Forwarded-For; its last address
    /// counts. Only for servers that nobody reaches without the proxy.
    http_client_address_header: Option<String> = "http.client_address_header", "", No;
    /// Requests per second of one token, on average.
    http_token_rate: u32 = "http.token_rate", "200", No;
    /// Requests of one token that may come at once.
    http_token_burst: u32 = "http.token_burst", "400", No;
    /// Requests per second without a valid token from one address, on average.
    http_address_rate: u32 = "http.address_rate", "20", No;
    /// Requests without a valid token from one address that may come at once.
    http_address_burst: u32 = "http.address_burst", "100", No;
    /// Largest model artifact that is accepted.
    http_artifact_size: ByteSize = "http.artifact_size", "64MiB", No;
    /// Address of the embedded MQTT endpoint for devices. Not used with broker.url.
    mqtt_listen: SocketAddr = "mqtt.listen", "127.0.0.1:1883", No;
    /// Host and port under which devices reach MQTT. Empty: from mqtt.listen or broker.url.
    mqtt_public_address: Option<String> = "mqtt.public_address", "", No;
    /// Certificate chain (PEM) of the embedded MQTT endpoint; with mqtt.tls_key it turns TLS on. Read again when it
    /// changes; devices that check it by itself, without devices.server_ca, do not know its successor.
    mqtt_tls_certificate: Option<PathBuf> = "mqtt.tls_certificate", "", No;
    /// Private key (PEM) of the embedded MQTT endpoint.
    mqtt_tls_key: Option<PathBuf> = "mqtt.tls_key", "", No;
    /// Whether devices show certificates of the control plane's authority; needs TLS unless off.
    mqtt_client_certificates: ClientCertificates = "mqtt.client_certificates", "off", No;
    /// Devices connected at once to the embedded endpoint of one process.
    mqtt_connections: u32 = "mqtt.connections", "20000", No;
    /// Messages per second of one device, on average; a faster device is slowed down, nothing is dropped.
    mqtt_device_rate: u32 = "mqtt.device_rate", "50", No;
    /// External broker: mqtt://USER:PASSWORD@HOST:PORT or mqtts://…. Empty: the embedded endpoint.
    broker_url: Option<String> = "broker.url", "", Url;
    /// Certificates (PEM) that the external broker's certificate is checked with. Empty: the well-known authorities.
    broker_ca: Option<PathBuf> = "broker.ca", "", No;
    /// Client certificate chain (PEM) shown to the external broker.
    broker_client_certificate: Option<PathBuf> = "broker.client_certificate", "", No;
    /// Private key (PEM) of broker.client_certificate.
    broker_client_key: Option<PathBuf> = "broker.client_key", "", No;
    /// Name of the shared subscription; processes with the same name split the messages.
    broker_group: String = "broker.group", "dunlin", No;
    /// Secret with which an external broker asks /internal/mqtt who may connect. Empty: the hooks are off.
    broker_hook_secret: Option<String> = "broker.hook_secret", "", Whole;
    /// Certificate (PEM) of the authority that signs devices' certificates; with devices.ca_key. Empty: both are made in
    /// the data folder.
    devices_ca_certificate: Option<PathBuf> = "devices.ca_certificate", "", No;
    /// Private key (PEM) of devices.ca_certificate.
    devices_ca_key: Option<PathBuf> = "devices.ca_key", "", No;
    /// How long a device's certificate is valid; devices renew it after two thirds of that time.
    devices_certificate_life: Duration = "devices.certificate_life", "30d", No;
    /// How long after its end a certificate still proves who a device is that asks for the next one: devices that were
    /// off for longer are enrolled again. 0s: not at all.
    devices_certificate_grace: Duration = "devices.certificate_grace", "90d", No;
    /// Certificates (PEM) with which devices check the embedded MQTT endpoint's. Empty: mqtt.tls_certificate.
    devices_server_ca: Option<PathBuf> = "devices.server_ca", "", No;
    /// Private key (Ed25519, PKCS #8, PEM) with which this server signs what devices shall run; the same one for every
    /// process on a database. Empty: director.key in the data folder, made at the first start.
    trust_director_key: Option<PathBuf> = "trust.director_key", "", No;
    /// How long what a device shall run is valid after it was signed: a device that does not hear of anything newer
    /// installs nothing after that. 0s: for ever.
    trust_assignment_validity: Duration = "trust.assignment_validity", "30d", No;
    /// Where artifacts are kept: s3://BUCKET/PREFIX or file:PATH. Empty: artifacts in the data folder.
    artifacts_url: Option<String> = "artifacts.url", "", Url;
    /// Endpoint of an S3-compatible service that is not Amazon's.
    artifacts_endpoint: Option<String> = "artifacts.endpoint", "", Url;
    /// Region of the S3 bucket.
    artifacts_region: String = "artifacts.region", "us-east-1", No;
    /// Access key of the S3 bucket. Empty: the machine's own role.
    artifacts_access_key: Option<String> = "artifacts.access_key", "", No;
    /// Secret of artifacts.access_key.
    artifacts_secret_key: Option<String> = "artifacts.secret_key", "", Whole;
    /// Reports in one transaction, at most.
    telemetry_batch: u32 = "telemetry.batch", "2000", No;
    /// How long statistics by the minute are kept.
    telemetry_keep_minutes: Duration = "telemetry.keep_minutes", "3d", No;
    /// How long statistics by the hour are kept.
    telemetry_keep_hours: Duration = "telemetry.keep_hours", "90d", No;
    /// How long statistics by the day are kept.
    telemetry_keep_days: Duration = "telemetry.keep_days", "1825d", No;
    /// How long events, labels and malformed reports are kept.
    telemetry_keep_events: Duration = "telemetry.keep_events", "30d", No;
    /// Malformed reports that are kept as samples, over all devices.
    telemetry_dead_letters: u32 = "telemetry.dead_letters", "10000", No;
    /// What is logged: error, warn, info, debug, trace, also by module as in info,sqlx=warn.
    log_level: String = "log.level", "info", No;
    /// How log lines look.
    log_format: LogFormat = "log.format", "text", No;
}
