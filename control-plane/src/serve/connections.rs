//! Bounds the HTTP connections of a process.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

/// Counts connections.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Semaphore>);

impl Connections {
    /// At most `most` at a time.
    pub(super) fn new(most: usize) -> Self {
        Connections(Arc::new(Semaphore::new(most)))
    }

    /// An acceptor that closes connections above the limit at once, before any handshake.
    pub(super) fn around<A>(self, inner: A) -> Counted<A> {
        Counted { connections: self, inner }
    }
}

/// See [`Connections::around`].
#[derive(Clone, Debug)]
pub(super) struct Counted<A> {
    connections: Connections,
    inner: A,
}

impl<I, S, A> Accept<I, S> for Counted<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = Held<A::Service>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.connections.0).try_acquire_owned() else {
            return Box::pin(async { Err(io::Error::other("too many connections")) });
        };
        let accepted = self.inner.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((stream, Held { service, _permit: Arc::new(permit) }))
        })
    }
}

/// A connection's service, which holds the connection's place as long as it lives.
#[derive(Clone, Debug)]
pub(super) struct Held<S> {
    service: S,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<S: Service<R>, R> Service<R> for Held<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.service.call(request)
    }
}
