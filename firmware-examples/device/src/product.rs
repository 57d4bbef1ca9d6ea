//! What a product brings: its board, its application, memory for its models.

use core::future::Future;

use dunlin_runtime::{ALL_KERNELS, Artifact, Session};
use embedded_io_async::{Read, Write};
use embedded_storage::nor_flash::NorFlash;

use crate::device::Counted;

/// What a board gives.
pub trait Platform {
    /// A connection to the server: TCP, or TLS on top of it.
    type Stream: Read + Write;
    /// Why there is no connection.
    type Error;

    /// Milliseconds since the device was started; never goes back.
    fn now_ms(&self) -> u64;
    /// Seconds since 1970 UTC; 0 when the device does not know.
    fn unix_s(&self) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Connects to the server's MQTT port.
    fn connect(&self) -> impl Future<Output = Result<Self::Stream, Self::Error>>;
    /// Waits until [`Platform::now_ms`] is that much.
    fn sleep_until(&self, ms: u64) -> impl Future<Output = ()>;
}

/// One of the two places of a model in flash. A model runs from where it is, while the other place is written; on a
/// board with one flash controller the driver of both shares it (`RefCell`).
pub trait Bank: NorFlash {
    /// The bank, as it is mapped into memory; at an address that is a multiple of 16.
    fn bytes(&self) -> &[u8];
}

/// The models of a device, and the memory that they run in.
#[derive(Debug)]
pub struct Models<'a, B> {
    /// Part of the firmware; runs while the control plane has put nothing into the slot.
    pub built_in: Artifact<'a>,
    /// Where models that were fetched are kept.
    pub banks: [B; 2],
    /// One model at a time runs here; aligned to 16.
    pub arena: &'a mut [u8],
}

/// The product. `KERNELS` is the set of kernels that are linked, as in [`Session`]: models that need others are refused.
pub trait Application<const KERNELS: u128 = ALL_KERNELS> {
    /// When [`Application::sample`] is to be called next, in milliseconds of [`Platform::now_ms`]; `None` when the
    /// device is done, so that [`run`](crate::run) ends once everything is acknowledged.
    fn next_ms(&self) -> Option<u64>;

    /// Whether the product can feed this model and use what it gives: the types and shapes of inputs and outputs.
    fn accepts(&self, artifact: &Artifact<'_>) -> bool;

    /// Runs the model and tells the monitor.
    fn sample(&mut self, session: &mut Session<'_, '_, KERNELS>, monitor: &mut Counted<'_>, now_ms: u64);
}

/// Who the device is.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The device's id, as enrolment gave it.
    pub device: &'a str,
    /// Its password; none when the stream proves who it is, by a certificate.
    pub password: Option<&'a str>,
}
