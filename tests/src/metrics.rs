//! A page of metrics, read strictly: each sample belongs to a family that was announced with HELP and TYPE, names and
//! labels are well-formed, no sample stands twice, buckets grow and end in `+Inf`.

use std::collections::{BTreeMap, BTreeSet};

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name, with `_total`, `_bucket` … if it has one.
    pub name: String,
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// All samples, in order.
    pub samples: Vec<Sample>,
    /// The type of each family.
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads a page.
    ///
    /// # Errors
    /// The first line that is not as the format has it.
    pub fn read(page: &str) -> Result<Metrics, String> {
        let mut metrics = Metrics::default();
        let mut helped = BTreeSet::new();
        let mut ended = false;
        if !page.ends_with('\n') {
            return Err("the page does not end in a line feed".into());
        }
        for line in page.lines() {
            if ended {
                return Err(format!("behind the end: {line}"));
            }
            if line == "# EOF" {
                ended = true;
            } else if let Some(help) = line.strip_prefix("# HELP ") {
                helped.insert(help.split(' ').next().unwrap_or_default().to_owned());
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                metrics.announce(typed, &helped)?;
            } else if !line.starts_with("# UNIT ") {
                let sample = sample(line).ok_or_else(|| format!("no sample: {line}"))?;
                metrics.add(sample)?;
            }
        }
        metrics.check_buckets()?;
        Ok(metrics)
    }

    fn announce(&mut self, typed: &str, helped: &BTreeSet<String>) -> Result<(), String> {
        let (name, kind) = typed.split_once(' ').ok_or_else(|| format!("TYPE {typed}"))?;
        let known = ["counter", "gauge", "histogram", "info", "unknown", "untyped"].contains(&kind);
        if !known || !helped.contains(name) {
            return Err(format!("TYPE {typed}: unknown, or without HELP"));
        }
        match self.types.insert(name.to_owned(), kind.to_owned()) {
            None => Ok(()),
            Some(_) => Err(format!("{name} is announced twice")),
        }
    }

    fn add(&mut self, sample: Sample) -> Result<(), String> {
        let family = self.family(&sample.name).ok_or_else(|| format!("{} was not announced", sample.name))?;
        if self.types[&family] == "counter" && !(sample.name.ends_with("_total") && sample.value >= 0.0) {
            return Err(format!("a counter ends in _total and is not negative: {sample:?}"));
        }
        if self.samples.iter().any(|s| s.name == sample.name && s.labels == sample.labels) {
            return Err(format!("stands twice: {sample:?}"));
        }
        self.samples.push(sample);
        Ok(())
    }

    /// The announced family that a sample's name belongs to. OpenMetrics announces counters without `_total`.
    fn family(&self, name: &str) -> Option<String> {
        let ends = ["", "_total", "_bucket", "_sum", "_count", "_info", "_created"];
        let families = ends.iter().filter_map(|end| name.strip_suffix(end));
        families.map(str::to_owned).find(|family| self.types.contains_key(family))
    }

    fn check_buckets(&self) -> Result<(), String> {
        let mut last: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.name.ends_with("_bucket")) {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le").ok_or_else(|| format!("no `le`: {sample:?}"))?;
            let bound = bound.replace("+Inf", "inf").parse::<f64>().map_err(|_| format!("`le`: {sample:?}"))?;
            let key = (sample.name.clone(), format!("{labels:?}"));
            let (before, count) = last.get(&key).copied().unwrap_or((f64::NEG_INFINITY, 0.0));
            if bound <= before || sample.value < count {
                return Err(format!("buckets do not grow: {sample:?}"));
            }
            last.insert(key, (bound, sample.value));
        }
        match last.iter().find(|(_, (bound, _))| bound.is_finite()) {
            None => Ok(()),
            Some((key, _)) => Err(format!("no bucket +Inf: {key:?}")),
        }
    }

    /// The samples of this name that have these labels (and maybe more).
    pub fn all<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let has = |s: &Sample| labels.iter().all(|(n, v)| s.labels.get(*n).is_some_and(|value| value == v));
        self.samples.iter().filter(move |s| s.name == name && has(s))
    }

    /// Their sum.
    ///
    /// # Panics
    /// There is no such sample.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let values: Vec<f64> = self.all(name, labels).map(|s| s.value).collect();
        assert!(!values.is_empty(), "no {name} {labels:?} in {:?}", self.names());
        values.iter().sum()
    }

    /// Their sum; 0 when there is none yet.
    pub fn total(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// The names, each once.
    pub fn names(&self) -> BTreeSet<&str> {
        self.samples.iter().map(|s| s.name.as_str()).collect()
    }
}

/// `name{label="value",...} value`
fn sample(line: &str) -> Option<Sample> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, behind) = rest.split_once("=\"")?;
            let (value, behind) = quoted(behind)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = behind.strip_prefix(',').unwrap_or(behind);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?;
    is_name(name).then_some(())?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

/// Text up to the closing quote, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_page_is_read() {
        let page = "# HELP a_total what\n# TYPE a_total counter\na_total{x=\"1\",y=\"a\\\"b\"} 3\na_total{x=\"2\"} 4\n\
                    # HELP h s\n# TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.3\nh_count 2\n# EOF\n";
        let metrics = Metrics::read(page).unwrap();
        assert_eq!(metrics.sum("a_total", &[]), 7.0);
        assert_eq!(metrics.sum("a_total", &[("y", "a\"b")]), 3.0);
        assert_eq!(metrics.sum("h_count", &[]), 2.0);
    }

    #[test]
    fn bad_pages_are_refused() {
        let head = "# HELP a_total w\n# TYPE a_total counter\n";
        for lines in [
            "a_total",
            "a_total 1\na_total 1",
            "a_total{x=1} 1",
            "a_total{x=\"1\"}1",
            "a_total -1",
            "b 1",
            "a_total 1 x",
            "1a_total 1",
            "# EOF\na_total 1",
            "# HELP h s\n# TYPE h histogram\nh_bucket{le=\"1\"} 2",
            "# HELP h s\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1",
            "# TYPE c counter",
        ] {
            assert!(Metrics::read(&format!("{head}{lines}\n")).is_err(), "{lines}");
        }
    }
}
