//! Real clients through the gateway: each does the same directly at a backend and through the gateway, and must see
//! the same (`tests/e2e/run.py` says what and how). Every backend must then hold what was written.
//!
//! The synclog must be empty but for one multipart upload, which goes to one backend and is recorded.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::process::Command;

use crate::fixture::*;

/// The longest that one client may take: it starts some 200 programs, and moves 64 MiB ten times.
const CLIENT_LIMIT: Duration = Duration::from_secs(240);

const CLIENTS: [&str; 4] = ["boto3", "awscli", "s3cmd", "rclone"];

/// The key under which a scenario uploads in parts.
const MULTIPART: &str = "multipart";

#[test]
fn boto3_sees_through_the_gateway_what_it_sees_directly() {
    drive("boto3");
}

#[test]
fn awscli_sees_through_the_gateway_what_it_sees_directly() {
    drive("awscli");
}

#[test]
fn s3cmd_sees_through_the_gateway_what_it_sees_directly() {
    drive("s3cmd");
}

#[test]
fn rclone_sees_through_the_gateway_what_it_sees_directly() {
    drive("rclone");
}

/// On servers that are no file systems. They check no signatures: that is done above.
#[test]
fn keys_of_1024_bytes_and_with_empty_segments_are_the_same_through_the_gateway() {
    run_without_limit(async {
        let (a, b) = (moto().await, moto().await);
        let backends: [(&str, &dyn Endpoint); 2] = [("moto", &a), ("moto", &b)];
        let mut gateway = over(&backends).start().await;
        for client in CLIENTS {
            run_script(client, &gateway, &backends, &["--scenario", "long"]).await;
        }
        gateway.stop_in_sync().await;
    });
}

/// Two kinds of server as replicas: what a client sees through the gateway must be what it sees at one of the two.
#[test]
#[ignore = "needs Ceph: `make e2e-rgw`"]
fn clients_see_one_of_two_kinds_of_server_and_both_hold_the_same() {
    run_without_limit(async {
        let (rgw, folders, moto) = (rgw().await, S3Backend::start().await, moto().await);
        let backends: [(&str, &dyn Endpoint); 2] = [("s3s-fs", &folders), ("rgw", &rgw)];
        for client in CLIENTS {
            let mut gateway = over(&backends).start().await;
            run_script(client, &gateway, &backends, &[]).await;
            let mut records = gateway.stop().await.records;
            // s3cmd copies the ACL with the object, and only RGW has ACLs.
            records.retain(|record| record["subresource"] != "acl");
            assert_only_multipart_is_recorded(&records);
        }
        // Long keys: with signatures that RGW checks, beside a server that is not RGW.
        let backends: [(&str, &dyn Endpoint); 2] = [("moto", &moto), ("rgw", &rgw)];
        for client in CLIENTS {
            let mut gateway = over(&backends).start().await;
            run_script(client, &gateway, &backends, &["--scenario", "long"]).await;
            gateway.stop_in_sync().await;
        }
    });
}

pub async fn rgw() -> ServerProgram {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/servers/rgw.py");
    let arguments = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY, "--domain", S3_DOMAIN];
    ServerProgram::start(Path::new("/usr/bin/python3"), &script, &arguments).await
}

pub async fn moto() -> ServerProgram {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ServerProgram::start(&python(root), &root.join("tests/e2e/servers/moto_server.py"), &[]).await
}

/// All of a scenario, with two servers of one kind.
fn drive(client: &str) {
    run_without_limit(async {
        let (a, b) = (S3Backend::start().await, S3Backend::start().await);
        let backends: [(&str, &dyn Endpoint); 2] = [("s3s-fs", &a), ("s3s-fs", &b)];
        let mut gateway = over(&backends).start().await;
        run_script(client, &gateway, &backends, &[]).await;
        assert_only_multipart_is_recorded(&gateway.stop().await.records);
    });
}

/// A gateway for both styles of addressing.
fn over(backends: &[(&str, &dyn Endpoint)]) -> Setup {
    let urls: Vec<_> = backends.iter().map(|(_, backend)| *backend).collect();
    let region = Region::new("testregion", &[("testcluster", 1.0)]).default_region().domain(S3_DOMAIN);
    Gateway::over(&urls).region(region)
}

fn assert_only_multipart_is_recorded(records: &[Value]) {
    let is_completion = |record: &&Value| record["method"] == "POST" && record["key"] == MULTIPART;
    let uploads = records.iter().filter(is_completion).count();
    assert_eq!((uploads, records.len()), (1, 1), "{records:#?}");
}

/// Runs the script to its end, which must be good; else shows what it said.
async fn run_script(client: &str, gateway: &Gateway, backends: &[(&str, &dyn Endpoint)], more: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = python(root);
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    let output = File::create(&said).unwrap();
    let mut command = Command::new(python);
    command.arg(root.join("tests/e2e/run.py")).args(["--client", client, "--domain", S3_DOMAIN]);
    command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
    command.args(["--gateway", &gateway.address().to_string()]).args(more);
    for (kind, backend) in backends {
        command.args(["--backend", &format!("{kind}={}", backend.url().trim_start_matches("http://"))]);
    }
    command
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    // The programs that it runs are in its group, so that they end with it.
    let mut script = command.process_group(0).spawn().unwrap();
    let group = format!("-{}", script.id().unwrap());
    let ended = tokio::time::timeout(CLIENT_LIMIT, script.wait()).await;
    if ended.is_err() {
        Command::new("kill").args(["-KILL", "--", &group]).status().await.unwrap();
    }
    println!("{}", std::fs::read_to_string(said).unwrap());
    assert!(matches!(&ended, Ok(Ok(status)) if status.success()), "{client}: {ended:?}");
}

/// The interpreter that has the Python clients. What else is missing, the script says.
fn python(root: &Path) -> PathBuf {
    let python = root.join("target/e2e/bin/python");
    assert!(python.exists(), "there is no {python:?}: run `scripts/install-missing clients`");
    python
}
