"""What an administrator does with the package, from the first installation to the purge. Runs in a world of its own.

    scenario.py with-systemd OLD.deb NEW.deb
    scenario.py without-systemd OLD.deb NEW.deb
"""

import os
import pathlib
import pwd
import signal
import subprocess
import sys
import time
import urllib.request

sys.dont_write_bytecode = True

import traffic  # noqa: E402

CONFIGURATION = pathlib.Path("/etc/akubra/akubra.yaml")
UNIT = pathlib.Path("/usr/lib/systemd/system/akubra.service")
SYNC_UNIT = UNIT.with_name("akubra-sync.service")
GATEWAY, SYNC = UNIT.name, SYNC_UNIT.name
SYNC_METRICS = "http://127.0.0.1:9465"
DEADLINE = 30


class Failed(Exception):
    pass


def check(holds, what):
    if not holds:
        raise Failed(what)


def run(*command, good=True):
    """A command's output. It must succeed, unless `good` is False, and then it must not; None: either."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    if good is not None:
        check((done.returncode == 0) == good, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def eventually(what, holds):
    deadline = time.monotonic() + DEADLINE
    while not holds():
        check(time.monotonic() < deadline, f"waited in vain: {what}")
        time.sleep(0.05)


def shape(path):
    """Mode, owner and group."""
    return run("stat", "-c", "%a %U:%G", str(path)).strip()


def property_of_service(name, service=GATEWAY):
    return run("systemctl", "show", f"--property={name}", "--value", service).strip()


def main_pid(service=GATEWAY):
    return int(property_of_service("MainPID", service))


def is_active(service=GATEWAY):
    return run("systemctl", "is-active", service, good=None).strip() == "active"


def fetch(url):
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return answer.read().decode()


def sync_answers():
    try:
        return is_active(SYNC) and fetch(f"{SYNC_METRICS}/health") is not None
    except OSError:
        return False


def sync_is_replaced(before):
    """By a process of the program that is installed now."""
    eventually("another sync process", lambda: main_pid(SYNC) not in (0, before) and sync_answers())
    check(program_of(main_pid(SYNC)) == "/usr/bin/akubra", program_of(main_pid(SYNC)))


def program_of(pid):
    return os.readlink(f"/proc/{pid}/exe")


def left_behind():
    """What of the package is still somewhere, but for what dpkg and the system themselves remember."""
    found = run("find", "/etc", "/usr", "/var", "/run", "-name", "*akubra*", "-not", "-path", "/var/cache/man/*", good=None)
    return [line for line in found.splitlines() if line.startswith("/")]


def owned():
    return run("find", "/etc", "/usr", "/var", "/run", "/tmp", "-user", "akubra", good=None).splitlines()


def edit(change):
    CONFIGURATION.write_text(change(CONFIGURATION.read_text()))


def installed_files_are_in_order():
    check(pwd.getpwnam("akubra").pw_shell == "/usr/sbin/nologin", "the user")
    for path, expected in [
        ("/usr/bin/akubra", "755 root:root"),
        ("/etc/akubra", "750 root:akubra"),
        (CONFIGURATION, "640 root:akubra"),
        ("/var/lib/akubra", "750 akubra:akubra"),
        ("/var/log/akubra", "750 akubra:akubra"),
        ("/run/akubra", "750 akubra:akubra"),
        ("/etc/logrotate.d/akubra", "644 root:root"),
    ]:
        check(shape(path) == expected, f"{path}: {shape(path)} and not {expected}")
    checked = run("setpriv", "--reuid=akubra", "--regid=akubra", "--clear-groups", "akubra", "-t", "-c", str(CONFIGURATION))
    check(checked.endswith("configuration checked - OK.\n") and "warning" not in checked, checked)
    for name in ["man/man1/akubra.1.gz", "bash-completion/completions/akubra", "zsh/vendor-completions/_akubra"]:
        check(pathlib.Path("/usr/share", name).exists(), name)
    run("bash", "-n", "/usr/share/bash-completion/completions/akubra")


def nothing_is_left():
    check(left_behind() == [], f"left behind: {left_behind()}")
    check(owned() == [], f"files of the user: {owned()}")


# ---- Where nothing runs: a chroot, a container's image ------------------------------------------------------------


def installs_upgrades_and_removes_where_no_systemd_runs(old, new):
    run("dpkg", "-i", old)
    installed_files_are_in_order()
    edit(lambda text: text.replace("s3.example.internal", "s3.other.internal"))
    run("dpkg", "-i", new)
    check("s3.other.internal" in CONFIGURATION.read_text(), "an upgrade replaced the configuration")
    installed_files_are_in_order()
    run("dpkg", "-r", "akubra")
    check(CONFIGURATION.exists() and not UNIT.exists(), "a removal keeps the configuration, and no more")
    run("dpkg", "-P", "akubra")
    nothing_is_left()


# ---- As a service ----------------------------------------------------------------------------------------------------


def a_first_installation_starts_nothing(old, _new):
    run("dpkg", "-i", old)
    installed_files_are_in_order()
    for unit in [UNIT, SYNC_UNIT]:
        check(not is_active(unit.name), f"{unit.name} runs")
        check(run("systemctl", "is-enabled", unit.name, good=False).strip() == "disabled", f"{unit.name} is enabled")
        check(run("systemd-analyze", "verify", str(unit)) == "", f"{unit.name}")


def it_starts_once_it_is_configured(_old, _new):
    edit(
        lambda text: text.replace("http://s3.dc1.internal:9000", "http://127.0.0.1:9001")
        .replace("http://s3.dc2.internal:9000", "http://127.0.0.1:9002")
    )
    run("systemctl", "enable", "--now", "akubra.service")
    check(" 200 " in traffic.put(), "no answer")
    status = pathlib.Path(f"/proc/{main_pid()}/status").read_text()
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"]:
        check(line in status, f"{line} is not in\n{status}")
    check(shape("/var/log/akubra/access.log") == "600 akubra:akubra", shape("/var/log/akubra/access.log"))


def it_sees_itself_in_spite_of_its_restrictions(_old, _new):
    edit(lambda text: text + "Metrics:\n  Target: prometheus\n  ExpAddr: 127.0.0.1:9464\n")
    run("systemctl", "restart", "akubra.service")
    lines = fetch("http://127.0.0.1:9464/metrics").splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for name in ["start_time_seconds", "resident_memory_bytes", "open_fds", "max_fds"]:
        check(float(values[f"process_{name}"]) > 0, name)


def it_comes_back_when_it_is_killed(_old, _new):
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    eventually("it serves again", lambda: main_pid() not in (0, before) and is_active())
    check(" 200 " in traffic.put(), "no answer")


def passwords_come_from_the_environment_file(_old, _new):
    pathlib.Path("/etc/akubra/environment").write_text("SITE=north\n")
    edit(lambda text: text + 'AdditionalResponseHeaders:\n  x-site: "${SITE}"\n')
    run("systemctl", "reload", "akubra.service")
    check("x-site: north" in traffic.put().lower(), traffic.put())


def sync_does_not_start_without_a_journal(_old, _new):
    run("systemctl", "start", SYNC)
    eventually("it gives up", lambda: property_of_service("ActiveState", SYNC) == "failed")
    check(property_of_service("ExecMainStatus", SYNC) == "20", property_of_service("ExecMainStatus", SYNC))
    check(property_of_service("NRestarts", SYNC) == "0", "it was tried again")
    check("has no Journal" in run("journalctl", "--no-pager", "--unit", SYNC), "it does not say why")


def sync_starts_once_it_is_configured(_old, _new):
    with pathlib.Path("/etc/akubra/environment").open("a") as environment:
        environment.write("ACCESS=somebody\nSECRET=password-of-somebody\n")
    backends = "      - http://127.0.0.1:9002\n"
    credentials = '    Credentials: {AccessKey: "${ACCESS}", SecretKey: "${SECRET}"}\n'
    edit(lambda text: text.replace(backends, backends + credentials))
    edit(lambda text: text + f"Journal: {{}}\nSync: {{Listen: '{SYNC_METRICS.removeprefix('http://')}'}}\n")
    run("systemctl", "reload", GATEWAY)
    check(" 200 " in traffic.put(), "no answer")
    run("systemctl", "enable", "--now", SYNC)
    eventually("sync answers", sync_answers)
    check("akubra_sync_running_repairs 0" in fetch(f"{SYNC_METRICS}/metrics"), "no metrics")
    status = pathlib.Path(f"/proc/{main_pid(SYNC)}/status").read_text()
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"]:
        check(line in status, f"{line} is not in\n{status}")
    check(shape("/var/lib/akubra/journal.sqlite") == "600 akubra:akubra", shape("/var/lib/akubra/journal.sqlite"))
    # Root sees it as well, and leaves nothing of its own behind that would lock them out.
    secrets = ["env", "SITE=north", "ACCESS=a", "SECRET=b"]
    told = run(*secrets, "akubra", "journal", "-c", str(CONFIGURATION), "counts")
    check("resolved " in told, told)
    check(all(shape(path).endswith("akubra:akubra") for path in pathlib.Path("/var/lib/akubra").iterdir()), "owners")


def sync_comes_back_when_it_is_killed(_old, _new):
    before = main_pid(SYNC)
    os.kill(before, signal.SIGKILL)
    sync_is_replaced(before)


def sync_is_replaced_by_a_reload_unless_the_configuration_is_broken(_old, _new):
    before, good = main_pid(SYNC), CONFIGURATION.read_text()
    edit(lambda text: text + "Nonsense: 1\n")
    run("systemctl", "reload", SYNC, good=False)
    check(main_pid(SYNC) == before and sync_answers(), "not the same process")
    CONFIGURATION.write_text(good)
    run("systemctl", "reload", SYNC)
    sync_is_replaced(before)


def a_reload_loses_no_request(_old, _new):
    with traffic.Traffic() as load:
        for _ in range(3):
            before = main_pid()
            run("systemctl", "reload", "akubra.service")
            check(main_pid() != before and is_active(), "the same process")
            time.sleep(0.5)
    unharmed(load)


def a_reload_that_fails_changes_nothing(_old, _new):
    good = CONFIGURATION.read_text()
    before = main_pid()
    with traffic.Traffic() as load:
        for listen in ["nonsense", "unix:/nowhere/akubra.sock"]:
            edit(lambda text: text.replace('"127.0.0.1:8080"', f'"{listen}"'))
            run("systemctl", "reload", "akubra.service", good=False)
            CONFIGURATION.write_text(good)
            check(main_pid() == before and is_active(), "not the same process")
    unharmed(load)
    run("systemctl", "reload", "akubra.service")


def an_upgrade_loses_no_request(_old, new):
    before, sync_before = main_pid(), main_pid(SYNC)
    configuration = CONFIGURATION.read_text()
    with traffic.Traffic() as load:
        told = run("dpkg", "-i", new)
        check("has taken over" in told, told)
        time.sleep(0.5)
    unharmed(load)
    check(main_pid() != before and is_active(), "the old process")
    check(program_of(main_pid()) == "/usr/bin/akubra", program_of(main_pid()))
    sync_is_replaced(sync_before)
    check(CONFIGURATION.read_text() == configuration, "the configuration is another one")


def an_upgrade_with_a_broken_configuration_leaves_the_old_program_at_work(old, _new):
    good = CONFIGURATION.read_text()
    before, sync_before = main_pid(), main_pid(SYNC)
    edit(lambda text: text + "Nonsense: 1\n")
    with traffic.Traffic() as load:
        told = run("dpkg", "-i", "--force-downgrade", old)
        check("running one goes on as it was" in told and "akubra-sync goes on as it was" in told, told)
    unharmed(load)
    check(main_pid() == before and is_active(), "not the same process")
    check(main_pid(SYNC) == sync_before and sync_answers(), "not the same sync process")
    CONFIGURATION.write_text(good)
    for service in [GATEWAY, SYNC]:
        run("systemctl", "reload", service)
    check(program_of(main_pid()) == "/usr/bin/akubra", program_of(main_pid()))
    sync_is_replaced(sync_before)


def logs_are_rotated(_old, _new):
    before, sync_before = main_pid(), main_pid(SYNC)
    told = run("logrotate", "--force", "/etc/logrotate.d/akubra")
    check("error" not in told, told)
    for name in ["access.log", "access.log.1", "main.log.1"]:
        check(shape(f"/var/log/akubra/{name}") == "600 akubra:akubra", name)
    check(" 200 " in traffic.put() and main_pid() == before, "it did not survive")
    check(main_pid(SYNC) == sync_before and sync_answers(), "the sync process did not survive")
    eventually("the new file is used", lambda: os.path.getsize("/var/log/akubra/access.log") > 0)


def a_drop_in_opens_low_ports(_old, _new):
    text = UNIT.read_text()
    lines = text[text.index("#   [Service]") :].splitlines()
    told = [line.removeprefix("#   ") for line in lines[: lines.index("CapabilityBoundingSet=")]]
    folder = pathlib.Path("/etc/systemd/system/akubra.service.d")
    folder.mkdir()
    (folder / "override.conf").write_text("\n".join(told) + "\n")
    configuration = CONFIGURATION.read_text()
    edit(lambda text: text.replace('"127.0.0.1:8080"', '"127.0.0.1:80"'))
    traffic.gateway = ("127.0.0.1", 80)
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "akubra.service")
    a_reload_loses_no_request(_old, _new)
    CONFIGURATION.write_text(configuration)
    traffic.gateway = ("127.0.0.1", 8080)
    run("systemctl", "reload", "akubra.service")
    check(" 200 " in traffic.put(), "no answer")


def it_ends_without_losing_a_request(_old, _new):
    run("systemctl", "restart", "akubra.service")
    check(" 200 " in traffic.put(), "no answer")
    run("systemctl", "stop", "akubra.service")
    check(property_of_service("Result") == "success", property_of_service("Result"))
    run("systemctl", "start", "akubra.service")


def a_removal_stops_it_and_a_purge_leaves_nothing(_old, _new):
    # As docs/sync.md has it be made.
    run("install", "-m", "640", "-o", "root", "-g", "akubra", "/dev/null", str(CONFIGURATION.with_name("credentials")))
    pids = [main_pid(), main_pid(SYNC)]
    run("dpkg", "-r", "akubra")
    check(not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids), "it still runs")
    check(not SYNC_UNIT.exists(), "the unit is still there")
    check(CONFIGURATION.exists() and not UNIT.exists(), "a removal keeps the configuration, and no more")
    run("dpkg", "-P", "akubra")
    nothing_is_left()


def it_can_be_installed_again(old, _new):
    run("dpkg", "-i", old)
    installed_files_are_in_order()
    run("dpkg", "-P", "akubra")
    nothing_is_left()


def unharmed(load):
    check(not load.failed, f"{len(load.failed)} requests failed, the first: {load.failed[:3]}")
    check(load.good > 50, f"only {load.good} requests")
    print(f"    {load.good} writes, none failed; {load.retried} kept connections ended idle", flush=True)


STEPS = {
    "without-systemd": [installs_upgrades_and_removes_where_no_systemd_runs],
    "with-systemd": [
        a_first_installation_starts_nothing,
        it_starts_once_it_is_configured,
        it_sees_itself_in_spite_of_its_restrictions,
        it_comes_back_when_it_is_killed,
        passwords_come_from_the_environment_file,
        sync_does_not_start_without_a_journal,
        sync_starts_once_it_is_configured,
        sync_comes_back_when_it_is_killed,
        sync_is_replaced_by_a_reload_unless_the_configuration_is_broken,
        a_reload_loses_no_request,
        a_reload_that_fails_changes_nothing,
        an_upgrade_loses_no_request,
        an_upgrade_with_a_broken_configuration_leaves_the_old_program_at_work,
        logs_are_rotated,
        a_drop_in_opens_low_ports,
        it_ends_without_losing_a_request,
        a_removal_stops_it_and_a_purge_leaves_nothing,
        it_can_be_installed_again,
    ],
}


def main():
    kind, old, new = sys.argv[1:]
    if kind == "with-systemd":
        traffic.start_backends()
    for step in STEPS[kind]:
        print(step.__name__.replace("_", " "), flush=True)
        try:
            step(old, new)
        except Failed as error:
            print(f"FAILED: {error}")
            if kind == "with-systemd":
                print(run("journalctl", "--no-pager", "--lines=50", good=None))
                print(run("tail", "-n", "30", "/var/log/akubra/main.log", good=None))
            sys.exit(1)


if __name__ == "__main__":
    main()
