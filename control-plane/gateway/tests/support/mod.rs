//! What the tests share: a handler that the test steers, a client that speaks bytes, certificates.

#![allow(dead_code, reason = "each test file uses a part")]

use bytes::Bytes;
use dunlin_gateway::{
    CloseReason, Config, Gateway, Handler, Limits, Listener, Login, Message, Metrics, Publish, Refusal,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

/// Longest wait for something that should happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A handler that lets everybody in whose password is `secret` (or who has a certificate that is not revoked), keeps the messages for
/// the test to take, and remembers what it was told.
pub(crate) struct Steered {
    publishes: mpsc::UnboundedSender<Publish>,
    pub(crate) presence: Mutex<Vec<(String, Result<(), CloseReason>)>>,
    pub(crate) retained: Mutex<Vec<Message>>,
    /// Serial numbers of certificates that are no longer good.
    pub(crate) revoked: Mutex<Vec<Vec<u8>>>,
    /// How long a login takes.
    pub(crate) login_takes: Mutex<Duration>,
}

impl Handler for Steered {
    async fn authenticate(&self, login: Login) -> Result<Arc<str>, Refusal> {
        let takes = *self.login_takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        if let Some(certificate) = login.certificate {
            return match self.revoked.lock().unwrap().contains(&certificate.serial) {
                true => Err(Refusal::BadCredential),
                false => Ok(Arc::from(certificate.common_name)),
            };
        }
        match (login.username, login.password.as_deref()) {
            (Some(name), Some(b"secret")) => Ok(Arc::from(name)),
            (Some(_), Some(b"banned")) => Err(Refusal::Banned),
            (Some(_), Some(b"database away")) => Err(Refusal::Unavailable),
            _ => Err(Refusal::BadCredential),
        }
    }

    fn publish(&self, message: Publish) {
        // A test that is over takes no messages.
        let _ = self.publishes.send(message);
    }

    async fn retained(&self, device: &Arc<str>) -> Vec<Message> {
        let own = format!("d/{device}/");
        self.retained
            .lock()
            .unwrap()
            .iter()
            .filter(|message| message.topic.starts_with(&own))
            .cloned()
            .collect()
    }

    fn connected(&self, device: &Arc<str>) {
        self.presence.lock().unwrap().push((device.to_string(), Ok(())));
    }

    fn disconnected(&self, device: &Arc<str>, reason: CloseReason) {
        self.presence.lock().unwrap().push((device.to_string(), Err(reason)));
    }
}

pub(crate) struct Server {
    pub(crate) gateway: Gateway<Steered>,
    pub(crate) handler: Arc<Steered>,
    pub(crate) publishes: mpsc::UnboundedReceiver<Publish>,
}

impl Server {
    pub(crate) async fn start(limits: Limits) -> Server {
        Server::start_with(limits, None).await
    }

    pub(crate) async fn start_with(limits: Limits, tls: Option<Arc<rustls::ServerConfig>>) -> Server {
        let (sender, publishes) = mpsc::unbounded_channel();
        let handler = Arc::new(Steered {
            publishes: sender,
            presence: Mutex::default(),
            retained: Mutex::default(),
            revoked: Mutex::default(),
            login_takes: Mutex::default(),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config { listeners: vec![Listener { address, tls }], limits };
        let gateway = Gateway::bind(config, handler.clone()).await.unwrap();
        Server { gateway, handler, publishes }
    }

    pub(crate) fn port(&self) -> u16 {
        self.gateway.addresses()[0].port()
    }

    /// The next message.
    pub(crate) async fn publish(&mut self) -> Publish {
        let next = tokio::time::timeout(SOON, self.publishes.recv()).await;
        next.expect("a publish arrives").expect("the gateway lives")
    }

    pub(crate) fn no_publish(&mut self) {
        let arrived = self.publishes.try_recv();
        assert!(arrived.is_err(), "{arrived:?}");
    }

    /// Waits until the metrics say so.
    pub(crate) async fn until(&self, what: impl Fn(&Metrics) -> bool) {
        let from = Instant::now();
        while !what(&self.gateway.metrics()) {
            assert!(from.elapsed() < SOON, "{:?}", self.gateway.metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_closed(&self, reason: CloseReason) {
        self.until(|metrics| metrics.closed(reason) > 0).await;
    }
}

/// A client of raw bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn open(server: &Server) -> Raw {
        Raw(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap())
    }

    /// Connects and logs in.
    pub(crate) async fn login(server: &Server, version: u8, device: &str) -> Raw {
        let mut raw = Raw::open(server).await;
        raw.send(&connect(version, device, device, "secret", 60)).await;
        let (first, body) = raw.packet().await;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK of {device}: {body:?}");
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next packet: its first byte and what follows its length.
    pub(crate) async fn packet(&mut self) -> (u8, Vec<u8>) {
        self.try_packet().await.expect("a packet, not the end of the connection")
    }

    /// The next packet, or `None` at the end of the connection.
    pub(crate) async fn try_packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let first = self.0.read_u8().await.ok()?;
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.0.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            Some((first, body))
        };
        tokio::time::timeout(SOON, read).await.expect("a packet or the end")
    }

    /// Nothing comes for a moment.
    pub(crate) async fn silent(&mut self) {
        let waited = tokio::time::timeout(Duration::from_millis(150), self.0.read_u8()).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    /// The server closes without another word.
    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.try_packet().await, None);
    }
}

/// A CONNECT with a clean start. Version 4 is MQTT 3.1.1.
pub(crate) fn connect(version: u8, client_id: &str, user: &str, password: &str, keep_alive: u16) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version, 0b1100_0010];
    body.extend(keep_alive.to_be_bytes());
    if version == 5 {
        body.push(0);
    }
    for field in [client_id, user, password] {
        text(&mut body, field);
    }
    packet(0x10, &body)
}

pub(crate) fn publish(version: u8, topic: &str, qos: u8, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend(packet_id.to_be_bytes());
    }
    if version == 5 {
        body.push(0);
    }
    body.extend(payload);
    packet(0x30 | qos << 1, &body)
}

pub(crate) fn subscribe(version: u8, packet_id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

pub(crate) fn puback(packet_id: u16) -> (u8, Vec<u8>) {
    (0x40, packet_id.to_be_bytes().to_vec())
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text.as_bytes());
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let more = left > 127;
        bytes.push((left % 128) as u8 | u8::from(more) << 7);
        left /= 128;
        if !more {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

pub(crate) fn desired(device: &str, body: &str) -> Message {
    Message {
        topic: format!("d/{device}/down/desired").into(),
        payload: Bytes::copy_from_slice(body.as_bytes()),
        at_least_once: true,
        retained: true,
    }
}

pub(crate) fn ack(device: &str, body: &str) -> Message {
    let topic = format!("d/{device}/down/ack").into();
    Message { topic, payload: Bytes::copy_from_slice(body.as_bytes()), at_least_once: true, retained: false }
}
