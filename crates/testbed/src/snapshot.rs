//! What a machine's kernel holds that a host could leave behind, so that a test can compare
//! before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Host;

/// Links, namespaces, nftables tables, mounts, loop devices, cgroups and processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// # Panics
    /// If the kernel cannot be asked.
    pub fn take() -> Self {
        let mut found = BTreeSet::new();
        let links = lines("ip", &["-o", "link"]);
        found.extend(links.iter().filter_map(|line| {
            let name = line.split(": ").nth(1)?.split('@').next()?;
            Some(format!("link {name}"))
        }));
        found.extend(
            lines("ip", &["netns", "list"])
                .into_iter()
                .filter_map(|line| Some(format!("netns {}", line.split_whitespace().next()?))),
        );
        found.extend(
            lines("ip", &["rule"])
                .into_iter()
                .map(|rule| format!("rule {rule}")),
        );
        found.extend(
            lines("ip", &["route"])
                .into_iter()
                .map(|route| format!("route {route}")),
        );
        found.extend(
            lines("nft", &["list", "tables"])
                .into_iter()
                .map(|t| format!("nft {t}")),
        );
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        found.extend(mounts.lines().filter_map(|line| {
            let at = line.split_whitespace().nth(1)?;
            Some(format!("mount {at}"))
        }));
        found.extend(loops());
        found.extend(cgroups());
        found.extend(processes());
        Self(found)
    }

    /// What is there now and was not there then, but for what names another host: several test
    /// processes may share one kernel.
    pub fn since(&self, before: &Self, host: &Host) -> Vec<String> {
        self.since_hosts(before, std::slice::from_ref(host))
    }

    /// [`Self::since`], for several hosts.
    pub fn since_hosts(&self, before: &Self, hosts: &[Host]) -> Vec<String> {
        let ours = |thing: &str| {
            hosts.iter().any(|host| {
                let folder = host.folder().display().to_string();
                thing.contains(&host.id()) || thing.contains(&folder)
            })
        };
        let foreign = |thing: &String| thing.contains("aero") && !ours(thing);
        let new = self.0.difference(&before.0);
        new.filter(|thing| !foreign(thing)).cloned().collect()
    }
}

fn lines(program: &str, words: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Loop devices that hold a file.
fn loops() -> Vec<String> {
    let entries = fs::read_dir("/sys/block").expect("block devices").flatten();
    let files = entries.filter_map(|e| fs::read_to_string(e.path().join("loop/backing_file")).ok());
    files.map(|file| format!("loop {}", file.trim())).collect()
}

/// Control groups of ours, in every hierarchy.
fn cgroups() -> Vec<String> {
    let output = Command::new("find")
        .args([
            "/sys/fs/cgroup",
            "-maxdepth",
            "4",
            "-type",
            "d",
            "-name",
            "*aerostat*",
        ])
        .output()
        .expect("find");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|path| format!("cgroup {path}")).collect()
}

/// The command line of a process, by its folder below `/proc`; empty when it has ended. Which
/// descriptor a shim inherited says nothing; whether it keeps a boot or waits for one does.
pub fn command_line(process: &Path) -> String {
    let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
    let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    let Some((shim, _)) = command.split_once(" --fd ") else {
        return command;
    };
    let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
    let does = match groups.contains("aerostat-") {
        true => "keeps a boot",
        false => "waits",
    };
    format!("{shim} {does}")
}

/// Processes of ours.
fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let command = command_line(&entry.path());
        let name = command.split(' ').next().unwrap_or_default();
        if name.ends_with("/aerostat") || name.contains("qemu-system") {
            found.push(format!(
                "process {} {command}",
                entry.file_name().to_string_lossy()
            ));
        }
    }
    found
}
