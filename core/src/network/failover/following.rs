//! Live events across carriers: a stream that outlives each of them.
//!
//! Place in the journey: what [`Failover::subscribe`](super::Failover) returns. It works only while it is polled, and
//! ends with its last carrier that could push, or when it is dropped. Only asking a carrier for its events goes on meanwhile:
//! calls may have to wait until the carrier has answered, and who makes them does not poll.
//!
//! It listens to every carrier down to the first one that is trusted and pushes. So one whose calls fail is heard as long
//! as it pushes, beside the one that takes its place, and one that comes back is heard before calls return to it; both may
//! say the same. What lies below is let go. Each change of carrier yields a wakeup, because something may have been missed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::stream::{BoxStream, Stream};
use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::FailoverPauses;
use super::carriers::Carriers;
use crate::model::AudienceKey;
use crate::network::{Ingress, NetworkError};

type Subscribed = Result<Option<BoxStream<'static, Ingress>>, NetworkError>;

/// Whether one carrier's events are heard.
enum Line {
    /// Not asked; not before `again` after a failure.
    Silent { failures: u32, again: Instant },
    /// Being asked.
    Asking { failures: u32, answer: Asked },
    /// Heard.
    Live(BoxStream<'static, Ingress>),
    /// This carrier has no push, and said so.
    NoPush,
}

/// The answer of a carrier that is asked in a task of its own, which ends when nobody wants the answer any more.
struct Asked(JoinHandle<Subscribed>);

impl Future for Asked {
    type Output = Subscribed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Subscribed> {
        match ready!(self.0.poll_unpin(cx)) {
            Ok(answer) => Poll::Ready(answer),
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            // The runtime is shutting down.
            Err(_) => Poll::Pending,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) struct Following {
    carriers: Arc<Carriers>,
    audiences: Arc<[AudienceKey]>,
    lines: Vec<Line>,
    look: Interval,
}

impl Following {
    /// Asks in order until one pushes; `None` if no carrier has push at all.
    pub(super) async fn start(
        carriers: Arc<Carriers>,
        audiences: &[AudienceKey],
    ) -> Result<Option<Self>, NetworkError> {
        let mut look = interval(carriers.pauses.first.max(std::time::Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lines = (0..carriers.len()).map(|_| Line::asked_never()).collect();
        let mut following = Self { carriers, audiences: audiences.into(), lines, look };
        for index in 0..following.lines.len() {
            if !following.carriers.may_be_asked(index) {
                continue;
            }
            following.lines[index] = match following.ask(index).await {
                Ok(Some(events)) => Line::Live(events),
                Ok(None) => Line::NoPush,
                Err(error) if error.is_carrier_trouble() => Line::failed(1, following.carriers.pauses),
                Err(error) => return Err(error),
            };
            if following.is_heard(index) {
                break;
            }
        }
        Ok(following.has_push().then_some(following))
    }

    fn ask(&self, index: usize) -> Asked {
        let network = Arc::clone(self.carriers.network(index));
        let audiences = Arc::clone(&self.audiences);
        Asked(tokio::spawn(async move { network.subscribe(&audiences).await }))
    }

    fn has_push(&self) -> bool {
        self.lines.iter().any(|line| !matches!(line, Line::NoPush))
    }

    /// Whether calls go there and its events come.
    fn is_heard(&self, index: usize) -> bool {
        matches!(self.lines[index], Line::Live(_)) && self.carriers.is_trusted(index)
    }

    /// Asks every carrier down to the first one that is heard, and lets go of those below. True if it let go of one.
    fn arrange(&mut self) -> bool {
        let first = (0..self.lines.len()).find(|index| self.is_heard(*index));
        let wanted = first.map_or(self.lines.len(), |index| index + 1);
        let now = Instant::now();
        for index in 0..wanted {
            if let Line::Silent { failures, again } = self.lines[index]
                && again <= now
                && self.carriers.may_be_asked(index)
            {
                self.lines[index] = Line::Asking { failures, answer: self.ask(index) };
            }
        }
        let mut let_go = false;
        for line in &mut self.lines[wanted..] {
            let_go |= matches!(line, Line::Live(_));
            if matches!(line, Line::Live(_) | Line::Asking { .. }) {
                *line = Line::asked_never();
            }
        }
        let_go
    }

    /// The next event of one carrier.
    fn poll_line(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Ingress> {
        let pauses = self.carriers.pauses;
        let line = &mut self.lines[index];
        match line {
            Line::Silent { .. } | Line::NoPush => Poll::Pending,
            Line::Live(events) => match ready!(events.poll_next_unpin(cx)) {
                Some(ingress) => Poll::Ready(ingress),
                None => {
                    *line = Line::failed(1, pauses);
                    Poll::Pending
                }
            },
            Line::Asking { failures, answer } => {
                let failures = *failures;
                match ready!(answer.poll_unpin(cx)) {
                    Ok(Some(events)) => {
                        *line = Line::Live(events);
                        // Yielding ends this poll, so the new events are polled, and their waker set, in the next one.
                        Poll::Ready(Ingress::Wakeup)
                    }
                    Ok(None) => {
                        *line = Line::NoPush;
                        Poll::Pending
                    }
                    Err(error) => {
                        tracing::debug!(%error, "carrier did not subscribe");
                        *line = Line::failed(failures.saturating_add(1), pauses);
                        Poll::Pending
                    }
                }
            }
        }
    }
}

impl Stream for Following {
    type Item = Ingress;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Ingress>> {
        while self.look.poll_tick(cx).is_ready() {
            self.carriers.probe();
            if self.arrange() {
                return Poll::Ready(Some(Ingress::Wakeup));
            }
        }
        for index in 0..self.lines.len() {
            if let Poll::Ready(ingress) = self.poll_line(index, cx) {
                return Poll::Ready(Some(ingress));
            }
        }
        if self.has_push() { Poll::Pending } else { Poll::Ready(None) }
    }
}

impl Line {
    fn asked_never() -> Self {
        Self::Silent { failures: 0, again: Instant::now() }
    }

    fn failed(failures: u32, pauses: FailoverPauses) -> Self {
        Self::Silent { failures, again: Instant::now() + pauses.after(failures).mul_f64(rand::random()) }
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live = self.lines.iter().filter(|line| matches!(line, Line::Live(_))).count();
        f.debug_struct("Following").field("live", &live).finish_non_exhaustive()
    }
}
