//! Tokens in the database, and a short memory of those that were used.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{Subject, audit};
use super::caller::{Caller, Principal};
use super::role::{Role, Scope};
use super::secret::TokenSecret;
use crate::app::App;
use crate::db::{Db, DbError, Tx};
use crate::http::{ETag, Preconditions, Problem};
use crate::limits;

/// A token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id; not secret.
    pub id: String,
    /// The name that people gave it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// When it was made.
    pub created_us: i64,
    /// By whom.
    pub created_by: String,
    /// When it stops working.
    pub expires_us: Option<i64>,
    /// When it was last used, to the minute.
    pub last_used_us: Option<i64>,
}

/// What a new token is made from.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// When it stops working.
    pub expires_us: Option<i64>,
}

const COLUMNS: &str =
    "id, name, role, scope_fleet, scope_model, created_us, created_by, expires_us, last_used_us";

impl Token {
    fn from_row(row: &AnyRow) -> Result<Self, DbError> {
        let role: String = row.try_get("role")?;
        let scope = match (row.try_get("scope_fleet")?, row.try_get("scope_model")?) {
            (Some(fleet), _) => Scope::Fleet(fleet),
            (None, Some(model)) => Scope::Model(model),
            (None, None) => Scope::Everything,
        };
        Ok(Token {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            // A role that this program does not know may do the least.
            role: Role::from_name(&role).unwrap_or(Role::Viewer),
            scope,
            created_us: row.try_get("created_us")?,
            created_by: row.try_get("created_by")?,
            expires_us: row.try_get("expires_us")?,
            last_used_us: row.try_get("last_used_us")?,
        })
    }

    /// The token for the audit log.
    fn to_json(&self) -> serde_json::Value {
        let (fleet, model) = self.scope.parts();
        serde_json::json!({ "name": self.name, "role": self.role, "fleet": fleet, "model": model, "expires_us": self.expires_us })
    }

    /// Its entity tag: a token never changes but for its last use.
    pub(super) fn etag(&self) -> ETag {
        ETag::revision(1)
    }

    /// Whether the token works now.
    pub fn is_valid(&self, now_us: i64) -> bool {
        self.expires_us.is_none_or(|expires_us| now_us < expires_us)
    }
}

/// The tokens that were used of late.
#[derive(Debug, Default)]
pub struct Access {
    /// By digest: the token (or that there is none), and when that was read.
    seen: Mutex<HashMap<String, (Token, i64)>>,
}

impl Access {
    /// The caller whose token this is, if it works now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn caller(
        &self,
        db: &Db,
        secret: &TokenSecret,
        now_us: i64,
    ) -> Result<Option<Caller>, DbError> {
        let digest = secret.digest();
        let cached = self.lock().get(&digest).cloned();
        let token = match cached {
            Some((token, read_us)) if is_fresh(read_us, now_us) => Some(token),
            _ => {
                let token = by_digest(db, &digest).await?;
                let mut seen = self.lock();
                match &token {
                    Some(token) => {
                        if seen.len() >= limits::TOKEN_CACHE_ENTRIES {
                            seen.clear();
                        }
                        seen.insert(digest, (token.clone(), now_us));
                    }
                    None => drop(seen.remove(&digest)),
                }
                token
            }
        };
        let Some(token) = token.filter(|token| token.is_valid(now_us)) else { return Ok(None) };
        self.note_use(db, &token, now_us).await?;
        let principal = Principal { id: format!("token:{}", token.id), name: token.name };
        Ok(Some(Caller { principal, role: token.role, scope: token.scope, request_id: None }))
    }

    /// Whether the token was looked up of late, so that it can be checked without the database.
    pub(crate) fn knows(&self, secret: &TokenSecret, now_us: i64) -> bool {
        self.lock().get(&secret.digest()).is_some_and(|(_, read_us)| is_fresh(*read_us, now_us))
    }

    /// Forgets what was read, after a change.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Writes the use down, once in a while.
    async fn note_use(&self, db: &Db, token: &Token, now_us: i64) -> Result<(), DbError> {
        let resolution_us = i64::try_from(limits::TOKEN_USE_RESOLUTION.as_micros()).unwrap_or(i64::MAX);
        if token.last_used_us.is_some_and(|used_us| now_us.saturating_sub(used_us) < resolution_us) {
            return Ok(());
        }
        sqlx::query("update tokens set last_used_us = $1 where id = $2")
            .bind(now_us)
            .bind(&token.id)
            .execute(db.write())
            .await?;
        for (seen, _) in self.lock().values_mut() {
            if seen.id == token.id {
                seen.last_used_us = Some(now_us);
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Token, i64)>> {
        // The map is whole after every statement: a panic elsewhere cannot have left it half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a look-up is young enough to be believed. When the clock went back, it is not.
fn is_fresh(read_us: i64, now_us: i64) -> bool {
    let cached_us = i64::try_from(limits::TOKEN_CACHED.as_micros()).unwrap_or(0);
    (0..cached_us).contains(&now_us.saturating_sub(read_us))
}

async fn by_digest(db: &Db, digest: &str) -> Result<Option<Token>, DbError> {
    let sql =
        sqlx::AssertSqlSafe(format!("select {COLUMNS} from tokens where digest = $1 and revoked_us is null"));
    let row = sqlx::query(sql).bind(digest).fetch_optional(db.read()).await?;
    row.as_ref().map(Token::from_row).transpose()
}

/// Stores a new token.
pub(super) async fn insert(
    tx: &mut Tx,
    id: &str,
    new: &NewToken,
    secret: &TokenSecret,
    created_by: &str,
    now_us: i64,
) -> Result<Token, DbError> {
    let (fleet, model) = new.scope.parts();
    sqlx::query(
        "insert into tokens (id, name, digest, role, scope_fleet, scope_model, created_us, created_by, expires_us) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id)
    .bind(&new.name)
    .bind(secret.digest())
    .bind(new.role.name())
    .bind(fleet)
    .bind(model)
    .bind(now_us)
    .bind(created_by)
    .bind(new.expires_us)
    .execute(&mut **tx)
    .await?;
    Ok(Token {
        id: id.to_owned(),
        name: new.name.clone(),
        role: new.role,
        scope: new.scope.clone(),
        created_us: now_us,
        created_by: created_by.to_owned(),
        expires_us: new.expires_us,
        last_used_us: None,
    })
}

/// Makes a token; its secret is given out here only.
///
/// # Errors
/// When the database or the source of random bytes fails, or there are [`limits::TOKENS`] already.
pub async fn create_token(
    app: &App,
    caller: &Caller,
    new: NewToken,
) -> Result<(Token, TokenSecret), Problem> {
    let mut tx = app.db.begin().await?;
    let made = create_in(app, &mut tx, caller, &new).await?;
    tx.commit().await?;
    Ok(made)
}

async fn create_in(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    new: &NewToken,
) -> Result<(Token, TokenSecret), Problem> {
    let secret = TokenSecret::generate().map_err(|error| Problem::internal(&error))?;
    let row =
        sqlx::query("select count(*) from tokens where revoked_us is null").fetch_one(&mut **tx).await?;
    if row.try_get::<i64, _>(0)? >= limits::TOKENS {
        return Err(Problem::conflict(format!("there are {} tokens already; revoke some", limits::TOKENS)));
    }
    let (id, now_us) = (app.ids.next(), app.clock.now_us());
    let token = insert(tx, &id, new, &secret, &caller.principal.id, now_us).await?;
    audit(app, tx, caller, "token.create", Subject::new("token", &id), None, Some(token.to_json())).await?;
    Ok((token, secret))
}

/// Tokens from the newest on, at most `limit`, those older than the token `before`.
pub(super) async fn list(db: &Db, before: Option<String>, limit: i64) -> Result<Vec<Token>, DbError> {
    let sql = match before {
        Some(_) => format!(
            "select {COLUMNS} from tokens where id < $1 and revoked_us is null order by id desc limit $2"
        ),
        None => format!(
            "select {COLUMNS} from tokens where $1 = '' and revoked_us is null order by id desc limit $2"
        ),
    };
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(before.unwrap_or_default())
        .bind(limit)
        .fetch_all(db.read())
        .await?;
    rows.iter().map(Token::from_row).collect()
}

/// The token with this id.
pub(super) async fn by_id(db: &Db, id: &str) -> Result<Option<Token>, DbError> {
    let sql =
        sqlx::AssertSqlSafe(format!("select {COLUMNS} from tokens where id = $1 and revoked_us is null"));
    let row = sqlx::query(sql).bind(id).fetch_optional(db.read()).await?;
    row.as_ref().map(Token::from_row).transpose()
}

/// Revokes a token.
///
/// # Errors
/// 404 when there is none, 412 when the caller has seen another, 409 when nobody could manage tokens any more, or the database's failure.
pub(super) async fn revoke_token(
    app: &App,
    caller: &Caller,
    preconditions: &Preconditions,
    id: &str,
) -> Result<(), Problem> {
    let now_us = app.clock.now_us();
    let token = by_id(&app.db, id).await?.ok_or_else(|| Problem::not_found("token", id))?;
    preconditions.check(&token.etag())?;
    let mut tx = app.db.begin().await?;
    let revoked = sqlx::query("update tokens set revoked_us = $1 where id = $2 and revoked_us is null")
        .bind(now_us)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    if revoked.rows_affected() == 0 {
        // Somebody else was faster.
        return Err(Problem::not_found("token", id));
    }
    let admins = sqlx::query(
        "select count(*) from tokens where role = 'admin' and revoked_us is null and expires_us is null",
    )
    .fetch_one(&mut *tx)
    .await?
    .try_get::<i64, _>(0)?;
    if token.role == Role::Admin && admins == 0 {
        return Err(Problem::conflict(
            "this is the last administrator's token that does not expire; make another first",
        ));
    }
    let subject = Subject::new("token", id);
    audit(app, &mut tx, caller, "token.revoke", subject, Some(token.to_json()), None).await?;
    tx.commit().await?;
    app.access.forget();
    Ok(())
}

/// Makes the first administrator's token, once in a database's life; `None` when that has happened before and no
/// other is asked for.
///
/// # Errors
/// When the database or the source of random bytes fails.
pub async fn administrator_token(app: &App, another: bool) -> Result<Option<TokenSecret>, Problem> {
    let mut tx = app.db.begin().await?;
    // A lease that never ends: of processes that start together, one gets it.
    let first = sqlx::query(
        "insert into leases (name, holder, expires_us) values ('first administrator', $1, $2) on conflict do nothing",
    )
    .bind(&app.process)
    .bind(i64::MAX)
    .execute(&mut *tx)
    .await?;
    let is_first = first.rows_affected() > 0;
    if !is_first && !another {
        return Ok(None);
    }
    let new = NewToken {
        name: if is_first { "first administrator" } else { "administrator" }.to_owned(),
        role: Role::Admin,
        scope: Scope::Everything,
        expires_us: None,
    };
    let (_, secret) =
        create_in(app, &mut tx, &Caller::internal("system", "dunlin serve", None), &new).await?;
    tx.commit().await?;
    Ok(Some(secret))
}
