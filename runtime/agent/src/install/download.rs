//! Fetching an artifact over HTTP: resumed, bounded in size and rate.

use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, IF_RANGE, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use tokio::time::Instant;

use super::banks::BankFile;
use crate::http;
use crate::update::{Event, Model};

/// How long a server may take to say something.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest refusal that is read, in bytes.
const MAX_REFUSAL: usize = 4096;

/// What is fetched, and how.
pub(super) struct Download {
    pub(super) url: String,
    /// PEM; the system's roots without it.
    pub(super) ca: Option<String>,
    pub(super) model: Model,
    /// After so many bytes what was fetched is made to stay.
    pub(super) sync_every: u32,
    /// Most bytes in a second; 0 as many as come.
    pub(super) bytes_per_s: u32,
}

/// Why a download ended before everything was there, for the state machine and for people.
pub(super) type Ended = (Event, String);

impl Download {
    /// Fetches what is missing; tells `stored` how far it has come.
    pub(super) async fn run(&self, mut file: BankFile, mut stored: impl FnMut(u32)) -> Result<(), Ended> {
        let mut response = self.ask(file.written()).await?;
        let mut skip = skipped(&response, file.written(), self.model.size)?;
        let (started, begin) = (Instant::now(), file.written());
        let mut unsynced = 0;
        let cause = loop {
            let bytes = match response.chunk().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break None,
                Err(error) => break Some(http::cause(error)),
            };
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            let bytes = bytes.get(skipped..).unwrap_or_default();
            let room = self.model.size.saturating_sub(file.written());
            if u32::try_from(bytes.len()).map_or(true, |length| length > room) {
                return Err((Event::TooMuch, format!("it is longer than {} bytes", self.model.size)));
            }
            file.append(bytes).map_err(storage)?;
            unsynced += bytes.len();
            if unsynced >= self.sync_every as usize {
                unsynced = 0;
                stored(file.sync().map_err(storage)?);
            }
            if self.bytes_per_s > 0 {
                let fetched = f64::from(file.written().saturating_sub(begin));
                let least = Duration::from_secs_f64(fetched / f64::from(self.bytes_per_s));
                tokio::time::sleep_until(started + least).await;
            }
        };
        // Whatever came is worth keeping.
        stored(file.sync().map_err(storage)?);
        if file.written() == self.model.size {
            return Ok(());
        }
        let ended = format!("it ended after {} of {} bytes", file.written(), self.model.size);
        let ended = cause.map_or(ended.clone(), |cause| format!("{ended}: {cause}"));
        Err((Event::FetchFailed { retry_after_ms: 0 }, ended))
    }

    /// Asks for the bytes from `offset` on.
    async fn ask(&self, offset: u32) -> Result<Response, Ended> {
        let client = http::client(&self.url, self.ca.as_deref())
            .map_err(|error| (Event::FetchFailed { retry_after_ms: 0 }, error.to_string()))?
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
            // What is fetched is signed; where from is, too.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(failed)?;
        let response = self.request(&client, offset).send().await.map_err(failed)?;
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let retry_after_ms = retry_after_ms(response.headers());
        let body = http::body(response, MAX_REFUSAL).await.ok().flatten().unwrap_or_default();
        let reason = http::reason(&body).unwrap_or_default();
        let said = format!("the server answers {} {reason}", status.as_u16());
        Err((Event::FetchFailed { retry_after_ms }, said.trim_end().to_owned()))
    }

    fn request(&self, client: &Client, offset: u32) -> reqwest::RequestBuilder {
        let request = client.get(&self.url);
        if offset == 0 {
            return request;
        }
        let digest: String = self.model.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let request = request.header(RANGE, format!("bytes={offset}-"));
        // If it is another artifact all of it comes, and is refused when it is verified.
        request.header(IF_RANGE, format!("\"{digest}\""))
    }
}

/// How many of the bytes that come are there already: all before `offset` when the server does not give a part.
fn skipped(response: &Response, offset: u32, size: u32) -> Result<usize, Ended> {
    if response.status() == StatusCode::OK {
        return Ok(offset as usize);
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    match range {
        Some(range) if is_from(range, offset, size) => Ok(0),
        range => {
            let said = format!("the server gives the part {:?}, not that from {offset}", range.unwrap_or(""));
            Err((Event::FetchFailed { retry_after_ms: 0 }, said))
        }
    }
}

/// Whether a `Content-Range` is the rest of an artifact from a byte on.
fn is_from(range: &str, offset: u32, size: u32) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|range| range.split_once(['-']));
    let Some((from, rest)) = parts else { return false };
    let Some((_, total)) = rest.split_once('/') else { return false };
    from.parse() == Ok(offset) && total.parse() == Ok(size)
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3); a date is not worth a clock.
fn retry_after_ms(headers: &HeaderMap) -> u64 {
    let seconds = headers.get(RETRY_AFTER).and_then(|value: &HeaderValue| value.to_str().ok()?.parse().ok());
    seconds.map_or(0, |seconds: u64| seconds.saturating_mul(1000))
}

fn failed(error: reqwest::Error) -> Ended {
    (Event::FetchFailed { retry_after_ms: 0 }, http::cause(error))
}

fn storage(error: std::io::Error) -> Ended {
    (Event::StorageFailed, error.to_string())
}
