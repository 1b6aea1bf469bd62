//! CPU time and memory of processes: the router, PostgreSQL with all its backends, the load.

use std::ops::Sub;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

/// CPU used so far, in nanoseconds. `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// This process, and the load generators that it started and that have ended.
    pub load: Option<f64>,
    /// The postmaster and its processes, those that have ended as well.
    pub postgres: Option<f64>,
}

impl Cpu {
    /// Of now.
    pub fn now(postmaster: Option<i32>) -> Self {
        let ours = |who| {
            let usage = getrusage(who).ok()?;
            Some(timeval_ns(usage.user_time()) + timeval_ns(usage.system_time()))
        };
        Self {
            load: ours(UsageWho::RUSAGE_SELF)
                .zip(ours(UsageWho::RUSAGE_CHILDREN))
                .map(|(own, children)| own + children),
            postgres: postmaster.and_then(family_ns),
        }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let minus = |after: Option<f64>, before| after.zip(before).map(|(a, b): (f64, f64)| a - b);
        Self {
            load: minus(self.load, before.load),
            postgres: minus(self.postgres, before.postgres),
        }
    }
}

fn timeval_ns(time: TimeVal) -> f64 {
    time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3
}

/// CPU of one process, from its own clock: `/proc` counts in hundredths of a second only.
#[cfg(target_os = "linux")]
pub fn cpu_ns(pid: i32) -> Option<f64> {
    use nix::time::{clock_getcpuclockid, clock_gettime};

    let clock = clock_getcpuclockid(nix::unistd::Pid::from_raw(pid)).ok()?;
    let time = clock_gettime(clock).ok()?;
    Some(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn cpu_ns(_: i32) -> Option<f64> {
    None
}

/// A process, its children, and those of its children that have ended.
fn family_ns(parent: i32) -> Option<f64> {
    let mut sum = cpu_ns(parent)? + Stat::of(parent)?.ended_children_ns;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ends meanwhile counts at the next look, as an ended child.
        if Stat::of(pid).is_some_and(|stat| stat.parent == parent) {
            sum += cpu_ns(pid).unwrap_or_default();
        }
    }
    Some(sum)
}

/// What we need of `/proc/PID/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: i32,
    ended_children_ns: f64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The program's name is in parentheses and may hold any character.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            // USER_HZ is 100 on every Linux that we know of.
            ended_children_ns: (ticks(13)? + ticks(14)?) * 1e9 / 100.0,
        })
    }
}

/// Resident memory of a process, in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Now.
    pub now_mib: f64,
    /// The most that it ever was.
    pub peak_mib: f64,
}

impl Memory {
    /// `None` where the system does not tell.
    pub fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mib = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib / 1024.0)
        };
        Some(Self {
            now_mib: mib("VmRSS:")?,
            peak_mib: mib("VmHWM:")?,
        })
    }
}

/// The processor's name (Linux).
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194560 9 8 7 6 11 12 13 14 20 0 1 0 5 6 7\n";
        let expected = Stat {
            parent: 7,
            ended_children_ns: 270e6,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn a_status_is_read_in_mib() {
        let text = "Name:\tpgbraid\nVmHWM:\t  2048 kB\nVmRSS:\t  1536 kB\n";
        let expected = Memory {
            now_mib: 1.5,
            peak_mib: 2.0,
        };
        assert_eq!(Memory::parse(text), Some(expected));
        assert_eq!(Memory::parse("Name:\tpgbraid\n"), None);
    }

    #[test]
    fn a_difference_needs_both_sides() {
        let before = Cpu {
            load: Some(1.0),
            postgres: None,
        };
        let after = Cpu {
            load: Some(5.0),
            postgres: Some(2.0),
        };
        let used = after - before;
        assert_eq!((used.load, used.postgres), (Some(4.0), None));
    }
}
