//! Errors as clients see them: a status and `{id, message}`. The full chain goes to the journal.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::types;
use crate::certs::CertsError;
use crate::model::{
    BuildpackError, ConfigError, FeatureError, HostnameError, NameError, NetworkTargetError,
    ProcessTypeError, RoutingError, SizeError, StackNameError,
};
use crate::release::ReleaseError;
use crate::store::StoreError;
use crate::supervisor::CommandError;

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    id: &'static str,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, id: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            id,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// What people read.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn unauthorized() -> Self {
        let message = "Invalid credentials provided. Make a token with `manifold authorizations:create` and send it as HEROKU_API_KEY, or as the password of git.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn not_found(what: &str) -> Self {
        let message = format!("Couldn't find that {what}.");
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn no_such_endpoint() -> Self {
        let message = "The requested API endpoint was not found. Are you using the right HTTP verb and is the path right?";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn not_acceptable() -> Self {
        let message = "Ask for version 3: Accept: application/vnd.heroku+json; version=3";
        Self::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_params", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub(super) fn range() -> Self {
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "requested_range_not_satisfiable",
            "The Range header is not understood: write it like `version ..; max=15, order=desc`.",
        )
    }

    pub(super) fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_params", message)
    }

    pub(super) fn disk_full(act: &str) -> Self {
        let message = format!(
            "Could not {act}: no space is left on the disk of the state directory. Free some, then try again."
        );
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message)
    }

    pub(super) fn stopping() -> Self {
        let message = "The supervisor is stopping. Try again when it runs.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message)
    }

    /// A fault of ours: people get the headline, the journal the whole chain.
    pub(super) fn internal(act: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "{act}");
        let message = format!("Could not {act}. The supervisor's journal says more.");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// A file operation that failed.
    pub(super) fn io(act: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                tracing::error!(%error, "{act}");
                Self::disk_full(act)
            }
            _ => Self::internal(act, error),
        }
    }
}

/// An error and its sources in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = types::Error {
            id: self.id.to_owned(),
            message: self.message,
        };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // git asks for a password when it sees this, and only then.
            let challenge = HeaderValue::from_static("Basic realm=\"manifold\"");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::UnknownApp
            | StoreError::UnknownRelease
            | StoreError::UnknownSlug
            | StoreError::UnknownDomain
            | StoreError::UnknownAuthorization
            | StoreError::UnknownCertificate
            | StoreError::UnknownNetworkRule
            | StoreError::UnknownProcess(_) => {
                Self::new(StatusCode::NOT_FOUND, "not_found", message)
            }
            StoreError::NameTaken(_) => Self::invalid("Name is already taken"),
            StoreError::Quantity { .. }
            | StoreError::NotEligible { .. }
            | StoreError::Config(_)
            | StoreError::DomainTaken(_)
            | StoreError::DomainHere(_)
            | StoreError::DomainsFull(_)
            | StoreError::CertificatesFull(_)
            | StoreError::UnknownTarget(_)
            | StoreError::TargetIsSelf
            | StoreError::NetworkRulesFull(_) => Self::invalid(message),
            StoreError::Pending(_) => Self::conflict(message),
            StoreError::Closed => Self::stopping(),
            StoreError::DiskFull { act } => Self::disk_full(act),
            StoreError::Open { .. } | StoreError::Newer { .. } | StoreError::Sql { .. } => {
                Self::internal(&message.replace("cannot ", ""), &error)
            }
        }
    }
}

impl From<CertsError> for ApiError {
    fn from(error: CertsError) -> Self {
        match error {
            CertsError::Store(error) => error.into(),
            CertsError::File { source, .. } => Self::io("write the certificate", &source),
            CertsError::Chain(_) | CertsError::WrongNames { .. } => {
                Self::invalid(format!("The certificate was not taken: {error}."))
            }
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::UnknownApp => Self::not_found("app"),
            CommandError::UnknownDyno(_) => {
                Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string())
            }
            CommandError::NoSlug => Self::invalid(
                "The app has nothing to run yet. Deploy it first, e.g. with `manifold deploy`.",
            ),
            CommandError::OnTrial => Self::conflict(error.to_string()),
            CommandError::Stopping => Self::stopping(),
            CommandError::Launch(_) => Self::internal("start the dyno", &error),
        }
    }
}

impl From<ReleaseError> for ApiError {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::Store(error) => error.into(),
            ReleaseError::Apply(CommandError::Stopping)
            | ReleaseError::Forget(CommandError::Stopping) => Self::stopping(),
            ReleaseError::Busy => Self::conflict(error.to_string()),
            ReleaseError::NoSlug => CommandError::NoSlug.into(),
            ReleaseError::NoStack(_) => Self::invalid(format!(
                "Nothing to upgrade to: {error}. `manifold stacks` lists those that are."
            )),
            ReleaseError::Apply(_) => Self::internal("apply the change (it is stored)", &error),
            ReleaseError::Forget(_) => Self::internal("stop the app's dynos", &error),
        }
    }
}

macro_rules! invalid {
    ($($name:ty),*) => {$(
        impl From<$name> for ApiError {
            fn from(error: $name) -> Self {
                Self::invalid(error.to_string())
            }
        }
    )*};
}

invalid!(
    BuildpackError,
    ConfigError,
    FeatureError,
    HostnameError,
    NameError,
    NetworkTargetError,
    ProcessTypeError,
    RoutingError,
    SizeError,
    StackNameError
);
