//! Request and reply: each on an inbox of its own, with the token in a header.
//!
//! The crate's own requests share one inbox and keep an entry for every request that is never answered; an inbox that is
//! dropped with its request leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::network::NetworkError;
use synchrotron_core::wire::{self, FaultCode, Reply};

use crate::bearer::bearer_headers;
use crate::client::{NatsNetwork, unavailable};
use crate::subjects::RpcMethod;

impl NatsNetwork {
    /// Makes a call; with a new token once more if the server refuses the one that was used.
    pub(crate) async fn call<Q, A>(&self, method: RpcMethod, within: Duration, request: &Q) -> Result<A, NetworkError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let connects = self.require_connection()?;
        let body = Bytes::from(wire::encode(request));
        let token = self.tokens.token(connects).await?;
        let asked = self.ask(method, &token, body.clone());
        let answer = self.bounded(method.as_str(), within, connects, asked).await;
        if !is_unauthenticated(&answer) {
            return answer;
        }
        let Some(token) = self.tokens.other_than(&token, connects).await? else { return answer };
        tracing::debug!(call = method.as_str(), "the token was refused, trying a new one");
        self.bounded(method.as_str(), within, connects, self.ask(method, &token, body)).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: RpcMethod,
        token: &Arc<str>,
        body: Bytes,
    ) -> Result<A, NetworkError> {
        let client = self.link.client();
        let headers = bearer_headers(token)?;
        let subject = self.subjects.rpc(&self.user_id, self.client_id, method);
        let bytes = body.len();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| unavailable(error.to_string()))?;
        let published = client.publish_with_reply_and_headers(subject, inbox, headers, body).await;
        published.map_err(|error| self.publish_error(&error, bytes))?;
        let answer = answers.next().await.ok_or_else(|| unavailable("the client has ended"))?;
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

fn is_unauthenticated<A>(answer: &Result<A, NetworkError>) -> bool {
    matches!(answer, Err(NetworkError::Fault(fault)) if fault.code == FaultCode::Unauthenticated)
}
