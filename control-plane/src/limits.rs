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
/// HTTP connections that may wait to be accepted. The standard library's 128 drop most of a thousand devices that connect in
/// the same moment, and they try again a second later.
pub const HTTP_BACKLOG: u32 = 1_024;
/// How long an HTTP connection may accept no byte of an answer before it is closed.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// Bytes that wait in an HTTP connection to be read or written, at most: so much does a slow reader hold, and a request's
/// head may be as long.
pub const HTTP_BUFFER_BYTES: usize = 64 * 1024;
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
/// Characters of a tag's or an attribute's value, and of other short texts.
pub const VALUE_CHARS: usize = 256;
/// Characters of a description.
pub const DESCRIPTION_CHARS: usize = 1_024;
/// Tags of a device, and attributes of a device that operators set.
pub const PAIRS: usize = 64;
/// Fleets that can exist.
pub const FLEETS: i64 = 1_000;
/// Enrolment keys of a fleet that work at once.
pub const CLAIMS: i64 = 1_000;
/// Serial numbers, and hardware classes, that an enrolment key can be restricted to.
pub const CLAIM_ALLOWS: usize = 1_000;
/// How often each process looks for devices that another one has changed: a device blocked elsewhere is disconnected
/// after at most this long.
pub const DIRECTORY_POLL: Duration = Duration::from_secs(1);
/// How far the clocks of the processes on one database may differ, transactions' time included, without a change
/// being noticed late.
pub const DIRECTORY_OVERLAP: Duration = Duration::from_secs(120);
/// How often all devices are read again, whatever the clocks say.
pub const DIRECTORY_RELOAD: Duration = Duration::from_secs(600);
/// How exactly the time of a device's last message is written down.
pub const SEEN_RESOLUTION: Duration = Duration::from_secs(10);
/// With an external broker, connections cannot be observed: devices seen within this time count as connected.
pub const SEEN_IS_CONNECTED: Duration = Duration::from_secs(180);
/// How long a process' connections count after its last sign of life.
pub const ENDPOINT: Duration = Duration::from_secs(15);
/// How long connections that come and go are collected before they are written down.
pub const PRESENCE_DELAY: Duration = Duration::from_millis(300);
/// Log-ins with an id that is not in memory and must be looked for in the database: per second, over all addresses.
pub const LOGIN_LOOKUPS_RATE: u32 = 50;
/// The same, at once.
pub const LOGIN_LOOKUPS_BURST: u32 = 200;
/// Failed log-ins per second of one address, on average, before further ones are refused without a look and a log line.
pub const LOGIN_FAILURES_RATE: u32 = 2;
/// The same, at once.
pub const LOGIN_FAILURES_BURST: u32 = 60;
/// Desired states that are published in one round.
pub const PUBLISH_BATCH: i64 = 500;
/// How long the authority that signs devices' certificates is valid: 20 years.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How far in the past a new certificate's validity begins, since devices' clocks are not exact.
pub const CERTIFICATE_BACKDATED: Duration = Duration::from_secs(3_600);
/// Certificates that a device gets in a day, so that one that asks again and again fills no table.
pub const CERTIFICATES_PER_DAY: i64 = 100;
/// How long a list of revoked certificates is valid.
pub const CRL_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// Models that can exist.
pub const MODELS: i64 = 10_000;
/// Versions of a model.
pub const MODEL_VERSIONS: i64 = 100_000;
/// Uploads of artifacts at once; each takes up to twice the largest artifact in memory.
pub const UPLOADS: usize = 4;
/// Aliases of a model.
pub const ALIASES: usize = 100;
/// Sources that wait to be compiled, over all models.
pub const COMPILATIONS: usize = 100;
/// How often each process looks for sources that another one took in, or died over.
pub const COMPILATIONS_POLL: Duration = Duration::from_secs(2);
/// How often the progress of a compilation is written down, and its lease renewed.
pub const COMPILATION_PROGRESS: Duration = Duration::from_secs(1);
/// How often a compilation is begun before it is given up, because processes end over it.
pub const COMPILATION_ATTEMPTS: i64 = 3;
/// How long it is shown what became of a compilation.
pub const COMPILATIONS_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of the stack of a thread that compiles.
pub const COMPILER_STACK: usize = 16 << 20;
/// Digests whose model version is kept in memory.
pub const MODEL_DIGESTS_CACHED: usize = 10_000;
/// Artifacts that leave one process at once. Each takes the connection's [`HTTP_BUFFER_BYTES`] and a few pieces: 8 KiB
/// each from a folder, as long as they come from S3.
pub const DOWNLOADS: usize = 512;
/// Artifacts that a device fetches at once.
pub const DEVICE_DOWNLOADS: usize = 2;
/// Requests per second of a device for artifacts, on average: each may be for a part of one.
pub const DEVICE_DOWNLOADS_RATE: u32 = 5;
/// The same, at once.
pub const DEVICE_DOWNLOADS_BURST: u32 = 50;
/// How long a download may rest because its reader takes nothing.
pub const DOWNLOAD_STALL: Duration = WRITE_STALL;
/// Pieces of artifacts and roots that are read for devices without HTTP at once.
pub const PIECES: usize = 64;
/// Such pieces per second, on average.
pub const PIECES_RATE: u32 = 1_000;
/// The same, at once.
pub const PIECES_BURST: u32 = 1_000;
/// Such pieces that a device may wait for at once.
pub const DEVICE_PIECES: usize = 4;
/// Such pieces of a device per second, on average: 100 KiB.
pub const DEVICE_PIECES_RATE: u32 = 25;
/// The same, at once.
pub const DEVICE_PIECES_BURST: u32 = 50;
/// How long a device waits when its piece is missing or damaged in the object store.
pub const PIECE_FAILED: Duration = Duration::from_secs(60);
/// How far the clock of whoever writes a root may be ahead of the server's.
pub const OWNERS_CLOCK: Duration = Duration::from_secs(3_600);

/// A duration in microseconds.
pub const fn micros(duration: Duration) -> i64 {
    let micros = duration.as_micros();
    if micros > i64::MAX as u128 { i64::MAX } else { micros as i64 }
}
