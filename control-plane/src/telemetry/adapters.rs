//! The devices domain, for the ingest.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_protocol::State;

use super::ingest::Cohort;
use super::neighbours::Devices;
use crate::app::App;
use crate::bus::{AckToken, DeviceId, DownKind};
use crate::db::{DbError, Tx};
use crate::devices::{self, Applied, RenewError};

/// See [`Devices`].
pub(super) struct Registered(pub(super) App);

#[async_trait]
impl Devices for Registered {
    fn cohort(&self, device: &DeviceId) -> Option<Cohort> {
        let cohort = self.0.devices.directory.cohort(device.as_str())?;
        Some(Cohort { key: Arc::clone(&cohort.key), fleet: Arc::clone(&cohort.fleet) })
    }

    async fn write(
        &self,
        tx: &mut Tx,
        seen: &BTreeSet<DeviceId>,
        states: &[(DeviceId, &State<'_>)],
        now_us: i64,
    ) -> Result<Vec<DeviceId>, DbError> {
        let unseen = self.0.devices.directory.unseen(seen, now_us);
        devices::write_seen(tx, &unseen, now_us).await?;
        let mut behind = Vec::new();
        for (device, state) in states {
            if devices::apply_state(&self.0, tx, device, state, now_us).await? == Applied::Behind {
                behind.push(device.clone());
            }
        }
        Ok(behind)
    }

    fn written(&self, seen: &BTreeSet<DeviceId>, behind: Vec<DeviceId>, now_us: i64) {
        let directory = &self.0.devices.directory;
        // As in `write`: nobody else writes them down meanwhile.
        let unseen = directory.unseen(seen, now_us);
        directory.mark_seen(&unseen, now_us);
        if behind.is_empty() {
            return;
        }
        let app = self.0.clone();
        tokio::spawn(async move {
            for device in behind {
                // A device that does not get it asks again with its next state.
                if let (Some(bus), Ok(Some(message))) = (app.bus(), devices::desired(&app, &device).await) {
                    let _ = bus.send(&device, DownKind::Desired, message).await;
                }
            }
        });
    }

    fn renew(self: Arc<Self>, device: DeviceId, request: Bytes, ack: AckToken) {
        tokio::spawn(async move {
            match devices::renew(&self.0, &device, &request).await {
                Ok(answer) => {
                    if let Some(bus) = self.0.bus()
                        && let Err(error) = bus.send(&device, DownKind::Cert, answer).await
                    {
                        tracing::info!(%device, %error, "a certificate was not sent; the device asks again");
                    }
                    ack.done();
                }
                Err(RenewError::Failed(problem)) => {
                    // Without the acknowledgement the request comes again.
                    tracing::warn!(%device, %problem, "a certificate could not be renewed");
                }
                Err(error) => {
                    tracing::info!(%device, %error, "a request for a certificate is refused");
                    ack.done();
                }
            }
        });
    }

    fn fetch(self: Arc<Self>, device: DeviceId, request: Bytes, ack: AckToken) {
        // At once: a device asks again for what is lost, and other messages' acknowledgements may have to come after.
        ack.done();
        tokio::spawn(async move {
            match devices::fetch(&self.0, &device, &request).await {
                Ok(answer) => {
                    if let Some(bus) = self.0.bus()
                        && let Err(error) = bus.send(&device, DownKind::Chunk, answer).await
                    {
                        tracing::debug!(%device, %error, "a piece was not sent; the device asks again");
                    }
                }
                Err(error) => tracing::debug!(%device, %error, "a request for a piece is not answered"),
            }
        });
    }
}
