//! Why a request had no useful answer. Messages end with what to try; causes are in `source`.

use std::io;
use std::time::Duration;

use types::api::ErrorBody;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach the Machines API at {address}: {}", hint(source))]
    Unreachable { address: String, source: io::Error },
    #[error("the connection to the Machines API at {address} broke")]
    Broken {
        address: String,
        source: hyper::Error,
    },
    #[error("the Machines API at {address} gave no answer within {timeout:?}")]
    Timeout { address: String, timeout: Duration },
    /// The request was understood and refused, or failed on the other side.
    #[error("{}", told(*status, body))]
    Api { status: u16, body: Box<ErrorBody> },
    /// What happened after this revision is no longer kept.
    #[error("the watch cannot go on from revision {from}, which is no longer kept; list again")]
    Gone { from: u64 },
    #[error("cannot read the answer to {request}; is {address} an Aerostat of this version?")]
    Answer {
        request: String,
        address: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the stream to the Machines API at {address} broke")]
    Stream {
        address: String,
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
}

impl Error {
    /// Status code of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            Self::Gone { .. } => Some(410),
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Answer { .. }
            | Self::Stream { .. } => None,
        }
    }

    /// The stable word for programs (`ErrorBody::status`), if the API sent one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Api { body, .. } => Some(&body.status),
            Self::Gone { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Answer { .. }
            | Self::Stream { .. } => None,
        }
    }

    /// Whether the API said that what was asked about does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the same request may succeed later without anything else changing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Api { status, body } => {
                body.details.retryable || *status >= 500 && *status != 501
            }
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Stream { .. } => true,
            Self::Gone { .. } | Self::Answer { .. } => false,
        }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "this user may not open it; try again with `sudo`",
        _ => "is it running? try `aerostat up`",
    }
}

fn told(status: u16, body: &ErrorBody) -> String {
    let mut text = if body.error.is_empty() {
        format!("the Machines API answered with status {status}")
    } else {
        body.error.clone()
    };
    if !body.details.hint.is_empty() {
        text.push_str("; ");
        text.push_str(&body.details.hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::api::ErrorDetails;

    #[test]
    fn an_error_ends_with_what_to_try() {
        let address = "/run/aerostat/api.sock".to_owned();
        let source = io::Error::from(io::ErrorKind::NotFound);
        let missing = Error::Unreachable { address, source };
        assert_eq!(
            missing.to_string(),
            "cannot reach the Machines API at /run/aerostat/api.sock: is it running? try \
             `aerostat up`"
        );
        let refused = Error::Api {
            status: 422,
            body: Box::new(ErrorBody {
                error: "no room for 4096 MiB".into(),
                status: "insufficient_capacity".into(),
                details: ErrorDetails {
                    hint: "ask for less memory".into(),
                    ..ErrorDetails::default()
                },
            }),
        };
        assert_eq!(
            refused.to_string(),
            "no room for 4096 MiB; ask for less memory"
        );
        assert_eq!(refused.code(), Some("insufficient_capacity"));
        let silent = Error::Api {
            status: 502,
            body: Box::default(),
        };
        assert_eq!(
            silent.to_string(),
            "the Machines API answered with status 502"
        );
    }
}
