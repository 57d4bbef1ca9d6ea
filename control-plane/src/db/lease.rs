//! Leases: background work is done by one process at a time, and taken over within seconds when that process dies.

use std::time::Duration;

use sqlx::Row as _;

use super::{Db, DbError};

/// A claim to one kind of background work.
#[derive(Clone, Debug)]
pub struct Lease {
    name: String,
    holder: String,
    length_us: i64,
}

impl Lease {
    /// A claim to the work called `name` by the process `holder`, for `length` from each renewal on.
    pub fn new(name: impl Into<String>, holder: impl Into<String>, length: Duration) -> Self {
        let length_us = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
        Lease { name: name.into(), holder: holder.into(), length_us }
    }

    /// Takes or renews the lease; says whether it is held until `now_us` plus its length. Call it well before each
    /// piece of work, and do only work that is harmless when two processes do it at once: clocks differ.
    ///
    /// A lease that ends later than twice its length from now was taken by a clock that was ahead, or this one went
    /// back; it counts as ended, or else nobody would work until then.
    ///
    /// # Errors
    /// When the database fails; the lease is then to be taken as not held.
    pub async fn acquire(&self, db: &Db, now_us: i64) -> Result<bool, DbError> {
        let row = sqlx::query(
            "insert into leases (name, holder, expires_us) values ($1, $2, $3) \
             on conflict (name) do update set holder = excluded.holder, expires_us = excluded.expires_us \
             where leases.holder = excluded.holder or leases.expires_us <= $4 or leases.expires_us > $5 \
             returning holder",
        )
        .bind(&self.name)
        .bind(&self.holder)
        .bind(now_us.saturating_add(self.length_us))
        .bind(now_us)
        .bind(now_us.saturating_add(self.length_us.saturating_mul(2)))
        .fetch_optional(db.write())
        .await?;
        row.map_or(Ok(false), |row| Ok(row.try_get::<String, _>(0)? == self.holder))
    }

    /// Gives the lease back, so that another process need not wait for its end.
    ///
    /// # Errors
    /// When the database fails; the lease then ends by itself.
    pub async fn release(&self, db: &Db) -> Result<(), DbError> {
        sqlx::query("delete from leases where name = $1 and holder = $2")
            .bind(&self.name)
            .bind(&self.holder)
            .execute(db.write())
            .await?;
        Ok(())
    }
}
