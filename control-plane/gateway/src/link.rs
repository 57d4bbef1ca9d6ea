//! What connects a connection's task with the rest: tokens, senders, and the registry.

use crate::{CloseReason, Message, outbox::Outbox};
use futures_util::task::AtomicWaker;
use std::{
    sync::{Mutex, MutexGuard},
    task::Waker,
};

/// One connection, as others see it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    inbox: Mutex<Inbox>,
    waker: AtomicWaker,
}

/// What others have for the connection's task.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Publishes whose token has ended: their number, and whether they are committed.
    pub(crate) completed: Vec<(u64, bool)>,
    pub(crate) outbox: Outbox,
    pub(crate) request: Option<Request>,
    /// The connection's task is gone: nothing is taken any more.
    closed: bool,
}

/// What the connection's task is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Read no more, send the PUBACKs of what is in flight as it is committed, then disconnect.
    Drain,
    /// Disconnect now.
    Close(CloseReason),
}

impl Link {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inbox> {
        // No code that can panic runs under the lock.
        self.inbox.lock().expect("not poisoned")
    }

    /// Has `waker` woken by everything that comes in from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// A token has ended.
    pub(crate) fn complete(&self, number: u64, committed: bool) {
        let mut inbox = self.lock();
        if !inbox.closed {
            inbox.completed.push((number, committed));
            drop(inbox);
            self.waker.wake();
        }
    }

    /// Queues a message; `None` if the connection is gone, otherwise how many messages had to go for it.
    pub(crate) fn send(&self, message: Message, limit: usize) -> Option<usize> {
        let mut inbox = self.lock();
        if inbox.closed {
            return None;
        }
        let lost = inbox.outbox.push(message, limit);
        drop(inbox);
        self.waker.wake();
        Some(lost)
    }

    pub(crate) fn request(&self, request: Request) {
        let mut inbox = self.lock();
        // The first reason to close stays; a close overrules draining.
        if !matches!(inbox.request, Some(Request::Close(_))) {
            inbox.request = Some(request);
        }
        drop(inbox);
        self.waker.wake();
    }

    /// Nothing comes in any more; what was there is dropped.
    pub(crate) fn close(&self) {
        let mut inbox = self.lock();
        *inbox = Inbox { closed: true, ..Inbox::default() };
    }
}
