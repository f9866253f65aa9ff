//! Request and reply: each on an inbox of its own. Who asks is in the subject, which NATS lets nobody else publish to.
//!
//! The crate's own requests share one inbox and keep an entry for every request that is never answered; an inbox that is
//! dropped with its request leaves nothing.

use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::network::NetworkError;
use synchrotron_core::wire::{self, Reply};

use crate::client::{NatsNetwork, publish_denied, unavailable};
use crate::subjects::RpcMethod;

impl NatsNetwork {
    /// Makes a call.
    pub(crate) async fn call<Q, A>(&self, method: RpcMethod, within: Duration, request: &Q) -> Result<A, NetworkError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let _calling = self.renewal.call(method.as_str(), within).await?;
        let connects = self.require_connection()?;
        let body = Bytes::from(wire::encode(request));
        self.bounded(method.as_str(), within, connects, self.ask(method, body)).await
    }

    async fn ask<A: DeserializeOwned>(&self, method: RpcMethod, body: Bytes) -> Result<A, NetworkError> {
        let client = self.link.client();
        let subject = self.subjects.rpc(&self.user_id, self.client_id, method);
        let bytes = body.len();
        let inbox = client.new_inbox();
        let mut denials = self.link.denials();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| unavailable(error.to_string()))?;
        let published = client.publish_with_reply(subject.clone(), inbox, body).await;
        published.map_err(|error| self.publish_error(&error, bytes))?;
        let answer = tokio::select! {
            answer = answers.next() => answer.ok_or_else(|| unavailable("the client has ended"))?,
            error = publish_denied(&mut denials, &subject) => return Err(error),
        };
        if is_no_responders(&answer) {
            return Err(unavailable("no server listens"));
        }
        let reply: Reply<A> = wire::decode(&answer.payload, self.settings.message_bytes_max)?;
        Result::from(reply).map_err(NetworkError::Fault)
    }
}

pub(crate) fn is_no_responders(message: &Message) -> bool {
    message.status == Some(StatusCode::NO_RESPONDERS)
}
