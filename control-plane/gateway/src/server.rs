//! The gateway itself: listeners, admission, and the way to the devices.

use crate::{
    CloseReason, Config, Handler, Limits, Listener, Message, Metrics,
    connection::Connection,
    link::{Link, Request},
    metrics::Counters,
    rate::PerAddress,
    registry::Registry,
    tls::client_certificate,
};
use rustls::pki_types::UnixTime;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A port cannot be listened on.
    #[error("cannot listen on {address} for MQTT: {source}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration has no listener.
    #[error("no address to listen on for MQTT is configured")]
    NoListener,
}

/// What became of a message to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is queued on the device's connection.
    Queued,
    /// The device is not connected; nothing is kept.
    NotConnected,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Connections there were.
    pub connections: usize,
    /// Connections that still had publishes without a committed token when the time was up. Their devices send those
    /// again.
    pub unfinished: usize,
}

/// What all connections share.
pub(crate) struct Shared<H> {
    pub(crate) limits: Arc<Limits>,
    pub(crate) handler: Arc<H>,
    pub(crate) registry: Registry,
    pub(crate) counters: Counters,
    /// Bytes that may still be in flight.
    pub(crate) in_flight: Arc<Semaphore>,
    capacity: u32,
    addresses: Mutex<PerAddress>,
    /// Every connection, logged in or not, with the number it was accepted as.
    open: Mutex<HashMap<u64, Arc<Link>>>,
    accepted: AtomicU64,
    /// Notified when the last connection is gone.
    idle: Notify,
}

impl<H> Shared<H> {
    /// What a publish with a payload of `length` bytes takes of [`Shared::in_flight`].
    pub(crate) fn share_of(&self, length: usize) -> u32 {
        let bytes = u32::try_from(length + Limits::MESSAGE_OVERHEAD).unwrap_or(u32::MAX);
        bytes.min(self.capacity)
    }
}

/// A running MQTT endpoint. Dropping it stops the listeners; connections end with [`Gateway::shutdown`].
pub struct Gateway<H: Handler> {
    shared: Arc<Shared<H>>,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    accepting: Mutex<JoinSet<()>>,
}

impl<H: Handler> Gateway<H> {
    /// Starts to listen. Must be called in a Tokio runtime.
    pub async fn bind(config: Config, handler: Arc<H>) -> Result<Gateway<H>, BindError> {
        if config.listeners.is_empty() {
            return Err(BindError::NoListener);
        }
        let limits = config.limits;
        let least = limits.packet_bytes as usize + Limits::MESSAGE_OVERHEAD;
        let capacity = limits.in_flight_bytes.clamp(least, u32::MAX as usize);
        let shared = Arc::new(Shared {
            handler,
            registry: Registry::default(),
            counters: Counters::default(),
            in_flight: Arc::new(Semaphore::new(capacity)),
            capacity: capacity as u32,
            addresses: Mutex::new(PerAddress::new(limits.connections_per_second, limits.connection_burst)),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            idle: Notify::new(),
            limits: Arc::new(limits),
        });
        let (stop, stopped) = watch::channel(false);
        let mut bound = Vec::new();
        for Listener { address, tls } in config.listeners {
            let failed = |source| BindError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            bound.push((listener.local_addr().map_err(failed)?, listener, tls.map(TlsAcceptor::from)));
        }
        let mut accepting = JoinSet::new();
        let mut addresses = Vec::new();
        for (address, listener, tls) in bound {
            addresses.push(address);
            accepting.spawn(accept(listener, tls, shared.clone(), stopped.clone()));
        }
        Ok(Gateway { shared, addresses, stop, accepting: Mutex::new(accepting) })
    }

    /// Where it listens, in the order of [`Config::listeners`], with the ports that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Sends a message to a device, if it is connected. It arrives if the device has subscribed to the topic and
    /// keeps up, see [`Message`]; nothing tells that it arrived.
    pub fn send(&self, device: &str, message: Message) -> Sent {
        let limit = self.shared.limits.outbox_messages;
        match self.shared.registry.get(device).and_then(|link| link.send(message, limit)) {
            Some(lost) => {
                Counters::add(&self.shared.counters.dropped, lost);
                Sent::Queued
            }
            None => Sent::NotConnected,
        }
    }

    /// Ends a device's connection, if there is one; what it has in flight is not acknowledged. Logins that are being
    /// checked at the moment, of any device, are refused as *server unavailable*, so that none that was found welcome
    /// before the kick gets in after it.
    pub fn kick(&self, device: &str) {
        self.shared.registry.kick(device);
    }

    /// How many devices are connected.
    pub fn connected(&self) -> usize {
        self.shared.registry.len()
    }

    /// The counters.
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.snapshot(self.connected())
    }

    /// Stops: accepts nothing more, reads nothing more, has the PUBACKs of publishes in flight sent as the handler
    /// commits them, for at most `limit`, then disconnects everybody. The handler must go on working meanwhile.
    pub async fn shutdown(&self, limit: Duration) -> Shutdown {
        self.stop.send_replace(true);
        let mut accepting = std::mem::take(&mut *self.accepting.lock().expect("not poisoned"));
        while accepting.join_next().await.is_some() {}

        let connections = self.request_all(Request::Drain);
        let unfinished = match timeout(limit, self.wait_until_idle()).await {
            Ok(()) => 0,
            Err(_) => {
                let unfinished = self.request_all(Request::Close(CloseReason::ShuttingDown));
                self.wait_until_idle().await;
                unfinished
            }
        };
        Shutdown { connections, unfinished }
    }

    fn request_all(&self, request: Request) -> usize {
        let open = self.shared.open.lock().expect("not poisoned");
        open.values().for_each(|link| link.request(request));
        open.len()
    }

    async fn wait_until_idle(&self) {
        loop {
            let idle = self.shared.idle.notified();
            if self.shared.open.lock().expect("not poisoned").is_empty() {
                return;
            }
            idle.await;
        }
    }
}

async fn accept<H: Handler>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared<H>>,
    mut stopped: watch::Receiver<bool>,
) {
    let watcher = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that the gateway was dropped.
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                Counters::add(&shared.counters.accepted, 1);
                match Admission::of(&shared, address) {
                    Ok(admission) => admit(stream, address, &tls, admission, watcher.clone()),
                    Err(reason) => shared.counters.count_close(reason),
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: that passes when connections end.
                tracing::warn!(%error, "cannot accept an MQTT connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Starts the connection's task. Two kinds of task, so that a plain connection does not carry the size of a TLS one.
fn admit<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    tls: &Option<TlsAcceptor>,
    admission: Admission<H>,
    mut stopped: watch::Receiver<bool>,
) {
    let accepted = Instant::now();
    // PUBACKs are small and should not wait for more to be sent; without the option it is only slower.
    let _ = stream.set_nodelay(true);
    match tls.clone() {
        None => {
            let (link, shared) = (admission.link.clone(), admission.shared.clone());
            let connection = Connection::new(stream, address, None, accepted, link, shared);
            tokio::spawn(async move { admission.end(connection.await) });
        }
        Some(tls) => {
            tokio::spawn(async move {
                let shaken = tokio::select! {
                    shaken = timeout(admission.shared.limits.login_timeout, tls.accept(stream)) => shaken,
                    _ = stopped.wait_for(|stopped| *stopped) => return admission.end(CloseReason::ShuttingDown),
                };
                let stream = match shaken {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        tracing::debug!(%address, %error, "refused: the TLS handshake failed");
                        return admission.end(CloseReason::TlsRefused);
                    }
                    Err(_) => return admission.end(CloseReason::LoginTimeout),
                };
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = match chain.and_then(|chain| chain.first()) {
                    None => None,
                    Some(der) => match client_certificate(der, UnixTime::now()) {
                        Some(certificate) => Some(certificate),
                        // Nobody's: the identity is the common name.
                        None => return admission.end(CloseReason::TlsRefused),
                    },
                };
                let (link, shared) = (admission.link.clone(), admission.shared.clone());
                let connection = Connection::new(stream, address, certificate, accepted, link, shared);
                // On the heap of its own: the handshake's state is larger and gone by then.
                admission.end(Box::pin(connection).await);
            });
        }
    }
}

/// A connection's place among those that are open.
struct Admission<H: Handler> {
    number: u64,
    link: Arc<Link>,
    shared: Arc<Shared<H>>,
    reason: CloseReason,
}

impl<H: Handler> Admission<H> {
    fn of(shared: &Arc<Shared<H>>, address: SocketAddr) -> Result<Admission<H>, CloseReason> {
        if !shared.addresses.lock().expect("not poisoned").admit(address.ip(), Instant::now()) {
            return Err(CloseReason::ConnectionRate);
        }
        let mut open = shared.open.lock().expect("not poisoned");
        if open.len() >= shared.limits.connections {
            return Err(CloseReason::ConnectionLimit);
        }
        let link = Arc::<Link>::default();
        let number = shared.accepted.fetch_add(1, Relaxed);
        open.insert(number, link.clone());
        shared.counters.connections.store(open.len() as u64, Relaxed);
        // Until the task says otherwise: it is dropped with the runtime.
        Ok(Admission { number, link, shared: shared.clone(), reason: CloseReason::ShuttingDown })
    }

    fn end(mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl<H: Handler> Drop for Admission<H> {
    fn drop(&mut self) {
        self.shared.counters.count_close(self.reason);
        let mut open = self.shared.open.lock().expect("not poisoned");
        open.remove(&self.number);
        self.shared.counters.connections.store(open.len() as u64, Relaxed);
        if open.is_empty() {
            self.shared.idle.notify_waiters();
        }
    }
}
