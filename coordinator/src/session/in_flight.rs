//! A request that has been sent goes on to its answer even when nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

type Request<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Dropped before its end, it finishes in the background: it cannot be taken back from the server, and until it is answered it
/// counts among the requests outstanding, or callers that give up early would queue up requests without bound.
pub(crate) struct InFlight<T: Send + 'static> {
    request: Option<Request<T>>,
}

impl<T: Send + 'static> InFlight<T> {
    pub(crate) fn new(request: impl Future<Output = T> + Send + 'static) -> Self {
        Self { request: Some(Box::pin(request)) }
    }
}

impl<T: Send + 'static> Future for InFlight<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(request) = self.request.as_mut() else { return Poll::Pending };
        let answer = request.as_mut().poll(context);
        if answer.is_ready() {
            self.request = None;
        }
        answer
    }
}

impl<T: Send + 'static> Drop for InFlight<T> {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        // Without a runtime the process is ending, and the connection with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move { drop(request.await) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_still_ends() {
        let (answer, answered) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel::<()>();
        let mut request = InFlight::new(async move {
            answered.await.unwrap();
            end.send(()).unwrap();
        });
        assert!(futures::poll!(&mut request).is_pending());
        drop(request);
        answer.send(()).unwrap();
        ended.await.unwrap();
    }
}
