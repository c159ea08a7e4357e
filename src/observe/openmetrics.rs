//! OpenMetrics 1.0 text, <https://prometheus.io/docs/specs/om/open_metrics_spec/>, which the crate `prometheus` does not
//! write. It does not know which families there are.

use std::fmt::{self, Write};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// Units that a name may end with; a family whose name does has a `# UNIT` line.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// The families with their samples, and `# EOF`.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        let name = Name::of(family, families);
        write_family(&mut text, &name, family).expect("a string takes all text");
    }
    text.push_str("# EOF\n");
    text
}

/// What a family is called and said to be here.
struct Name<'f> {
    family: &'f str,
    /// What the names of samples have behind the family's; those of a histogram have their own.
    suffix: &'static str,
    kind: &'static str,
}

impl<'f> Name<'f> {
    /// A counter is called without the suffix that its samples have. Where that is the name of another family, such as
    /// `wsgate_tunnels` beside `wsgate_tunnels_total`, it keeps its full name and is of unknown type, since names must
    /// not clash.
    fn of(family: &'f MetricFamily, families: &[MetricFamily]) -> Name<'f> {
        let full = family.name();
        let is_taken = |name| families.iter().any(|other| other.name() == name);
        match (family.get_field_type(), full.strip_suffix("_total")) {
            (MetricType::COUNTER, Some(stem)) if !is_taken(stem) => {
                Name { family: stem, suffix: "_total", kind: "counter" }
            }
            (MetricType::GAUGE, _) => Name { family: full, suffix: "", kind: "gauge" },
            (MetricType::HISTOGRAM, _) => Name { family: full, suffix: "", kind: "histogram" },
            (MetricType::COUNTER | MetricType::SUMMARY | MetricType::UNTYPED, _) => {
                Name { family: full, suffix: "", kind: "unknown" }
            }
        }
    }

    fn unit(&self) -> Option<&'static str> {
        let has = |unit: &&str| self.family.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'));
        UNITS.into_iter().find(has)
    }
}

fn write_family(text: &mut String, name: &Name<'_>, family: &MetricFamily) -> fmt::Result {
    writeln!(text, "# TYPE {} {}", name.family, name.kind)?;
    if let Some(unit) = name.unit() {
        writeln!(text, "# UNIT {} {unit}", name.family)?;
    }
    if !family.help().is_empty() {
        writeln!(text, "# HELP {} {}", name.family, Escaped(family.help()))?;
    }
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => {
                write_sample(text, name.family, name.suffix, labels, metric.get_counter().get_value())?;
            }
            MetricType::GAUGE => write_sample(text, name.family, name.suffix, labels, metric.get_gauge().get_value())?,
            MetricType::HISTOGRAM => write_histogram(text, name.family, metric)?,
            // The product has neither; a family without samples is legal.
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }
    Ok(())
}

fn write_histogram(text: &mut String, name: &str, metric: &Metric) -> fmt::Result {
    let histogram = metric.get_histogram();
    let labels = metric.get_label();
    let count = histogram.get_sample_count();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    for bucket in finite {
        write_bucket(text, name, labels, format_args!("{:?}", bucket.upper_bound()), bucket.cumulative_count())?;
    }
    write_bucket(text, name, labels, format_args!("+Inf"), count)?;
    write_labels(text, name, "_count", labels, None)?;
    writeln!(text, " {count}")?;
    write_sample(text, name, "_sum", labels, histogram.get_sample_sum())
}

/// `bound` is a float in its canonical form, with a point: `1.0`.
fn write_bucket(
    text: &mut String,
    name: &str,
    labels: &[LabelPair],
    bound: fmt::Arguments<'_>,
    count: u64,
) -> fmt::Result {
    write_labels(text, name, "_bucket", labels, Some(bound))?;
    writeln!(text, " {count}")
}

fn write_sample(text: &mut String, name: &str, suffix: &str, labels: &[LabelPair], value: f64) -> fmt::Result {
    write_labels(text, name, suffix, labels, None)?;
    writeln!(text, " {value}")
}

fn write_labels(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    bound: Option<fmt::Arguments<'_>>,
) -> fmt::Result {
    write!(text, "{name}{suffix}")?;
    let mut before = '{';
    for label in labels {
        write!(text, "{before}{}=\"{}\"", label.name(), Escaped(label.value()))?;
        before = ',';
    }
    if let Some(bound) = bound {
        write!(text, "{before}le=\"{bound}\"")?;
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
    Ok(())
}

/// A help text or a label's value: backslash, line feed and quote are escaped in both.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' => f.write_str("\\\"")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector;
    use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts};

    use super::*;

    fn check(family: &impl Collector, expected: &str) {
        assert_eq!(encode(&family.collect()), expected);
    }

    #[test]
    fn a_counter_is_named_without_the_suffix_of_its_samples() {
        let bytes = IntCounterVec::new(Opts::new("a_bytes_total", "Bytes."), &["to"]).unwrap();
        bytes.with_label_values(&["x"]).inc_by(1 << 40);
        check(
            &bytes,
            "# TYPE a_bytes counter\n# UNIT a_bytes bytes\n# HELP a_bytes Bytes.\na_bytes_total{to=\"x\"} 1099511627776\n\
             # EOF\n",
        );
    }

    #[test]
    fn a_counter_never_takes_the_name_of_another_family() {
        let open = IntGauge::new("tunnels", "Now.").unwrap();
        let opened = IntCounter::new("tunnels_total", "Ever.").unwrap();
        let families = [open.collect(), opened.collect()].concat();
        assert_eq!(
            encode(&families),
            "# TYPE tunnels gauge\n# HELP tunnels Now.\ntunnels 0\n\
             # TYPE tunnels_total unknown\n# HELP tunnels_total Ever.\ntunnels_total 0\n# EOF\n",
        );
    }

    #[test]
    fn a_gauge_has_no_unit_that_its_name_does_not_say() {
        let gauge = IntGauge::new("kilobytes", "No unit.").unwrap();
        gauge.set(-2);
        check(&gauge, "# TYPE kilobytes gauge\n# HELP kilobytes No unit.\nkilobytes -2\n# EOF\n");
    }

    #[test]
    fn a_histogram_has_canonical_bounds_and_an_infinite_bucket() {
        let opts = HistogramOpts::new("d_seconds", "D.").buckets(vec![0.0002, 1.0]);
        let histogram = HistogramVec::new(opts, &["route"]).unwrap();
        histogram.with_label_values(&["r"]).observe(0.5);
        histogram.with_label_values(&["r"]).observe(2.0);
        check(
            &histogram,
            "# TYPE d_seconds histogram\n# UNIT d_seconds seconds\n# HELP d_seconds D.\n\
             d_seconds_bucket{route=\"r\",le=\"0.0002\"} 0\nd_seconds_bucket{route=\"r\",le=\"1.0\"} 1\n\
             d_seconds_bucket{route=\"r\",le=\"+Inf\"} 2\nd_seconds_count{route=\"r\"} 2\n\
             d_seconds_sum{route=\"r\"} 2.5\n# EOF\n",
        );
    }

    #[test]
    fn quotes_backslashes_and_line_feeds_are_escaped() {
        let counter = IntCounterVec::new(Opts::new("c_total", "A \"b\"\n\\."), &["l"]).unwrap();
        counter.with_label_values(&["\"\n\\"]).inc();
        check(&counter, "# TYPE c counter\n# HELP c A \\\"b\\\"\\n\\\\.\nc_total{l=\"\\\"\\n\\\\\"} 1\n# EOF\n");
    }
}
