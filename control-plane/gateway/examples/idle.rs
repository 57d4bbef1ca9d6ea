//! Memory of an idle connection and CPU time of a connect.
//!
//! `cargo run --release -p dunlin-gateway --example idle -- [--connections 5000]`
//!
//! Each connection does CONNECT (MQTT 3.1.1, keep-alive 600 s) and one SUBSCRIBE; memory is the growth of this process'
//! resident memory, read 2 s after the last one. The open-file limit must be above the number of connections.

mod support;

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some("client") {
        return client().await;
    }
    let connections = support::option("--connections", 5_000);
    let gateway = support::gateway(support::Batches::start(Duration::from_millis(3))).await;
    let port = gateway.addresses()[0].port();
    let (memory, cpu) = (support::resident(), support::cpu_us());

    let arguments =
        ["--connections", &connections.to_string(), "--port", &port.to_string()].map(String::from);
    let mut clients = support::start_clients(&arguments);
    // The clients say one byte when all are subscribed.
    let mut ready = [0];
    clients.stdout.as_mut().expect("piped").read_exact(&mut ready).await.expect("all clients connect");
    let connecting = support::cpu_us() - cpu;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = support::resident().saturating_sub(memory);
    assert_eq!(gateway.connected(), connections, "every client stays connected");

    let idle_from = support::cpu_us();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = support::cpu_us() - idle_from;
    println!("connections                      {connections}");
    println!("memory per idle connection       {:.2} KiB", grown as f64 / connections as f64 / 1024.0);
    println!("CPU per connect and subscribe    {:.1} us", connecting as f64 / connections as f64);
    println!("CPU of all, idle                 {:.1} ms/s", idle as f64 / 1000.0 / 5.0);
    clients.kill().await.expect("the clients end");
}

async fn client() {
    let port = support::option("--port", 0) as u16;
    let mut open = Vec::new();
    for index in 0..support::option("--connections", 0) {
        let name = format!("device-{index}");
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        stream.write_all(&support::connect(&name)).await.expect("CONNECT");
        stream.write_all(&support::subscribe(&format!("d/{name}/down/#"))).await.expect("SUBSCRIBE");
        let mut answers = [0; 9];
        stream.read_exact(&mut answers).await.expect("CONNACK and SUBACK");
        assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1], "{name}");
        open.push(stream);
    }
    let mut output = tokio::io::stdout();
    output.write_all(b"!").await.expect("the parent waits");
    output.flush().await.expect("the parent waits");
    // Until the parent ends this process.
    tokio::time::sleep(Duration::from_secs(600)).await;
}
