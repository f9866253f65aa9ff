//! Recovery for the app: the doctor, the server's rows again, sign-out.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Client, ClientError, installation};
use crate::engine::{Report, Unsent};
use crate::model::AudienceKey;
use crate::network::Network;
use crate::wire::DigestRequest;

/// Which audiences are the same here as on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Same rows.
    pub equal: BTreeSet<AudienceKey>,
    /// Other rows, at the same place of history. [`Client::rebase`] mends that.
    pub different: BTreeSet<AudienceKey>,
    /// Not comparable now: one side has more of history than the other. Sync, and ask again.
    pub moved_on: BTreeSet<AudienceKey>,
}

impl Client {
    /// Checks the whole database: SQLite's own check, and every row against history. It takes time with the size of the
    /// database, and other steps wait for it. If anything is wrong, the rows are taken from the server again, with the next
    /// pass, and pending work runs again on them.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read at all.
    pub async fn check(&self) -> Result<Report, ClientError> {
        let report = self
            .blocking(|engine| {
                let report = engine.check()?;
                if !report.is_sound() {
                    engine.rebase()?;
                }
                Ok(report)
            })
            .await?;
        self.ask_for_a_pass();
        Ok(report)
    }

    /// Compares what history makes of the rows here with the server's rows, audience by audience, by their digests. Pending
    /// work does not count; whether the rows are what history makes of them, [`Self::check`] tells.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read, [`ClientError::Sync`] if the server cannot be asked.
    pub async fn compare_with(&self, network: &dyn Network) -> Result<Comparison, ClientError> {
        let (report, request) = self.blocking(|engine| Ok((engine.check()?, engine.fetch_request()?))).await?;
        let asked = DigestRequest {
            client_id: request.client_id,
            epoch: request.epoch,
            audiences: request.cursors.keys().cloned().collect(),
        };
        let reply = network.digest(&asked).await.map_err(super::SyncError::from)?;
        let mut comparison = Comparison::default();
        for (audience, cursor) in request.cursors {
            let set = match (reply.audiences.get(&audience), report.digests.get(&audience)) {
                (Some(theirs), Some(ours)) if theirs.head == cursor => {
                    if (theirs.rows, theirs.digest) == *ours {
                        &mut comparison.equal
                    } else {
                        &mut comparison.different
                    }
                }
                _ => &mut comparison.moved_on,
            };
            set.insert(audience);
        }
        Ok(comparison)
    }

    /// Takes every row from the server again, with the next pass; pending work is kept and runs again on them.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be written.
    pub async fn rebase(&self) -> Result<(), ClientError> {
        self.blocking(|engine| Ok(engine.rebase()?)).await?;
        self.ask_for_a_pass();
        Ok(())
    }

    /// Like [`Self::rebase`], but pending work is taken out, into quarantine.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be written.
    pub async fn hard_resync(&self) -> Result<(), ClientError> {
        let shared = Arc::clone(&self.shared);
        self.blocking(move |engine| {
            shared.publish(engine.hard_resync()?);
            Ok(shared.count(engine)?)
        })
        .await?;
        self.ask_for_a_pass();
        Ok(())
    }

    /// The driver, if one runs, takes what is due.
    fn ask_for_a_pass(&self) {
        if let Some(requests) = self.driver.requests() {
            let (reply, _nobody_waits) = oneshot::channel();
            let _driver_stops = requests.send(reply);
        }
    }

    /// Forgets all of the user on this device and stops syncing. The database can then be opened for another user;
    /// this client, and its clones, cannot execute any more. Tables that are not synced are left as they are.
    ///
    /// # Errors
    /// [`ClientError::SignOut`] if work would be lost and `unsent` does not say that it may.
    pub async fn sign_out(&self, unsent: Unsent) -> Result<(), ClientError> {
        self.go_offline();
        let shared = Arc::clone(&self.shared);
        self.blocking(move |engine| {
            shared.publish(engine.sign_out(installation::new_client_id(), unsent)?);
            Ok(shared.count(engine)?)
        })
        .await
    }
}
