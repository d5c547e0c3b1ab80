//! `ingestd jobs why`: what keeps a job from running.

use super::{Exit, Failure, Session, not_found, word};
use crate::queue::{JobId, why};

pub(super) async fn run(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    let why = why::explain(&mut session.conn, id)
        .await?
        .ok_or_else(|| not_found(id))?;
    if session.output.is_json() {
        session.output.document(&why)?;
        return Ok(Exit::Ok);
    }
    session
        .output
        .line(&format!("job {id} is {}", word(why.state)))?;
    for reason in &why.reasons {
        session.output.line(&format!("  {}", reason.text))?;
        if let Some(advice) = &reason.advice {
            session.output.line(&format!("    {advice}"))?;
        }
    }
    Ok(Exit::Ok)
}
