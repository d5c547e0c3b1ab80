//! The kinds of [`Problem`](super::Problem): what `type` may name.

use axum::http::StatusCode;

/// A kind of problem. Its name in `type` never changes once released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The request cannot be understood.
    BadRequest,
    /// The body is no JSON, or not of the shape that is asked for.
    BadJson,
    /// No credential, or a wrong one.
    Unauthorized,
    /// The caller is known, and may not.
    Forbidden,
    /// Without a credential only this machine is served.
    ForeignPeer,
    /// Without a credential only this machine's own names are served, so that no web
    /// page can reach the daemon under a name of its own (DNS rebinding).
    ForeignHost,
    /// A web page of another origin asks for a change (CSRF).
    CrossSite,
    /// There is nothing here.
    NotFound,
    /// The path is right, the method is not.
    MethodNotAllowed,
    /// The body took too long to come.
    Stalled,
    /// The thing is in a state that does not allow it; the body's `state` names it.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON by its `Content-Type`.
    UnsupportedMediaType,
    /// A value is out of its range.
    Invalid,
    /// No such job kind.
    UnknownKind,
    /// The Idempotency-Key came with another request before.
    KeyReused,
    /// More than the caller's budget.
    TooMany,
    /// A bug of ours; the log has it under the request's id.
    Internal,
    /// The database cannot be reached now.
    Unavailable,
    /// It took too long.
    Slow,
    /// As many ask for it at once as may.
    Busy,
}

impl Trouble {
    /// Every kind, in the order of the docs.
    pub const ALL: &[Self] = &[
        Self::BadRequest,
        Self::BadJson,
        Self::Unauthorized,
        Self::Forbidden,
        Self::ForeignPeer,
        Self::ForeignHost,
        Self::CrossSite,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Stalled,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::UnknownKind,
        Self::KeyReused,
        Self::TooMany,
        Self::Internal,
        Self::Unavailable,
        Self::Slow,
        Self::Busy,
    ];

    /// Returns its status, its name in `type`, and its title.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "bad-request", "Bad request"),
            Self::BadJson => (
                S::BAD_REQUEST,
                "bad-json",
                "The body cannot be read as JSON",
            ),
            Self::Unauthorized => (
                S::UNAUTHORIZED,
                "unauthorized",
                "A valid credential is required",
            ),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "Not allowed to this caller"),
            Self::ForeignPeer => (S::FORBIDDEN, "foreign-peer", "Only this machine is served"),
            Self::ForeignHost => (S::FORBIDDEN, "foreign-host", "Not served under this name"),
            Self::CrossSite => (S::FORBIDDEN, "cross-site", "Cross-site change refused"),
            Self::NotFound => (S::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
            ),
            Self::Stalled => (
                S::REQUEST_TIMEOUT,
                "stalled",
                "The body took too long to come",
            ),
            Self::Conflict => (S::CONFLICT, "conflict", "Not possible in its state"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "Send application/json",
            ),
            Self::Invalid => (S::UNPROCESSABLE_ENTITY, "invalid", "A value is not allowed"),
            Self::UnknownKind => (
                S::UNPROCESSABLE_ENTITY,
                "unknown-kind",
                "No such kind of job",
            ),
            Self::KeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The Idempotency-Key was used for another request",
            ),
            Self::TooMany => (S::TOO_MANY_REQUESTS, "too-many", "Too many requests"),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Something is wrong inside",
            ),
            Self::Unavailable => (
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "The database cannot be reached",
            ),
            Self::Slow => (S::SERVICE_UNAVAILABLE, "slow", "It took too long"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "busy", "Too many at once"),
        }
    }

    /// Returns the status it is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// Returns its name: lower case, hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns its title, the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// Returns its `type`, a URN with its name.
    #[must_use]
    pub fn uri(self) -> String {
        format!("urn:ingestd:problem:{}", self.name())
    }

    /// Returns the kind for a status that no handler gave a reason for.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        let plain = Self::ALL.iter().find(|trouble| trouble.status() == status);
        match plain {
            Some(trouble) => *trouble,
            None if status.is_client_error() => Self::BadRequest,
            None => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: HashSet<_> = Trouble::ALL.iter().map(|trouble| trouble.name()).collect();
        assert_eq!(names.len(), Trouble::ALL.len());
    }

    #[test]
    fn a_bare_status_finds_its_kind() {
        assert_eq!(
            Trouble::of_status(StatusCode::PAYLOAD_TOO_LARGE),
            Trouble::TooLarge
        );
        assert_eq!(
            Trouble::of_status(StatusCode::URI_TOO_LONG),
            Trouble::BadRequest
        );
        assert_eq!(
            Trouble::of_status(StatusCode::NOT_IMPLEMENTED),
            Trouble::Internal
        );
    }
}
