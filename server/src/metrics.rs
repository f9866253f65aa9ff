//! What the server counts and measures, for whoever watches it; Prometheus reads it at `/metrics`.
//!
//! Place in the journey: beside it. Every metric is named here, and `docs/observability.md` lists them all.
//!
//! # Invariants
//! - Labels have few values, all of them named here and exported from the start: never users, audiences or ids.
//! - There is one recorder in a process, and it is ours alone: several servers in one process count together, and a
//!   program around them may install a global recorder of its own.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use synchrotron_core::wire::Outcome;

/// How a metric is exported.
struct Metric {
    name: &'static str,
    unit: Unit,
    description: &'static str,
}

const fn metric(name: &'static str, unit: Unit, description: &'static str) -> Metric {
    Metric { name, unit, description }
}

const UPLOADS: Metric =
    metric("synchrotron_uploads_total", Unit::Count, "Uploads that were decided, by their outcome.");
const UPLOAD_SECONDS: Metric =
    metric("synchrotron_upload_seconds", Unit::Seconds, "From an upload's admission to its outcome.");
const RECORDS_ACCEPTED: Metric = metric(
    "synchrotron_records_accepted_total",
    Unit::Count,
    "Records of accepted uploads; those of an upload that is sent again count again.",
);
const RECORDS_LATE: Metric = metric(
    "synchrotron_records_late_total",
    Unit::Count,
    "Actions that arrived beneath others of the same rows, and corrections: their rows were folded again.",
);
const FETCHES: Metric = metric("synchrotron_fetches_total", Unit::Count, "Pages that were served.");
const FETCHED_BYTES: Metric =
    metric("synchrotron_fetched_bytes_total", Unit::Bytes, "Records in these pages, as they were uploaded.");
const SNAPSHOT_CHUNKS: Metric =
    metric("synchrotron_snapshot_chunks_total", Unit::Count, "Chunks of snapshots that were served.");
const SNAPSHOTS_OPEN: Metric = metric(
    "synchrotron_snapshots_open",
    Unit::Count,
    "Snapshots that are being taken; each holds a connection to Postgres.",
);
const OUTBOX_SLICES: Metric =
    metric("synchrotron_outbox_slices", Unit::Count, "Slices that wait to be published, counted up to 10000.");
const OUTBOX_OLDEST: Metric = metric(
    "synchrotron_outbox_oldest_seconds",
    Unit::Seconds,
    "How long the oldest of them has waited; 0 if none waits.",
);
const POOL_CONNECTIONS: Metric = metric(
    "synchrotron_pool_connections",
    Unit::Count,
    "Connections to Postgres beside those of snapshots, by what they do.",
);
const NATS_CONNECTED: Metric =
    metric("synchrotron_nats_connected", Unit::Count, "1 while NATS is connected; 0 also where none is used.");
const PARTITIONS_HELD: Metric =
    metric("synchrotron_nats_partitions_held", Unit::Count, "Partitions of uploads that this process reads.");
const AUTH_REFUSALS: Metric = metric(
    "synchrotron_auth_refusals_total",
    Unit::Count,
    "Requests and connections whose sender was not believed, by what was wrong.",
);

/// Upper bounds of the classes of [`UPLOAD_SECONDS`].
const CLASSES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// So many slices of the outbox are counted, and no more: looking costs little, however long an outage lasts.
pub(crate) const OUTBOX_COUNTED_MAX: i64 = 10_000;

/// Why a request's sender was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthRefusal {
    /// It sent no token.
    NoToken,
    /// Its token was good once.
    Expired,
    /// Its token proves nothing.
    BadToken,
}

/// This process's metrics.
pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// A handle for each series: to count costs an addition, and no look-up.
pub(crate) struct Metrics {
    exported: PrometheusHandle,
    uploads: [Counter; 9],
    upload_seconds: Histogram,
    records_accepted: Counter,
    pub(crate) records_late: Counter,
    pub(crate) fetches: Counter,
    pub(crate) fetched_bytes: Counter,
    pub(crate) snapshot_chunks: Counter,
    pub(crate) snapshots_open: Gauge,
    pub(crate) outbox_slices: Gauge,
    pub(crate) outbox_oldest_seconds: Gauge,
    pub(crate) pool_in_use: Gauge,
    pub(crate) pool_idle: Gauge,
    pub(crate) nats_connected: Gauge,
    pub(crate) partitions_held: Gauge,
    auth_refusals: [Counter; 3],
}

impl Metrics {
    fn new() -> Self {
        let builder = PrometheusBuilder::new();
        let classes = builder.set_buckets_for_metric(Matcher::Full(UPLOAD_SECONDS.name.to_owned()), &CLASSES);
        let recorder = Exporting(classes.expect("BUG: there are classes").build_recorder());
        let [pool_in_use, pool_idle] = recorder.gauges(&POOL_CONNECTIONS, "state", ["in_use", "idle"]);
        Self {
            exported: recorder.0.handle(),
            uploads: recorder.counters(&UPLOADS, "outcome", OUTCOMES),
            upload_seconds: recorder.histogram(&UPLOAD_SECONDS),
            records_accepted: recorder.counter(&RECORDS_ACCEPTED),
            records_late: recorder.counter(&RECORDS_LATE),
            fetches: recorder.counter(&FETCHES),
            fetched_bytes: recorder.counter(&FETCHED_BYTES),
            snapshot_chunks: recorder.counter(&SNAPSHOT_CHUNKS),
            snapshots_open: recorder.gauge(&SNAPSHOTS_OPEN),
            outbox_slices: recorder.gauge(&OUTBOX_SLICES),
            outbox_oldest_seconds: recorder.gauge(&OUTBOX_OLDEST),
            pool_in_use,
            pool_idle,
            nats_connected: recorder.gauge(&NATS_CONNECTED),
            partitions_held: recorder.gauge(&PARTITIONS_HELD),
            auth_refusals: recorder.counters(&AUTH_REFUSALS, "reason", REASONS),
        }
    }

    /// An upload was decided.
    pub(crate) fn uploaded(&self, outcome: &Outcome, took: Duration) {
        self.uploads[outcome_place(outcome)].increment(1);
        self.upload_seconds.record(took);
        if let Outcome::Accepted { ids } = outcome {
            self.records_accepted.increment(ids.len() as u64);
        }
    }

    /// A request's sender was not believed.
    pub(crate) fn auth_refused(&self, refusal: AuthRefusal) {
        self.auth_refusals[refusal as usize].increment(1);
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn render(&self) -> String {
        self.exported.render()
    }

    /// Puts measured values into their classes. Between two calls each takes memory, so this is to be called now and then.
    pub(crate) fn tidy(&self) {
        self.exported.run_upkeep();
    }
}

/// The values of the label `outcome`.
const OUTCOMES: [&str; 9] = [
    "accepted",
    "behind_head",
    "rejected",
    "clock_ahead",
    "too_old",
    "epoch_changed",
    "unauthenticated",
    "retry",
    "refused",
];

const fn outcome_place(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Accepted { .. } => 0,
        Outcome::BehindHead { .. } => 1,
        Outcome::Rejected { .. } => 2,
        Outcome::ClockAhead { .. } => 3,
        Outcome::TooOld { .. } => 4,
        Outcome::EpochChanged { .. } => 5,
        Outcome::Unauthenticated { .. } => 6,
        Outcome::Retry { .. } => 7,
        Outcome::Refused(_) => 8,
    }
}

/// An outcome in one word, as metrics and traces name it.
pub(crate) const fn outcome_word(outcome: &Outcome) -> &'static str {
    OUTCOMES[outcome_place(outcome)]
}

/// The values of the label `reason`, in the order of [`AuthRefusal`].
const REASONS: [&str; 3] = ["no_token", "expired", "bad_token"];

/// Makes handles.
struct Exporting(PrometheusRecorder);

impl Exporting {
    const METADATA: Metadata<'static> = Metadata::new("synchrotron", Level::INFO, None);

    fn counter(&self, metric: &Metric) -> Counter {
        self.0.describe_counter(metric.name.into(), Some(metric.unit), metric.description.into());
        self.0.register_counter(&Key::from_static_name(metric.name), &Self::METADATA)
    }

    fn gauge(&self, metric: &Metric) -> Gauge {
        self.0.describe_gauge(metric.name.into(), Some(metric.unit), metric.description.into());
        self.0.register_gauge(&Key::from_static_name(metric.name), &Self::METADATA)
    }

    fn histogram(&self, metric: &Metric) -> Histogram {
        self.0.describe_histogram(metric.name.into(), Some(metric.unit), metric.description.into());
        self.0.register_histogram(&Key::from_static_name(metric.name), &Self::METADATA)
    }

    fn counters<const N: usize>(
        &self,
        metric: &Metric,
        label: &'static str,
        values: [&'static str; N],
    ) -> [Counter; N] {
        self.0.describe_counter(metric.name.into(), Some(metric.unit), metric.description.into());
        values.map(|value| {
            let key = Key::from_parts(metric.name, [(label, value)].as_slice());
            self.0.register_counter(&key, &Self::METADATA)
        })
    }

    fn gauges<const N: usize>(&self, metric: &Metric, label: &'static str, values: [&'static str; N]) -> [Gauge; N] {
        self.0.describe_gauge(metric.name.into(), Some(metric.unit), metric.description.into());
        values.map(|value| {
            let key = Key::from_parts(metric.name, [(label, value)].as_slice());
            self.0.register_gauge(&key, &Self::METADATA)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCS: &str = include_str!("../../docs/observability.md");

    /// `name, type, description` of everything that is exported.
    fn exported() -> BTreeSet<(String, String, String)> {
        let metrics = Metrics::new();
        metrics.upload_seconds.record(0.1);
        let text = metrics.render();
        let lines =
            |prefix: &'static str| text.lines().filter_map(move |line| line.strip_prefix(prefix)?.split_once(' '));
        let help = |name: &str| lines("# HELP ").find(|(of, _)| *of == name).map(|(_, help)| help.to_owned());
        lines("# TYPE ")
            .map(|(name, kind)| (name.to_owned(), kind.to_owned(), help(name).expect("described")))
            .collect()
    }

    #[test]
    fn the_documents_list_exactly_what_is_exported() {
        let documented: BTreeSet<_> = DOCS
            .lines()
            .filter(|line| line.starts_with("| `synchrotron_"))
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                let ["", name, kind, _labels, description, ""] = cells[..] else { panic!("not four cells: {row}") };
                (name.trim_matches('`').to_owned(), kind.to_owned(), description.to_owned())
            })
            .collect();
        assert_eq!(documented, exported());
    }

    #[test]
    fn every_series_with_a_label_is_there_from_the_start() {
        let text = Metrics::new().render();
        for outcome in OUTCOMES {
            assert!(
                text.contains(&format!("synchrotron_uploads_total{{outcome=\"{outcome}\"}} 0")),
                "{outcome}: {text}"
            );
        }
        let metrics = Metrics::new();
        metrics.auth_refused(AuthRefusal::BadToken);
        metrics.uploaded(&Outcome::Retry { after_ms: 1 }, Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            "synchrotron_auth_refusals_total{reason=\"bad_token\"} 1",
            "synchrotron_auth_refusals_total{reason=\"no_token\"} 0",
            "synchrotron_uploads_total{outcome=\"retry\"} 1",
            "synchrotron_upload_seconds_bucket{le=\"0.0025\"} 0",
            "synchrotron_upload_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(text.lines().any(|exported| exported == line), "{line} is not in\n{text}");
        }
    }
}
