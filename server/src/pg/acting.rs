//! As whom a transaction acts: the server itself, or one user under Row Level Security.
//!
//! # Invariants
//! - Roles and settings are local to the transaction: a pooled connection never keeps a user.
//! - The user's id reaches policies as `synchrotron.user_id`, and as the JWT settings that PostgREST and Supabase
//!   policies read.
//! - `synchrotron.materializing` tells the triggers on tracked tables that what is written is in the log
//!   ([`capture`](crate::capture)).

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

/// A connection inside a transaction, and as whom it acts now.
#[derive(Debug)]
pub(crate) struct Actor<'a> {
    /// The connection; statements on it run as the last [`Actor::act_as`] said.
    pub(crate) conn: &'a mut PgConnection,
    app_role: &'a str,
    acting: Acting,
}

impl<'a> Actor<'a> {
    /// Tells the transaction who the user is. It still acts as the server.
    pub(crate) async fn introduce(
        conn: &'a mut PgConnection,
        user_id: &UserId,
        app_role: &'a str,
    ) -> Result<Self, sqlx_core::Error> {
        query(
            "/* act.introduce */ SELECT set_config('synchrotron.user_id', $1, true), \
             set_config('request.jwt.claim.sub', $1, true), \
             set_config('request.jwt.claims', json_build_object('sub', $1, 'role', $2)::text, true), \
             set_config('synchrotron.materializing', 'on', true)",
        )
        .bind(user_id.as_str())
        .bind(app_role)
        .execute(&mut *conn)
        .await?;
        Ok(Self { conn, app_role, acting: Acting::Server })
    }

    /// Changes in whose name the next statements run.
    pub(crate) async fn act_as(&mut self, acting: Acting) -> Result<(), sqlx_core::Error> {
        if self.acting != acting {
            let role = match acting {
                Acting::Server => "none",
                Acting::User => self.app_role,
            };
            query("/* act.as */ SELECT set_config('role', $1, true)").bind(role).execute(&mut *self.conn).await?;
            self.acting = acting;
        }
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
