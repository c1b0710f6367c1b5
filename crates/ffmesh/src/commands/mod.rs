//! What each command does.

mod check;
mod console;
mod drain;
mod enrol;
mod events;
#[cfg(test)]
mod fixture;
mod nc;
mod ping;
mod reload;
pub(crate) mod routes;
mod services;
mod show;
mod speedtest;
mod status;
mod token;
mod trace;
pub(crate) mod up;

use clap::CommandFactory;

use crate::args::{Cli, Command, Completion, TokenCommand};
use crate::failure::Outcome;
use crate::{demo, doctor, output};

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let outer = cli.choice;
    // What stands before the command chooses the node just as well.
    let chosen = |mut show: crate::args::Show| {
        show.choice = show.choice.or(outer.clone());
        show
    };
    match cli.command {
        Command::Up(args) => {
            up::up(args.config_file, args.log_level.as_deref(), &args.choice.or(outer)).await
        }
        Command::Demo(args) => demo::demo(&args).await,
        Command::Check(args) => check::check(args.config_file, &chosen(args.show)),
        Command::Doctor(args) => doctor::doctor(args.config_file, &chosen(args.show)).await,
        Command::Init(mut args) => {
            args.show = chosen(args.show);
            enrol::init(&args)
        }
        Command::Join(mut args) => {
            args.show = chosen(args.show);
            enrol::join(&args).await
        }
        Command::Token(args) => {
            let TokenCommand::Create(create) = args.command;
            let mut choice = args.choice.or(outer);
            choice.place = create.place.clone().or(choice.place);
            token::create(&create, &choice).await
        }
        Command::Status(show) => status::status(&chosen(show)).await,
        Command::Peers(show) => show::peers(&chosen(show)).await,
        Command::Routes(mut args) => {
            args.show = chosen(args.show);
            routes::routes(&args).await
        }
        Command::Proxies(show) => show::proxies(&chosen(show)).await,
        Command::Services(show) => services::services(&chosen(show)).await,
        Command::Events(mut args) => {
            args.show = chosen(args.show);
            events::events(&args).await
        }
        Command::Flows(mut args) => {
            args.show = chosen(args.show);
            show::flows(&args).await
        }
        Command::Reload(show) => reload::reload(&chosen(show)).await,
        Command::Ping(mut args) => {
            args.show = chosen(args.show);
            ping::ping(&args).await
        }
        Command::Trace(mut args) => {
            args.show = chosen(args.show);
            trace::trace(&args).await
        }
        Command::Console(show) => console::console(&chosen(show)).await,
        Command::Drain(mut args) => {
            args.show = chosen(args.show);
            drain::drain(&args).await
        }
        Command::Speedtest(mut args) => {
            args.show = chosen(args.show);
            speedtest::speedtest(&args).await
        }
        Command::Nc(args) => nc::nc(&args.to, &args.target, &args.choice.or(outer)).await,
        Command::Completion(args) => completion(&args),
    }
}

fn completion(args: &Completion) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ffmesh", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
