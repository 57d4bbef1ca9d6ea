//! MQTT 5 by rumqttc.
//!
//! The client's known faults are kept out by never letting it carry state from one connection to the next: every
//! connection has an event loop of its own, which is dropped with it. So its queue of unacknowledged messages, which
//! it throws away or blocks on for ever after a lost session, is never used; the agent's own queue is what is sent
//! again. The session at the broker still persists (the client id is stable and `clean_start` is off), so messages to
//! the device wait there. Only `try_publish` is called, since `publish` blocks while offline; packet sizes are stated,
//! since the default is 10 KiB; and a watchdog ends a connection on which nothing moves, whatever the client thinks.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{self, AsyncClient, ConnectionError, Event, EventLoop, StateError};
use rumqttc::{Outgoing, TlsConfiguration};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::identity::{Identity, IdentityError};

use super::{Busy, DownReason, Signal, Transport};

/// Messages handed over and not yet acknowledged by the broker.
const INFLIGHT: u16 = 16;
/// Largest message in either direction, in bytes.
const MAX_PACKET: u32 = 256 << 10;
/// Signals that wait for the agent.
const SIGNALS: usize = 64;
/// How long the broker keeps the session of a device that is away, in seconds: one week.
const SESSION_EXPIRY: u32 = 7 * 24 * 3600;
/// How long connecting may take, TLS included, in seconds.
const CONNECT_TIMEOUT: u64 = 20;
/// Shortest keep-alive that the client accepts.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Where and as whom to connect.
#[derive(Clone)]
pub struct MqttOptions {
    /// Name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The device's id: client id and user name.
    pub device: String,
    /// The password, for a device without a certificate.
    pub password: Option<String>,
    /// TLS, or plain TCP.
    pub tls: Option<Arc<ClientConfig>>,
    /// Time between signs of life; at least 5 s. A dead connection is noticed within two and a half times this.
    pub keep_alive: Duration,
}

impl std::fmt::Debug for MqttOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("device", &self.device)
            .field("password", &self.password.as_ref().map(|_| "masked"))
            .field("tls", &self.tls.is_some())
            .field("keep_alive", &self.keep_alive)
            .finish()
    }
}

/// A connection made by rumqttc.
pub struct MqttTransport {
    options: MqttOptions,
    connection: Option<Connection>,
}

struct Connection {
    client: AsyncClient,
    signals: mpsc::Receiver<Signal>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MqttTransport {
    /// A transport that is not connected.
    pub fn new(options: MqttOptions) -> Self {
        MqttTransport { options, connection: None }
    }

    fn client(&self) -> (AsyncClient, EventLoop) {
        let own = &self.options;
        let mut options = v5::MqttOptions::new(&own.device, &own.host, own.port);
        options
            .set_keep_alive(own.keep_alive.max(MIN_KEEP_ALIVE))
            .set_clean_start(false)
            .set_session_expiry_interval(Some(SESSION_EXPIRY))
            .set_max_packet_size(Some(MAX_PACKET))
            .set_outgoing_inflight_upper_limit(INFLIGHT)
            .set_connection_timeout(CONNECT_TIMEOUT);
        if let Some(password) = &own.password {
            options.set_credentials(&own.device, password);
        }
        if let Some(tls) = &own.tls {
            let tls = TlsConfiguration::Rustls(Arc::clone(tls));
            options.set_transport(rumqttc::Transport::tls_with_config(tls));
        }
        AsyncClient::new(options, usize::from(INFLIGHT))
    }
}

impl Transport for MqttTransport {
    fn connect(&mut self) {
        let (client, events) = self.client();
        let (sender, signals) = mpsc::channel(SIGNALS);
        let filter = format!("d/{}/down/#", self.options.device);
        let quiet = self.options.keep_alive.max(MIN_KEEP_ALIVE) * 5 / 2;
        let task = tokio::spawn(drive(client.clone(), events, filter, quiet, sender));
        self.connection = Some(Connection { client, signals, task });
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), Busy> {
        let connection = self.connection.as_ref().ok_or(Busy)?;
        let sent = connection.client.try_publish(topic, QoS::AtLeastOnce, false, payload.to_vec());
        sent.map_err(|_| Busy)
    }

    async fn next(&mut self) -> Signal {
        match &mut self.connection {
            Some(connection) => match connection.signals.recv().await {
                Some(signal) => {
                    if matches!(signal, Signal::Down(_)) {
                        self.connection = None;
                    }
                    signal
                }
                None => {
                    self.connection = None;
                    Signal::Down(DownReason::Closed)
                }
            },
            None => std::future::pending().await,
        }
    }

    fn drop_connection(&mut self) {
        self.connection = None;
    }

    fn set_identity(&mut self, identity: &Identity, keep_alive: Duration) -> Result<(), IdentityError> {
        self.options = identity.mqtt_options(keep_alive)?;
        Ok(())
    }

    async fn disconnect(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.client.try_disconnect().is_err() {
            return;
        }
        // The task ends once the packet is out; a broker that does not read is not waited for.
        let drain = async { while connection.signals.recv().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
    }
}

/// Runs one connection to its end.
async fn drive(
    client: AsyncClient,
    mut events: EventLoop,
    filter: String,
    quiet: Duration,
    signals: mpsc::Sender<Signal>,
) {
    let mut limit = Duration::from_secs(CONNECT_TIMEOUT + 5);
    let reason = loop {
        let signal = match tokio::time::timeout(limit, events.poll()).await {
            // Pings make an event in every keep-alive period.
            Err(_) => break DownReason::Silent(limit.as_secs()),
            Ok(Err(error)) => break down_reason(error),
            Ok(Ok(Event::Outgoing(Outgoing::Disconnect))) => break DownReason::Closed,
            Ok(Ok(Event::Outgoing(_))) => continue,
            Ok(Ok(Event::Incoming(packet))) => match packet {
                Packet::ConnAck(_) => {
                    limit = quiet;
                    // Subscribing anew is harmless in a session that is still there, and brings the retained
                    // desired state again.
                    if client.try_subscribe(&filter, QoS::AtLeastOnce).is_err() {
                        break DownReason::Network("no room for the subscription".into());
                    }
                    continue;
                }
                Packet::SubAck(ack) => match ack.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => Signal::Up,
                    other => {
                        break DownReason::Credential(format!("subscription to {filter} refused: {other:?}"));
                    }
                },
                Packet::Publish(publish) => Signal::Message {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: publish.payload,
                },
                Packet::PubAck(ack) => match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Signal::Sent,
                    reason => Signal::Refused(format!("{reason:?}")),
                },
                Packet::Disconnect(disconnect) => {
                    break DownReason::Network(format!(
                        "the server closed the connection: {:?}",
                        disconnect.reason_code
                    ));
                }
                _ => continue,
            },
        };
        if signals.send(signal).await.is_err() {
            return;
        }
    };
    let _ = signals.send(Signal::Down(reason)).await;
}

/// Tells a refused credential from a network that is away.
fn down_reason(error: ConnectionError) -> DownReason {
    match error {
        ConnectionError::ConnectionRefused(
            code @ (ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::ClientIdentifierNotValid
            | ConnectReturnCode::Banned
            | ConnectReturnCode::BadAuthenticationMethod),
        ) => DownReason::Credential(format!("{code:?}")),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            DownReason::Network("the server does not answer pings".into())
        }
        other => {
            let text = chain(&other);
            match refused_certificate(&text) {
                Some(alert) => DownReason::Credential(format!("certificate not accepted: {alert}")),
                None => DownReason::Network(text),
            }
        }
    }
}

/// The alert with which a TLS server refuses a client's certificate. The client hands such an error on as text only,
/// wherever in the handshake or after it (TLS 1.3) the alert comes.
fn refused_certificate(error: &str) -> Option<&str> {
    const ALERTS: [&str; 8] = [
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "CertificateRequired",
        "UnknownCA",
        "AccessDenied",
    ];
    let (_, alert) = error.split_once("received fatal alert: ")?;
    ALERTS.into_iter().find(|known| alert.starts_with(known)).map(|known| &alert[..known.len()])
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
