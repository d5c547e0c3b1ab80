//! Who may do what: roles, tenants, and the credentials that prove them.
//!
//! | file | what it decides |
//! |---|---|
//! | `role` | what a caller may do at all |
//! | `tenants` | to whose data |
//! | `token` | opaque tokens: made, checked, listed, revoked |
//! | `jwt`, `pem` | users' tokens: what is signed by a key, and says enough |
//! | `keyring` | which keys count: configured or published |
//! | `limit` | how often somebody may ask |
//!
//! Nothing here knows HTTP: `http::admit` brings the credential and enforces the answer.

mod keyring;
mod pem;
mod role;
mod tenants;

pub mod jwt;
pub mod limit;
pub mod token;

pub use keyring::Keyring;
pub use role::Role;
pub use tenants::{DEFAULT_TENANT, INSTALLATION, NO_TENANT, Tenants};

/// Who somebody is, once a credential proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The audit log's word for them: `token:NAME#ID`, `user:SUBJECT`, `local`.
    pub actor: String,
    /// What they may do.
    pub role: Role,
    /// To whose data.
    pub tenants: Tenants,
}
