//! What a process and its descendants use, as Linux counts it.

use std::collections::HashMap;
use std::fs::read_to_string;

use crate::target::Failure;

pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// It and what it has started, directly or not.
    fn family(&self) -> Result<Vec<u32>, Failure> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // It may have ended by now.
            if let Some(parent) = fields(pid).and_then(|fields| fields[1].parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut family = vec![self.0];
        let mut at = 0;
        while at < family.len() {
            family.extend(children.get(&family[at]).into_iter().flatten());
            at += 1;
        }
        Ok(family)
    }

    /// Seconds of CPU time so far, in the kernel and outside.
    pub(crate) fn cpu_s(&self) -> Result<f64, Failure> {
        let mut ticks = 0;
        for pid in self.family()? {
            let fields = fields(pid).ok_or("the server has ended")?;
            ticks += fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
        }
        Ok(f64::from(ticks) / 100.0)
    }

    pub(crate) fn resident_mib(&self) -> Result<f64, Failure> {
        self.status_sum("VmRSS:").map(|kib| kib / 1024.0)
    }

    /// The most it had since [`Self::forget_peak`].
    pub(crate) fn peak_mib(&self) -> Result<f64, Failure> {
        self.status_sum("VmHWM:").map(|kib| kib / 1024.0)
    }

    pub(crate) fn forget_peak(&self) -> Result<(), Failure> {
        for pid in self.family()? {
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        }
        Ok(())
    }

    /// How often its threads went to sleep by themselves: as often they were woken.
    pub(crate) fn wakeups(&self) -> Result<f64, Failure> {
        let mut count = 0.0;
        for pid in self.family()? {
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let status = read_to_string(task?.path().join("status"))?;
                count += number(&status, "voluntary_ctxt_switches:")?;
            }
        }
        Ok(count)
    }

    fn status_sum(&self, name: &str) -> Result<f64, Failure> {
        let mut sum = 0.0;
        for pid in self.family()? {
            sum += number(&read_to_string(format!("/proc/{pid}/status"))?, name)?;
        }
        Ok(sum)
    }
}

fn number(status: &str, name: &str) -> Result<f64, Failure> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(f64::from(value.ok_or("no such line")?.parse::<u32>()?))
}

/// Of `/proc/<pid>/stat`, from the state on.
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(") ")?.1;
    Some(rest.split(' ').map(str::to_owned).collect())
}
