//! Several nats-servers that form one JetStream cluster, to be killed one by one.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Service, ServiceError};
use crate::find::{self, Source};
use crate::nats::{NatsOptions, NatsServer};
use crate::port::free_port;
use crate::wait::wait_for;

/// Nodes elect a leader before they serve streams.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A cluster of nats-servers of this program, on loopback; each with a store of its own.
///
/// ```no_run
/// use synchrotron_testkit::{NatsCluster, NatsOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = NatsCluster::start(3, &NatsOptions::default()).await?;
/// cluster.nodes()[1].kill().await?;
/// cluster.nodes()[1].restart().await?;
/// cluster.wait_until_ready().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
    /// Where each says how it is, over HTTP.
    monitors: Vec<u16>,
}

impl NatsCluster {
    /// Starts `count` nodes with these options, whose lines are added to the configuration of each; returns when all of
    /// them have found each other.
    ///
    /// # Errors
    /// [`ServiceError::NotOurs`] with `NATS_URL` and where servers run in containers; others if one does not start.
    pub async fn start(count: usize, options: &NatsOptions) -> Result<Self, ServiceError> {
        let not_ours = ServiceError::NotOurs { service: Service::Nats, call: "make a cluster of" };
        if find::url_from_environment(Service::Nats).is_some() {
            return Err(not_ours);
        }
        let Source::Program(_) = find::find(Service::Nats).await? else { return Err(not_ours) };
        let routes: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let monitors: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let mut nodes = Vec::with_capacity(count);
        for (route, monitor) in routes.iter().zip(&monitors) {
            let lines = format!("{}\n{}", options.config, config(*route, *monitor, &routes));
            let mut options = options.clone();
            options.config = lines;
            nodes.push(NatsServer::start(options).await?);
        }
        let cluster = Self { nodes, monitors };
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[NatsServer] {
        &self.nodes
    }

    /// The addresses of all nodes, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// Waits until every node is there and knows what the others know.
    ///
    /// # Errors
    /// [`ServiceError`] if that does not come about in time.
    pub async fn wait_until_ready(&self) -> Result<(), ServiceError> {
        let ready = wait_for("all nodes of the cluster to be current", READY_WITHIN, async || {
            for monitor in &self.monitors {
                if !is_healthy(*monitor).await {
                    return None;
                }
            }
            Some(())
        });
        Ok(ready.await?)
    }
}

fn config(route: u16, monitor: u16, routes: &[u16]) -> String {
    let host = Ipv4Addr::LOCALHOST;
    let others: Vec<String> = routes.iter().map(|port| format!("\"nats://{host}:{port}\"")).collect();
    format!(
        "http: \"{host}:{monitor}\"\n\
         cluster {{ name: synchrotron-testkit, listen: \"{host}:{route}\", routes: [{}] }}",
        others.join(", ")
    )
}

/// Whether a node says that its JetStream is current with the others.
async fn is_healthy(monitor: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, monitor)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    ask.await.is_ok_and(|answer| answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
}
