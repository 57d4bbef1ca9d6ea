//! What the HTTP layer remembers between requests.

use std::net::IpAddr;

use tokio::sync::Semaphore;

use super::problem::Problem;
use super::rate_limit::RateLimit;
use crate::config::Config;
use crate::limits;

/// Rates and load.
#[derive(Debug)]
pub struct HttpState {
    /// Requests under way.
    pub(super) in_flight: Semaphore,
    /// Rates of access tokens, by principal.
    pub(super) tokens: RateLimit<String>,
    /// Rates of addresses without a valid token.
    pub(super) addresses: RateLimit<IpAddr>,
}

impl HttpState {
    /// With the settings' rates.
    pub fn new(config: &Config) -> Self {
        HttpState {
            in_flight: Semaphore::new(limits::REQUESTS_IN_FLIGHT),
            tokens: RateLimit::new(config.http_token_rate, config.http_token_burst),
            addresses: RateLimit::new(config.http_address_rate, config.http_address_burst),
        }
    }

    /// Counts a request of somebody who did not prove who they are.
    ///
    /// # Errors
    /// 429 when the address sends too many.
    pub(crate) fn stranger(&self, address: IpAddr, now_us: i64) -> Result<(), Problem> {
        self.addresses.take(address, now_us).map_err(Problem::too_many_requests)
    }
}
