//! Opens the way to the devices: the embedded MQTT endpoint, or an external broker.

use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_gateway::tls::server_config;
use dunlin_gateway::{CloseReason, Limits, Listener};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use tokio::task::JoinSet;

use super::StartError;
use super::tls::MqttCertificate;
use crate::app::App;
use crate::bus::external::{BrokerTls, ExternalConfig};
use crate::bus::{DeviceAccess, DeviceBus, EmbeddedBus, ExternalBus};
use crate::config::{ClientCertificates, Config};

/// Opens it, after the devices' domain: returns the bus and, of the embedded endpoint, where it listens.
pub(super) async fn open(
    app: &App,
    access: Arc<dyn DeviceAccess>,
    background: &mut JoinSet<()>,
) -> Result<(Arc<dyn DeviceBus>, Option<SocketAddr>), StartError> {
    let config = &app.config;
    if let Some(url) = &config.broker_url {
        let client_id = ExternalConfig::client_id_in(&config.data_dir)?;
        let broker = ExternalConfig::from_url(url, client_id, &config.broker_group, || broker_tls(config))?;
        return Ok((Arc::new(ExternalBus::start(broker)), None));
    }
    let listener = Listener { address: config.mqtt_listen, tls: endpoint_tls(app, background)? };
    let limits = Limits {
        connections: config.mqtt_connections.max(1) as usize,
        packets_per_second: f64::from(config.mqtt_device_rate.max(1)),
        packet_burst: f64::from(config.mqtt_device_rate.max(1)) * 2.0,
        ..Limits::default()
    };
    let gateway = dunlin_gateway::Config { listeners: vec![listener], limits };
    let bus = Arc::new(EmbeddedBus::start(gateway, access).await?);
    let address = bus.addresses().first().copied();
    let counters = Box::new(Counters(Arc::clone(&bus)));
    app.metrics.register(|registry| registry.sub_registry_with_prefix("mqtt").register_collector(counters));
    Ok((bus, address))
}

fn broker_tls(config: &Config) -> Result<BrokerTls, crate::bus::external::BrokerError> {
    let client = config.broker_client_certificate.as_deref().zip(config.broker_client_key.as_deref());
    BrokerTls::new(config.broker_ca.as_deref(), client)
}

/// TLS of the embedded endpoint; `None` when it is off. The certificate is read again by a task in `background`.
fn endpoint_tls(
    app: &App,
    background: &mut JoinSet<()>,
) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    let wrong = |setting: &'static str, message: String| StartError::Certificate { setting, message };
    let clients = match app.config.mqtt_client_certificates {
        ClientCertificates::Off => None,
        ClientCertificates::Optional => Some(dunlin_gateway::tls::ClientCertificates::Optional),
        ClientCertificates::Required => Some(dunlin_gateway::tls::ClientCertificates::Required),
    };
    let Some(certificate) = MqttCertificate::of(&app.config)? else {
        return match clients {
            None => Ok(None),
            Some(_) => {
                let message = "is missing: mqtt.client_certificates needs it".to_owned();
                Err(wrong("mqtt.tls_certificate", message))
            }
        };
    };
    let authority =
        app.devices.authority().map_err(|problem| wrong("devices.ca_certificate", problem.detail))?;
    let authority = authority.certificate_pem().as_bytes();
    let tls = server_config(certificate.identity(), clients.map(|clients| (authority, clients)))
        .map_err(|error| wrong("devices.ca_certificate", error.to_string()))?;
    background.spawn(certificate.watch(app.shutdown.clone()));
    Ok(Some(tls))
}

/// The embedded endpoint's counters, read when they are asked for.
struct Counters(Arc<EmbeddedBus>);

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let metrics = self.0.metrics();
        let counters = [
            ("accepted", "TCP connections accepted", metrics.accepted),
            ("logins", "Successful logins", metrics.logins),
            ("publishes", "Messages handed to the ingest", metrics.publishes),
            ("acknowledged", "Acknowledgements of committed messages", metrics.acknowledged),
            ("publishes_refused", "Messages refused because of their topic", metrics.publishes_refused),
            ("subscriptions_refused", "Topic filters refused", metrics.subscriptions_refused),
            ("throttled", "Times that a connection over its rate was not read from", metrics.throttled),
            ("waited", "Times that a message waited because too many were in flight", metrics.waited),
            ("sent", "Messages written to devices", metrics.sent),
            ("dropped", "Messages to devices that did not keep up", metrics.dropped),
            ("read_bytes", "Bytes read from devices", metrics.bytes_in),
            ("written_bytes", "Bytes written to devices", metrics.bytes_out),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let counter = ConstCounter::new(0_u64);
        let mut closed = encoder.encode_descriptor(
            "closed",
            "Connections ended, by reason",
            None,
            counter.metric_type(),
        )?;
        for reason in CloseReason::ALL {
            let label = [("reason", format!("{reason:?}"))];
            ConstCounter::new(metrics.closed(reason)).encode(closed.encode_family(&label)?)?;
        }
        Ok(())
    }
}
