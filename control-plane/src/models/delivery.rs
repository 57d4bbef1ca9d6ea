//! Artifacts as they leave the server: streamed from the object store in pieces, with ranges and entity tags.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dunlin_artifact::Digester;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::App;
use crate::http::Problem;
use crate::limits;

/// The part of an artifact that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// From the first byte to before the second one; not empty.
    Part(u64, u64),
    /// Nothing of it is there.
    Beyond,
}

/// Answers a request for an artifact. `guard` is dropped when the last byte has left, or the reader is gone.
pub(super) async fn deliver<G: Send + 'static>(
    app: &App,
    digest: &str,
    size: u64,
    request: &HeaderMap,
    guard: G,
) -> Result<Response, Problem> {
    let tag = format!("\"{digest}\"");
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, text(&tag));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The digest is in the path or the tag: the bytes never change. Not for caches that others share.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    if has_it(request, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let (status, from, to) = match wanted(request, &tag, size) {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part(from, to) => {
            let range = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
            headers.insert(header::CONTENT_RANGE, text(&range));
            (StatusCode::PARTIAL_CONTENT, from, to)
        }
        Wanted::Beyond => {
            headers.insert(header::CONTENT_RANGE, text(&format!("bytes */{size}")));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
    };
    let is_all = to - from == size;
    // Asking for all without a range, a shorter object is found to be damaged; with one, the store fails.
    let range = (!is_all).then_some(from..to);
    let object = super::open(app, digest, size, range).await?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    let (sender, receiver) = mpsc::channel(1);
    let check = is_all.then(Digester::new);
    let patience = limits::DOWNLOAD_STALL;
    let sent = app.models.downloads.sent();
    let pump = Pump { digest: digest.to_owned(), check, left: to - from, patience, sent, sender };
    let stream = object.into_stream();
    tokio::spawn(async move {
        pump.run(stream).await;
        drop(guard);
    });
    Ok((status, headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

fn text(text: &str) -> HeaderValue {
    // Digests and numbers are plain text.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn has_it(request: &HeaderMap, tag: &str) -> bool {
    let tags = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    tags.is_some_and(|tags| tags.split(',').any(|one| matches!(one.trim(), one if one == tag || one == "*")))
}

/// Reads `Range` (RFC 9110, 14.2): one range; what cannot be read and several ranges mean everything, as does an
/// `If-Range` of another artifact.
fn wanted(request: &HeaderMap, tag: &str, size: u64) -> Wanted {
    if request.get(header::IF_RANGE).is_some_and(|value| value != tag) {
        return Wanted::All;
    }
    let range = request.get(header::RANGE).and_then(|value| value.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-'));
    let number = |digits: &str| -> Option<u64> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let (from, to) = match range {
        Some(("", last)) => match number(last) {
            Some(last) => (size.saturating_sub(last), size),
            None => return Wanted::All,
        },
        Some((from, "")) => match number(from) {
            Some(from) => (from, size),
            None => return Wanted::All,
        },
        Some((from, last)) => match (number(from), number(last)) {
            (Some(from), Some(last)) if from <= last => (from, size.min(last.saturating_add(1))),
            _ => return Wanted::All,
        },
        None => return Wanted::All,
    };
    if from < to { Wanted::Part(from, to) } else { Wanted::Beyond }
}

/// Carries an artifact from the object store to a reader.
struct Pump {
    digest: String,
    /// Of a whole artifact.
    check: Option<Digester>,
    left: u64,
    /// How long the reader may take nothing.
    patience: Duration,
    /// Counts what it took.
    sent: Counter,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Pump {
    async fn run(mut self, mut stream: BoxStream<'static, object_store::Result<Bytes>>) {
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return self.fail(&error).await,
            };
            let Some(left) = self.left.checked_sub(piece.len() as u64) else {
                return self.fail(&"more bytes than there should be").await;
            };
            self.left = left;
            if let Some(check) = &mut self.check {
                check.update(&piece);
            }
            // The last piece leaves only when all bytes are right: nobody gets a damaged artifact as a whole.
            if left == 0 && self.is_damaged() {
                return self.fail(&"the digest is wrong; upload the artifact again").await;
            }
            let length = piece.len() as u64;
            let sent = tokio::time::timeout(self.patience, self.sender.send(Ok(piece))).await;
            // A reader that has gone, or takes nothing any more.
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
            self.sent.inc_by(length);
            if left == 0 {
                return;
            }
        }
        self.fail(&"it ended early").await;
    }

    fn is_damaged(&mut self) -> bool {
        self.check.take().is_some_and(|check| hex::encode(check.finish()) != self.digest)
    }

    async fn fail(&self, why: &(dyn std::fmt::Display + Sync)) {
        tracing::error!(digest = self.digest, %why, "an artifact cannot be read from the object store");
        let error = Err(io::Error::other("the artifact cannot be read"));
        // The connection ends before the promised length; a reader that has gone needs no word.
        let _ = tokio::time::timeout(self.patience, self.sender.send(error)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn pump(left: u64, patience: Duration, sender: mpsc::Sender<io::Result<Bytes>>) -> Pump {
        Pump { digest: String::new(), check: None, left, patience, sent: Counter::default(), sender }
    }

    #[tokio::test]
    async fn a_slow_reader_holds_a_few_pieces_however_long_the_artifact_is() {
        const PIECES: usize = 1_000;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let pieces = futures_util::stream::iter(0..PIECES).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(&[0; 8]))
        });
        let (sender, mut receiver) = mpsc::channel(1);
        let pump = pump(8 * PIECES as u64, Duration::MAX, sender);
        let sent = pump.sent.clone();
        let running = tokio::spawn(pump.run(pieces.boxed()));
        for read in 1..=PIECES {
            assert_eq!(receiver.recv().await.expect("a piece").expect("bytes").len(), 8);
            // One is in the channel, one waits for its place there.
            assert!(taken.load(Ordering::Relaxed) <= read + 2);
        }
        assert!(receiver.recv().await.is_none());
        running.await.expect("it ends");
        assert_eq!(sent.get(), 8 * PIECES as u64);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_left() {
        let pieces = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[0; 8])));
        let (sender, mut receiver) = mpsc::channel(1);
        pump(u64::MAX, Duration::from_millis(1), sender).run(pieces.boxed()).await;
        assert!(receiver.recv().await.is_some_and(|piece| piece.is_ok()));
        assert!(receiver.recv().await.is_none(), "the answer ends early");
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let of = |range: &str, if_range: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().expect("a header"));
            if let Some(if_range) = if_range {
                headers.insert(header::IF_RANGE, if_range.parse().expect("a header"));
            }
            wanted(&headers, "\"abc\"", 100)
        };
        for (range, expected) in [
            ("bytes=0-9", Wanted::Part(0, 10)),
            ("bytes=90-", Wanted::Part(90, 100)),
            ("bytes=-10", Wanted::Part(90, 100)),
            ("bytes=-1000", Wanted::Part(0, 100)),
            ("bytes=99-1000", Wanted::Part(99, 100)),
            ("bytes=0-18446744073709551615", Wanted::Part(0, 100)),
            ("bytes=100-", Wanted::Beyond),
            ("bytes=100-200", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=99999999999999999999-", Wanted::All),
            ("items=0-1", Wanted::All),
        ] {
            assert_eq!(of(range, None), expected, "{range}");
        }
        assert_eq!(of("bytes=1-2", Some("\"abc\"")), Wanted::Part(1, 3));
        assert_eq!(of("bytes=1-2", Some("\"other\"")), Wanted::All);
        assert_eq!(wanted(&HeaderMap::new(), "\"abc\"", 100), Wanted::All);
    }
}
