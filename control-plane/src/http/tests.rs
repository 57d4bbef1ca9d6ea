//! What every endpoint shares, through HTTP.
