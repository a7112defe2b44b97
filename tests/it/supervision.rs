//! The program as a service: as a daemon with a pid file, and under the unit that is shipped.
//!
//! There is no systemd here. The test does what systemd does: it runs the unit's own command lines, listens to
//! what the processes tell it, and keeps count of which one is the main process.

use std::{
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::fixture::*;

/// A configuration with a port that is known, because a daemon's log is in a file.
struct Site {
    folder: tempfile::TempDir,
    address: SocketAddr,
    _backend: Misbehaving,
}

impl Site {
    async fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let backend = Misbehaving::start().await;
        // Nobody else gets this port from the system before it is used: it hands them out in turn.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let setup = Gateway::over(&[&backend]).set("Listen", address.to_string());
        let yaml = setup.to_yaml(folder.path());
        std::fs::write(folder.path().join("akubra.yaml"), yaml).unwrap();
        Site { folder, address, _backend: backend }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configuration(&self) -> String {
        self.file("akubra.yaml").display().to_string()
    }

    /// Puts another value in place of a key's.
    fn set(&self, key: &str, value: &str) {
        let yaml = std::fs::read_to_string(self.configuration()).unwrap();
        let lines = yaml.lines().map(|line| match line.split_once(':') {
            Some((name, _)) if name == key => format!("{key}: {value}\n"),
            _ => format!("{line}\n"),
        });
        std::fs::write(self.configuration(), lines.collect::<String>()).unwrap();
    }

    /// Runs the program to its end, but for the daemon that it may leave: that keeps what it writes to open.
    async fn akubra(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let log = std::fs::File::create(self.file("start.log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_akubra"))
            .args(arguments)
            .args(["-c", &self.configuration()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let status = eventually("the start to return", || child.try_wait().unwrap()).await;
        (status.code(), std::fs::read_to_string(self.file("start.log")).unwrap())
    }

    fn pid_in(&self, name: &str) -> Option<u32> {
        std::fs::read_to_string(self.file(name)).ok()?.trim().parse().ok()
    }

    async fn assert_serves(&self) {
        assert_eq!(request(self.address, "PUT", "/bucket/key", &[], b"hello").await.status, 200);
    }
}

/// A process that is no child of the test.
struct Daemon(u32);

impl Daemon {
    fn signal(&self, name: &str) {
        assert!(kill(name, self.0));
    }

    /// Until the kernel has forgotten it, or only whoever inherited it has not.
    async fn gone(&self) {
        let stat = format!("/proc/{}/stat", self.0);
        let is_gone = || std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
        eventually("the daemon to end", || is_gone().then_some(())).await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended long ago; its number is not used again so soon.
        Command::new("kill").args(["-KILL", &self.0.to_string()]).stderr(Stdio::null()).status().ok();
    }
}

fn kill(signal: &str, pid: u32) -> bool {
    Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap().success()
}

/// Waits for what no file descriptor tells.
async fn eventually<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn the_start_of_a_daemon_returns_when_it_serves() {
    run(async {
        let site = Site::new().await;
        let (code, text) = site.akubra(&["-d"]).await;
        assert_eq!(code, Some(0), "{text}");
        site.assert_serves().await;
        let daemon = Daemon(site.pid_in("akubra.pid").unwrap());
        // A second one fails, and leaves the first one's pid file alone.
        let (code, text) = site.akubra(&["-d"]).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("cannot listen on"), "{text}");
        assert_eq!(site.pid_in("akubra.pid"), Some(daemon.0));
        daemon.signal("TERM");
        daemon.gone().await;
        assert!(!site.file("akubra.pid").exists());
    });
}

#[test]
fn a_daemon_that_does_not_come_up_is_a_start_that_fails() {
    run(async {
        let site = Site::new().await;
        // Bound only in the daemon: its file is to belong to the daemon's user.
        site.set("Listen", "unix:/nowhere/akubra.sock");
        let (code, text) = site.akubra(&["-d"]).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("cannot listen on unix:/nowhere"), "{text}");
        assert!(!site.file("akubra.pid").exists());
    });
}

#[test]
fn a_daemon_takes_over_from_a_daemon_in_either_order() {
    run(async {
        let site = Site::new().await;
        assert_eq!(site.akubra(&["-d"]).await.0, Some(0));
        let mut daemon = Daemon(site.pid_in("akubra.pid").unwrap());
        for sigquit_first in [true, false] {
            if sigquit_first {
                daemon.signal("QUIT");
            }
            let (code, text) = site.akubra(&["-u", "-d"]).await;
            assert_eq!(code, Some(0), "{text}");
            if !sigquit_first {
                assert_eq!(site.pid_in("akubra.pid.old"), Some(daemon.0));
                daemon.signal("QUIT");
            }
            daemon.gone().await;
            site.assert_serves().await;
            assert!(!site.file("akubra.pid.old").exists());
            let successor = Daemon(site.pid_in("akubra.pid").unwrap());
            assert_ne!(successor.0, daemon.0);
            daemon = successor;
        }
        daemon.signal("TERM");
        daemon.gone().await;
        assert!(!site.file("akubra.pid").exists());
    });
}

#[test]
fn a_daemon_that_fails_to_take_over_leaves_everything_as_it_was() {
    run(async {
        let site = Site::new().await;
        assert_eq!(site.akubra(&["-d"]).await.0, Some(0));
        let daemon = Daemon(site.pid_in("akubra.pid").unwrap());
        site.set("Listen", "unix:/nowhere/akubra.sock");
        daemon.signal("QUIT");
        let (code, text) = site.akubra(&["-u", "-d"]).await;
        assert_eq!(code, Some(1), "{text}");
        site.assert_serves().await;
        assert_eq!(site.pid_in("akubra.pid"), Some(daemon.0));
        assert!(!site.file("akubra.pid.old").exists() && !site.file("upgrade.sock").exists());
        daemon.signal("TERM");
        daemon.gone().await;
    });
}

#[test]
fn a_daemon_reclaims_its_pid_file_from_a_successor_that_was_killed() {
    run(async {
        let site = Site::new().await;
        assert_eq!(site.akubra(&["-d"]).await.0, Some(0));
        let daemon = Daemon(site.pid_in("akubra.pid").unwrap());
        assert_eq!(site.akubra(&["-u", "-d"]).await.0, Some(0));
        let successor = Daemon(site.pid_in("akubra.pid").unwrap());
        successor.signal("KILL");
        successor.gone().await;
        daemon.signal("QUIT");
        eventually("the pid file", || (site.pid_in("akubra.pid") == Some(daemon.0)).then_some(())).await;
        site.assert_serves().await;
        daemon.signal("TERM");
        daemon.gone().await;
    });
}

/// What systemd is to a service with `Type=notify`.
struct Manager {
    unit: String,
    site: Site,
    ear: UnixDatagram,
    main_pid: u32,
    /// The last of READY, RELOADING and STOPPING.
    state: String,
}

impl Manager {
    fn new(site: Site) -> Manager {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/akubra.service");
        let ear = UnixDatagram::bind(site.file("notify")).unwrap();
        ear.set_nonblocking(true).unwrap();
        let unit = std::fs::read_to_string(file).unwrap();
        Manager { unit, site, ear, main_pid: 0, state: String::new() }
    }

    /// The values of a setting, in order.
    fn settings(&self, name: &str) -> Vec<String> {
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_string());
        self.unit.lines().filter_map(value).collect()
    }

    fn command(&self, line: &str) -> Command {
        let line = line
            .replace("/usr/bin/akubra", env!("CARGO_BIN_EXE_akubra"))
            .replace("/etc/akubra/akubra.yaml", &self.site.configuration())
            .replace("$MAINPID", &self.main_pid.to_string());
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let log = std::fs::File::options().create(true).append(true).open(self.site.file("journal")).unwrap();
        command.args(words).env("NOTIFY_SOCKET", self.site.file("notify"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Hears what was said so far.
    fn listen(&mut self) {
        let mut said = [0; 4096];
        while let Ok(length) = self.ear.recv(&mut said) {
            for line in String::from_utf8_lossy(&said[..length]).lines() {
                match line.split_once('=').unwrap() {
                    ("MAINPID", pid) => self.main_pid = pid.parse().unwrap(),
                    ("STATUS", _) => {}
                    (state, "1") => self.state = state.to_string(),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    async fn wait_for_state(&mut self, state: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.state != state {
            assert!(Instant::now() < deadline, "{} and not {state}", self.state);
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.listen();
        }
    }

    async fn start(&mut self) -> Child {
        let child = self.command(&self.settings("ExecStart")[0]).spawn().unwrap();
        self.main_pid = child.id();
        self.wait_for_state("READY").await;
        child
    }

    /// Each command in turn, until one fails.
    async fn reload(&mut self) -> ExitStatus {
        let mut status = ExitStatus::default();
        for line in self.settings("ExecReload") {
            let mut child = self.command(&line).spawn().unwrap();
            status = eventually(&line, || child.try_wait().unwrap()).await;
            self.listen();
            if !status.success() {
                break;
            }
        }
        status
    }
}

#[test]
fn the_shipped_unit_starts_reloads_and_stops_the_service() {
    run(async {
        let mut systemd = Manager::new(Site::new().await);
        assert_eq!(
            (systemd.settings("Type"), systemd.settings("NotifyAccess")),
            (vec!["notify".to_string()], vec!["all".to_string()])
        );
        let mut first = systemd.start().await;
        let mut daemon = Daemon(first.id());
        assert_eq!(systemd.main_pid, first.id());
        for _ in 0..2 {
            // When the reload has returned, the new process serves and is the main one.
            assert!(systemd.reload().await.success());
            assert_eq!(systemd.state, "READY");
            assert_ne!(systemd.main_pid, daemon.0);
            assert_eq!(systemd.site.pid_in("akubra.pid"), Some(systemd.main_pid));
            daemon.gone().await;
            daemon = Daemon(systemd.main_pid);
            systemd.site.assert_serves().await;
        }
        assert_eq!(first.wait().unwrap().code(), Some(0));
        daemon.signal("TERM");
        systemd.wait_for_state("STOPPING").await;
        daemon.gone().await;
        assert_eq!(systemd.main_pid, daemon.0);
    });
}

#[test]
fn systemd_accepts_the_shipped_unit() {
    run(async {
        let systemd = Manager::new(Site::new().await);
        let unit = systemd.unit.replace("/usr/bin/akubra", env!("CARGO_BIN_EXE_akubra"));
        let file = systemd.site.file("akubra.service");
        std::fs::write(&file, unit).unwrap();
        // Where systemd is not installed, the tests above are all there is. The manual is in no place of manuals.
        match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output() {
            Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{output:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    });
}

#[test]
fn a_reload_that_fails_says_so_and_changes_nothing() {
    run(async {
        let mut systemd = Manager::new(Site::new().await);
        let mut child = systemd.start().await;
        let address = systemd.site.address.to_string();
        // A configuration that cannot be used is noticed before anything happens.
        systemd.site.set("Listen", "nonsense");
        let prevented = systemd.settings("RestartPreventExitStatus");
        assert_eq!(systemd.reload().await.code().unwrap().to_string(), prevented[0]);
        assert_eq!(systemd.state, "READY");
        // One with which the new process does not come up, after it was tried.
        systemd.site.set("Listen", "unix:/nowhere/akubra.sock");
        assert_eq!(systemd.reload().await.code(), Some(1));
        systemd.wait_for_state("READY").await;
        assert_eq!(systemd.main_pid, child.id());
        systemd.site.assert_serves().await;
        systemd.site.set("Listen", &address);
        assert!(systemd.reload().await.success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let daemon = Daemon(systemd.main_pid);
        daemon.signal("TERM");
        daemon.gone().await;
    });
}
