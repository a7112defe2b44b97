//! The command line: arguments in, subcommand out.
//!
//! `akubra -c FILE` serves; `-t` only checks the file; `locate` explains where an object lives; `maintenance` asks
//! and changes a running gateway; `sync` makes backends agree, and `journal` shows what they may not agree on; `demo`
//! (a cargo feature) brings its own S3 servers; `generate`, which help does not list, prints what is installed beside
//! the program. Configuration errors end the process with code 20.

#[cfg(feature = "demo")]
pub mod demo;
mod files;
mod generate;
pub mod journal;
pub mod locate;
pub mod maintenance;
mod names;
pub mod serve;
pub mod sync;

use std::{fmt, io::StdoutLock, path::Path, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use pingora_core::server::configuration::Opt;

use self::generate::Generated;
use crate::config::{Config, ConfigErrors};

/// Exit code for a configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 20;

/// A proxy that keeps independent S3 storages in sync.
#[derive(Parser)]
#[command(name = "akubra", version, about, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    server: Opt,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Explain where an object lives, and in which order it would be sought
    Locate {
        /// The configuration file
        #[arg(short, long)]
        conf: String,
        /// The Host that a client would ask; without it, one that no region names
        #[arg(long)]
        host: Option<String>,
        /// The request's path as a client sends it, e.g. /bucket/key
        path: String,
    },
    /// Take a backend out of use while the gateway runs, or put it back
    Maintenance {
        #[command(subcommand)]
        action: maintenance::Action,
    },
    /// Make backends agree on what the journal has
    Sync(sync::Arguments),
    /// Look at the journal, and decide what no rule decides
    Journal(journal::Arguments),
    /// Print what is installed beside the program
    #[command(hide = true)]
    Generate {
        #[command(subcommand)]
        what: Generated,
    },
    /// Try the gateway on 127.0.0.1:8080, with S3 servers of its own and nothing to set up
    #[cfg(feature = "demo")]
    Demo,
}

/// The arguments of this process; ends it with a message where they make no sense.
pub fn arguments() -> Arguments {
    let matches = command().get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn command() -> clap::Command {
    // Pingora's own help texts speak of Pingora.
    Arguments::command()
        .mut_arg("upgrade", |arg| arg.help("Take over from the running instance, which must get SIGQUIT"))
        .mut_arg("daemon", |arg| arg.help("Run in the background; returns once the daemon serves"))
        .mut_arg("test", |arg| arg.help("Check the configuration and exit"))
        .mut_arg("conf", |arg| arg.help("The configuration file").value_name("FILE"))
}

/// Runs what the arguments ask for.
pub fn run(arguments: Arguments) -> ExitCode {
    let outcome = match arguments.command {
        None => serve_or_check(arguments.server),
        Some(Command::Locate { conf, host, path }) => {
            load(&conf).and_then(|config| tell(|out| locate::run(&config, host.as_deref(), &path, out)))
        }
        Some(Command::Maintenance { action }) => {
            load(action.conf()).and_then(|config| tell(|out| maintenance::run(&config, &action, out)))
        }
        Some(Command::Sync(arguments)) => {
            load(arguments.conf()).and_then(|config| sync::run(config, &arguments))
        }
        Some(Command::Journal(journal::Arguments { conf, action })) => {
            named(conf.as_ref()).and_then(load).and_then(|config| journal::run(&config, action))
        }
        Some(Command::Generate { what }) => tell(|out| generate::run(what, &command(), out)),
        #[cfg(feature = "demo")]
        Some(Command::Demo) => run_demo(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("akubra: {error:#}");
            let bad = error.is::<ConfigErrors>() || error.is::<Unusable>();
            ExitCode::from(if bad { BAD_CONFIGURATION } else { 1 })
        }
    }
}

fn serve_or_check(options: Opt) -> anyhow::Result<()> {
    let file = named(options.conf.as_ref())?;
    let config = load(file)?;
    if options.test {
        for warning in &config.warnings {
            eprintln!("{file}: warning: {warning}");
        }
        println!("{file}: configuration checked - OK.");
        return Ok(());
    }
    serve::run(
        config,
        serve::Options { file: Some(file.into()), daemon: options.daemon, upgrade: options.upgrade },
    )
}

#[cfg(feature = "demo")]
fn run_demo() -> anyhow::Result<()> {
    let mut config = Config::parse(include_str!("../../conf/dev.yaml"), &|name| std::env::var(name).ok())?;
    let backends = demo::DemoBackends::start(&config)?;
    // Of its own: the default is that of an installed service.
    config.state_directory = backends.directory().join("state");
    println!("{}", backends.instructions(&config));
    serve::run(config, serve::Options::default())
}

fn named(file: Option<&String>) -> anyhow::Result<&str> {
    let none = || Unusable("no configuration: name a file with -c FILE".into());
    Ok(file.ok_or_else(none)?)
}

fn load(file: &str) -> anyhow::Result<Config> {
    Ok(Config::load(Path::new(file), &|name| std::env::var(name).ok())?)
}

/// Writes to stdout, until whoever reads it has seen enough.
fn tell(what: impl FnOnce(&mut StdoutLock) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let told = what(&mut std::io::stdout().lock());
    told.or_else(|error| if is_broken_pipe(&error) { Ok(()) } else { Err(error) })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A configuration that cannot be used at all.
#[derive(Debug)]
struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}
