//! What a run stands on: gateways, workers, backends that misbehave, and the journal's command line.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::client::Sickness;
use crate::fixture::{AfterEarly, Behaviour, Endpoint, Gateway, Misbehaving, Phase, Region, Setup};

/// Makes the backends misbehave, one at a time, until it is told to stop; then they are good.
pub async fn trouble(backends: Arc<Vec<Misbehaving>>, on: Arc<AtomicBool>, sickness: Sickness, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xbad);
    while on.load(Relaxed) {
        let sick = &backends[random.gen_range(0..backends.len())];
        sickness.fetch_add(1, Relaxed);
        match random.gen_range(0..7) {
            0 => sick.refuse().await,
            1 => sick.will(Behaviour::answers(503)),
            2 => sick.will(Behaviour::resets(Phase::AfterBody)),
            3 => sick.will(Behaviour::resets(Phase::AfterAnswerHead)),
            4 => sick.will(Behaviour::answers_early(500, AfterEarly::Close)),
            5 => sick.will(Behaviour::hangs(Phase::AfterBody)),
            _ => sick.will(Behaviour::closes(Phase::MidBody(1000))),
        }
        tokio::time::sleep(Duration::from_millis(random.gen_range(50..600))).await;
        well(sick);
        sickness.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(random.gen_range(0..300))).await;
    }
    backends.iter().for_each(well);
}

fn well(backend: &Misbehaving) {
    backend.listen_again();
    backend.will(Behaviour::good());
    backend.release();
}

/// `akubra sync` as a child process. Ends with its value.
pub struct Worker(Child);

impl Worker {
    pub fn start(gateway: &Gateway) -> Worker {
        let log = |name| File::options().create(true).append(true).open(gateway.log_file(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_akubra"))
            .arg("sync")
            .arg("-c")
            .arg(gateway.log_file("akubra.yaml"))
            .stdin(Stdio::null())
            .stdout(log("sync.stdout"))
            .stderr(log("sync.stderr"))
            .spawn()
            .unwrap();
        Worker(child)
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What `akubra journal` says.
pub fn journal(gateway: &Gateway, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_akubra"));
    command.args(["journal", "-c"]).arg(gateway.log_file("akubra.yaml")).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub fn counts(gateway: &Gateway) -> serde_json::Value {
    serde_json::from_slice(&journal(gateway, &["counts", "--json"])).unwrap()
}

/// Strong, with what `akubra sync` needs.
pub fn over(backends: &[Misbehaving], journal: &str) -> Setup {
    let urls: Vec<_> = backends.iter().map(|backend| backend.url()).collect();
    let credentials = "Credentials: {AccessKey: AKIATEST, SecretKey: test-secret}";
    Setup::new()
        .set_yaml("Clusters", &format!("main: {{Backends: {urls:?}, {credentials}}}"))
        .region(Region::new("region", &[("main", 1.0)]).default_region().set("Consistency", "strong"))
        .set_yaml("Journal", journal)
        .set_yaml(
            "Sync",
            "{BackoffMin: 100ms, BackoffMax: 2s, Hold: 5s, ClockBound: 1s, MultipartThreshold: 5MiB, PartSize: 5MiB}",
        )
        .set("ResponseHeaderTimeout", "1s")
        .set("SlowBackendTimeout", "1s")
        .logging("akubra=info")
}
