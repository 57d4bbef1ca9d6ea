//! CPU time of a publish, and how many pass.
//!
//! `cargo run --release -p dunlin-gateway --example flood -- [--connections 100] [--messages 2000] [--payload 300]
//! [--commit-ms 3] [--in-flight 64]`
//!
//! Each connection publishes `messages` QoS 1 messages as fast as it may, `in-flight` (1 to 64) at a time. The handler commits whatever
//! has arrived in `commit-ms` (a group commit) and completes the tokens. CPU time is that of this process alone; the
//! clients run in another one.

mod support;

use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Most publishes in flight per connection: the gateway's default receive maximum.
const RECEIVE_MAXIMUM: usize = 64;

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some("client") {
        return client().await;
    }
    let connections = support::option("--connections", 100);
    let messages = support::option("--messages", 2_000);
    let payload = support::option("--payload", 300);
    let commit = Duration::from_millis(support::option("--commit-ms", 3) as u64);
    let gateway = support::gateway(support::Batches::start(commit), None).await;
    let port = gateway.addresses()[0].port();

    let in_flight = support::option("--in-flight", RECEIVE_MAXIMUM);
    let values = [connections, messages, payload, in_flight, port.into()].map(|value| value.to_string());
    let names = ["--connections", "--messages", "--payload", "--in-flight", "--port"].map(String::from);
    let arguments: Vec<String> =
        names.into_iter().zip(values).flat_map(|(name, value)| [name, value]).collect();
    let mut clients = support::start_clients(&arguments, None);
    let mut byte = [0];
    let output = clients.stdout.as_mut().expect("piped");
    output.read_exact(&mut byte).await.expect("all clients connect");
    let (memory, cpu, from) = (support::resident(), support::cpu_us(), Instant::now());
    clients.stdin.as_mut().expect("piped").write_all(b"!").await.expect("the clients wait");
    output.read_exact(&mut byte).await.expect("all PUBACKs arrive");
    let (cpu, wall) = (support::cpu_us() - cpu, from.elapsed());

    let total = (connections * messages) as f64;
    let metrics = gateway.metrics();
    assert_eq!((metrics.publishes, metrics.acknowledged), (total as u64, total as u64));
    println!("connections x messages x bytes   {connections} x {messages} x {payload}");
    println!("in flight per connection         {in_flight}");
    println!("CPU per publish                  {:.2} us", cpu as f64 / total);
    println!(
        "publishes acknowledged           {:.0} /s (wall clock; clients on the same cores)",
        total / wall.as_secs_f64()
    );
    println!(
        "memory growth                    {:.1} MiB",
        support::resident().saturating_sub(memory) as f64 / 1048576.0
    );
    clients.wait().await.expect("the clients end");
}

async fn client() {
    let port = support::option("--port", 0) as u16;
    let messages = support::option("--messages", 0);
    let in_flight = support::option("--in-flight", RECEIVE_MAXIMUM).clamp(1, RECEIVE_MAXIMUM);
    let payload = vec![7; support::option("--payload", 0)];
    let mut streams = Vec::new();
    for index in 0..support::option("--connections", 0) {
        let name = format!("device-{index}");
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        stream.set_nodelay(true).expect("a TCP option");
        stream.write_all(&support::connect(&name)).await.expect("CONNECT");
        stream.read_exact(&mut [0; 4]).await.expect("CONNACK");
        streams.push((name, stream));
    }
    let mut output = tokio::io::stdout();
    output.write_all(b"!").await.expect("the parent waits");
    output.flush().await.expect("the parent waits");
    tokio::io::stdin().read_exact(&mut [0]).await.expect("the parent starts us");
    let mut tasks = tokio::task::JoinSet::new();
    for (name, mut stream) in streams {
        let topic = format!("d/{name}/up/report");
        let window: Vec<Vec<u8>> =
            (1..=in_flight as u16).map(|id| support::publish(&topic, id, &payload)).collect();
        tasks.spawn(async move {
            let (mut sent, mut acknowledged) = (0, 0);
            let mut buffer = [0; 4 * RECEIVE_MAXIMUM];
            let mut rest = 0;
            while acknowledged < messages {
                let mut bytes = Vec::new();
                while sent < messages && sent - acknowledged < in_flight {
                    bytes.extend(&window[sent % in_flight]);
                    sent += 1;
                }
                stream.write_all(&bytes).await.expect("PUBLISH");
                // A PUBACK is 4 bytes.
                rest += stream.read(&mut buffer).await.expect("PUBACK");
                acknowledged += rest / 4;
                rest %= 4;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("a client");
    }
    output.write_all(b"!").await.expect("the parent waits");
    output.flush().await.expect("the parent waits");
}
