//! `aerostat doctor`: what this host can and cannot do, what that means, and what to do about it.
//!
//! Looking changes nothing. `--fix` does what is safe without asking anybody and says so: it loads
//! modules, makes device nodes and directories, and takes away what a dead daemon left.

mod features;
mod fix;
mod machines;
mod running;
mod system;

use serde::Serialize;

use super::output::{self, Table};
use super::style::{Colour, Paint};
use super::{Context, Refused};
use crate::app::Endpoints;
use fix::Repair;

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// Do what is safe: load modules, make directories, take away what a dead daemon left
    #[arg(long)]
    fix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Something is missing that only some machines need.
    Warn,
    /// Nothing will run, or not for long.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    detail: String,
    /// What follows from it; empty when all is well.
    means: String,
    /// What to do about it; empty when nothing is.
    fix: String,
    /// What `--fix` did.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<String>,
    /// What `--fix` can do.
    #[serde(skip)]
    repair: Option<Repair>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            detail: detail.into(),
            means: String::new(),
            fix: String::new(),
            fixed: None,
            repair: None,
        }
    }

    fn warn(
        name: &'static str,
        detail: impl Into<String>,
        means: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warn,
            means: means.into(),
            fix: fix.into(),
            ..Self::ok(name, detail)
        }
    }

    fn fail(
        name: &'static str,
        detail: impl Into<String>,
        means: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(name, detail, means, fix)
        }
    }

    fn with(self, repair: Repair) -> Self {
        Self {
            repair: Some(repair),
            ..self
        }
    }
}

impl Doctor {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut checks = checks(context).await?;
        if self.fix {
            let done = fix::carry_out(context, &checks);
            if !done.is_empty() {
                checks = self::checks(context).await?;
            }
            for (name, what) in done {
                match checks.iter_mut().find(|check| check.name == name) {
                    Some(check) => check.fixed = Some(what),
                    // Nothing is left to say about it.
                    None => checks.push(Check {
                        fixed: Some(what.clone()),
                        ..Check::ok(name, what)
                    }),
                }
            }
        }
        let names = || checks.iter().map(|check| check.name.to_owned()).collect();
        output::print(context.format, &checks, || table(&checks), names)?;
        if context.format == output::Format::Table {
            output::write(advice(&checks, Paint::stdout()).as_bytes())?;
        }
        let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail);
        match failed.count() {
            0 => Ok(()),
            1 => Err(Refused("1 check failed".to_owned()).into()),
            failed => Err(Refused(format!("{failed} checks failed")).into()),
        }
    }
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::new(&["CHECK", "VERDICT", "FOUND"]).wide(&["MEANS", "WHAT TO DO"]);
    for check in checks {
        table.row([
            check.name.to_owned(),
            check.verdict.word().to_owned(),
            check.detail.clone(),
            check.means.clone(),
            check.fix.clone(),
        ]);
    }
    table
}

/// What people want to read below the table: the worst last, where the cursor is.
fn advice(checks: &[Check], paint: Paint) -> String {
    let mut text = String::new();
    for check in checks.iter().filter(|check| check.fixed.is_some()) {
        let done = paint.paint(Colour::Green, "done");
        let what = check.fixed.as_deref().unwrap_or_default();
        text += &format!("\n{done}  {}: {what}\n", check.name);
    }
    for verdict in [Verdict::Warn, Verdict::Fail] {
        let colour = match verdict {
            Verdict::Ok | Verdict::Warn => Colour::Yellow,
            Verdict::Fail => Colour::Red,
        };
        for check in checks.iter().filter(|check| check.verdict == verdict) {
            let word = paint.paint(colour, verdict.word());
            text += &format!("\n{word}  {}: {}\n", check.name, check.detail);
            for (label, line) in [("means", &check.means), ("to do", &check.fix)] {
                if !line.is_empty() {
                    text += &format!("      {} {line}\n", paint.paint(Colour::Dim, label));
                }
            }
        }
    }
    if checks.iter().any(|check| check.repair.is_some()) {
        text += "\nsudo aerostat doctor --fix   does what is safe of this by itself\n";
    }
    text
}

async fn checks(context: &Context) -> anyhow::Result<Vec<Check>> {
    let config = context.config()?;
    let is_root = nix::unistd::geteuid().is_root();
    let mut checks = system::checks(context, is_root);
    checks.extend(features::checks(&context.paths.data_dir, is_root));
    checks.extend(machines::checks(&config, context, is_root));
    match Endpoints::read(&context.paths)? {
        Some(endpoints) => {
            checks.push(Check::ok("daemon", format!("pid {}", endpoints.pid)));
            checks.push(running::hosts(context).await);
        }
        None => {
            checks.extend(running::leftovers(&config, context, is_root));
            checks.extend(running::ports(&config, context));
        }
    }
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_says_what_follows_and_what_to_do_the_worst_last() {
        let checks = [
            Check::fail("tun", "missing", "no mesh", "modprobe tun"),
            Check::warn("kvm", "absent", "no microvm", "").with(Repair::TunDevice),
            Check::ok("root", "yes"),
        ];
        let text = advice(&checks, Paint::NONE);
        let expected = "\nwarn  kvm: absent\n      means no microvm\n\nFAIL  tun: missing\n      \
                        means no mesh\n      to do modprobe tun\n\nsudo aerostat doctor --fix   \
                        does what is safe of this by itself\n";
        assert_eq!(text, expected);
        assert_eq!(advice(&checks[2..], Paint::NONE), "");
    }

    #[test]
    fn every_check_that_is_not_ok_has_a_meaning() {
        let context = Context {
            paths: crate::config::Paths {
                data_dir: "/nonexistent/data".into(),
                run_dir: "/nonexistent/run".into(),
                config: "/nonexistent/aerostat.toml".into(),
                guest_dir: None,
            },
            format: output::Format::Json,
            remote: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let checks = runtime.unwrap().block_on(checks(&context)).unwrap();
        let mut names: Vec<_> = checks.iter().map(|check| check.name).collect();
        for check in &checks {
            assert_eq!(
                check.verdict == Verdict::Ok,
                check.means.is_empty(),
                "{check:?}"
            );
            assert!(!check.detail.is_empty(), "{check:?}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "each name once");
    }
}
