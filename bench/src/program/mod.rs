//! From the command line to what does it.

mod args;
mod candidate;
mod client;
mod compare;
mod echo;
mod instructions;
mod line;
mod load;
mod machine;
mod results;
mod row;
mod run;
mod scale;
mod site;
mod table;
mod tools;
mod usage;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command, CompareArgs};
use compare::Verdict;
use results::Results;
use row::ROWS;

pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(args) if args.list => {
            for row in ROWS {
                println!("{:<24}{}", row.key, row.says);
            }
            Ok(true)
        }
        Command::Run(args) => run::run(&args).map(|()| true),
        Command::Table { file } => {
            Results::load(&file).map(|results| print!("{}", table::markdown(&results))).map(|()| true)
        }
        Command::Compare(args) => compare(&args),
        Command::Scale(args) => scale::run(&args).map(|()| true),
        Command::Instructions(args) => instructions::run(&args),
        Command::Echo { address } => echo::serve(address).map(|()| true),
        Command::Operation { name, times } => instructions::operation(&name, times).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing has become worse.
fn compare(args: &CompareArgs) -> Result<bool, String> {
    let (old, new) = (Results::load(&args.old)?, Results::load(&args.new)?);
    if old.machine != new.machine {
        eprintln!("bench: other machines: {} and {}", old.machine, new.machine);
    }
    if old.settings != new.settings {
        eprintln!("bench: other settings: {:?} and {:?}", old.settings, new.settings);
    }
    let changes = compare::changes((&old, &args.old_candidate), (&new, &args.new_candidate));
    if changes.is_empty() {
        return Err(format!("neither has figures of {} and {}", args.old_candidate, args.new_candidate));
    }
    print!("{}", compare::table(&changes));
    let worse: Vec<_> = changes
        .iter()
        .filter(|change| matches!(change.verdict, Verdict::Worse | Verdict::Missing))
        .map(|change| change.row.key)
        .collect();
    if !worse.is_empty() {
        println!("\nworse: {}", worse.join(", "));
    }
    Ok(worse.is_empty())
}
