//! `sink`: the backend that costs little. See [`akubra_load::sink`].

use std::{fs::File, net::SocketAddr, path::PathBuf};

use akubra_load::sink::{Options, Sink};
use anyhow::Context;
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

/// Takes every body and keeps none
#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Bytes of bodies per second that are read, over all connections
    #[arg(long)]
    rate: Option<u64>,
    /// A file for the paths of all PUTs that were received whole; complete when the process has ended
    #[arg(long)]
    paths: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let paths = match &arguments.paths {
        Some(file) => Some(File::create(file).with_context(|| format!("cannot write {}", file.display()))?),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let sink = Sink::bind(arguments.listen, Options { rate: arguments.rate, paths })
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    println!("listening on {}", sink.address()?);
    let end = async move {
        terminate.recv().await;
    };
    LocalSet::new().run_until(sink.serve(end)).await?;
    Ok(())
}
