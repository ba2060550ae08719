//! Verbs of a machine beside its usual life: suspension, signals, cordons and its versions.

use axum::Json;
use serde_json::Value;
use types::api::{MachineVersion, Ok as Done, SignalMachine};

use super::error::ApiError;
use super::extract::{Body, Query, Target, seconds};
use super::lease::Asked;
use crate::worker::StopRequest;

/// `POST …/machines/{id}/suspend`
pub(super) async fn suspend(target: Target, Asked(worker): Asked) -> Result<Json<Done>, ApiError> {
    worker.suspend(&target.id).await?;
    Ok(Json(Done { ok: true }))
}

/// `POST …/machines/{id}/restart?timeout=&signal=&force_stop=`
pub(super) async fn restart(
    target: Target,
    query: Query,
    Asked(worker): Asked,
) -> Result<Json<Done>, ApiError> {
    let request = StopRequest {
        signal: query.get("signal").map(str::to_owned),
        timeout: query.get("timeout").map(seconds).transpose()?,
    };
    let force = query.flag("force_stop")?;
    worker.restart(&target.id, request, force).await?;
    Ok(Json(Done { ok: true }))
}

/// `POST …/machines/{id}/signal`
pub(super) async fn signal(
    target: Target,
    Asked(worker): Asked,
    Body(body): Body<SignalMachine>,
) -> Result<Json<Done>, ApiError> {
    let signal = word(&body.signal)?;
    worker.signal(&target.id, body.container, signal).await?;
    Ok(Json(Done { ok: true }))
}

/// A signal by its name, its number, or its number as text.
fn word(signal: &Value) -> Result<String, ApiError> {
    match signal {
        Value::String(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(ApiError::bad(
                "signal must be a name such as SIGTERM, or a number".into(),
            ))
        }
    }
}

/// `POST …/machines/{id}/cordon`
pub(super) async fn cordon(target: Target, Asked(worker): Asked) -> Result<Json<Done>, ApiError> {
    worker.set_cordoned(&target.id, true).await?;
    Ok(Json(Done { ok: true }))
}

/// `POST …/machines/{id}/uncordon`
pub(super) async fn uncordon(target: Target, Asked(worker): Asked) -> Result<Json<Done>, ApiError> {
    worker.set_cordoned(&target.id, false).await?;
    Ok(Json(Done { ok: true }))
}

/// `GET …/machines/{id}/versions`
pub(super) async fn versions(
    target: Target,
    Asked(worker): Asked,
) -> Result<Json<Vec<MachineVersion>>, ApiError> {
    Ok(Json(worker.versions(&target.id).await?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        assert_eq!(word(&json!("SIGTERM")).unwrap(), "SIGTERM");
        assert_eq!(word(&json!(9)).unwrap(), "9");
        assert_eq!(word(&json!("9")).unwrap(), "9");
        for wrong in [json!(null), json!(""), json!([9]), json!({})] {
            assert!(word(&wrong).is_err(), "{wrong}");
        }
    }
}
