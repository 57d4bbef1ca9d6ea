//! Fetching roots over HTTP: they are public, and signed.

use std::time::Duration;

use dunlin_protocol::limits::MAX_ROOT;

use crate::http;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The root with this number, as the control plane has it; why there is none.
pub(super) async fn root(server: String, ca: Option<String>, number: u32) -> Result<Vec<u8>, String> {
    let client = http::client(&server, ca.as_deref()).map_err(|error| error.to_string())?;
    let client = client.timeout(TIMEOUT).build().map_err(http::cause)?;
    let address = format!("{server}/api/v1/trust/roots/{number}");
    let response = client.get(address).send().await.map_err(http::cause)?;
    let status = response.status();
    let body = http::body(response, MAX_ROOT).await.map_err(http::cause)?;
    let body = body.ok_or_else(|| format!("it is longer than {MAX_ROOT} bytes"))?;
    match status.is_success() {
        true => Ok(body),
        false => Err(http::reason(&body).unwrap_or_else(|| status.to_string())),
    }
}
