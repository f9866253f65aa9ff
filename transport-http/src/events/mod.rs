//! Wakeups: a stream of events where one comes through, else polls that wait.
//!
//! Place in the journey: what [`Network::subscribe`](synchrotron_core::network::Network::subscribe) gives. It works only
//! while it is polled, and never ends by itself: whatever breaks, it listens again, after a wait that grows and is random.
//!
//! # Invariants
//! - It goes on where it was: what was missed between two connections is a wakeup of the next.
//! - A stream that is silent for too long is dead, whatever its socket says. One that is opened and says nothing at all is
//!   held back by a proxy: after two of those, polls stand in for a while.

pub mod sse;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rand::Rng;
use reqwest::Response;
use synchrotron_core::network::{Carrier, Ingress, NetworkError, NumberedToken};
use synchrotron_core::wire::{EndReason, StreamEnd, Wakeup, decode_json};
use tokio::time::{Instant, sleep, timeout};

use self::sse::{Message, Parser};
use crate::link::{Call, Link, unavailable};
use crate::routes;

/// So many streams in a row that say nothing are held back by something.
const HELD_BACK: u32 = 2;
/// A stream that held for so long ends a series of failures.
const SOUND_AFTER: Duration = Duration::from_secs(1);
/// How much longer than it waits a poll may take.
const POLL_MARGIN: Duration = Duration::from_secs(10);

/// Wakeups until it is dropped.
pub(crate) fn stream(link: Arc<Link>) -> BoxStream<'static, Ingress> {
    let listener =
        Listener { link, seen: None, line: Line::None, failures: 0, held_back: 0, polls_until: None, retry: None };
    let woken = |mut listener: Listener| async move {
        listener.wakeup().await;
        Some((Ingress::Wakeup, listener))
    };
    stream::unfold(listener, woken).boxed()
}

struct Listener {
    link: Arc<Link>,
    /// What the server told last.
    seen: Option<String>,
    line: Line,
    failures: u32,
    /// How many streams in a row said nothing.
    held_back: u32,
    /// Until when polls stand in for streams.
    polls_until: Option<Instant>,
    /// How long the server wants us to stay away when it ends a stream.
    retry: Option<Duration>,
}

enum Line {
    None,
    Stream(Box<Events>),
    /// The last poll was answered.
    Polls(#[expect(dead_code, reason = "counts as heard for as long as it is held")] Heard),
}

/// An open stream.
struct Events {
    response: Response,
    held: NumberedToken,
    parser: Parser,
    waiting: std::collections::VecDeque<Message>,
    opened: Instant,
    heard: Option<Heard>,
}

/// Counts as heard until it is dropped.
struct Heard(Arc<Link>);

impl Heard {
    fn new(link: &Arc<Link>) -> Self {
        link.heard.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(link))
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.0.heard.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a stream is over.
enum Over {
    /// It was ended as streams are.
    Ended(StreamEnd),
    /// Nothing came.
    HeldBack,
    Broken(NetworkError),
}

impl From<NetworkError> for Over {
    fn from(error: NetworkError) -> Self {
        Self::Broken(error)
    }
}

impl Listener {
    /// Waits for one.
    async fn wakeup(&mut self) {
        loop {
            let polls = self.polls_until.is_some_and(|until| Instant::now() < until);
            let heard = if polls { self.poll().await.map_err(Over::Broken) } else { self.hear().await };
            match heard {
                Ok(true) => return,
                Ok(false) => {}
                Err(over) => self.over(over).await,
            }
        }
    }

    /// What the stream of events says next; whether that is a wakeup.
    async fn hear(&mut self) -> Result<bool, Over> {
        if !matches!(self.line, Line::Stream(_)) {
            self.line = Line::Stream(Box::new(self.open().await?));
        }
        let Line::Stream(events) = &mut self.line else { unreachable!("BUG: it was opened") };
        let Some(message) = events.waiting.pop_front() else {
            events.read(&self.link).await?;
            self.retry = events.parser.retry_ms().map(Duration::from_millis).or(self.retry);
            self.held_back = 0;
            if events.opened.elapsed() >= SOUND_AFTER {
                self.failures = 0;
            }
            return Ok(false);
        };
        match message.event.as_str() {
            routes::EVENT_WAKEUP => {
                self.seen = message.id.or(self.seen.take());
                Ok(true)
            }
            routes::EVENT_END => {
                let max = self.link.settings.response_bytes_max;
                let end = decode_json(message.data.as_bytes(), max).map_err(NetworkError::from)?;
                Err(Over::Ended(end))
            }
            // Of a newer server.
            _ => Ok(false),
        }
    }

    async fn open(&self) -> Result<Events, Over> {
        let within = self.link.settings.session_within;
        let call = Call { name: "events", path: routes::EVENTS, within };
        let opened = match self.link.open(call, self.seen.as_deref()).await {
            // Even its head is held back; a token that is late has a name of its own.
            Err(NetworkError::Timeout { call: late, .. }) if late == call.name => None,
            opened => opened?,
        };
        let (response, held) = opened.ok_or(Over::HeldBack)?;
        let parser = Parser::new(self.link.settings.response_bytes_max);
        Ok(Events { response, held, parser, waiting: [].into(), opened: Instant::now(), heard: None })
    }

    /// Asks and waits; whether there is news.
    async fn poll(&mut self) -> Result<bool, NetworkError> {
        let wait = self.link.settings.poll_wait;
        let call = Call { name: "poll", path: routes::POLL, within: wait + POLL_MARGIN };
        let mut query = vec![(routes::POLL_WAIT, wait.as_secs().to_string())];
        query.extend(self.seen.clone().map(|seen| (routes::POLL_SEEN, seen)));
        let asked = Instant::now();
        let wakeup: Wakeup = self.link.get(call, &query).await?;
        self.failures = 0;
        if !matches!(self.line, Line::Polls(_)) {
            self.line = Line::Polls(Heard::new(&self.link));
        }
        let seen = Some(wakeup.seen.to_string());
        let is_news = std::mem::replace(&mut self.seen, seen.clone()) != seen;
        if !is_news && asked.elapsed() < SOUND_AFTER {
            // A server that stops, or waits for less than a moment, is not asked again and again.
            sleep(jittered(SOUND_AFTER)).await;
        }
        Ok(is_news)
    }

    /// Lets go of a line, and waits before the next.
    async fn over(&mut self, over: Over) {
        let line = std::mem::replace(&mut self.line, Line::None);
        match over {
            Over::Ended(StreamEnd { reason: EndReason::TokenExpired }) => {
                if let Line::Stream(events) = line {
                    self.link.tokens.forget(&events.held);
                    if events.opened.elapsed() >= SOUND_AFTER {
                        return;
                    }
                }
            }
            Over::Ended(StreamEnd { reason: EndReason::ShuttingDown }) => {
                let pause = self.retry.unwrap_or_default().min(self.link.settings.again_max);
                return sleep(jittered(pause)).await;
            }
            Over::HeldBack => {
                self.held_back += 1;
                tracing::debug!(times = self.held_back, "a stream of events does not come through");
                if self.held_back >= HELD_BACK {
                    self.polls_until = Some(Instant::now() + self.link.settings.polls_for);
                    self.held_back = 0;
                    return;
                }
            }
            Over::Broken(error) => tracing::debug!(%error, "listening broke off"),
        }
        let bound = self.link.settings.again_first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        sleep(jittered(bound.min(self.link.settings.again_max))).await;
    }
}

/// Full jitter: devices that were cut off together do not come back together.
fn jittered(bound: Duration) -> Duration {
    rand::rng().random_range(Duration::ZERO..=bound)
}

impl Events {
    /// Reads on, for as long as the server may be silent.
    async fn read(&mut self, link: &Arc<Link>) -> Result<(), Over> {
        let silence = link.settings.silence_max;
        let chunk = match timeout(silence, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            // What gathers a stream may also end it.
            _ if self.heard.is_none() => return Err(Over::HeldBack),
            Ok(Ok(None)) => return Err(trouble("a stream of events was cut off".to_owned())),
            Ok(Err(error)) => return Err(unavailable(error).into()),
            Err(_) => return Err(trouble(format!("a stream of events was silent for {} s", silence.as_secs()))),
        };
        self.heard.get_or_insert_with(|| Heard::new(link));
        let messages = self.parser.read(&chunk);
        let messages = messages.map_err(|endless| trouble(endless.to_string()))?;
        self.waiting.extend(messages);
        Ok(())
    }
}

fn trouble(detail: String) -> Over {
    Over::Broken(NetworkError::Unavailable { carrier: Carrier::Http, detail })
}
