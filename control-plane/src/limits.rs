//! Every limit of the control plane's own, in one place.
//!
//! What an operator may want to change is a setting (see [`crate::config`]); what stands here follows from the
//! design and is the same everywhere.

use std::time::Duration;

/// Bytes of a JSON request body.
pub const JSON_BODY_BYTES: usize = 256 * 1024;
/// Bytes of a request's target (path and query).
pub const TARGET_BYTES: usize = 8 * 1024;
/// Entries of a page of a list, when the request does not say.
pub const PAGE_DEFAULT: u32 = 100;
/// Entries of a page of a list, at most.
pub const PAGE_MAX: u32 = 1_000;
/// Characters of a pagination cursor.
pub const CURSOR_CHARS: usize = 1_024;
/// Time to answer a request, from its head to the answer's head.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to answer a request that brings an artifact along.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Time for a client to send a request's head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// HTTP connections of one process, idle ones included.
pub const HTTP_CONNECTIONS: usize = 4_096;
/// Requests that are worked on at once in one process.
pub const REQUESTS_IN_FLIGHT: usize = 512;
/// Characters of a name that people give (fleet, token, model).
pub const NAME_CHARS: usize = 64;
/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY_CHARS: usize = 128;
/// How long the answer to a request with an idempotency key is kept.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a request with an idempotency key may be under way before a repetition takes over.
pub const IDEMPOTENCY_LOCK: Duration = Duration::from_secs(60);
/// Bytes of an answer that is kept for its idempotency key.
pub const IDEMPOTENCY_ANSWER_BYTES: usize = 256 * 1024;
/// Tokens that can exist at once.
pub const TOKENS: i64 = 10_000;
/// How long a token's look-up is believed; a token revoked by another process works at most this long.
pub const TOKEN_CACHED: Duration = Duration::from_secs(5);
/// Tokens kept in memory.
pub const TOKEN_CACHE_ENTRIES: usize = 10_000;
/// How often a token's last use is written down.
pub const TOKEN_USE_RESOLUTION: Duration = Duration::from_secs(60);
/// Principals and addresses whose request rates are kept in memory.
pub const RATE_ENTRIES: usize = 50_000;
/// Live events that a slow reader may be behind before it loses some (and is told how many).
pub const LIVE_EVENTS: usize = 1_024;
/// Readers of live events in one process.
pub const LIVE_READERS: usize = 256;
/// Time between comments on an idle live stream, so that proxies keep it open.
pub const LIVE_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time after which a live stream ends, so that a revoked token sees events no longer than that.
pub const LIVE_STREAM: Duration = Duration::from_secs(15 * 60);
/// Read connections to SQLite.
pub const SQLITE_READERS: u32 = 4;
/// Time to wait for a database connection before a request fails with 503.
pub const DATABASE_ACQUIRE: Duration = Duration::from_secs(5);
/// Time that a lease lasts without renewal: how long work rests when the process that did it dies.
pub const LEASE: Duration = Duration::from_secs(10);
/// Time to finish what is under way after a signal to stop.
pub const DRAIN: Duration = Duration::from_secs(20);
