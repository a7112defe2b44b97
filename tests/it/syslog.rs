//! Logs as a syslog gets them, and files that are rotated under the gateway.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::Instant;

use crate::fixture::*;

/// rsyslogd with a socket and files of its own. Ends with its value.
struct Rsyslogd(Child);

impl Rsyslogd {
    fn start(folder: &Path) -> Rsyslogd {
        let configuration = format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{0}/log\" RateLimit.Interval=\"0\")\n\
             template(name=\"line\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text% %programname%:%msg%\\n\")\n\
             local1.* action(type=\"omfile\" file=\"{0}/synclog\" template=\"line\")\n\
             local2.* action(type=\"omfile\" file=\"{0}/mainlog\" template=\"line\")\n\
             local3.* action(type=\"omfile\" file=\"{0}/accesslog\" template=\"line\")\n",
            folder.display()
        );
        let file = folder.join("rsyslog.conf");
        fs::write(&file, configuration).unwrap();
        let program =
            ["/usr/sbin/rsyslogd", "/usr/bin/rsyslogd"].into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new(program.expect("rsyslogd is not installed"));
        command.arg("-n").arg("-f").arg(file).arg("-i").arg(folder.join("pid"));
        Rsyslogd(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn wait_for_lines(file: &Path, count: usize) -> Vec<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(
            Instant::now() < deadline,
            "{} has {} of {count} lines",
            file.display(),
            text.lines().count()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn rsyslogd_gets_every_line_of_every_log_also_after_its_restart() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (Misbehaving::start().await, Misbehaving::refusing().await);
        let log = |number: u32, more: &str| {
            format!("{{syslog: LOG_LOCAL{number}, syslogaddr: 'unix:{}/log'{more}}}", folder.path().display())
        };
        let logging = format!(
            "{{Synclog: {}, Accesslog: {}, Mainlog: {}}}",
            log(1, ""),
            log(3, ""),
            log(2, ", stderr: true, level: Info")
        );
        // The daemon comes after the gateway: lines wait for it.
        let mut gateway =
            Gateway::over(&[&a, &b]).set_yaml("Logging", &logging).logging("akubra=info").start().await;
        assert_eq!(gateway.put("/bucket/%0A%3C134%3EJan%201", b"hello").await.status, 200);
        let first = Rsyslogd::start(folder.path());
        let synclog = wait_for_lines(&folder.path().join("synclog"), 1).await;
        let (head, json) = synclog[0].split_once(": ").unwrap();
        assert_eq!(head, "local1.warning akubra");
        let record: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((&record["key"], &record["failedhost"]), (&"\n<134>Jan 1".into(), &b.url().into()));
        let access = wait_for_lines(&folder.path().join("accesslog"), 1).await;
        assert!(access[0].starts_with("local3.info akubra: {\"method\":\"PUT\""), "{access:?}");
        let main = folder.path().join("mainlog");
        wait_for_line(&main, "local2.info akubra: 2", "listening on").await;
        wait_for_line(&main, "local2.err akubra: 2", "cannot write to syslog at").await;

        drop(first);
        assert_eq!(gateway.put("/bucket/two", b"hello").await.status, 200);
        gateway.wait_for_log("synclog: cannot write to syslog at").await;
        let _second = Rsyslogd::start(folder.path());
        let synclog = wait_for_lines(&folder.path().join("synclog"), 2).await;
        assert!(synclog[1].contains("\"key\":\"two\""), "{synclog:?}");
        gateway.stop().await;
    });
}

/// Waits for a line that begins like this and contains that.
async fn wait_for_line(file: &Path, start: &str, part: &str) {
    soon(part, async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.lines().any(|line| line.starts_with(start) && line.contains(part)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[test]
fn what_no_syslog_took_goes_to_stderr_at_the_end() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (Misbehaving::start().await, Misbehaving::refusing().await);
        let socket = folder.path().join("log");
        let daemon = UnixDatagram::bind(&socket).unwrap();
        let logging = format!("{{Synclog: {{syslog: LOCAL1, syslogaddr: 'unix:{}'}}}}", socket.display());
        let mut gateway = Gateway::over(&[&a, &b]).set_yaml("Logging", &logging).start().await;
        drop(daemon);
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.wait_for_log("synclog: cannot write to syslog at").await;
        let main = gateway.stop().await.main;
        assert!(main.contains(&format!("\"failedhost\":\"{}\"", b.url())), "{main}");
    });
}

#[test]
fn log_files_that_are_rotated_under_load_lose_no_line() {
    run(async {
        let (a, b) = (Misbehaving::start().await, Misbehaving::refusing().await);
        let mut gateway = Gateway::over(&[&a, &b]).logging("akubra=info").start().await;
        let load = Load::begin(gateway.address(), 8);
        let names = ["sync.log", "access.log"];
        for turn in 1..=3 {
            a.wait_for_requests(turn * 100).await;
            for name in names {
                // As logrotate does with `create 0600`.
                fs::rename(gateway.log_file(name), gateway.log_file(&format!("{name}.{turn}"))).unwrap();
                private_file(&gateway.log_file(name));
            }
            gateway.signal("USR1");
            // Each has something in it before the next turn.
            for name in names {
                wait_for_lines(&gateway.log_file(name), 1).await;
            }
        }
        let stored = load.end().await.stored;
        gateway.stop().await;
        for name in names {
            let files = (1..=3).map(|turn| format!("{name}.{turn}")).chain([name.to_owned()]);
            let text: Vec<String> =
                files.map(|file| fs::read_to_string(gateway.log_file(&file)).unwrap()).collect();
            assert!(text.iter().all(|text| text.ends_with('\n')), "{name}");
            let paths: Vec<String> = text
                .iter()
                .flat_map(|text| text.lines())
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).unwrap()["path"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect();
            assert_eq!(paths.len(), stored.len(), "{name}");
            for target in &stored {
                assert!(paths.contains(target), "{name}: {target}");
            }
        }
    });
}

fn private_file(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_anew_is_written_on_and_both_processes_of_a_takeover_hear_it() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).logging("akubra=info").start().await;
        gateway.put("/bucket/one", b"hello").await;
        gateway.wait_for_access(1).await;
        let (file, moved) = (gateway.log_file("access.log"), gateway.log_file("access.log.1"));
        fs::rename(&file, &moved).unwrap();
        fs::create_dir(&file).unwrap();
        gateway.signal("USR1");
        gateway.wait_for_log("access.log cannot be opened anew").await;
        gateway.put("/bucket/two", b"hello").await;
        wait_for_lines(&moved, 2).await;
        fs::remove_dir(&file).unwrap();
        gateway.signal("USR1");
        gateway.wait_for_log("access.log was opened anew").await;

        let successor = gateway.successor().await;
        // It waits for its predecessor, which serves.
        successor.signal("USR1");
        successor.wait_for_log("SIGUSR1").await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/old", &[("Content-Length", "5")]).await;
        a.wait_for_requests(3).await;
        gateway.signal("QUIT");
        gateway.wait_for_log("took over").await;
        fs::rename(&file, gateway.log_file("access.log.2")).unwrap();
        gateway.signal("USR1");
        successor.signal("USR1");
        let deadline = Instant::now() + DEADLINE;
        while gateway.stderr().matches("access.log was opened anew").count() < 2 {
            assert!(Instant::now() < deadline, "{}", gateway.stderr());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        client.send(b"hello").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        gateway.ended().await;
        assert!(wait_for_lines(&file, 1).await[0].contains("/bucket/old"));
    });
}
