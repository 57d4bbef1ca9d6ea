//! What telemetry asks of other domains, so that it can be tested without them.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_protocol::State;

use super::ingest::Cohort;
use crate::bus::{AckToken, DeviceId};
use crate::db::{DbError, Tx};

/// The devices domain, as telemetry sees it.
#[async_trait]
pub(crate) trait Devices: Send + Sync {
    /// Where the device belongs; `None` when it is unknown or blocked.
    fn cohort(&self, device: &DeviceId) -> Option<Cohort>;

    /// Writes signs of life and states, within the transaction that applies the messages. Gives the devices that do not
    /// know what they should do.
    async fn write(
        &self,
        tx: &mut Tx,
        seen: &BTreeSet<DeviceId>,
        states: &[(DeviceId, &State<'_>)],
        now_us: i64,
    ) -> Result<Vec<DeviceId>, DbError>;

    /// The transaction is committed; `behind` is what [`Devices::write`] gave.
    fn written(&self, seen: &BTreeSet<DeviceId>, behind: Vec<DeviceId>, now_us: i64);

    /// Answers a request for a certificate, which comes the same way as telemetry. Must not wait; completes `ack` when
    /// the request need not come again.
    fn renew(self: Arc<Self>, device: DeviceId, request: Bytes, ack: AckToken);

    /// Answers a request for a piece of an artifact or a root, which comes the same way. Must not wait.
    fn fetch(self: Arc<Self>, device: DeviceId, request: Bytes, ack: AckToken);
}
