//! The filter language over devices: `tags.region == "eu" and hardware == "cortex-m7" and running.kws < 3`.
//!
//! One text means the same everywhere: [`Filter::matches`] decides it for one device in memory, [`Filter::to_sql`]
//! for all devices in the database, and a property test holds the two together. `docs/filters.md` has the grammar.
//!
//! The logic has two values. A comparison with a value that the device does not have is false, and `x != y` is
//! exactly `not (x == y)`, so it is true for devices without an `x`.

mod ast;
mod error;
mod eval;
mod lexer;
mod parser;
mod sql;
#[cfg(test)]
mod tests;

pub use ast::{CompareOp, Field, Filter, Instant, Literal};
pub use error::FilterError;
pub use eval::{Facts, SlotFacts};
pub use sql::{SqlContext, SqlFilter, SqlValue};

use std::str::FromStr;

/// Longest filter, in bytes.
pub const MAX_BYTES: usize = 4096;
/// Deepest nesting of parentheses and `not`.
pub const MAX_DEPTH: usize = 32;
/// Most comparisons in a filter, counting the values of lists.
pub const MAX_TERMS: usize = 256;
/// Longest text value or pattern, in characters.
pub const MAX_TEXT_CHARS: usize = 256;

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// With the place in `text`, and a suggestion where there is one.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        parser::parse(text)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Filter, FilterError> {
        Filter::parse(text)
    }
}
