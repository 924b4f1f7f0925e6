//! The trail as Prometheus text (exposition format 0.0.4), for `--metrics-textfile` and the
//! server's metrics page. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::trail::Trail;

/// Upper bounds of the histogram, in seconds: discovery of a local container should stay under
/// 0.25 s, a connection that times out takes 10 s.
const BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

#[derive(Default)]
struct Histogram {
    counts: Vec<u64>,
    sum: Duration,
    count: u64,
}

/// Renders `pgstow_discovery_step_total{step,outcome}` and the histogram
/// `pgstow_discovery_step_seconds{step}` over one or more trails. Reasons are never part of it.
#[must_use]
pub fn discovery_metrics<'a>(trails: impl IntoIterator<Item = &'a Trail>) -> String {
    let mut totals: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut histograms: BTreeMap<&str, Histogram> = BTreeMap::new();
    for entry in trails.into_iter().flat_map(|trail| &trail.entries) {
        *totals
            .entry((entry.step, entry.outcome.as_str()))
            .or_default() += 1;
        let histogram = histograms.entry(entry.step).or_default();
        histogram.counts.resize(BUCKETS.len(), 0);
        histogram.count += 1;
        histogram.sum += entry.duration;
        for (count, bound) in histogram.counts.iter_mut().zip(BUCKETS) {
            *count += u64::from(entry.duration.as_secs_f64() <= *bound);
        }
    }
    let mut text = String::from(
        "# HELP pgstow_discovery_step_total Steps of discovery by outcome.\n\
         # TYPE pgstow_discovery_step_total counter\n",
    );
    // Writing to a String cannot fail.
    for ((step, outcome), total) in totals {
        let _ = writeln!(
            text,
            "pgstow_discovery_step_total{{step=\"{step}\",outcome=\"{outcome}\"}} {total}"
        );
    }
    text.push_str(
        "# HELP pgstow_discovery_step_seconds Time of the steps of discovery.\n\
         # TYPE pgstow_discovery_step_seconds histogram\n",
    );
    for (step, histogram) in histograms {
        let name = "pgstow_discovery_step_seconds";
        for (count, bound) in histogram.counts.iter().zip(BUCKETS) {
            let _ = writeln!(
                text,
                "{name}_bucket{{step=\"{step}\",le=\"{bound}\"}} {count}"
            );
        }
        let _ = writeln!(
            text,
            "{name}_bucket{{step=\"{step}\",le=\"+Inf\"}} {count}\n\
             {name}_sum{{step=\"{step}\"}} {sum}\n\
             {name}_count{{step=\"{step}\"}} {count}",
            count = histogram.count,
            sum = histogram.sum.as_secs_f64(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        discover::recorder::STEPS,
        trail::{Outcome, TrailEntry},
    };

    fn entry(step: &'static str, outcome: Outcome, millis: u64) -> TrailEntry {
        TrailEntry {
            step,
            outcome,
            reason: "a reason with \"quotes\"\nand lines".to_owned(),
            duration: Duration::from_millis(millis),
        }
    }

    #[test]
    fn counters_and_cumulative_buckets() {
        let trail = Trail {
            entries: vec![
                entry("credentials", Outcome::Refused, 40),
                entry("credentials", Outcome::Refused, 60),
                entry("credentials", Outcome::Found, 60_000),
                entry("environment", Outcome::Nothing, 0),
            ],
        };
        let text = discovery_metrics([&trail, &trail]);
        for line in [
            "pgstow_discovery_step_total{step=\"credentials\",outcome=\"refused\"} 4",
            "pgstow_discovery_step_total{step=\"credentials\",outcome=\"found\"} 2",
            "pgstow_discovery_step_total{step=\"environment\",outcome=\"nothing\"} 2",
            "pgstow_discovery_step_seconds_bucket{step=\"credentials\",le=\"0.025\"} 0",
            "pgstow_discovery_step_seconds_bucket{step=\"credentials\",le=\"0.05\"} 2",
            "pgstow_discovery_step_seconds_bucket{step=\"credentials\",le=\"30\"} 4",
            "pgstow_discovery_step_seconds_bucket{step=\"credentials\",le=\"+Inf\"} 6",
            "pgstow_discovery_step_seconds_sum{step=\"credentials\"} 120.2",
            "pgstow_discovery_step_seconds_count{step=\"credentials\"} 6",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("reason"), "{text}");
        assert_eq!(text.matches("# TYPE").count(), 2);
    }

    #[test]
    fn no_trail_gives_only_the_heads() {
        assert_eq!(discovery_metrics([]).lines().count(), 4);
    }

    #[test]
    fn step_names_need_no_escaping() {
        assert!(
            STEPS
                .iter()
                .all(|step| { step.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') })
        );
    }
}
