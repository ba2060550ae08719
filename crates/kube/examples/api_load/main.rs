//! Load for a Kubernetes API server, over TLS as the administrator of a kubeconfig:
//!
//! ```text
//! api_load <kubeconfig> <pid> ready
//! api_load <kubeconfig> <pid> fill <namespace> <objects> <bytes of each>
//! api_load <kubeconfig> <pid> create <clients> <seconds>
//! api_load <kubeconfig> <pid> update <clients> <seconds>
//! api_load <kubeconfig> <pid> watch <watchers>
//! api_load <kubeconfig> <pid> list <namespace> <times>
//! api_load <kubeconfig> <pid> informers <namespace> <informers> <list|watch-list>
//! api_load <kubeconfig> <pid> idle <seconds>
//! ```
//!
//! One line of figures comes out, `name=value`. CPU time and memory are those of the process and
//! all that it has started: an API server's etcd may be its child.
#![allow(clippy::print_stdout, reason = "what it measured is what it is for")]

mod lists;
mod process;
mod target;
mod watches;
mod writes;

use std::time::Duration;

use process::Process;
use target::{Failure, Target};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let [kubeconfig, pid, ref measure @ ..] = words[..] else {
        return Err("see the head of this program's source".into());
    };
    let process = Process(pid.parse()?);
    let target = || Target::open(kubeconfig, Process(process.0));
    match *measure {
        ["ready"] => println!("resident_mib={:.1}", process.resident_mib()?),
        ["fill", namespace, objects, bytes] => {
            let (objects, bytes) = (objects.parse()?, bytes.parse()?);
            writes::fill(target()?, namespace, objects, bytes).await?;
        }
        ["create", clients, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            writes::run(target()?, writes::Kind::Create, clients.parse()?, time).await?;
        }
        ["update", clients, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            writes::run(target()?, writes::Kind::Update, clients.parse()?, time).await?;
        }
        ["watch", watchers] => watches::run(target()?, watchers.parse()?).await?,
        ["list", namespace, times] => lists::run(target()?, namespace, times.parse()?).await?,
        ["informers", namespace, count, how] => {
            lists::informers(target()?, namespace, count.parse()?, how == "watch-list").await?;
        }
        ["idle", seconds] => idle(&process, Duration::from_secs(seconds.parse()?)).await?,
        _ => return Err("see the head of this program's source".into()),
    }
    Ok(())
}

async fn idle(process: &Process, time: Duration) -> Result<(), Failure> {
    let (cpu, woken) = (process.cpu_s()?, process.wakeups()?);
    tokio::time::sleep(time).await;
    let share = (process.cpu_s()? - cpu) / time.as_secs_f64();
    let woken = (process.wakeups()? - woken) / time.as_secs_f64();
    println!(
        "cpu_percent={:.3} wakeups_per_s={woken:.1} resident_mib={:.1}",
        share * 100.0,
        process.resident_mib()?
    );
    Ok(())
}
