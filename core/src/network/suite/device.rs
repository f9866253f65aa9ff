//! A device that the rules drive: it makes records and batches, and keeps cursors and a clock as a client does.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{NetworkFixture, answered};
use crate::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Hlc, Patch, RecordBody,
    ReplayKey, RowId, RowKey, ServerIngestId, TableName, UserId, Value,
};
use crate::network::{Network, NetworkError};
use crate::wire::{FetchPage, FetchRequest, LogRecord, Outcome, Session, SessionRequest, UploadBatch, UploadRecord};

pub(super) struct Device {
    pub(super) network: Arc<dyn Network>,
    pub(super) client_id: ClientId,
    pub(super) user: UserId,
    /// The newest session reply.
    pub(super) session: Session,
    pub(super) cursors: Cursors,
    pub(super) clock: Hlc,
}

impl Device {
    /// A new device of a user in these audiences, at the start of history.
    pub(super) async fn join(fixture: &impl NetworkFixture, user: &str, audiences: &[&str]) -> Self {
        let user = UserId::new(user).expect("BUG: rules use good names");
        for key in audiences {
            fixture.allow(&user, &audience(key)).await;
        }
        let client_id = ClientId::from_uuid(Uuid::new_v4());
        let network = answered("connect", || fixture.connect(&user, client_id)).await.expect("a user may connect");
        let session = session(&*network, client_id).await.expect("a user may open a session");
        let clock = Hlc::at_millis(session.server_time_ms);
        Self { network, client_id, user, session, cursors: Cursors::new(), clock }
    }

    /// Asks for a new session reply.
    pub(super) async fn refresh(&mut self) -> &Session {
        self.session = session(&*self.network, self.client_id).await.expect("a user may open a session");
        &self.session
    }

    /// An action of now with these rows.
    pub(super) fn action(&mut self, rows: Vec<Patch>) -> UploadRecord {
        self.clock = self.clock.tick(self.session.server_time_ms);
        self.action_at(self.clock, rows)
    }

    /// An action with this clock.
    pub(super) fn action_at(&self, clock: Hlc, rows: Vec<Patch>) -> UploadRecord {
        let tag = ActionTag::new("suite_v1").expect("BUG: a good tag");
        let args = ActionArgs::from_encoded(vec![0x80]).expect("BUG: an empty map");
        let body = RecordBody::Action { tag, args };
        UploadRecord {
            id: ActionId::from_uuid(Uuid::now_v7()),
            clock,
            body,
            rows: in_sequence(rows),
            trace_parent: None,
        }
    }

    /// A correction of now that gives an action these effects. Its id derives from its content.
    pub(super) fn correction(&mut self, amends: ReplayKey, reason: Option<&str>, rows: Vec<Patch>) -> UploadRecord {
        self.clock = self.clock.tick(self.session.server_time_ms);
        let rows = in_sequence(rows);
        let content = crate::wire::encode(&rows);
        let body = RecordBody::Correction { amends, reason: reason.map(str::to_owned) };
        let id = ActionId::from_uuid(Uuid::new_v5(amends.action_id.as_uuid(), &content));
        UploadRecord { id, clock: self.clock, body, rows, trace_parent: None }
    }

    /// Where an action of this device stands in the one order.
    pub(super) fn position_of(&self, record: &UploadRecord) -> ReplayKey {
        ReplayKey { clock: record.clock, client_id: self.client_id, action_id: record.id }
    }

    /// A new batch on the device's cursors.
    pub(super) fn batch(&self, records: Vec<UploadRecord>) -> UploadBatch {
        UploadBatch {
            batch_id: BatchId::from_uuid(Uuid::new_v4()),
            client_id: self.client_id,
            epoch: self.session.epoch,
            basis: self.cursors.clone(),
            records,
        }
    }

    /// The outcome of a batch. A fault is a refusal, whichever way it came.
    pub(super) async fn upload(&self, batch: &UploadBatch) -> Outcome {
        let ask = || async {
            match self.network.upload(batch).await {
                Ok(Outcome::Retry { after_ms }) => Err(NetworkError::Unavailable {
                    carrier: self.network.carrier(),
                    detail: format!("the server asks to retry after {after_ms} ms"),
                }),
                Err(NetworkError::Fault(fault)) => Ok(Outcome::Refused(fault)),
                answer => answer,
            }
        };
        answered("upload", ask).await.expect("an upload has an outcome")
    }

    /// Uploads records that the server must accept.
    pub(super) async fn accepted(&self, records: Vec<UploadRecord>) -> BTreeMap<ActionId, ServerIngestId> {
        accepted(self.upload(&self.batch(records)).await)
    }

    /// One page after these cursors.
    pub(super) async fn page(&self, cursors: &Cursors) -> Result<FetchPage, NetworkError> {
        let epoch = self.session.epoch;
        let request = FetchRequest { client_id: self.client_id, epoch, cursors: cursors.clone() };
        answered("fetch", || self.network.fetch(&request)).await
    }

    /// Everything after these cursors, page by page, with the cursors reached. Pages keep their order and make headway.
    pub(super) async fn everything_after(&self, cursors: &Cursors) -> (Vec<LogRecord>, Cursors) {
        let (mut records, mut cursors) = (Vec::<LogRecord>::new(), cursors.clone());
        loop {
            let page = self.page(&cursors).await.expect("a fetch with good cursors is served");
            assert_eq!(page.epoch, self.session.epoch);
            records.extend(page.records);
            let numbers: Vec<_> = records.iter().map(|record| record.record.server_ingest_id).collect();
            assert!(numbers.iter().all(Option::is_some), "a fetched record has a number");
            assert!(numbers.is_sorted_by(|a, b| a < b), "records come in order and once: {numbers:?}");
            let back =
                cursors.iter().find(|(key, cursor)| page.cursors.get(*key).is_some_and(|reached| reached < *cursor));
            assert_eq!(back, None, "a cursor went back");
            assert!(!page.more || page.cursors != cursors, "a page makes headway");
            cursors = page.cursors;
            if !page.more {
                return (records, cursors);
            }
        }
    }

    /// Everything that there is for this user.
    pub(super) async fn everything(&self) -> Vec<LogRecord> {
        self.everything_after(&Cursors::new()).await.0
    }

    /// Fetches what is new and moves cursors and clock, as a client does.
    pub(super) async fn catch_up(&mut self) -> Vec<LogRecord> {
        let (records, cursors) = self.everything_after(&self.cursors).await;
        self.clock = records.iter().fold(self.clock, |clock, record| clock.merge(record.record.clock));
        self.cursors = cursors;
        records
    }
}

pub(super) async fn session(network: &dyn Network, client_id: ClientId) -> Result<Session, NetworkError> {
    let request = SessionRequest { client_id };
    answered("session", || network.session(&request)).await
}

/// The numbers of an accepted batch.
pub(super) fn accepted(outcome: Outcome) -> BTreeMap<ActionId, ServerIngestId> {
    match outcome {
        Outcome::Accepted { ids } => ids,
        other => panic!("expected Accepted, the outcome is {other:?}"),
    }
}

pub(super) fn ids(records: &[LogRecord]) -> Vec<ActionId> {
    records.iter().map(|record| record.record.id).collect()
}

pub(super) fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("BUG: rules use good keys")
}

pub(super) fn row(table: &str, id: &str) -> RowKey {
    RowKey {
        table: TableName::new(table).expect("BUG: rules use good names"),
        row_id: RowId::new(id).expect("BUG: rules use good ids"),
    }
}

/// A new note of `owner`, in its own audience.
pub(super) fn note(id: &str, owner: &str, body: &str) -> Patch {
    patch(row("notes", id), &format!("user:{owner}"), Effect::Insert(columns([("owner", owner), ("body", body)])))
}

/// A new seat that nobody holds.
pub(super) fn seat(id: &str, key: &str) -> Patch {
    let mut columns = columns([("label", id)]);
    columns.insert("holder".to_owned(), Value::Null);
    patch(row("seats", id), key, Effect::Insert(columns))
}

/// A seat gets a holder.
pub(super) fn hold(id: &str, key: &str, holder: &str) -> Patch {
    patch(row("seats", id), key, Effect::Update(columns([("holder", holder)])))
}

/// An amendment that takes back what an action did to a seat.
pub(super) fn untouched(id: &str, key: &str) -> Patch {
    patch(row("seats", id), key, Effect::Nothing)
}

fn patch(key: RowKey, audience_key: &str, effect: Effect) -> Patch {
    let RowKey { table, row_id } = key;
    Patch { sequence: 0, table, row_id, audience_key: audience(audience_key), effect }
}

fn columns<const N: usize>(texts: [(&str, &str); N]) -> Columns {
    texts.map(|(name, text)| (name.to_owned(), Value::from(text))).into()
}

fn in_sequence(mut rows: Vec<Patch>) -> Vec<Patch> {
    for (sequence, patch) in (0..).zip(&mut rows) {
        patch.sequence = sequence;
    }
    rows
}
