//! What every part of the control plane shares.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::bus::DeviceBus;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::http::{HttpState, Metrics};
use crate::ids::Ids;
use crate::live::Live;

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
    /// This process' name among others: the holder of its leases.
    pub process: String,
}

impl App {
    /// An application of these parts, without a bus yet.
    pub fn new(config: Config, db: Db, clock: Arc<dyn Clock>, artifacts: Arc<dyn ObjectStore>) -> Self {
        let ids = Ids::new(Arc::clone(&clock));
        App(Arc::new(Parts {
            process: ids.next(),
            http: HttpState::new(&config),
            config,
            db,
            clock,
            ids,
            bus: OnceLock::new(),
            artifacts,
            live: Live::new(),
            metrics: Metrics::new(),
            shutdown: CancellationToken::new(),
            access: Access::default(),
        }))
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
