//! Several processes on one database file: one syncs, all execute, and another takes over.
//!
//! The children are this test binary again, at [`child`]. The server lives in the parent, behind a small TCP bridge.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::client::{Client, ClientError, Connection, SyncError};
use synchrotron_core::model::ActionId;
use synchrotron_core::store::Fate;
use tokio::sync::watch;

use crate::bridge::{Bridge, serve};
use crate::support::{World, alice, note, open, quick, soon, within};

const NAME: &str = "SYNCHROTRON_TEST_PROCESS";
const DATABASE: &str = "SYNCHROTRON_TEST_DATABASE";
const PORT: &str = "SYNCHROTRON_TEST_PORT";
/// Marks the lines that children write for their parent, among those of the test harness.
const MARK: &str = "@ ";
/// How often a child executes an action.
const PACE: Duration = Duration::from_millis(5);

/// Another process that executes and wants to sync.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    said: watch::Receiver<Vec<String>>,
}

impl Process {
    fn start(name: &str, database: &Path, port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "processes::child", "--nocapture"])
            .envs([(NAME, name), (PORT, &port.to_string())])
            .env(DATABASE, database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (says, said) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK) {
                    says.send_modify(|said| said.push(line.to_owned()));
                }
            }
        });
        Self { stdin: child.stdin.take(), child, said }
    }

    /// Waits for the newest line about the connection to be this.
    async fn is(&mut self, connection: &str) {
        let newest = |said: &Vec<String>| said.iter().rfind(|line| line.starts_with("is ")).cloned();
        let line = Some(format!("is {connection}"));
        soon(self.said.wait_for(|said| newest(said) == line)).await.expect("it lives");
    }

    /// Waits until it executed this many actions more.
    async fn executes(&mut self, more: usize) {
        let all = self.executed().len() + more;
        soon(self.said.wait_for(|said| executed(said).len() >= all)).await.expect("it lives");
    }

    fn executed(&self) -> BTreeSet<ActionId> {
        executed(&self.said.borrow())
    }

    fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("gone");
    }

    /// Lets it execute no more.
    fn stop(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits until all is synced and it ends; what it says at last is how many notes it sees.
    async fn end(&mut self) -> usize {
        self.stop();
        let notes = |said: &Vec<String>| said.iter().find_map(|line| line.strip_prefix("notes ").map(str::to_owned));
        let said = soon(self.said.wait_for(|said| notes(said).is_some())).await.expect("it ends well");
        notes(&said).expect("just seen").parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn executed(said: &[String]) -> BTreeSet<ActionId> {
    let ids = said.iter().filter_map(|line| line.strip_prefix("executed "));
    ids.map(|id| ActionId::from_uuid(id.parse().expect("an id"))).collect()
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{MARK}{line}").and_then(|()| stdout.flush()).expect("the parent reads");
}

/// Not a test of its own: what the other processes do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(name) = std::env::var(NAME) else { return };
    let database = std::env::var_os(DATABASE).expect("set");
    let port = std::env::var(PORT).expect("set").parse().expect("a port");
    let client = open(Path::new(&database), quick()).await;
    say("open");
    tokio::spawn(tell_connection(client.clone()));
    client.go_online(Arc::new(Bridge { port }));
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().lines().map_while(Result::ok).count());
    let mut ticks = tokio::time::interval(PACE);
    for count in 0.. {
        ticks.tick().await;
        if ended.is_finished() {
            break;
        }
        let execution = client.execute(note(format!("{name} {count}"))).await.expect("executes");
        say(&format!("executed {}", execution.id));
    }
    let mut status = client.status();
    soon(status.wait_for(|status| status.pending == 0)).await.expect("the client lives");
    let notes = client.query("SELECT count(*) AS count FROM notes", &[]).await.expect("reads");
    say(&format!("notes {}", notes[0].get::<i64>("count").expect("a number")));
}

async fn tell_connection(client: Client) {
    let mut status = client.status();
    let mut said = "";
    while status.changed().await.is_ok() {
        let now = match status.borrow_and_update().connection {
            Connection::Following => "following",
            Connection::Online { .. } => "online",
            Connection::Offline | Connection::Connecting | Connection::Failed { .. } => continue,
        };
        if said != now {
            say(&format!("is {now}"));
            said = now;
        }
    }
}

/// Waits until the server has all these actions.
async fn arrived(world: &World, actions: BTreeSet<ActionId>) {
    let all = async {
        while !actions.is_subset(&world.server.log().iter().map(|record| record.record.id).collect()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u26_two_processes_execute_one_syncs_and_the_follower_takes_over_from_a_killed_leader() {
    let world = World::new();
    let (database, port) = (world.path("shared"), serve(world.server.connect(alice())));
    let mut leader = Process::start("leader", &database, port);
    leader.is("online").await;
    let mut follower = Process::start("follower", &database, port);
    follower.is("following").await;
    leader.executes(20).await;
    follower.executes(20).await;
    arrived(&world, follower.executed()).await;
    leader.kill();
    follower.is("online").await;
    arrived(&world, leader.executed()).await;
    follower.executes(20).await;
    let notes = follower.end().await;

    let log = world.server.log();
    let ids: BTreeSet<_> = log.iter().map(|record| record.record.id).collect();
    assert_eq!(ids.len(), log.len(), "each action once");
    assert!(leader.executed().is_subset(&ids), "nothing of the killed process is lost");
    assert!(follower.executed().is_subset(&ids), "nor of the one that lives");
    let stamps: BTreeSet<_> = log.iter().map(|record| (record.record.clock, record.record.client_id)).collect();
    assert_eq!(stamps.len(), log.len(), "no two actions have one time, counter and client");
    let clients: BTreeSet<_> = log.iter().map(|record| record.record.client_id).collect();
    assert_eq!(clients.len(), 1, "both processes are one device");
    assert_eq!(notes, log.len(), "the rows are those of all actions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_open_a_new_file_at_the_same_time_all_can() {
    let world = World::new();
    let (database, port) = (world.path("shared"), serve(world.server.connect(alice())));
    let mut all: Vec<_> = (0..4).map(|n| Process::start(&n.to_string(), &database, port)).collect();
    for process in &mut all {
        process.executes(3).await;
    }
    let mut leads = 0;
    for process in &mut all {
        let said = process.said.borrow();
        leads += usize::from(said.iter().any(|line| line == "is online"));
    }
    assert!(leads <= 1, "{leads} processes sync at once");
    // As long as one executes, something is pending for all.
    all.iter_mut().for_each(Process::stop);
    for process in &mut all {
        process.end().await;
    }
    for process in &all {
        arrived(&world, process.executed()).await;
    }
}

#[tokio::test]
async fn a_follower_is_told_what_the_leader_did_and_its_own_fates() {
    let world = World::new();
    let (leader, phone) = (world.client("shared").await, world.client("phone").await);
    leader.go_online(Arc::new(world.server.connect(alice())));
    phone.go_online(Arc::new(world.server.connect(alice())));
    within(leader.sync_now()).await;
    let follower = world.client("shared").await;
    follower.go_online(Arc::new(world.server.connect(alice())));
    let mut status = follower.status();
    soon(status.wait_for(|status| matches!(status.connection, Connection::Following))).await.expect("it lives");
    let refused = soon(follower.sync_now()).await.expect_err("another syncs");
    assert!(matches!(refused, ClientError::Sync(SyncError::Following)), "{refused}");

    let mut live = follower.live_query("SELECT text FROM notes ORDER BY text", &[]);
    let mut touched = follower.watch(["notes"]).expect("a table");
    assert_eq!(soon(live.next()).await.expect("lives").expect("reads").len(), 0);
    within(phone.execute(note("from the phone"))).await;
    assert_eq!(soon(live.next()).await.expect("lives").expect("reads").len(), 1);
    assert_eq!(soon(touched.next()).await, Some(()));
    let mut mine = within(follower.execute(note("mine"))).await;
    assert_eq!(within(mine.confirmed()).await, Fate::Confirmed, "the leader uploaded it");
    soon(status.wait_for(|status| status.pending == 0)).await.expect("counted again");

    drop(leader);
    soon(status.wait_for(|status| status.connection.carrier().is_some())).await.expect("it took over");
    let mut last = within(follower.execute(note("last"))).await;
    assert_eq!(within(last.confirmed()).await, Fate::Confirmed);
    assert_eq!(world.texts(), 3);
}

#[tokio::test]
async fn a_client_that_is_closed_and_opened_again_leads_at_once() {
    let world = World::new();
    for _ in 0..5 {
        let client = world.client("alice").await;
        client.go_online(Arc::new(world.server.connect(alice())));
        let mut status = client.status();
        let decided = |status: &synchrotron_core::client::Status| {
            assert!(!matches!(status.connection, Connection::Following), "nobody else has it open");
            status.connection.carrier().is_some()
        };
        soon(status.wait_for(decided)).await.expect("it lives");
        client.go_online(Arc::new(world.server.connect(alice())));
        within(client.sync_now()).await;
    }
}
