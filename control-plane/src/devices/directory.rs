//! Every device, in memory: who it is, where it belongs and whether it may connect. Looked up for every message.
//!
//! The database is what counts. A process that changes a device reloads its entry at once; other processes notice
//! within [`limits::DIRECTORY_POLL`], by the time of change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::secret::{self, Digest};
use crate::bus::DeviceId;
use crate::db::{Db, DbError};
use crate::limits;

/// Devices that are expected to behave alike: statistics are kept for each cohort.
#[derive(Debug, PartialEq, Eq)]
pub struct Cohort {
    /// The fleet's name.
    pub fleet: Arc<str>,
    /// The hardware class.
    pub hardware: Arc<str>,
    /// Both in one text, `fleet/hardware`; neither name has a slash.
    pub key: Arc<str>,
}

/// What is known of a device in memory.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: DeviceId,
    /// Where it belongs.
    pub cohort: Arc<Cohort>,
    /// Whether an operator has blocked it.
    pub blocked: bool,
    /// The generation of its desired state.
    pub generation: i64,
    pub(super) password: Option<Digest>,
    /// How often it was given credentials.
    credentials: i64,
    revision: i64,
    /// When a message came, as far as it was written down.
    seen_us: AtomicI64,
}

/// What became of a device between two looks at the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It must not stay connected: blocked, deleted, or with other credentials.
    Out(DeviceId),
    /// It should reach another state.
    Desired(DeviceId),
}

/// All devices, by id.
#[derive(Debug, Default)]
pub struct Directory {
    devices: RwLock<HashMap<DeviceId, Arc<Entry>>>,
    cohorts: RwLock<HashMap<String, Arc<Cohort>>>,
}

const COLUMNS: &str = "id, fleet, hardware, password_digest, credentials, blocked_us, generation, revision";

impl Directory {
    /// The device, if there is one with this id.
    pub fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Where the device belongs, unless it is unknown or blocked: messages of such devices do not count.
    pub fn cohort(&self, id: &str) -> Option<Arc<Cohort>> {
        self.get(id).filter(|entry| !entry.blocked).map(|entry| Arc::clone(&entry.cohort))
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of the devices whose last sign of life was written down more than [`limits::SEEN_RESOLUTION`] before
    /// `now_us`: write it with [`super::write_seen`], and note it with [`Directory::mark_seen`] after the commit.
    pub fn unseen<'a>(&self, ids: impl IntoIterator<Item = &'a DeviceId>, now_us: i64) -> Vec<DeviceId> {
        let resolution_us = limits::micros(limits::SEEN_RESOLUTION);
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let mut ids: Vec<DeviceId> = ids
            .into_iter()
            .filter(|id| {
                devices.get(*id).is_some_and(|entry| {
                    let age_us = now_us.saturating_sub(entry.seen_us.load(Ordering::Relaxed));
                    // A clock that went back must not stop the writing.
                    !(0..resolution_us).contains(&age_us)
                })
            })
            .cloned()
            .collect();
        // Rows are locked in this order everywhere, so that two batches never wait for each other.
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Notes that the signs of life of these devices are written down.
    pub fn mark_seen(&self, ids: &[DeviceId], now_us: i64) {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        for entry in ids.iter().filter_map(|id| devices.get(id)) {
            entry.seen_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Reads all devices.
    pub(super) async fn load(&self, db: &Db) -> Result<Vec<Change>, DbError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("select {COLUMNS} from devices")))
            .fetch_all(db.read())
            .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let entry = self.entry(row)?;
            found.insert(entry.id.clone(), Arc::new(entry));
        }
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        // An entry that another task has put there after the rows were read may be missing from them.
        for (id, old) in devices.iter() {
            match found.get(id) {
                Some(new) if new.revision >= old.revision => changes.extend(compare(old, new)),
                Some(_) => drop(found.insert(id.clone(), Arc::clone(old))),
                None => changes.push(Change::Out(id.clone())),
            }
        }
        *devices = found;
        Ok(changes)
    }

    /// Reads the devices that were changed or deleted since `since_us`.
    pub(super) async fn poll(&self, db: &Db, since_us: i64) -> Result<Vec<Change>, DbError> {
        let sql = format!("select {COLUMNS} from devices where changed_us >= $1");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(since_us).fetch_all(db.read()).await?;
        let mut changes = Vec::new();
        for row in &rows {
            changes.extend(self.put(self.entry(row)?));
        }
        let rows = sqlx::query("select id from deleted_devices where deleted_us >= $1")
            .bind(since_us)
            .fetch_all(db.read())
            .await?;
        for row in &rows {
            changes.extend(self.remove(row.try_get(0)?));
        }
        Ok(changes)
    }

    /// Reads one device again; `None` when it does not exist.
    pub(super) async fn reload(
        &self,
        db: &Db,
        id: &str,
    ) -> Result<(Option<Arc<Entry>>, Option<Change>), DbError> {
        let sql = format!("select {COLUMNS} from devices where id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(db.read()).await?;
        let change = match &row {
            Some(row) => self.put(self.entry(row)?),
            None => self.remove(id),
        };
        Ok((self.get(id), change))
    }

    fn put(&self, new: Entry) -> Option<Change> {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        let id = new.id.clone();
        match devices.get(&id) {
            Some(old) if old.revision >= new.revision => None,
            Some(old) => {
                let change = compare(old, &new);
                devices.insert(id, Arc::new(new));
                change
            }
            None => {
                devices.insert(id, Arc::new(new));
                None
            }
        }
    }

    fn remove(&self, id: &str) -> Option<Change> {
        let removed = self.devices.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        removed.map(|entry| Change::Out(entry.id.clone()))
    }

    fn entry(&self, row: &AnyRow) -> Result<Entry, DbError> {
        let id: String = row.try_get("id")?;
        // Ids were checked when they were written.
        let id = DeviceId::new(&id).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let password: Option<String> = row.try_get("password_digest")?;
        Ok(Entry {
            cohort: self.cohort_of(row.try_get("fleet")?, row.try_get("hardware")?),
            blocked: row.try_get::<Option<i64>, _>("blocked_us")?.is_some(),
            generation: row.try_get("generation")?,
            password: password.as_deref().and_then(secret::from_hex),
            credentials: row.try_get("credentials")?,
            revision: row.try_get("revision")?,
            seen_us: AtomicI64::new(
                self.get(id.as_str()).map_or(0, |old| old.seen_us.load(Ordering::Relaxed)),
            ),
            id,
        })
    }

    /// The cohort, one value for all its devices.
    fn cohort_of(&self, fleet: &str, hardware: &str) -> Arc<Cohort> {
        let key = format!("{fleet}/{hardware}");
        if let Some(cohort) = self.cohorts.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(cohort);
        }
        let cohort = Arc::new(Cohort {
            fleet: Arc::from(fleet),
            hardware: Arc::from(hardware),
            key: Arc::from(key.as_str()),
        });
        let mut cohorts = self.cohorts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cohorts.entry(key).or_insert(cohort))
    }
}

fn compare(old: &Entry, new: &Entry) -> Option<Change> {
    if (new.blocked && !old.blocked) || new.credentials != old.credentials {
        Some(Change::Out(new.id.clone()))
    } else if new.generation != old.generation {
        Some(Change::Desired(new.id.clone()))
    } else {
        None
    }
}
