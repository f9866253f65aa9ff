//! First the preferred carrier, then the next, then back, without the app noticing.
use super::Network;
/// Placeholder.
#[derive(Debug)]
pub struct Failover {
    _networks: Vec<std::sync::Arc<dyn Network>>,
}
