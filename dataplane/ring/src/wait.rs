//! Waiting for time, for a condition that another task makes true, for watched sockets, and for one of two things.

use crate::core::with;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Waits until the core's time has reached `at_ns`.
pub async fn sleep_until(at_ns: u64) {
    wait_until(at_ns, || None::<()>).await;
}

/// Polls `ready` whenever the task is woken, until it yields a value or `until_ns` has passed (`None`). Whoever changes
/// what `ready` looks at wakes the task ([`crate::wake_task`]).
pub async fn wait_until<T>(until_ns: u64, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    std::future::poll_fn(|_| {
        if let Some(value) = ready() {
            return Poll::Ready(Some(value));
        }
        with(|core| {
            if core.now_ns >= until_ns {
                return Poll::Ready(None);
            }
            core.due(until_ns);
            Poll::Pending
        })
    })
    .await
}

/// The token of the next watched socket for which something came ([`crate::Socket::watch`]). One task of a core waits here.
pub async fn watched() -> u64 {
    std::future::poll_fn(|_| {
        with(|core| match core.watched.pop_front() {
            Some(token) => Poll::Ready(token),
            None => {
                core.watcher = core.tasks.current;
                Poll::Pending
            }
        })
    })
    .await
}

/// Which of two futures ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first did.
    First(A),
    /// The second did.
    Second(B),
}

/// The first of two futures to end; the first one is looked at first. The other can be polled on, or dropped.
pub async fn select<A, B>(first: Pin<&mut A>, second: Pin<&mut B>) -> Either<A::Output, B::Output>
where
    A: Future,
    B: Future,
{
    Select { first, second }.await
}

struct Select<'a, A, B> {
    first: Pin<&'a mut A>,
    second: Pin<&'a mut B>,
}

impl<A: Future, B: Future> Future for Select<'_, A, B> {
    type Output = Either<A::Output, B::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.first.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        self.second.as_mut().poll(context).map(Either::Second)
    }
}
