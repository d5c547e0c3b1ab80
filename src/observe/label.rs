//! The closed sets of words that label metrics and mark log lines.

/// Declares an enum whose variants are label values.
macro_rules! labels {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $name {
            /// Every value, in the order of the variants.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            /// Their words, in the same order.
            pub const WORDS: &[&'static str] = &[$($word),+];

            /// Returns the word, as in the tables and in label values.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

labels! {
    /// How an attempt ended.
    Outcome {
        /// The work is done.
        Success = "success",
        /// It failed and will be tried again.
        Retry = "retry",
        /// It failed and will not be tried again.
        Dead = "dead",
        /// Somebody stopped it.
        Cancelled = "cancelled",
        /// The handler asked for a later time; not an attempt.
        Snoozed = "snoozed",
        /// Its outcome was refused, or never came: the lease was gone.
        Lost = "lost",
    }
}

labels! {
    /// Why a line of a job's log was lost.
    LineLoss {
        /// As much is kept in memory as may be, and the database did not take it.
        NoRoom = "no_room",
        /// The database refused it for good.
        Refused = "refused",
        /// The engine stopped while the database was away.
        Stopped = "stopped",
    }
}

labels! {
    /// Who holds the xmin horizon back.
    HorizonHolder {
        /// A session with an open transaction.
        Transaction = "transaction",
        /// A transaction that was prepared and neither committed nor rolled back.
        Prepared = "prepared",
        /// A replication slot, for a standby that sent its horizon or is gone.
        ReplicationSlot = "replication_slot",
        /// A standby that sends its horizon and has no slot.
        Standby = "standby",
    }
}

impl TryFrom<String> for HorizonHolder {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|holder| holder.as_str() == word);
        known.copied().ok_or(word)
    }
}

impl serde::Serialize for HorizonHolder {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

labels! {
    /// What came of a vacuum that the daemon began.
    VacuumResult {
        /// It ended, be it that another was at work already.
        Done = "done",
        /// It could not be begun, or took too long.
        Failed = "failed",
    }
}

labels! {
    /// What went wrong in an attempt.
    ErrorKind {
        /// It took longer than its kind allows, or something it waited for did.
        Timeout = "timeout",
        /// Another service answered with an error, or not at all.
        Http = "http",
        /// Input that could not be read.
        Parse = "parse",
        /// Input that was read and is not allowed.
        Validation = "validation",
        /// The database refused, or could not be reached.
        Db = "db",
        /// The handler panicked.
        Panic = "panic",
        /// A file or a stream failed.
        Io = "io",
        /// It ended without an outcome: the process died or the lease was lost.
        Crash = "crash",
        /// None of these.
        Other = "other",
    }
}

labels! {
    /// Who asked for a job.
    EnqueueSource {
        /// A request over HTTP.
        Api = "api",
        /// The command line.
        Cli = "cli",
        /// A schedule's tick.
        Cron = "cron",
        /// A handler: the next step of its work.
        Job = "job",
        /// Somebody who replayed a dead letter.
        Retry = "retry",
    }
}

labels! {
    /// Why a worker looked for work.
    Wake {
        /// A notification came.
        Notify = "notify",
        /// The poll interval was over.
        Poll = "poll",
        /// A job became due.
        Timer = "timer",
        /// The last claim was full, so there may be more.
        Drain = "drain",
    }
}

labels! {
    /// What became of a job whose lease was taken back.
    Rescue {
        /// It goes back to the queue.
        Retry = "retry",
        /// It is dead: out of crashes or attempts.
        Dead = "dead",
    }
}

labels! {
    /// What became of a schedule's tick, as in `ingestd.schedule_ticks`.
    TickResult {
        /// It is a job now.
        Enqueued = "enqueued",
        /// It passed while no daemon ran, and the policy does not make up for it.
        Missed = "missed",
        /// The last tick's job is unfinished, and the policy allows one.
        Overlap = "overlap",
        /// The job could not be inserted.
        Failed = "failed",
    }
}

labels! {
    /// What became of a row of input.
    RowResult {
        /// It is new.
        Inserted = "inserted",
        /// It changed what was there.
        Updated = "updated",
        /// It was there already, the same.
        Unchanged = "unchanged",
        /// It has an error and was left out.
        Rejected = "rejected",
    }
}

labels! {
    /// What became of a document that the search server was told of.
    SearchResult {
        /// The server has it.
        Upserted = "upserted",
        /// The server has it no more.
        Deleted = "deleted",
        /// The server refused it, and its reason is kept.
        Refused = "refused",
    }
}

labels! {
    /// Which way bytes went, seen from the daemon.
    Direction {
        /// Read.
        In = "in",
        /// Written.
        Out = "out",
    }
}

impl ErrorKind {
    /// Sorts an error by the first cause in its chain that is known.
    ///
    /// Errors that know better (HTTP, validation) are sorted where they happen.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(Self::of_cause)
            .unwrap_or(Self::Other)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        match () {
            () if cause.is::<sqlx::Error>() => Some(Self::Db),
            () if cause.is::<tokio::time::error::Elapsed>() => Some(Self::Timeout),
            () if cause.is::<std::io::Error>() => Some(Self::Io),
            () if cause.is::<serde_json::Error>() || cause.is::<csv::Error>() => Some(Self::Parse),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn sorts_by_the_first_known_cause() {
        let parse = serde_json::from_str::<u8>("x").context("reading a page");
        assert_eq!(ErrorKind::of(&parse.unwrap_err()), ErrorKind::Parse);
        let db = anyhow::Error::from(sqlx::Error::RowNotFound);
        assert_eq!(ErrorKind::of(&db), ErrorKind::Db);
        let io = anyhow::Error::from(std::io::Error::other("gone")).context("opening");
        assert_eq!(ErrorKind::of(&io), ErrorKind::Io);
        assert_eq!(ErrorKind::of(&anyhow::anyhow!("?")), ErrorKind::Other);
    }
}
