//! What every part of the control plane shares.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::bus::DeviceBus;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::devices::Devices;
use crate::http::{HttpState, Metrics};
use crate::ids::Ids;
use crate::live::Live;
use crate::models::Models;
use crate::telemetry::Telemetry;
use crate::trust::Trust;

/// The application: a shared pointer to its [`Parts`], and the state of every HTTP handler.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What the application consists of.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// The database.
    pub db: Db,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes identifiers.
    pub ids: Ids,
    /// The way to the devices; set once, after the parts that authenticate devices exist.
    pub bus: OnceLock<Arc<dyn DeviceBus>>,
    /// How devices and people reach the control plane; see [`App::endpoints`].
    endpoints: OnceLock<Endpoints>,
    /// Where model artifacts are kept.
    pub artifacts: Arc<dyn ObjectStore>,
    /// What happens now.
    pub live: Live,
    /// Numbers for Prometheus.
    pub metrics: Metrics,
    /// Cancelled when the process is to stop; background work ends then.
    pub shutdown: CancellationToken,
    /// Rates and load of the HTTP layer.
    pub http: HttpState,
    /// Tokens of late.
    pub access: Access,
    /// Devices in memory.
    pub devices: Devices,
    /// Models in memory.
    pub models: Models,
    /// The director's key.
    pub trust: Trust,
    /// What is kept of telemetry for the API.
    pub telemetry: Telemetry,
    /// When the process started.
    pub started_us: i64,
    /// This process' name among others: the holder of its leases.
    pub process: String,
}

impl App {
    /// An application of these parts, without a bus yet.
    pub fn new(config: Config, db: Db, clock: Arc<dyn Clock>, artifacts: Arc<dyn ObjectStore>) -> Self {
        let (ids, metrics) = (Ids::new(Arc::clone(&clock)), Metrics::new());
        App(Arc::new(Parts {
            started_us: clock.now_us(),
            process: ids.next(),
            http: HttpState::new(&config),
            config,
            db,
            clock,
            ids,
            bus: OnceLock::new(),
            endpoints: OnceLock::new(),
            artifacts,
            live: Live::new(),
            models: Models::new(&metrics),
            metrics,
            shutdown: CancellationToken::new(),
            access: Access::default(),
            devices: Devices::new(),
            trust: Trust::default(),
            telemetry: Telemetry::default(),
        }))
    }

    /// How devices and people reach the control plane.
    pub fn endpoints(&self) -> Endpoints {
        let from_settings = || Endpoints::new(&self.config, self.config.http_listen, self.config.mqtt_listen);
        self.endpoints.get().cloned().unwrap_or_else(from_settings)
    }

    /// Says how the control plane is reached, once it listens. A second call changes nothing.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        // The first stays: devices may have been told.
        let _ = self.endpoints.set(endpoints);
    }

    /// Connects the way to the devices. A second call changes nothing.
    pub fn set_bus(&self, bus: Arc<dyn DeviceBus>) {
        // The first bus stays: handlers may have it already.
        let _ = self.bus.set(bus);
    }

    /// The way to the devices; `None` until it is connected.
    pub fn bus(&self) -> Option<&Arc<dyn DeviceBus>> {
        self.bus.get()
    }
}

/// How devices and people reach the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The HTTP API, without a slash at the end: `http://127.0.0.1:8080`.
    pub http_url: String,
    /// MQTT for devices: the host.
    pub mqtt_host: String,
    /// Its port.
    pub mqtt_port: u16,
    /// Whether it speaks TLS.
    pub mqtt_tls: bool,
}

impl Endpoints {
    /// What the settings say, and what follows from the addresses that are listened on (which differ from the settings
    /// when those leave the choice of a port to the system).
    pub fn new(config: &Config, http: SocketAddr, mqtt: SocketAddr) -> Self {
        let http_url = config.http_public_url.clone().unwrap_or_else(|| {
            let scheme = if config.http_tls_certificate.is_some() { "https" } else { "http" };
            format!("{scheme}://{}:{}", reachable(http.ip()), http.port())
        });
        let broker = config.broker_url.as_deref().and_then(|url| url::Url::parse(url).ok());
        let (host, port, tls) = match broker {
            Some(url) => {
                let tls = matches!(url.scheme(), "mqtts" | "ssl");
                let host = url.host_str().unwrap_or("localhost").to_owned();
                (host, url.port().unwrap_or(if tls { 8883 } else { 1883 }), tls)
            }
            None => (reachable(mqtt.ip()), mqtt.port(), config.mqtt_tls_certificate.is_some()),
        };
        let public = config.mqtt_public_address.as_deref().and_then(|address| {
            let (host, port) = address.rsplit_once(':')?;
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        });
        let (mqtt_host, mqtt_port) = public.unwrap_or((host, port));
        Endpoints { http_url: http_url.trim_end_matches('/').to_owned(), mqtt_host, mqtt_port, mqtt_tls: tls }
    }
}

/// The address as others write it; one that stands for all of the machine's becomes `localhost`.
fn reachable(address: IpAddr) -> String {
    match address {
        address if address.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("process", &self.process).finish_non_exhaustive()
    }
}
