//! The run: every repetition puts the same loads through each candidate, one right after the other.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ffmesh_lab::Lab;

use crate::program::args::RunArgs;
use crate::program::candidate::{self, Candidate, Keys, Programs, Start};
use crate::program::client;
use crate::program::load::{Load, On, STEPS, Step};
use crate::program::machine::Machine;
use crate::program::results::{Results, Sample};
use crate::program::row::is_chosen;
use crate::program::site::{Kind, Site, congestion};
use crate::program::table;
use crate::program::usage::Strangers;

/// Cores that others may use while a figure counts.
const STRANGERS: f64 = 0.3;
/// Tries of a load that others disturbed.
const TRIES: u32 = 3;
/// Before the next of them.
const PAUSE: Duration = Duration::from_secs(1);
/// Before the first connection: tunnels dial ahead, and make pools.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs and prints the table.
pub(crate) fn run(args: &RunArgs) -> Result<(), String> {
    let programs = Programs::new(&args.bin);
    let chosen = chosen(args, &programs)?;
    let steps: Vec<Step> = STEPS
        .into_iter()
        .filter(|(_, _, rows)| rows.iter().any(|row| !row.is_empty() && is_chosen(row, &args.rows)))
        .collect();
    if steps.is_empty() {
        return Err(format!("no row is called {}: bench run --list names them", args.rows.join(", ")));
    }
    let out = args.out.clone().unwrap_or_else(default_out);
    let lab = Lab::new("bench").ok_or("needs root, to make network namespaces")?;
    let mut results = if out.exists() { Results::load(&out)? } else { fresh() };
    for candidate in &chosen {
        results.admit(&candidate.name, &candidate.version)?;
    }
    let mut sites = Vec::new();
    for (kind, ..) in &steps {
        if sites.iter().all(|site: &Site| site.kind != *kind) {
            sites.push(Site::new(&lab, *kind, args.congestion.as_deref())?);
        }
    }
    let tcp = sites.first().map(|site| congestion(&site.client)).unwrap_or_default();
    admit_settings(&mut results, [("seconds", args.seconds.to_string()), ("tcp congestion control", tcp)])?;
    let keys = Keys::make(&lab.dir().join("keys"))?;
    let bench = Bench { lab: &lab, keys: &keys, programs: &programs, steps, args };
    for repetition in 0..args.reps {
        for site in &sites {
            // Nobody is always first, and nobody always follows the same one.
            for turn in 0..chosen.len() {
                let candidate = &chosen[(turn + repetition) % chosen.len()];
                if candidate.runs_at(site.kind) {
                    bench.measure(candidate, site, repetition, &mut results);
                    results.save(&out)?;
                }
            }
        }
    }
    print!("{}", table::markdown(&results));
    for candidate in &chosen {
        println!("{}: {}", candidate.name, candidate.about());
    }
    println!("\nResults: {}", out.display());
    Ok(())
}

fn chosen(args: &RunArgs, programs: &Programs) -> Result<Vec<Candidate>, String> {
    let ffmesh = match &args.ffmesh {
        Some(path) => path.clone(),
        None => beside_this_program("ffmesh")?,
    };
    let absolute = |path: &Path| {
        path.canonicalize()
            .map_err(|e| format!("{} is no program: {e}; build it or name one by --ffmesh", path.display()))
    };
    let others: Result<Vec<_>, String> =
        args.also.iter().map(|(name, path)| Ok((name.clone(), absolute(path)?))).collect();
    let all = candidate::all(&absolute(&ffmesh)?, &others?, programs);
    let names: Vec<_> = if args.alone { vec!["ffmesh".to_owned()] } else { args.candidates.clone() };
    if let Some(missing) = names.iter().find(|name| all.iter().all(|found| found.name != **name)) {
        let found: Vec<_> = all.iter().map(|candidate| candidate.name.as_str()).collect();
        return Err(format!(
            "{missing} is not here, only {}; --bin DIR looks there as well",
            found.join(", ")
        ));
    }
    Ok(all.into_iter().filter(|found| names.is_empty() || names.contains(&found.name)).collect())
}

/// A program of the same build.
pub(crate) fn beside_this_program(name: &str) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|e| format!("can't find this program: {e}"))?;
    Ok(this.with_file_name(name))
}

fn default_out() -> PathBuf {
    let name = jiff::Zoned::now().strftime("bench-%Y%m%d-%H%M%S.json").to_string();
    let target = beside_this_program("..").unwrap_or_default();
    target.join(name)
}

fn fresh() -> Results {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Results { date, machine: Machine::this(), ..Results::default() }
}

/// Notes what changes figures. Other settings than those of an earlier run in the same file are refused.
fn admit_settings<const N: usize>(
    results: &mut Results,
    settings: [(&str, String); N],
) -> Result<(), String> {
    let settings: BTreeMap<_, _> = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    if results.settings.is_empty() {
        results.settings = settings;
    } else if results.settings != settings {
        return Err(format!(
            "the results there were made with {:?}, these would be with {settings:?}: write to another file",
            results.settings
        ));
    }
    Ok(())
}

struct Bench<'a> {
    lab: &'a Lab,
    keys: &'a Keys,
    programs: &'a Programs,
    steps: Vec<Step>,
    args: &'a RunArgs,
}

impl Bench<'_> {
    /// All loads of a site through one candidate.
    fn measure(&self, candidate: &Candidate, site: &Site, repetition: usize, results: &mut Results) {
        let name = format!("{}-{:?}-{repetition}", candidate.name, site.kind);
        let steps = self.steps.iter().filter(|(kind, ..)| *kind == site.kind);
        let attempt = guarded(|| {
            let start = Start::new(self.lab, site, self.keys, self.programs, &name)?;
            let dir = start.dir.clone();
            let running = candidate.start(start)?;
            std::thread::sleep(SETTLE);
            if site.kind != Kind::Far {
                client::warm_up(&site.client, running.echo)?;
            }
            let on = On { site, running: &running, dir, seconds: self.args.seconds };
            for (_, load, rows) in steps.clone() {
                let found = undisturbed(*load, &on);
                note(&name, rows, &found);
                record(results, &candidate.name, rows, &found);
            }
            Ok(())
        });
        if let Err(why) = attempt {
            eprintln!("{name}: {why}");
            for row in steps.flat_map(|(_, _, rows)| *rows).filter(|row| !row.is_empty()) {
                results.figure_mut(row, &candidate.name).failures.push(why.clone());
            }
        }
    }
}

type Found = Result<(Vec<Option<f64>>, bool), String>;

/// Runs a load, again where others disturbed it.
fn undisturbed(load: Load, on: &On<'_>) -> Found {
    let mut tries = 0;
    loop {
        tries += 1;
        let strangers = Strangers::watch();
        let figures = guarded(|| load.run(on))?;
        let disturbed = strangers.cores() > STRANGERS;
        if !disturbed || tries == TRIES {
            return Ok((figures, disturbed));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The laboratory panics where something does not work, as tests want it. Here only one candidate fails.
fn guarded<T>(job: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned())
    })
}

fn note(name: &str, rows: &[&str], found: &Found) {
    match found {
        Ok((figures, disturbed)) => {
            let figure = |(row, figure): (&&str, &Option<f64>)| Some(format!("{row} {:.2}", (*figure)?));
            let figures: Vec<_> =
                rows.iter().zip(figures).filter(|(row, _)| !row.is_empty()).filter_map(figure).collect();
            let disturbed = if *disturbed { "  (disturbed)" } else { "" };
            eprintln!("{name}: {}{disturbed}", figures.join("  "));
        }
        Err(why) => eprintln!("{name}: {}: {why}", rows[0]),
    }
}

fn record(results: &mut Results, candidate: &str, rows: &[&str], found: &Found) {
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
        match found {
            Ok((figures, disturbed)) => {
                // A row that a candidate has no figure for is no failure.
                if let Some(value) = figures.get(at).copied().flatten() {
                    results.figure_mut(row, candidate).samples.push(Sample { value, disturbed: *disturbed });
                }
            }
            Err(why) => results.figure_mut(row, candidate).failures.push(why.clone()),
        }
    }
}
