//! Corrections: records that carry the amendments of one action.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use uuid::Uuid;

use crate::action::ActionError;
use crate::model::{
    ActionId, ActionRecord, AudienceRow, ClientId, Effect, Hlc, Patch, RecordBody, ReplayKey, RowKey, ServerIngestId,
    UserId,
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
    effects: Vec<(AudienceRow, Effect)>,
    overrules: Option<ServerIngestId>,
    failure: Option<&ActionError>,
    maker: Maker,
) -> Amended {
    let removes = effects.iter().any(|(_, effect)| *effect == Effect::Nothing);
    let rows: Vec<Patch> = (0..)
        .zip(effects)
        .map(|(sequence, (AudienceRow { row: RowKey { table, row_id }, audience_key }, effect))| Patch {
            sequence,
            table,
            row_id,
            audience_key,
            effect,
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

/// The order in which the server, which applies a correction row by row under its constraints, can take the effects: first
/// what is taken back of `known`, last effect first, then the others as the run `did` them. So a child is taken back before
/// its parent and given after it, and a row leaves one audience before it comes into another.
pub(super) fn in_order(effects: NetEffects, known: &[Patch], did: &[Patch]) -> Vec<(AudienceRow, Effect)> {
    let (known, did) = (places(known), places(did));
    let (mut taken_back, mut given): (Vec<_>, Vec<_>) =
        effects.into_iter().partition(|(_, effect)| *effect == Effect::Nothing);
    taken_back.sort_by_key(|(row, _)| Reverse(known.get(row)));
    given.sort_by_key(|(row, _)| did.get(row));
    taken_back.append(&mut given);
    taken_back
}

/// Where each row came to be what it is: last inserted or deleted, or else last updated.
fn places(patches: &[Patch]) -> BTreeMap<AudienceRow, usize> {
    let mut places: BTreeMap<AudienceRow, (bool, usize)> = BTreeMap::new();
    for (index, patch) in patches.iter().enumerate() {
        let whole = matches!(patch.effect, Effect::Insert(_) | Effect::Delete);
        let place = places.entry(patch.audience_row()).or_default();
        *place = (whole, index).max(*place);
    }
    places.into_iter().map(|(row, (_, index))| (row, index)).collect()
}

/// A correction's rows as amendments.
pub(super) fn amendments_of(correction: &StoredRecord) -> impl Iterator<Item = Amendment> {
    let server_ingest_id = correction.record.server_ingest_id;
    correction.rows.iter().map(move |patch| Amendment { patch: patch.clone(), server_ingest_id })
}
