//! NATS's own account: who connects and leaves, who is connected, and how one is cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Message;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;

use super::connections::Connection;
use crate::api::nats::{Api, NatsApiError};

/// How often NATS is asked for all connections, in case that some news was lost.
const LIST_EVERY: Duration = Duration::from_secs(60);
/// And while a server is silent, which may be no more.
const LIST_AGAIN: Duration = Duration::from_secs(2);
/// The most connections that one answer lists.
const LISTED_MAX: usize = 1_024;
/// How long the servers of a cluster may take to answer. News waits meanwhile: what is listed must not be newer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// News of one connection.
#[derive(Deserialize)]
struct News {
    server: Server,
    client: Client,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct Client {
    #[serde(alias = "cid")]
    id: u64,
    /// The name that the callout gave it.
    #[serde(default, alias = "authorized_user")]
    user: String,
}

#[derive(Deserialize)]
struct List {
    server: Server,
    data: Option<Page>,
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    #[serde(default)]
    connections: Vec<Client>,
}

/// Keeps account of all connections.
pub(super) async fn follow(api: &Api) -> Result<(), NatsApiError> {
    let (client, account) = (api.system.client(), &api.settings.clients_account);
    let mut made = client.subscribe(format!("$SYS.ACCOUNT.{account}.CONNECT")).await?;
    let mut ended = client.subscribe(format!("$SYS.ACCOUNT.{account}.DISCONNECT")).await?;
    let mut list = tokio::time::interval(LIST_EVERY);
    loop {
        tokio::select! {
            // In this order, a connection that is made and ends is no more.
            biased;
            message = made.next() => {
                if let Some(News { server, client }) = read(message)? {
                    api.connections.made(Connection { server: server.id, id: client.id }, client.user);
                }
            }
            message = ended.next() => {
                if let Some(News { server, client }) = read(message)? {
                    api.connections.ended(&Connection { server: server.id, id: client.id });
                }
            }
            _ = list.tick() => {
                if list_all(api).await? {
                    list.reset_after(LIST_AGAIN);
                }
            }
        }
    }
}

fn read(message: Option<Message>) -> Result<Option<News>, NatsApiError> {
    let message = message.ok_or(NatsApiError::Ended)?;
    Ok(serde_json::from_slice(&message.payload)
        .inspect_err(|error| tracing::warn!(%error, "news of NATS that cannot be read"))
        .ok())
}

/// Asks every server of the cluster for its connections. Whether one that had some is silent.
async fn list_all(api: &Api) -> Result<bool, NatsApiError> {
    let mut listed: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    let mut offset = 0;
    loop {
        let question = json!({
            "acc": api.settings.clients_account, "auth": true, "state": 0, "limit": LISTED_MAX, "offset": offset,
        });
        let answers = ask_all(api, "$SYS.REQ.SERVER.PING.CONNZ", &question).await?;
        let mut more = false;
        for List { server, data } in answers {
            let Some(page) = data else { continue };
            more |= page.total > offset + LISTED_MAX;
            let names = page.connections.into_iter().map(|client| (client.id, client.user));
            listed.entry(server.id).or_default().extend(names);
        }
        if !more {
            break;
        }
        offset += LISTED_MAX;
    }
    Ok(api.connections.listed(listed))
}

/// Asks, and gathers answers for as long as servers may take.
async fn ask_all(api: &Api, subject: &'static str, question: &serde_json::Value) -> Result<Vec<List>, NatsApiError> {
    let client = api.system.client();
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply(subject, inbox, question.to_string().into()).await?;
    let read = |message: Message| async move { serde_json::from_slice(&message.payload).ok() };
    Ok(answers.take_until(tokio::time::sleep(ANSWER_WITHIN)).filter_map(read).collect().await)
}

/// Ends a connection; its device may make another one.
pub(super) async fn cut_off(api: &Api, connection: &Connection) -> Result<(), NatsApiError> {
    let subject = format!("$SYS.REQ.SERVER.{}.KICK", connection.server);
    let which = json!({ "cid": connection.id }).to_string();
    Ok(api.system.client().publish_with_reply(subject, api.system.client().new_inbox(), which.into()).await?)
}
