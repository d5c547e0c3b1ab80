//! The recorder behind `/metrics`, one per process, made at first use.

use std::{sync::LazyLock, time::Duration};

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio_util::sync::CancellationToken;

use super::label::LineLoss;
use super::metric::{self, Metric, Shape};
use super::process;

/// How often samples are moved out of the histograms' buffers, which grow until then.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

const METADATA: Metadata<'static> = Metadata::new("ingestd", Level::INFO, None);

/// The process's metrics, ready to be rendered.
///
/// There is one, made when it is first asked for; it is not installed as the
/// metrics crates' global recorder, so that neither the order of start-up nor
/// tests that share a process can lose series, and libraries add none.
#[derive(Debug)]
pub struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    started_at: f64,
}

static EXPORTER: LazyLock<Exporter> = LazyLock::new(|| {
    let recorder = build().unwrap_or_else(|error| {
        tracing::error!(%error, "histograms have no buckets");
        PrometheusBuilder::new().build_recorder()
    });
    Exporter::new(recorder)
});

impl Exporter {
    /// Returns the exporter. Call it early: the first call sets the start time.
    #[must_use]
    pub fn get() -> &'static Self {
        &EXPORTER
    }

    fn new(recorder: PrometheusRecorder) -> Self {
        let exporter = Self {
            handle: recorder.handle(),
            recorder,
            started_at: process::unix_time(),
        };
        exporter.describe();
        let build = [
            env!("CARGO_PKG_VERSION"),
            option_env!("INGESTD_REVISION").unwrap_or("unknown"),
            option_env!("INGESTD_RUSTC").unwrap_or("unknown"),
        ];
        exporter.gauge(&metric::BUILD_INFO, &build).set(1.0);
        exporter
            .gauge(&metric::START_TIME, &[])
            .set(exporter.started_at);
        exporter.gauge(&metric::READY, &[]).set(0.0);
        exporter.gauge(&metric::LISTENER_CONNECTED, &[]).set(0.0);
        exporter.gauge(&metric::SSE_CLIENTS, &[]).set(0.0);
        exporter
            .counter(&metric::LISTENER_RECONNECTS, &[])
            .absolute(0);
        for &reason in LineLoss::ALL {
            exporter
                .counter(&metric::LOG_LINES_LOST, &[reason.as_str()])
                .absolute(0);
        }
        exporter
    }

    /// Returns every series as Prometheus text, format 0.0.4.
    ///
    /// Serve it as `text/plain; version=0.0.4; charset=utf-8`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        process::Usage::read().render(self.started_at, &mut text);
        text
    }

    /// Moves samples out of the histograms' buffers every second until `stop` fires.
    ///
    /// Without it the buffers grow until somebody scrapes.
    pub async fn run_upkeep(&self, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL))
            .await
            .is_some()
        {
            self.handle.run_upkeep();
        }
    }

    fn describe(&self) {
        for metric in metric::ALL {
            let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
            match metric.shape {
                Shape::Counter => self.recorder.describe_counter(name, None, help),
                Shape::Gauge => self.recorder.describe_gauge(name, None, help),
                Shape::Histogram(_) => self.recorder.describe_histogram(name, None, help),
            }
        }
    }

    pub(super) fn counter(&self, metric: &Metric, values: &[&str]) -> metrics::Counter {
        self.recorder
            .register_counter(&key(metric, values), &METADATA)
    }

    pub(super) fn gauge(&self, metric: &Metric, values: &[&str]) -> metrics::Gauge {
        self.recorder
            .register_gauge(&key(metric, values), &METADATA)
    }

    pub(super) fn histogram(&self, metric: &Metric, values: &[&str]) -> metrics::Histogram {
        self.recorder
            .register_histogram(&key(metric, values), &METADATA)
    }
}

/// Builds a recorder with the table's buckets; without them a histogram would
/// become a summary, which cannot be put together over instances.
fn build() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in metric::ALL {
        if let Shape::Histogram(bounds) = metric.shape {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), bounds)?;
        }
    }
    Ok(builder.build_recorder())
}

/// Puts label names and values together.
fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert_eq!(
        metric.labels.len(),
        values.len(),
        "labels of {}",
        metric.name
    );
    let labels: Vec<Label> = metric
        .labels
        .iter()
        .zip(values)
        .map(|(&name, &value)| Label::new(name, value.to_owned()))
        .collect();
    Key::from_parts(metric.name, labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn typed_names(text: &str) -> BTreeSet<(String, String)> {
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(|(name, shape)| (name.to_owned(), shape.to_owned()))
            .collect()
    }

    #[test]
    fn renders_every_metric_of_the_table_and_no_other() {
        let exporter = Exporter::new(build().unwrap());
        for m in metric::ALL
            .iter()
            .filter(|m| !m.name.starts_with("process_"))
        {
            let values = vec!["x"; m.labels.len()];
            match m.shape {
                Shape::Counter => exporter.counter(m, &values).increment(1),
                Shape::Gauge => exporter.gauge(m, &values).set(1.0),
                Shape::Histogram(_) => exporter.histogram(m, &values).record(0.3),
            }
        }
        let table = metric::ALL
            .iter()
            .map(|m| (m.name.to_owned(), m.shape.name().to_owned()))
            .collect();
        assert_eq!(typed_names(&exporter.render()), table);
    }

    #[test]
    fn a_histogram_has_the_buckets_of_the_table() {
        let exporter = Exporter::new(build().unwrap());
        exporter.histogram(&metric::JOB_WAIT, &["q"]).record(0.3);
        let text = exporter.render();
        assert!(text.contains("ingestd_job_wait_seconds_bucket{queue=\"q\",le=\"0.25\"} 0"));
        assert!(text.contains("ingestd_job_wait_seconds_bucket{queue=\"q\",le=\"0.5\"} 1"));
        assert!(text.contains("ingestd_job_wait_seconds_count{queue=\"q\"} 1"));
    }

    #[test]
    fn label_values_are_escaped() {
        let exporter = Exporter::new(build().unwrap());
        exporter
            .gauge(&metric::QUEUE_PAUSED, &["a\"b\\c\nd"])
            .set(1.0);
        let text = exporter.render();
        assert!(
            text.contains(r#"ingestd_queue_paused{queue="a\"b\\c\nd"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn one_exporter_however_often_it_is_asked_for() {
        assert!(std::ptr::eq(Exporter::get(), Exporter::get()));
    }
}
