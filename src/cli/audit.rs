//! Who changed what by the command line.

use serde_json::Value;
use sqlx::PgConnection;

/// A change to be noted.
#[derive(Debug)]
pub(super) struct Change<'a> {
    /// What, as `noun.verb`.
    pub(super) action: &'static str,
    /// To what: `job/42`, `queue/import`.
    pub(super) object: String,
    /// Whose data.
    pub(super) tenant: Option<&'a str>,
    /// What changed; null where the action says it all.
    pub(super) detail: Value,
}

impl Change<'_> {
    /// Describes a change that its action says all about.
    pub(super) fn of(action: &'static str, object: String) -> Self {
        Self {
            action,
            object,
            tenant: None,
            detail: Value::Null,
        }
    }

    /// Writes it in the connection's transaction, in the name of `actor`.
    pub(super) async fn note(&self, conn: &mut PgConnection, actor: &str) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO ingestd.audit_log (actor, action, object, tenant, detail)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(actor)
        .bind(self.action)
        .bind(&self.object)
        .bind(self.tenant)
        .bind((!self.detail.is_null()).then_some(&self.detail))
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Returns who runs the command: `cli:` and the login name, that of the person behind sudo where
/// there is one, or the user's number where it has no name.
pub(super) fn actor() -> String {
    let uid = nix::unistd::getuid();
    let behind = std::env::var("SUDO_USER")
        .ok()
        .filter(|name| uid.is_root() && !name.is_empty());
    let login = || Some(nix::unistd::User::from_uid(uid).ok()??.name);
    let name = behind.or_else(login).unwrap_or_else(|| uid.to_string());
    format!("cli:{name}")
}
