//! Live queries: a query's rows now, and again whenever they are others.
//!
//! Place in the journey: after the change feed. SQLite says which tables a query reads, through views too; triggers say
//! which tables a write reaches. The query runs again when they meet, and the app hears of it when its rows differ.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream, Stream, StreamExt};

use super::ClientError;
use super::feed::{Missed, Narrowed};
use super::shared::Shared;
use crate::model::{TableName, Value};
use crate::store::{Row, SqlError};

/// The result sets of a query; made by [`super::Client::live_query`].
///
/// The first comes at once, the next after each commit that changes it. Commits that come while nobody looks lead to one
/// result set, of the newest. An error is an item too, once; the query runs again after the next commit. It ends with the
/// client's last clone, and does not keep it alive.
#[must_use = "the query does not run unless it is polled"]
pub struct LiveQuery(BoxStream<'static, Result<Vec<Row>, ClientError>>);

impl LiveQuery {
    pub(super) fn new(shared: &Arc<Shared>, sql: String, params: Vec<Value>) -> Self {
        // The feed is read from before the first run on: no commit can fall between the two.
        let live = Live {
            shared: Arc::downgrade(shared),
            feed: Narrowed::new(shared.changes.subscribe()),
            query: Arc::new((sql, params)),
            tables: None,
            ran: false,
            shown: None,
        };
        Self(stream::unfold(live, Live::next).boxed())
    }

    /// Waits for the next result set; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Result<Vec<Row>, ClientError>> {
        self.0.next().await
    }
}

impl Stream for LiveQuery {
    type Item = Result<Vec<Row>, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for LiveQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LiveQuery(…)")
    }
}

type Answer = Result<Vec<Row>, SqlError>;

struct Live {
    shared: Weak<Shared>,
    feed: Narrowed,
    query: Arc<(String, Vec<Value>)>,
    /// The tables whose writes can change the rows; `None` while unknown.
    tables: Option<BTreeSet<TableName>>,
    /// Whether it ran at all.
    ran: bool,
    /// What the app was shown last.
    shown: Option<Answer>,
}

impl Live {
    async fn next(mut self) -> Option<(Result<Vec<Row>, ClientError>, Self)> {
        loop {
            if std::mem::replace(&mut self.ran, true) {
                let tables = match &self.tables {
                    Some(tables) => tables,
                    // Whatever is committed may mend it.
                    None => &self.shared.upgrade()?.tables.clone(),
                };
                if self.feed.changed(tables).await? == Missed::Anything {
                    // The other process may be a newer version of the app, with other views and triggers.
                    self.tables = None;
                }
            }
            let answer = match self.run().await? {
                Ok(answer) => answer,
                Err(interrupted) => return Some((Err(interrupted), self)),
            };
            if self.shown.as_ref() != Some(&answer) {
                self.shown = Some(answer.clone());
                return Some((answer.map_err(ClientError::Sql), self));
            }
        }
    }

    async fn run(&mut self) -> Option<Result<Answer, ClientError>> {
        let query = Arc::clone(&self.query);
        let known = self.tables.take();
        let read = self.shared.upgrade()?.reading(move |reader| {
            let tables = match known {
                Some(tables) => tables,
                None => reader.sources(&query.0)?,
            };
            Ok((tables, reader.query(&query.0, &query.1)))
        });
        Some(match read.await {
            Ok((tables, answer)) => {
                self.tables = Some(tables);
                Ok(answer)
            }
            Err(ClientError::Sql(error)) => Ok(Err(error)),
            Err(error) => Err(error),
        })
    }
}
