//! Offline-first sync for Postgres: the part that runs on every device.
//!
//! An app writes its business logic as actions, deterministic functions on a local SQLite database. They run at once,
//! offline or not, and the *actions* are synced. When histories diverge, every replica rewinds and replays in one global
//! order, so the app's own rules resolve the conflict.
//!
//! The modules, in the order of an action's journey:
//!
//! | module | its hop |
//! |---|---|
//! | `action` | what an app writes, and all that it may touch |
//! | `client` | the async shell that an app holds: execute, go online, change feed, status, fates |
//! | `engine` | execute, upload, integrate, replay, judge, amend: synchronous and deterministic |
//! | `store` | rows with capture and undo, the action log, status; on SQLite |
//! | [`network`] | what the engine needs of a network; an in-memory server for tests; failover |
//! | [`wire`] | the only shapes that leave a process, bounded on the way in |
//! | [`patch`] | the algebra of row effects, the same on devices and on the server |
//! | [`model`] | ids, clock, values, patches, records: plain data that cannot be wrong |
//!
//! Features: `client` (default) holds everything that an app needs; `engine` leaves out the async shell; without either,
//! this is the model that a server shares. `test-util` adds the in-memory server, the conformance suites and
//! a store that fails on demand.
//!
//! # An app
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! # #[cfg(feature = "test-util")] {
//! use std::sync::Arc;
//! use synchrotron_core::action::{Action, ActionError, Context, Table};
//! use synchrotron_core::client::Client;
//! use synchrotron_core::model::{AudienceKey, Epoch, UserId};
//! use synchrotron_core::network::memory::MemoryServer;
//! use synchrotron_core::params;
//! use synchrotron_core::store::Fate;
//!
//! #[derive(Serialize, Deserialize)]
//! struct AddTodo { text: String }
//!
//! impl Action for AddTodo {
//!     const TAG: &'static str = "add_todo_v1";
//!     type Output = ();
//!
//!     fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
//!         let audience = format!("user:{}", ctx.user_id());
//!         ctx.insert("todos", &[("text", (&self.text).into()), ("audience_key", audience.into())])?;
//!         Ok(())
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("todos.db");
//! let client = Client::builder()
//!     .database(path)
//!     .user("alice")
//!     .schema("CREATE TABLE IF NOT EXISTS todos (id TEXT PRIMARY KEY, text TEXT, audience_key TEXT NOT NULL)")
//!     .table(Table::new("todos").identity(["text"]))
//!     .action::<AddTodo>()
//!     .open()
//!     .await?;
//! let mut added = client.execute(AddTodo { text: "water the plants".into() }).await?; // offline: at once
//!
//! // In an app this is NATS, HTTP or both; in its tests, a server in this process.
//! let alice = UserId::new("alice")?;
//! let server = MemoryServer::new(Epoch::from_uuid(uuid::Uuid::from_u128(1)), 4_000_000_000_000);
//! server.allow(&alice, &AudienceKey::new("user:alice")?);
//! client.go_online(Arc::new(server.connect(alice)));
//! assert_eq!(added.confirmed().await?, Fate::Confirmed);
//! assert_eq!(client.query("SELECT text FROM todos", params![]).await?.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "engine")]
pub mod action;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "engine")]
pub mod engine;
pub mod model;
pub mod network;
pub mod patch;
#[cfg(feature = "engine")]
pub mod store;
pub mod wire;
