//! A pool whose statements have an end even where the network swallows them.

use std::{io, time::Duration};

use sqlx::{PgConnection, PgPool};

/// A pool and how long its user waits for an answer.
///
/// The server ends a statement that takes too long, but only a client can tell that the server is
/// not there any more: a connection whose other end vanished stays open for many minutes.
#[derive(Debug, Clone)]
pub struct Bounded {
    /// The pool.
    pub pool: PgPool,
    /// Longest wait for whatever is done on one connection.
    pub limit: Duration,
}

impl Bounded {
    /// Lends `work` a connection of the pool, and closes it where the work takes too long.
    ///
    /// # Errors
    ///
    /// Those of `work`; [`sqlx::Error::Io`] of kind `TimedOut` where it took too long. It may have
    /// been committed then.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut conn = self.pool.acquire().await?;
        if let Ok(result) = tokio::time::timeout(self.limit, work(&mut conn)).await {
            return result;
        }
        // Not back into the pool: the next user would wait as long.
        drop(conn.detach());
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }
}
