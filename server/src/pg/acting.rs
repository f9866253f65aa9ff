//! As whom a transaction acts: the server itself, or one user under Row Level Security.
//!
//! # Invariants
//! - Roles and settings are local to the transaction: a pooled connection never keeps a user.
//! - The user's id reaches policies as `synchrotron.user_id`, and as the JWT settings that PostgREST and Supabase
//!   policies read.
//! - Who acts as a user has said which one in the same statement: no policy ever sees the user before.

use sqlx_postgres::PgConnection;
use synchrotron_core::model::UserId;

use super::query;

/// In whose name statements run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acting {
    /// The server's own role: sees and writes everything.
    Server,
    /// The user, in the role that users act as.
    User,
}

/// Lets a transaction act as the server again, whoever it acts as.
pub(crate) async fn act_as_server(conn: &mut PgConnection) -> Result<(), sqlx_core::Error> {
    query("/* act.server */ SELECT set_config('role', 'none', true)").execute(conn).await.map(drop)
}

/// A connection inside a transaction, and as whom it acts now.
#[derive(Debug)]
pub(crate) struct Actor<'a> {
    /// The connection; statements on it run as the last [`Actor::act_as`] said.
    pub(crate) conn: &'a mut PgConnection,
    app_role: &'a str,
    user_id: &'a UserId,
    acting: Acting,
    /// Whether the transaction's settings name this user.
    introduced: bool,
}

impl<'a> Actor<'a> {
    /// Acts as the server, until it is to act as this user.
    pub(crate) const fn introduce(conn: &'a mut PgConnection, user_id: &'a UserId, app_role: &'a str) -> Self {
        Self { conn, app_role, user_id, acting: Acting::Server, introduced: false }
    }

    /// From now on, this is the user that it is to act as.
    pub(crate) fn turn_to(&mut self, user_id: &'a UserId) {
        if self.user_id != user_id {
            self.user_id = user_id;
            self.introduced = false;
        }
    }

    /// Whom it acts as when it acts as the user.
    pub(crate) const fn user_id(&self) -> &'a UserId {
        self.user_id
    }

    /// The role that users act as.
    pub(crate) const fn app_role(&self) -> &'a str {
        self.app_role
    }

    /// A statement has acted as users of its own accord, and left the transaction as one of them.
    pub(crate) const fn was_left_as_user(&mut self) {
        self.acting = Acting::User;
        self.introduced = false;
    }

    /// Changes in whose name the next statements run.
    pub(crate) async fn act_as(&mut self, acting: Acting) -> Result<(), sqlx_core::Error> {
        match acting {
            Acting::User if !self.introduced => {
                query(
                    "/* act.user */ SELECT set_config('synchrotron.user_id', $1, true), \
                     set_config('request.jwt.claim.sub', $1, true), \
                     set_config('request.jwt.claims', json_build_object('sub', $1, 'role', $2)::text, true), \
                     set_config('role', $2, true)",
                )
                .bind(self.user_id.as_str())
                .bind(self.app_role)
                .execute(&mut *self.conn)
                .await?;
                self.introduced = true;
            }
            _ if self.acting == acting => {}
            Acting::Server => act_as_server(self.conn).await?,
            Acting::User => {
                let acting = query("/* act.as */ SELECT set_config('role', $1, true)").bind(self.app_role);
                acting.execute(&mut *self.conn).await.map(drop)?;
            }
        }
        self.acting = acting;
        Ok(())
    }

    /// Marks a point to come back to, acting as the user.
    pub(crate) async fn begin_trial(&mut self) -> Result<(), sqlx_core::Error> {
        self.act_as(Acting::User).await?;
        query("/* trial.begin */ SAVEPOINT trial").execute(&mut *self.conn).await.map(drop)
    }

    /// Takes back everything since [`Actor::begin_trial`].
    pub(crate) async fn end_trial(&mut self) -> Result<(), sqlx_core::Error> {
        query("/* trial.end */ ROLLBACK TO SAVEPOINT trial").execute(&mut *self.conn).await?;
        // The role is rolled back with the rest, to what it was when the trial began.
        self.acting = Acting::User;
        query("/* trial.release */ RELEASE SAVEPOINT trial").execute(&mut *self.conn).await.map(drop)
    }
}
