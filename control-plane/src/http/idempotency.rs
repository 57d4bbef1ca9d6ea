//! Idempotency keys: a POST that is repeated with the same key has its effect once and gets the same answer.
//!
//! The answer is kept for [`limits::IDEMPOTENCY_KEPT`], encrypted under a key that is derived from the request itself
//! (authorization, idempotency key, body) and stored nowhere: answers hold secrets that are shown once, and the
//! database must not. Only who repeats the very request can open its answer.
//!
//! A process that dies between a request's effect and the storing of its answer leaves a locked key; the repetition is
//! then carried out again after [`limits::IDEMPOTENCY_LOCK`].

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ring::aead;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::extract::is_json;
use super::problem::Problem;
use crate::access::Caller;
use crate::app::App;
use crate::db::DbError;
use crate::limits;

/// The request header.
pub(super) const HEADER: &str = "idempotency-key";
/// The header of an answer that was kept.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    #[serde(with = "base64_bytes")]
    body: Vec<u8>,
}

/// What is stored about a key.
enum Stored {
    /// This request is the first one, and holds the lock.
    First,
    /// The same request is under way.
    UnderWay,
    /// Another request had this key.
    Other,
    /// The answer, sealed.
    Sealed(Vec<u8>),
}

/// Heeds the header `Idempotency-Key` of POST requests with a JSON body or none.
pub(super) async fn idempotency(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let keyed = request.method() == Method::POST
        && (is_json(request.headers()) || !request.headers().contains_key(header::CONTENT_TYPE));
    let key = match request.headers().get(HEADER) {
        Some(value) if keyed => value.as_bytes().to_vec(),
        _ => return Ok(next.run(request).await),
    };
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_CHARS || !key.iter().all(u8::is_ascii_graphic) {
        let limit = limits::IDEMPOTENCY_KEY_CHARS;
        let detail = format!("an idempotency key has 1 to {limit} visible ASCII characters");
        return Err(Problem::bad_request(detail).field("Idempotency-Key"));
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, limits::JSON_BODY_BYTES)
        .await
        .map_err(|_| Problem::too_large(limits::JSON_BODY_BYTES as u64))?;
    let principal = parts.extensions.get::<Caller>().map_or("", |caller| caller.principal.id.as_str());
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let authorization = parts.headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let id = digest(b"id", &[principal.as_bytes(), target.as_bytes(), &key]);
    let fingerprint = digest(b"fingerprint", &[&id, &body]);
    let seal = digest(b"seal", &[authorization, &id, &key, &body]);
    let (id, fingerprint) = (hex::encode(id), hex::encode(fingerprint));

    match claim(&app, &id, &fingerprint).await? {
        Stored::First => {}
        Stored::UnderWay => {
            let mut problem =
                Problem::conflict("a request with this idempotency key is under way; repeat it later");
            problem.retry_after_s = Some(1);
            return Err(problem.field("Idempotency-Key"));
        }
        Stored::Other => {
            let detail = "another request had this idempotency key; take a new one for a new request";
            return Err(Problem::unprocessable("Idempotency-Key", detail));
        }
        Stored::Sealed(sealed) => {
            if let Some(answer) = open(&seal, sealed) {
                return Ok(replay(answer));
            }
            let detail =
                "the kept answer belongs to a request with another token; take a new idempotency key";
            return Err(Problem::unprocessable("Idempotency-Key", detail));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    keep(&app, &id, &seal, response).await
}

/// Stores the answer, or forgets the key when the request is worth repeating.
async fn keep(app: &App, id: &str, seal: &[u8; 32], response: Response) -> Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, limits::IDEMPOTENCY_ANSWER_BYTES)
        .await
        .map_err(|error| Problem::internal(&error))?;
    let passing = parts.status.is_server_error()
        || matches!(
            parts.status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
        );
    let stored = if passing {
        sqlx::query("delete from idempotency where id = $1").bind(id).execute(app.db.write()).await
    } else {
        let kept = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];
        let header = |name: &HeaderName| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        };
        let headers = kept.iter().filter_map(header).collect();
        let answer = Answer { status: parts.status.as_u16(), headers, body: body.to_vec() };
        sqlx::query("update idempotency set answer = $1, locked_until_us = 0 where id = $2")
            .bind(close(seal, &answer)?)
            .bind(id)
            .execute(app.db.write())
            .await
    };
    if let Err(error) = stored {
        // The effect is there, and so is its answer; only a repetition would not find it.
        tracing::warn!(%error, "an answer was not kept for its idempotency key");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Takes the key for this request, or says who has it.
async fn claim(app: &App, id: &str, fingerprint: &str) -> Result<Stored, DbError> {
    let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let now_us = app.clock.now_us();
    let mut tx = app.db.begin().await?;
    // Takes the row when there is none, when it has expired, or when its holder has been gone for too long.
    let taken = sqlx::query(
        "insert into idempotency (id, fingerprint, locked_until_us, expires_us) values ($1, $2, $3, $4) \
         on conflict (id) do update set fingerprint = excluded.fingerprint, answer = null, \
         locked_until_us = excluded.locked_until_us, expires_us = excluded.expires_us \
         where idempotency.expires_us <= $5 or (idempotency.answer is null and idempotency.locked_until_us <= $5) \
         returning id",
    )
    .bind(id)
    .bind(fingerprint)
    .bind(now_us + micros(limits::IDEMPOTENCY_LOCK))
    .bind(now_us + micros(limits::IDEMPOTENCY_KEPT))
    .bind(now_us)
    .fetch_optional(&mut *tx)
    .await?;
    let stored = if taken.is_some() {
        Stored::First
    } else {
        let row = sqlx::query("select fingerprint, answer from idempotency where id = $1")
            .bind(id)
            .fetch_one(&mut *tx)
            .await?;
        match (row.try_get::<String, _>(0)? == fingerprint, row.try_get::<Option<Vec<u8>>, _>(1)?) {
            (false, _) => Stored::Other,
            (true, Some(sealed)) => Stored::Sealed(sealed),
            (true, None) => Stored::UnderWay,
        }
    };
    tx.commit().await?;
    Ok(stored)
}

/// Deletes kept answers whose time is over; returns how many.
///
/// # Errors
/// When the database fails.
pub async fn forget_expired(app: &App) -> Result<u64, DbError> {
    let result = sqlx::query("delete from idempotency where expires_us <= $1")
        .bind(app.clock.now_us())
        .execute(app.db.write())
        .await?;
    Ok(result.rows_affected())
}

/// A hash of parts, each with its length, so that no two lists of parts look alike.
fn digest(purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dunlin idempotency ");
    hash.update(purpose);
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Encrypts an answer.
fn close(seal: &[u8; 32], answer: &Answer) -> Result<Vec<u8>, Problem> {
    let mut bytes = serde_json::to_vec(answer).map_err(|error| Problem::internal(&error))?;
    let key = sealing_key(seal)?;
    // Each execution of a request makes one answer. Executions after the lock of one that died use the same key
    // again, so the nonce is random; it stands before the text.
    let mut nonce = [0; aead::NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|error| Problem::internal(&error))?;
    key.seal_in_place_append_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::empty(), &mut bytes)
        .map_err(|error| Problem::internal(&error))?;
    Ok([&nonce[..], &bytes].concat())
}

/// Decrypts an answer; `None` when another request made it.
fn open(seal: &[u8; 32], mut sealed: Vec<u8>) -> Option<Answer> {
    let (nonce, bytes) = sealed.split_at_mut_checked(aead::NONCE_LEN)?;
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
    let bytes = sealing_key(seal).ok()?.open_in_place(nonce, aead::Aad::empty(), bytes).ok()?;
    serde_json::from_slice(bytes).ok()
}

fn sealing_key(seal: &[u8; 32]) -> Result<aead::LessSafeKey, Problem> {
    let key =
        aead::UnboundKey::new(&aead::CHACHA20_POLY1305, seal).map_err(|error| Problem::internal(&error))?;
    Ok(aead::LessSafeKey::new(key))
}

/// The kept answer, marked as such.
fn replay(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body.clone()).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Ok(problem) = serde_json::from_slice::<Problem>(&answer.body) {
        response.extensions_mut().insert(problem);
    }
    response
}

/// Bytes as base64 text.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
