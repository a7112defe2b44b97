//! `akubra demo`: S3 servers in this process, so that the gateway can be tried without having any.
//!
//! Every backend of the configuration is served by `s3s` from a folder of its own, below one temporary
//! directory that goes away with the [`DemoBackends`]. The servers have a thread and a runtime to themselves,
//! as Pingora owns the main thread. A backend is broken by a file: while `PORT.down` exists in that directory,
//! connections to PORT are refused, which works from any terminal and needs no signals.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::config::{BackendUrl, Config, Listen};

/// The one pair of keys that all backends know.
pub const ACCESS_KEY: &str = "demo";
pub const SECRET_KEY: &str = "demo-secret";

/// The bucket that is there from the start.
pub const BUCKET: &str = "demo";

/// How often a server looks for its `PORT.down` file.
const DOWN_CHECK: Duration = Duration::from_millis(100);

/// The running S3 servers. Dropping it ends them and removes their data.
#[derive(Debug)]
pub struct DemoBackends {
    directory: TempDir,
    ports: Vec<u16>,
    /// Its end is the servers' end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// One server: where it listens and what it serves.
struct Server {
    address: SocketAddr,
    listener: TcpListener,
    service: S3Service,
    /// While this file exists, connections are refused.
    down: PathBuf,
}

impl DemoBackends {
    /// Starts a server for each backend of the configuration; all are up when it returns.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("akubra-demo-").tempdir()?;
        let mut backends: Vec<&BackendUrl> = Vec::new();
        for backend in config.clusters.iter().flat_map(|cluster| &cluster.backends) {
            if !backends.contains(&backend) {
                backends.push(backend);
            }
        }
        let folders = backends.iter().map(|backend| create_folder(directory.path(), backend.port));
        folders.collect::<anyhow::Result<()>>()?;

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let servers = runtime.block_on(async {
            let mut servers = Vec::new();
            for backend in &backends {
                servers.push(Server::bind(backend, directory.path()).await?);
            }
            anyhow::Ok(servers)
        })?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("demo-backends".to_string()).spawn(move || {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for server in servers {
                    tasks.spawn(server.run());
                }
                stopped.await.ok();
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        let ports = backends.iter().map(|backend| backend.port).collect();
        Ok(DemoBackends { directory, ports, stop: Some(stop), thread: Some(thread) })
    }

    /// The directory with one folder per backend, named by its port.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What to paste into another terminal, for a gateway with this configuration.
    pub fn instructions(&self, config: &Config) -> Instructions<'_> {
        let reached = |listen: &Listen| match listen {
            Listen::Tcp(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => path.display().to_string(),
        };
        let gateway = reached(&config.listen);
        let technical = config.technical.as_ref().map(|technical| reached(&technical.listen));
        let sharded = config
            .regions
            .iter()
            .filter(|region| region.clusters.len() > 1)
            .find_map(|region| region.domains.first().cloned());
        Instructions { backends: self, gateway, technical, sharded }
    }
}

impl Drop for DemoBackends {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Nothing writes into the directory any more when it is removed.
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn create_folder(directory: &Path, port: u16) -> anyhow::Result<()> {
    // A bucket is a folder to s3s-fs.
    std::fs::create_dir_all(directory.join(port.to_string()).join(BUCKET))?;
    Ok(())
}

impl Server {
    async fn bind(backend: &BackendUrl, directory: &Path) -> anyhow::Result<Self> {
        let port = backend.port;
        let address = tokio::net::lookup_host((backend.host.as_str(), port))
            .await
            .with_context(|| format!("backend {}", backend.url))?
            .next()
            .with_context(|| format!("backend {} has no address", backend.url))?;
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("backend {}: cannot listen on port {port} (is another demo running?)", backend.url)
        })?;
        let files = FileSystem::new(directory.join(port.to_string()))
            .map_err(|error| anyhow::anyhow!("backend {}: {error:?}", backend.url))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let down = directory.join(format!("{port}.down"));
        Ok(Server { address, listener, service: service.build(), down })
    }

    async fn run(mut self) {
        loop {
            self.serve_until_down().await;
            let address = self.address;
            drop(self.listener);
            log::warn!("demo: backend {address} is down until {} is removed", self.down.display());
            self.listener = bind_when_up(address, &self.down).await;
            log::info!("demo: backend {address} is up again");
        }
    }

    /// Serves until the down file appears; then all connections are dropped, whatever they were doing.
    async fn serve_until_down(&self) {
        let mut connections = JoinSet::new();
        let mut check = interval(DOWN_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let service = self.service.clone();
                    connections.spawn(async move {
                        let http = auto::Builder::new(TokioExecutor::new()).http1_only();
                        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                            log::debug!("demo: a connection to a backend ended: {error}");
                        }
                    });
                }
                _ = check.tick() => if self.down.exists() { return },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn bind_when_up(address: SocketAddr, down: &Path) -> TcpListener {
    loop {
        tokio::time::sleep(DOWN_CHECK).await;
        if down.exists() {
            continue;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => log::error!("demo: backend {address} cannot listen again: {error}"),
        }
    }
}

/// The text that `akubra demo` prints.
#[derive(Debug)]
pub struct Instructions<'a> {
    backends: &'a DemoBackends,
    /// Address of the gateway.
    gateway: String,
    /// Address of the technical endpoint.
    technical: Option<String>,
    /// Domain of the region with several clusters.
    sharded: Option<String>,
}

impl fmt::Display for Instructions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gateway, directory) = (&self.gateway, self.backends.directory().display());
        let curl = format!(
            "curl --aws-sigv4 aws:amz:us-east-1:s3 --user {ACCESS_KEY}:{SECRET_KEY} \\\n       \
             -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD'"
        );
        writeln!(f, "The gateway answers at http://{gateway}, in front of S3 servers on the ports {}.", {
            let ports: Vec<_> = self.backends.ports.iter().map(u16::to_string).collect();
            ports.join(", ")
        })?;
        if let Some(technical) = &self.technical {
            writeln!(f, "What goes on is at http://{technical}/status, for a browser.")?;
        }
        writeln!(f, "\nStore an object and read it back, from another terminal:\n")?;
        writeln!(f, "  {curl} \\\n       -T /etc/hostname http://{gateway}/{BUCKET}/hello")?;
        writeln!(f, "  {curl} \\\n       http://{gateway}/{BUCKET}/hello\n")?;
        writeln!(f, "or with the AWS command line:\n")?;
        writeln!(f, "  AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} \\")?;
        writeln!(f, "  AWS_DEFAULT_REGION=us-east-1 aws --endpoint-url http://{gateway} \\")?;
        writeln!(f, "       s3 cp /etc/services s3://{BUCKET}/services")?;
        if let Some(domain) = &self.sharded {
            let port = gateway.rsplit(':').next().unwrap_or_default();
            writeln!(f, "\nThe region of several clusters, where the key decides on the cluster:\n")?;
            writeln!(f, "  {curl} \\\n       -T /etc/hostname http://{domain}:{port}/{BUCKET}/hello")?;
        }
        writeln!(f, "\nThe replicas are files, in one folder per backend:\n")?;
        writeln!(f, "  find {directory} -path '*/{BUCKET}/*' -type f -not -name '.*'")?;
        if let Some(port) = self.backends.ports.get(1) {
            writeln!(
                f,
                "\nBreak a backend, write again, and see here what the synclog records; then mend it, and it is in \
                 use again when health checks have found it well:\n"
            )?;
            writeln!(f, "  touch {directory}/{port}.down")?;
            writeln!(f, "  rm {directory}/{port}.down")?;
        }
        writeln!(f, "\nCtrl-C ends everything and removes {directory}.")
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[tokio::test]
    async fn a_backend_refuses_connections_while_its_down_file_exists() {
        let directory = tempfile::tempdir().unwrap();
        let probe = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let backend =
            BackendUrl { url: format!("http://{probe}"), host: probe.ip().to_string(), port: probe.port() };
        create_folder(directory.path(), backend.port).unwrap();
        let server = Server::bind(&backend, directory.path()).await.unwrap();
        let taken = Server::bind(&backend, directory.path()).await.err().unwrap();
        assert!(format!("{taken:#}").contains("cannot listen on port"), "{taken:#}");
        let down = server.down.clone();
        let task = tokio::spawn(server.run());
        tokio::task::spawn_blocking(move || {
            let connects = || TcpStream::connect(probe).is_ok();
            wait_until("the backend", connects);
            std::fs::write(&down, "").unwrap();
            wait_until("refusal", || !connects());
            std::fs::remove_file(&down).unwrap();
            wait_until("the backend again", connects);
        })
        .await
        .unwrap();
        task.abort();
    }
}
