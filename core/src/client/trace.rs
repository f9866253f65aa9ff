//! Where an executed action's trace comes from.
//!
//! Place in the journey: before `execute`. The core knows no tracing system: the app says which span it is in, if any.

use std::fmt;
use std::sync::Arc;

use crate::model::TraceParent;

/// Asks the app which trace it is in.
#[derive(Clone, Default)]
pub(super) struct TraceContext(Option<Arc<dyn Fn() -> Option<TraceParent> + Send + Sync>>);

impl TraceContext {
    pub(super) fn new(current: impl Fn() -> Option<TraceParent> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(current)))
    }

    /// The trace that the calling task is in.
    pub(super) fn current(&self) -> Option<TraceParent> {
        self.0.as_ref().and_then(|current| current())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceContext").field(&self.0.as_ref().map(|_| "…")).finish()
    }
}
