//! NATS's own account: who connects and leaves, who is connected, and how one is cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Message;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;

use super::connections::Connection;
use super::pages::{PAGE_MAX, Page, Pages};
use crate::api::nats::{Api, NatsApiError};

/// How often NATS is asked for all connections, in case that some news was lost.
const LIST_EVERY: Duration = Duration::from_secs(60);
/// And while a server is silent, which may be no more.
const LIST_AGAIN: Duration = Duration::from_secs(2);
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
    data: Option<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    total: usize,
    #[serde(default)]
    connections: Vec<Client>,
}

impl From<Listed> for Page {
    fn from(Listed { total, connections }: Listed) -> Self {
        Self { connections: connections.into_iter().map(|client| (client.id, client.user)).collect(), total }
    }
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
    let mut listed = BTreeMap::new();
    for (server, first) in first_pages(api).await? {
        if let Some(connections) = list(api, &server, first).await {
            listed.insert(server, connections);
        }
    }
    Ok(api.connections.listed(listed))
}

/// Asks all, and gathers answers for as long as servers may take.
async fn first_pages(api: &Api) -> Result<BTreeMap<String, Page>, NatsApiError> {
    let client = api.system.client();
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply("$SYS.REQ.SERVER.PING.CONNZ", inbox, page_from(api, 0).into()).await?;
    let read = async |message: Message| {
        let List { server, data } = serde_json::from_slice(&message.payload).ok()?;
        Some((server.id, data?.into()))
    };
    Ok(answers.take_until(tokio::time::sleep(ANSWER_WITHIN)).filter_map(read).collect().await)
}

/// All connections of a server, of which this is the first page; `None` if it falls silent.
async fn list(api: &Api, server: &str, first: Page) -> Option<BTreeMap<u64, String>> {
    let mut pages = Pages::default();
    let mut next = pages.add(0, first);
    while let Some(from) = next {
        let asking =
            api.system.client().request(format!("$SYS.REQ.SERVER.{server}.CONNZ"), page_from(api, from).into());
        let answer = tokio::time::timeout(ANSWER_WITHIN, asking).await.ok()?.ok()?;
        let List { data, .. } = serde_json::from_slice(&answer.payload).ok()?;
        next = pages.add(from, data?.into());
    }
    Some(pages.end())
}

fn page_from(api: &Api, from: usize) -> String {
    let account = &api.settings.clients_account;
    json!({ "acc": account, "auth": true, "state": 0, "sort": "cid", "limit": PAGE_MAX, "offset": from }).to_string()
}

/// Ends a connection; its device may make another one.
pub(super) async fn cut_off(api: &Api, connection: &Connection) -> Result<(), NatsApiError> {
    let subject = format!("$SYS.REQ.SERVER.{}.KICK", connection.server);
    let which = json!({ "cid": connection.id }).to_string();
    Ok(api.system.client().publish_with_reply(subject, api.system.client().new_inbox(), which.into()).await?)
}
