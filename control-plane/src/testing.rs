//! A whole application in the test's process: temporary database, memory instead of a bus, a clock that stands still.
//!
//! The database is SQLite, or PostgreSQL when the variable `DUNLIN_TEST_POSTGRES` names one, as in
//! `postgres://postgres@127.0.0.1:5432/postgres`: every test then gets a schema of its own there.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::access::{NewToken, Role, Scope};
use crate::app::App;
use crate::bus::MemoryBus;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::db::{Db, migrations};

/// Where the tests' clock stands at the beginning: 2026-01-01 00:00:00 UTC.
pub(crate) const START_US: i64 = 1_767_225_600_000_000;

/// The application under test.
pub(crate) struct TestApp {
    /// The application.
    pub(crate) app: App,
    /// Its clock.
    pub(crate) clock: Arc<ManualClock>,
    /// Its bus: what was sent to devices, and the way to send from devices.
    pub(crate) bus: Arc<MemoryBus>,
    /// A token that may do everything.
    pub(crate) admin: String,
    router: axum::Router,
    _folder: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: bytes::Bytes,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The body as JSON, after checking the status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl TestApp {
    /// An application with the default settings.
    pub(crate) async fn new() -> Self {
        TestApp::with_settings(&[]).await
    }

    /// An application with some settings changed, by key.
    pub(crate) async fn with_settings(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = database_url(folder.path()).await;
        let mut flags: BTreeMap<String, String> =
            settings.iter().map(|(key, value)| (key.replace(['.', '_'], "-"), (*value).to_owned())).collect();
        flags.insert("data-dir".to_owned(), folder.path().display().to_string());
        let (config, _) = Config::load(None, &BTreeMap::new(), &flags).expect("settings");
        let clock = Arc::new(ManualClock::new(START_US));
        let db = Db::connect(&url, 4).await.expect("a database");
        db.migrate(migrations(), START_US).await.expect("migrations");
        let store = Arc::new(object_store::memory::InMemory::new());
        let app = App::new(config, db, Arc::clone(&clock) as _, store);
        let bus = Arc::new(MemoryBus::new(1024));
        app.set_bus(Arc::clone(&bus) as _);
        crate::trust::open(&app).await.expect("a director");
        crate::devices::open(&app).await.expect("an authority and devices");
        let router = crate::http::router(&app);
        let mut test = TestApp { app, clock, bus, admin: String::new(), router, _folder: folder };
        test.admin = test.token(Role::Admin, Scope::Everything).await;
        test
    }

    /// A new token.
    pub(crate) async fn token(&self, role: Role, scope: Scope) -> String {
        let new = NewToken { name: format!("test {}", role.name()), role, scope, expires_us: None };
        let (_, secret) = crate::access::create_token(
            &self.app,
            &crate::access::Caller::internal("system", "test", None),
            new,
        )
        .await
        .expect("a token");
        secret.reveal().to_owned()
    }

    /// Sends a request and leaves the answer's body to be read.
    pub(crate) async fn open(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = axum::body::to_bytes(body, 16 << 20).await.expect("a body");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A request as the administrator, with a JSON body unless it is null; `headers` are added.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        };
        self.send(request.body(body).expect("a request")).await
    }

    /// A request with a body of bytes.
    pub(crate) async fn send_bytes(&self, method: Method, path: &str, token: &str, body: Vec<u8>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::from(body));
        self.send(request.expect("a request")).await
    }

    /// GET as the administrator.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, Some(&self.admin), &[], Value::Null).await
    }

    /// POST as the administrator.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.request(Method::POST, path, Some(&self.admin), &[], body).await
    }

    /// PATCH as the administrator, whatever the state.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.request(Method::PATCH, path, Some(&self.admin), &[("if-match", "*")], body).await
    }

    /// DELETE as the administrator.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, Some(&self.admin), &[], Value::Null).await
    }
}

/// The URL of a new, empty database.
pub(crate) async fn database_url(folder: &std::path::Path) -> String {
    let Ok(server) = std::env::var("DUNLIN_TEST_POSTGRES") else {
        return format!("sqlite:{}?mode=rwc", folder.join("test.sqlite").display());
    };
    let schema = format!("test_{}", uuid::Uuid::now_v7().simple());
    let db = Db::connect(&server, 1).await.expect("the server of DUNLIN_TEST_POSTGRES");
    let create = sqlx::AssertSqlSafe(format!("create schema {schema}"));
    sqlx::raw_sql(create).execute(db.write()).await.expect("a schema");
    db.close().await;
    let separator = if server.contains('?') { '&' } else { '?' };
    format!("{server}{separator}options=-csearch_path%3D{schema}")
}
