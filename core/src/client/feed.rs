//! The change feed, and [`Watch`]: the same, narrowed to some tables and coalesced.
//!
//! Place in the journey: the last hop, from a commit to the app's screen.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use crate::engine::Committed;
use crate::model::TableName;

/// What the change feed tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A step was committed here: an action of this process, or what came from the server.
    Committed(Committed),
    /// Another process committed to the same database. Any row and any fate may be another: read again what you show.
    Elsewhere,
}

impl Change {
    /// Whether a row of one of these tables may be another now.
    #[must_use]
    pub fn touches(&self, tables: &BTreeSet<TableName>) -> bool {
        match self {
            Self::Committed(committed) => {
                !committed.tables.is_disjoint(tables) || committed.rows.iter().any(|row| tables.contains(&row.table))
            }
            Self::Elsewhere => true,
        }
    }
}

/// What was missed while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missed {
    /// Only commits of this process.
    Here,
    /// Perhaps anything: another process committed, or the feed ran over.
    Anything,
}

/// One reader of the feed that cares for some tables.
#[derive(Debug)]
pub(super) struct Narrowed(broadcast::Receiver<Arc<Change>>);

impl Narrowed {
    pub(super) fn new(feed: broadcast::Receiver<Arc<Change>>) -> Self {
        Self(feed)
    }

    /// Waits for a change that touches these tables, and takes all that came with it; `None` when the client is gone.
    pub(super) async fn changed(&mut self, tables: &BTreeSet<TableName>) -> Option<Missed> {
        let mut missed = None;
        while missed.is_none() {
            missed = match self.0.recv().await {
                Ok(change) => weigh(&change, tables),
                Err(RecvError::Lagged(_)) => Some(Missed::Anything),
                Err(RecvError::Closed) => return None,
            };
        }
        loop {
            let more = match self.0.try_recv() {
                Ok(change) => weigh(&change, tables),
                Err(TryRecvError::Lagged(_)) => Some(Missed::Anything),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return missed,
            };
            if more == Some(Missed::Anything) {
                missed = more;
            }
        }
    }
}

fn weigh(change: &Change, tables: &BTreeSet<TableName>) -> Option<Missed> {
    match change {
        Change::Elsewhere => Some(Missed::Anything),
        Change::Committed(_) => change.touches(tables).then_some(Missed::Here),
    }
}

/// Yields when rows of the watched tables may be others; made by [`super::Client::watch`].
///
/// Commits that come while nobody looks are one item: a slow reader never falls behind. It ends with the client's last
/// clone, and does not keep it alive.
#[must_use = "nothing is watched unless it is polled"]
pub struct Watch(BoxStream<'static, ()>);

impl Watch {
    pub(super) fn new(feed: broadcast::Receiver<Arc<Change>>, tables: BTreeSet<TableName>) -> Self {
        let watched = stream::unfold((Narrowed::new(feed), tables), |(mut feed, tables)| async move {
            feed.changed(&tables).await?;
            Some(((), (feed, tables)))
        });
        Self(watched.boxed())
    }

    /// Waits for the next change; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<()> {
        self.0.next().await
    }
}

impl Stream for Watch {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.0.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch(…)")
    }
}
