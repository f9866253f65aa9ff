//! Requests that only one process can answer: another hands them on, and the answer back.
//!
//! Place in the journey: beside [`super::rpc`]. NATS gives a request to any one process, and a snapshot goes on in the
//! one that began it.
//!
//! Invariant: only our processes can publish there: nothing of it is exported to devices.

use async_nats::{Message, StatusCode, Subject};
use futures::StreamExt;
use synchrotron_core::model::SnapshotId;
use synchrotron_core::wire::{Fault, FaultCode, SnapshotChunk};
use synchrotron_nats::subjects::{ProcessToken, RpcSubject};

use super::Api;
use crate::service::ProcessId;

impl Api {
    /// Where requests arrive that others hand on to this process.
    pub(super) fn own_held(&self) -> Subject {
        self.subjects.all_held(ProcessToken::new(self.service.process_id().number()))
    }

    /// Lets the process that holds a snapshot answer.
    pub(super) async fn hand_on(&self, id: SnapshotId, subject: &RpcSubject, request: &Message, inbox: Subject) {
        let process = ProcessToken::new(ProcessId::holding(id).number());
        let held = self.subjects.held(process, &subject.user, subject.client_id);
        match self.in_time(self.ask(held, request)).await {
            Ok(answer) => {
                if let Err(error) = self.link.client().publish(inbox, answer.payload).await {
                    tracing::debug!(%error, "an answer could not be sent");
                }
            }
            Err(fault) => self.reply::<SnapshotChunk>(inbox, Err(fault)).await,
        }
    }

    async fn ask(&self, held: Subject, request: &Message) -> Result<Message, Fault> {
        let client = self.link.client();
        let away = |_| Fault::new(FaultCode::Unavailable, "the server cannot reach its other processes now");
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| away(error.to_string()))?;
        let published = client.publish_with_reply(held, inbox, request.payload.clone()).await;
        published.map_err(|error| away(error.to_string()))?;
        let answer = answers.next().await.ok_or_else(|| away(String::new()))?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Fault::new(FaultCode::SnapshotGone, "the process that held it is gone"));
        }
        Ok(answer)
    }
}
