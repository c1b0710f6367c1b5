//! What a run found: for each row and candidate the figure of every repetition, with the machine and the versions.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::program::machine::Machine;

/// The file that a run writes and `compare` reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// When the first repetition began, RFC 3339
    pub(crate) date: String,
    pub(crate) machine: Machine,
    /// Options that change figures
    pub(crate) settings: BTreeMap<String, String>,
    /// What each candidate says of its version, in the order of the table
    pub(crate) candidates: Vec<Version>,
    pub(crate) figures: Vec<Figure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One cell of the table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) row: String,
    pub(crate) candidate: String,
    pub(crate) samples: Vec<Sample>,
    /// Repetitions that gave no figure, and why
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<String>,
}

/// The figure of one repetition.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Whether others took too much of the machine in every try
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) disturbed: bool,
}

impl Results {
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|e| format!("can't read {}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{} is no result of bench/run: {e}", path.display()))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("can't write {}: {e}", path.display());
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(failed)
    }

    pub(crate) fn figure(&self, row: &str, candidate: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.row == row && figure.candidate == candidate)
    }

    pub(crate) fn figure_mut(&mut self, row: &str, candidate: &str) -> &mut Figure {
        let is = |figure: &Figure| figure.row == row && figure.candidate == candidate;
        let at = self.figures.iter().position(is).unwrap_or_else(|| {
            let (row, candidate) = (row.to_owned(), candidate.to_owned());
            self.figures.push(Figure { row, candidate, ..Figure::default() });
            self.figures.len() - 1
        });
        &mut self.figures[at]
    }

    /// Adds a candidate. A file of an earlier run takes no figures of another version: they could not be told apart.
    pub(crate) fn admit(&mut self, name: &str, version: &str) -> Result<(), String> {
        match self.candidates.iter().find(|known| known.name == name) {
            Some(known) if known.version == version => Ok(()),
            Some(known) => Err(format!(
                "the results there are of {name} {}, this is {version}: write to another file",
                known.version
            )),
            None => {
                self.candidates.push(Version { name: name.to_owned(), version: version.to_owned() });
                Ok(())
            }
        }
    }
}

impl Figure {
    /// The figures that count: those that nobody disturbed, or all where there are none.
    pub(crate) fn values(&self) -> Vec<f64> {
        let quiet: Vec<f64> = self.samples.iter().filter(|s| !s.disturbed).map(|s| s.value).collect();
        if quiet.is_empty() { self.samples.iter().map(|s| s.value).collect() } else { quiet }
    }

    pub(crate) fn median(&self) -> Option<f64> {
        median(self.values())
    }

    /// Whether there is no figure that nobody disturbed.
    pub(crate) fn is_disturbed(&self) -> bool {
        !self.samples.is_empty() && self.samples.iter().all(|sample| sample.disturbed)
    }
}

/// The middle of these, or halfway between the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, values[values.len() / 2 - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts_what_nobody_disturbed() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        let sample = |value, disturbed| Sample { value, disturbed };
        let mut figure = Figure { samples: vec![sample(1.0, true), sample(9.0, false)], ..Figure::default() };
        assert_eq!((figure.median(), figure.is_disturbed()), (Some(9.0), false));
        figure.samples.pop();
        assert_eq!((figure.median(), figure.is_disturbed()), (Some(1.0), true));
    }

    #[test]
    fn results_of_another_version_are_not_mixed_in() {
        let mut results = Results::default();
        assert_eq!(results.admit("x", "1"), Ok(()));
        assert_eq!(results.admit("x", "1"), Ok(()));
        let refused = results.admit("x", "2").unwrap_err();
        assert!(refused.contains("another file"), "{refused}");
    }
}
