//! What is installed beside the program, judged by the tools that will read it: systemd's, and logrotate.
//!
//! Where a tool is not installed there is nothing to judge with; CI has them all. `make test-deb` goes further: it
//! installs the package.

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What a tool says; `None` where there is no such tool.
fn output(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// As `output`, of a tool that must be content.
fn silent(command: &mut Command) {
    if let Some(output) = output(command) {
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn the_units_expose_little() {
    let rate = ["security", "--offline=true", "--no-pager", "--threshold=20"];
    for unit in ["systemd/akubra.service", "systemd/akubra-sync.service"] {
        let mut command = Command::new("systemd-analyze");
        if let Some(output) = output(command.args(rate).arg(shipped(unit))) {
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{unit}: more than 2.0: {told}");
        }
    }
}

#[test]
fn both_units_are_confined_alike() {
    let confined = |unit: &str| {
        let text = fs::read_to_string(shipped(unit)).unwrap();
        let begin = text.find("\nCapabilityBoundingSet=").unwrap();
        text[begin..].to_owned()
    };
    assert_eq!(confined("systemd/akubra.service"), confined("systemd/akubra-sync.service"));
}

#[test]
fn the_user_and_the_directories_are_what_the_unit_names() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let option = format!("--root={}", root.path().display());
    // It tells what it has created.
    let mut sysusers = Command::new("systemd-sysusers");
    let Some(told) = output(sysusers.arg(&option).arg(shipped("systemd/akubra.sysusers"))) else { return };
    assert!(told.status.success(), "{told:?}");
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user: Vec<&str> =
        users.lines().find(|line| line.starts_with("akubra:")).unwrap().split(':').collect();
    assert_eq!(user[5..], ["/var/lib/akubra", "/usr/sbin/nologin"]);
    // Only root can give directories away.
    if root.path().metadata().unwrap().uid() != 0 {
        return;
    }
    silent(
        Command::new("systemd-tmpfiles").args([&option, "--create"]).arg(shipped("systemd/akubra.tmpfiles")),
    );
    let unit = fs::read_to_string(shipped("systemd/akubra.service")).unwrap();
    for (setting, parent) in
        [("RuntimeDirectory", "run"), ("StateDirectory", "var/lib"), ("LogsDirectory", "var/log")]
    {
        assert!(unit.contains(&format!("\n{setting}=akubra\n{setting}Mode=0750\n")), "{setting}");
        let folder = root.path().join(parent).join("akubra").metadata().unwrap();
        assert_eq!((folder.mode() & 0o7777, folder.uid().to_string().as_str()), (0o750, user[2]));
    }
}

/// logrotate itself, on the shipped file, but for whose the logs are and who is asked which process is the main one.
#[test]
fn logs_are_rotated_as_they_are_and_the_main_process_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name).display().to_string();
    let own = |option: &str| {
        let output = Command::new("id").arg(option).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let rules = fs::read_to_string(shipped("conf/logrotate/akubra"))
        .unwrap()
        .replace("akubra akubra", &format!("{} {}", own("-un"), own("-gn")))
        .replace("/var/log/akubra", &inside("logs"))
        .replace("/run/systemd/system", &inside("logs"))
        .replace("systemctl show", &format!("{} show", inside("systemctl")))
        .replace("kill -USR1 \"$pid\"", &format!("echo \"USR1 $pid\" >>{}", inside("signals")));
    fs::create_dir(inside("logs")).unwrap();
    fs::set_permissions(inside("logs"), Permissions::from_mode(0o750)).unwrap();
    for log in ["main", "access", "sync"] {
        fs::write(inside(&format!("logs/{log}.log")), "line\n").unwrap();
    }
    fs::write(
        inside("systemctl"),
        "#!/bin/sh\ncase $* in\n'show --property=MainPID --value akubra.service') echo 7 ;;\n\
         'show --property=MainPID --value akubra-sync.service') echo 8 ;;\nesac\n",
    )
    .unwrap();
    fs::set_permissions(inside("systemctl"), Permissions::from_mode(0o755)).unwrap();
    fs::write(inside("rules"), rules).unwrap();
    fs::set_permissions(inside("rules"), Permissions::from_mode(0o644)).unwrap();

    silent(Command::new("/usr/sbin/logrotate").args([
        "--force",
        "--state",
        &inside("state"),
        &inside("rules"),
    ]));
    let Ok(signals) = fs::read_to_string(inside("signals")) else {
        assert!(!Path::new("/usr/sbin/logrotate").exists());
        return;
    };
    assert_eq!(signals, "USR1 7\nUSR1 8\nUSR1 7\n");
    assert_eq!(fs::read_to_string(inside("logs/main.log.1")).unwrap(), "line\n");
    assert!(!Path::new(&inside("logs/misplaced.log")).exists());
    for log in ["main", "access", "sync"] {
        let log = Path::new(&inside(&format!("logs/{log}.log"))).metadata().unwrap();
        assert_eq!((log.len(), log.mode() & 0o777), (0, 0o600));
    }
}
