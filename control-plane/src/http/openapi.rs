//! The API's description, generated from the handlers, and what every operation has in common.

use utoipa::OpenApi;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Required, ResponseBuilder};

use super::problem::Problem;
use crate::limits;

/// The description's frame.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dunlin control plane",
        description = "Devices, models, telemetry and access of a fleet.\n\n\
            Times are RFC 3339 in UTC. Errors are `application/problem+json`. Lists come in pages. Changes to what others \
            may change too carry `If-Match`; POST requests may carry `Idempotency-Key`. A token goes into the header \
            `Authorization: Bearer dunlin_…`."
    ),
    components(schemas(Problem))
)]
pub(super) struct Frame;

/// Completes the description: security, the problem that any operation may answer with, and the headers of writes.
pub(super) fn complete(openapi: &mut utoipa::openapi::OpenApi) {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("dunlin_…")
        .description(Some("An access token: `dunlin token create`, or POST /api/v1/tokens"))
        .build();
    let components = openapi.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    openapi.security = Some(vec![SecurityRequirement::new("token", std::iter::empty::<&str>())]);
    for item in openapi.paths.paths.values_mut() {
        let PathItem { get, put, post, delete, patch, .. } = item;
        for operation in [get, put, post, delete, patch].into_iter().flatten() {
            answer_problems(operation);
        }
        // Bodies that are no JSON are artifacts, which are the same when they are sent again.
        if let Some(post) = post.as_mut().filter(|post| takes_json(post)) {
            let key = text(1, limits::IDEMPOTENCY_KEY_CHARS, "^[!-~]+$");
            let doc =
                "Any word; a repetition with the same one has no further effect and gets the same answer";
            add_header(post, "Idempotency-Key", Required::False, doc, key);
        }
        // Signatures are merged with those that are there: nobody's are lost.
        let put = put.as_mut().filter(|put| takes_json(put));
        let doc = "The ETag of the state that the change is based on, or *";
        for (operation, required) in
            [(put, Required::True), (patch.as_mut(), Required::True), (delete.as_mut(), Required::False)]
        {
            if let Some(operation) = operation {
                add_header(operation, "If-Match", required, doc, text(1, 1_024, "^[ -~]+$"));
            }
        }
    }
}

/// Whether the operation's body is JSON, or there is none.
fn takes_json(operation: &Operation) -> bool {
    match &operation.request_body {
        None => true,
        Some(RefOr::T(body)) => body.content.contains_key("application/json"),
        Some(RefOr::Ref(_)) => false,
    }
}

fn answer_problems(operation: &mut Operation) {
    let problem = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(problem)).build();
    let response = ResponseBuilder::new()
        .description("A problem: see `type`, `detail` and `field`")
        .content("application/problem+json", content)
        .build();
    operation.responses.responses.entry("default".to_owned()).or_insert(RefOr::T(response));
}

fn add_header(operation: &mut Operation, name: &str, required: Required, doc: &str, schema: ObjectBuilder) {
    let parameters = operation.parameters.get_or_insert_default();
    let is_there = parameters.iter().any(|parameter| match parameter {
        RefOr::T(Parameter { name: existing, .. }) => existing.eq_ignore_ascii_case(name),
        RefOr::Ref(_) => false,
    });
    if !is_there {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(required)
            .description(Some(doc))
            .schema(Some(schema.build()))
            .build();
        parameters.push(RefOr::T(parameter));
    }
}

fn text(min: usize, max: usize, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .min_length(Some(min))
        .max_length(Some(max))
        .pattern(Some(pattern))
}
