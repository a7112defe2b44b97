//! `client`: asks, counts and times; says what came of it in JSON lines on stdout. See [`akubra_load::client`].

use std::{fs::File, io::Write, net::SocketAddr, path::PathBuf, time::Duration};

use akubra_load::client::{Method, Target, idle, load, takeover::Clients};
use anyhow::Context;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin},
    task::LocalSet,
};

/// Sends requests to a proxy, and counts and times the answers
#[derive(Parser)]
struct Arguments {
    /// The proxy
    #[arg(long)]
    address: SocketAddr,
    /// Bytes of an object
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Seconds that all of it may take
    #[arg(long, default_value_t = 120)]
    limit: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A number of requests, as fast as they are answered or at a rate
    Load {
        method: Method,
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        requests: usize,
        /// The most requests that begin in a second
        #[arg(long)]
        rate: Option<u32>,
        /// Part of the objects' names
        #[arg(long, default_value = "load")]
        name: String,
    },
    /// One PUT on each connection, which then stays until stdin ends
    Idle {
        #[arg(long)]
        connections: usize,
    },
    /// PUTs without end, and connections that are held: reads `hold`, `use` and `stop` from stdin
    Takeover {
        #[arg(long)]
        clients: usize,
        /// Connections that `hold` opens and `use` uses
        #[arg(long)]
        held: usize,
        /// The most requests in all
        #[arg(long)]
        requests: usize,
        /// A file for the paths of all PUTs that were answered 200
        #[arg(long)]
        paths: PathBuf,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { address, size, limit, command } = Arguments::parse();
    let target = |method| Target::new(address, method, size);
    let tasks = LocalSet::new();
    let work = tasks.run_until(async {
        match command {
            Command::Load { method, connections, requests, rate, name } => {
                tell(&load::run(target(method), &name, connections, requests, rate).await)
            }
            Command::Idle { connections } => {
                let (standing, _open) = idle::open(target(Method::Put), connections).await;
                tell(&standing)?;
                while orders().next_line().await?.is_some() {}
                Ok(())
            }
            Command::Takeover { clients, held, requests, paths } => {
                let paths = File::create(&paths).with_context(|| paths.display().to_string())?;
                obey(Clients::start(target(Method::Put), clients, requests, paths), held).await
            }
        }
    });
    let done = tokio::time::timeout(Duration::from_secs(limit), work).await;
    // Not by returning: the runtime would wait for a read of stdin that nobody waits for any more.
    match done.context("took too long").flatten() {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("client: {error:#}");
            std::process::exit(1)
        }
    }
}

async fn obey(clients: Clients, held: usize) -> anyhow::Result<()> {
    let mut orders = orders();
    let mut connections = Vec::new();
    let mut turn = 0;
    while let Some(order) = orders.next_line().await? {
        match order.as_str() {
            "hold" => {
                connections = clients.hold(held).await?;
                tell(&connections.len())?;
            }
            "use" => {
                turn += 1;
                clients.use_held(std::mem::take(&mut connections), &turn.to_string()).await;
                tell(&turn)?;
            }
            "stop" => break,
            other => anyhow::bail!("no such order: {other}"),
        }
    }
    tell(&clients.stop().await?)
}

fn orders() -> Lines<BufReader<Stdin>> {
    BufReader::new(stdin()).lines()
}

fn tell(what: &impl Serialize) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, what)?;
    writeln!(stdout)?;
    Ok(stdout.flush()?)
}
