//! The control plane's HTTP API.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Login, ServerArgs};
use crate::error::{Failure, read_file};

/// How long one request may take. Uploads are the longest.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request is made that the server could not take now.
const ATTEMPTS: u32 = 5;
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Entries that are asked for at once.
const PAGE: &str = "500";
/// Bytes of a file of certificates.
const MAX_CA: u64 = 1 << 20;
/// Silence after which a live stream is taken for dead; the server sends a comment every 15 s.
const LIVE_SILENCE: Duration = Duration::from_secs(45);
/// How long a live stream that was lost is waited for, which is as long as a server may take to start again.
const LIVE_PATIENCE: Duration = Duration::from_secs(15);
/// Time between two attempts to get it back.
const LIVE_PAUSE: Duration = Duration::from_millis(500);

/// A connection to the control plane. Its methods wait for the answer.
#[derive(Debug)]
pub(crate) struct Api {
    runtime: Runtime,
    client: Client,
    base: Url,
}

/// What a request carries.
#[derive(Clone, Debug)]
enum Body<'a> {
    None,
    Json(&'a Value),
    Bytes(&'a [u8]),
}

impl Api {
    /// For the server and the token that the arguments, the environment or the login file name.
    pub(crate) fn connect(arguments: &ServerArgs) -> Result<Self, Failure> {
        Self::new(&Login::find(arguments)?)
    }

    /// For this login.
    pub(crate) fn new(login: &Login) -> Result<Self, Failure> {
        let wrong = || {
            let message = format!("{:?} is no address of a control plane", login.server);
            Failure::usage(message).way_out("it looks like http://host:port or https://host")
        };
        let base: Url = login.server.parse().map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong());
        }
        // The process' choice of cryptography; somebody may have made the same choice before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut authorization = HeaderValue::from_str(&login.token.header())
            .map_err(|_| Failure::usage("the token has odd characters"))?;
        authorization.set_sensitive(true);
        let mut client = Client::builder();
        if let Some(ca) = &login.ca {
            client = client.tls_certs_only(certificates(ca)?);
        }
        let client = client
            .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, authorization)]))
            .connect_timeout(Duration::from_secs(10))
            // The token goes to the named server only.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::new(format!("no HTTP client: {error}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("no event loop: {error}")))?;
        Ok(Api { runtime, client, base })
    }

    /// The server's address.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// GET; `path` are the segments below `/api/v1`.
    pub(crate) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        self.json(Method::GET, path, query, Body::None, None).map(|(value, _)| value)
    }

    /// Whether there is something at this path.
    pub(crate) fn exists(&self, path: &[&str]) -> Result<bool, Failure> {
        let request = self.client.get(self.url(path)?).timeout(TIMEOUT);
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(false),
                status if status.is_success() => Ok(true),
                _ => Err(self.problem(response).await),
            }
        })
    }

    /// GET of bytes.
    pub(crate) fn download(&self, path: &[&str]) -> Result<Vec<u8>, Failure> {
        let request = self.client.get(self.url(path)?).timeout(TIMEOUT);
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            if !response.status().is_success() {
                return Err(self.problem(response).await);
            }
            self.answer(response.bytes().await).map(Into::into)
        })
    }

    /// All entries of a list, or the first `limit` of them, whatever the size of its pages.
    pub(crate) fn list(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Option<usize>,
    ) -> Result<Vec<Value>, Failure> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        let mut cursor = None::<String>;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", PAGE));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, &query)?;
            let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) else {
                return Err(self.strange(path));
            };
            entries.extend(items);
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || entries.len() >= limit {
                entries.truncate(limit);
                return Ok(entries);
            }
        }
    }

    /// POST of a JSON object. A repetition after a lost answer has no further effect.
    pub(crate) fn post(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.json(Method::POST, path, &[], Body::Json(body), None).map(|(value, _)| value)
    }

    /// POST of bytes.
    pub(crate) fn upload(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        bytes: &[u8],
    ) -> Result<Value, Failure> {
        self.json(Method::POST, path, query, Body::Bytes(bytes), None).map(|(value, _)| value)
    }

    /// GET of something that changes are made to, with its tag.
    pub(crate) fn get_tagged(&self, path: &[&str]) -> Result<(Value, Option<String>), Failure> {
        self.json(Method::GET, path, &[], Body::None, None)
    }

    /// PUT of a JSON object where nobody else has changed what it belongs to, as the tag says; with the next tag.
    pub(crate) fn put_tagged(
        &self,
        path: &[&str],
        body: &Value,
        etag: Option<&str>,
    ) -> Result<(Value, Option<String>), Failure> {
        self.json(Method::PUT, path, &[], Body::Json(body), etag)
    }

    /// PUT of bytes.
    pub(crate) fn replace(&self, path: &[&str], bytes: &[u8]) -> Result<Value, Failure> {
        self.json(Method::PUT, path, &[], Body::Bytes(bytes), None).map(|(value, _)| value)
    }

    /// PATCH of what is there now: somebody else's change in between is an error, not undone.
    pub(crate) fn patch(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        let (_, etag) = self.get_tagged(path)?;
        self.json(Method::PATCH, path, &[], Body::Json(body), etag.as_deref()).map(|(value, _)| value)
    }

    /// DELETE.
    pub(crate) fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.json(Method::DELETE, path, &[], Body::None, None).map(|(value, _)| value)
    }

    /// The live events from now on.
    pub(crate) fn live(&self) -> Result<Live<'_>, Failure> {
        let url = self.url(&["live"])?;
        let response = self.runtime.block_on(self.open_live(&url, Duration::ZERO))?;
        Ok(Live { api: self, url, response, lines: Lines::default(), events: VecDeque::new() })
    }

    /// Opens the live stream; a server that is not there is waited for.
    async fn open_live(&self, url: &Url, patience: Duration) -> Result<Response, Failure> {
        let begin = Instant::now();
        loop {
            let request = self.client.get(url.clone()).header(ACCEPT, "text/event-stream").send();
            let answered = tokio::time::timeout(TIMEOUT, request).await;
            let failure = match answered.map(|result| self.answer(result)) {
                Ok(Ok(response)) if response.status().is_success() => return Ok(response),
                Ok(Ok(response)) => self.problem(response).await,
                Ok(Err(failure)) => failure,
                Err(_) => self.unreachable("does not answer in time"),
            };
            if !failure.is_unavailable() || begin.elapsed() >= patience {
                return Err(failure);
            }
            tokio::time::sleep(LIVE_PAUSE).await;
        }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut url = self.base.clone();
        let segments = url.path_segments_mut();
        let mut segments = segments.map_err(|()| Failure::usage("the server's address has no path"))?;
        segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        drop(segments);
        Ok(url)
    }

    fn json(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body,
        etag: Option<&str>,
    ) -> Result<(Value, Option<String>), Failure> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method.clone(), url).timeout(TIMEOUT);
        request = match body {
            Body::None if method == Method::POST => {
                request.header(CONTENT_TYPE, "application/json").body("{}")
            }
            Body::None => request,
            Body::Json(json) => request.header(CONTENT_TYPE, "application/json").body(json.to_string()),
            Body::Bytes(bytes) => {
                request.header(CONTENT_TYPE, "application/octet-stream").body(bytes.to_vec())
            }
        };
        if method == Method::POST {
            request = request.header("Idempotency-Key", uuid::Uuid::now_v7().to_string());
        }
        if let Some(etag) = etag {
            request = request.header(IF_MATCH, etag);
        }
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            if !response.status().is_success() {
                return Err(self.problem(response).await);
            }
            let etag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            let bytes = self.answer(response.bytes().await)?;
            if bytes.is_empty() {
                return Ok((Value::Null, etag));
            }
            let value = serde_json::from_slice(&bytes).map_err(|_| self.strange(path))?;
            Ok((value, etag))
        })
    }

    /// Sends a request that may be repeated: again while the server says "not now" or does not answer.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let mut wait = Duration::from_millis(250);
        for attempt in 1.. {
            let copy = request.try_clone().ok_or_else(|| Failure::new("the request cannot be repeated"))?;
            let result = copy.send().await;
            let later = match &result {
                Ok(response) => match response.status() {
                    StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                        let seconds =
                            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                        Some(seconds.and_then(|text| text.parse().ok()).map_or(wait, Duration::from_secs))
                    }
                    _ => None,
                },
                // Where nobody listens, nobody will in a moment; an interrupted request is worth another try.
                Err(error) => (!error.is_connect()).then_some(wait),
            };
            match later {
                Some(later) if attempt < ATTEMPTS => tokio::time::sleep(later.min(LONGEST_WAIT)).await,
                _ => return self.answer(result),
            }
            wait *= 2;
        }
        unreachable!("the loop only ends by returning")
    }

    fn answer<T>(&self, result: Result<T, reqwest::Error>) -> Result<T, Failure> {
        result.map_err(|error| {
            let what = if error.is_connect() {
                "cannot be reached"
            } else if error.is_timeout() {
                "does not answer in time"
            } else {
                "ended the connection"
            };
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            let cause = cause.to_string();
            let failure = self.unreachable(&format!("{what}: {cause}"));
            // The words of rustls; its error type is not visible through all layers.
            if cause.starts_with("invalid peer certificate") {
                return failure
                    .way_out("name the certificate of its authority with --ca, and the host as it does");
            }
            failure
        })
    }

    fn unreachable(&self, what: &str) -> Failure {
        Failure::unavailable(format!("{} {what}", self.address()))
            .way_out("check --server and that `dunlin serve` runs there")
    }

    /// The failure that a problem of the server is.
    async fn problem(&self, response: Response) -> Failure {
        let status = response.status();
        let bytes = response.bytes().await.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let field = |name| problem.get(name).and_then(Value::as_str);
        let Some(detail) = field("detail") else {
            return Failure::of_status(status.as_u16(), format!("{} answers {status}", self.address()));
        };
        let about =
            field("field").map(|name| format!("{}: ", name.trim_start_matches('/'))).unwrap_or_default();
        // A filter's error draws its place on further lines; what it suggests stands behind the mark.
        let (what, drawing) = detail.split_once('\n').unwrap_or((detail, ""));
        let suggestion = drawing.rsplit('^').next().unwrap_or_default().trim();
        let failure = Failure::of_status(status.as_u16(), format!("{about}{what}"));
        match status {
            _ if !suggestion.is_empty() => failure.way_out(suggestion),
            StatusCode::UNAUTHORIZED => failure.way_out("`dunlin login` with a valid token"),
            StatusCode::FORBIDDEN => failure.way_out("ask for a token with another role or scope"),
            status if status.is_server_error() => match field("request_id") {
                Some(id) => failure.way_out(format!("the request's id is {id}")),
                None => failure,
            },
            _ => failure,
        }
    }

    fn strange(&self, path: &[&str]) -> Failure {
        let message = format!("{} answers /{} with something unexpected", self.address(), path.join("/"));
        Failure::new(message).way_out("is this a control plane of another release?")
    }
}

/// What happens, as it happens. Between two events the connection may ask for other things.
#[derive(Debug)]
pub(crate) struct Live<'a> {
    api: &'a Api,
    url: Url,
    response: Response,
    lines: Lines,
    events: VecDeque<Value>,
}

impl Live<'_> {
    /// Waits for the next event; a lost connection is made again, if the server is back soon. What happened meanwhile
    /// is not told.
    pub(crate) fn next(&mut self) -> Result<Value, Failure> {
        self.api.runtime.block_on(async {
            loop {
                if let Some(event) = self.events.pop_front() {
                    return Ok(event);
                }
                match tokio::time::timeout(LIVE_SILENCE, self.response.chunk()).await {
                    Ok(Ok(Some(chunk))) => {
                        let lines = self.lines.push(&chunk);
                        let data = lines.iter().filter_map(|line| line.strip_prefix("data:"));
                        self.events.extend(data.filter_map(|data| serde_json::from_str(data.trim()).ok()));
                    }
                    _ => {
                        self.lines = Lines::default();
                        self.response = self.api.open_live(&self.url, LIVE_PATIENCE).await?;
                    }
                }
            }
        })
    }
}

/// The certificates in a PEM file.
fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let found = Certificate::from_pem_bundle(&read_file(file, MAX_CA)?).unwrap_or_default();
    if found.is_empty() {
        return Err(Failure::new("holds no certificate in PEM").file(file));
    }
    Ok(found)
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that are complete with these bytes.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let complete: Vec<u8> = self.0.drain(..=end).collect();
        String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        assert!(lines.push(b"data: {\"a\"").is_empty());
        assert_eq!(lines.push(b":1}\n\nda"), ["data: {\"a\":1}", ""]);
        assert_eq!(lines.push(b"ta: 2\n"), ["data: 2"]);
    }
}
