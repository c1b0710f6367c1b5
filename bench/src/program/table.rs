//! Results as a table in Markdown.

use std::fmt::Write as _;

use crate::program::results::Results;
use crate::program::row::ROWS;

/// A column for each candidate; behind the others' figures stands what the first one's is of them.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::new();
    let names: Vec<_> = results.candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    let settings: Vec<_> = results.settings.iter().map(|(key, value)| format!("{key} {value}")).collect();
    let _ = writeln!(text, "{}, {}; {}", results.date, results.machine, settings.join(", "));
    let _ = writeln!(text, "\n| | {} |\n| --- |{}", names.join(" | "), " ---: |".repeat(names.len()));
    for row in ROWS {
        let medians: Vec<_> = names
            .iter()
            .map(|name| results.figure(row.key, name).and_then(crate::program::results::Figure::median))
            .collect();
        let tried = names.iter().any(|name| results.figure(row.key, name).is_some());
        if !tried {
            continue;
        }
        let first = medians.first().copied().flatten();
        let cell = |(at, name): (usize, &&str)| {
            let Some(figure) = results.figure(row.key, name) else { return "-".to_owned() };
            let Some(median) = medians[at] else { return "failed".to_owned() };
            let mark = if figure.is_disturbed() { "*" } else { "" };
            let ratio =
                first.filter(|_| at > 0 && median > 0.0).map(|first| format!(" ({:.2})", first / median));
            format!("{median:.*}{mark}{}", row.places, ratio.unwrap_or_default())
        };
        let cells: Vec<_> = names.iter().enumerate().map(cell).collect();
        let _ = writeln!(text, "| {} | {} |", row.says, cells.join(" | "));
    }
    let counts = results.figures.iter().map(|figure| figure.samples.len());
    let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
    let _ = writeln!(
        text,
        "\nMedians of {least} to {most} repetitions. In brackets: {}'s figure by this one. *: others used the machine in \
         every try.\n",
        names.first().unwrap_or(&"?")
    );
    for candidate in &results.candidates {
        let _ = writeln!(text, "- {}: {}", candidate.name, candidate.version);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::results::Sample;

    #[test]
    fn a_row_has_medians_marks_and_ratios() {
        let mut results = Results::default();
        results.admit("ffmesh", "1").unwrap();
        results.admit("ssh", "2").unwrap();
        for (name, value, disturbed) in [("ffmesh", 5000.0, false), ("ssh", 4000.0, true)] {
            results.figure_mut("bulk.up1", name).samples.push(Sample { value, disturbed });
        }
        results.figure_mut("ping.p50", "ssh").failures.push("no".to_owned());
        let text = markdown(&results);
        assert!(text.contains("| direct, 1 connection, up, Mbit/s | 5000 | 4000* (1.25) |"), "{text}");
        assert!(text.contains("p50, us | - | failed |"), "{text}");
        assert!(!text.contains("HTTP"), "a row that nobody ran: {text}");
    }
}
