//! The interface as OpenAPI 3.1, made from the table of routes and [`shape`].

mod answer;
mod shape;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    ROUTES,
    route::{Access, Payload, Reach, Route},
    trouble::Trouble,
};
use shape::{PLAIN, SHAPES, Shape};

/// `GET /openapi.json`.
pub(super) async fn show() -> axum::Json<Value> {
    axum::Json(document())
}

/// Returns the document.
#[must_use]
pub fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let method = route.method.as_str().to_lowercase();
        let operations = paths.entry(route.path).or_default();
        operations.insert(method, operation(route));
    }
    let mut schemas: Map<String, Value> = answer::schemas().collect();
    schemas.insert("Problem".to_owned(), problem());
    schemas.insert("DocumentError".to_owned(), document_error());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ingestd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A durable job queue on Postgres that runs data ingestion. docs/http.md says more.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer",
                            "description": "A token of `ingestd token create`, `http.token`, or a user's JWT." },
                "cookie": { "type": "apiKey", "in": "cookie", "name": "token",
                            "description": "The same, as POST /api/v1/session sets it." },
            },
            "schemas": schemas,
        },
    })
}

fn shape_of(route: &Route) -> Shape {
    let name = format!("{} {}", route.method, route.path);
    let found = SHAPES.iter().find(|shape| shape.route == name);
    found.copied().unwrap_or(PLAIN)
}

fn operation(route: &Route) -> Value {
    let shape = shape_of(route);
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.about,
        "tags": [tag(route.path)],
        "parameters": parameters(route, shape),
        "responses": responses(route, shape),
    });
    let Some(members) = operation.as_object_mut() else {
        return operation;
    };
    match route.access {
        Access::Open => drop(members.insert("security".to_owned(), json!([]))),
        Access::Role(role, reach) => {
            members.insert("x-required-role".to_owned(), json!(role));
            let is_whole = reach == Reach::Whole;
            members.insert("x-all-tenants-only".to_owned(), is_whole.into());
            let either = json!([{ "bearer": [] }, { "cookie": [] }]);
            members.insert("security".to_owned(), either);
        }
    }
    if let Some(body) = request_body(route, shape) {
        members.insert("requestBody".to_owned(), body);
    }
    operation
}

/// `post_api_v1_jobs_id_cancel`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    let method = route.method.as_str().to_lowercase();
    [method.as_str()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

fn tag(path: &str) -> &str {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    path.split('/').nth(1).unwrap_or_default()
}

fn parameters(route: &Route, shape: Shape) -> Vec<Value> {
    let names = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let of_path = names.map(|name| {
        let is_id = name == "id" || name == "jobId";
        let schema = if is_id {
            json!({ "type": "integer", "format": "int64" })
        } else {
            json!({ "type": "string" })
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let of_query = members(shape.query).into_iter().map(|member| {
        json!({ "name": member.name, "in": "query", "required": false, "schema": member.schema })
    });
    let is_once = route.method == axum::http::Method::POST
        && route.access != Access::Open
        && route.payload != Payload::Secret;
    let key = is_once.then(|| {
        json!({ "name": "Idempotency-Key", "in": "header", "required": false,
                "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" } })
    });
    of_path.chain(of_query).chain(key).collect()
}

fn request_body(route: &Route, shape: Shape) -> Option<Value> {
    if route.payload == Payload::Upload {
        let fields = members(shape.body).into_iter();
        let mut fields: Map<String, Value> =
            fields.map(|member| (member.name, member.schema)).collect();
        let file = json!({ "type": "string", "contentMediaType": "application/octet-stream" });
        fields.insert("file".to_owned(), file);
        let schema = json!({ "type": "object", "required": ["file"], "properties": fields });
        let content = json!({ "multipart/form-data": { "schema": schema } });
        return Some(json!({ "required": true, "content": content }));
    }
    if shape.body.is_empty() {
        return None;
    }
    let members = members(&shape::written_out(shape.body));
    let required: Vec<String> = members
        .iter()
        .filter(|member| member.is_required)
        .map(|member| member.name.clone())
        .collect();
    let properties: Map<String, Value> = members
        .into_iter()
        .map(|member| (member.name, member.schema))
        .collect();
    let mut schema = json!({ "type": "object", "properties": properties,
                             "additionalProperties": false });
    if !required.is_empty()
        && let Some(schema) = schema.as_object_mut()
    {
        schema.insert("required".to_owned(), json!(required));
    }
    // A dead letter is retried without a body as well.
    let is_required = !route.path.ends_with("/retry");
    Some(json!({ "required": is_required,
                 "content": { "application/json": { "schema": schema } } }))
}

/// A parameter or a member of a body.
struct Member {
    name: String,
    schema: Value,
    is_required: bool,
}

/// Reads `name[:type][!|?]…`: `!` is required, `?` may be null. A type is `int`, `number`, `bool`,
/// `object`, `time`, `strings`, `limit`, or the words that may stand there with `|` between them;
/// left out it is a string.
fn members(list: &str) -> Vec<Member> {
    list.split_whitespace().map(member).collect()
}

fn member(text: &str) -> Member {
    let is_required = text.ends_with('!');
    let is_nullable = text.ends_with('?');
    let text = text.trim_end_matches(['!', '?']);
    let (name, of) = text.split_once(':').unwrap_or((text, "string"));
    let mut schema = schema(of);
    if is_nullable && let Some(of) = schema.get_mut("type") {
        *of = json!([of.clone(), "null"]);
    }
    Member {
        name: name.to_owned(),
        schema,
        is_required,
    }
}

fn schema(of: &str) -> Value {
    match of {
        "int" => json!({ "type": "integer", "format": "int64" }),
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 }),
        "number" => json!({ "type": "number" }),
        "bool" => json!({ "type": "boolean" }),
        "object" => json!({ "type": "object" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "strings" => json!({ "type": "array", "items": { "type": "string" } }),
        "string" => json!({ "type": "string" }),
        words => json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() }),
    }
}

/// What a workbook is sent as.
const WORKBOOK: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// Returns what a route's answers are sent as.
fn media(path: &str) -> &'static str {
    match path.rsplit(['/', '.']).next() {
        Some("events") => "text/event-stream",
        Some("healthz" | "metrics") => "text/plain",
        Some("csv") => "text/csv",
        Some("xlsx") => WORKBOOK,
        _ => "application/json",
    }
}

fn responses(route: &Route, shape: Shape) -> Map<String, Value> {
    let media = media(route.path);
    let mut responses = Map::new();
    for status in shape.answers {
        let mut answer = json!({ "description": "It went well." });
        if *status == 503 {
            answer = json!({ "description": "Not now." });
        }
        if *status != 204
            && let Some(members) = answer.as_object_mut()
        {
            let schema = match media {
                "application/json" => answer::schema(route.method.as_str(), route.path, *status)
                    .unwrap_or_else(|| json!({ "type": "object" })),
                WORKBOOK => json!({}),
                _ => json!({ "type": "string" }),
            };
            members.insert("content".to_owned(), json!({ media: { "schema": schema } }));
        }
        responses.insert(status.to_string(), answer);
    }
    let mut told: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for trouble in troubles(route, shape) {
        told.entry(trouble.status().as_u16())
            .or_default()
            .push(trouble.name());
    }
    for (status, names) in told {
        let (media, schema) = if route.is_document() {
            ("application/json", "DocumentError")
        } else {
            ("application/problem+json", "Problem")
        };
        let reference = json!({ "$ref": format!("#/components/schemas/{schema}") });
        let error = json!({ "description": names.join(", "),
                            "content": { media: { "schema": reference } } });
        responses.entry(status.to_string()).or_insert(error);
    }
    responses
}

/// Returns what can go wrong on a route, by what it takes.
fn troubles(route: &Route, shape: Shape) -> Vec<Trouble> {
    use Trouble as T;
    let mut troubles = vec![T::Internal, T::Slow, T::Unavailable, T::BadRequest];
    let is_change = route.method != axum::http::Method::GET;
    if is_change {
        troubles.extend([T::CrossSite, T::Conflict, T::Invalid]);
    }
    if route.access != Access::Open {
        let refused = [
            T::Unauthorized,
            T::Forbidden,
            T::ForeignPeer,
            T::ForeignHost,
            T::TooMany,
        ];
        troubles.extend(refused);
    }
    if route.path == "/api/v1/session" && is_change {
        troubles.extend([T::Unauthorized, T::TooMany]);
    }
    if route.path.ends_with("/events") {
        troubles.push(T::Busy);
    }
    if route.path.contains('{') {
        troubles.extend([T::NotFound, T::Invalid]);
    }
    if !shape.body.is_empty() {
        troubles.extend([T::BadJson, T::Stalled, T::TooLarge, T::UnsupportedMediaType]);
        if shape::written_out(shape.body).contains("kind!") {
            troubles.push(T::UnknownKind);
        }
    }
    if route.method == axum::http::Method::POST && route.access != Access::Open {
        troubles.extend([T::KeyReused, T::Stalled, T::TooLarge]);
    }
    if !shape.query.is_empty() {
        troubles.push(T::Invalid);
    }
    let mut in_order: Vec<Trouble> = T::ALL.to_vec();
    in_order.retain(|trouble| troubles.contains(trouble));
    in_order
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "instance"],
        "properties": {
            "type": { "type": "string", "enum": Trouble::ALL.iter().map(|t| t.uri()).collect::<Vec<_>>() },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "instance": { "type": "string", "description": "The request's id." },
            "errors": { "type": "array", "items": { "type": "object", "properties": {
                "pointer": { "type": "string", "description": "JSON pointer into the body." },
                "parameter": { "type": "string" },
                "detail": { "type": "string" } } } },
        },
    })
}

fn document_error() -> Value {
    json!({
        "type": "object",
        "description": "Errors on the paths of the product import's document.",
        "required": ["success", "message", "error"],
        "properties": {
            "success": { "const": false },
            "message": { "type": "string" },
            "error": { "type": "object", "required": ["code"],
                       "properties": { "code": { "type": "string" } } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_routes() {
        for shape in SHAPES {
            let is_there = ROUTES
                .iter()
                .any(|route| format!("{} {}", route.method, route.path) == shape.route);
            assert!(is_there, "{shape:?}");
        }
    }

    #[test]
    fn every_route_is_in_it_with_its_role_its_errors_and_its_parameters() {
        let document = document();
        let mut ids = std::collections::HashSet::new();
        for route in ROUTES {
            let method = route.method.as_str().to_lowercase();
            let operation = &document["paths"][route.path][&method];
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{route:?}"
            );
            let responses = operation["responses"].as_object().unwrap();
            match route.access {
                Access::Open => assert_eq!(operation["security"], json!([]), "{route:?}"),
                Access::Role(role, _) => {
                    assert_eq!(operation["x-required-role"], json!(role), "{route:?}");
                    for status in ["401", "403", "429", "500", "503"] {
                        assert!(responses.contains_key(status), "{route:?} {status}");
                    }
                }
            }
            let n_params = route.path.matches('{').count();
            let parameters = operation["parameters"].as_array().unwrap();
            let of_path = parameters.iter().filter(|of| of["in"] == "path").count();
            assert_eq!(of_path, n_params, "{route:?}");
            assert!(n_params == 0 || responses.contains_key("404"), "{route:?}");
        }
    }

    #[test]
    fn an_import_s_options_are_those_that_it_takes() {
        use crate::ingest::product_import::plan::NAMES;
        let shape = SHAPES
            .iter()
            .find(|shape| shape.route == "POST /import/products");
        let described = members(shape.unwrap().body);
        let mut described: Vec<&str> = described.iter().map(|it| it.name.as_str()).collect();
        let mut known: Vec<&str> = NAMES.into_iter().chain(["tenant"]).collect();
        described.sort_unstable();
        known.sort_unstable();
        assert_eq!(described, known);
    }

    #[test]
    fn every_answer_is_described() {
        for route in ROUTES
            .iter()
            .filter(|route| media(route.path) == "application/json")
        {
            for status in shape_of(route)
                .answers
                .iter()
                .filter(|status| **status != 204)
            {
                let schema = answer::schema(route.method.as_str(), route.path, *status);
                let is_itself = route.path == "/openapi.json";
                assert!(schema.is_some() || is_itself, "{route:?} {status}");
            }
        }
    }

    #[test]
    fn the_committed_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let is = format!("{:#}\n", document());
        if std::env::var_os("INGESTD_BLESS").is_some() {
            std::fs::write(path, &is).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == is,
            "docs/openapi.json is stale; run: INGESTD_BLESS=1 cargo test committed_document"
        );
    }
}
