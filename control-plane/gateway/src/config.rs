//! Settings and limits.

use std::{net::SocketAddr, sync::Arc, time::Duration};

/// What a gateway listens on and how much it lets in.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The ports; at least one.
    pub listeners: Vec<Listener>,
    /// The limits.
    pub limits: Limits,
}

/// One port.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where to listen; port 0 lets the system choose, see [`crate::Gateway::addresses`].
    pub address: SocketAddr,
    /// Plain TCP without, TLS with; [`crate::tls::server_config`] makes one.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// Every bound of the gateway. The defaults suit devices that report once a minute; a device that is reconnecting
/// after days with a full queue stays within them too.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Most connections at a time, logged in or not (>= 1).
    pub connections: usize,
    /// New connections per second from one address (IPv6: from one /64 network).
    pub connections_per_second: f64,
    /// Connections that one address may open at once before the rate counts (>= 1).
    pub connection_burst: f64,
    /// From accepting the connection until a successful login, TLS handshake included.
    pub login_timeout: Duration,
    /// Longest packet in bytes, fixed header included (64 to 268,435,460). An MQTT 5 client is told.
    pub packet_bytes: u32,
    /// Publishes of one connection that may wait for their acknowledgement (1 to 65,535). An MQTT 5 client is told
    /// and disconnected when it sends more; from an MQTT 3.1.1 client no more are read.
    pub receive_maximum: u16,
    /// Packets per second of one connection. Faster ones are not read until the rate is met.
    pub packets_per_second: f64,
    /// Packets that may come at once before the rate counts (>= 1).
    pub packet_burst: f64,
    /// Bytes per second of one connection. Faster ones are not read until the rate is met; the burst is 4 s' worth.
    pub bytes_per_second: f64,
    /// Bytes of all publishes whose token has not ended, over all connections, with [`Limits::MESSAGE_OVERHEAD`] for
    /// each. Further publishes wait and their connections are not read. At least one packet's worth is allowed.
    pub in_flight_bytes: usize,
    /// Messages that wait to be sent to one device (>= 1).
    pub outbox_messages: usize,
    /// QoS 1 messages in flight to one device (1 to 65,535); the device's own receive maximum may lower it.
    pub send_maximum: u16,
    /// Topic filters of one connection (>= 1).
    pub subscriptions: usize,
    /// Longest keep-alive (1 s to 65,535 s).
    pub keep_alive_max: Duration,
    /// A connection that accepts no byte for this long is closed.
    pub write_timeout: Duration,
}

impl Limits {
    /// What a publish in flight costs besides its payload, in bytes; a generous estimate.
    pub const MESSAGE_OVERHEAD: usize = 256;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 20_000,
            connections_per_second: 200.0,
            connection_burst: 1_000.0,
            login_timeout: Duration::from_secs(10),
            packet_bytes: 16 * 1024,
            receive_maximum: 64,
            packets_per_second: 500.0,
            packet_burst: 1_000.0,
            bytes_per_second: 512.0 * 1024.0,
            in_flight_bytes: 64 * 1024 * 1024,
            outbox_messages: 16,
            send_maximum: 16,
            subscriptions: 8,
            keep_alive_max: Duration::from_secs(1200),
            write_timeout: Duration::from_secs(30),
        }
    }
}
