//! A trace from the task that executes on one device to the step that integrates on another.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use synchrotron_core::client::Client;
use synchrotron_core::model::TraceParent;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{World, alice, note, open_builder, quick, within};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An event: the span that it is in, and its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    span: Option<&'static str>,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// Keeps every event of this process.
#[derive(Clone, Default)]
struct Listening(Arc<Mutex<Vec<Told>>>);

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Listening {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told { span: context.event_span(event).map(|span| span.name()), ..Told::default() };
        event.record(&mut told);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
}

/// Engines run on threads of their own, so only a listener of the whole process hears them.
fn listening() -> &'static Listening {
    static LISTENING: OnceLock<Listening> = OnceLock::new();
    LISTENING.get_or_init(|| {
        let listening = Listening::default();
        let subscriber = tracing_subscriber::registry().with(listening.clone());
        tracing::subscriber::set_global_default(subscriber).expect("nobody else listens here");
        listening
    })
}

tokio::task_local! {
    static CURRENT: TraceParent;
}

async fn client(world: &World, name: &str) -> Client {
    let builder = open_builder("alice", &world.path(name), quick());
    let builder = builder.trace_context(|| CURRENT.try_with(|trace| *trace).ok());
    let client = builder.open().await.expect("opens");
    client.go_online(Arc::new(world.server.connect(alice())));
    client
}

#[tokio::test]
async fn what_a_device_integrates_names_the_trace_that_another_executed_in() {
    let heard = listening();
    let world = World::new();
    let (a, b) = (client(&world, "a").await, client(&world, "b").await);
    // A device that comes later takes a snapshot, in which no action is integrated.
    within(b.sync_now()).await;
    let trace: TraceParent = TRACE.parse().expect("well-formed");
    let execution = CURRENT.scope(trace, within(a.execute(note("traced")))).await;
    let untraced = within(a.execute(note("untraced"))).await;
    within(a.sync_now()).await;
    within(b.sync_now()).await;

    let told = heard.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let integrated = |id: String| {
        let of = |told: &&Told| told.fields.get("action_id") == Some(&id) && told.span == Some("integrate");
        told.iter().filter(of).map(|told| told.fields["trace_parent"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(integrated(execution.id.to_string()), [TRACE], "{told:?}");
    assert_eq!(integrated(untraced.id.to_string()), Vec::<String>::new(), "{told:?}");
}
