//! `client`: asks, counts and times; one JSON object per answer on stdout. See [`akubra_load::client`].

use std::{net::SocketAddr, time::Duration};

use akubra_load::client::{Method, Target, load};
use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

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
    /// A number of requests, as fast as they are answered
    Load {
        method: Method,
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        requests: usize,
        /// Part of the objects' names
        #[arg(long, default_value = "load")]
        name: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { address, size, limit, command } = Arguments::parse();
    let tasks = LocalSet::new();
    let work = tasks.run_until(async {
        match command {
            Command::Load { method, connections, requests, name } => {
                let target = Target::new(address, method, size);
                let outcome = load::run(target, &name, connections, requests).await;
                println!("{}", serde_json::to_string(&outcome)?);
                anyhow::Ok(())
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(limit), work).await.context("took too long")?
}
