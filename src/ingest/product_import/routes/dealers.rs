//! The dealers' import: 200 with the results, since its caller waits.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use serde_json::{Value, json};

use super::super::{
    dealers::{self, DealersError},
    plan::Wish,
    submit::{Origin, SubmitError},
};
use super::{Refused, asked, bad_option, of_form, owner, refuse_dropped};
use crate::http::{self, AppState, Caller};

/// The field of the form that holds the file.
const FIELD: &str = "file";

/// `POST /import/dealers`: reads and writes the file, and answers with what came of its rows.
pub(crate) async fn upload(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let (tenant, options) = asked(request.uri())?;
    if let Some((name, _)) = options.first() {
        return Err(no_options(name));
    }
    if tenant.is_some() {
        owner(&caller, tenant.clone())?; // before the file comes
    }
    let upload = http::receive(&app, request, FIELD).await?;
    refuse_dropped(&upload.dropped)?;
    let mut wish = Wish::from(&app.config.product_import);
    for (name, value) in &upload.fields {
        // Forms have fields of their own; one that means something elsewhere means nothing here.
        if wish.set(name, value) != Ok(false) {
            return Err(no_options(name));
        }
    }
    let tenant = owner(&caller, of_form(tenant, &upload.fields)?)?;
    let name = upload.file_name;
    let read = dealers::read(&app.blobs, &app.config, upload.file, &name).await?;
    let origin = Origin {
        tenant: &tenant,
        triggered_by: caller.asks_as(),
    };
    let mut tx = app.db.begin().await?;
    let id = dealers::import(&mut tx, &read, origin).await?;
    let (object, detail) = (format!("run/{id}"), json!({ "file_name": name }));
    let (action, detail) = ("import.dealers", Some(detail));
    http::record(&mut tx, &caller, action, &object, Some(&tenant), detail).await?;
    let data = dealers::results(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Json(json!({
        "success": true,
        "message": "Dealer import completed",
        "data": data,
    })))
}

/// Refuses what would be passed over: a dry run that writes is worse than none.
fn no_options(what: &str) -> Refused {
    bad_option(format!(
        "the import of dealers has no options but tenant, and {what} came; it always writes, new and changed \
         dealers"
    ))
}

impl From<DealersError> for Refused {
    fn from(error: DealersError) -> Self {
        match error {
            DealersError::Refused(refusal) => SubmitError::Refused(refusal).into(),
            DealersError::Storage(error) => error.into(),
            DealersError::Database(error) => error.into(),
        }
    }
}
