//! The story, scene by scene. Every claim it tells is checked.

use std::time::{Duration, Instant};

use synchrotron_core::client::{Client, Execution};
use synchrotron_core::model::ActionId;
use synchrotron_core::network::Carrier;
use synchrotron_core::params;
use synchrotron_core::store::Fate;

use crate::audit;
use crate::report::Report;
use crate::stage::{Device, Stage, StageError};
use crate::theatre::{BookSeat, OpenSeats, WriteNote};

/// How long anything may take before the demo says that it did not happen.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bookings whose latencies the median is of.
const LATENCY_SAMPLES: usize = 20;
const SECRET_NOTE: &str = "surprise party for bob behind row B";

/// Plays all scenes.
///
/// # Errors
/// Whatever stops it; claims that do not hold are in the report.
pub async fn play(report: &mut Report) -> Result<(), StageError> {
    report.tell("A theatre, two people. Alice and Bob each have a device with its own SQLite database.");
    report.tell("Postgres holds the truth and its Row Level Security decides who sees what.");
    let began = Instant::now();
    let stage = Stage::build().await?;
    let (alice, bob) = (stage.device("alice").await?, stage.device("bob").await?);
    alice.go_online().await?;
    bob.go_online().await?;
    let took = report.figure_ms("set_up_ms", began.elapsed());
    report.tell(&format!("Postgres, nats-server with JetStream, the server and both devices are up ({took})."));
    let mut executed = Vec::new();
    book_online(report, &alice, &bob, &mut executed).await?;
    book_offline(report, &stage, &alice, &bob, &mut executed).await?;
    keep_private(report, &alice, &bob, &mut executed).await?;
    lose_nats(report, &stage, &alice, &bob, &mut executed).await?;
    compare(report, &stage, &alice, &bob, &executed).await?;
    stage.strike().await;
    Ok(())
}

async fn book_online(
    report: &mut Report,
    alice: &Device,
    bob: &Device,
    executed: &mut Vec<ActionId>,
) -> Result<(), StageError> {
    report.heading("1. Online: Alice books seat A1, Bob sees it");
    let mut labels = vec!["A1".to_owned(), "A2".to_owned(), "B1".to_owned(), "B2".to_owned()];
    labels.extend((1..=LATENCY_SAMPLES).map(|n| format!("Z{n}")));
    let mut opened = alice.client.execute(OpenSeats { labels }).await?;
    executed.push(opened.id);
    confirmed(&mut opened).await?;
    sees(&bob.client, "A1", None).await?;
    let first = live_booking(alice, bob, "A1", executed).await?;
    let shown = report.figure_ms("first_live_latency_ms", first);
    report.check("live", &format!("Bob's device shows it {shown} after Alice's tap, through Postgres and NATS"), true);
    let mut latencies = Vec::new();
    for n in 1..=LATENCY_SAMPLES {
        latencies.push(live_booking(alice, bob, &format!("Z{n}"), executed).await?);
    }
    latencies.sort();
    let median = report.figure_ms("median_live_latency_ms", latencies[LATENCY_SAMPLES / 2]);
    report.tell(&format!("{LATENCY_SAMPLES} more bookings: the median is {median}."));
    let refused = alice.client.execute(BookSeat { label: "A1".into() }).await;
    report.check("rule_at_once", "a second booking of A1 is refused at once, on the device", refused.is_err());
    Ok(())
}

async fn book_offline(
    report: &mut Report,
    stage: &Stage,
    alice: &Device,
    bob: &Device,
    executed: &mut Vec<ActionId>,
) -> Result<(), StageError> {
    report.heading("2. Offline: both book seat A2, Bob a moment earlier");
    alice.client.go_offline();
    bob.client.go_offline();
    let mut bobs = bob.client.execute(BookSeat { label: "A2".into() }).await?;
    tokio::time::sleep(Duration::from_millis(5)).await; // so that Bob's clock reads earlier
    let mut alices = alice.client.execute(BookSeat { label: "A2".into() }).await?;
    executed.extend([bobs.id, alices.id]);
    let both = holder(&alice.client, "A2").await? == Some("alice".into())
        && holder(&bob.client, "A2").await? == Some("bob".into());
    report.check("both_book_offline", "each device shows its own booking, at once", both);
    alice.go_online().await?;
    let first = confirmed(&mut alices).await?;
    report.tell("Alice comes back first: the server accepts her booking.");
    report.check("first_back_is_confirmed", "Alice's booking is confirmed for now", first == Fate::Confirmed);
    let back = Instant::now();
    bob.go_online().await?;
    report.tell("Bob comes back: his booking sorts before hers, so history is replayed and the rule runs again.");
    let changed = tokio::time::timeout(DEADLINE, alices.next_fate()).await??;
    let told = report.figure_ms("conflict_resolved_ms", back.elapsed());
    let reason = match &changed {
        Fate::Changed { reason } => reason.clone(),
        Fate::Confirmed | Fate::Rejected { .. } => None,
    };
    let words = reason.as_deref().unwrap_or("no reason");
    report.check("loser_is_told_why", &format!("after {told} Alice is told: \"{words}\""), reason.is_some());
    let winner = confirmed(&mut bobs).await?;
    report.check("winner_is_confirmed", "Bob's booking is confirmed", winner == Fate::Confirmed);
    sees(&alice.client, "A2", Some("bob")).await?;
    sees(&bob.client, "A2", Some("bob")).await?;
    let everywhere = audit::holder(&stage.postgres, "A2").await? == Some("bob".into());
    report.check("one_seat_one_holder", "Bob holds A2 on both devices and in Postgres", everywhere);
    let logged = audit::logged(&stage.postgres, &[bobs.id, alices.id]).await?;
    report.check("both_are_in_the_log", "both bookings are in the server's log: nothing is lost", logged == 2);
    Ok(())
}

async fn keep_private(
    report: &mut Report,
    alice: &Device,
    bob: &Device,
    executed: &mut Vec<ActionId>,
) -> Result<(), StageError> {
    report.heading("3. Private: Alice writes a note");
    let mut note = alice.client.execute(WriteNote { body: SECRET_NOTE.into() }).await?;
    executed.push(note.id);
    let kept = confirmed(&mut note).await? == Fate::Confirmed;
    report.check("note_is_confirmed", "the note is in Postgres", kept);
    bob.client.sync_now().await?;
    let at_alice = audit::file_holds(&alice.database, SECRET_NOTE)?;
    let at_bob = audit::file_holds(&bob.database, SECRET_NOTE)?;
    let claim = "its text is in Alice's database file, and nowhere in the bytes of Bob's";
    report.check("private_rows_stay_private", claim, at_alice && !at_bob);
    Ok(())
}

async fn lose_nats(
    report: &mut Report,
    stage: &Stage,
    alice: &Device,
    bob: &Device,
    executed: &mut Vec<ActionId>,
) -> Result<(), StageError> {
    report.heading("4. nats-server is killed, and comes back");
    stage.nats.kill().await?;
    let killed = Instant::now();
    let mut booking = alice.client.execute(BookSeat { label: "B1".into() }).await?;
    executed.push(booking.id);
    let fate = confirmed(&mut booking).await?;
    sees(&bob.client, "B1", Some("alice")).await?;
    let over = report.figure_ms("killed_to_seen_over_http_ms", killed.elapsed());
    let claim = format!("Alice books B1 and Bob sees it over HTTP, {over} after the kill");
    report.check("http_takes_over", &claim, fate == Fate::Confirmed);
    alice.wait_for_carrier(Carrier::Http).await?;
    bob.wait_for_carrier(Carrier::Http).await?;
    let restarted = Instant::now();
    stage.nats.restart().await?;
    alice.wait_for_carrier(Carrier::Nats).await?;
    bob.wait_for_carrier(Carrier::Nats).await?;
    let back = report.figure_ms("back_on_nats_ms", restarted.elapsed());
    report.tell(&format!("nats-server is back; both devices are on it again {back} later."));
    let live = live_booking(bob, alice, "B2", executed).await?;
    let shown = report.figure_ms("live_again_latency_ms", live);
    report.check("live_again", &format!("Bob books B2 and Alice sees it after {shown}"), live < DEADLINE);
    Ok(())
}

async fn compare(
    report: &mut Report,
    stage: &Stage,
    alice: &Device,
    bob: &Device,
    executed: &[ActionId],
) -> Result<(), StageError> {
    report.heading("5. The audit: every row, every device");
    for (device, user, check) in [(alice, "alice", "alice_equals_postgres"), (bob, "bob", "bob_equals_postgres")] {
        device.client.sync_now().await?;
        let truth = audit::postgres_rows(&stage.postgres, user).await?;
        let local = audit::device_rows(&device.client).await?;
        let claim = format!("{user}'s {} rows are what Postgres shows {user}, row by row", truth.len());
        report.check(check, &claim, !truth.is_empty() && truth == local);
    }
    let logged = audit::logged(&stage.postgres, executed).await?;
    let claim = format!("all {} actions are in the server's log, each once", executed.len());
    report.check("nothing_lost", &claim, logged == executed.len());
    Ok(())
}

/// Books a seat on one device; returns how long it took until the other device's change feed brought it.
async fn live_booking(
    from: &Device,
    to: &Device,
    label: &str,
    executed: &mut Vec<ActionId>,
) -> Result<Duration, StageError> {
    let holder = from.client.user_id().to_string();
    let tapped = Instant::now();
    let mut booking = from.client.execute(BookSeat { label: label.to_owned() }).await?;
    executed.push(booking.id);
    sees(&to.client, label, Some(&holder)).await?;
    let latency = tapped.elapsed();
    confirmed(&mut booking).await?;
    Ok(latency)
}

/// Waits, by the change feed, until a device shows this holder.
async fn sees(client: &Client, label: &str, expected: Option<&str>) -> Result<(), StageError> {
    let mut changes = client.changes();
    let shown = async {
        loop {
            let seat = client.query("SELECT holder FROM seats WHERE label = ?", params![label]).await?;
            if let Some(seat) = seat.first()
                && seat.get::<Option<String>>("holder")?.as_deref() == expected
            {
                return Ok::<_, StageError>(());
            }
            changes.recv().await?;
        }
    };
    tokio::time::timeout(DEADLINE, shown).await.map_err(|_| format!("{label} was not seen in time"))?
}

async fn holder(client: &Client, label: &str) -> Result<Option<String>, StageError> {
    let seats = client.query("SELECT holder FROM seats WHERE label = ?", params![label]).await?;
    Ok(seats.first().map(|seat| seat.get("holder")).transpose()?.flatten())
}

async fn confirmed<T>(execution: &mut Execution<T>) -> Result<Fate, StageError> {
    Ok(tokio::time::timeout(DEADLINE, execution.confirmed()).await??)
}
