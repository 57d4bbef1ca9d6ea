//! How often devices report: settings of a fleet, which a device may have of its own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::Problem;

/// How often devices report. 0 leaves a value to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How often a device sends what it has, in seconds.
    #[schema(minimum = 0, maximum = 604800)]
    pub report_period_s: i64,
    /// When a window of statistics closes, in seconds.
    #[schema(minimum = 0, maximum = 604800)]
    pub window_period_s: i64,
    /// After how many inferences a window closes.
    #[schema(minimum = 0, maximum = 4294967295_i64)]
    pub window_count: i64,
}

/// A device's own settings; what is null is the fleet's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OwnSettings {
    /// How often the device sends what it has, in seconds; 0 leaves it to the device.
    #[schema(minimum = 0, maximum = 604800)]
    pub report_period_s: Option<i64>,
    /// When a window of statistics closes, in seconds; 0 leaves it to the device.
    #[schema(minimum = 0, maximum = 604800)]
    pub window_period_s: Option<i64>,
    /// After how many inferences a window closes; 0 leaves it to the device.
    #[schema(minimum = 0, maximum = 4294967295_i64)]
    pub window_count: Option<i64>,
}

/// A week, in seconds.
const LONGEST_PERIOD_S: i64 = 604_800;

impl Settings {
    /// What counts for a device of the fleet with these settings.
    pub fn with(&self, own: &OwnSettings) -> Settings {
        Settings {
            report_period_s: own.report_period_s.unwrap_or(self.report_period_s),
            window_period_s: own.window_period_s.unwrap_or(self.window_period_s),
            window_count: own.window_count.unwrap_or(self.window_count),
        }
    }

    /// Checks the ranges; `field` is the settings' place in the request.
    pub(crate) fn check(&self, field: &str) -> Result<(), Problem> {
        OwnSettings {
            report_period_s: Some(self.report_period_s),
            window_period_s: Some(self.window_period_s),
            window_count: Some(self.window_count),
        }
        .check(field)
    }
}

impl OwnSettings {
    /// Checks the ranges; `field` is the settings' place in the request.
    pub(crate) fn check(&self, field: &str) -> Result<(), Problem> {
        for (name, value, largest) in [
            ("report_period_s", self.report_period_s, LONGEST_PERIOD_S),
            ("window_period_s", self.window_period_s, LONGEST_PERIOD_S),
            ("window_count", self.window_count, i64::from(u32::MAX)),
        ] {
            if value.is_some_and(|value| !(0..=largest).contains(&value)) {
                let detail = format!("0 to {largest} is expected; 0 leaves it to the device");
                return Err(Problem::unprocessable(&format!("{field}/{name}"), detail));
            }
        }
        Ok(())
    }
}
