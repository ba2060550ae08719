//! What goes on in a machine that runs: its processes, and what it uses.

use axum::Json;
use axum::extract::State;
use types::api::{Memory, ProcessStat};
use types::guest::Statistics;

use super::Api;
use super::error::ApiError;
use super::extract::{Query, Target};

/// `GET …/machines/{id}/ps?sort_by=&order=`
pub(super) async fn processes(
    State(api): State<Api>,
    target: Target,
    query: Query,
) -> Result<Json<Vec<ProcessStat>>, ApiError> {
    let sort = sort_by(query.get("sort_by").unwrap_or("pid"))?;
    let descending = match query.get("order") {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(ApiError::bad("order must be asc or desc".into())),
    };
    let mut processes = api.deps.worker.processes(&target.id).await?;
    sort(&mut processes);
    if descending {
        processes.reverse();
    }
    Ok(Json(processes))
}

fn sort_by(field: &str) -> Result<fn(&mut [ProcessStat]), ApiError> {
    let sort: fn(&mut [ProcessStat]) = match field {
        "pid" => |processes| processes.sort_by_key(|process| process.pid),
        "cpu" => |processes| processes.sort_by_key(|process| process.cpu),
        "rss" => |processes| processes.sort_by_key(|process| process.rss),
        "rtime" => |processes| processes.sort_by_key(|process| process.rtime),
        "stime" => |processes| processes.sort_by_key(|process| process.stime),
        "command" => |processes| processes.sort_by(|a, b| a.command.cmp(&b.command)),
        "directory" => |processes| processes.sort_by(|a, b| a.directory.cmp(&b.directory)),
        _ => {
            return Err(ApiError::bad(
                "sort_by must be pid, cpu, rss, rtime, stime, command or directory".into(),
            ));
        }
    };
    Ok(sort)
}

/// `GET …/machines/{id}/stats`
pub(super) async fn statistics(
    State(api): State<Api>,
    target: Target,
) -> Result<Json<Statistics>, ApiError> {
    Ok(Json(api.deps.worker.statistics(&target.id).await?))
}

/// `GET …/machines/{id}/memory`
pub(super) async fn memory(
    State(api): State<Api>,
    target: Target,
) -> Result<Json<Memory>, ApiError> {
    let statistics = api.deps.worker.statistics(&target.id).await?;
    let guest = target.entry.machine.config.guest.as_ref();
    let limit_mb = match statistics.memory_limit_bytes >> 20 {
        0 => guest.map_or(0, |guest| guest.memory_mb.into()),
        limit_mb => limit_mb,
    };
    Ok(Json(Memory {
        available_mb: limit_mb.saturating_sub(statistics.memory_bytes.div_ceil(1 << 20)),
        limit_mb,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_sorted_by_what_is_known_of_them() {
        let process = |pid, rss, command: &str| ProcessStat {
            pid,
            rss,
            command: command.into(),
            ..ProcessStat::default()
        };
        let mut processes = [process(2, 1, "b"), process(1, 3, "c"), process(3, 2, "a")];
        let mut order = |field| {
            sort_by(field).unwrap()(&mut processes);
            processes.clone().map(|process| process.pid)
        };
        assert_eq!(order("pid"), [1, 2, 3]);
        assert_eq!(order("rss"), [2, 3, 1]);
        assert_eq!(order("command"), [3, 2, 1]);
        assert!(sort_by("name").is_err());
    }
}
