//! A device's end of a download: HTTP/1.1 by hand, so that what is measured is the server.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_artifact::Digester;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use super::fleet::Order;

/// The receive buffer of a reader that takes nothing: the rest waits at the server.
const SMALL: u32 = 4_096;

/// What happened besides.
#[derive(Default)]
pub(crate) struct Tally {
    /// Answers that said to wait.
    pub(crate) waits: AtomicU64,
    /// Connections that could not be made, or ended too early.
    pub(crate) lost: AtomicU64,
}

/// Fetches until every byte is there; waits as long as the server says, and up to as long again.
pub(crate) async fn fetch(order: &Order, tally: &Tally) {
    loop {
        let wait_s = match attempt(order).await {
            Ok(None) => return,
            Ok(Some(seconds)) => {
                tally.waits.fetch_add(1, Ordering::Relaxed);
                seconds
            }
            Err(_) => {
                tally.lost.fetch_add(1, Ordering::Relaxed);
                1
            }
        };
        pause(wait_s).await;
    }
}

/// Waits so many seconds and up to as many again, so that those who were refused together do not come back together.
pub(crate) async fn pause(seconds: u64) {
    let mut random = [0; 2];
    getrandom::fill(&mut random).expect("random bytes");
    let wait = Duration::from_secs(seconds);
    tokio::time::sleep(wait + wait * u32::from(u16::from_le_bytes(random)) / 65_536).await;
}

/// One request: nothing when all is there, else the seconds to wait.
async fn attempt(order: &Order) -> io::Result<Option<u64>> {
    let (address, request) = request(order);
    let stream = TcpStream::connect(address).await?;
    let mut reader = send(stream, &request).await?;
    let head = head(&mut reader).await?;
    match head.status {
        200 => {
            assert!(read(&mut reader, order).await?, "the digest is wrong");
            Ok(None)
        }
        429 | 503 => Ok(Some(head.retry_after_s.expect("the answer says how long"))),
        status => panic!("unexpected status {status}"),
    }
}

/// Asks, takes nothing for a while after the answer's head has come, then all; whether the digest is right then. Must not
/// be told to wait.
pub(crate) async fn take_nothing(order: &Order, rest: Duration) -> bool {
    let (address, request) = request(order);
    let run = async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SMALL)?;
        let mut reader = send(socket.connect(address).await?, &request).await?;
        let head = head(&mut reader).await?;
        assert_eq!(head.status, 200, "so many may read at once");
        tokio::time::sleep(rest).await;
        read(&mut reader, order).await
    };
    run.await.unwrap_or_else(|error: io::Error| {
        eprintln!("a slow reader: {error}");
        false
    })
}

/// Where to ask, and how.
fn request(order: &Order) -> (SocketAddr, String) {
    let rest = order.url.strip_prefix("http://").expect("plain HTTP");
    let (address, path) = rest.split_at(rest.find('/').expect("a path"));
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    (address.parse().expect("an address"), request)
}

async fn send(mut stream: TcpStream, request: &str) -> io::Result<BufReader<TcpStream>> {
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    Ok(BufReader::with_capacity(SMALL as usize, stream))
}

struct Head {
    status: u16,
    retry_after_s: Option<u64>,
}

async fn head(reader: &mut BufReader<TcpStream>) -> io::Result<Head> {
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut head = Head { status: status.ok_or(io::ErrorKind::UnexpectedEof)?, retry_after_s: None };
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some(("retry-after", seconds)) => head.retry_after_s = seconds.parse().ok(),
            Some(_) => {}
            None => return Ok(head),
        }
    }
}

/// Reads the artifact; whether its digest is right.
async fn read(reader: &mut BufReader<TcpStream>, order: &Order) -> io::Result<bool> {
    let mut digester = Digester::new();
    let mut piece = vec![0; 16 << 10];
    let mut left = order.size;
    while left > 0 {
        let length = reader.read(&mut piece).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        digester.update(&piece[..length]);
        left = left.checked_sub(length as u64).ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(digester.finish() == order.digest)
}
