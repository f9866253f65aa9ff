//! Corrections: records that carry the amendments of one action.

use uuid::Uuid;

use crate::action::ActionError;
use crate::model::{
    ActionId, ActionRecord, ClientId, Effect, Hlc, Patch, RecordBody, ReplayKey, ServerIngestId, UserId,
};
use crate::patch::{Amendment, NetEffects};
use crate::store::StoredRecord;

/// A new correction, and its rows as amendments that are not sent yet.
pub(super) struct Amended {
    pub(super) record: StoredRecord,
    pub(super) amendments: Vec<Amendment>,
}

/// Who corrects, and when.
pub(super) struct Maker {
    pub(super) client_id: ClientId,
    pub(super) user_id: UserId,
    pub(super) clock: Hlc,
}

/// The correction that gives the action at `amends` these effects. Its id derives from that content and from the amendment
/// that it overrules: equal corrections of several replicas are one record, and one that brings an earlier effect back is
/// another record than the one that had it first.
pub(super) fn correction(
    amends: ReplayKey,
    effects: NetEffects,
    overrules: Option<ServerIngestId>,
    failure: Option<&ActionError>,
    maker: Maker,
) -> Amended {
    let removes = effects.values().any(|net| net.effect == Effect::Nothing);
    let rows: Vec<Patch> = (0..)
        .zip(effects)
        .map(|(sequence, (key, net))| Patch {
            sequence,
            table: key.table,
            row_id: key.row_id,
            audience_key: net.audience_key,
            effect: net.effect,
        })
        .collect();
    let mut content = rmp_serde::to_vec_named(&rows).expect("BUG: patches always have a MessagePack form");
    if let Some(number) = overrules {
        content.extend(number.get().to_be_bytes());
    }
    let record = ActionRecord {
        id: ActionId::from_uuid(Uuid::new_v5(amends.action_id.as_uuid(), &content)),
        clock: maker.clock,
        client_id: maker.client_id,
        user_id: maker.user_id,
        server_ingest_id: None,
        body: RecordBody::Correction { amends, reason: failure.filter(|_| removes).map(ToString::to_string) },
        trace_parent: None,
    };
    let row_count = u32::try_from(rows.len()).expect("BUG: an action touches fewer rows");
    let record = StoredRecord { record, rows, row_count, executed: None, faithful: None };
    Amended { amendments: amendments_of(&record).collect(), record }
}

/// A correction's rows as amendments.
pub(super) fn amendments_of(correction: &StoredRecord) -> impl Iterator<Item = Amendment> {
    let server_ingest_id = correction.record.server_ingest_id;
    correction.rows.iter().map(move |patch| Amendment { patch: patch.clone(), server_ingest_id })
}
