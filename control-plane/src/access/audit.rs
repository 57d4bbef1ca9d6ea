//! The audit log: who changed what, from what to what. Rows are only ever added.

use serde_json::Value;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Caller;
use crate::app::App;
use crate::db::{Db, DbError, Tx};

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

/// An entry of the log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) at_us: i64,
    pub(super) principal: String,
    pub(super) principal_name: String,
    pub(super) action: String,
    pub(super) kind: String,
    pub(super) resource: String,
    pub(super) fleet: Option<String>,
    pub(super) model: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// Which entries are wanted; what is absent does not matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    pub(super) principal: Option<String>,
    pub(super) fleet: Option<String>,
    pub(super) model: Option<String>,
}

/// Entries from the newest on, at most `limit`, those older than the entry `before`.
pub(super) async fn list(
    db: &Db,
    filter: &Filter,
    before: Option<String>,
    limit: i64,
) -> Result<Vec<Entry>, DbError> {
    let conditions = [
        ("resource_kind =", &filter.kind),
        ("resource_id =", &filter.id),
        ("principal =", &filter.principal),
        ("fleet =", &filter.fleet),
        ("model =", &filter.model),
        ("id <", &before),
    ];
    let conditions: Vec<_> =
        conditions.into_iter().filter_map(|(text, value)| Some((text, value.as_deref()?))).collect();
    let mut sql =
        "select id, at_us, principal, principal_name, action, resource_kind, resource_id, fleet, model, \
                   request_id, before_json, after_json from audit where 1 = 1"
            .to_owned();
    for (index, (text, _)) in conditions.iter().enumerate() {
        sql += &format!(" and {text} ${}", index + 1);
    }
    sql += &format!(" order by id desc limit ${}", conditions.len() + 1);
    // The text is made of the constants above.
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (_, value) in conditions {
        query = query.bind(value);
    }
    let rows = query.bind(limit).fetch_all(db.read()).await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &AnyRow) -> Result<Entry, DbError> {
    let json = |column: &str| -> Result<Option<Value>, DbError> {
        let text: Option<String> = row.try_get(column)?;
        // The program wrote it; a text that is no JSON is shown as what it is.
        Ok(text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))))
    };
    Ok(Entry {
        id: row.try_get("id")?,
        at_us: row.try_get("at_us")?,
        principal: row.try_get("principal")?,
        principal_name: row.try_get("principal_name")?,
        action: row.try_get("action")?,
        kind: row.try_get("resource_kind")?,
        resource: row.try_get("resource_id")?,
        fleet: row.try_get("fleet")?,
        model: row.try_get("model")?,
        request_id: row.try_get("request_id")?,
        before: json("before_json")?,
        after: json("after_json")?,
    })
}
