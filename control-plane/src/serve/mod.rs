//! `dunlin serve`: puts the parts together, runs them, and takes them apart without losing anything.

mod artifacts;
mod bus;
mod connections;
mod error;
mod housekeeping;
pub mod logging;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::RustlsAcceptor;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

pub use error::StartError;

use crate::access::{self, TokenSecret};
use crate::app::{App, Endpoints};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::db::{Db, migrations};
use crate::devices;
use crate::limits;
use crate::models;
use crate::trust;
use connections::Connections;

/// What one start does beyond the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Make another administrator's token, for when all are lost.
    pub new_admin_token: bool,
}

/// A running control plane.
pub struct Server {
    app: App,
    http: Handle<SocketAddr>,
    http_address: SocketAddr,
    http_task: tokio::task::JoinHandle<std::io::Result<()>>,
    /// Takes messages until the bus is closed and what it handed out is committed.
    ingest: JoinSet<()>,
    background: JoinSet<()>,
    admin_token: Option<TokenSecret>,
}

impl Server {
    /// Starts everything: when it returns, requests are answered and devices can connect.
    ///
    /// # Errors
    /// What could not be started, and with which setting.
    pub async fn start(config: Config, options: Options) -> Result<Self, StartError> {
        tls::install_crypto();
        let clock = Arc::new(SystemClock);
        private_folder(&config.data_dir)?;
        // The port first: a second process on the same data should fail before it touches them.
        let listener = listen(config.http_listen)?;
        let http_address =
            listener.local_addr().map_err(StartError::listen("http.listen", config.http_listen))?;
        let certificate = tls::HttpCertificate::of(&config)?;
        let artifacts = artifacts::open(&config)?;

        let url = config.database_url.clone().unwrap_or_else(|| sqlite_url(&config.data_dir));
        let db = Db::connect(&url, config.database_connections).await.map_err(StartError::Database)?;
        db.migrate(migrations(), clock.now_us()).await?;
        let app = App::new(config, db, clock, artifacts);
        trust::open(&app).await?;
        devices::open(&app).await?;
        let mut background = JoinSet::new();
        let gate = Arc::new(devices::Gate::new(app.clone()));
        let (bus, mqtt_address) = bus::open(&app, gate, &mut background).await?;
        app.set_bus(bus);
        let mqtt_address = mqtt_address.unwrap_or(app.config.mqtt_listen);
        app.set_endpoints(Endpoints::new(&app.config, http_address, mqtt_address));
        let mut ingest = JoinSet::new();
        ingest.spawn(crate::telemetry::run(app.clone()));
        background.spawn(housekeeping::run(app.clone()));
        background.spawn(devices::run(app.clone()));
        background.spawn(models::run(app.clone()));
        let http = Handle::new();
        let http_task = spawn_http(&app, listener, http.clone(), certificate, &mut background)?;
        // Last, since a token of a start that fails would be lost.
        let admin_token = access::administrator_token(&app, options.new_admin_token)
            .await
            .map_err(StartError::administrator_token)?;
        Ok(Server { app, http, http_address, http_task, ingest, background, admin_token })
    }

    /// The application.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// An administrator's token, when this was the database's first start or another one was asked for. It can be had
    /// here only.
    pub fn admin_token(&self) -> Option<&TokenSecret> {
        self.admin_token.as_ref()
    }

    /// Stops: takes nothing new, finishes what is under way (at most [`limits::DRAIN`] for each part), closes the
    /// database.
    pub async fn stop(mut self) {
        tracing::info!("stopping");
        // Ends live streams and background work, and makes load balancers look elsewhere.
        self.app.shutdown.cancel();
        self.http.graceful_shutdown(Some(limits::DRAIN));
        let bus = self.app.bus().cloned();
        let messages = async {
            if let Some(bus) = bus {
                // The ingest goes on meanwhile, and devices get the acknowledgements of what it commits.
                bus.shutdown(limits::DRAIN).await;
            }
            let committed = async { while self.ingest.join_next().await.is_some() {} };
            if tokio::time::timeout(limits::DRAIN, committed).await.is_err() {
                tracing::warn!(
                    "the ingest did not end in time; devices send again what was not acknowledged"
                );
            }
        };
        let requests = async {
            match (&mut self.http_task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "HTTP ended with an error"),
                Err(error) => tracing::error!(%error, "HTTP ended with an error"),
            }
        };
        tokio::join!(messages, requests);
        let finished = async { while self.background.join_next().await.is_some() {} };
        if tokio::time::timeout(limits::DRAIN, finished).await.is_err() {
            tracing::warn!("background work did not end in time; what was not committed will be done again");
        }
        self.app.db.close().await;
        tracing::info!("stopped");
    }
}

/// Runs until `SIGTERM` or `SIGINT`, then stops in good order. A second signal ends the process at once.
///
/// # Errors
/// What could not be started.
pub async fn run(config: Config, options: Options, started: impl FnOnce(&Server)) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let server = Server::start(config, options).await?;
    started(&server);
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("second signal: not waiting any longer");
        // As a shell reports a process that an interrupt ended.
        std::process::exit(130);
    });
    server.stop().await;
    Ok(())
}

/// The signals that ask the process to stop.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self, StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        Ok(Signals { terminate, interrupt })
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, StartError> {
        Ok(Signals {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        // Without a way to hear of it, the process ends when it is ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The database of an installation without a database server.
fn sqlite_url(data_dir: &Path) -> String {
    let path = data_dir.join("dunlin.sqlite");
    // The path goes through a URL: what means something there is written as its code.
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite:{escaped}?mode=rwc")
}

/// Makes the data folder, which nobody else may read: it holds the authority's key.
fn private_folder(path: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Folder { path: path.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed)
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As the standard library does: a port can be used again at once after a process has ended.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(limits::HTTP_BACKLOG)?.into_std()
    };
    listen().map_err(StartError::listen("http.listen", address))
}

/// Serves HTTP or HTTPS until the handle says to stop.
fn spawn_http(
    app: &App,
    listener: std::net::TcpListener,
    handle: Handle<SocketAddr>,
    certificate: Option<tls::HttpCertificate>,
    background: &mut JoinSet<()>,
) -> Result<tokio::task::JoinHandle<std::io::Result<()>>, StartError> {
    let service = crate::http::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let address = app.config.http_listen;
    let mut server =
        axum_server::from_tcp(listener).map_err(StartError::listen("http.listen", address))?.handle(handle);
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIMEOUT)
        .max_buf_size(limits::HTTP_BUFFER_BYTES);
    let connections = Connections::new(limits::HTTP_CONNECTIONS);
    Ok(match certificate {
        Some(certificate) => {
            let acceptor =
                RustlsAcceptor::new(certificate.acceptor()).handshake_timeout(Duration::from_secs(10));
            background.spawn(certificate.watch(app.shutdown.clone()));
            let acceptor = connections.around(acceptor.acceptor(NoDelayAcceptor::new()));
            tokio::spawn(server.acceptor(acceptor).http1_only().serve(service))
        }
        None => {
            let acceptor = connections.around(NoDelayAcceptor::new());
            tokio::spawn(server.acceptor(acceptor).http1_only().serve(service))
        }
    })
}
