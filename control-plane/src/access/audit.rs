//! The audit log: who changed what, from what to what. Rows are only ever added.

use serde_json::Value;

use super::Caller;
use crate::app::App;
use crate::db::{DbError, Tx};

/// What a change was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The kind of resource: `token`, `fleet`, `device`, `claim`, `model`, …
    pub kind: &'a str,
    /// Its id.
    pub id: &'a str,
    /// The fleet it belongs to, so that tokens with that scope see it.
    pub fleet: Option<&'a str>,
    /// The model it belongs to.
    pub model: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// Something that belongs to no fleet and no model.
    pub fn new(kind: &'a str, id: &'a str) -> Self {
        Subject { kind, id, fleet: None, model: None }
    }

    /// Something of a fleet.
    pub fn of_fleet(kind: &'a str, id: &'a str, fleet: &'a str) -> Self {
        Subject { fleet: Some(fleet), ..Subject::new(kind, id) }
    }

    /// Something of a model.
    pub fn of_model(kind: &'a str, id: &'a str, model: &'a str) -> Self {
        Subject { model: Some(model), ..Subject::new(kind, id) }
    }
}

/// Writes a change into the log, in the transaction that makes the change. `action` is a word like `device.block`;
/// `before` and `after` are the resource as the API shows it, without secrets.
///
/// # Errors
/// When the database fails; the change must then not be committed.
pub async fn audit(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    action: &str,
    subject: Subject<'_>,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into audit (id, at_us, principal, principal_name, action, resource_kind, resource_id, fleet, model, \
         request_id, before_json, after_json) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(app.ids.next())
    .bind(app.clock.now_us())
    .bind(&caller.principal.id)
    .bind(&caller.principal.name)
    .bind(action)
    .bind(subject.kind)
    .bind(subject.id)
    .bind(subject.fleet)
    .bind(subject.model)
    .bind(caller.request_id.as_deref())
    .bind(before.map(|value| value.to_string()))
    .bind(after.map(|value| value.to_string()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
