//! Two results beside each other: what has become worse than chance explains.
//!
//! The bound of each row comes from how far its own repetitions lie apart. Their standard deviation is estimated from
//! their range (the range of n normal values is D2(n) standard deviations on average), the median's standard error
//! from that (1.25 standard deviations by the root of n), and a change counts when it exceeds three standard errors
//! of the difference. That is one false alarm in some 700 rows, if repetitions are independent and the machine is the same.

use std::fmt::Write as _;

use crate::program::results::{Figure, Results};
use crate::program::row::{Better, ROWS, Row};

/// No change below this counts: placement of code and memory alone makes as much.
const FLOOR: f64 = 0.03;
/// The bound where one side has a single repetition, which says nothing of its spread.
const UNKNOWN: f64 = 0.25;
/// Standard errors of the difference that chance explains.
const SIGMAS: f64 = 3.0;
/// The mean range of 2 to 10 normal values, in standard deviations.
const D2: [f64; 9] = [1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078];
/// Standard error of a median of normal values, times the root of their number.
const MEDIAN_ERROR: f64 = 1.2533;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Same,
    Better,
    Worse,
    /// Others used the machine on one of the sides: no verdict
    Disturbed,
    /// There was a figure and now there is none
    Missing,
}

#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) row: &'static Row,
    old: Option<f64>,
    new: Option<f64>,
    /// New by old
    ratio: Option<f64>,
    bound: f64,
    pub(crate) verdict: Verdict,
}

/// Each row that either side has, of these candidates.
pub(crate) fn changes(old: (&Results, &str), new: (&Results, &str)) -> Vec<Change> {
    let of = |row: &'static Row| {
        let (old, new) = (old.0.figure(row.key, old.1), new.0.figure(row.key, new.1));
        (old.is_some() || new.is_some()).then(|| change(row, old, new))
    };
    ROWS.iter().filter_map(of).collect()
}

fn change(row: &'static Row, old: Option<&Figure>, new: Option<&Figure>) -> Change {
    let (before, after) = (old.and_then(Figure::median), new.and_then(Figure::median));
    let disturbed = [old, new].into_iter().flatten().any(Figure::is_disturbed);
    let (Some(o), Some(n)) = (before, after) else {
        // A row that was not chosen this time is no regression; one that failed is.
        let failed = before.is_some() && new.is_some();
        let verdict = if failed { Verdict::Missing } else { Verdict::Same };
        return Change { row, old: before, new: after, ratio: None, bound: 0.0, verdict };
    };
    let error = |figure: Option<&Figure>| figure.and_then(|figure| relative_error(&figure.values()));
    let bound = match (error(old), error(new)) {
        (Some(a), Some(b)) => (SIGMAS * a.hypot(b)).max(FLOOR),
        _ => UNKNOWN,
    };
    // Nothing at all, as a relay's CPU can be, is a change of no known ratio.
    let ratio = (o > 0.0).then(|| n / o);
    // How much better, as a factor: 2 is twice as good.
    let gain = match row.better {
        Better::More => n / o,
        Better::Less => o / n,
    };
    let verdict = match () {
        () if disturbed => Verdict::Disturbed,
        () if gain.is_nan() => Verdict::Same,
        () if gain < 1.0 / (1.0 + bound) => Verdict::Worse,
        () if gain > 1.0 + bound => Verdict::Better,
        () => Verdict::Same,
    };
    Change { row, old: before, new: after, ratio, bound, verdict }
}

/// The standard error of the median by the median; none of fewer than two.
fn relative_error(values: &[f64]) -> Option<f64> {
    let middle = crate::program::results::median(values.to_vec()).filter(|middle| *middle > 0.0)?;
    let d2 = D2[values.len().checked_sub(2)?.min(D2.len() - 1)];
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
    Some((most - least) / d2 * MEDIAN_ERROR / f64::from(count).sqrt() / middle)
}

/// The table for people.
pub(crate) fn table(changes: &[Change]) -> String {
    let mut text =
        "| row | old | new | new/old | bound | |\n| --- | ---: | ---: | ---: | ---: | --- |\n".to_owned();
    for Change { row, old, new, ratio, bound, verdict } in changes {
        let figure = |value: &Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.*}", row.places));
        let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let says = match verdict {
            Verdict::Same => "",
            Verdict::Better => "better",
            Verdict::Worse => "**WORSE**",
            Verdict::Disturbed => "disturbed, no verdict",
            Verdict::Missing => "**NO FIGURE**",
        };
        let (old, new, percent) = (figure(old), figure(new), bound * 100.0);
        let _ = writeln!(text, "| {} | {old} | {new} | {ratio} | {percent:.0} % | {says} |", row.says);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::results::Sample;

    fn results(rows: &[(&str, &[f64])]) -> Results {
        let mut results = Results::default();
        for (row, values) in rows {
            let samples = values.iter().map(|value| Sample { value: *value, disturbed: false });
            results.figure_mut(row, "ffmesh").samples.extend(samples);
        }
        results
    }

    fn verdicts(old: &Results, new: &Results) -> Vec<(&'static str, Verdict)> {
        changes((old, "ffmesh"), (new, "ffmesh")).iter().map(|c| (c.row.key, c.verdict)).collect()
    }

    #[test]
    fn what_is_beyond_the_spread_is_worse_whichever_way_better_is() {
        let old = results(&[("bulk.up1", &[5000.0, 5050.0, 4950.0]), ("ping.p50", &[100.0, 101.0, 99.0])]);
        let slow = results(&[("bulk.up1", &[4000.0, 4040.0, 3960.0]), ("ping.p50", &[130.0, 131.0, 129.0])]);
        assert_eq!(verdicts(&old, &slow), [("bulk.up1", Verdict::Worse), ("ping.p50", Verdict::Worse)]);
        assert_eq!(verdicts(&slow, &old), [("bulk.up1", Verdict::Better), ("ping.p50", Verdict::Better)]);
        assert_eq!(verdicts(&old, &old), [("bulk.up1", Verdict::Same), ("ping.p50", Verdict::Same)]);
    }

    #[test]
    fn the_same_change_within_a_wide_spread_is_chance() {
        let old = results(&[("bulk.up1", &[5000.0, 5900.0, 4100.0])]);
        let new = results(&[("bulk.up1", &[4000.0, 4800.0, 3300.0])]);
        assert_eq!(verdicts(&old, &new), [("bulk.up1", Verdict::Same)]);
    }

    #[test]
    fn repetitions_that_agree_by_chance_do_not_make_a_bound_of_nothing() {
        let old = results(&[("bulk.up1", &[5000.0; 3])]);
        assert_eq!(verdicts(&old, &results(&[("bulk.up1", &[4900.0; 3])])), [("bulk.up1", Verdict::Same)]);
        assert_eq!(verdicts(&old, &results(&[("bulk.up1", &[4800.0; 3])])), [("bulk.up1", Verdict::Worse)]);
    }

    #[test]
    fn one_repetition_says_little() {
        let old = results(&[("bulk.up1", &[5000.0])]);
        assert_eq!(verdicts(&old, &results(&[("bulk.up1", &[4200.0; 3])])), [("bulk.up1", Verdict::Same)]);
        assert_eq!(verdicts(&old, &results(&[("bulk.up1", &[3000.0; 3])])), [("bulk.up1", Verdict::Worse)]);
    }

    #[test]
    fn a_failure_is_a_regression_and_a_row_left_out_is_none() {
        let old = results(&[("bulk.up1", &[5000.0; 3]), ("ping.p50", &[100.0; 3])]);
        let mut new = Results::default();
        new.figure_mut("bulk.up1", "ffmesh").failures.push("it hung".to_owned());
        assert_eq!(verdicts(&old, &new), [("bulk.up1", Verdict::Missing), ("ping.p50", Verdict::Same)]);
    }

    #[test]
    fn a_disturbed_side_gets_no_verdict() {
        let old = results(&[("bulk.up1", &[5000.0; 3])]);
        let mut new = results(&[("bulk.up1", &[1000.0; 3])]);
        new.figures[0].samples.iter_mut().for_each(|sample| sample.disturbed = true);
        assert_eq!(verdicts(&old, &new), [("bulk.up1", Verdict::Disturbed)]);
    }

    #[test]
    fn nothing_that_becomes_something_is_worse_where_less_is_better() {
        let old = results(&[("relay.up1.relay_cpu", &[0.0; 3])]);
        let new = results(&[("relay.up1.relay_cpu", &[0.4; 3])]);
        assert_eq!(verdicts(&old, &old), [("relay.up1.relay_cpu", Verdict::Same)]);
        assert_eq!(verdicts(&old, &new), [("relay.up1.relay_cpu", Verdict::Worse)]);
    }

    #[test]
    fn the_table_says_what_is_worse() {
        let (old, new) = (results(&[("ping.p50", &[100.0; 3])]), results(&[("ping.p50", &[200.0; 3])]));
        let text = table(&changes((&old, "ffmesh"), (&new, "ffmesh")));
        assert!(text.contains("| 100 | 200 | 2.00 | 3 % | **WORSE** |"), "{text}");
    }
}
