//! What the measurements share: a handler, the client's bytes, and what the system says of this process.
//! Clients run in a process of their own (this program again, with the argument `client`), so that the figures are
//! the gateway's alone.

#![allow(dead_code, reason = "each example uses a part")]

use dunlin_gateway::{Config, Gateway, Handler, Limits, Listener, Login, Message, Publish, Refusal};
use std::{io::Read, net::SocketAddr, process, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Lets everybody in and commits in batches, as a database would: whatever has arrived, in `commit` time.
pub(crate) struct Batches(mpsc::UnboundedSender<Publish>);

impl Batches {
    pub(crate) fn start(commit: Duration) -> Arc<Batches> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while receiver.recv_many(&mut batch, 5_000).await > 0 {
                tokio::time::sleep(commit).await;
                batch.drain(..).for_each(|publish: Publish| publish.ack.done());
            }
        });
        Arc::new(Batches(sender))
    }
}

impl Handler for Batches {
    async fn authenticate(&self, login: Login) -> Result<Arc<str>, Refusal> {
        Ok(Arc::from(login.client_id))
    }

    fn publish(&self, message: Publish) {
        // The receiver lives as long as the runtime.
        let _ = self.0.send(message);
    }

    async fn retained(&self, _device: &Arc<str>) -> Vec<Message> {
        Vec::new()
    }
}

/// A gateway on a free port of the loopback interface, without limits on rates.
pub(crate) async fn gateway(
    handler: Arc<Batches>,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Gateway<Batches> {
    let limits = Limits {
        connections_per_second: 1e9,
        connection_burst: 1e9,
        packets_per_second: 1e9,
        packet_burst: 1e9,
        bytes_per_second: 1e12,
        ..Limits::default()
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config { listeners: vec![Listener { address, tls }], limits };
    Gateway::bind(config, handler).await.expect("a free port")
}

/// A number from the command line: `--name value`.
pub(crate) fn option(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    match arguments.nth(1) {
        Some(value) => value.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {value:?}")),
        None => default,
    }
}

/// Starts this program again as the clients, with another environment variable if need be.
pub(crate) fn start_clients(arguments: &[String], variable: Option<(&str, String)>) -> tokio::process::Child {
    let program = std::env::current_exe().expect("this program's path");
    let mut command = tokio::process::Command::new(program);
    command.arg("client").args(arguments).stdin(process::Stdio::piped()).stdout(process::Stdio::piped());
    command.envs(variable).kill_on_drop(true).spawn().expect("the clients start")
}

/// CPU time of this process in microseconds, in steps of 10 ms (Linux, `/proc/self/stat` in ticks of 100 Hz).
pub(crate) fn cpu_us() -> u64 {
    let mut text = String::new();
    std::fs::File::open("/proc/self/stat")
        .and_then(|mut file| file.read_to_string(&mut text))
        .expect("Linux");
    let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    (ticks(11) + ticks(12)) * 10_000
}

/// Resident memory of this process in bytes.
pub(crate) fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

/// An MQTT 3.1.1 CONNECT with a clean session and a keep-alive of ten minutes.
pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0x02, 0x58];
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// A SUBSCRIBE with QoS 1 and packet identifier 1.
pub(crate) fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(1);
    packet(0x82, &body)
}

/// A PUBLISH with QoS 1.
pub(crate) fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend(packet_id.to_be_bytes());
    body.extend(payload);
    packet(0x32, &body)
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
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
