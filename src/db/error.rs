//! Which errors of the database pass, by themselves or when somebody sees to it.

use std::time::Duration;

/// How long to let a server recover that was away.
pub const AWAY_PAUSE: Duration = Duration::from_secs(2);

/// How long until it is worth a look whether a full disk has room again.
pub const FULL_PAUSE: Duration = Duration::from_secs(10);

/// Returns how long to wait before work goes on that met this error, where the server is to blame
/// for it and will recover: it is away for a while, or its disk is full until somebody sees to it.
#[must_use]
pub fn outage(error: &anyhow::Error) -> Option<Duration> {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    causes.find_map(|cause| {
        if is_transient(cause) {
            Some(AWAY_PAUSE)
        } else {
            is_disk_full(cause).then_some(FULL_PAUSE)
        }
    })
}

fn is_disk_full(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("53100")
}

/// Says whether the same call may succeed later although nothing but time changes: the connection
/// was lost or could not be had, the server is stopping, starting, full or changing roles, or the
/// transaction lost against another one.
///
/// A transaction that met such an error is over; what is tried again is the whole transaction. It
/// may have committed: an answer can be lost as well as a question.
///
/// The codes are those of the Postgres manual, appendix A.
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

/// Says whether the call itself is to blame, so that it will never succeed: neither
/// [`is_transient`] nor about the state of the server, which somebody will see to (it is out of
/// disk, memory or time; classes 53, 57 and 58).
#[must_use]
pub fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    let class = code.as_ref().and_then(|code| code.get(..2));
    !is_transient(error) && !matches!(class, Some("53" | "57" | "58"))
}

fn is_transient_code(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // 08 connection, 40 serialization failure and deadlock
    matches!(class, "08" | "40")
        || matches!(
            code,
            "57P01" // admin_shutdown
            | "57P02" // crash_shutdown
            | "57P03" // cannot_connect_now
            | "57P05" // idle_session_timeout
            | "25P03" // idle_in_transaction_session_timeout
            | "25006" // read_only_sql_transaction: the server has just become a standby
            | "53300" // too_many_connections
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_transient() {
        for code in [
            "08006", "40001", "40P01", "57P01", "57P02", "57P03", "53300", "25006",
        ] {
            assert!(is_transient_code(code), "{code}");
        }
        assert!(is_transient(
            &std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
        ));
        assert!(is_transient(&sqlx::Error::PoolTimedOut));
    }

    #[test]
    fn what_stays_wrong_is_not() {
        for code in ["23505", "42601", "57014", "53100", ""] {
            assert!(!is_transient_code(code), "{code}");
        }
        assert!(!is_transient(&sqlx::Error::RowNotFound));
        assert!(!is_transient(&sqlx::Error::PoolClosed));
        assert!(is_refusal(&sqlx::Error::PoolClosed));
        assert!(!is_refusal(&sqlx::Error::PoolTimedOut));
    }
}
