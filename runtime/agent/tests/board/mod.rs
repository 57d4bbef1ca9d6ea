//! What the tests of the device without std have for a board: sockets and a clock.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dunlin_agent::uplink;
use dunlin_device::Platform;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::io::BufStream;
use tokio::net::TcpStream;

/// Times a hundred times shorter than in the field.
pub(crate) const UPLINK: uplink::Settings = uplink::Settings {
    connect_timeout_ms: 2_000,
    ack_timeout_ms: 400,
    least_pause_ms: 20,
    longest_pause_ms: 300,
    in_flight: 8,
    report_period_ms: 0,
};

/// A board that does not know the time of day.
pub(crate) struct Board {
    started: Instant,
    broker: SocketAddr,
    random: Cell<u32>,
}

impl Board {
    pub(crate) fn new(broker: SocketAddr) -> Self {
        Board { started: Instant::now(), broker, random: Cell::new(5) }
    }
}

impl Platform for Board {
    type Stream = FromTokio<BufStream<TcpStream>>;
    type Error = std::io::Error;

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap()
    }

    fn unix_s(&self) -> u64 {
        0
    }

    fn random(&self) -> u32 {
        self.random.set(self.random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.random.get()
    }

    async fn connect(&self) -> Result<Self::Stream, Self::Error> {
        let stream = TcpStream::connect(self.broker).await?;
        stream.set_nodelay(true)?;
        Ok(FromTokio::new(BufStream::new(stream)))
    }

    async fn sleep_until(&self, ms: u64) {
        tokio::time::sleep_until((self.started + Duration::from_millis(ms)).into()).await;
    }
}

/// Bytes at an address that is a multiple of 16; the memory that they are in is passed.
pub(crate) fn aligned<'m>(bytes: &[u8], memory: &'m mut Vec<u8>) -> &'m [u8] {
    memory.resize(bytes.len() + 15, 0);
    let start = memory.as_ptr().align_offset(16);
    memory[start..start + bytes.len()].copy_from_slice(bytes);
    &memory[start..start + bytes.len()]
}
