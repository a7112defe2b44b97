//! The process itself, read when somebody asks: memory, processor time, descriptors, threads, tasks.
//!
//! The names are those that all programs export. The collector of the `prometheus` crate is not used: it remembers
//! the process id of its making, which is another one once the process has become a daemon, and it counts processor
//! time in whole seconds.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use pingora_prometheus::prometheus::{
    Counter, Gauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::runtime::Handle;

/// The kernel's unit of time towards programs: `USER_HZ`, 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc` says of this process.
#[derive(Clone)]
pub struct Process {
    cpu: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    resident_memory: Gauge,
    start_time: Gauge,
    threads: Gauge,
}

impl Process {
    #[expect(clippy::expect_used, reason = "names are constants, and a test makes every family")]
    pub fn new() -> Process {
        let gauge = |name, help| Gauge::new(name, help).expect("a valid name");
        Process {
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time spent.")
                .expect("a valid name"),
            open_fds: gauge("process_open_fds", "Open file descriptors."),
            max_fds: gauge("process_max_fds", "Most file descriptors that may be open."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory."),
            resident_memory: gauge("process_resident_memory_bytes", "Resident memory."),
            start_time: gauge("process_start_time_seconds", "Start of the process, Unix time."),
            threads: gauge("process_threads", "Threads of the operating system."),
        }
    }

    /// `None` where `/proc` says something unexpected.
    fn look(&self) -> Option<()> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let stat = Stat::parse(&stat)?;
        self.cpu.reset();
        self.cpu.inc_by(stat.cpu_seconds);
        self.threads.set(stat.threads);
        self.virtual_memory.set(stat.virtual_bytes);
        let boot = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        // Hundredths would be an invention: the time of boot is in whole seconds.
        self.start_time.set((boot + stat.started_after_boot).floor());
        let status = fs::read_to_string("/proc/self/status").ok()?;
        self.resident_memory.set(number_after(&status, "VmRSS:")? * 1024.0);
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        self.max_fds.set(number_after(&limits, "Max open files").unwrap_or(f64::INFINITY));
        // Less the one that reads the directory.
        self.open_fds.set(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64);
        Some(())
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu,
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.resident_memory,
            &self.start_time,
            &self.threads,
        ]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(|metric| metric.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match self.look() {
            Some(()) => self.all().into_iter().flat_map(|metric| metric.collect()).collect(),
            None => Vec::new(),
        }
    }
}

/// The first number in the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What is of use of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    started_after_boot: f64,
    virtual_bytes: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The second field is a name in parentheses and may hold anything; the third is counted as 0 here.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Stat {
            cpu_seconds: (number(11)? + number(12)?) / TICKS_PER_SECOND,
            threads: number(17)?,
            started_after_boot: number(19)? / TICKS_PER_SECOND,
            virtual_bytes: number(20)?,
        })
    }
}

/// Tasks that are alive, by runtime.
#[derive(Debug, Clone)]
pub struct Tasks {
    alive: IntGaugeVec,
    watched: Arc<Mutex<Vec<(String, Handle)>>>,
}

impl Tasks {
    #[expect(clippy::expect_used, reason = "names are constants, and a test makes every family")]
    pub fn new() -> Tasks {
        let opts = Opts::new("akubra_tasks", "Tasks that are alive: connections and what runs beside them.");
        let alive = IntGaugeVec::new(opts, &["runtime"]).expect("a valid name");
        Tasks { alive, watched: Arc::default() }
    }

    pub fn watch(&self, runtime: &str, handle: Handle) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push((runtime.to_owned(), handle));
    }
}

impl Collector for Tasks {
    fn desc(&self) -> Vec<&Desc> {
        self.alive.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (runtime, handle) in &*self.watched.lock().unwrap_or_else(PoisonError::into_inner) {
            self.alive.with_label_values(&[runtime]).set(handle.metrics().num_alive_tasks() as i64);
        }
        self.alive.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_name_is_odd_is_read_all_the_same() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 9 0 1234 4096000 100 18446744073709551615";
        let expected =
            Stat { cpu_seconds: 3.0, threads: 9.0, started_after_boot: 12.34, virtual_bytes: 4_096_000.0 };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(
            number_after("Max open files            1024                 4096\n", "Max open files"),
            Some(1024.0)
        );
    }

    #[test]
    fn this_process_is_seen() {
        let process = Process::new();
        assert_eq!(process.collect().len(), 7);
        assert!(process.resident_memory.get() > 1e6 && process.open_fds.get() >= 3.0);
        assert!(process.threads.get() >= 1.0 && process.start_time.get() > 1.7e9);
    }

    #[tokio::test]
    async fn tasks_are_counted() {
        let tasks = Tasks::new();
        tasks.watch("test", Handle::current());
        let task = tokio::spawn(std::future::pending::<()>());
        tasks.collect();
        assert_eq!(tasks.alive.with_label_values(&["test"]).get(), 1);
        task.abort();
    }
}
